"""The law of what is heard on the complete graph, in place of the tokens that say it."""

import numpy as np
from jaxtyping import Float

from analysis.theory.posterior import Record, border, token_covariance

Array = np.ndarray


class ExactLaw:
    """Fields of exactly N tokens: u'(G_xx / N)(w - v) + sigma u' g_xe / N + u.v + channel noise.

    Every field is a function of the Gram matrix G = A A' of (x, e), which is Wishart with N degrees of
    freedom. Exact at every integer N if the tokens share u and v and no message is clipped.

    Source: THEORY.md section 7.2, by averaging m = (u.x)(w.x + sigma e - v.x) + u.v over tokens.

    Example:
        >>> one = np.ones((1, 1, 1))
        >>> law = ExactLaw(4.0, 0.0, 0.0, one[0], np.array([[[2.0, 0.0], [0.0, 1.0]]]))
        >>> law.fields(one, 0 * one[0], 0 * one[0]).item()
        1.0
    """

    def __init__(
        self,
        effective: float,
        label_noise: float,
        channel_variance: float,
        truth: Float[Array, "n d"],
        gram: Float[Array, "n D p"],
    ) -> None:
        """Take N, sigma, variance of the channel, true w, and A with the row of e last."""
        self.effective, self.noise = effective, np.sqrt(channel_variance / effective)
        self.truth, self.inputs, self.label_noise = truth, gram[:, :-1], label_noise * gram[:, -1]

    def fields(
        self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], fresh: Float[Array, "n K"]
    ) -> Float[Array, "n K"]:
        """Fields of the next round, from standard normal numbers for the noise of the channel."""
        residual = ((self.truth - control)[:, None] @ self.inputs)[:, 0] + self.label_noise
        moment = self.inputs @ residual[..., None] / self.effective + control[..., None]
        return (asked @ moment)[..., 0] + self.noise * fresh


class GaussianLaw:
    """Fields u.w + noise, the noise jointly Gaussian over rounds, each field drawn given the earlier ones.

    The covariance is that of one token's measurements at the true w, over N: the mean field limit.

    Source: THEORY.md section 5.

    Example:
        >>> one = np.ones((1, 1, 1))
        >>> law = GaussianLaw(4.0, 0.0, 1.0, 2.0 * one[0])
        >>> law.fields(one, 0 * one[0], one[0]).item()  # 2 + sqrt((4 + 4 + 1) / 4)
        3.5
    """

    def __init__(
        self, effective: float, label_noise: float, channel_variance: float, truth: Float[Array, "n d"]
    ) -> None:
        """Take N, sigma, variance of the channel, true w."""
        size, dim = truth.shape
        self.effective, self.label_noise, self.channel_variance = effective, label_noise, channel_variance
        self.truth = truth
        none = np.empty((size, 0, dim))
        self.past = Record(none, none[:, None], none[..., 0], np.empty((size, 1, 0, 0)))

    def fields(
        self, asked: Float[Array, "n K d"], control: Float[Array, "n d"], fresh: Float[Array, "n K"]
    ) -> Float[Array, "n K"]:
        """Fields of the next round, from standard normal numbers; remembers their noise."""
        noise, covariance = self.past.values, self.past.covariance
        channels, before = asked.shape[1], noise.shape[1]
        directions, offsets = self.past.with_round(asked, (self.truth - control)[:, None])
        rows = token_covariance(directions, offsets, None, channels, self.label_noise)
        rows = rows + self.channel_variance * np.eye(channels, before + channels, before)
        for channel in range(channels):
            row = rows[:, :, channel, : before + channel + 1] / self.effective
            step = border(covariance, row, self.channel_variance / self.effective)
            predicted = (step.coefficients[:, 0] * noise).sum(axis=1)
            value = predicted + np.sqrt(step.pivot[:, 0]) * fresh[:, channel]
            noise = np.concatenate([noise, value[:, None]], axis=1)
            covariance = step.covariance
        self.past = Record(directions, offsets, noise, covariance)
        return (asked @ self.truth[..., None])[..., 0] + noise[:, before:]
