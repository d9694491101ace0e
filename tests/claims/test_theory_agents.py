"""State evolution predicts the agents: token-level simulation against the theory, as z-scores.

The simulation draws every token and sends every message; the theory draws fields from the Gram matrix.
They share the prior and the codebook, no other code. All z-scores of this module together have a
family-wise false-alarm rate of 1e-3 (Bonferroni); seeds were fixed before the first run.
"""

import numpy as np
import pytest
from scipy.stats import norm

from agents.channel import Channel, Field
from agents.codebook import pooled, principal
from agents.inference.gaussian import GaussianInference
from agents.policies.adaptive import Adaptive
from agents.policies.static import Static, in_turn
from agents.prior import matched_gaussian, tree
from agents.step import Aggregate, System, draw_block, step
from analysis.theory.evolution.complete import evolve, extend
from analysis.theory.evolution.posterior import condition, start
from analysis.theory.setting import Setting
from topology.mixing import everyone

PROMPTS, SAMPLES, ROUNDS, LABEL_NOISE = 2000, 10_000, 5, 0.1
# (policy, control variate)
POLICIES = [("adaptive", True), ("adaptive", False), ("codes", False), ("pooled", False), ("pooled", True)]
TOKENS, NOISES = [16, 32, 64], [0.0, 1.0]
# (prior, policy, channels, joint): one system each where the first table has none.
OTHERS = [
    ("tree", "adaptive", 2, True),
    ("tree", "adaptive", 1, False),
    ("tree", "codes", 2, True),
    ("ternary", "adaptive", 1, True),
    ("random", "adaptive", 1, True),
    ("jitter", "adaptive", 1, True),
    ("gaussian", "adaptive", 1, True),
    ("gaussian", "adaptive", 2, False),
]
COMPARISONS = ROUNDS * (len(POLICIES) * len(TOKENS) * len(NOISES) + len(OTHERS))
# Two-sided, at 4e-4: counts of rare errors exceed it up to 2.5 times as often as normal variables do.
LIMIT = norm.isf(4e-4 / 2 / COMPARISONS)

PRIORS = {
    "tree": tree(3, 2, 0.8, 7),
    "ternary": tree(2, 3, 0.8, 8),
    "random": tree(3, 2, 0.8, 4, directions="random"),
    "jitter": tree(2, 2, 0.8, 4, jitter=0.2),
    "gaussian": matched_gaussian(tree(2, 2, 0.8, 3)),
}


def build(prior, kind, control_variate, tokens, noise, channels=1, joint=True, seed=0):
    """The same system twice: for the agents, and for the theory."""
    # A clip that no message reaches, and a step as fine as that of 24 bits at the usual clip.
    channel = Channel(channels, bits=28, clip=128.0, noise=noise)
    codebook = pooled(prior) if kind == "pooled" else principal(prior)
    inference = GaussianInference(prior, codebook, LABEL_NOISE, channel.variance, joint)
    schedule = None if kind == "adaptive" else in_turn(len(codebook), ROUNDS, channels)
    if schedule is None:
        policy = Adaptive(inference, channels, control_variate)
    else:
        policy = Static(inference, channels, control_variate, schedule)
    setting = Setting(
        prior=prior,
        codebook=codebook,
        policy="adaptive" if schedule is None else "static",
        rounds=ROUNDS,
        channels=channels,
        effective=float(tokens),
        label_noise=LABEL_NOISE,
        message_noise_variance=noise**2,
        step=channel.step,
        control_variate=control_variate,
        joint=joint,
        schedule=schedule,
    )
    return System(prior, LABEL_NOISE, seed, channel, policy, ROUNDS), setting


def simulate(system, tokens, prompts=PROMPTS):
    """Squared error of token 0 relative to E|w|^2 [L+1, B]; every token emits in every round.

    On the complete graph all tokens hear the same, so that their workspaces stay equal.
    """
    chunk = 8192 // tokens  # what fits a cache
    chunks = [range(first, min(first + chunk, prompts)) for first in range(0, prompts, chunk)]
    return np.concatenate([simulate_chunk(system, tokens, chunk) for chunk in chunks], axis=1)


