"""How the graph enters theory: by the weights with which a position hears others, hop by hop."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from analysis.theory.evolution.posterior import Average
from topology.mixing import Mixing

Array = np.ndarray
_DIGITS = 12  # of the mantissa; numbers that agree in them are equal


class Hops(NamedTuple):
    """What a position hears after h = 1..T hops, if all tokens around it speak about one code.

    Attributes:
        weights: (A^h)_ij of the tokens j of each group, which are equal in every hop [T, G].
        counts: number of tokens in each group [G].

    Source: THEORY.md section 6, locality.

    Example:
        >>> hops = Hops(np.array([[0.5, 0.0], [0.25, 0.25]]), np.array([2, 2]))
        >>> hops.effective.tolist(), hops.overlap.tolist(), hops.passes().tolist()
        ([2.0, 4.0], [[0.5, 0.25], [0.25, 0.25]], [0.5, 0.75])
    """

    weights: Float[Array, "T G"]
    counts: Int[Array, " G"]

    @property
    def overlap(self) -> Float[Array, "T T"]:
        """sum_j (A^h)_ij (A^k)_ij: covariance of means of h and of k hops over that of one token."""
        return (self.weights * self.counts) @ self.weights.T

    @property
    def effective(self) -> Float[Array, " T"]:
        """N_eff(i, h) = 1 / sum_j (A^h)_ij^2."""
        return 1.0 / np.diagonal(self.overlap)

    def passes(self) -> Float[Array, " T"]:
        """Noise of the channel in the mean, in variances of one message: sum_{m <= h} 1/N_eff(i, m)."""
        return np.cumsum(1.0 / self.effective)

    def root(self) -> Float[Array, "T k"]:
        """Lower triangular root of `overlap`: the weights in an orthonormal basis, its first axis along A."""
        triangle = np.linalg.qr((self.weights * np.sqrt(self.counts)).T)[1].T
        return triangle * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)

    def average(self, hop: int, earlier: Int[Array, "n T"], channel_variance: float) -> Average:
        """What a token believes of the mean after `hop` + 1 hops: the smaller group is part of the larger.

        Args:
            hop: index of the hop, 0..T-1.
            earlier: the hop of each measurement that was kept, sample by sample.
            channel_variance: of one message.
        """
        effective = self.effective
        shared = 1.0 / np.maximum(effective[hop], effective[earlier])
        return Average(float(1.0 / effective[hop]), shared, float(channel_variance * self.passes()[hop]))


def hops_of(
    mixing: Mixing, rounds_per_scale: int, positions: Int[Array, " P"] | None = None
) -> tuple[list[Hops], Int[Array, " P"]]:
    """The distinct kinds of position, and the kind of each position.

    Two positions are of one kind if their weights agree in number, second and third moment in every hop,
    and in overlap.

    Args:
        mixing: weights A of the graph.
        rounds_per_scale: T >= 1, hops in the longest phase.
        positions: of which positions; all by default.

    Raises:
        ValueError: if T is below 1.

    Example:
        >>> from topology.families import Family, path
        >>> from topology.mixing import uniform
        >>> kinds, kind = hops_of(uniform(path(Family(4))), rounds_per_scale=1)
        >>> [hops.effective.round(6).tolist() for hops in kinds], kind.tolist()
        ([[2.0], [3.0]], [0, 1, 1, 0])
    """
    if rounds_per_scale < 1:
        raise ValueError(f"a phase has at least one round, got rounds_per_scale={rounds_per_scale}")
    wanted = np.arange(mixing.tokens) if positions is None else positions
    *_, last = _powers(mixing, rounds_per_scale)
    moments = [_rounded(row) for power in _powers(mixing, rounds_per_scale) for row in _moments(power, last)]
    # One row serves all positions of a shared mixing.
    rows = np.zeros_like(wanted) if mixing.is_shared else wanted
    first, kind = np.unique(np.stack(moments)[:, rows], axis=1, return_index=True, return_inverse=True)[1:]
    parts = [power[rows[first]] for power in _powers(mixing, rounds_per_scale)]
    kinds = [_grouped(np.concatenate([part[[k]].toarray() for part in parts])) for k in range(len(first))]
    return kinds, kind


def _powers(mixing: Mixing, rounds: int) -> Iterator[csr_array]:
    """A, A^2, ... A^T."""
    power = shares = mixing.shares()
    yield power
    for _ in range(rounds - 1):
        power = power if mixing.is_shared else csr_array(power @ shares)
        yield power


def _moments(power: csr_array, last: csr_array) -> list[Float[Array, " N"]]:
    """Number, second and third moment of the weights of each position, and overlap with those of T hops."""
    sums = ((power > 0), power.power(2), power.power(3), power.multiply(last))
    return [np.asarray(part.sum(axis=1), dtype=float) for part in sums]


def _grouped(rows: Float[Array, "T N"]) -> Hops:
    """The weights of one position, tokens of equal weights together."""
    heard = rows[:, rows.any(axis=0)]
    first, counts = np.unique(_rounded(heard), axis=1, return_index=True, return_counts=True)[1:]
    return Hops(heard[:, first], counts)


def _rounded(numbers: Float[Array, "..."]) -> Float[Array, "..."]:
    """Numbers with so many digits that rounding errors are gone."""
    mantissa, exponent = np.frexp(numbers)
    return np.ldexp(np.round(mantissa, _DIGITS), exponent)
