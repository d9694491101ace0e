"""How many rounds each scale of a tree deserves when the channel is weak."""

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr

Array = np.ndarray
_LARGEST = 1_000_000  # compositions that are tried
_POINTS = 60  # Gauss-Hermite points for the noise that all rounds share


class Allocation(NamedTuple):
    """Rounds given to each scale.

    Attributes:
        turns: T_h, rounds that ask level h, coarsest first [D].
        resolved: probability that levels 1..h are all decided rightly [D].
        risk: E|w - estimate|^2 / sum_h a_h^2.
    """

    turns: Int[Array, " D"]
    resolved: Float[Array, " D"]
    risk: float


def resolution(
    turns: Int[Array, "S D"],
    amplitudes: Float[Array, " D"],
    effective: float,
    label_noise: float,
    channel_variance: float,
    control_variate: bool = True,
) -> Float[Array, "S D"]:
    """Probability P_h that the first h levels are all decided rightly, asking level h T_h times in a row.

        field of level h, mean over its T rounds, in the direction of the truth:
            a_h + normal, variance (E_h + sigma^2 + a_h^2 + (tau^2 + step^2/12) / T) / N
        P_h = product over j <= h of Phi(a_j / deviation_j)

    for an orthonormal binary tree and K = 1. The control of level h is the part of w decided so far, so
    that E_h = sum over j >= h of a_j^2 is left, and the noise of different levels is independent as long
    as all was decided rightly. The same tokens answer again: only the channel's noise averages out.
    Without control E_h = sum_j a_j^2, and the fields share the noise a_h z with one normal z of variance
    1/N, over which the product is integrated. A level that is not asked is a fair guess.

    Args:
        turns: T_h of each schedule.
        amplitudes: a_h, coarsest first.
        effective: N.
        label_noise: sigma.
        channel_variance: tau^2 + step^2/12 of one message.
        control_variate: whether messages carry what is decided so far.

    Source: THEORY.md section 5, the covariance of two rounds of the same token.

    Example:
        >>> resolution(np.array([[1, 1], [1, 4]]), np.array([0.8, 0.6]), 8.0, 0.1, 1.0).round(3).tolist()
        [[0.918, 0.827], [0.918, 0.878]]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    often = np.maximum(turns, 1)
    asked = turns > 0
    if control_variate:
        left = np.cumsum(power[::-1])[::-1]
        variance = (left + label_noise**2 + power + channel_variance / often) / effective
        right = ndtr(amplitudes / np.sqrt(variance))
        return np.cumprod(np.where(asked, right, 0.5), axis=1)
    points, rule = np.polynomial.hermite_e.hermegauss(_POINTS)
    variance = (power.sum() + label_noise**2 + channel_variance / often) / effective
    strength = np.where(asked, amplitudes / np.sqrt(variance), 0.0)
    joint = np.cumprod(ndtr(strength[..., None] * (1 + points / np.sqrt(effective))), axis=1)
    return joint @ (rule / rule.sum())


def decided_risk(amplitudes: Float[Array, " D"], resolved: Float[Array, "S D"]) -> Float[Array, " S"]:
    """Relative risk of the best weights c_h for what was decided.

        estimate = sum_h c_h a_h e(decided, h),  c_h = 2 P_h - P_{h-1},
        risk = 1 - sum_h a_h^2 c_h^2 / sum_h a_h^2

    c_h is the chance that level h is right less the chance that it is the first to be wrong; below a wrong
    level the estimate is orthogonal to w. An estimate from the fields themselves is at least as good.

    Args:
        amplitudes: a_h, coarsest first.
        resolved: P_h of each schedule.

    Source: THEORY.md section 4, mutually orthogonal nodes; projection on the decided directions.

    Example:
        >>> decided_risk(np.array([1.0, 1.0]), np.array([[1.0, 0.75]])).tolist()
        [0.375]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    before = np.concatenate([np.ones((len(resolved), 1)), resolved[:, :-1]], axis=1)
    agreement = np.maximum(2 * resolved - before, 0.0)
    return 1.0 - agreement**2 @ power / power.sum()


def allocation(
    amplitudes: Float[Array, " D"],
    rounds: int,
    effective: float,
    label_noise: float,
    channel_variance: float,
    control_variate: bool = True,
) -> Allocation:
    """The division of L rounds among the levels of an orthonormal binary tree that has the least risk.

        min over T_1 + ... + T_D = L of `decided_risk`, each level being asked T_h times in a row and then
        decided once and for all, coarse to fine, K = 1

    All compositions are compared, so the optimum is exact for this class of policies; fields are taken to
    be Gaussian (mean field). Of equal divisions the one with more rounds on coarser levels is returned.

    Args:
        amplitudes: a_h, coarsest first.
        rounds: L.
        effective: N.
        label_noise: sigma.
        channel_variance: tau^2 + step^2/12 of one message.
        control_variate: whether messages carry what is decided so far.

    Raises:
        ValueError: if rounds are negative, N is not positive, or there are more than a million divisions.

    Source: THEORY.md section 7.3.

    Example:
        >>> from agents.prior import amplitudes
        >>> allocation(amplitudes(3, 0.8), 9, 32.0, label_noise=0.1, channel_variance=9.0).turns.tolist()
        [4, 3, 2]
    """
    if rounds < 0 or effective <= 0:
        raise ValueError(f"rounds >= 0 and effective > 0 are needed, got {rounds} and {effective}")
    levels = len(amplitudes)
    count = comb(rounds + levels - 1, levels - 1)
    if count > _LARGEST:
        raise ValueError(f"{rounds} rounds can be divided among {levels} levels in {count} ways, too many")
    # The bars among stars and bars, those with most stars in front last.
    bars = np.array(list(combinations(range(rounds + levels - 1), levels - 1)), dtype=np.int64)
    edges = np.pad(bars.reshape(count, levels - 1), ((0, 0), (1, 1)), constant_values=-1)
    edges[:, -1] = rounds + levels - 1
    turns = (np.diff(edges, axis=1) - 1)[::-1]
    resolved = resolution(turns, amplitudes, effective, label_noise, channel_variance, control_variate)
    risk = decided_risk(amplitudes, resolved)
    best = int((risk <= risk.min() + 1e-12).argmax())
    return Allocation(turns[best], resolved[best], float(risk[best]))
