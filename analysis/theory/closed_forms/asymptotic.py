"""Closed forms: the limits in which risk needs no simulation.

Unless said otherwise a function returns the risk relative to E|w|^2 after rounds 0..L, in the limit of
infinitely many tokens and without channel noise, so that a field tells u.w exactly.
"""

from math import sqrt

import numpy as np
from jaxtyping import Float

from agents.prior import Prior

Array = np.ndarray


def spectral_tail(prior: Prior, rounds: int, channels: int) -> Float[Array, " rounds"]:
    """Risk of the best linear estimate when each code is an eigenvector of the prior covariance.

        risk_l = (sum of the eigenvalues of Cov[w] beyond the K l largest) / E|w|^2

    Exact for a Gaussian prior under any policy that asks the largest eigenvectors first, adaptive or
    static. For another prior it is the risk of the best *linear* decoder, and a bound on the best one
    from above. Round 0 is the variance, less than 1 if the prior mean is not zero.

    Args:
        prior: only its mean and covariance matter.
        rounds: L.
        channels: K.

    Source: THEORY.md section 7.1; Eckart-Young theorem.

    Example:
        >>> from agents.prior import gaussian
        >>> spectral_tail(gaussian(4), rounds=2, channels=1).tolist()
        [1.0, 0.75, 0.5]
    """
    eigenvalues = np.sort(np.maximum(np.linalg.eigvalsh(prior.covariance()), 0.0))[::-1]
    return _tail(eigenvalues, rounds, channels) / prior.power()


def tree_adaptive(
    amplitudes: Float[Array, " D"], rounds: int, channels: int = 1, branching: int = 2
) -> Float[Array, " rounds"]:
    """Risk of the adaptive policy on an orthonormal tree: with K = 1 and r = 2, one level a round.

        risk_l = sum over h of a_h^2 P(level h is unresolved after l rounds) / sum_h a_h^2

    A round asks q = K / (r - 1) nodes, widest first, that is in heap order below the deepest node known:
    the k full levels that fit into q are resolved, and one more with probability (rest) / r^k.
    Exact if coarser nodes are wider, a_{h+1}^2 <= r a_h^2. For r = 3 and K = 1, q = 1: the first axis of
    a node already tells its three children apart.

    Args:
        amplitudes: a_h, coarsest first.
        rounds: L.
        channels: K, a multiple of r - 1, or 1 if r = 3.
        branching: r.

    Raises:
        ValueError: if K does not hold whole nodes or a finer level is wider than a coarser one.

    Source: THEORY.md section 6.

    Example:
        >>> tree_adaptive(np.array([2.0, 1.0]), rounds=2).tolist()
        [1.0, 0.2, 0.0]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    if (power[1:] > branching * power[:-1] * (1 + 1e-12)).any():
        raise ValueError("the adaptive policy goes coarse to fine only if a_{h+1}^2 <= r a_h^2")
    nodes, rest = divmod(channels, branching - 1)
    if (branching, channels) == (3, 1):
        nodes = 1
    elif rest or not nodes:
        raise ValueError(
            f"channels must be a multiple of branching - 1 = {branching - 1} (or 1 if branching is 3), "
            f"got {channels}"
        )
    full, width = 0, 1
    while nodes >= width:
        nodes, width, full = nodes - width, width * branching, full + 1
    further = nodes / width
    depth = len(power)
    resolved = np.zeros(depth + 1)  # probability that exactly so many levels are resolved
    resolved[0] = 1.0
    risk = [1.0]
    for _ in range(rounds):
        after = np.zeros_like(resolved)
        for known, probability in enumerate(resolved):
            after[min(known + full, depth)] += probability * (1 - further)
            after[min(known + full + 1, depth)] += probability * further
        resolved = after
        risk.append(float(power @ np.cumsum(resolved)[:-1]) / power.sum())
    return np.array(risk)


def tree_static_linear(
    amplitudes: Float[Array, " D"], rounds: int, channels: int = 1, branching: int = 2
) -> Float[Array, " rounds"]:
    """Risk of static codes with a linear decoder on an orthonormal tree.

        Level h has (r - 1) r^(h-1) eigenvalues a_h^2 / ((r - 1) r^(h-1)); the K l largest are removed.

    For r = 2 and K = 1 it takes 2^L - 1 rounds to do what the adaptive policy does in L. Exact for the
    best linear decoder and codes asked in the order of their eigenvalues.

    Source: THEORY.md section 6.

    Example:
        >>> tree_static_linear(np.array([2.0, 1.0]), rounds=3).round(12).tolist()
        [1.0, 0.2, 0.1, 0.0]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    counts = (branching - 1) * branching ** np.arange(len(power))
    eigenvalues = np.sort(np.repeat(power / counts, counts))[::-1]
    return _tail(eigenvalues, rounds, channels) / power.sum()


