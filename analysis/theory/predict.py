"""The prediction that theory has for a system, whatever its policy and its graph."""

from typing import Literal

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from agents.prior import matched_gaussian
from analysis.statistics import mean_over_prompts
from analysis.theory.closed_forms.asymptotic import spectral_tail, tree_adaptive
from analysis.theory.evolution.complete import Form, Prediction, evolve
from analysis.theory.evolution.graph import LocalPrediction, evolve_on_graph
from analysis.theory.evolution.population import evolve_population, prompts_of
from analysis.theory.limits.distortion_rate import discrete_tree_levels
from analysis.theory.limits.light_cone import LightConeLimit, light_cone_limit
from analysis.theory.setting import Scenario, Setting
from topology.mixing import Mixing

_NEGLIGIBLE = 1e-6  # variance that a channel may add to an example of variance 1 without being heard of


def has_one_belief(scenario: Scenario) -> bool:
    """Whether all tokens hear and believe the same, so that a single belief stands for them."""
    return scenario.mixing.is_shared and scenario.theory == "state evolution"


def has_theory(scenario: Scenario) -> bool:
    """Whether the risk of the system's policy is predicted at all."""
    if scenario.theory == "light cone":
        return scenario.channel.variance < _NEGLIGIBLE
    setting, shared = scenario.setting, scenario.mixing.is_shared
    if setting is not None and setting.own_example and not has_one_belief(scenario):
        return setting.exact and not shared
    return scenario.theory is not None


def predict(
    scenario: Scenario, samples: int, form: Form = "exact"
) -> Prediction | LocalPrediction | LightConeLimit | None:
    """Risk relative to E|w|^2 after rounds 0..L, with its standard error; None where no theory is written.

    Args:
        scenario: the system.
        samples: size of the Monte-Carlo sample over tasks and fields.
        form: `exact` at any N, or `gaussian`, the mean field of large N.

    Source: THEORY.md section 7.2.
    """
    if has_one_belief(scenario):
        return predict_belief(scenario, samples, form)
    return predict_on_graph(scenario, samples, form) if has_theory(scenario) else None


def predict_belief(scenario: Scenario, samples: int, form: Form = "exact") -> Prediction:
    """State evolution of the one belief that all tokens share on the complete graph.

    Args:
        scenario: the system.
        samples: size of the Monte-Carlo sample over tasks and fields.
        form: `exact` at any N, or `gaussian`, the mean field of large N.

    Raises:
        ValueError: if tokens do not all believe the same; `predict_on_graph` predicts more policies, and
            any graph.

    Source: THEORY.md section 7.2.
    """
    if not has_one_belief(scenario):
        raise ValueError("this form needs the complete graph, and the policy adaptive or static")
    return evolve(belief_of(scenario), form, samples, seed=scenario.seed)


def predict_on_graph(
    scenario: Scenario,
    samples: int,
    form: Form = "exact",
    positions: Int[np.ndarray, " P"] | None = None,
) -> LocalPrediction | LightConeLimit:
    """Predicted risk of every position on any graph, for all policies that have a theory.

    `adaptive`, `static` and `gossip` by state evolution: with the exact law of a field of a whole population,
    in either form, exact at any N; with a Gaussian law by the position's weights, `exact` where tokens cannot
    disagree about what to ask, elsewhere they are taken to agree. `flood` is the best linear
    estimate from the examples in the light cone, whose risk is the Bayes risk of the matched Gaussian, if
    the channel adds next to nothing to them.

    Args:
        scenario: the system.
        samples: size of the Monte-Carlo sample, over all positions.
        form: `exact`, from whole examples with their weights; or `gaussian`, the mean field.
        positions: those that state evolution predicts; all by default.

    Raises:
        ValueError: if the policy has no theory, see `has_theory`.

    Source: THEORY.md sections 6 and 7.2.
    """
    if not has_theory(scenario):
        raise ValueError("no theory is written for this policy on this channel")
    if scenario.theory == "light cone":
        prior, heard = matched_gaussian(scenario.prior), graph_of(scenario.mixing)
        return light_cone_limit(prior, heard, scenario.rounds, scenario.label_noise, samples, scenario.seed)
    if belief_of(scenario).exact and not scenario.mixing.is_shared:
        return _population(scenario, samples, positions)
    law: Literal["gaussian", "weighted"] = "gaussian" if form == "gaussian" else "weighted"
    averaging = scenario.theory == "averaging"
    return evolve_on_graph(
        belief_of(scenario),
        scenario.mixing,
        scenario.turns,
        samples,
        scenario.seed,
        law,
        averaging,
        positions,
    )


def _population(scenario: Scenario, samples: int, positions: Int[np.ndarray, " P"] | None) -> LocalPrediction:
    """Risk by position of beliefs that disagree."""
    setting, mixing, averaging = belief_of(scenario), scenario.mixing, scenario.theory == "averaging"
    prompts = prompts_of(setting, mixing.tokens, 8 * samples)
    found = evolve_population(setting, mixing, prompts, scenario.seed, scenario.turns, averaging)
    chosen = slice(None) if positions is None else positions
    mean, error = mean_over_prompts(found.prompt_risk)
    return LocalPrediction(mean, error, found.position_risk[:, chosen], found.position_risk_se[:, chosen])


def infinite_tokens(scenario: Scenario) -> Float[np.ndarray, " rounds"] | None:
    """Relative risk of `adaptive` after rounds 0..L as N -> infinity, where it has a closed form.

    Source: THEORY.md sections 6 and 7.1.
    """
    prior, rounds, channels = scenario.prior, scenario.rounds, scenario.channel.channels
    if not prior.branches.shape[1]:
        return spectral_tail(prior, rounds, channels)
    levels = discrete_tree_levels(prior)
    if levels is None:
        return None
    try:
        return tree_adaptive(np.sqrt(levels.powers), rounds, channels, levels.branching)
    except ValueError:  # it does not go coarse to fine, or a message does not hold whole nodes
        return None


def belief_of(scenario: Scenario) -> Setting:
    """The belief of the system's policy.

    Raises:
        ValueError: if the policy holds none.
    """
    if scenario.setting is None:
        raise ValueError("state evolution needs a policy that holds a belief: adaptive, static or gossip")
    return scenario.setting


def graph_of(mixing: Mixing) -> "nx.DiGraph[int]":
    """Who hears whom, from the weights: an edge j -> i means that i hears j."""
    if mixing.is_shared:
        return nx.complete_graph(mixing.tokens, create_using=nx.DiGraph)
    graph: nx.DiGraph[int] = nx.from_scipy_sparse_array(mixing.weights.T, create_using=nx.DiGraph)
    return graph
