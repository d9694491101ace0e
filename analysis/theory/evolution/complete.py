"""State evolution: the same policy on an effective channel in place of N tokens.

On the complete graph all tokens hear the same fields and hold the same belief, so one belief and the
law of the fields determine the risk. The cost does not depend on N.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from agents.prior import Prior
from analysis.statistics import standard_error
from analysis.theory.evolution.answers import Answers
from analysis.theory.evolution.fields import BLOCK, Draws, ExactLaw, GaussianLaw, draw
from analysis.theory.evolution.posterior import (
    Average,
    Posterior,
    Record,
    border,
    condition,
    start,
    token_covariance,
)
from analysis.theory.evolution.quantiser import Quantiser
from analysis.theory.setting import Setting

Form = Literal["gaussian", "exact"]
_TIE = 1e-9  # posterior variances closer than this count as equal: the lower index is asked
_LEAST_LABEL_NOISE = 1e-6  # of an own example
_NUMBERS = 2_000_000  # numbers in the largest array of a chunk of blocks


class Prediction(NamedTuple):
    """Predicted risk E|w - estimate|^2 / E|w|^2 after rounds 0..L.

    Attributes:
        risk: mean over samples [L+1].
        risk_se: its standard error [L+1].
        errors: |w - estimate|^2 / E|w|^2 of each sample, for paired comparisons [L+1, n].
    """

    risk: Float[np.ndarray, " rounds"]
    risk_se: Float[np.ndarray, " rounds"]
    errors: Float[np.ndarray, "rounds n"]


def evolve(setting: Setting, form: Form, samples: int, seed: int) -> Prediction:
    """Predict the risk after each round by drawing the fields themselves, never a token.

    `exact` draws the Gram matrix of inputs and label noise, of which every field is a function: it is
    exact at every integer N while messages are neither clipped nor rounded coarsely. Where they are, mean
    and variance of each field stay exact in the first round and without control variate, in either form; a
    control that depends on earlier fields moves them, and the correlation of rounds is taken as that of
    their linear parts. `gaussian` draws the fields jointly Gaussian with the covariance of THEORY.md section
    5: exact as N -> infinity, the deviation of the risk being of order 1/N at a fixed signal-to-noise ratio
    of the fields. Where errors have become rare it is their tails that count: the Gaussian form is then too
    pessimistic by a factor, not by a share. Sample i of a seed has the same true w and Gram matrix under
    every policy.

    Args:
        setting: the system.
        form: law of the fields.
        samples: number of independent prompts.
        seed: seed of all draws.

    Raises:
        ValueError: if `exact` is asked for an N that is not an integer.

    Source: THEORY.md section 7.2.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(3, 2, 0.8, 7)
        >>> setting = Setting(prior, principal(prior), "adaptive", 4, 1, 32.0, 0.1, 1.0)
        >>> risk = evolve(setting, "exact", 2000, seed=0).risk
        >>> risk.shape, bool(risk[4] < 0.02)
        ((5,), True)
    """
    if form == "exact" and setting.effective != int(setting.effective):
        raise ValueError(f"the exact form needs an integer number of tokens, got {setting.effective}")
    few = chunks(setting, range(-(-samples // BLOCK)), setting.prior.dim + 2)
    parts = [_evolve_blocks(setting, form, seed, blocks) for blocks in few]
    errors = np.concatenate(parts, axis=1)[:, :samples] / setting.prior.power()
    return Prediction(errors.mean(axis=1), standard_error(errors), errors)


def chunks(setting: Setting, blocks: range, columns: int) -> list[range]:
    """Blocks of samples, as many at a time as memory should hold; the Gram factor has so many columns."""
    asked = setting.rounds * setting.channels
    dim, rank = setting.prior.factor.shape
    # Per atom: covariance of the fields with right-hand sides and offsets, forms; per sample: Gram factor.
    per_atom = (asked + 1) * (asked + 1 + rank + dim) + (dim**2 if rank else 0)
    if setting.exact:
        per_atom *= 9  # one for each node of the quadrature
    width = len(setting.prior.weights) * per_atom + (dim + 1) * columns
    stride = max(_NUMBERS // (width * BLOCK), 1)
    return [blocks[k : k + stride] for k in range(0, len(blocks), stride)]


def quantiser_of(setting: Setting) -> Quantiser:
    """What clipping and rounding do to the fields."""
    noise = setting.message_noise_variance**0.5
    return Quantiser(setting.label_noise, noise, setting.clip, setting.step, setting.effective)


def _evolve_blocks(setting: Setting, form: Form, seed: int, blocks: range) -> Float[np.ndarray, "rounds n"]:
    """Squared error after each round, for the samples of some blocks."""
    draws = draw(setting.prior, groups_of(setting), (setting.rounds, setting.channels), seed, blocks)
    truth, quantiser = draws.truth, quantiser_of(setting)
    scale = (setting.effective, setting.label_noise, setting.analogue_variance)
    law = ExactLaw(*scale, truth, draws.gram) if form == "exact" else GaussianLaw(*scale, truth)
    own = _own_example(setting, draws)
    answers = Answers(setting, len(truth)) if setting.exact else None
    record = start(setting.prior, len(truth))
    belief = condition(setting.prior, record)
    errors = [((_told(setting.prior, belief, own).mean() - truth) ** 2).sum(axis=1)]
    for round in range(1, setting.rounds + 1):
        control = belief.mean() if setting.control_variate else np.zeros_like(truth)
        codes = choose(setting, belief, round)
        asked = setting.codebook.directions[codes]
        values = law.fields(asked, control, draws.fresh[round - 1].T)
        if np.isfinite(setting.clip):
            values = quantiser.transmit(
                values, asked, truth - control, control, draws.distortion[round - 1].T
            )
        if answers is not None:
            answers.hear(codes, control, values)
            belief = answers.belief()
        else:
            record = extend(setting, record, belief, asked, control, values)
            belief = condition(setting.prior, record)
        errors.append(((_told(setting.prior, belief, own).mean() - truth) ** 2).sum(axis=1))
    return np.stack(errors)


def groups_of(setting: Setting) -> tuple[int, ...]:
    """Tokens whose Gram matrices are drawn apart: the token itself, where its own example counts."""
    tokens = int(setting.effective)
    return (1, tokens - 1) if setting.own_example and tokens > 1 else (tokens,)


def _own_example(setting: Setting, draws: Draws) -> tuple[Float[np.ndarray, "n d"], ...] | None:
    """Input and label of the token itself, up to a common sign; None where it does not count."""
    if not setting.own_example:
        return None
    inputs = draws.gram[:, :-1, 0]
    label = (inputs * draws.truth).sum(axis=1) + setting.label_noise * draws.gram[:, -1, 0]
    noise = np.full(len(label), max(setting.label_noise, _LEAST_LABEL_NOISE) ** 2)
    return inputs, label, noise


def _told(
    prior: Prior, belief: Posterior, example: tuple[Float[np.ndarray, "n ..."], ...] | None
) -> Posterior:
    """The belief with one whole example, a measurement x.w with the label's noise."""
    if example is None:
        return belief
    inputs, label, noise = example
    forms = belief.forms(prior)
    variance = np.broadcast_to(noise[:, None], belief.weights.shape)
    residual = label[:, None] - (belief.means @ inputs[..., None])[..., 0]
    means = belief.means
    if forms is not None:
        image = (forms @ inputs[:, None, :, None])[..., 0]
        variance = variance + (image * inputs[:, None]).sum(axis=2)
        means = means + image * (residual / variance)[..., None]
    with np.errstate(divide="ignore"):
        logs = np.log(belief.weights) - 0.5 * (np.log(variance) + residual**2 / variance)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return belief._replace(weights=weights / weights.sum(axis=1, keepdims=True), means=means)


