"""The light cone limit: what a token could know at best of the examples that can have reached it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.prior import Prior
from analysis.statistics import standard_error
from analysis.theory.limits.bayes import bayes_limit
from topology.families import Graph
from topology.metrics import light_cones

Array = np.ndarray


class LightConeLimit(NamedTuple):
    """Bayes risk relative to E|w|^2, of each position, given the examples within l = 0..L hops.

    Attributes:
        sizes: number of tokens within l hops, itself included [L+1, N].
        risk: mean over positions [L+1].
        risk_se: its standard error [L+1].
        position_risk: Bayes risk of each position [L+1, N].
        position_risk_se: its standard error [L+1, N].
    """

    sizes: Int[Array, "rounds N"]
    risk: Float[Array, " rounds"]
    risk_se: Float[Array, " rounds"]
    position_risk: Float[Array, "rounds N"]
    position_risk_se: Float[Array, "rounds N"]


def light_cone_limit(
    prior: Prior, graph: Graph, rounds: int, label_noise: float, samples: int, seed: int
) -> LightConeLimit:
    """Risk of the exact posterior mean given all examples within l hops, for each position and l = 0..L.

    After l rounds nothing else can have reached a token, whatever is sent: no policy has a
    lower risk in expectation, be its messages as long as they like. Only the number of examples counts,
    so one Bayes limit serves all positions and rounds: they share its samples, and the error of the mean
    over positions is that of the mean over positions of each sample. Where errors are rare the
    caution of `bayes_limit` applies.

    Args:
        prior: prior over w.
        graph: who hears whom.
        rounds: L >= 0.
        label_noise: sigma.
        samples: number of independent prompts.
        seed: seed of all draws.

    Raises:
        ValueError: if a number is out of range.

    Source: THEORY.md sections 6 and 7.5.

    Example:
        >>> from agents.prior import gaussian
        >>> from topology.families import Family, path
        >>> limit = light_cone_limit(gaussian(4), path(Family(4)), 2, 0.0, samples=300, seed=0)
        >>> limit.sizes.tolist()
        [[1, 1, 1, 1], [2, 3, 3, 2], [3, 4, 4, 3]]
        >>> limit.position_risk.round(2).tolist()
        [[0.75, 0.75, 0.75, 0.75], [0.5, 0.25, 0.25, 0.5], [0.25, 0.0, 0.0, 0.25]]
    """
    if rounds < 0:
        raise ValueError(f"rounds must not be negative, got {rounds}")
    sizes = light_cones(graph, rounds)
    limit = bayes_limit(prior, int(sizes.max()), label_noise, samples, seed)
    shares = np.stack([np.bincount(row, minlength=len(limit.draws)) for row in sizes]) / sizes.shape[1]
    means = shares @ limit.draws  # over the positions of each sample
    return LightConeLimit(
        sizes,
        means.mean(axis=1),
        standard_error(means),
        limit.risk[sizes],
        limit.risk_se[sizes],
    )
