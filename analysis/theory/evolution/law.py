"""The exact law of a field at any number of tokens: a mixture of Gaussians over g = (1/n) sum_j (u.x_j)^2."""

import numpy as np
from jaxtyping import Float

Array = np.ndarray
NODES = 5  # as many as the agents take: where few tokens are heard, the rule is part of what they believe
_LEAST_ROOT = 0.05  # of the cube root of g


def mixture_over_g(
    excess: Float[Array, "*n 1"],
    along: Float[Array, "*n M"],
    rest: Float[Array, "*n M"],
    channel: Float[Array, "*n 1"],
    count: Float[Array, "*n 1"],
) -> tuple[Float[Array, "*n M Q"], Float[Array, "*n M Q"]]:
    """Nodes g of a quadrature and their log weights, placed for a field that was heard.

    The cube root of g is taken for the magnitude of a Gaussian (Wilson and Hilferty). Nodes of a
    Gauss-Hermite rule are moved to the mode of g given the field, by a Gauss-Newton step from its mean, and
    to its width there: the integrand is then nearly constant over them, however precise the field is.

    Args:
        excess: field less u.v.
        along: u.q under each atom.
        rest: |q|^2 - (u.q)^2 + sigma^2 and what else comes with g.
        channel: variance of the channel in one message.
        count: n, effective number of tokens.

    Source: THEORY.md section 5, the exact law of a field; Q. Liu and D. A. Pierce (1994),
        doi:10.1093/biomet/81.3.624.

    Example:
        >>> one = np.ones((1, 1))
        >>> g, logs = mixture_over_g(0.3 * one, 0 * one, one, one, 50 * one)
        >>> bool(abs((np.exp(logs) * g).sum() - 1) < 1e-3)
        True
    """
    h = 2.0 / (9.0 * count)
    slope = 3.0 * np.sqrt(h) * along
    step = slope * (excess - along) / ((rest + channel) / count + slope**2)
    root = np.cbrt(np.maximum(1.0 + 3.0 * np.sqrt(h) * step, _LEAST_ROOT**3))
    mode, slope = (root - 1.0 + h) / np.sqrt(h), slope * root**2
    variance = (root**3 * rest + channel) / count
    width = np.sqrt(variance / (variance + slope**2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    at = mode[..., None] + width[..., None] * nodes
    logs = np.log(weights / weights.sum()) + nodes**2 / 2 - at**2 / 2 + np.log(width)[..., None]
    g = np.abs(1.0 - h[..., None] + at * np.sqrt(h)[..., None]) ** 3
    return g, logs
