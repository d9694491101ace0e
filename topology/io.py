"""Graphs from files: GraphML, or one edge a line. What is too large for the memory is not read."""

import ast
import bz2
import gzip
import math
from collections.abc import Callable
from io import BufferedIOBase, TextIOWrapper
from numbers import Real
from pathlib import Path
from typing import IO, NoReturn, cast
from xml.parsers.expat import ParserCreate

import networkx as nx

from topology.families import Graph
from topology.nodes import in_order

_EDGE_BYTES = 1600  # at most: for an edge or an element networkx keeps dictionaries, in each graph on the way
_NO_WEIGHTS = "weights are not read, and what is not an edge must be left out"
_LONGEST_LINE = 4096
_CHUNK = 2**20
_OPENERS: dict[str, Callable[..., object]] = {".gz": gzip.open, ".bz2": bz2.open}


def read_named(path: Path, free: int | None = None) -> "nx.Graph[object]":
    """Read a graph whose nodes have the names and attributes that stand in the file.

    Args:
        path: a `.graphml` file, or an edge list with two names a line; `.gz` and `.bz2` are unpacked.
        free: bytes of memory that there are; None for as many as it takes.

    Raises:
        ValueError: if the file is not such a graph, or takes more memory than is free.
        OSError: if it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("this is not a file")
    kind = path.with_suffix("").suffix if path.suffix in _OPENERS else path.suffix
    try:
        return _read_graphml(path, free) if kind == ".graphml" else _read_edges(path, free)
    except (OSError, ValueError):
        raise
    except KeyError as failure:
        raise ValueError(f"GraphML does not know {failure}") from None
    except Exception as failure:  # expat, zlib and networkx raise errors of many kinds
        raise ValueError(str(failure) or type(failure).__name__) from None


def relabelled(graph: "nx.Graph[object]") -> Graph:
    """The same graph on the positions 0..N-1, directed and without loops.

    An edge j -> i of a directed graph means that i hears j, others count both ways. Positions follow the
    names of the nodes, numbers before words. Weights of edges play no role, but one that is zero, negative or
    not finite is refused: it would count as any other.

    Raises:
        ValueError: if an edge has a weight that is zero, negative or not finite.

    Example:
        >>> sorted(relabelled(nx.path_graph(["b", "a", "c"])).edges)
        [(0, 1), (0, 2), (1, 0), (2, 0)]
    """
    number = {name: index for index, name in enumerate(in_order(graph))}
    result: Graph = nx.DiGraph()
    result.add_nodes_from(range(len(number)))
    both = not graph.is_directed()
    for sender, receiver, data in graph.edges(data=True):
        if _is_no_edge(weight := data.get("weight")):
            raise ValueError(f"the edge {sender!s:.40}, {receiver!s:.40} has weight {weight}; {_NO_WEIGHTS}")
        j, i = number[sender], number[receiver]
        if i != j:
            result.add_edge(j, i)
            if both:
                result.add_edge(i, j)
    return result


def _read_edges(path: Path, free: int | None) -> "nx.Graph[object]":
    """What networkx reads: two names a line; a third entry may be a weight, or a dictionary with one."""
    _check_lines(path, free)
    with TextIOWrapper(cast(IO[bytes], _opened(path)), encoding="utf-8-sig") as lines:
        checked = (_checked(count, line) for count, line in enumerate(lines, 1))
        graph = cast("nx.Graph[object]", nx.parse_edgelist(checked, data=False))
    if not graph:
        raise ValueError("the file holds no edge")
    return graph


def _checked(count: int, line: str) -> str:
    """A line of an edge list, which networkx would otherwise pass over where it is no edge."""
    names = line.partition("#")[0].split(maxsplit=2)
    if len(names) == 1:
        raise ValueError(f"line {count} holds one name, and an edge has two")
    if not "".join(names[:2]).isprintable():
        raise ValueError(f"line {count} holds characters that are not printable")
    if len(names) > 2 and _is_no_edge(_weight(names[2])):
        raise ValueError(f"line {count} has weight {_weight(names[2])}; {_NO_WEIGHTS}")
    return line


def _read_graphml(path: Path, free: int | None) -> "nx.Graph[object]":
    """What networkx reads, after one look at what it would take.

    Entities are refused where they are declared: they can name other files, and grow without bound.
    """
    elements, graphs = 0, 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal elements, graphs
        elements += 1
        graphs += name.rpartition(":")[2] == "graph"
        _check_room(elements * _EDGE_BYTES, free)

    def refuse(*declaration: object) -> NoReturn:
        raise ValueError("the file declares entities, which a graph does not need")

    parser = ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = begin, refuse
    with _opened(path) as file:
        read = 0
        while chunk := file.read(_CHUNK):
            read += len(chunk)
            _check_room(4 * read, free)  # a character of text takes up to four bytes
            parser.Parse(chunk)
        parser.Parse(b"", True)
    if graphs != 1:
        raise ValueError(f"the file holds {graphs} graphs, and one can be read")
    with _opened(path) as file:
        return cast("nx.Graph[object]", nx.read_graphml(file))


def _check_lines(path: Path, free: int | None) -> None:
    """Refuse an edge list that does not fit, or has a line without an end, before its names are kept."""
    lines, tail = 0, 0
    with _opened(path) as file:
        while chunk := file.read(_CHUNK):
            lines += chunk.count(b"\n")
            _check_room(lines * _EDGE_BYTES, free)
            tail = len(chunk) - chunk.rfind(b"\n") - 1 + (0 if b"\n" in chunk else tail)
            if tail > _LONGEST_LINE:
                raise ValueError(f"a line is longer than {_LONGEST_LINE:,} characters")


def _check_room(needed: int, free: int | None) -> None:
    if free is not None and needed > free:
        available = f"{free / 2**30:.1f} GiB of memory that are free"
        raise ValueError(f"the graph takes more than the {available}; take one of fewer edges")


def _opened(path: Path) -> BufferedIOBase:
    return cast(BufferedIOBase, _OPENERS.get(path.suffix, open)(path, "rb"))


def _weight(entry: str) -> object:
    """The weight in what follows two names; None if it tells of something else."""
    try:
        return float(entry)
    except ValueError:
        if not entry.startswith("{"):
            return None
    try:
        data = ast.literal_eval(entry)
    except Exception:  # what is not Python, or too deep for it, is no weight
        return None
    return data.get("weight") if isinstance(data, dict) else None


def _is_no_edge(weight: object) -> bool:
    return isinstance(weight, Real) and not 0 < float(weight) < math.inf
