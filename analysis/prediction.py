"""The theory of an experiment: what the mathematics says about it, before any agent runs."""

import numpy as np
from jaxtyping import Float

from agents.policies.bayesian import Bayesian
from agents.policies.static import Static
from agents.prior import amplitudes
from analysis.theory.closed_forms import spectral_tail, tree_adaptive
from analysis.theory.evolution import Form, Prediction, Setting, evolve
from runner.assembly import channel_of, mixing_for, policy_of, prior_of
from runner.experiment import Experiment


def predict(experiment: Experiment, samples: int, form: Form = "exact") -> Prediction:
    """State evolution of the experiment's policy on the complete graph.

    Args:
        experiment: what would be run; policy `adaptive` or `static`.
        samples: size of the Monte-Carlo sample over tasks and fields.
        form: `exact` at any N, or `gaussian`, the mean field of large N.

    Raises:
        ValueError: if the policy is learned, or the graph is not complete.

    Source: THEORY.md section 7.2.

    Example:
        >>> predict(Experiment(), samples=500).risk.round(1).tolist()
        [1.0, 0.5, 0.2, 0.0, 0.0]
    """
    return evolve(setting_of(experiment), form, samples, seed=experiment.run.seed)


def setting_of(experiment: Experiment) -> Setting:
    """The experiment as state evolution sees it.

    Raises:
        ValueError: if the policy is learned, or the graph is not complete.
    """
    if experiment.graph.kind != "complete":
        raise ValueError("state evolution is written for the complete graph")
    prior, mixing, channel = prior_of(experiment), mixing_for(experiment), channel_of(experiment)
    if experiment.policy.kind == "learned":
        raise ValueError("state evolution needs a policy that holds a belief: adaptive or static")
    policy = policy_of(experiment, prior, mixing)
    assert isinstance(policy, Bayesian)
    return Setting(
        prior=prior,
        codebook=policy.inference.codebook,
        policy="static" if isinstance(policy, Static) else "adaptive",
        schedule=policy.schedule if isinstance(policy, Static) else None,
        rounds=experiment.run.rounds,
        channels=channel.channels,
        effective=float(experiment.task.tokens),
        label_noise=experiment.task.label_noise,
        message_noise_variance=channel.noise**2,
        step=channel.step,
        clip=channel.clip,
        control_variate=policy.control_variate,
        joint=policy.inference.joint,
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
