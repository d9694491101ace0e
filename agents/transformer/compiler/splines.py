"""What a bundle of histories estimates as a function of the next field: knots, and their error."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.transformer.compiler.survey import EDGE, History, Survey


class Spline(NamedTuple):
    """A function of z, piecewise linear between knots, whose slope in each offset changes from knot to knot.

    Attributes:
        knots: [J].
        values: at the knots, averaged over the offsets [J, d].
        tilts: slope in each offset left of, between and right of the knots [l, J + 1, d].
        bent: mean squared error because the function is not linear in the offsets.
    """

    knots: Float[np.ndarray, " J"]
    values: Float[np.ndarray, "J d"]
    tilts: Float[np.ndarray, "l intervals d"]
    bent: float


def curvature(survey: Survey) -> tuple[Float[np.ndarray, " G"], float]:
    """(p |F''|^2)^(1/5) at each point of a line, and the fifth power C of its integral.

    Knots that are spread in proportion to it have the least mean squared error.
    """
    step = survey.z[1] - survey.z[0]
    bend = np.zeros_like(survey.z)
    bend[1:-1] = ((np.diff(survey.estimates, n=2, axis=1) / step**2) ** 2).sum(axis=2).mean(axis=0)
    density = survey.density() / step
    wanted = ((density + 1e-3 * density.max()) * bend) ** 0.2  # the tails are interpolated too
    return wanted, float((wanted.sum() * step) ** 5)


def interpolation_error(integral: float, knots: int) -> float:
    """Mean squared error of linear interpolation between J well placed knots: C / (120 J^4).

    Args:
        integral: C, from `curvature`.
        knots: J.

    Source: C. de Boor, A Practical Guide to Splines (1978), chapter III, doi:10.1007/978-1-4612-6333-3.

    Example:
        >>> interpolation_error(120.0, 2)
        0.0625
    """
    return integral / (120.0 * knots**4)


def knots_for(integrals: Float[np.ndarray, " S"], error: float) -> list[int]:
    """Knots of each of S functions so that all their errors sum to at most `error`, with fewest knots.

    J_k is proportional to C_k^(1/5), so their number grows as error^(-1/4).

    Args:
        integrals: C of each, times the probability that it is needed.
        error: wanted sum of mean squared errors.

    Example:
        >>> knots_for(np.array([120.0, 120.0]), 0.125)
        [2, 2]
    """
    shares = integrals**0.2
    scale = (shares.sum() / (120.0 * error)) ** 0.25
    return [max(2, int(np.ceil(share * scale - 1e-9))) for share in shares]


def spline(survey: Survey, history: History, count: int) -> Spline:
    """Interpolate what the agent estimates, with at most `count` knots.

    For an offset x of variance v the agent's estimate is taken as F(0) + G x + H x^2 / v through the three
    lines of the survey: G is the slope, and F(0) + H the mean.
    """
    lines = survey.estimates
    mean, slopes, bent = lines[0].copy(), [], 0.0
    for index, spread in enumerate(history.spread):
        above, below = lines[1 + 2 * index], lines[2 + 2 * index]
        second = (0.5 * (above + below) - lines[0]) / EDGE**2
        mean += second
        slopes.append((above - below) / (2 * EDGE * spread))
        # Var(x^2 / v) is 4/5 for a uniform offset, 2 for a Gaussian one.
        bent += 1.4 * float(survey.density() @ (second**2).sum(axis=1))
    wanted, _ = curvature(survey)
    at = np.array([len(mean) // 2])
    if not survey.silent and wanted.any():
        share = np.cumsum(wanted) / wanted.sum()
        at = np.unique(np.searchsorted(share, (np.arange(count) + 0.5) / count))
    ends = [0, *(int(index) for index in at), len(mean)]
    density = survey.density() + 1e-12
    tilts = np.empty((len(slopes), len(at) + 1, mean.shape[1]))
    for index, slope in enumerate(slopes):
        for piece, (first, stop) in enumerate(itertools.pairwise(ends)):
            part = density[first:stop]
            tilts[index, piece] = part @ slope[first:stop] / part.sum() if stop > first else slope[first]
    return Spline(survey.z[at], mean[at], tilts, bent)