def simulate_chunk(system, tokens, prompts):
    place = draw_block(system, np.arange(tokens), prompts)
    mixing, count = everyone(tokens), system.policy.codes
    result, errors = step(system, place, None, None, None, 0), []
    for round in range(1, system.rounds + 1):
        errors.append(result.report.error)
        assert result.sent is not None
        assert not result.report.clipped.any()
        sums = mixing.aggregate(result.sent.codes, result.sent.wire, count, place.tokens.positions)
        result = step(system, place, result.state, result.sent, Aggregate(*sums), round)
    errors.append(result.report.error)
    assert all((error == error[:1]).all() for error in errors)
    return np.stack([error[0] for error in errors]) / system.prior.power()


def z_scores(system, setting, tokens, seed):
    """(simulated - predicted) / standard error, rounds 1..L.

    Where only a few prompts are wrong, their number is Poisson and no z-score is normal. Four prompts
    more, as wrong as the wrongest, are therefore counted into the variance: a Poisson count k of any
    mean m then has |k - m| > LIMIT sqrt(m + 4) at most 2.5 times as often as a normal variable exceeds
    LIMIT. Where many are wrong this changes nothing that could be seen.
    """
    simulated, predicted = simulate(system, tokens), evolve(setting, "exact", SAMPLES, seed)
    together = np.concatenate([simulated, predicted.errors], axis=1)
    variance = together.var(axis=1) * (1 / PROMPTS + 1 / SAMPLES) + 4 * (together.max(axis=1) / PROMPTS) ** 2
    return ((simulated.mean(axis=1) - predicted.risk) / np.sqrt(variance))[1:]


@pytest.mark.statistical
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("kind", "control_variate"), POLICIES)
def test_state_evolution_predicts_the_risk_of_the_agents(kind, control_variate, tokens, noise):
    system, setting = build(PRIORS["tree"], kind, control_variate, tokens, noise, seed=51)
    z = z_scores(system, setting, tokens, seed=52)
    assert np.abs(z).max() < LIMIT, z.round(2)


@pytest.mark.statistical
@pytest.mark.parametrize(("name", "kind", "channels", "joint"), OTHERS)
def test_state_evolution_predicts_other_priors_and_channels(name, kind, channels, joint):
    system, setting = build(PRIORS[name], kind, True, 24, 0.5, channels, joint, seed=53)
    z = z_scores(system, setting, 24, seed=54)
    assert np.abs(z).max() < LIMIT, z.round(2)


def same_belief(prior, channels, joint, control_variate, noise, rounds=4, prompts=50):
    """Both beliefs on the same fields: posterior means, and variances of all codes [L, prompts, ...]."""
    codebook = principal(prior)
    generator = np.random.default_rng(55)
    inference = GaussianInference(prior, codebook, LABEL_NOISE, noise, joint)
    schedule = in_turn(len(codebook), rounds, channels)
    setting = Setting(
        prior, codebook, "static", rounds, channels, 20.0, LABEL_NOISE, noise,
        control_variate=control_variate, joint=joint, schedule=schedule,
    )  # fmt: skip
    belief, record, pairs = inference.start(1, prompts), start(prior, prompts), []
    for codes in schedule:
        posterior = condition(prior, record)
        mean = posterior.mean()
        control = mean if control_variate else np.zeros_like(mean)
        values = 0.3 * generator.standard_normal((prompts, channels))
        asked = np.broadcast_to(codebook.directions[list(codes)], (prompts, channels, prior.dim))
        record = extend(setting, record, posterior, asked, control, values)
        column = np.broadcast_to(np.array(codes)[None, :, None], (1, channels, prompts))
        effective = np.full((1, channels, prompts), 20.0)
        spoken = control.T[None] if control_variate else None
        belief = inference.hear(belief, Field(column, values.T[None], effective, effective[:, 0]), spoken, 1)
        posterior = condition(prior, record)
        pairs.append((inference.estimate(belief)[0].T, posterior.mean()))
        variances = posterior.variances(prior, codebook.directions)
        pairs.append((inference.variances(belief)[0].T, variances))
    return pairs


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("control_variate", [True, False])
def test_agents_and_theory_believe_the_same_of_the_same_fields(name, channels, joint, control_variate):
    for agents, theory in same_belief(PRIORS[name], channels, joint, control_variate, noise=1.0):
        np.testing.assert_allclose(agents, theory, rtol=0, atol=1e-9)
