"""Graphs from files: GraphML, or one edge a line."""

from pathlib import Path

import networkx as nx

from topology.families import Graph


def read_graph(path: Path) -> Graph:
    """Read a graph; an edge j -> i of a directed one means that i hears j, others count both ways.

    Nodes are numbered in the order of their names, numbers before words: 0, 1, ..., N-1.

    Args:
        path: a `.graphml` file, or an edge list with two names a line.

    Raises:
        ValueError: if the file is not such a graph.
        OSError: if it cannot be read.
    """
    try:
        graph = nx.read_graphml(path) if path.suffix == ".graphml" else nx.read_edgelist(path, data=False)
    except OSError:
        raise
    except Exception as failure:  # the parsers of networkx raise errors of many kinds
        raise ValueError(f"{path} is neither GraphML nor a list of edges: {failure}") from None
    return relabelled(graph)


def relabelled(graph: "nx.Graph[object]") -> Graph:
    """The same graph on the nodes 0..N-1, directed and without loops.

    Example:
        >>> sorted(relabelled(nx.path_graph(["b", "a", "c"])).edges)
        [(0, 1), (0, 2), (1, 0), (2, 0)]
    """
    names = sorted(graph.nodes, key=_rank)
    plain = nx.DiGraph(graph.to_directed())
    plain.remove_edges_from(list(nx.selfloop_edges(plain)))
    result: Graph = nx.DiGraph()
    number = {name: index for index, name in enumerate(names)}
    result.add_nodes_from(range(len(names)))
    result.add_edges_from((number[j], number[i]) for j, i in plain.edges)
    return result


def _rank(name: object) -> tuple[int, float, str]:
    """Numbers by value, then words by letters."""
    text = str(name)
    return (0, float(text), "") if text.lstrip("-").isdigit() else (1, 0.0, text)
