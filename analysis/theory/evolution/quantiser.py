"""What clipping and rounding do to a message: gain, offset and distortion of the quantiser."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

Array = np.ndarray
_NODES = 32  # of the Gauss-Hermite rule over u.x
_MOST_LEVELS = 64  # with more levels rounding is white noise of variance step^2/12 to high accuracy


class Moments(NamedTuple):
    """The quantiser as seen by a mean of many messages: Q(z) = mean + gain (z - E z) + distortion.

    Attributes:
        mean: E[Q(z)] [...].
        gain: Cov(Q(z), z) / Var(z) [...].
        distortion: Var(Q(z)) - gain^2 Var(z), the variance that is not linear in z [...].
    """

    mean: Float[Array, "..."]
    gain: Float[Array, "..."]
    distortion: Float[Array, "..."]


class Quantiser:
    """Turns fields of real messages into fields of the same messages clipped and rounded.

    Mean and variance are those of messages whose inputs are independent of u and v, as in the first round
    and without control variate. Distortion of one round is correlated with that of another as rho^3, rho the
    correlation of the messages: the first term that is not linear for a symmetric quantiser. A question that
    is repeated without noise is distorted the same way again.

    Source: R. Price, A useful theorem for nonlinear devices having Gaussian inputs (1958),
        doi:10.1109/TIT.1958.1057444.

    Example:
        >>> one = np.ones((1, 1, 1))
        >>> quantiser = Quantiser(0.0, 0.0, clip=1e3, step=1e-6, effective=4.0)
        >>> quantiser.transmit(one[0], one, one[0], 0 * one[0], one[0]).round(3).item()
        1.0
    """

    def __init__(self, label_noise: float, noise: float, clip: float, step: float, effective: float) -> None:
        """Take sigma, tau, c, the distance between levels, N."""
        self.label_noise, self.noise, self.clip, self.step = label_noise, noise, clip, step
        self.effective = effective
        self.past: list[tuple[Array, Array, Array]] = []  # direction, residual, normal of each field

    def transmit(
        self,
        values: Float[Array, "n K"],
        asked: Float[Array, "n K d"],
        residual: Float[Array, "n d"],
        control: Float[Array, "n d"],
        fresh: Float[Array, "n K"],
    ) -> Float[Array, "n K"]:
        """Fields of the next round.

        Args:
            values: means of the messages before the quantiser, with the transmitters' noise.
            asked: directions u.
            residual: q = w - v.
            control: v.
            fresh: standard normal numbers.
        """
        moments = self.moments(asked, residual, control)
        for channel in range(values.shape[1]):
            self.past.append((asked[:, channel], residual, fresh[:, channel]))
        distortion = np.sqrt(moments.distortion / self.effective) * self._distortion(values.shape[1])
        expected = (asked @ (residual + control)[..., None])[..., 0]
        return moments.mean + moments.gain * (values - expected) + distortion

    def moments(
        self, asked: Float[Array, "n K d"], residual: Float[Array, "n d"], control: Float[Array, "n d"]
    ) -> Moments:
        """Moments of one token's messages in a round that asks u, at w - v = q."""
        query_residual, answer = ((asked @ vector[..., None])[..., 0] for vector in (residual, control))
        squared = np.broadcast_to((residual**2).sum(axis=1)[:, None], answer.shape)
        return message_moments(
            query_residual, squared, answer, self.label_noise, self.noise, self.clip, self.step
        )

    def _distortion(self, channels: int) -> Float[Array, "n K"]:
        """Standard normal numbers of this round, correlated with those of the rounds before."""
        directions, residuals, normals = (np.stack(parts, axis=1) for parts in zip(*self.past, strict=True))
        across = directions @ residuals.swapaxes(1, 2)
        shared = residuals @ residuals.swapaxes(1, 2) + self.label_noise**2
        covariance = (directions @ directions.swapaxes(1, 2)) * shared + across * across.swapaxes(1, 2)
        covariance = covariance + self.noise**2 * np.eye(len(self.past))
        scale = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-30))
        correlation = np.clip(covariance / (scale[:, :, None] * scale[:, None]), -1.0, 1.0)
        # Cholesky's leading rows stay as they are when a row is added: earlier rounds are not redrawn.
        factor = np.linalg.cholesky(correlation**3 + 1e-9 * np.eye(len(self.past)))
        return np.asarray((factor @ normals[..., None])[:, -channels:, 0])


