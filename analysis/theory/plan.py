"""What theory settles for the agents before they start: how to ask, and what answers are worth."""

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.theory.evolution.population import evolve_population, prompts_of
from analysis.theory.setting import Setting
from topology.mixing import Mixing

Order = Literal["widest", "level"]
LARGEST_POPULATION = 2**12  # tokens of the largest graph for which a population is evolved
_SAMPLES = 2**14  # tokens of all prompts together
_DIGITS = 3  # to which the disagreement is rounded, so that rounding errors of no machine matter


class Plan(NamedTuple):
    """Constants of a system that no agent could know by itself.

    Attributes:
        order: of the questions of the adaptive policy.
        grouped: whether the exact law takes answers to one code jointly.
        disagreement: mean squared distance of the controls heard from one's own, by round and position
            [L, N]; None for zero.
        repeats: weight of a repeated answer in each round [L]; None for 1.
        risk: predicted after each round, relative to E|w|^2 [L+1]; None if no population was evolved.
    """

    order: Order = "widest"
    grouped: bool = False
    disagreement: Float[np.ndarray, "L N"] | None = None
    repeats: tuple[float, ...] | None = None
    risk: Float[np.ndarray, " rounds"] | None = None


def plan(
    setting: Setting,
    mixing: Mixing,
    seed: int,
    orders: tuple[Order, ...] = ("widest",),
    turns: tuple[int, ...] = (1,),
    unasked: bool = False,
) -> Plan:
    """How agents that know the exact law of a field are best to ask, and to weigh what is repeated.

    Where all tokens hear the same they believe the same: their controls agree, answers to one code are taken
    jointly, and the widest code is best. Elsewhere a population is evolved for each order of questions, and
    the order of least risk after L rounds is taken, with the disagreement and the weights that were found on
    the way. On graphs that are too large for that, first answers alone count.

    Args:
        setting: the belief of the policy; where its `repeats` are given, they stay.
        mixing: who hears whom.
        seed: of the draws, which are not those of a run.
        orders: that are possible.
        turns: T, rounds of averaging for each question in turn.
        unasked: the policy asks the widest of those codes that it has asked least often.

    Source: THEORY.md section 5, senders that disagree, and level by level.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> from topology.mixing import everyone, past
        >>> prior = tree(2, 2, 0.8, 3)
        >>> setting = Setting(prior, principal(prior), "adaptive", 3, 1, 8.0, 0.1, exact=True)
        >>> plan(setting, everyone(8), 0).grouped, plan(setting, past(8), 0, ("widest", "level")).order
        (True, 'level')
    """
    if hear_all(mixing):
        return Plan(orders[0], grouped=True)
    if mixing.tokens > LARGEST_POPULATION:
        repeats = setting.repeats or (0.0,) * setting.rounds
        return Plan(orders[-1], repeats=repeats)
    best: Plan | None = None
    for order in orders:
        tried = replace(setting, order=order)
        prompts = prompts_of(tried, mixing.tokens, _SAMPLES)
        found = evolve_population(tried, mixing, prompts, seed, turns, unasked)
        risk = found.position_risk.mean(axis=1)
        if best is None or best.risk is None or risk[-1] < best.risk[-1]:
            best = Plan(order, False, _rounded(found.disagreement), found.repeats, risk)
    assert best is not None
    return best


def hear_all(mixing: Mixing) -> bool:
    """Whether every token hears all with equal weights, so that all believe the same."""
    return mixing.is_shared or bool(np.allclose(mixing.effective(), mixing.tokens, rtol=1e-6, atol=0))


def _rounded(numbers: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Numbers with few significant digits."""
    scale = 10.0 ** (np.floor(np.log10(np.maximum(numbers, 1e-12))) - _DIGITS + 1)
    return np.round(numbers / scale) * scale
