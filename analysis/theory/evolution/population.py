"""State evolution of a whole population: the beliefs of all positions at once, where they disagree.

On a graph tokens hear different numbers of others, believe differently and ask different codes, so that no
single belief stands for them. Here all N beliefs of a prompt are drawn together, each from what its
neighbours, with beliefs of their own, would say. Exact at any N and on any graph; the cost is that of the
system itself. What an agent cannot know of its neighbours is read off here, as constants of its place: how
far their controls are from its own, and what a repeated answer is worth.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator, Philox, SeedSequence
from scipy.sparse import csr_array
from scipy.special import logsumexp

from analysis.statistics import standard_error
from analysis.theory.evolution.complete import foremost, largest
from analysis.theory.evolution.law import NODES, mixture_over_g
from analysis.theory.setting import Setting
from topology.mixing import Mixing

Array = np.ndarray
WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0)  # of a repeated answer, that are tried
_BOLDEST = 1.06  # largest realised over claimed risk with which a repeated answer may count
_NEGLIGIBLE = 1e-3  # claimed risk below which no ratio is asked for
_LEAST_LABEL_NOISE = 1e-6
_ALONE = 1.0 + 1e-9  # effective number of tokens up to which a token heard but itself
_NUMBERS = 4_000_000  # numbers in the largest array of a chunk of prompts
_STREAM = 0x5EED  # keeps these draws apart from those of one belief


class Population(NamedTuple):
    """What a population of beliefs comes to after rounds 0..L.

    Attributes:
        position_risk: E|w - estimate|^2 / E|w|^2 of each position [L+1, N].
        position_risk_se: its standard error over prompts [L+1, N].
        prompt_risk: the same of each prompt, mean over positions [L+1, B].
        claimed: the risk that the beliefs themselves expect, mean over all [L+1].
        disagreement: mean squared distance of the controls heard from the listener's own [L, N].
        repeats: weight of a repeated answer in each round [L].
    """

    position_risk: Float[Array, "rounds N"]
    position_risk_se: Float[Array, "rounds N"]
    prompt_risk: Float[Array, "rounds B"]
    claimed: Float[Array, " rounds"]
    disagreement: Float[Array, "L N"]
    repeats: tuple[float, ...]


class Prompts(NamedTuple):
    """Some prompts of all tokens.

    Attributes:
        atom: index of the true w [B].
        inputs: x [N, B, d].
        labels: y [N, B].
    """

    atom: Int[Array, " B"]
    inputs: Float[Array, "N B d"]
    labels: Float[Array, "N B"]


class Held(NamedTuple):
    """The mean that each token holds of each code that it asked.

    Attributes:
        mean: of the messages [N, B, K].
        effective: effective number of tokens behind it [N, B, K].
        passes: variance of the channel in it, over that of one message [N, B, K].
    """

    mean: Float[Array, "N B K"]
    effective: Float[Array, "N B K"]
    passes: Float[Array, "N B K"]


def evolve_population(
    setting: Setting,
    mixing: Mixing,
    prompts: int,
    seed: int,
    turns: tuple[int, ...] = (1,),
    unasked: bool = False,
) -> Population:
    """Predict the risk of every position by drawing what all of them hear and believe.

    Args:
        setting: the system; where `repeats` or `disagreement` are None they are found on the way: the
            disagreement as the mean over prompts, and the weight of repeated answers in each round as that
            of least expected log loss with which beliefs do not claim much less risk than they make.
        mixing: weights A of the graph.
        prompts: number of independent prompts.
        seed: seed of all draws.
        turns: T, rounds of averaging for each question in turn, the last for all that follow.
        unasked: `adaptive` asks the widest of those codes that it has asked least often.

    Raises:
        ValueError: if the belief is not one of the exact law.

    Source: THEORY.md section 5, senders that disagree.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> from topology.mixing import past
        >>> prior = tree(2, 2, 0.8, 3)
        >>> setting = Setting(prior, principal(prior), "adaptive", 3, 1, 8.0, 0.1, exact=True, order="level")
        >>> found = evolve_population(setting, past(8), prompts=200, seed=0)
        >>> bool(found.position_risk[3, 7] < 0.1 < found.position_risk[3, 1])
        True
    """
    if not setting.exact:
        raise ValueError("a population is evolved for beliefs that know the exact law of a field")
    planned = setting.repeats is None or setting.disagreement is None
    whole = [prompts] if planned else _chunks(setting, mixing.tokens, prompts)
    parts = []
    for part, size in enumerate(whole):
        parts.append(_Population(setting, mixing, size, seed, part, turns, unasked).play())
    errors = np.concatenate([errors for errors, *_ in parts], axis=2) / setting.prior.power()
    claimed = np.average([claimed for _, claimed, *_ in parts], axis=0, weights=whole)
    _, _, disagreement, repeats = parts[0]
    return Population(
        errors.mean(axis=2),
        standard_error(errors),
        errors.mean(axis=1),
        claimed / setting.prior.power(),
        disagreement,
        repeats,
    )


def prompts_of(setting: Setting, tokens: int, samples: int) -> int:
    """Prompts whose tokens make so many samples, of which a mixture of many atoms gets fewer.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> prompts_of(Setting(prior, principal(prior), "adaptive", 3, 1, 8.0, 0.1), 64, 32768)
        512
    """
    affordable = max(4 * _NUMBERS // (len(setting.prior.weights) * NODES), 1024)
    return max(min(samples, affordable) // tokens, 8)


def _chunks(setting: Setting, tokens: int, prompts: int) -> list[int]:
    """Prompts at a time, as many as memory should hold."""
    stride = max(_NUMBERS // (tokens * len(setting.prior.weights) * NODES), 1)
    return [min(stride, prompts - first) for first in range(0, prompts, stride)]


class _Population:
    """The beliefs of all tokens of some prompts, round by round."""

    def __init__(
        self,
        setting: Setting,
        mixing: Mixing,
        prompts: int,
        seed: int,
        part: int,
        turns: tuple[int, ...],
        unasked: bool,
    ) -> None:
        """Draw the prompts, and believe the prior."""
        self.setting, self.turns, self.unasked = setting, turns, unasked
        prior, tokens = setting.prior, mixing.tokens
        latent, self.noise = (Generator(Philox(s)) for s in SeedSequence([seed, _STREAM, part]).spawn(2))
        atom = latent.choice(len(prior.weights), size=prompts, p=prior.weights)
        inputs = latent.standard_normal((tokens, prompts, prior.dim))
        labels = (inputs * prior.atoms[atom]).sum(axis=2)
        labels += setting.label_noise * latent.standard_normal((tokens, prompts))
        self.drawn = Prompts(atom, inputs, labels)
        shares = mixing.shares()
        self.shares = csr_array(np.repeat(shares.toarray(), tokens, axis=0)) if mixing.is_shared else shares
        self.squares = self.shares.power(2)
        self.reach = mixing.reach(max(turns))
        self.logs = np.tile(np.log(np.maximum(prior.weights, 1e-300)), (tokens, prompts, 1))
        self.times = np.zeros((tokens, prompts, len(setting.codebook)), dtype=np.int64)
        self.readings = prior.atoms @ setting.codebook.directions.T
        self.own: Array | None = None
        self.alone = np.zeros_like(self.logs)
        if setting.own_example:
            misfit = labels[..., None] - inputs @ prior.atoms.T
            self.own = -0.5 * (misfit / max(setting.label_noise, _LEAST_LABEL_NOISE)) ** 2

    def play(
        self,
    ) -> tuple[Float[Array, "rounds N B"], Float[Array, " rounds"], Float[Array, "L N"], tuple[float, ...]]:
        """Squared errors, claimed risks, disagreement, and weights of repeated answers."""
        setting, start = self.setting, self.judge(self.with_own())
        errors, claims = [start[0]], [start[1]]
        disagreement, repeats = [], []
        hop, phase = 0, 0
        for round in range(1, setting.rounds + 1):
            if hop == 0:
                self.open(phase)
                self.say(self.answers())
            else:
                self.say(self.held.mean)
            apart = self.listen(hop)
            given = setting.disagreement
            disagreement.append(apart if given is None else given[round - 1])
            (first, again), solitary = self.evidence(disagreement[-1])
            fresh = self.opening + first
            given_weight = None if setting.repeats is None else setting.repeats[round - 1]
            weight = self.worth(fresh, again) if given_weight is None else given_weight
            self.logs = fresh + weight * again
            self.alone = self.before_alone + solitary[0] + weight * solitary[1]
            error, claim, _ = self.judge(self.with_own())
            errors.append(error)
            claims.append(claim)
            repeats.append(float(weight))
            hop += 1
            if hop == self.turns[min(phase, len(self.turns) - 1)]:
                hop, phase = 0, phase + 1
        apart = np.array(disagreement).reshape(setting.rounds, len(self.times))
        return np.stack(errors), np.array(claims), apart, tuple(repeats)

    def with_own(self) -> Float[Array, "N B M"]:
        """The beliefs that estimates are read from: with a token's own example, where it is used."""
        return self.logs if self.own is None else self.logs + self.own - self.alone

    def judge(self, logs: Float[Array, "N B M"]) -> tuple[Float[Array, "N B"], float, float]:
        """Squared error of each token, mean claimed risk, and mean log loss in nats."""
        atoms, atom = self.setting.prior.atoms, self.drawn.atom
        weights, mean, claim = self.read(logs)
        true = np.take_along_axis(weights, atom[None, :, None], axis=2)
        return (
            ((mean - atoms[atom]) ** 2).sum(axis=2),
            float(claim.mean()),
            float(-np.log(true + 1e-300).mean()),
        )

    def read(
        self, logs: Float[Array, "N B M"]
    ) -> tuple[Float[Array, "N B M"], Float[Array, "N B d"], Float[Array, "N B"]]:
        """Weights of the atoms, mean of w, and its expected squared distance from there."""
        atoms, weights = self.setting.prior.atoms, _weights(logs)
        mean = weights @ atoms
        return weights, mean, weights @ (atoms**2).sum(axis=1) - (mean**2).sum(axis=2)

    def worth(self, fresh: Float[Array, "N B M"], again: Float[Array, "N B M"]) -> float:
        """The weight of repeated answers of least log loss, among those that are not too bold.

        A weight is too bold if beliefs claim much less risk than they make, or make more than without. An own
        example is left out: it is no answer.
        """
        if not again.any():
            return 0.0
        tried = {weight: self.judge(fresh + weight * again) for weight in WEIGHTS}
        least = tried[0.0][0].mean()
        sound = {
            weight: loss
            for weight, (error, claim, loss) in tried.items()
            if weight == 0.0 or (error.mean() <= least and error.mean() <= _BOLDEST * max(claim, _NEGLIGIBLE))
        }
        return min(sound, key=sound.__getitem__)

    def open(self, phase: int) -> None:
        """Choose the codes of a phase, from what is believed at its start."""
        setting, self.opening, self.before_alone = self.setting, self.logs, self.alone
        power = setting.prior.power()
        weights, mean, within = self.read(self.logs)
        self.control = mean if setting.control_variate else np.zeros_like(mean)
        self.spread = within if setting.control_variate else np.full_like(within, power)
        if setting.schedule is not None:
            planned = np.array(setting.schedule[phase])
            self.codes = np.broadcast_to(planned, (*within.shape, len(planned)))
        else:
            scores = weights @ self.readings**2 - (weights @ self.readings) ** 2
            if self.unasked:
                scores = scores - 2.0 * power * self.times
            if setting.order == "level":
                scores = scores + 2.0 * power * foremost(setting, weights, phase + 1)
            self.codes = largest(scores, setting.channels)
        self.before = np.take_along_axis(self.times, self.codes, axis=2)
        np.put_along_axis(self.times, self.codes, self.before + 1, axis=2)

    def answers(self) -> Float[Array, "N B K"]:
        """(u.x)(y - v.x) + u.v of each code."""
        asked, drawn = self.setting.codebook.directions[self.codes], self.drawn
        residual = drawn.labels - (drawn.inputs * self.control).sum(axis=2)
        return (asked @ drawn.inputs[..., None])[..., 0] * residual[..., None] + (
            asked @ self.control[..., None]
        )[..., 0]

    def say(self, values: Float[Array, "N B K"]) -> None:
        """Put values on the channel: noise, clip, rounding."""
        setting = self.setting
        fresh = self.noise.standard_normal(values.shape)
        values = values + np.sqrt(setting.message_noise_variance) * fresh
        if np.isfinite(setting.clip):
            values = np.clip(values, -setting.clip, setting.clip)
        if setting.step:
            values = np.round((values + self._origin) / setting.step) * setting.step - self._origin
        self.messages = values

    @property
    def _origin(self) -> float:
        """Distance of the lowest level from zero."""
        return self.setting.clip if np.isfinite(self.setting.clip) else 0.0

    def listen(self, hop: int) -> Float[Array, " N"]:
        """Take the means of what was said; returns how far the senders' controls were from one's own."""
        mean, effective = np.zeros(self.codes.shape), np.zeros(self.codes.shape)
        apart = np.zeros(self.codes.shape)
        control, squares = self.control, (self.control**2).sum(axis=2)
        for code in range(len(self.setting.codebook)):
            about = self.codes == code
            said = about.any(axis=2)
            if not said.any():
                continue
            spoken = np.where(about, self.messages, 0.0).sum(axis=2)
            total = np.maximum(self.shares @ (said * 1.0), 1e-300)
            average = self.shares @ spoken / total
            number = total**2 / np.maximum(self.squares @ (said * 1.0), 1e-300)
            theirs = self.shares @ (said * squares) / total + squares
            for k in range(control.shape[2]):
                theirs -= 2 * control[..., k] * (self.shares @ (said * control[..., k])) / total
            for found, value in ((mean, average), (effective, number), (apart, theirs)):
                found[:] = np.where(about, value[..., None], found)
        self.hold(hop, mean, effective)
        return np.maximum(apart, 0.0).mean(axis=(1, 2))

    held: Held
    best: Held

    def hold(self, hop: int, mean: Float[Array, "N B K"], effective: Float[Array, "N B K"]) -> None:
        """What is held after a hop; the belief takes it if it is more precise than what it has."""
        passes = 1.0 / effective
        if hop:
            first, last, here = self.reach[[0, hop - 1, hop]][:, :, None, None]
            heard = np.clip((effective - 1.0) / np.maximum(first - 1.0, 1e-12), 0.0, 1.0)
            effective = self.held.effective * (1.0 + (here / last - 1.0) * heard)
            passes = self.held.passes + 1.0 / effective
        self.held = Held(mean, effective, passes)
        if not hop:
            self.best = self.held
            return
        better = self.variance(self.held) < self.variance(self.best)
        parts = zip(self.held, self.best, strict=True)
        self.best = Held(*(np.where(better, new, old) for new, old in parts))

    def variance(self, held: Held) -> Float[Array, "N B K"]:
        """Expected variance of a mean."""
        setting = self.setting
        sampled = (self.spread[..., None] + setting.label_noise**2) / held.effective
        return sampled + setting.channel_variance * held.passes

    def evidence(self, apart: Float[Array, " N"]) -> tuple[Float[Array, "2 N B M"], Float[Array, "2 N B M"]]:
        """Log density of the means under each atom, of first answers to a code and of repeated ones.

        Then the part of it that is of one token alone, which heard but itself.
        """
        whole, solitary = np.zeros((2, 2, *self.opening.shape))
        for k in range(self.codes.shape[2]):
            held = (self.best.mean[..., k], self.best.effective[..., k], self.best.passes[..., k])
            found = self.density(self.codes[..., k], *held, apart)
            repeated = (self.before[..., k] > 0)[..., None]
            parts = np.stack([np.where(repeated, 0.0, found), np.where(repeated, found, 0.0)])
            whole += parts
            solitary += np.where((held[1] <= _ALONE)[..., None], parts, 0.0)
        return whole, solitary

    def density(
        self,
        code: Int[Array, "N B"],
        mean: Float[Array, "N B"],
        effective: Float[Array, "N B"],
        passes: Float[Array, "N B"],
        apart: Float[Array, " N"],
    ) -> Float[Array, "N B M"]:
        """Log density of a mean under each atom, averaged over g.

        Given g = (1/n) sum_j (u.x_j)^2 the mean is Gaussian around u.v + g u.q; the variance of the other
        directions, of the labels and of the senders' disagreement comes with the same g.
        """
        setting = self.setting
        reading = (setting.codebook.directions[code] * self.control).sum(axis=2)[..., None]
        along = self.readings.T[code] - reading
        atoms, control = setting.prior.atoms, self.control
        square = (atoms**2).sum(axis=1) - 2 * control @ atoms.T + (control**2).sum(axis=2)[..., None]
        other = np.maximum(square - along**2, 0.0) + setting.label_noise**2 + apart[:, None, None]
        number, excess = effective[..., None], mean[..., None] - reading
        channel = setting.channel_variance * passes[..., None] * number
        g, logs = mixture_over_g(excess, along, other, channel, number)
        variance = (g * other[..., None] + channel[..., None]) / number[..., None]
        miss = excess[..., None] - g * along[..., None]
        return np.asarray(logsumexp(logs - 0.5 * np.log(variance) - 0.5 * miss**2 / variance, axis=-1))


def _weights(logs: Float[Array, "N B M"]) -> Float[Array, "N B M"]:
    """Probabilities."""
    weights = np.exp(logs - logs.max(axis=2, keepdims=True))
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))
