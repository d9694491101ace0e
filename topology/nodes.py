"""The nodes of a graph as a user named them, in the order in which they become the positions 0..N-1."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

Plain = str | bool | int | float
_LARGEST = 2**63  # integers are stored with 64 bits


class Nodes(NamedTuple):
    """Names and attributes of the nodes of a graph, by position.

    Attributes:
        names: no two are the same.
        attributes: of each node those that are strings, truth values, integers of 64 bits or floats.
    """

    names: tuple[str, ...]
    attributes: tuple[Mapping[str, Plain], ...]

    def digest(self) -> str:
        """A hash that tells them apart from others.

        Example:
            >>> nodes_of(nx.Graph([("a", "b")])).digest() == nodes_of(nx.Graph([("b", "a")])).digest()
            True
        """
        return hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()


def in_order(graph: "nx.Graph[object]") -> list[object]:
    """The nodes in the order of their positions, whatever the order in which they were added.

    Numbers come by value, then words by letters; what is written alike is ordered by its type.

    Example:
        >>> in_order(nx.Graph([("b", 10), (2, "1"), ("1", 1)]))
        [1, '1', 2, 10, 'b']
    """
    return sorted(graph.nodes, key=_rank)


def nodes_of(graph: "nx.Graph[object]") -> Nodes:
    """What a graph calls its nodes: as text, and as Python writes it where two texts would be the same.

    Raises:
        ValueError: if two nodes have one name in Python's notation too.

    Example:
        >>> nodes_of(nx.Graph([(0, "a"), ("a", (0, 1))])).names
        ('0', '(0, 1)', 'a')
        >>> nodes_of(nx.Graph([(1, "1"), ("1", "a")])).names
        ('1', "'1'", "'a'")
    """
    ordered = in_order(graph)
    names = tuple(_text(_written(node, str)) for node in ordered)
    if len(set(names)) < len(names):
        names = tuple(_text(_written(node, repr)) for node in ordered)
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(f"two of its nodes are both called {twice:.40}; give each a name of its own")
    return Nodes(names, tuple(_plain(graph.nodes[node]) for node in ordered))


def _rank(name: object) -> tuple[int, int, str, str, str]:
    if isinstance(name, int):
        return 0, name, "", "int", ""
    text = _written(name, str)
    digits = text.removeprefix("-")
    whole = digits.isascii() and digits.isdigit() and len(digits) < 4000
    return (0, int(text), "", *_kind(name)) if whole else (1, 0, text, *_kind(name))


def _kind(name: object) -> tuple[str, str]:
    return type(name).__qualname__, _written(name, repr)


def _written(name: object, write: Callable[[object], str]) -> str:
    """A name as text, the same in every process: the members of a set have no order of their own.

    Raises:
        ValueError: if Python writes its address in memory.
    """
    if isinstance(name, frozenset):
        return "{" + ", ".join(sorted(_written(member, repr) for member in name)) + "}"
    if type(name) is tuple:
        members = ", ".join(_written(member, repr) for member in name)
        return f"({members},)" if len(name) == 1 else f"({members})"
    if type(name).__repr__ is object.__repr__ and type(name).__str__ is object.__str__:
        kind = type(name).__qualname__
        raise ValueError(f"a node is an object of {kind} without a name; call it by a text or a number")
    return write(name)


def _plain(attributes: Mapping[Any, object]) -> dict[str, Plain]:
    """What can be stored of a node's attributes, by name."""
    found: dict[str, Plain] = {}
    for key, given in attributes.items():
        value = given.item() if isinstance(given, np.generic) else given
        if isinstance(key, str) and (
            isinstance(value, bool | float) or (isinstance(value, int) and -_LARGEST <= value < _LARGEST)
        ):
            found[_text(key)] = value
        elif isinstance(key, str) and isinstance(value, str):
            found[_text(key)] = _text(value)
    return dict(sorted(found.items()))


def _text(text: str) -> str:
    """Text that every file can hold: what is no letter of Unicode is written as its code."""
    return text.encode("utf-8", "backslashreplace").decode()