def choose(
    setting: Setting, belief: Posterior, round: int, asked: Int[np.ndarray, "n T"] | None = None
) -> Int[np.ndarray, "n K"]:
    """Codes of a round, for each sample; among those asked least often, if what was asked is given."""
    size = len(belief.weights)
    if setting.schedule is not None:
        return np.broadcast_to(np.array(setting.schedule[round - 1]), (size, setting.channels))
    variances = belief.variances(setting.prior, setting.codebook.directions)
    if setting.order == "level":
        variances = variances + 2.0 * setting.prior.power() * foremost(setting, belief.weights, round)
    if asked is not None:  # no variance is as large as E|w|^2
        np.subtract.at(variances, (np.arange(size)[:, None], asked), 2.0 * setting.prior.power())
    return largest(variances, setting.channels)


def largest(scores: Float[np.ndarray, "*n C"], count: int) -> Int[np.ndarray, "*n K"]:
    """Indices of the largest scores, the lower one of those that are equal.

    Example:
        >>> largest(np.array([0.1, 0.5, 0.5]), 2).tolist()
        [1, 2]
    """
    left, chosen = scores.copy(), []
    for _ in range(count):
        best = (left >= left.max(axis=-1, keepdims=True) - _TIE).argmax(axis=-1)
        chosen.append(best)
        np.put_along_axis(left, best[..., None], -np.inf, axis=-1)
    return np.stack(chosen, axis=-1)


