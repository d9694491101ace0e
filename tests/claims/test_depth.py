"""Depth never hurts: rounds do not raise the risk, beliefs are as good as they claim, theory knows both."""

import numpy as np
import pytest
from scipy.stats import norm

from agents.policies.gossip import Gossip
from analysis.theory.predict import predict_on_graph
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate
from runner.studies.activations import play_states
from topology.families import FAMILIES

POLICIES: dict[str, dict[str, object]] = {
    "adaptive": {"policy.kind": "adaptive"},
    "widest": {"policy.kind": "adaptive", "policy.order": "widest"},
    "level": {"policy.kind": "adaptive", "policy.order": "level"},
    "static codes": {"policy.kind": "static", "policy.order": "codes"},
    "static pooled": {"policy.kind": "static", "policy.order": "pooled"},
    "gossip": {"policy.kind": "gossip"},
    "gossip, two rounds": {"policy.kind": "gossip", "policy.rounds_per_scale": 2},
    "gossip, three rounds": {"policy.kind": "gossip", "policy.rounds_per_scale": 3},
    "gradient": {"policy.kind": "gradient"},
    "flood": {"policy.kind": "flood"},
}
Case = tuple[str, str, int, float, bool]
BELIEVING = [name for name in POLICIES if name not in ("gradient", "flood")]


def drawn(count: int, seed: int, policies: list[str], tokens: tuple[int, ...]) -> list[Case]:
    """Policy, family, N, tau, control variate: some of all, drawn beforehand."""
    every: list[Case] = [
        (policy, family, number, noise, control)
        for policy in policies
        for family in FAMILIES
        for number in tokens
        for noise in (0.0, 0.3, 1.0)
        for control in ((True, False) if policy in BELIEVING else (True,))
    ]
    chosen = np.random.default_rng(seed).choice(len(every), size=min(count, len(every)), replace=False)
    return [every[index] for index in sorted(chosen)]


def experiment_of(case: Case, rounds: int, prompts: int) -> Experiment:
    policy, family, tokens, noise, control = case
    return Experiment().with_values(
        {
            **POLICIES[policy],
            "graph.kind": family,
            "task.tokens": tokens,
            "task.prompts": prompts,
            "channel.noise": noise,
            "policy.control_variate": control,
            "run.rounds": rounds,
            "run.trace": "none",
        }
    )


def some(default: list[Case], rest: list[Case]) -> list[object]:
    """Cases, of which only the first list runs by default."""
    slow = [pytest.param(case, marks=pytest.mark.slow) for case in rest if case not in default]
    return [*default, *slow]


FEW = drawn(10, 1, list(POLICIES), (8, 16, 64))
MANY = drawn(400, 2, list(POLICIES), (8, 16, 64))


@pytest.mark.statistical
@pytest.mark.parametrize("case", some(FEW, MANY), ids=str)
def test_more_rounds_do_not_raise_the_risk(case: Case) -> None:
    """After each of 12 rounds at most two standard errors above the least so far."""
    run = simulate(experiment_of(case, 12, 400))
    least = np.minimum.accumulate(run.risk)
    excess = (run.risk[1:] - least[:-1]) / np.maximum(run.risk_se[1:], 1e-9)
    assert excess.max() < 2, (excess.round(1), run.risk.round(4))


def claimed(built: Built, prompts: int) -> np.ndarray:
    """Risk that the beliefs themselves expect after each round, relative to E|w|^2."""
    policy = built.policy
    asking = policy.asking if isinstance(policy, Gossip) else policy
    states = play_states(built.system, built.mixing, range(prompts))
    beliefs = (state.now if isinstance(policy, Gossip) else state for state in states)
    spreads = [asking.inference.spread(state.belief).mean() for state in beliefs]
    return np.array(spreads) / built.prior.power()


# A whole level asked at once on a star: beliefs there claim up to 15 % more risk than they make.
UNDERCONFIDENT: Case = ("static pooled", "star", 64, 0.0, True)
CLAIMS = drawn(60, 4, BELIEVING, (16, 64))


@pytest.mark.statistical
@pytest.mark.parametrize(
    "case",
    [
        *some(drawn(10, 3, BELIEVING, (16, 64)), [case for case in CLAIMS if case != UNDERCONFIDENT]),
        pytest.param(UNDERCONFIDENT, marks=[pytest.mark.slow, pytest.mark.xfail(strict=True)]),
    ],
    ids=str,
)
def test_beliefs_make_the_risk_that_they_claim(case: Case) -> None:
    """Realised over claimed risk is within 10 % and two standard errors of 1, for claims above .01."""
    built = build(experiment_of(case, 6, 600))
    run, expected = simulate(built), claimed(built, 600)
    large = expected > 0.01
    allowed = 0.1 * expected + 2 * run.risk_se
    assert (np.abs(run.risk - expected) <= allowed)[large].all(), (run.risk / expected).round(2)


