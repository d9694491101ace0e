"""Physical limit: no system is better than the distortion-rate function of the prior at its capacity.

D(R) is the least E|w - estimate|^2 of any estimate with I(w; estimate) <= R bits. A lower bound on it is a
limit for every system, trained or not, whose estimate is a function of its fields. All bounds here are
dual: any multiplier gives a valid one, and a poor search for the best only makes them weaker.
"""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.prior import Prior

Array = np.ndarray
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0
_TOLERANCE = 1e-9  # of the symmetries of a tree, relative to its power


def physical_limit(prior: Prior, rounds: int, bits_per_round: float) -> Float[Array, " rounds"]:
    """Relative risk after rounds 0..L below which no system is that hears so many bits a round.

        limit_l = D(l bits) / E|w|^2

    Certified for every policy, query and decoder: the estimate after l rounds is a function of fields
    whose information about w is at most l `bits_per_round`. A token that also used its own example in
    its estimate would not be covered; no policy here does.

    Args:
        prior: prior over w.
        rounds: L.
        bits_per_round: K times the bits of a field, see `Wire`.

    Source: THEORY.md section 7.4; data-processing inequality.

    Example:
        >>> from agents.prior import tree
        >>> physical_limit(tree(3, 2, 0.8, 7), rounds=3, bits_per_round=1.0).round(3).tolist()
        [1.0, 0.488, 0.183, 0.0]
    """
    return distortion_rate(prior, bits_per_round * np.arange(rounds + 1.0)) / prior.power()


def distortion_rate(prior: Prior, bits: Float[Array, " R"]) -> Float[Array, " R"]:
    """Certified lower bound on the distortion-rate function of a prior, absolute.

    The best of those that apply:

    * one atom: reverse water-filling over eigenvalues, exact;
    * a tree whose nodes are orthogonal along each path: `water_filling` over levels. With the coarser
      branches told for free, the estimate's part in the subspace of the true node is an estimate of the
      branch taken there; the rates I(branch_h; estimate | coarser branches) add up to I(w; estimate)
      by the chain rule, the squared errors of orthogonal parts add up to at most the whole;
    * isotropic jitter on it: in the dimensions that the path does not use it is a Gaussian source;
    * any mixture: atom or Gaussian part told for free, whichever leaves more; `finite_alphabet` for atoms.

    Args:
        prior: prior over w.
        bits: R, information about w.

    Source: THEORY.md section 7.4; C. E. Shannon (1959); T. Berger, Rate Distortion Theory (1971).

    Example:
        >>> from agents.prior import gaussian
        >>> distortion_rate(gaussian(2), np.array([0.0, 1.0, 2.0])).round(12).tolist()
        [1.0, 0.5, 0.25]
    """
    form = prior.factor @ prior.factor.T
    variances = np.maximum(np.linalg.eigvalsh(form), 0.0)
    variances = variances[variances > 1e-14 * prior.power()]
    within = water_filling(np.empty(0), 2, variances, bits)
    alive = prior.weights > 0
    if alive.sum() == 1:
        return within
    levels = tree_levels(prior)
    if levels is None:
        return np.maximum(finite_alphabet(prior.atoms[alive], prior.weights[alive], bits), within)
    isotropic = np.abs(form - np.eye(prior.dim) * form[0, 0]).max() < _TOLERANCE * prior.power()
    unused = prior.dim - len(levels.powers) * (levels.branching - 1)
    beside = np.full(unused if isotropic and len(variances) else 0, form[0, 0])
    return np.maximum(water_filling(levels.powers, levels.branching, beside, bits), within)


