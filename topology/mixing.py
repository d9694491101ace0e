"""Mixing weights as exact integers, and the exact sums they give."""

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from jaxtyping import Float, Int, Integer
from scipy.sparse import csr_array, eye_array

from topology.families import FAMILIES, Graph

Sums = tuple[Int[np.ndarray, "rows C B"], Int[np.ndarray, "rows C B"], Int[np.ndarray, "rows C B"]]


@dataclass(frozen=True, eq=False)
class Mixing:
    """Integer weights a_ij with which token i hears token j; a mean divides by the sum heard.

    Attributes:
        weights: non-negative integers, row = receiver [N, N] sparse; or one row [1, N] that serves
            every receiver, when all hear the same.

    Example:
        >>> from topology.families import causal
        >>> uniform(causal(3)).weights.toarray()
        array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 1]])
    """

    weights: csr_array

    @property
    def tokens(self) -> int:
        """Number N of token positions."""
        return int(self.weights.shape[1])

    @property
    def is_shared(self) -> bool:
        """Whether one sum serves every token."""
        return bool(self.weights.shape[0] == 1)

    @cached_property
    def largest_row_sum(self) -> int:
        """Largest total weight of a receiver; with b bits the sums need b + log2 of it bits."""
        return int(self.weights.sum(axis=1).max())

    def effective(self) -> Float[np.ndarray, " N"]:
        """Effective number of tokens that each token hears, N_eff = (sum_j a_ij)^2 / sum_j a_ij^2.

        Source: THEORY.md section 6, locality, for one round.

        Example:
            >>> from topology.families import causal
            >>> uniform(causal(3)).effective().tolist()
            [1.0, 2.0, 3.0]
        """
        total = self.weights.sum(axis=1).astype(float)
        per_row = total**2 / self.weights.power(2).sum(axis=1)
        return np.broadcast_to(per_row, (self.tokens,)).copy()

    def tally(
        self,
        codes: Integer[np.ndarray, "N K B"],
        wire: Integer[np.ndarray, "N K B"],
        count: int,
        receivers: Int[np.ndarray, " n"],
    ) -> Sums:
        """Sum of weight x wire, of weights and of squared weights, code by code, for some receivers.

        The sums are exact integers, so they depend neither on the order nor on the place of addition.

        Args:
            codes: code of each message of all N tokens.
            wire: integer of each message.
            count: number C of codes.
            receivers: positions whose sums are wanted; one row serves all if the weights are shared.
        """
        rows = np.zeros(1, dtype=np.int64) if self.is_shared else receivers
        weights = self.weights[rows]
        squares = weights.power(2)
        plain = bool((weights.data == 1).all())
        prompts = wire.shape[2]
        total, weight, square = (np.empty((len(rows), count, prompts), dtype=np.int64) for _ in range(3))
        for code in range(count):
            said = codes == code
            spoken = said.sum(axis=1, dtype=np.int64)
            total[:, code] = weights @ np.where(said, wire, 0).sum(axis=1, dtype=np.int64)
            weight[:, code] = weights @ spoken
            square[:, code] = weight[:, code] if plain else squares @ spoken
        return total, weight, square


def uniform(graph: Graph) -> Mixing:
    """Weight 1 for oneself and for each token that one hears.

    Example:
        >>> from topology.families import complete
        >>> uniform(complete(2)).weights.toarray()
        array([[1, 1],
               [1, 1]])
    """
    size = graph.number_of_nodes()
    hears = nx.to_scipy_sparse_array(
        graph, nodelist=list(range(size)), dtype=np.dtype(np.int64), weight=None
    ).T
    return Mixing(csr_array(hears + eye_array(size, dtype=np.int64)))


def everyone(tokens: int) -> Mixing:
    """`uniform(complete(tokens))` in one row, without its N^2 edges.

    Example:
        >>> everyone(3).effective().tolist()
        [3.0, 3.0, 3.0]
    """
    return Mixing(csr_array(np.ones((1, tokens), dtype=np.int64)))


def past(tokens: int) -> Mixing:
    """`uniform(causal(tokens))` without going through its N^2 / 2 edges one by one.

    Example:
        >>> past(3).effective().tolist()
        [1.0, 2.0, 3.0]
    """
    return Mixing(csr_array(np.tri(tokens, dtype=np.int64)))


def mixing_of(kind: str, tokens: int) -> Mixing:
    """Uniform mixing on a graph family, by its name in an experiment file.

    Example:
        >>> mixing_of("complete", 5).is_shared
        True
    """
    direct = {"complete": everyone, "causal": past}
    return direct[kind](tokens) if kind in direct else uniform(FAMILIES[kind](tokens))
