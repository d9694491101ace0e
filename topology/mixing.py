"""Mixing weights as exact integers, and the exact sums they give."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import matrix_power

from topology.families import FAMILIES, Family, Graph

_HASHED = 2**20  # entries at a time
SCALE = 2**20  # Metropolis weights are integers that sum to this

Sums = tuple[Int[np.ndarray, "rows C B"], Int[np.ndarray, "rows C B"], Int[np.ndarray, "rows C B"]]


@dataclass(frozen=True, eq=False)
class Mixing:
    """Integer weights a_ij with which token i hears token j; a mean divides by the sum heard.

    Attributes:
        weights: non-negative integers, row = receiver [N, N] sparse; or one row [1, N] that serves
            every receiver, when all hear the same.

    Example:
        >>> from topology.families import causal
        >>> uniform(causal(Family(3))).weights.toarray()
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
    def degree(self) -> float:
        """Number of others that a token hears, mean over tokens.

        Example:
            >>> past(3).degree, everyone(3).degree
            (1.0, 2.0)
        """
        return self.weights.nnz / self.weights.shape[0] - 1.0

    @property
    def is_shared(self) -> bool:
        """Whether one sum serves every token."""
        return bool(self.weights.shape[0] == 1)

    def digest(self) -> bytes:
        """The same for equal weights, and for no others."""
        digest = blake2b(digest_size=16)
        for part in (self.weights.indptr, self.weights.indices, self.weights.data):
            for first in range(0, len(part), _HASHED):  # a dense graph's indices twice would be gigabytes
                digest.update(np.asarray(part[first : first + _HASHED], dtype=np.int64).tobytes())
        return digest.digest()

    @cached_property
    def largest_row_sum(self) -> int:
        """Largest total weight of a receiver; with b bits the sums need b + log2 of it bits."""
        return int(self.weights.sum(axis=1).max())

    def effective(self, rounds: int = 1) -> Float[np.ndarray, " N"]:
        """Effective number of tokens in what a token holds after T rounds of averaging.

            N_eff(i, T) = 1 / sum_j (A^T)_ij^2,   A the weights divided by their row sums

        Exact up to the rounding of double precision.

        Args:
            rounds: T >= 1.

        Source: THEORY.md section 6, locality.

        Example:
            >>> past(3).effective().tolist(), everyone(4).effective(rounds=3).tolist()
            ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0, 4.0])
        """
        shares = self.shares()
        spread = shares if rounds == 1 or self.is_shared else matrix_power(shares, rounds)
        spread.data **= 2
        per_row = 1.0 / spread.sum(axis=1)
        return np.broadcast_to(per_row, (self.tokens,)).copy()

    def reach(self, rounds: int) -> Float[np.ndarray, "rounds N"]:
        """N_eff(i, h) after h = 1..T rounds of averaging.

        Example:
            >>> past(3).reach(2).round(2).tolist()
            [[1.0, 2.0, 3.0], [1.0, 1.6, 2.16]]
        """
        shares = self.shares()
        power, rows = shares, []
        for index in range(rounds):
            if index and not self.is_shared:
                power = csr_array(power @ shares)
            rows.append(np.broadcast_to(1.0 / power.power(2).sum(axis=1), (self.tokens,)))
        return np.stack(rows)

    def fewest_beside(self) -> Float[np.ndarray, " N"]:
        """Smallest effective number of tokens in a mean that each token's message is part of.

        Example:
            >>> from topology.families import star
            >>> uniform(star(Family(5))).fewest_beside().tolist(), past(3).fewest_beside().tolist()
            ([2.0, 2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0])
        """
        if self.is_shared:
            return self.effective()
        heard = self.weights.tocoo()
        fewest = np.full(self.tokens, np.inf)
        np.minimum.at(fewest, heard.col, self.effective()[heard.row])
        return fewest

    def shares(self) -> csr_array:
        """A, rows summing to 1 [N, N]; one row if shared, which is its own power."""
        weights = self.weights
        share = 1.0 / np.asarray(weights.sum(axis=1), dtype=float)
        values = np.repeat(share, np.diff(weights.indptr))
        values *= weights.data
        return csr_array((values, weights.indices, weights.indptr), shape=weights.shape)

    def aggregate(
        self,
        codes: Integer[np.ndarray, "N K B"],
        wire: Integer[np.ndarray, "N K B"],
        count: int,
        receivers: Int[np.ndarray, " n"],
        spoken: Bool[np.ndarray, "N K B"] | None = None,
    ) -> Sums:
        """Sum of weight x wire, of weights and of squared weights, code by code, for some receivers.

        The sums are exact integers, so they depend neither on the order nor on the place of addition.

        Args:
            codes: code of each message of all N tokens.
            wire: integer of each message.
            count: number C of codes.
            receivers: positions whose sums are wanted; one row serves all if the weights are shared.
            spoken: which messages were sent; None if all were.
        """
        rows = np.zeros(1, dtype=np.int64) if self.is_shared else receivers
        whole = np.array_equal(rows, np.arange(self.weights.shape[0]))
        weights = self.weights if whole else self.weights[rows]  # a copy of a dense graph may be gigabytes
        plain = bool((weights.data == 1).all())
        squares = weights if plain else weights.power(2)
        prompts = wire.shape[2]
        total, weight, square = (np.empty((len(rows), count, prompts), dtype=np.int64) for _ in range(3))
        channels = _channels_of(codes, count)
        for code in range(count):
            part = slice(None) if channels is None else channels[code]
            said = codes[:, part] == code
            if spoken is not None:
                said &= spoken[:, part]
            voices = said.sum(axis=1, dtype=np.int64)
            total[:, code] = weights @ np.where(said, wire[:, part], 0).sum(axis=1, dtype=np.int64)
            weight[:, code] = weights @ voices
            square[:, code] = weight[:, code] if plain else squares @ voices
        return total, weight, square


