"""One field that was heard, and how noisy it is: the covariance that the same tokens give to all rounds."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from agents.codebook import Codebook
from agents.prior import Prior
from agents.reductions import components, dot

Array = np.ndarray


class Measurement(NamedTuple):
    """One field that was heard, whitened against the earlier ones under each atom.

    Attributes:
        code: the direction it was about [n, B].
        control: control variate v of the senders, taken to be the listener's own; zero without [n, d, B].
        centre: posterior mean of z that predicted the size of the noise; zero without control [n, M, R, B].
        effective: effective number of tokens that were averaged [n, B].
        around: effective number of tokens that could have been [n, B].
        row: row of the Cholesky factor, without its diagonal: one entry [n, M, B] for each earlier field.
        scale: inverse of the diagonal entry, 0 where nothing was heard [n, M, B].
        innovation: what the earlier fields did not predict, in standard deviations [n, M, B].
        gain: covariance of the innovation with the Gaussian part z of w [n, M, R, B].
        held: whether the variance given the earlier fields came out below the channel's [n, M, B].
    """

    code: Integer[Array, "n B"]
    control: Float[Array, "n d B"]
    centre: Float[Array, "n M R B"]
    effective: Float[Array, "n B"]
    around: Float[Array, "n B"]
    row: tuple[Float[Array, "n M B"], ...]
    scale: Float[Array, "n M B"]
    innovation: Float[Array, "n M B"]
    gain: Float[Array, "n M R B"]
    held: Bool[Array, "n M B"]


def shared(count: Float[Array, "n B"], around: Float[Array, "n B"], past: Measurement) -> Float[Array, "n B"]:
    """Share of a token's covariance that two means have in common: sum_j a_j b_j of their weights.

        (1 + (n_t - 1)(n_s - 1) / (n - 1)) / (n_t n_s)

    for means over n_t and n_s of n tokens: a token is in both itself, and of the others those that spoke
    to the question are taken to be independent draws. If all spoke both times it is 1 / n. The covariances
    that follow are those of one process, and so positive, where `around` is the same in all rounds; elsewhere
    a conditional variance may come out too small, and is held at the channel's: see `GaussianInference.held`.

    Args:
        count: n_t, effective number of tokens behind the new mean.
        around: effective number of tokens that could have been.
        past: the earlier mean.
    """
    most = np.maximum(around, past.around) - 1.0
    then = np.where(past.effective > 0, past.effective, 1.0)
    both = 1.0 + (count - 1.0) * (then - 1.0) / np.where(most > 0, most, 1.0)
    return both / (count * then)


class Noise(NamedTuple):
    """Noise covariance of one token's message under each atom, and what it was predicted from.

    Attributes:
        own: variance [n, M, B].
        cross: covariance with each earlier field; None if rounds are taken to be independent.
        control: v [n, d, B].
        centre: posterior mean of z [n, M, R, B].
    """

    own: Float[Array, "n M B"]
    cross: list[Float[Array, "n M B"] | None]
    control: Float[Array, "n d B"]
    centre: Float[Array, "n M R B"]


@dataclass(frozen=True, eq=False)
class MessageNoise:
    """Noise covariance of one token's messages, under each atom of the prior.

    With q_t = w - v_t, v_t the control of round t, two measurements of one token have covariance
    (u_t.u_s)(q_t.q_s + sigma^2) + (u_t.q_s)(u_s.q_t). Under an atom w has mean a and covariance P, so
    for t >= s its expectation, with offsets o_t = a_t - v_t, is

        (u_t.u_s)(o_t.o_s + tr P_t + sigma^2) + (u_t.o_s)(u_s.o_t) + u_t' P_t u_s.

    With a control variate a_t and P_t are those of the posterior before round t: w - a_t is not
    correlated with what was heard before. Without it v = 0 and q is w itself in every round, so a and P
    stay those of the prior. Either way the covariance is that of one process, hence positive, and for a
    single Gaussian atom it does not depend on what is heard. How much of it is in two means depends on how
    many tokens are behind both, see `shared`.

    Attributes:
        prior: prior over w.
        codebook: directions that messages are about.
        label_noise: sigma.
        channel_variance: variance that the channel adds to each message.
        joint: use the covariance between rounds; if false, treat rounds as independent.

    Source: THEORY.md section 5.
    """

    prior: Prior
    codebook: Codebook
    label_noise: float
    channel_variance: float
    joint: bool

    @cached_property
    def forms(self) -> Float[Array, "C R"]:
        """What each direction sees of the Gaussian part z of w: F' u."""
        return self.codebook.directions @ self.prior.factor

    @property
    def floor(self) -> float:
        """Variance that the channel adds to a message, at least 1e-10: a question that is repeated without
        noise then has an innovation of zero, not a ratio of two rounding errors."""
        return max(self.channel_variance, 1e-10)

    def predict(
        self,
        gaussian: Float[Array, "n M R B"],
        before: tuple[Measurement, ...],
        heard: tuple[Measurement, ...],
        code: Integer[Array, "n B"],
        control: Float[Array, "n d B"] | None,
    ) -> Noise:
        """Covariance of a message about `code` with itself and with each field in `heard`.

        Args:
            gaussian: posterior mean of z before the round.
            before: fields heard before the round.
            heard: fields heard before this one, those of the same round included.
            code: the direction asked.
            control: the senders' control variate; None without it.
        """
        gram = self.codebook.gram()
        tokens, _, _, prompts = gaussian.shape
        if control is None:
            known: tuple[Measurement, ...] = ()
            centre = np.zeros_like(gaussian)
            control = np.zeros((tokens, self.prior.dim, prompts))
        else:
            known, centre = before, gaussian
        now = self._offset(centre, control)
        along_now = self.along(code, now)
        spread = self.gaussian_spread(known) + self.label_noise**2
        own = gram[code, code][:, None] * (dot(now, now) + spread) + along_now * along_now
        own = own + self._gaussian_covariance(known, code, code) + self.floor
        cross: list[Float[Array, "n M B"] | None] = []
        for past in heard:
            if not self.joint:
                cross.append(None)
                continue
            then = self._offset(past.centre, past.control)
            shared = gram[code, past.code][:, None] * (dot(now, then) + spread)
            exchanged = self.along(code, then) * self.along(past.code, now)
            cross.append(shared + exchanged + self._gaussian_covariance(known, code, past.code))
        return Noise(own, cross, control, centre)

    def located(self, gaussian: Float[Array, "n M R B"]) -> list[Float[Array, "n M B"]]:
        """mu_m + F z: w under each atom, one array for each dimension."""
        shape = (gaussian.shape[0], gaussian.shape[1], gaussian.shape[3])
        means = []
        for k in range(self.prior.dim):
            mean = np.broadcast_to(self.prior.atoms[None, :, k, None], shape)
            for rank in range(self.prior.factor.shape[1]):
                mean = mean + self.prior.factor[k, rank] * gaussian[:, :, rank]
            means.append(mean)
        return means

    def along(self, code: Integer[Array, "n B"], vector: list[Float[Array, "..."]]) -> Float[Array, "n M B"]:
        """Scalar product of each listener's direction with a vector under each atom."""
        return dot([part[:, None] for part in components(self.codebook.directions, code)], vector)

    def _offset(
        self, centre: Float[Array, "n M R B"], control: Float[Array, "n d B"]
    ) -> list[Float[Array, "n M B"]]:
        """a - v under each atom."""
        return [mean - control[:, k, None] for k, mean in enumerate(self.located(centre))]

    def gaussian_spread(self, known: tuple[Measurement, ...]) -> Float[Array, "n M B"] | float:
        """tr P under each atom, P the covariance of w given the fields in `known`."""
        spread: Float[Array, "n M B"] | float = float((self.prior.factor**2).sum())
        for past in known if self.prior.factor.shape[1] else ():
            parts = list(np.moveaxis(past.gain, 2, 0))
            image = [dot(parts, list(column)) for column in self.prior.factor]
            spread = spread - dot(image, image)
        return spread

    def _gaussian_covariance(
        self, known: tuple[Measurement, ...], left: Integer[Array, "n B"], right: Integer[Array, "n B"]
    ) -> Float[Array, "n M B"] | float:
        """u' P u' between two directions under each atom."""
        if not self.prior.factor.shape[1]:
            return 0.0
        first = [part[:, None] for part in components(self.forms, left)]
        second = [part[:, None] for part in components(self.forms, right)]
        total = dot(first, second)
        for past in known:
            parts = list(np.moveaxis(past.gain, 2, 0))
            total = total - dot(first, parts) * dot(second, parts)
        return total
