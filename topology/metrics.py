"""How far and how fast messages travel on a graph."""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Int
from scipy.sparse.linalg import eigs

from topology.families import FAMILIES, Family, Graph, causal, complete, ring, star
from topology.mixing import SCALE, Mixing

MOST_COMPUTED = 2000  # up to so many tokens diameter and spectrum of any graph take seconds
_DENSE = 1000  # up to so many tokens all eigenvalues are computed


class Reach(NamedTuple):
    """What a graph allows.

    Attributes:
        diameter: largest number of rounds from a token to one that hears it; 0 of a single token, None if
            some never does.
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
    return Reach(int(nx.diameter(graph)) if strong else None, *spectrum(mixing))


def spectrum(mixing: Mixing) -> tuple[float, float]:
    """Spectral gap and mixing time, as `Reach` has them.

    Example:
        >>> from topology.mixing import everyone
        >>> spectrum(everyone(5))
        (1.0, 0.0)
    """
    gap = 1.0 - min(_second_eigenvalue(mixing), 1.0)
    return gap, _mixing_time(gap)


def closed_reach(kind: str, family: Family, weights: str) -> Reach | None:
    """`reach` in closed form, at any size; None where none is written.

    With s the share of a neighbour, 1 / (1 + d) at degree d, of Metropolis weights rounded down to a multiple
    of 2^-20, the eigenvalue of second largest modulus is

        complete, d = N - 1:    1 - N s
        ring of degree d:       among 1 - s (d - 2 sum_j cos(2 pi m j / N)), j = 1..d/2, m = 1..N-1
        star, N > 2:            1 - s, with the share s that a leaf gives the hub
        causal, N > 1:          1 / 2, what token 1 gives itself: a triangular matrix has them on its diagonal

    Args:
        kind: name of the family.
        family: its parameters, of a graph that exists.
        weights: `uniform` or `metropolis`.

    Source: D. A. Levin and Y. Peres, Markov Chains and Mixing Times, chapter 12.

    Example:
        >>> closed_reach("star", Family(100_000), "uniform").diameter
        2
        >>> closed_reach("grid", Family(100_000), "uniform") is None
        True
    """
    form = _CLOSED.get(FAMILIES[kind]) if kind in FAMILIES else None
    if form is None or family.tokens > SCALE:  # Metropolis weights of larger degrees are zero
        return None
    whole = SCALE if weights == "metropolis" else None

    def share(degree: int) -> Fraction:
        return Fraction(1, 1 + degree) if whole is None else Fraction(whole // (1 + degree), whole)

    diameter, gap = form(family, weights, share)
    return Reach(diameter, float(gap), _mixing_time(float(gap)))


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


def _mixing_time(gap: float) -> float:
    """1 / -log(1 - gap), which is 0 or infinite within rounding of the spectrum."""
    if gap > 1 - 1e-12:
        return 0.0
    return float(-1.0 / np.log1p(-gap)) if gap > 1e-12 else float("inf")


_Share = Callable[[int], Fraction]  # of a neighbour, at a degree


def _complete(family: Family, weights: str, share: _Share) -> tuple[int, Fraction]:
    return min(family.tokens - 1, 1), family.tokens * share(family.tokens - 1)


def _causal(family: Family, weights: str, share: _Share) -> tuple[int | None, Fraction]:
    return (0, Fraction(1)) if family.tokens == 1 else (None, share(1))


def _star(family: Family, weights: str, share: _Share) -> tuple[int, Fraction]:
    if family.tokens < 3:
        return _complete(family, weights, share)
    return 2, share(1 if weights == "uniform" else family.tokens - 1)


def _ring(family: Family, weights: str, share: _Share) -> tuple[int, float]:
    tokens, reach = family.tokens, family.degree // 2
    part = float(share(family.degree))
    angles = np.pi * np.arange(1, tokens // 2 + 1) / tokens
    kernel = np.sin((family.degree + 1) * angles) / np.sin(angles)  # of Dirichlet: 1 + 2 sum_j cos
    second = np.abs(1.0 - part * (family.degree + 1 - kernel))
    slowest = int(np.argmax(second))
    # Without cancellation: 1 - cos(2 a) = 2 sin(a)^2.
    distance = part * 4.0 * float((np.sin(np.arange(1, reach + 1) * angles[slowest]) ** 2).sum())
    return -(-(tokens // 2) // reach), min(distance, 2.0 - distance)


_CLOSED: dict[
    Callable[[Family], Graph], Callable[[Family, str, _Share], tuple[int | None, Fraction | float]]
] = {
    complete: _complete,
    causal: _causal,
    ring: _ring,
    star: _star,
}