def water_filling(
    powers: Float[Array, " D"], branching: int, variances: Float[Array, " G"], bits: Float[Array, " R"]
) -> Float[Array, " R"]:
    """Least distortion of independent sources that share a rate: reverse water-filling.

        min sum_h a_h^2 delta(R_h) + sum_i v_i 2^(-2 R_i),   sum_h R_h + sum_i R_i <= R

    delta is the distortion-rate function of the uniform law on the r vertices of a unit simplex under
    squared error. For posterior p it is r (1 - |p|^2) / (r - 1) at R = log2 r - H(p), and the best p has
    one large entry and r - 1 equal ones; for r = 2, 4 q (1 - q) at R = 1 - H2(q), which is convex. For
    r > 2 it is not, and the dual takes the convex hull. Exact for r = 2 and for r > 2 up to interpolation
    from below.

    Args:
        powers: a_h^2 of each discrete source.
        branching: r.
        variances: v_i of each Gaussian source.
        bits: R.

    Source: THEORY.md section 7.4; P. Harremoes and F. Topsoe (2001), doi:10.1109/18.959272, for the
        largest |p|^2 at a given entropy.

    Example:
        >>> bits = np.array([0.0, 1 - 0.8112781245])
        >>> water_filling(np.array([1.0]), 2, np.empty(0), bits).round(6).tolist()
        [1.0, 0.75]
    """
    sources = np.concatenate([powers, variances])
    if not len(sources) or sources.max() <= 0:
        return np.zeros_like(bits)
    price, value = _simplex_dual(branching)

    def dual(theta: Float[Array, " R"]) -> Float[Array, " R"]:
        ratio = theta[:, None] / powers
        discrete = (powers * np.interp(ratio, price, value)).sum(axis=1)
        level = np.minimum(theta[:, None] / (2 * np.log(2) * variances), 1.0)
        return discrete + (variances * level * (1 - np.log(level))).sum(axis=1) - theta * bits

    # Unimodal in log theta: golden section, for all rates at once.
    low = np.full(len(bits), np.log(1e-290 * sources.max()))
    high = np.full(len(bits), np.log(4.0 * sources.max()))
    best = np.zeros(len(bits))
    for _ in range(130):
        width = _GOLDEN * (high - low)
        left, right = dual(np.exp(high - width)), dual(np.exp(low + width))
        best = np.maximum(best, np.maximum(left, right))
        low, high = np.where(left < right, high - width, low), np.where(left < right, high, low + width)
    return best


def finite_alphabet(
    atoms: Float[Array, "M d"], weights: Float[Array, " M"], bits: Float[Array, " R"]
) -> Float[Array, " R"]:
    """Certified lower bound on the distortion-rate function of any discrete prior, often a weak one.

        D(R) >= (-ln c(s) - R ln 2) / s for every s > 0,  c(s) = max_k sum_m weights[m] exp(-s |m - k|^2 / 4)
        D(R) >= Var - 2 (diameter / 2)^2 R ln 2

    The first is Berger's dual with equal multipliers: its constraint, sup over y of
    sum_m weights[m] exp(-s |m - y|^2) <= c, holds because |m - y| >= |m - k| / 2 for the atom k nearest to y.
    The second: a bounded variable's mean moves by at most range^2 / 2 times the relative entropy, squared.

    Args:
        atoms: support of w.
        weights: its probabilities.
        bits: R.

    Source: T. Berger, Rate Distortion Theory (1971), section 2.5; S. G. Bobkov and F. Goetze (1999),
        doi:10.1006/jfan.1998.3326, with Hoeffding's lemma.

    Example:
        >>> line = np.array([[-1.0], [1.0]])
        >>> finite_alphabet(line, np.array([0.5, 0.5]), np.array([0.0, 1.0])).round(3).tolist()
        [1.0, 0.0]
    """
    squares = (atoms**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * atoms @ atoms.T, 0.0)
    variance = float(weights @ apart @ weights) / 2
    nats = bits * np.log(2)
    best = np.maximum(variance - apart.max() / 2 * nats, 0.0)
    if variance > 0:
        for rate in np.geomspace(0.1, 300.0, 40) / variance:
            covered = float((np.exp(-rate / 4 * apart) @ weights).max())
            best = np.maximum(best, (-np.log(covered) - nats) / rate)
    return best


