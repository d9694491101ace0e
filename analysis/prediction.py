"""The theory of an experiment: what the mathematics says about it, before any agent runs."""

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from agents.policies.bayesian import Bayesian
from agents.policies.gossip import Gossip
from agents.policies.static import Static
from agents.prior import amplitudes, matched_gaussian
from analysis.theory.closed_forms import spectral_tail, tree_adaptive
from analysis.theory.evolution import Form, Prediction, Setting, evolve
from analysis.theory.light_cone import LightConeLimit, light_cone_limit
from analysis.theory.locality import LocalForm, LocalPrediction, evolve_on_graph
from runner.assembly import channel_of, mixing_for, policy_of, prior_of
from runner.experiment import Experiment
from topology.mixing import Mixing

_NEGLIGIBLE = 1e-6  # variance that a channel may add to an example of variance 1 without being heard of


def has_one_belief(experiment: Experiment) -> bool:
    """Whether all tokens hear and believe the same, so that a single belief stands for them.

    Example:
        >>> has_one_belief(Experiment()), has_one_belief(Experiment().with_values({"graph.kind": "ring"}))
        (True, False)
    """
    alike = experiment.graph.kind == "complete" and experiment.graph.mixing == "uniform"
    return alike and experiment.policy.kind in ("adaptive", "static")


def has_theory(experiment: Experiment) -> bool:
    """Whether the risk of the experiment's policy is predicted at all.

    Example:
        >>> has_theory(Experiment().with_values({"policy.kind": "gradient"}))
        False
    """
    if experiment.policy.kind == "flood":
        return channel_of(experiment).variance < _NEGLIGIBLE
    return experiment.policy.kind in ("adaptive", "static", "gossip")


def predict(experiment: Experiment, samples: int, form: Form = "exact") -> Prediction:
    """State evolution of the experiment's policy on the complete graph.

    Args:
        experiment: what would be run; policy `adaptive` or `static`.
        samples: size of the Monte-Carlo sample over tasks and fields.
        form: `exact` at any N, or `gaussian`, the mean field of large N.

    Raises:
        ValueError: if tokens do not all believe the same; `predict_on_graph` predicts more policies, and
            any graph.

    Source: THEORY.md section 7.2.

    Example:
        >>> predict(Experiment(), samples=500).risk.round(1).tolist()
        [1.0, 0.5, 0.2, 0.0, 0.0]
    """
    if not has_one_belief(experiment):
        raise ValueError("this form needs the complete graph, and the policy adaptive or static")
    return evolve(setting_of(experiment), form, samples, seed=experiment.run.seed)


def predict_on_graph(
    experiment: Experiment,
    samples: int,
    form: Form = "exact",
    mixing: Mixing | None = None,
    positions: Int[np.ndarray, " P"] | None = None,
) -> LocalPrediction | LightConeLimit:
    """Predicted risk of every position on any graph, for all policies that have a theory.

    `adaptive`, `static` and `gossip` by state evolution with the position's weights; `exact` is so where
    tokens cannot disagree about what to ask, elsewhere they are taken to agree. `flood` is the best linear
    estimate from the examples in the light cone, whose risk is the Bayes risk of the matched Gaussian, if
    the channel adds next to nothing to them.

    Args:
        experiment: what would be run.
        samples: size of the Monte-Carlo sample, over all positions.
        form: `exact`, from whole examples with their weights; or `gaussian`, the mean field.
        mixing: weights in place of those of the experiment's graph.
        positions: those that state evolution predicts; all by default.

    Raises:
        ValueError: if the policy has no theory, see `has_theory`.

    Source: THEORY.md sections 6 and 7.2.

    Example:
        >>> ring = Experiment().with_values({"graph.kind": "ring", "policy.kind": "gossip"})
        >>> slow = ring.with_values({"policy.rounds_per_scale": 1})
        >>> fast = ring.with_values({"policy.rounds_per_scale": 2})
        >>> bool(predict_on_graph(fast, 500).risk[2] < predict_on_graph(slow, 500).risk[1])
        True
    """
    if not has_theory(experiment):
        raise ValueError(f"no theory is written for the policy {experiment.policy.kind} on this channel")
    kind, seed = experiment.policy.kind, experiment.run.seed
    mixing = mixing or mixing_for(experiment)
    if kind == "flood":
        prior, heard = matched_gaussian(prior_of(experiment)), _graph_of(mixing)
        return light_cone_limit(
            prior, heard, experiment.run.rounds, experiment.task.label_noise, samples, seed
        )
    policy = policy_of(experiment, prior_of(experiment), mixing)
    turns = policy.turns if isinstance(policy, Gossip) else (1,)
    setting = setting_of(experiment, mixing)
    law: LocalForm = "gaussian" if form == "gaussian" else "weighted"
    return evolve_on_graph(setting, mixing, turns, samples, seed, law, kind == "gossip", positions)


def foreseen(
    experiment: Experiment, samples: int, form: Form = "exact"
) -> Prediction | LocalPrediction | LightConeLimit | None:
    """The prediction that theory has for an experiment: risk and standard error by round; None without one.

    Example:
        >>> foreseen(Experiment().with_values({"policy.kind": "learned"}), 500) is None
        True
    """
    if has_one_belief(experiment):
        return predict(experiment, samples, form)
    return predict_on_graph(experiment, samples, form) if has_theory(experiment) else None


def setting_of(experiment: Experiment, mixing: Mixing | None = None) -> Setting:
    """The experiment as state evolution sees it.

    Raises:
        ValueError: if the policy holds no belief.
    """
    prior, channel = prior_of(experiment), channel_of(experiment)
    if experiment.policy.kind not in ("adaptive", "static", "gossip"):
        raise ValueError("state evolution needs a policy that holds a belief: adaptive, static or gossip")
    policy = policy_of(experiment, prior, mixing or mixing_for(experiment))
    asking = policy.asking if isinstance(policy, Gossip) else policy
    assert isinstance(asking, Bayesian)
    return Setting(
        prior=prior,
        codebook=asking.inference.codebook,
        policy="static" if isinstance(asking, Static) else "adaptive",
        schedule=asking.schedule if isinstance(asking, Static) else None,
        rounds=experiment.run.rounds,
        channels=channel.channels,
        effective=float(experiment.task.tokens),
        label_noise=experiment.task.label_noise,
        message_noise_variance=channel.noise**2,
        step=channel.step,
        clip=channel.clip,
        control_variate=asking.control_variate,
        joint=asking.inference.joint,
    )


def infinite_tokens(experiment: Experiment) -> Float[np.ndarray, " rounds"] | None:
    """Relative risk of `adaptive` after rounds 0..L as N -> infinity, where it has a closed form.

    Source: THEORY.md sections 6 and 7.1.

    Example:
        >>> infinite_tokens(Experiment()).round(3).tolist()
        [1.0, 0.512, 0.2, 0.0, 0.0]
    """
    section, rounds, channels = experiment.prior, experiment.run.rounds, experiment.channel.channels
    if section.kind != "tree":
        return spectral_tail(prior_of(experiment), rounds, channels)
    if section.directions == "orthonormal" and section.jitter == 0:
        heights = amplitudes(section.levels, section.decay)
        return tree_adaptive(heights, rounds, channels, section.branching)
    return None


def _graph_of(mixing: Mixing) -> "nx.DiGraph[int]":
    """Who hears whom, from the weights."""
    if mixing.is_shared:
        return nx.complete_graph(mixing.tokens, create_using=nx.DiGraph)
    graph: nx.DiGraph[int] = nx.from_scipy_sparse_array(mixing.weights.T, create_using=nx.DiGraph)
    return graph
