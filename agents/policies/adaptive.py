"""Adaptive: ask where the belief is widest."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from agents.inference.posterior import Belief
from agents.policies.base import Ingredients, PolicyEntry
from agents.policies.bayesian import Bayesian, inference_of, numbers_of_a_belief, principal_codes

_TIE = 1e-9  # posterior variances closer than this share of the prior power count as equal


def widest(variances: Float[np.ndarray, "n C B"], count: int) -> Integer[np.ndarray, "n K B"]:
    """The `count` codes of largest variance, ties to the coarser and then the lower index.

    Example:
        >>> widest(np.array([[[0.1], [0.5], [0.5]]]), 2)[0, :, 0].tolist()
        [1, 2]
    """
    tokens, codes, prompts = variances.shape
    chosen = np.empty((tokens, count, prompts), dtype=np.int64)
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

    def choose(self, belief: Belief, round: int) -> Integer[np.ndarray, "n K B"]:
        """The widest directions of the token's own belief."""
        return widest(self.inference.variances(belief), self.channels)


def build(given: Ingredients) -> Adaptive:
    """The policy of an experiment."""
    return Adaptive(inference_of(given), given.channel.channels, given.options.control_variate)


ENTRY = PolicyEntry(
    build, principal_codes, numbers=numbers_of_a_belief, theory="state evolution", adapts=True, controls=True
)
