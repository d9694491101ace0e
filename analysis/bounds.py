"""What no policy can beat in an experiment: the capacity of its messages, and the reach of its graph."""

import numpy as np
from jaxtyping import Float

from analysis.prediction import has_one_belief, setting_of
from analysis.theory.bayes import bayes_limit
from analysis.theory.capacity import Wire
from analysis.theory.light_cone import light_cone_limit
from analysis.theory.limits import distortion_rate
from runner.assembly import graph_of, mixing_for, prior_of
from runner.experiment import Experiment
from runner.risk import Estimated, mean_over_prompts

_LARGEST_GRAPH = 2000  # up to so many tokens paths are searched


def light_cone_bound(experiment: Experiment, samples: int) -> Estimated:
    """Bayes risk of the examples that can have reached a token after rounds 0..L, mean over positions.

    No policy is below it on this graph, be its messages as long as they like. On a large graph it is that of
    all N examples in every round, which no policy is below either.

    Args:
        experiment: its prior, graph and rounds.
        samples: size of the Monte-Carlo sample.

    Source: THEORY.md sections 6 and 7.5.

    Example:
        >>> experiment = Experiment().with_values({"graph.kind": "ring", "prior.kind": "gaussian"})
        >>> light_cone_bound(experiment, 300).value.round(2).tolist()
        [0.86, 0.32, 0.04, 0.01, 0.01]
    """
    prior, task, rounds, seed = (
        prior_of(experiment),
        experiment.task,
        experiment.run.rounds,
        experiment.run.seed,
    )
    complete = experiment.graph.kind == "complete"
    if not complete and task.tokens <= _LARGEST_GRAPH:
        found = light_cone_limit(prior, graph_of(experiment), rounds, task.label_noise, samples, seed)
        return Estimated(found.risk, found.risk_se)
    limit = bayes_limit(prior, task.tokens, task.label_noise, samples, seed)
    reached = np.full(rounds + 1, task.tokens)
    reached[0] = 1 if complete else task.tokens
    return mean_over_prompts(limit.draws[reached])


def bits_by_round(experiment: Experiment) -> Float[np.ndarray, " L"]:
    """Certified capacity of each round in bits: K fields of at most N messages.

    An integer holds no more bits than the logarithm of its values. With transmitter noise a query that is
    fixed before any data, without control variate, has a smaller capacity: that is every round of such a
    static policy, and the first round of every policy here, since the estimate is then zero. Tokens of a
    complete graph ask the same codes; elsewhere those of an adaptive policy may differ, and how many
    messages were about one's own code is information too. A flooding token also knows its own example,
    which took no bits: there is no such bound for it.
    """
    channel, rounds, kind = experiment.channel, experiment.run.rounds, experiment.policy.kind
    if kind == "flood":
        return np.full(rounds, np.inf)
    # A sum of weighted integers has no more values than one of as many messages as the weights add up to.
    heard = mixing_for(experiment).largest_row_sum
    wire = Wire(heard, channel.bits, channel.clip, channel.noise)
    complete = experiment.graph.kind == "complete" and experiment.graph.mixing == "uniform"
    addressed = not complete and kind in ("adaptive", "gossip")
    bits = np.full(rounds, experiment.channels * wire.integer_bits(addressed))
    prior = prior_of(experiment)
    if prior.factor.shape[1] or not (has_one_belief(experiment) and channel.noise):
        return bits
    setting = setting_of(experiment)
    schedule = setting.schedule
    if schedule is None:
        variances = np.einsum(
            "cd,de,ce->c", setting.codebook.directions, prior.covariance(), setting.codebook.directions
        )
        first = np.argsort(-variances.round(9), kind="stable")[: channel.channels]
        schedule = (tuple(int(code) for code in first),)
    fixed = rounds if setting.schedule is not None and not setting.control_variate else min(1, rounds)
    asked = sorted({code for codes in schedule[:fixed] for code in codes})
    capacity = {
        code: wire.query_bits(prior, setting.codebook.directions[code], setting.label_noise) for code in asked
    }
    for index, codes in enumerate(schedule[:fixed]):
        bits[index] = min(bits[index], sum(capacity[code] for code in codes))
    return bits


def physical_limit(experiment: Experiment) -> Float[np.ndarray, " rounds"]:
    """Relative risk after rounds 0..L below which no system is that hears so many bits.

        limit_l = D(bits of rounds 1..l) / E|w|^2

    Source: THEORY.md section 7.4; data-processing inequality.
    """
    prior = prior_of(experiment)
    heard = np.concatenate([[0.0], np.cumsum(bits_by_round(experiment))])
    limit = np.zeros(len(heard))
    finite = np.isfinite(heard)
    limit[finite] = distortion_rate(prior, heard[finite])
    # Without a bit the mean is the best estimate, unless a token reads its own example.
    limit[0] = 0.0 if experiment.policy.kind == "flood" else np.trace(prior.covariance())
    return np.asarray(limit / prior.power())
