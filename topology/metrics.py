"""How far and how fast messages travel on a graph."""

from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Int
from scipy.sparse.linalg import eigs

from topology.families import Graph
from topology.mixing import Mixing

_DENSE = 1000  # up to so many tokens all eigenvalues are computed


class Reach(NamedTuple):
    """What a graph allows.

    Attributes:
        diameter: largest number of rounds from a token to one that hears it; None if some never does.
        gap: 1 - |second eigenvalue| of the mixing matrix.
        mixing_time: rounds in which a deviation from the mean shrinks by e, 1 / -log(1 - gap).
    """

    diameter: int | None
    gap: float
    mixing_time: float


def reach(graph: Graph, mixing: Mixing) -> Reach:
    """Diameter, spectral gap and mixing time.

    Args:
        graph: who hears whom.
        mixing: with which weights.

    Source: D. A. Levin and Y. Peres, Markov Chains and Mixing Times, chapter 12.

    Example:
        >>> from topology.families import Family, complete
        >>> from topology.mixing import uniform
        >>> graph = complete(Family(5))
        >>> reach(graph, uniform(graph))[0]
        1
    """
    strong = nx.is_strongly_connected(graph)
    diameter = nx.diameter(graph) if strong and graph.number_of_nodes() > 1 else None
    return Reach(int(diameter) if diameter is not None else None, *spectrum(mixing))


def spectrum(mixing: Mixing) -> tuple[float, float]:
    """Spectral gap and mixing time, as `Reach` has them.

    Example:
        >>> from topology.mixing import everyone
        >>> spectrum(everyone(5))
        (1.0, 0.0)
    """
    second = min(_second_eigenvalue(mixing), 1.0)
    time = 0.0 if second < 1e-12 else float("inf") if second > 1 - 1e-12 else -1.0 / np.log(second)
    return 1.0 - second, float(time)


def light_cone(graph: Graph, rounds: int) -> Int[np.ndarray, " N"]:
    """Number of tokens, itself included, whose data can have reached each token after some rounds.

    Source: THEORY.md section 6, locality.

    Example:
        >>> from topology.families import Family, path
        >>> light_cone(path(Family(5)), rounds=1).tolist()
        [2, 3, 3, 3, 2]
    """
    return light_cones(graph, rounds)[-1]


def light_cones(graph: Graph, rounds: int) -> Int[np.ndarray, "rounds N"]:
    """The light cone of each token after 0..L rounds, from one breadth-first search for each token.

    Args:
        graph: who hears whom.
        rounds: L >= 0.

    Example:
        >>> from topology.families import Family, path
        >>> light_cones(path(Family(4)), rounds=3).tolist()
        [[1, 1, 1, 1], [2, 3, 3, 2], [3, 4, 4, 3], [4, 4, 4, 4]]
    """
    heard = graph.reverse(copy=False)
    sizes = np.empty((rounds + 1, graph.number_of_nodes()), dtype=np.int64)
    for node in range(graph.number_of_nodes()):
        distance = nx.single_source_shortest_path_length(heard, node, cutoff=rounds)
        sizes[:, node] = np.bincount(list(distance.values()), minlength=rounds + 1).cumsum()
    return sizes


def _second_eigenvalue(mixing: Mixing) -> float:
    """Second largest modulus among the eigenvalues of the mixing matrix."""
    if mixing.is_shared or mixing.tokens < 2:
        return 0.0
    shares = mixing.shares()
    if mixing.tokens <= _DENSE:
        values = np.linalg.eigvals(shares.toarray())
    else:
        start = np.random.default_rng(0).normal(size=mixing.tokens)  # the same answer every time
        values = eigs(shares, k=2, which="LM", v0=start, return_eigenvectors=False)
    return float(np.sort(np.abs(values))[-2])
