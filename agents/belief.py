"""The exact posterior over the mixture, given everything heard so far.

A field is the mean of n messages about w along one direction, by the central limit theorem a Gaussian
measurement. The same tokens speak in every round, so the noise of two rounds is correlated; and its
size depends on how far the senders' control was from w. Both are known under each atom, so each atom
keeps its own whitened record of what was heard: row by row a Cholesky factor of the covariance of the
fields, their innovations, and what they say about the Gaussian part of w.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from agents.codebook import Codebook
from agents.ordered import components, dot, fold
from agents.prior import Prior

Array = np.ndarray


class Measurement(NamedTuple):
    """One field that was heard, whitened against the earlier ones under each atom.

    Attributes:
        code: the direction it was about [n, B].
        control: control variate of the senders, taken to be the listener's own [n, d, B].
        effective: effective number of tokens that were averaged [n, B].
        row: row of the Cholesky factor, without its diagonal: one entry [n, M, B] for each earlier field.
        scale: inverse of the diagonal entry, 0 where nothing was heard [n, M, B].
        innovation: what the earlier fields did not predict, in standard deviations [n, M, B].
        gain: covariance of the innovation with the Gaussian part z of w [n, M, R, B].
    """

    code: Integer[Array, "n B"]
    control: Float[Array, "n d B"]
    effective: Float[Array, "n B"]
    row: tuple[Float[Array, "n M B"], ...]
    scale: Float[Array, "n M B"]
    innovation: Float[Array, "n M B"]
    gain: Float[Array, "n M R B"]


class Belief(NamedTuple):
    """Posterior in the form that the next measurement needs.

    Attributes:
        log_weights: log posterior of each atom up to a constant, nats [n, M, B].
        gaussian: posterior mean of z under each atom [n, M, R, B].
        heard: all measurements, oldest first.
    """

    log_weights: Float[Array, "n M B"]
    gaussian: Float[Array, "n M R B"]
    heard: tuple[Measurement, ...]

    def atoms(self) -> Float[Array, "n M B"]:
        """Posterior probability of each atom."""
        weights = np.exp(self.log_weights - self.log_weights.max(axis=1, keepdims=True))
        return np.asarray(weights / fold(weights)[:, None])


@dataclass(frozen=True, eq=False)
class Inference:
    """The one update rule, for any prior of the family.

    With q_t = w - (control of round t), two measurements of one token have covariance
    (u_t.u_s)(q_t.q_s + sigma^2) + (u_t.q_s)(u_s.q_t), evaluated under each atom with the
    uncertainty of the Gaussian part included. The mean over n_t tokens in one round and n_s in another
    has this covariance over max(n_t, n_s), exact if the smaller group is part of the larger one.

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
        >>> inference = Inference(prior, principal(prior), label_noise=0.0, channel_variance=1.0)
        >>> belief = inference.start(tokens=1, prompts=1)
        >>> one = np.ones((1, 1))
        >>> heard = inference.hear(
        ...     belief, np.zeros((1, 1, 1), int), one[None], 50 * one[None], np.zeros((1, 1, 1)))
        >>> abs(float(inference.estimate(heard).item())) > 0.99
        True
    """

    prior: Prior
    codebook: Codebook
    label_noise: float
    channel_variance: float
    joint: bool = True

    def start(self, tokens: int, prompts: int) -> Belief:
        """The prior, before anything was heard."""
        count, rank = len(self.prior.weights), self.prior.factor.shape[1]
        with np.errstate(divide="ignore"):
            logs = np.log(self.prior.weights)
        return Belief(
            np.broadcast_to(logs[None, :, None], (tokens, count, prompts)).copy(),
            np.zeros((tokens, count, rank, prompts)),
            (),
        )

    def hear(
        self,
        belief: Belief,
        codes: Integer[Array, "n K B"],
        values: Float[Array, "n K B"],
        effective: Float[Array, "n K B"],
        control: Float[Array, "n d B"],
    ) -> Belief:
        """Update on the K fields of one round.

        Args:
            belief: belief at the start of the round, which predicts the noise of all K fields.
            codes: directions that were asked.
            values: means that were heard.
            effective: effective number of tokens behind each mean, 0 where none spoke.
            control: control variate in this round's messages.
        """
        means = self._atom_means(belief)
        for channel in range(codes.shape[1]):
            belief = self._hear_one(
                belief, means, codes[:, channel], values[:, channel], effective[:, channel], control
            )
        return belief

    def estimate(self, belief: Belief) -> Float[Array, "n d B"]:
        """Posterior mean of w."""
        weights = belief.atoms()
        return np.stack([fold(weights * mean) for mean in self._atom_means(belief)], axis=1)

    def variances(self, belief: Belief) -> Float[Array, "n C B"]:
        """Posterior variance u' Cov[w] u along each direction u of the codebook."""
        weights = belief.atoms()
        means = self._atom_means(belief)
        forms = self.codebook.directions @ self.prior.factor
        result = np.empty((weights.shape[0], len(self.codebook), weights.shape[2]))
        for code, direction in enumerate(self.codebook.directions):
            along = means[0] * direction[0]
            for mean, coefficient in zip(means[1:], direction[1:], strict=True):
                along = along + mean * coefficient
            centred = along - fold(weights * along)[:, None]
            spread = centred * centred
            if forms.shape[1]:
                spread = spread + float(forms[code] @ forms[code])
                for past in belief.heard:
                    seen = dot(list(np.moveaxis(past.gain, 2, 0)), list(forms[code]))
                    spread = spread - seen * seen
            result[:, code] = fold(weights * spread)
        return result

    def _atom_means(self, belief: Belief) -> list[Float[Array, "n M B"]]:
        """Posterior mean of w under each atom, one array for each dimension."""
        means = []
        for k in range(self.prior.dim):
            mean = np.broadcast_to(self.prior.atoms[None, :, k, None], belief.log_weights.shape)
            for rank in range(self.prior.factor.shape[1]):
                mean = mean + self.prior.factor[k, rank] * belief.gaussian[:, :, rank]
            means.append(mean)
        return means

    def _hear_one(
        self,
        belief: Belief,
        means: list[Float[Array, "n M B"]],
        code: Integer[Array, "n B"],
        value: Float[Array, "n B"],
        effective: Float[Array, "n B"],
        control: Float[Array, "n d B"],
    ) -> Belief:
        present = effective > 0
        count = np.where(present, effective, 1.0)
        forms = [part[:, None] for part in components(self.codebook.directions @ self.prior.factor, code)]
        noise = self._noise(belief, means, code, control)
        # Covariance of this field with each earlier one, then of its own, under each atom.
        row: list[Float[Array, "n M B"]] = []
        gains = [np.broadcast_to(form, belief.log_weights.shape) for form in forms]
        predicted = np.zeros_like(belief.log_weights)
        remaining = None
        own = noise.own / count[:, None]
        if forms:
            own = own + dot(forms, forms)
        for index, past in enumerate(belief.heard):
            entry = self._covariance(past, noise.cross[index], forms, count, belief)
            for earlier, factor in enumerate(row):
                entry = entry - factor * past.row[earlier]
            entry = entry * past.scale * present[:, None]
            row.append(entry)
            predicted = predicted + entry * past.innovation
            square = entry * entry
            remaining = square if remaining is None else remaining + square
            gains = [gain - entry * past.gain[:, :, r] for r, gain in enumerate(gains)]
        pivot = own if remaining is None else own - remaining
        floor = self._floor() / count[:, None]
        scale = np.where(present[:, None], 1.0 / np.sqrt(np.maximum(pivot, floor)), 0.0)
        offset = value[:, None] - self._along(code, [mean[None, :, None] for mean in self.prior.atoms.T])
        innovation = (offset - predicted) * scale
        evidence = np.where(present[:, None], np.log(np.where(present[:, None], scale, 1.0)), 0.0)
        gain = np.empty(belief.gaussian.shape)
        for r, raw in enumerate(gains):
            gain[:, :, r] = raw * scale
        heard = Measurement(code, control, effective, tuple(row), scale, innovation, gain)
        return Belief(
            belief.log_weights - 0.5 * innovation * innovation + evidence,
            belief.gaussian + gain * innovation[:, :, None],
            (*belief.heard, heard),
        )

    def _covariance(
        self,
        past: Measurement,
        noise: Float[Array, "n M B"] | None,
        forms: list[Float[Array, "n 1 B"]],
        count: Float[Array, "n B"],
        belief: Belief,
    ) -> Float[Array, "n M B"]:
        """Prior covariance of a new field with a past one: signal u_t' S u_s plus shared noise."""
        total = np.zeros_like(belief.log_weights)
        if forms:
            other = components(self.codebook.directions @ self.prior.factor, past.code)
            total = total + dot(forms, [part[:, None] for part in other])
        if noise is not None:
            total = total + noise / np.maximum(count, past.effective)[:, None]
        return total

    def _noise(
        self,
        belief: Belief,
        means: list[Float[Array, "n M B"]],
        code: Integer[Array, "n B"],
        control: Float[Array, "n d B"],
    ) -> "_Noise":
        """Covariance of one token's measurement noise now, and with each past round, under each atom."""
        gram = self.codebook.gram()
        forms = self.codebook.directions @ self.prior.factor
        now = [mean - control[:, k, None] for k, mean in enumerate(means)]
        spread = self._gaussian_spread(belief)
        along_now = self._along(code, now)
        own_form = self._projected_variance(belief, code, code, forms)
        variance = dot(now, now) + spread + self.label_noise**2
        own = gram[code, code][:, None] * variance + along_now * along_now + own_form
        cross: list[Float[Array, "n M B"] | None] = []
        for past in belief.heard:
            if not self.joint:
                cross.append(None)
                continue
            then = [mean - past.control[:, k, None] for k, mean in enumerate(means)]
            shared = dot(now, then) + spread + self.label_noise**2
            exchanged = self._along(code, then) * self._along(past.code, now)
            form = self._projected_variance(belief, code, past.code, forms)
            cross.append(gram[code, past.code][:, None] * shared + exchanged + form)
        return _Noise(own + self._floor(), cross)

    def _floor(self) -> float:
        """Variance that the channel adds to a message; never exactly zero, so that a repeated question
        has an innovation of zero and not of zero over zero."""
        return max(self.channel_variance, 1e-14)

    def _along(
        self, code: Integer[Array, "n B"], vector: list[Float[Array, "n M B"]]
    ) -> Float[Array, "n M B"]:
        """Scalar product of each listener's direction with a vector under each atom."""
        return dot([part[:, None] for part in components(self.codebook.directions, code)], vector)

    def _gaussian_spread(self, belief: Belief) -> Float[Array, "n M B"] | float:
        """Trace of the posterior covariance of w under each atom."""
        spread: Float[Array, "n M B"] | float = float((self.prior.factor**2).sum())
        for past in belief.heard if self.prior.factor.shape[1] else ():
            parts = list(np.moveaxis(past.gain, 2, 0))
            image = [dot(parts, list(column)) for column in self.prior.factor]
            spread = spread - dot(image, image)
        return spread

    def _projected_variance(
        self,
        belief: Belief,
        left: Integer[Array, "n B"],
        right: Integer[Array, "n B"],
        forms: Float[Array, "C R"],
    ) -> Float[Array, "n M B"] | float:
        """Posterior covariance of w between two directions under each atom."""
        if not forms.shape[1]:
            return 0.0
        first = [part[:, None] for part in components(forms, left)]
        second = [part[:, None] for part in components(forms, right)]
        total = dot(first, second)
        for past in belief.heard:
            parts = list(np.moveaxis(past.gain, 2, 0))
            total = total - dot(first, parts) * dot(second, parts)
        return total


class _Noise(NamedTuple):
    """Noise covariance of one token's message: own [n, M, B]; with each past field, None if ignored."""

    own: Float[Array, "n M B"]
    cross: list[Float[Array, "n M B"] | None]
