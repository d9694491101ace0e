"""The law of what is heard on the complete graph, in place of the tokens that say it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.random import Generator, Philox, SeedSequence

from agents.prior import Prior
from analysis.theory.evolution.posterior import Record, border, token_covariance

Array = np.ndarray
BLOCK = 256  # samples that share a generator, whatever is computed together
DRAWN = 4  # generators of a block; others may take the numbers from here on


class Draws(NamedTuple):
    """All randomness of some samples.

    Attributes:
        truth: true w [n, d].
        gram: a square root of the Gram matrix of inputs and label noise, the row of label noise last; the
            columns of one group of tokens after those of another [n, D, p].
        fresh: standard normal numbers for the noise of each field [L, K, n].
        distortion: and for what clipping and rounding add to it [L, K, n].
    """

    truth: Float[Array, "n d"]
    gram: Float[Array, "n D p"]
    fresh: Float[Array, "L K n"]
    distortion: Float[Array, "L K n"]


def draw(prior: Prior, groups: tuple[int, ...], shape: tuple[int, int], seed: int, blocks: range) -> Draws:
    """The draws of some blocks, which depend neither on the policy nor on what other blocks there are.

    Args:
        prior: prior over w.
        groups: number of tokens in each group; all N in one where all weigh the same.
        shape: rounds L and channels K.
        seed: seed of all draws.
        blocks: numbers of the blocks of 256 samples.

    Source: the factor of a Wishart matrix, M. S. Bartlett (1933), doi:10.1017/S0370164600015637.
    """
    parts = [_draw(prior, groups, shape, seed, block) for block in blocks]
    axes = (0, 0, 2, 2)  # of the samples
    together = zip(zip(*parts, strict=True), axes, strict=True)
    return Draws(*(np.concatenate(part, axis) for part, axis in together))


def columns_of(groups: tuple[int, ...], dim: int) -> list[int]:
    """Columns of the square root of each group's Gram matrix: its tokens, or d + 1 if they are more.

    Example:
        >>> columns_of((1, 2, 50), dim=3)
        [1, 2, 4]
    """
    return [min(tokens, dim + 1) for tokens in groups]


def _draw(prior: Prior, groups: tuple[int, ...], shape: tuple[int, int], seed: int, block: int) -> Draws:
    """The draws of one block."""
    children = SeedSequence([seed, block]).spawn(DRAWN)
    latent, gram, channel, quantiser = (Generator(Philox(child)) for child in children)
    atoms = latent.choice(len(prior.weights), size=BLOCK, p=prior.weights)
    truth = prior.atoms[atoms] + latent.standard_normal((BLOCK, prior.factor.shape[1])) @ prior.factor.T
    factors = [np.empty((BLOCK, prior.dim + 1, 0))]
    for tokens, width in zip(groups, columns_of(groups, prior.dim), strict=True):
        columns = np.arange(width)
        factor = np.tril(gram.standard_normal((BLOCK, prior.dim + 1, width)), -1)
        factor[:, columns, columns] = np.sqrt(gram.chisquare(tokens - columns, (BLOCK, width)))
        factors.append(factor)
    numbers = (*shape, BLOCK)
    fresh, distortion = channel.standard_normal(numbers), quantiser.standard_normal(numbers)
    return Draws(truth, np.concatenate(factors, axis=2), fresh, distortion)


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