def message_moments(
    query_residual: Float[Array, "..."],
    squared_residual: Float[Array, "..."],
    answer: Float[Array, "..."],
    label_noise: float,
    noise: float,
    clip: float,
    step: float,
) -> Moments:
    """Moments of a quantised message z = (u.x)(q.x + sigma e) + u.v + tau eps, with x ~ N(0, I), |u| = 1.

    Given a = u.x the message is Gaussian, with mean a^2 u.q + u.v and variance
    a^2 (|q|^2 - (u.q)^2 + sigma^2) + tau^2, and the moments of a clipped or rounded Gaussian are known;
    the integral over a is a Gauss-Hermite rule. J. J. Bussgang's split of the output into a linear part
    and distortion keeps mean and variance of a field exact, and its correlation with other rounds up
    to what is not linear.

    Args:
        query_residual: u.q.
        squared_residual: |q|^2.
        answer: u.v, added to the mean.
        label_noise: sigma.
        noise: tau.
        clip: c.
        step: distance between levels, 2 c / (2^b - 1).

    Source: J. J. Bussgang, Crosscorrelation functions of amplitude-distorted Gaussian signals (MIT
        Research Laboratory of Electronics, technical report 216, 1952).

    Example:
        >>> wide = message_moments(np.array(0.3), np.array(1.0), np.array(0.1), 0.1, 1.0, 1e3, 1e-6)
        >>> wide.mean.round(6).item(), wide.gain.round(6).item(), wide.distortion.round(6).item()
        (0.4, 1.0, 0.0)
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    a = nodes[:, *[None] * query_residual.ndim]
    centre = a**2 * query_residual + answer
    across = np.maximum(squared_residual - query_residual**2, 0.0) + label_noise**2
    spread = np.sqrt(np.maximum(a**2 * across + noise**2, 1e-30))
    levels = round(2 * clip / step) + 1
    if levels <= _MOST_LEVELS:
        first, second, slope = _rounded(centre, spread, clip, step, levels)
    else:
        first, second, slope = _clipped(centre, spread, clip)
        second = second + step**2 / 12.0
    mean = np.tensordot(weights, first, 1)
    variance = np.tensordot(weights, second, 1) - mean**2
    average = query_residual + answer
    total = squared_residual + label_noise**2 + query_residual**2 + noise**2
    # Cov(Q, z) = E[Q z] - E[Q] E[z], with E[Q z | a] = centre E[Q | a] + spread^2 E[Q' | a] (Stein).
    product = np.tensordot(weights, centre * first + spread**2 * slope, 1)
    # A message that is known beforehand has no variance, and its gain multiplies nothing.
    gain = np.where(total > 0, product - mean * average, 1.0) / np.where(total > 0, total, 1.0)
    return Moments(mean, gain, np.maximum(variance - gain**2 * total, 0.0))


def _clipped(
    centre: Float[Array, "..."], spread: Float[Array, "..."], clip: float
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """E[Q], E[Q^2] and E[Q'] of a Gaussian that is clipped."""
    low, high = (-clip - centre) / spread, (clip - centre) / spread
    below, above = ndtr(low), ndtr(-high)
    inside = 1.0 - below - above
    density_low, density_high = _density(low), _density(high)
    first = clip * (above - below) + centre * inside - spread * (density_high - density_low)
    second = clip**2 * (above + below) + (centre**2 + spread**2) * inside
    second -= spread**2 * (high * density_high - low * density_low)
    second -= 2 * centre * spread * (density_high - density_low)
    return first, second, inside


def _rounded(
    centre: Float[Array, "..."], spread: Float[Array, "..."], clip: float, step: float, levels: int
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """E[Q], E[Q^2] and E[Q'] of a Gaussian that is rounded to few levels."""
    first, second = np.full_like(centre, -clip), np.full_like(centre, clip**2)
    slope = np.zeros_like(centre)
    for level in range(1, levels):
        threshold = -clip + (level - 0.5) * step
        scaled = (threshold - centre) / spread
        beyond = ndtr(-scaled)
        first += step * beyond
        second += 2 * step * threshold * beyond  # Q^2 jumps from (t - step/2)^2 to (t + step/2)^2
        slope += step * _density(scaled) / spread
    return first, second, slope


def _density(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))