def tree_pooled(amplitudes: Float[Array, " D"], rounds: int, channels: int = 1) -> Float[Array, " rounds"]:
    """Risk of static pooled queries with a nonlinear decoder, without noise: K levels a round.

        risk_l = sum_{h > K l} a_h^2 / sum_h a_h^2

    Exact on an orthonormal tree while N is far above `pooled_signal_to_noise` = 1 at every level; the
    child of the true node is then read off the sum over all nodes of the level.

    Source: THEORY.md section 6.

    Example:
        >>> tree_pooled(np.array([2.0, 1.0]), rounds=2).tolist()
        [1.0, 0.2, 0.0]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    return _tail(power, rounds, channels) / power.sum()


def pooled_signal_to_noise(
    amplitudes: Float[Array, " D"], effective: float, noise: float = 1.0, branching: int = 2
) -> Float[Array, " D"]:
    """Signal-to-noise ratio of a pooled query of each level: what one field tells of the level.

        snr_h = N a_h^2 / ((r - 1) r^(h-1) noise)

    The adaptive policy has r^(h-1) times as much. A scale, not a risk: the pooled policy fails at levels
    where it is of order 1 or less.

    Args:
        amplitudes: a_h, coarsest first.
        effective: N.
        noise: variance of one message's noise, about |w - v|^2 + sigma^2 + tau^2.
        branching: r.

    Source: THEORY.md section 6.

    Example:
        >>> pooled_signal_to_noise(np.ones(3), effective=8.0).tolist()
        [8.0, 4.0, 2.0]
    """
    power = np.asarray(amplitudes, dtype=float) ** 2
    return effective * power / ((branching - 1) * branching ** np.arange(len(power)) * noise)


def pooled_failure_level(
    amplitudes: Float[Array, " D"], effective: float, noise: float = 1.0, branching: int = 2
) -> int | None:
    """Coarsest level h at which a pooled query has a signal-to-noise ratio of 1 or less, None if none.

    For r = 2 that is 2^(h-1) >= N a_h^2 / noise.

    Source: THEORY.md section 6.

    Example:
        >>> pooled_failure_level(np.ones(6), effective=8.0)
        4
    """
    lost = np.flatnonzero(pooled_signal_to_noise(amplitudes, effective, noise, branching) <= 1.0)
    return int(lost[0]) + 1 if len(lost) else None


def ridge_limit(ratio: float, noise_variance: float) -> float:
    """Relative risk of ridge regression with the best penalty, n and d large in a fixed ratio.

        e = ((1 - alpha - s) + sqrt((1 - alpha - s)^2 + 4 s)) / 2,  alpha = n / d,  s = sigma^2

    s is the variance of the label noise in units of the variance E|w|^2 of the noiseless label, for
    x ~ N(0, I_d); the same as x with entries of variance 1/d and w ~ N(0, I_d). With a Gaussian w this
    is the Bayes limit: no depth beats it. Exact for n, d -> infinity, relative error of order 1/d.

    Args:
        ratio: alpha > 0.
        noise_variance: s >= 0.

    Source: THEORY.md section 9, the positive root of e = 1 / (1 + alpha / (e + s));
        Y. M. Lu et al., arXiv:2405.11751.

    Example:
        >>> [round(ridge_limit(*pair), 4) for pair in ((0.5, 0.1), (1.0, 0.1), (2.0, 0.25))]
        [0.5742, 0.2702, 0.1754]
    """
    linear = 1.0 - ratio - noise_variance
    return (linear + sqrt(linear**2 + 4.0 * noise_variance)) / 2.0


def _tail(values: Float[Array, " D"], rounds: int, channels: int) -> Float[Array, " rounds"]:
    """Sum of what is left of `values` after the first K l, for l = 0..L."""
    return np.array([values[channels * round :].sum() for round in range(rounds + 1)])
