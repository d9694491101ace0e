"""Locality graphs: an edge j -> i means that token i hears token j.

Every graph is a networkx DiGraph on the positions 0..N-1; an undirected family has both directions of each
edge. A token hears itself by weight of the mixing, not by an edge. Random families are seeded, and the same
on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import networkx as nx

if TYPE_CHECKING:
    Graph: TypeAlias = "nx.DiGraph[int]"
else:
    Graph = nx.DiGraph

_TRIES = 1000  # draws of a random graph until one is connected


@dataclass(frozen=True)
class Family:
    """Parameters of a graph family; each family reads those that it has.

    Attributes:
        tokens: N.
        degree: neighbours of a token, without itself.
        rewire: share of edges that are rewired at random.
        window: how many tokens back a causal token hears; None for all.
        seed: of random families.
    """

    tokens: int
    degree: int = 4
    rewire: float = 0.2
    window: int | None = None
    seed: int = 0


def complete(family: Family) -> Graph:
    """Everyone hears everyone: attention without a mask.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> complete(Family(4)).number_of_edges()
        12
    """
    return nx.complete_graph(family.tokens, create_using=nx.DiGraph)


def causal(family: Family) -> Graph:
    """Token i hears the tokens before it, or the last `window` of them: the mask of a causal transformer.

    Source: A. Vaswani et al., Attention is all you need, arXiv:1706.03762, section 3.2.3; for the window
        I. Beltagy et al., Longformer, arXiv:2004.05150.

    Example:
        >>> sorted(causal(Family(4, window=2)).edges)
        [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    """
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(range(family.tokens))
    back = family.tokens if family.window is None else family.window
    graph.add_edges_from((j, i) for i in range(family.tokens) for j in range(max(0, i - back), i))
    return graph


def ring(family: Family) -> Graph:
    """Ring lattice: each token hears the degree/2 nearest on either side.

    Raises:
        ValueError: if the degree is odd, or not below the number of tokens.

    Source: D. J. Watts and S. H. Strogatz, doi:10.1038/30918, before any edge is rewired.

    Example:
        >>> sorted(ring(Family(6, degree=2)).pred[0])
        [1, 5]
    """
    _check_lattice(family)
    return nx.watts_strogatz_graph(family.tokens, family.degree, 0.0).to_directed()


def path(family: Family) -> Graph:
    """Each token hears its one or two neighbours on a line.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> path(Family(5)).number_of_edges()
        8
    """
    return nx.path_graph(family.tokens).to_directed()


def grid(family: Family) -> Graph:
    """Rectangle as square as N allows, four neighbours inside; a line if N is prime.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> grid(Family(12)).number_of_edges()  # 3 by 4
        34
    """
    rows = next(k for k in range(int(family.tokens**0.5), 0, -1) if family.tokens % k == 0)
    lattice = nx.grid_2d_graph(rows, family.tokens // rows)
    return nx.convert_node_labels_to_integers(lattice, ordering="sorted").to_directed()


def small_world(family: Family) -> Graph:
    """Ring lattice with a share of its edges rewired, drawn again until it is connected.

    Source: D. J. Watts and S. H. Strogatz, doi:10.1038/30918.

    Example:
        >>> nx.is_strongly_connected(small_world(Family(20, degree=4, rewire=0.5)))
        True
    """
    _check_lattice(family)
    return nx.connected_watts_strogatz_graph(
        family.tokens, family.degree, family.rewire, tries=_TRIES, seed=family.seed
    ).to_directed()


def random_regular(family: Family) -> Graph:
    """Uniform among connected graphs in which every token has the same degree.

    Raises:
        ValueError: if N times the degree is odd, the degree is not below N, or no draw is connected.

    Source: A. Steger and N. C. Wormald, doi:10.1017/S0963548399003867.

    Example:
        >>> sorted(set(dict(random_regular(Family(10, degree=3)).in_degree).values()))
        [3]
    """
    if family.tokens * family.degree % 2 or not 0 < family.degree < family.tokens:
        raise ValueError(
            f"a regular graph needs an even product of tokens and degree, and 0 < degree < tokens; got "
            f"{family.tokens} tokens of degree {family.degree}"
        )
    return _connected(family, lambda seed: nx.random_regular_graph(family.degree, family.tokens, seed=seed))


_DRAWN_BY_PAIR = 4096  # tokens
_MOST_ALONE = 30  # expected number of tokens without neighbours: a draw is connected with chance exp(-30)


def erdos_renyi(family: Family) -> Graph:
    """Independent edges with mean degree `degree`, conditioned on being connected.

    Raises:
        ValueError: if no draw is connected.

    Source: E. N. Gilbert, Random graphs, doi:10.1214/aoms/1177706098.

    Example:
        >>> nx.is_strongly_connected(erdos_renyi(Family(20, degree=6)))
        True
    """
    chance = min(1.0, family.degree / max(1, family.tokens - 1))
    alone = family.tokens * (1.0 - chance) ** (family.tokens - 1)
    if alone > _MOST_ALONE:
        raise ValueError(
            f"of {family.tokens} tokens about {alone:.0f} hear no other at degree {family.degree}; "
            "raise the degree, for no graph is connected"
        )
    # The same law: one draws each pair, minutes for 30,000 tokens, the other each edge.
    make = nx.gnp_random_graph if family.tokens <= _DRAWN_BY_PAIR else nx.fast_gnp_random_graph
    return _connected(family, lambda seed: make(family.tokens, chance, seed=seed))


def star(family: Family) -> Graph:
    """Token 0 hears all, and all hear it.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> star(Family(5)).in_degree(0)
        4
    """
    return nx.star_graph(family.tokens - 1).to_directed()


def tree(family: Family) -> Graph:
    """Balanced tree in breadth-first order: a token's parent and its `degree` - 1 children.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> sorted(tree(Family(7, degree=3)).pred[1])
        [0, 3, 4]
    """
    graph = nx.full_rary_tree(max(1, family.degree - 1), family.tokens)
    return graph.to_directed()


def barbell(family: Family) -> Graph:
    """Two complete halves joined by one edge: slow mixing at a small diameter.

    Source: D. Aldous and J. A. Fill, Reversible Markov Chains and Random Walks on Graphs (2002), chapter 5.

    Example:
        >>> barbell(Family(6)).has_edge(2, 3)
        True
    """
    half = family.tokens // 2
    parts: Graph = nx.compose(
        nx.complete_graph(range(half), create_using=nx.DiGraph),
        nx.complete_graph(range(half, family.tokens), create_using=nx.DiGraph),
    )
    if 0 < half < family.tokens:
        parts.add_edges_from([(half - 1, half), (half, half - 1)])
    return parts


FAMILIES: dict[str, Callable[[Family], Graph]] = {
    "complete": complete,
    "causal": causal,
    "ring": ring,
    "path": path,
    "grid": grid,
    "small_world": small_world,
    "random_regular": random_regular,
    "erdos_renyi": erdos_renyi,
    "star": star,
    "tree": tree,
    "barbell": barbell,
}


def _check_lattice(family: Family) -> None:
    if family.degree % 2 or not 0 < family.degree < family.tokens:
        raise ValueError(
            f"a ring lattice needs an even degree below the number of tokens; got degree {family.degree} "
            f"for {family.tokens} tokens"
        )


def _connected(family: Family, draw: "Callable[[int], nx.Graph[int]]") -> Graph:
    """The first connected graph among draws with seeds that follow from the family's."""
    for attempt in range(_TRIES):
        graph = draw(family.seed * _TRIES + attempt)
        if nx.is_connected(graph):
            return graph.to_directed()
    raise ValueError(
        f"none of {_TRIES} draws with {family.tokens} tokens and degree {family.degree} was connected; "
        "raise the degree"
    )