def _channels_of(codes: Integer[np.ndarray, "N K B"], count: int) -> list[slice] | None:
    """The channel that carries each code, where every token uses a channel for one code throughout.

    Then a code is looked for in one channel, not in all: with many channels that is most of the work.
    """
    first = codes[:1, :, :1]
    if codes.shape[1] < 2 or len(np.unique(first)) < codes.shape[1] or not (codes == first).all():
        return None
    found = [slice(0, 0)] * count
    for channel, code in enumerate(first[0, :, 0]):
        found[code] = slice(channel, channel + 1)
    return found


def uniform(graph: Graph) -> Mixing:
    """Weight 1 for oneself and for each token that one hears.

    Example:
        >>> from topology.families import complete
        >>> uniform(complete(Family(2))).weights.toarray()
        array([[1, 1],
               [1, 1]])
    """
    size = graph.number_of_nodes()
    hears = nx.to_scipy_sparse_array(
        graph, nodelist=list(range(size)), dtype=np.dtype(np.int64), weight=None
    ).T
    return Mixing(csr_array(hears + eye_array(size, dtype=np.int64)))


def metropolis(graph: Graph) -> Mixing:
    """Metropolis-Hastings weights: symmetric on an undirected graph, so that averaging keeps the mean.

        a_ij = floor(2^20 / (1 + max(d_i, d_j))) for neighbours, a_ii = 2^20 - the rest

    Row sums are exactly 2^20; on an undirected graph, so are column sums.

    Source: L. Xiao and S. Boyd, Fast linear iterations for distributed averaging,
        doi:10.1016/j.sysconle.2004.02.022.

    Example:
        >>> from topology.families import Family, path
        >>> (metropolis(path(Family(3))).weights.toarray() * 3 / 2**20).round(3)
        array([[2., 1., 0.],
               [1., 1., 1.],
               [0., 1., 2.]])
    """
    size = graph.number_of_nodes()
    degree = dict(graph.in_degree)
    rows, columns, values, own = [], [], [], np.full(size, SCALE, dtype=np.int64)
    for sender, receiver in graph.edges:
        if sender == receiver:
            continue
        weight = SCALE // (1 + max(degree[sender], degree[receiver]))
        rows.append(receiver)
        columns.append(sender)
        values.append(weight)
        own[receiver] -= weight
    everyone_self = np.arange(size)
    entries = (
        np.concatenate([np.array(values, dtype=np.int64), own]),
        (
            np.concatenate([np.array(rows, dtype=np.int64), everyone_self]),
            np.concatenate([np.array(columns, dtype=np.int64), everyone_self]),
        ),
    )
    return Mixing(csr_array(entries, shape=(size, size)))


def everyone(tokens: int) -> Mixing:
    """`uniform(complete(tokens))` in one row, without its N^2 edges.

    Example:
        >>> everyone(3).effective().tolist()
        [3.0, 3.0, 3.0]
    """
    return Mixing(csr_array(np.ones((1, tokens), dtype=np.int64)))


def past(tokens: int) -> Mixing:
    """`uniform(causal(...))` of all that came before, without its N^2 / 2 edges one by one.

    Example:
        >>> past(3).weights.toarray().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    ends = np.cumsum(np.arange(tokens + 1, dtype=np.int64))
    senders, everyone_before = np.empty(ends[-1], dtype=np.int32), np.arange(tokens, dtype=np.int32)
    for receiver, first in enumerate(ends[:-1]):  # no matrix of N^2 entries on the way
        senders[first : first + receiver + 1] = everyone_before[: receiver + 1]
    entries = np.ones(ends[-1], dtype=np.int64), senders, ends.astype(np.int32) if ends[-1] < 2**31 else ends
    return Mixing(csr_array(entries, shape=(tokens, tokens)))


def mixing_of(kind: str, family: Family, weights: str = "uniform") -> Mixing:
    """Mixing on a graph family, by the names of an experiment file.

    Args:
        kind: name of the family.
        family: its parameters.
        weights: `uniform` or `metropolis`.

    Raises:
        ValueError: if the family has no such graph.

    Example:
        >>> mixing_of("complete", Family(5)).is_shared
        True
    """
    if weights == "uniform" and kind == "complete":
        return everyone(family.tokens)
    if weights == "uniform" and kind == "causal" and family.window is None:
        return past(family.tokens)
    return weigh(FAMILIES[kind](family), weights)


def weigh(graph: Graph, weights: str) -> Mixing:
    """Mixing on any graph whose nodes are 0..N-1: `uniform` or `metropolis` weights."""
    return uniform(graph) if weights == "uniform" else metropolis(graph)
