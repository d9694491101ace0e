"""Locality graphs: an edge j -> i means that token i hears token j.

Every graph is a networkx DiGraph on the positions 0..N-1. A token hears itself by weight of the mixing,
not by an edge of the graph.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import networkx as nx

if TYPE_CHECKING:
    Graph: TypeAlias = "nx.DiGraph[int]"
else:
    Graph = nx.DiGraph


def complete(tokens: int) -> Graph:
    """Everyone hears everyone: attention without a mask.

    Example:
        >>> complete(4).number_of_edges()
        12
    """
    return nx.complete_graph(tokens, create_using=nx.DiGraph)


def causal(tokens: int) -> Graph:
    """Token i hears the tokens before it: the mask of a causal transformer.

    Example:
        >>> sorted(causal(3).edges)
        [(0, 1), (0, 2), (1, 2)]
    """
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(range(tokens))
    graph.add_edges_from((j, i) for i in range(tokens) for j in range(i))
    return graph


FAMILIES: dict[str, Callable[[int], Graph]] = {"complete": complete, "causal": causal}
