"""Adaptive: ask where the belief is widest."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from agents.kernels import AVAILABLE
from agents.kernels import belief as loops
from agents.policies.base import Ingredients, PolicyEntry
from agents.policies.bayesian import Bayesian, inference_of, numbers_of_a_belief, principal_codes
from agents.prior import Prior
from agents.reductions import fold

_TIE = 1e-9  # posterior variances closer than this share of the prior power count as equal


def widest(variances: Float[np.ndarray, "n C B"], count: int) -> Integer[np.ndarray, "n K B"]:
    """The `count` codes of largest variance, ties to the coarser and then the lower index.

    Example:
        >>> widest(np.array([[[0.1], [0.5], [0.5]]]), 2)[0, :, 0].tolist()
        [1, 2]
    """
    tokens, codes, prompts = variances.shape
    chosen = np.empty((tokens, count, prompts), dtype=np.int64)
    if AVAILABLE:
        loops.widest(np.ascontiguousarray(variances, dtype=float), _TIE, chosen)
        return chosen
    remaining = variances.copy()
    for rank in range(count):
        best = np.zeros((tokens, prompts), dtype=np.int64)
        peak = remaining[:, 0].copy()
        for code in range(1, codes):
            better = remaining[:, code] > peak + _TIE
            best[better] = code
            peak = np.where(better, remaining[:, code], peak)
        chosen[:, rank] = best
        np.put_along_axis(remaining, best[:, None], -np.inf, axis=1)
    return chosen


@dataclass(frozen=True, eq=False)
class Adaptive(Bayesian):
    """Asks along the K codes with the largest posterior variance u' Cov[w] u.

    On a tree this is the likeliest branch at the coarsest unresolved scale: the function-vector
    mechanism.

    Source: THEORY.md section 6.
    """

    def choose(self, belief: Any, round: int) -> Integer[np.ndarray, "n K B"]:
        """The widest directions of the token's own belief."""
        return widest(self.inference.variances(belief), self.channels)


@dataclass(frozen=True, eq=False)
class LevelByLevel(Adaptive):
    """Asks about the likeliest node of level t in the rounds of level t, and then the widest codes.

    A level has as many rounds as it takes to ask all codes of one node. Where tokens hear different numbers
    of others this keeps them in step: those who know less ask about what those who know more still answer.

    Source: THEORY.md section 5, level by level.
    """

    def choose(self, belief: Any, round: int) -> Integer[np.ndarray, "n K B"]:
        """The widest codes of the likeliest node of the round's level, then the widest of all."""
        variances = self.inference.variances(belief)
        prior, scales = self.inference.prior, self.inference.codebook.scales
        if round <= len(self._levels):
            level = self._levels[round - 1]
            codes = np.flatnonzero(scales == level)
            nodes = _nodes(prior, level)
            weights = self.inference.atoms(belief)
            if AVAILABLE:
                node_of = np.zeros(len(prior.atoms), dtype=np.int64)
                for index, node in enumerate(nodes):
                    node_of[node] = index
                by_node = codes.reshape(len(nodes), -1)
                loops.favour(weights, node_of, by_node, 2.0 * prior.power(), _TIE, variances)
                return widest(variances, self.channels)
            mass = np.stack([fold(weights[:, node]) for node in nodes], axis=1)
            # No variance is as large as E|w|^2.
            likeliest = codes.reshape(len(nodes), -1)[widest(mass, 1)[:, 0]]
            for code in np.moveaxis(likeliest, 2, 0)[:, :, None]:
                above = np.take_along_axis(variances, code, 1) + 2.0 * prior.power()
                np.put_along_axis(variances, code, above, 1)
        return widest(variances, self.channels)

    @cached_property
    def _levels(self) -> list[int]:
        """The level whose turn it is in each round, as long as levels are asked in turn."""
        prior, scales, turns = self.inference.prior, self.inference.codebook.scales, []
        for level in range(1, prior.branches.shape[1] + 1):
            codes = int((scales == level).sum()) // len(_nodes(prior, level))
            turns += [level] * -(-codes // self.channels)
        return turns


def _nodes(prior: Prior, level: int) -> list[Int[np.ndarray, " m"]]:
    """The atoms below each internal node of a level, 1 = the root's."""
    if level == 1:
        return [np.arange(len(prior.atoms))]
    above = prior.branches[:, level - 2]
    return [np.flatnonzero(above == node) for node in range(int(above.max()) + 1)]


def build(given: Ingredients) -> Adaptive:
    """The policy of an experiment."""
    options = given.options
    kind = LevelByLevel if options.order == "level" else Adaptive
    if kind is LevelByLevel and not given.prior.branches.shape[1]:
        raise ValueError('order "level" needs a tree, whose levels are asked in turn')
    return kind(
        inference_of(given), given.channel.channels, options.control_variate, own_example=options.own_example
    )


ENTRY = PolicyEntry(
    build,
    principal_codes,
    numbers=numbers_of_a_belief,
    theory="state evolution",
    adapts=True,
    orders=("widest", "level"),
    controls=True,
)
