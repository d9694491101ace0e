"""What no policy can beat in a system: the capacity of its messages, and the reach of its graph."""

import numpy as np
from jaxtyping import Float

from analysis.theory.limits.bayes import bayes_limit
from analysis.theory.limits.capacity import Wire
from analysis.theory.limits.distortion_rate import distortion_rate
from analysis.theory.limits.light_cone import light_cone_limit
from analysis.theory.predict import belief_of, graph_of, has_one_belief
from analysis.theory.setting import Scenario

_LARGEST_GRAPH = 2000  # up to so many tokens paths are searched


def light_cone_bound(
    scenario: Scenario, samples: int
) -> tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, " rounds"]]:
    """Bayes risk of the examples that can have reached a token after rounds 0..L, mean over positions.

    No policy is below it on this graph, be its messages as long as they like. On a large graph it is that of
    all N examples in every round, which no policy is below either.

    Args:
        scenario: its prior, graph and rounds.
        samples: size of the Monte-Carlo sample.

    Returns:
        The risk relative to E|w|^2, and its standard error.

    Source: THEORY.md sections 6 and 7.5.
    """
    mixing, rounds = scenario.mixing, scenario.rounds
    if not mixing.is_shared and mixing.tokens <= _LARGEST_GRAPH:
        heard = graph_of(mixing)
        found = light_cone_limit(scenario.prior, heard, rounds, scenario.label_noise, samples, scenario.seed)
        return found.risk, found.risk_se
    limit = bayes_limit(scenario.prior, mixing.tokens, scenario.label_noise, samples, scenario.seed)
    reached = np.full(rounds + 1, mixing.tokens)
    reached[0] = 1 if mixing.is_shared else mixing.tokens
    return limit.risk[reached], limit.risk_se[reached]


def bits_by_round(scenario: Scenario) -> Float[np.ndarray, " L"]:
    """Certified capacity of each round in bits: K fields of at most N messages.

    An integer holds no more bits than the logarithm of its values. With transmitter noise a query that is
    fixed before any data, without control variate, has a smaller capacity: that is every round of such a
    static policy, and the first round of every policy here, since the estimate is then zero. Tokens of a
    complete graph ask the same codes; elsewhere those of an adaptive policy may differ, and how many
    messages were about one's own code is information too; with unequal weights, which of them were. A
    flooding token also knows its own example, which took no bits: there is no such bound for it.
    """
    channel, rounds, prior = scenario.channel, scenario.rounds, scenario.prior
    if scenario.theory == "light cone":
        return np.full(rounds, np.inf)
    # A sum of weighted integers has no more values than one of as many messages as the weights add up to.
    heard = scenario.mixing.largest_row_sum
    wire = Wire(heard, channel.bits, channel.clip, channel.noise)
    addressed = scenario.adapts and not scenario.mixing.is_shared
    weights = scenario.mixing.weights
    alike = bool((weights.data == weights.data[0]).all())
    each = wire.integer_bits(addressed and alike)
    if addressed and not alike:  # each subset of the neighbours may have another sum of squared weights
        each += float((weights > 0).sum(axis=1).max())
    bits = np.full(rounds, channel.channels * each)
    if prior.factor.shape[1] or not (has_one_belief(scenario) and channel.noise):
        return bits
    setting = belief_of(scenario)
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


def physical_limit(scenario: Scenario) -> Float[np.ndarray, " rounds"]:
    """Relative risk after rounds 0..L below which no system is that hears so many bits.

        limit_l = D(bits of rounds 1..l) / E|w|^2

    An own example that the estimate uses brings log2(1 + E|w|^2 / sigma^2) / 2 bits more, or less: the
    entropy of a label given its input is at most that of a normal variable of its variance.

    Source: THEORY.md section 7.4; data-processing inequality.
    """
    prior = scenario.prior
    heard = np.concatenate([[0.0], np.cumsum(bits_by_round(scenario))])
    if scenario.setting is not None and scenario.setting.own_example:
        with np.errstate(divide="ignore"):
            heard += 0.5 * np.log2(1.0 + prior.power() / np.square(scenario.label_noise))
    limit = np.zeros(len(heard))
    finite = np.isfinite(heard)
    limit[finite] = distortion_rate(prior, heard[finite])
    # Without a bit the mean is the best estimate, unless a token reads its own example.
    if not heard[0]:
        limit[0] = 0.0 if scenario.theory == "light cone" else np.trace(prior.covariance())
    return np.asarray(limit / prior.power())
