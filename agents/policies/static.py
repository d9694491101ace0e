"""Static: ask in an order fixed before any data."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Integer

from agents.channel import Field
from agents.codebook import Codebook, pooled, principal
from agents.inference.gaussian import GaussianInference
from agents.policies.base import Ingredients, PolicyEntry, PolicyOptions
from agents.policies.bayesian import Bayesian, inference_of, numbers_of_a_belief
from agents.prior import Prior

Schedule = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Static(Bayesian):
    """Asks the codes of a fixed schedule, the same at every token and for every prompt.

    Attributes:
        schedule: K codes for each round.

    Source: THEORY.md section 6.
    """

    schedule: Schedule

    def choose(self, belief: Any, round: int) -> Integer[np.ndarray, "n K B"]:
        """The schedule's codes of this round."""
        tokens, _, prompts = belief.log_weights.shape
        codes = np.array(self.schedule[round - 1], dtype=np.int64)
        return np.broadcast_to(codes[None, :, None], (tokens, len(codes), prompts)).copy()


def in_turn(codes: int, rounds: int, channels: int) -> Schedule:
    """All codes in order, K a round, then again from the start.

    Example:
        >>> in_turn(codes=3, rounds=2, channels=2)
        ((0, 1), (2, 0))
    """
    return tuple(
        tuple((round * channels + channel) % codes for channel in range(channels)) for round in range(rounds)
    )


def open_loop(
    inference: GaussianInference, rounds: int, channels: int, effective: float, control_variate: bool
) -> Schedule:
    """The order that is best, one round ahead, before any data: by predicted posterior variance.

    The variance between atoms counts until a code was asked once, for one answer decides between
    branches; the Gaussian part shrinks as the belief's own covariance does, which no answer changes.
    For a discrete prior this is coarse to fine, then again. For a Gaussian it is the very order that
    `Adaptive` takes, so that the two coincide on the null.

    Args:
        inference: the belief whose variance is predicted.
        rounds: length of the schedule.
        channels: codes in a round.
        effective: effective number of tokens behind a field.
        control_variate: whether messages carry the control variate.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import matched_gaussian, tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> open_loop(GaussianInference(prior, principal(prior), 0.1, 0.0), 4, 1, 32.0, True)
        ((0,), (1,), (2,), (0,))
        >>> null = matched_gaussian(prior)
        >>> open_loop(GaussianInference(null, principal(null), 0.1, 4.0), 3, 1, 32.0, True)
        ((0,), (1,), (2,))
    """
    prior, codebook = inference.prior, inference.codebook
    centre = prior.mean()
    spread = prior.atoms - centre
    between = (prior.weights[:, None] * (spread @ codebook.directions.T) ** 2).sum(axis=0)
    atom = replace(
        prior, atoms=np.zeros((1, prior.dim)), weights=np.ones(1), branches=np.zeros((1, 0), dtype=int)
    )
    single = replace(inference, prior=atom)
    belief = single.start(1, 1)
    asked = np.zeros(len(codebook), dtype=int)
    schedule = []
    for round in range(1, rounds + 1):
        predicted = single.variances(belief)[0, :, 0] + np.where(asked == 0, between, 0.0)
        # Sorting is by variance, then by how often a code was asked, then by index.
        order = np.lexsort((np.arange(len(codebook)), asked, -np.round(predicted, 9)))
        codes = tuple(int(code) for code in order[:channels])
        column = np.array(codes)[None, :, None]
        none = np.zeros((1, channels, 1))
        control = np.zeros((1, prior.dim, 1)) if control_variate else None
        number = np.full_like(none, effective)
        belief = single.hear(belief, Field(column, none, number, number[:, 0]), control, round)
        asked[list(codes)] += 1
        schedule.append(codes)
    return tuple(schedule)


def build(given: Ingredients) -> Static:
    """The policy of an experiment; one schedule serves all positions, that of the token that hears most."""
    options, channels = given.options, given.channel.channels
    inference, control = inference_of(given), options.control_variate
    if options.order == "pooled":
        schedule = in_turn(len(inference.codebook), given.rounds, channels)
    else:
        rule = (given.prior, inference.codebook, given.label_noise, given.channel.variance)
        effective = float(given.surroundings.effective().max())
        gaussian = GaussianInference(*rule, options.belief != "independent")
        schedule = open_loop(gaussian, given.rounds, channels, effective, control)
    return Static(inference, channels, control, schedule, own_example=options.own_example)


def codebook(prior: Prior, options: PolicyOptions) -> Codebook:
    """The nodes of a tree one by one, or the levels as a whole."""
    return pooled(prior) if options.order == "pooled" else principal(prior)


ENTRY = PolicyEntry(
    build,
    codebook,
    numbers=numbers_of_a_belief,
    theory="state evolution",
    orders=("codes", "pooled"),
    controls=True,
)