# Risk after four rounds by tokens heard, N = 64, no transmitter noise or as much as the signal: a prototype
# outside this project, 3,000 prompts, with its standard error.
CAUSAL = {
    0.0: ([8, 16, 32, 64], [0.0476, 0.0014, 0.0, 0.0], [0.0042, 0.0007, 0.0002, 0.0002]),
    1.0: ([8, 16, 32, 64], [0.376, 0.138, 0.0206, 0.0007], [0.010, 0.006, 0.0025, 0.0005]),
}
OWN = {0.0: [0.0158, 0.0005, 0.0, 0.0], 1.0: [0.125, 0.042, 0.0070, 0.0]}
SPARSE = {("ring", 0.0): 0.089, ("random_regular", 0.0): 0.079, ("ring", 1.0): 0.502}
SPARSE_OWN = {("ring", 0.0): 0.043, ("random_regular", 0.0): 0.038, ("ring", 1.0): 0.184}


def table(values: dict[str, object], prompts: int = 3000) -> Experiment:
    return Experiment().with_values(
        {"task.tokens": 64, "task.prompts": prompts, "run.rounds": 4, "run.trace": "none", **values}
    )


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("noise", CAUSAL)
def test_risk_by_context_length_is_that_of_the_prototype_or_less(noise: float, own: bool) -> None:
    heard, expected, errors = CAUSAL[noise]
    values = {"graph.kind": "causal", "channel.noise": noise, "policy.own_example": own}
    run = simulate(table(values, 20_000 if noise == 0.0 else 3000))
    places = np.array(heard) - 1
    allowed = 3 * np.hypot(run.position_risk_se[-1, places], errors)
    assert (run.position_risk[-1, places] < (OWN[noise] if own else expected) + allowed).all()


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("family", "noise"),
    [("ring", 0.0), ("random_regular", 0.0), ("ring", 1.0)],
)
def test_risk_on_sparse_graphs_is_that_of_the_prototype_or_less(family: str, noise: float, own: bool) -> None:
    if (family, noise, own) == ("ring", 1.0, False):
        pytest.xfail(".520 against .502: if repeated answers counted in full, beliefs would claim too little")
    expected = (SPARSE_OWN if own else SPARSE)[family, noise]
    run = simulate(table({"graph.kind": family, "channel.noise": noise, "policy.own_example": own}))
    assert run.risk[-1] < expected + 3 * np.sqrt(2) * run.risk_se[-1]


COMPLETE = {0.0: [0.0013, 0.0010], 1.0: [0.1241, 0.0745]}  # N = 16, rounds 3 and 4, 8,000 prompts


@pytest.mark.statistical
@pytest.mark.parametrize("noise", COMPLETE)
def test_few_tokens_on_the_complete_graph_are_as_the_prototype_or_better(noise: float) -> None:
    run = simulate(table({"task.tokens": 16, "channel.noise": noise}, 8000 if noise else 20_000))
    assert (run.risk[3:] < np.array(COMPLETE[noise]) + 3 * np.sqrt(2) * run.risk_se[3:]).all(), run.risk


@pytest.mark.statistical
@pytest.mark.parametrize(
    "noise", [0.0, *(pytest.param(noise, marks=pytest.mark.slow) for noise in (0.3, 1.0))]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_exact_law_is_nowhere_worse_than_the_gaussian_one(family: str, noise: float) -> None:
    """On the same prompts, after any round: at most two paired standard errors above it."""
    values = {"graph.kind": family, "task.tokens": 16, "channel.noise": noise, "run.rounds": 6}
    exact, joint = (
        simulate(table({**values, "policy.belief": belief}, 1000)).prompt_risk
        for belief in ("exact", "joint")
    )
    difference = (exact - joint)[1:]
    error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
    assert (difference.mean(axis=1) < 2 * error + 1e-9).all(), (exact.mean(axis=1), joint.mean(axis=1))


PREDICTED: list[tuple[str, dict[str, object]]] = [
    ("causal", {}),
    ("causal", {"channel.noise": 1.0, "policy.control_variate": False}),
    ("causal", {"channel.noise": 0.3, "policy.own_example": True}),
    ("ring", {"channel.noise": 0.3}),
    ("star", {"policy.kind": "static", "channel.noise": 0.3, "graph.mixing": "metropolis"}),
    ("grid", {"policy.kind": "gossip", "policy.rounds_per_scale": 2, "channel.noise": 0.5}),
    ("random_regular", {"channel.channels": 2, "channel.bits": 4, "channel.clip": 3.0}),
    ("tree", {"prior.levels": 2, "prior.branching": 3, "prior.dim": 8, "channel.noise": 0.5}),
    ("barbell", {"policy.repeats": 1.0, "policy.order": "widest", "prior.directions": "random"}),
]


@pytest.mark.statistical
@pytest.mark.parametrize(("family", "values"), PREDICTED, ids=str)
def test_theory_predicts_every_position_where_tokens_disagree(family: str, values: dict[str, object]) -> None:
    """Population and agents share priors, codebooks and graphs, nothing else; z at 1e-3 for all together."""
    built = build(table({"graph.kind": family, "task.tokens": 16, "run.rounds": 5, **values}, 2000))
    run, found = simulate(built), predict_on_graph(built.scenario, 4000)
    limit = norm.isf(0.5e-3 / (len(PREDICTED) * 5 * 17))
    error = np.hypot(run.position_risk_se, found.position_risk_se)[1:]
    z = (run.position_risk - found.position_risk)[1:] / np.maximum(error, 1e-3)
    assert np.abs(z).max() < limit, z.round(1)
    overall = (run.risk - found.risk)[1:] / np.maximum(np.hypot(run.risk_se, found.risk_se)[1:], 1e-3)
    assert np.abs(overall).max() < limit, overall.round(1)
