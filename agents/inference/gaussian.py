"""The posterior over the mixture if each field is taken for Gaussian, which it is for many tokens.

A field is the mean of n messages about w along one direction. The same tokens speak in every round, so the
noise of two rounds is correlated; and its size depends on how far the senders' control, taken to be the
listener's own, was from w. Both are known under each atom, so each atom keeps its own whitened record of
what was heard: row by row a Cholesky factor of the covariance of the fields, their innovations, and what
they say about the Gaussian part of w.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from agents.channel import Field
from agents.inference.base import LEAST_LABEL_NOISE, Inference, log_prior, normalised
from agents.inference.noise import Measurement, MessageNoise, Noise, shared
from agents.reductions import components, dot, fold

Array = np.ndarray


class GaussianBelief(NamedTuple):
    """Posterior in the form that the next measurement needs.

    Attributes:
        log_weights: log posterior of each atom up to a constant, nats [n, M, B].
        gaussian: posterior mean of z under each atom [n, M, R, B].
        heard: all measurements, oldest first.
    """

    log_weights: Float[Array, "n M B"]
    gaussian: Float[Array, "n M R B"]
    heard: tuple[Measurement, ...]


@dataclass(frozen=True, eq=False)
class GaussianInference(Inference[GaussianBelief]):
    """The update rule for Gaussian fields, for any prior of the family.

    Attributes:
        prior: prior over w.
        codebook: directions that measurements are about.
        label_noise: sigma.
        channel_variance: variance that the channel adds to each message.
        joint: use the covariance between rounds; if false, treat rounds as independent.

    Source: THEORY.md sections 4 and 5.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 1.0, 1)
        >>> inference = GaussianInference(prior, principal(prior), label_noise=0.0, channel_variance=1.0)
        >>> belief = inference.start(tokens=1, prompts=1)
        >>> one = np.ones((1, 1, 1))
        >>> field = Field(np.zeros((1, 1, 1), int), one, 50 * one, 50 * one[0])
        >>> abs(float(inference.estimate(inference.hear(belief, field, None, 1)).item())) > 0.99
        True
    """

    joint: bool = True

    @cached_property
    def noise(self) -> MessageNoise:
        """The noise of the fields."""
        return MessageNoise(self.prior, self.codebook, self.label_noise, self.channel_variance, self.joint)

    def start(self, tokens: int, prompts: int, positions: Int[Array, " n"] | None = None) -> GaussianBelief:
        """The prior; the law of a field is the same everywhere, so that no position is read."""
        count, rank = len(self.prior.weights), self.prior.factor.shape[1]
        nothing = np.zeros((tokens, count, rank, prompts))
        return GaussianBelief(log_prior(self.prior, tokens, prompts), nothing, ())

    def hear(
        self, belief: GaussianBelief, field: Field, control: Float[Array, "n d B"] | None, round: int
    ) -> GaussianBelief:
        """Update on the K means of one round; the belief before it predicts the noise of all of them."""
        before = belief
        for channel in range(field.codes.shape[1]):
            asked = field.codes[:, channel]
            noise = self.noise.predict(before.gaussian, before.heard, belief.heard, asked, control)
            if field.relayed is not None:
                more = self.channel_variance * (field.relayed[:, channel] - 1.0)
                noise = noise._replace(own=noise.own + more[:, None])
            value, effective = field.values[:, channel], field.effective[:, channel]
            belief = self._hear_one(belief, noise, asked, value, effective, field.around)
        return belief

    def told(
        self, belief: GaussianBelief, inputs: Float[Array, "n d B"], labels: Float[Array, "n B"]
    ) -> GaussianBelief:
        """The belief with one whole example: under each atom a step of the Kalman filter."""
        columns = list(np.moveaxis(inputs, 1, 0)[:, :, None])
        residual = labels[:, None] - dot(columns, self._atom_means(belief))
        signals = [dot(columns, list(column)) for column in self.prior.factor.T]
        images = [np.broadcast_to(signal, belief.log_weights.shape) for signal in signals]
        for past in belief.heard if signals else ():
            parts = list(np.moveaxis(past.gain, 2, 0))
            seen = dot(parts, signals)
            images = [image - seen * part for image, part in zip(images, parts, strict=True)]
        variance = max(self.label_noise, LEAST_LABEL_NOISE) ** 2 + (dot(images, signals) if signals else 0.0)
        evidence = -0.5 * (np.log(variance) + residual * residual / variance)
        gaussian = belief.gaussian.copy()
        for r, image in enumerate(images):
            gaussian[:, :, r] += image * residual / variance
        return belief._replace(log_weights=belief.log_weights + evidence, gaussian=gaussian)

    def atoms(self, belief: GaussianBelief) -> Float[Array, "n M B"]:
        """Posterior probability of each atom."""
        return normalised(belief.log_weights)

    def spread(self, belief: GaussianBelief) -> Float[Array, "n B"]:
        """Expected squared distance of w from its posterior mean."""
        mean = list(np.moveaxis(self.estimate(belief), 1, 0)[:, :, None])
        offset = [atom - part for atom, part in zip(self._atom_means(belief), mean, strict=True)]
        within = self.noise.gaussian_spread(belief.heard)
        return fold(self.atoms(belief) * (dot(offset, offset) + within))

    def asked(self, belief: GaussianBelief) -> Int[Array, "n C B"]:
        """How often each code was asked."""
        tokens, _, prompts = belief.log_weights.shape
        times = np.zeros((tokens, len(self.codebook), prompts), dtype=np.int64)
        for past in belief.heard:
            code = past.code[:, None]
            np.put_along_axis(times, code, np.take_along_axis(times, code, 1) + 1, 1)
        return times

    def held(self, belief: GaussianBelief) -> Int[Array, "n B"]:
        """How many fields had a variance, given the earlier ones, that had to be held at the channel's.

        A question that is repeated on a quiet channel has; so has one whose mean is behind a number of tokens
        for which the covariances are not those of one process.
        """
        count = np.zeros(belief.log_weights[:, 0].shape, dtype=np.int64)
        for past in belief.heard:
            count += past.held.any(axis=1)
        return count

    def estimate(self, belief: GaussianBelief) -> Float[Array, "n d B"]:
        """Posterior mean of w."""
        weights = self.atoms(belief)
        return np.stack([fold(weights * mean) for mean in self._atom_means(belief)], axis=1)

    def variances(self, belief: GaussianBelief) -> Float[Array, "n C B"]:
        """Posterior variance u' Cov[w] u along each direction u of the codebook."""
        weights = self.atoms(belief)
        means = self._atom_means(belief)
        forms = self.noise.forms
        result = np.empty((weights.shape[0], len(self.codebook), weights.shape[2]))
        for code, direction in enumerate(self.codebook.directions):
            along = dot(means, list(direction))
            centred = along - fold(weights * along)[:, None]
            spread = centred * centred
            if forms.shape[1]:
                spread = spread + float(forms[code] @ forms[code])
                for past in belief.heard:
                    seen = dot(list(np.moveaxis(past.gain, 2, 0)), list(forms[code]))
                    spread = spread - seen * seen
            result[:, code] = fold(weights * spread)
        return result

    def _atom_means(self, belief: GaussianBelief) -> list[Float[Array, "n M B"]]:
        """Posterior mean of w under each atom, one array for each dimension."""
        return self.noise.located(belief.gaussian)

    def _hear_one(
        self,
        belief: GaussianBelief,
        noise: Noise,
        code: Integer[Array, "n B"],
        value: Float[Array, "n B"],
        effective: Float[Array, "n B"],
        around: Float[Array, "n B"],
    ) -> GaussianBelief:
        """Whiten one field against the earlier ones: one more row of a Cholesky factor."""
        present = (effective > 0)[:, None]
        count = np.where(effective > 0, effective, 1.0)
        forms = [part[:, None] for part in components(self.noise.forms, code)]
        pivot = noise.own / count[:, None]
        if forms:
            pivot = pivot + dot(forms, forms)
        gains = [np.broadcast_to(form, belief.log_weights.shape) for form in forms]
        predicted = self.noise.along(code, [mean[None, :, None] for mean in self.prior.atoms.T])
        row: list[Float[Array, "n M B"]] = []
        for past, cross in zip(belief.heard, noise.cross, strict=True):
            entry = np.zeros_like(belief.log_weights)
            if forms:
                other = components(self.noise.forms, past.code)
                entry = entry + dot(forms, [part[:, None] for part in other])
            if cross is not None:
                entry = entry + cross * shared(count, around, past)[:, None]
            for mine, theirs in zip(row, past.row, strict=True):
                entry = entry - mine * theirs
            entry = entry * past.scale * present
            row.append(entry)
            predicted = predicted + entry * past.innovation
            pivot = pivot - entry * entry
            gains = [gain - entry * past.gain[:, :, r] for r, gain in enumerate(gains)]
        least = self.noise.floor / count[:, None]
        held, pivot = (pivot < least) & present, np.maximum(pivot, least)
        scale = np.where(present, 1.0 / np.sqrt(pivot), 0.0)
        innovation = (value[:, None] - predicted) * scale
        evidence = np.log(np.where(present, scale, 1.0)) - 0.5 * innovation * innovation
        gain = np.empty(belief.gaussian.shape)
        for r, raw in enumerate(gains):
            gain[:, :, r] = raw * scale
        heard = Measurement(
            code, noise.control, noise.centre, effective, around, tuple(row), scale, innovation, gain, held
        )
        return GaussianBelief(
            belief.log_weights + evidence,
            belief.gaussian + gain * innovation[:, :, None],
            (*belief.heard, heard),
        )
