"""Questions: the law of the next field under each atom, and the risk that is left once it is heard.

Risk is that of the exact posterior mean: an integral over one variable, smooth in the query u on the unit
sphere, with an exact gradient. Axes: M atoms, d dimensions, S values of the field.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.prior import Prior

Array = np.ndarray
_REACH = 9.0  # a grid of field values ends so many standard deviations beyond the farthest expected one
_PER_DEVIATION = 5  # points for each standard deviation: the trapezoidal rule has converged
_MOST_POINTS = 8193


@dataclass(frozen=True, eq=False)
class GaussianQuestion:
    """Under atom m the field is N(u.b_m, u' Q_m u) and has covariance G u with w.

    Attributes:
        weights: probability of each atom [M].
        means: expected w under each atom [M, d].
        form: G, covariance of w under each atom [d, d].
        slopes: b_m, expected field for each unit of u [M, d].
        forms: Q_m, variance of the field, constants times |u|^2 included [M, d, d].
    """

    weights: Float[Array, " M"]
    means: Float[Array, "M d"]
    form: Float[Array, "d d"]
    slopes: Float[Array, "M d"]
    forms: Float[Array, "M d d"]

    def risk_and_gradient(self, query: Float[Array, " d"]) -> tuple[float, Float[Array, " d"]]:
        """Risk E tr Cov[w | field], absolute, and its gradient along the sphere.

            risk = E|w|^2 - integral |A|^2 / p, with p the density of the field s and A = p E[w | s].

        A = sum_m p_m (mean_m + G u (s - u.b_m) / V_m), V_m = u' Q_m u. Exact up to rounding while the grid
        resolves the narrowest law; the spacing depends on the question alone, so that the gradient is
        that of the value.

        Source: THEORY.md sections 5 and 8.
        """
        field, width = self._fields
        centre, images = self.slopes @ query, self.forms @ query
        variance = np.maximum(images @ query, (2 * width) ** 2)[:, None]
        off = field - centre[:, None]
        density = self.weights[:, None] * np.exp(-0.5 * off**2 / variance) / np.sqrt(2 * np.pi * variance)
        weight = density * off / variance  # also the derivative in the centre
        pull = self.form @ query
        total, first = density.sum(axis=0), density.T @ self.means + np.outer(weight.sum(axis=0), pull)
        seen = np.maximum(total, 1e-290)
        mean = first / seen[:, None]
        square = (mean**2).sum(axis=1)
        power = self.weights @ (self.means**2).sum(axis=1) + np.trace(self.form)
        risk = power - width * (square @ total)
        # d(|A|^2 / p) = 2 mean.dA - |mean|^2 dp, atom by atom, in centre, variance and pull.
        gain = 2 * self.means @ mean.T - square
        lift = 2 * mean @ pull
        narrow = 0.5 * (off**2 / variance - 1) / variance
        by_centre = (weight * (gain + lift * off / variance) - density * lift / variance).sum(axis=1)
        by_variance = (density * (narrow * (gain + lift * off / variance) - lift * off / variance**2)).sum(1)
        by_pull = 2 * self.form @ (weight.sum(axis=0) @ mean)
        slope = by_centre @ self.slopes + 2 * by_variance @ images + by_pull
        slope = -width * (slope - (slope @ query) * query)
        return float(risk), slope

    @cached_property
    def _fields(self) -> tuple[Float[Array, " S"], float]:
        """Values of the field that any query may bring, and their spacing."""
        bounds = np.linalg.eigvalsh(self.forms)
        reach = np.linalg.norm(self.slopes, axis=1).max() + _REACH * np.sqrt(bounds.max())
        return _grid(float(reach), float(np.sqrt(max(bounds.min(), 0.0))))


class ExactQuestion(NamedTuple):
    """The field of exactly N tokens under each atom of a discrete prior, no limit theorem.

    The characteristic function of a mean of N products (u.x)(q.x + sigma e) + u.v, plus channel noise, is

        exp(i t u.v - chi t^2 / 2N) (1 - 2 i t r / N + t^2 (b - r^2) / N^2)^(-N/2),

    r = u.q, b = |q|^2 + sigma^2, q = w - v.

    Attributes:
        weights: probability of each atom [M].
        means: the atoms [M, d].
        control: v [d].
        tokens: N.
        label_noise: sigma.
        channel_variance: chi, variance that the channel adds to a message.
    """

    weights: Float[Array, " M"]
    means: Float[Array, "M d"]
    control: Float[Array, " d"]
    tokens: int
    label_noise: float
    channel_variance: float

    def risk_and_gradient(self, query: Float[Array, " d"]) -> tuple[float, Float[Array, " d"]]:
        """Risk E tr Cov[w | field], absolute, and its gradient along the sphere.

        Source: THEORY.md section 7.2, the law of a mean of few products.
        """
        return self.risk_and_gradients(query)[:2]

    def risk_and_gradients(
        self, query: Float[Array, " d"]
    ) -> tuple[float, Float[Array, " d"], Float[Array, " d"]]:
        """Risk, its gradient along the sphere, and its gradient in the control.

        As for a Gaussian field, with densities by the inverse Fourier transform.
        """
        count, offsets = self.tokens, self.means - self.control
        scale = (offsets**2).sum(axis=1) + self.label_noise**2
        spread = np.sqrt((2 * scale.max() + self.channel_variance) / count)
        reach = np.linalg.norm(self.means, axis=1).max() + (_REACH + 36.0 / np.sqrt(count)) * spread
        narrow = np.sqrt((scale.min() + self.channel_variance) / count)
        field, width = _grid(float(reach), float(narrow))
        # Frequencies up to that of the grid; the step leaves the copies of a density apart.
        times = np.arange(0.0, np.pi / width, np.pi / reach)
        wave = np.exp(-1j * np.outer(times, field)) * (np.pi / reach / np.pi)
        wave[0] /= 2
        along, shift = offsets @ query, float(self.control @ query)
        rest = np.maximum(scale - along**2, 0.0)[:, None] * (times / count) ** 2
        base = 1.0 - 2j * along[:, None] * times / count + rest
        law = np.exp(
            1j * times * shift - self.channel_variance * times**2 / (2 * count) - count / 2 * np.log(base)
        )
        by_along = law * (1j * times + along[:, None] * times**2 / count) / base
        by_scale = law * (-0.5 / count) * times**2 / base
        density, moved, scaled, shifted = (
            self.weights[:, None] * (part @ wave).real for part in (law, by_along, by_scale, 1j * times * law)
        )
        total = density.sum(axis=0)
        seen = total > 1e-13 * total.max()  # beyond, the transform is rounding noise
        mean = np.where(seen, (density.T @ self.means).T / np.where(seen, total, 1.0), 0.0)
        square = (mean**2).sum(axis=0)
        risk = self.weights @ (self.means**2).sum(axis=1) - width * (square @ total)
        gain = 2 * self.means @ mean - square
        along_gain, scale_gain = (moved * gain).sum(axis=1), (scaled * gain).sum(axis=1)
        shift_gain = (shifted * gain).sum()
        by_query = along_gain @ offsets + shift_gain * self.control
        by_control = (shift_gain - along_gain.sum()) * query - 2 * scale_gain @ offsets
        return float(risk), -width * (by_query - (by_query @ query) * query), -width * by_control


def first_question(
    prior: Prior,
    effective: float,
    label_noise: float,
    channel_variance: float,
    control: Float[Array, " d"] | None = None,
) -> GaussianQuestion:
    """The question before anything was heard, fields being Gaussian under each atom.

        V_m = u'S u + (|q|^2 + tr S + sigma^2 + (u.q)^2 + u'S u + chi) / N,  q = atom_m - v

    Exact for N -> infinity at a fixed signal-to-noise ratio; the tokens know no more of it than the
    belief of the agents does.

    Args:
        prior: any prior of the family.
        effective: N.
        label_noise: sigma.
        channel_variance: chi, tau^2 + step^2 / 12.
        control: v; the prior mean if left out.

    Source: THEORY.md section 5.
    """
    offsets = prior.atoms - (prior.mean() if control is None else control)
    form, unit = prior.factor @ prior.factor.T, np.eye(prior.dim)
    size = (offsets**2).sum(axis=1) + np.trace(form) + label_noise**2 + channel_variance
    forms = size[:, None, None] * unit + offsets[:, :, None] * offsets[:, None] + form
    return GaussianQuestion(prior.weights, prior.atoms, form, prior.atoms, form + forms / effective)


def exact_question(
    prior: Prior,
    tokens: int,
    label_noise: float,
    channel_variance: float,
    control: Float[Array, " d"] | None = None,
) -> ExactQuestion:
    """The question before anything was heard, for exactly N tokens and a discrete prior.

    Exact at every N up to clipping, and to taking rounding as white noise.

    Raises:
        ValueError: if the prior has a Gaussian part, or there are fewer than 4 tokens and no channel
            noise, so that the density of a field is not bounded.

    Source: THEORY.md section 7.2.
    """
    if prior.factor.shape[1]:
        raise ValueError("the exact law is written for discrete priors; take first_question")
    if tokens < 4 and not channel_variance:
        raise ValueError(f"without channel noise the law of {tokens} tokens has a pole: take 4 or more")
    centre = prior.mean() if control is None else control
    return ExactQuestion(prior.weights, prior.atoms, centre, tokens, label_noise, channel_variance)


def _grid(reach: float, narrow: float) -> tuple[Float[Array, " S"], float]:
    """Values of a field from -reach to reach, fine enough for a law of standard deviation `narrow`."""
    points = min(2 * _PER_DEVIATION * reach / max(narrow, 1e-9), _MOST_POINTS)
    field, width = np.linspace(-reach, reach, int(points) | 1, retstep=True)
    return field, float(width)