class TreeLevels(NamedTuple):
    """An orthogonal tree: a_h^2 of each level [D], and children r of each node."""

    powers: Float[Array, " D"]
    branching: int


def tree_levels(prior: Prior) -> TreeLevels | None:
    """Powers of the levels if the atoms are a uniform tree of simplices, orthogonal along each path.

    Read off the atoms themselves, so that it holds for any rotation and ordering; None if they are not.

    Example:
        >>> from agents.prior import tree
        >>> tree_levels(tree(2, 3, 1.0, 8)).powers.round(12).tolist()
        [0.5, 0.5]
        >>> tree_levels(tree(2, 3, 1.0, 8, "random")) is None
        True
    """
    count, depth = prior.branches.shape
    branching = round(count ** (1 / depth)) if depth else 0
    if branching < 2 or branching**depth != count or np.ptp(prior.weights) > 1e-12 / count:
        return None
    order = np.lexsort(prior.branches.T[::-1])
    means = prior.atoms[order]
    tolerance = _TOLERANCE * prior.power()
    levels, powers = [], []
    for level in range(depth, 0, -1):
        ids = prior.branches[order[:: branching ** (depth - level)], level - 1]
        if len(ids) != branching**level or len(np.unique(ids)) != len(ids):
            return None
        children = means.reshape(-1, branching, prior.dim)
        means = children.mean(axis=1)
        offsets = children - means[:, None]
        gram = offsets @ offsets.swapaxes(1, 2)
        power = float(np.trace(gram, axis1=1, axis2=2).mean()) / branching
        simplex = power / (branching - 1) * (branching * np.eye(branching) - 1.0)
        if np.abs(gram - simplex).max() > tolerance:
            return None
        levels.append(offsets)
        powers.append(power)
    for position, fine in enumerate(levels):
        for coarse in levels[position + 1 :]:
            above = np.repeat(coarse, len(fine) // len(coarse), axis=0)
            if np.abs(above @ fine.swapaxes(1, 2)).max() > tolerance:
                return None
    return TreeLevels(np.array(powers[::-1]), branching)


def discrete_tree_levels(prior: Prior) -> TreeLevels | None:
    """The levels of such a tree if w is always one of its leaves; None too if w spreads around them.

    Example:
        >>> from agents.prior import tree
        >>> discrete_tree_levels(tree(2, 3, 1.0, 8)).branching
        3
    """
    return None if prior.factor.shape[1] else tree_levels(prior)


@cache
def _simplex_dual(branching: int) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """min over R of delta(R) + t R at prices t, which is concave in t: its chords bound it from below.

    At odds e^z between the large entry of p and the others, the price that makes p stationary is
    2 r ln 2 / (r - 1) times their logarithmic mean. Beyond its peak lie the stable points.
    """
    odds = np.concatenate([np.geomspace(1e-4, 40.0, 30_000), np.geomspace(40.5, 700.0, 300)])
    small = 1.0 / (np.exp(odds) + branching - 1)
    large = np.exp(odds) * small
    price = 2 * branching * np.log(2) / (branching - 1) * np.expm1(odds) * small / odds
    # ln large = -ln(1 + (r - 1) e^-z), accurate where the large entry is almost 1.
    log_large = -np.log1p((branching - 1) * np.exp(-odds))
    entropy = -(log_large - (1 - large) * odds) / np.log(2)
    gini = (branching - 1) * small * (large + 1 - small) * branching / (branching - 1)
    stable = slice(int(price.argmax()), None)
    value = np.minimum(gini + price * (np.log2(branching) - entropy), 1.0)[stable][::-1]
    price = price[stable][::-1]
    assert all(later > earlier for earlier, later in pairwise(price[:: len(price) // 50]))
    return np.append(np.insert(price, 0, 0.0), price[-1] * 1.01), np.append(np.insert(value, 0, 0.0), 1.0)