def foremost(setting: Setting, weights: Float[np.ndarray, "*n M"], round: int) -> Bool[np.ndarray, "*n C"]:
    """Whether a code is of the likeliest node of the level whose turn it is; none after the last level.

    Args:
        setting: its prior is a tree.
        weights: posterior of the atoms.
        round: 1, 2, ...

    Source: THEORY.md section 5, level by level.
    """
    prior, scales = setting.prior, setting.codebook.scales
    found = np.zeros((*weights.shape[:-1], len(scales)), dtype=bool)
    for level in range(1, prior.branches.shape[1] + 1):
        above = prior.branches[:, level - 2] if level > 1 else np.zeros(len(prior.atoms), dtype=int)
        codes = np.flatnonzero(scales == level).reshape(int(above.max()) + 1, -1)
        round -= -(-codes.shape[1] // setting.channels)
        if round <= 0:
            mass = weights @ (above[:, None] == np.arange(len(codes)))
            np.put_along_axis(found, codes[largest(mass, 1)[..., 0]], True, axis=-1)
            break
    return found


def extend(
    setting: Setting,
    record: Record,
    belief: Posterior,
    asked: Float[np.ndarray, "n K d"],
    control: Float[np.ndarray, "n d"],
    values: Float[np.ndarray, "n K"],
    average: Average | None = None,
) -> Record:
    """The record with one more round, the belief before it predicting the noise of all its fields.

    Args:
        setting: the system.
        record: what was heard before.
        belief: posterior given `record`.
        asked: directions of this round.
        control: control variate of this round.
        values: what was heard.
        average: what stands behind it; by default N tokens, and the channel once.

    Source: THEORY.md section 5.
    """
    before, channels, prior = record.values.shape[1], setting.channels, setting.prior
    # Without control w - v is w itself in every round: the prior predicts it throughout.
    known = belief if setting.control_variate else condition(prior, start(prior, len(values)))
    directions, offsets = record.with_round(asked, known.means - control[:, None])
    rows = token_covariance(directions, offsets, known.forms(prior), channels, setting.label_noise)
    own = np.eye(channels, before + channels, before)
    if average is None:
        one = 1.0 / setting.effective
        average = Average(one, one, setting.channel_variance * one)
    share = np.full((len(values), before + channels), average.own)
    share[:, :before] = average.earlier
    rows = (rows if setting.joint else rows * own) * share[:, None, None] + average.channel * own
    signals = directions @ prior.factor
    rows = rows + (signals[:, before:] @ signals.swapaxes(1, 2))[:, None]
    covariance = record.covariance
    for channel in range(channels):
        row = rows[:, :, channel, : before + channel + 1]
        covariance = border(covariance, row, average.channel).covariance
    return Record(directions, offsets, np.concatenate([record.values, values], axis=1), covariance)
