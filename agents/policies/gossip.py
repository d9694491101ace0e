"""Gossip: stay on one question for some rounds, so that far tokens are heard through near ones."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from agents.channel import Field, Message
from agents.policies.adaptive import Adaptive, widest
from agents.policies.base import Ingredients, PolicyEntry
from agents.policies.bayesian import (
    Bayesian,
    Workspace,
    inference_of,
    numbers_of_a_belief,
    principal_codes,
)
from agents.task import TokenView


class Averaging(NamedTuple):
    """A question that is being averaged.

    Attributes:
        before: the token when it asked, whose estimate is the control variate.
        held: the mean that it holds now, and what is behind it.
        best: the most precise mean so far, which the belief takes.
        passes: variance of the channel's noise in that mean, in units of one message's [n, K, B].
    """

    before: Workspace
    held: Field
    best: Field
    passes: Float[np.ndarray, "n K B"]


class Relay(NamedTuple):
    """Workspace of a gossiping token.

    Attributes:
        now: belief and function vector, what is held so far taken as heard.
        growth: N_eff(i, h) of its own place, h = 1..T [T, n].
        averaging: the question under way; None before the first.
    """

    now: Workspace
    growth: Float[np.ndarray, "T n"]
    averaging: Averaging | None


@dataclass(frozen=True, eq=False)
class LeastAsked(Adaptive):
    """Asks along the widest of the codes that it has asked least often: scale after scale.

    The same tokens answer again, so a second answer tells little; and on a sparse graph nobody is around
    to give it, once the others have gone on.
    """

    def choose(self, belief: Any, round: int) -> Integer[np.ndarray, "n K B"]:
        """The widest directions, those that were asked before last."""
        variances = self.inference.variances(belief)
        above = 2.0 * self.inference.prior.power()  # no variance is as large
        return widest(variances - above * self.inference.asked(belief), self.channels)


@dataclass(frozen=True, eq=False)
class Gossip:
    """Asks about a scale, then passes on for some rounds what it holds of the same question.

    If the tokens around stay on one code, after h rounds token i holds sum_j (A^h)_ij m_j, a mean over
    N_eff(i, h) tokens. A token counts a neighbour that asks something else as not there: the number behind
    its mean grows by the share of its neighbourhood that it heard. The belief takes the most precise of the
    means so far as one measurement; after its turn it is kept, and the next question follows. A mean over
    more tokens need not be more precise: each hop adds noise, and on a causal graph means narrow again.

    Attributes:
        asking: what to ask, and how to believe.
        turns: rounds of averaging for each question in turn; the last number holds for all that follow.
        reach: N_eff(i, h) after h = 1..T rounds of averaging, for every position [T, N].

    Source: THEORY.md section 6, locality; S. Boyd et al., Randomized gossip algorithms,
        doi:10.1109/TIT.2006.874516.
    """

    asking: Bayesian
    turns: tuple[int, ...]
    reach: Float[np.ndarray, "T N"]

    @property
    def codes(self) -> int:
        """Number of codes in the codebook."""
        return self.asking.codes

    def start(self, tokens: TokenView) -> Relay:
        """The prior and its mean."""
        return Relay(self.asking.start(tokens), self.reach[:, tokens.positions], None)

    def emit(self, state: Relay, tokens: TokenView, round: int) -> Message:
        """A new question with the token's own answer, or what it holds of the last one."""
        if state.averaging is None or self._hop(round) == 0:
            return self.asking.emit(state.now, tokens, round)
        return Message(state.averaging.held.codes, state.averaging.held.values)

    def absorb(self, state: Relay, field: Field, round: int) -> Relay:
        """Take the field for the mean that is held, and Bayes' rule on it."""
        hop = self._hop(round)
        if state.averaging is None or hop == 0:
            averaging = Averaging(state.now, field, field, 1.0 / np.maximum(field.effective, 1.0))
        else:
            averaging = _passed_on(state.averaging, field, state.growth[[0, hop - 1, hop]])
            averaging = averaging._replace(best=self._better(averaging))
        now = self.asking.absorb(averaging.before, averaging.best, round)
        return Relay(now, state.growth, averaging)

    def estimate(self, state: Relay) -> Float[np.ndarray, "n d B"]:
        """The posterior mean."""
        return self.asking.estimate(state.now)

    def atoms(self, state: Relay) -> Float[np.ndarray, "n M B"]:
        """The posterior over atoms."""
        return self.asking.atoms(state.now)

    def _better(self, averaging: Averaging) -> Field:
        """The more precise of the mean that is held and the best one before, channel by channel."""
        inference, best, held = self.asking.inference, averaging.best, averaging.held
        if self.asking.control_variate:
            spread = inference.spread(averaging.before.belief)
        else:
            spread = np.full(best.around.shape, inference.prior.power())
        sampled = (spread + inference.label_noise**2)[:, None]

        def variance(field: Field) -> Float[np.ndarray, "n K B"]:
            relayed = 1.0 if field.relayed is None else field.relayed
            return (sampled + inference.channel_variance * relayed) / np.maximum(field.effective, 1e-300)

        better = variance(held) < variance(best)
        relayed = np.ones_like(best.values) if best.relayed is None else best.relayed
        assert held.relayed is not None
        return Field(
            held.codes,
            np.where(better, held.values, best.values),
            np.where(better, held.effective, best.effective),
            np.where(better.any(axis=1), held.around, best.around),
            np.where(better, held.relayed, relayed),
        )

    def _hop(self, round: int) -> int:
        """Rounds since the question was asked."""
        hop = round - 1
        for turn in self.turns:
            if hop < turn:
                return hop
            hop -= turn
        return hop % self.turns[-1]


def _passed_on(averaging: Averaging, field: Field, reach: Float[np.ndarray, "3 n"]) -> Averaging:
    """What is behind the mean after one more round of averaging.

    Args:
        averaging: before the round.
        field: what was heard of the question.
        reach: N_eff after the first round of averaging, after the last, and after this one.
    """
    first, last, here = reach[:, :, None, None]
    heard = np.clip((field.effective - 1.0) / np.maximum(first - 1.0, 1e-12), 0.0, 1.0)
    effective = averaging.held.effective * (1.0 + (here / last - 1.0) * heard)
    passes = averaging.passes + 1.0 / np.maximum(effective, 1.0)
    # Whether tokens out of sight asked the same, Laplace's rule of succession must say.
    around = 1.0 + (here - 1.0) * (1.0 + 1.0 / first)
    held = field._replace(
        effective=effective,
        around=np.broadcast_to(around[:, 0], field.around.shape),
        relayed=effective * passes,
    )
    return Averaging(averaging.before, held, averaging.best, passes)


def build(given: Ingredients) -> Gossip:
    """The policy of an experiment."""
    options, turns = given.options, given.options.turns
    asking = LeastAsked(
        inference_of(given), given.channel.channels, options.control_variate, own_example=options.own_example
    )
    return Gossip(asking, turns, given.surroundings.reach(max(turns)))


ENTRY = PolicyEntry(
    build, principal_codes, numbers=numbers_of_a_belief, theory="averaging", adapts=True, controls=True
)
