"""State evolution on a graph: what a token hears through its neighbours, and theirs, hop by hop.

Rounds come in phases of T, one for each question. In the first round of a phase tokens say something
about a code, in the others they pass on what they hold of it, so that after h hops position i holds a mean
with the weights (A^h)_ij. The graph enters by these weights alone.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator, Philox, SeedSequence

from analysis.statistics import standard_error
from analysis.theory.evolution.complete import choose, chunks, extend
from analysis.theory.evolution.fields import BLOCK, DRAWN, columns_of, draw
from analysis.theory.evolution.hops import Hops, hops_of
from analysis.theory.evolution.posterior import condition, start
from analysis.theory.evolution.relays import GaussianRelay, Relay, RelayChannel, WeightedRelay
from analysis.theory.setting import Setting
from topology.mixing import Mixing

LocalForm = Literal["weighted", "gaussian", "exact"]
Array = np.ndarray


class LocalPrediction(NamedTuple):
    """Predicted risk E|w - estimate|^2 / E|w|^2 after rounds 0..L, on a graph.

    Attributes:
        risk: mean over positions [L+1].
        risk_se: its standard error [L+1].
        position_risk: risk of each position; the same number for positions of one kind [L+1, P].
        position_risk_se: its standard error [L+1, P].
    """

    risk: Float[Array, " rounds"]
    risk_se: Float[Array, " rounds"]
    position_risk: Float[Array, "rounds P"]
    position_risk_se: Float[Array, "rounds P"]


def evolve_on_graph(
    setting: Setting,
    mixing: Mixing,
    rounds_per_scale: int | tuple[int, ...],
    samples: int,
    seed: int,
    form: LocalForm = "weighted",
    unasked: bool = False,
    positions: Int[Array, " P"] | None = None,
) -> LocalPrediction:
    """Predict the risk of each position after each round by drawing what it hears, never what others believe.

    In each phase a position asks K codes under its belief. After h hops it holds a mean of N_eff(i, h)
    tokens, and takes the most precise of those of the phase for one measurement. All tokens within T hops
    are taken to ask its own codes with its own control: the prediction is optimistic
    where neighbours disagree about what to ask. The first message passes the channel with its clip; what
    is passed on gains noise and rounding, but is not clipped again.

    `weighted` draws the Gram matrix of the inputs with the weights (A^h)_ij: no other assumption, at any
    N_eff, and never below the light cone limit, since all that is heard comes from there. `gaussian` draws
    the means jointly Gaussian with the same covariance: the mean field, too pessimistic where N_eff is
    small. `exact` is `weighted` where tokens cannot disagree: all hear the same, or there is no control
    variate, and either `static` asks or every code is asked in every round. At T = 1 on the complete graph
    the forms are those of `evolve`, sample by sample.

    Positions of one kind share their samples. Different kinds have independent samples, so that the
    variance of the mean over positions is the sum of theirs; they are in proportion to the kind's share of
    positions, in whole blocks of 256, at least one. An error rarer than that is missed, and so is its part
    of the standard error.

    Args:
        setting: the system, `rounds` being all rounds L; `effective` is not read.
        mixing: weights A of the graph.
        rounds_per_scale: T, hops in a phase; or those of each phase in turn, the last for all that follow.
        samples: number of independent prompts, of all kinds together.
        seed: seed of all draws.
        form: law of the fields.
        unasked: `adaptive` asks the widest of those codes that it has asked least often.
        positions: those that are predicted; all by default.

    Raises:
        ValueError: if a T is below 1, or tokens can disagree in the exact form.

    Source: THEORY.md sections 6 and 7.2.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> from topology.families import Family, ring
        >>> from topology.mixing import uniform
        >>> prior = tree(3, 2, 0.8, 7)
        >>> setting = Setting(prior, principal(prior), "adaptive", 6, 1, 1.0, 0.1, control_variate=False)
        >>> local, far = (evolve_on_graph(setting, uniform(ring(Family(64))), T, 2000, 0) for T in (1, 2))
        >>> bool(far.risk[2] < local.risk[1]), bool(far.risk[6] < local.risk[6])
        (True, True)
    """
    if form == "exact" and not _is_exact(setting, mixing):
        raise ValueError(
            "the exact form needs tokens that cannot disagree: the complete graph, or no control variate and "
            "either the static policy or as many channels as codes"
        )
    lengths = (rounds_per_scale,) if isinstance(rounds_per_scale, int) else rounds_per_scale
    if not lengths or min(lengths) < 1:
        raise ValueError(f"a phase has at least one round, got rounds_per_scale={rounds_per_scale}")
    turns = _turns(setting.rounds, lengths)
    kinds, kind = hops_of(mixing, max(lengths), positions)
    shares, phased = np.bincount(kind) / len(kind), replace(setting, rounds=len(turns))
    mean, error = np.empty((2, setting.rounds + 1, len(kinds)))
    first = 0
    for index, hops in enumerate(kinds):
        blocks = range(first, first + max(1, int(np.ceil(samples * shares[index] / BLOCK))))
        groups = () if form == "gaussian" else tuple(map(int, hops.counts))
        few = chunks(phased, blocks, sum(columns_of(groups, setting.prior.dim)))
        parts = [_evolve_blocks(phased, hops, turns, groups, unasked, seed, part) for part in few]
        errors = np.concatenate(parts, axis=1) / setting.prior.power()
        mean[:, index], error[:, index] = errors.mean(axis=1), standard_error(errors)
        first = blocks.stop
    return LocalPrediction(mean @ shares, np.sqrt(error**2 @ shares**2), mean[:, kind], error[:, kind])


def predicted_depth(scales: int, mixing_time: float) -> float:
    """Rounds to resolve all scales of the prior on a graph: scales x max(1, mixing time).

    An order of magnitude, up to a factor that depends on how well a scale must be resolved.

    Args:
        scales: D, one question each.
        mixing_time: of the mixing matrix, rounds.

    Source: THEORY.md section 6, locality.

    Example:
        >>> predicted_depth(3, 0.0), predicted_depth(3, 7.5)
        (3.0, 22.5)
    """
    return scales * max(1.0, mixing_time)


def _is_exact(setting: Setting, mixing: Mixing) -> bool:
    """Whether all tokens that a position hears share its questions and its control."""
    fixed = setting.policy == "static" or setting.channels == len(setting.codebook)
    # N_eff = N only where all tokens have the same weight.
    alike = mixing.is_shared or np.allclose(mixing.effective(), mixing.tokens, rtol=1e-12, atol=0)
    return alike or (fixed and not setting.control_variate)


def _turns(rounds: int, lengths: tuple[int, ...]) -> list[int]:
    """Length of each phase, the last as far as there are rounds."""
    turns: list[int] = []
    while (left := rounds - sum(turns)) > 0:
        turns.append(min(lengths[min(len(turns), len(lengths) - 1)], left))
    return turns


def _evolve_blocks(
    setting: Setting,
    hops: Hops,
    turns: list[int],
    groups: tuple[int, ...],
    unasked: bool,
    seed: int,
    blocks: range,
) -> Float[Array, "rounds n"]:
    """Squared error after each round at a position, for some blocks; the setting's rounds are phases."""
    prior, shape = setting.prior, (setting.rounds, setting.channels)
    draws, more = draw(prior, groups, shape, seed, blocks), _normals(shape, len(hops.weights), seed, blocks)
    truth = draws.truth
    relay: Relay = (
        WeightedRelay(setting, hops, truth, draws.gram) if groups else GaussianRelay(setting, hops, truth)
    )
    wire, record = RelayChannel(setting, hops, truth), start(prior, len(truth))
    belief, history = condition(prior, record), np.empty((len(truth), 0), dtype=np.int64)
    taken = history  # the hop of each mean that was kept
    errors = [((belief.mean() - truth) ** 2).sum(axis=1)]
    for phase, turn in enumerate(turns):
        control = belief.mean() if setting.control_variate else np.zeros_like(truth)
        codes = choose(setting, belief, phase + 1, history if unasked else None)
        asked, history = setting.codebook.directions[codes], np.concatenate([history, codes], axis=1)
        relay.ask(asked, control, np.stack([draws.fresh[phase].T, *more[phase, 0]]))
        wire.ask(asked, control, np.stack([draws.distortion[phase].T, *more[phase, 1]]))
        opening, kept, least = belief, record, np.full(len(truth), np.inf)
        best = np.zeros(len(truth), dtype=np.int64)
        spread = opening.spread_of_w(prior) if setting.control_variate else prior.power()
        for hop in range(turn):
            held = wire.hold(hop, relay.after(hop), more[phase, 2, hop])
            average = hops.average(hop, taken, setting.channel_variance)
            variance = (spread + setting.label_noise**2) * average.own + average.channel
            longer = extend(setting, kept, opening, asked, control, held, average)
            record = longer if not hop else longer.where(variance < least, record)
            best, least = np.where(variance < least, hop, best), np.minimum(variance, least)
            belief = condition(prior, record)
            errors.append(((belief.mean() - truth) ** 2).sum(axis=1))
        taken = np.concatenate([taken, np.repeat(best[:, None], setting.channels, axis=1)], axis=1)
    return np.stack(errors)


def _normals(shape: tuple[int, int], hops: int, seed: int, blocks: range) -> Float[Array, "L 3 T n K"]:
    """Standard normal numbers of each phase, independent of those of the fields."""
    children = [SeedSequence([seed, block]).spawn(DRAWN + 1)[DRAWN] for block in blocks]
    rounds, channels = shape
    drawn = (rounds, 3, hops, channels, BLOCK)
    parts = [Generator(Philox(child)).standard_normal(drawn) for child in children]
    return np.concatenate(parts, axis=4).swapaxes(3, 4)
