"""State evolution behaves: more of anything helps; rotations and sibling order do not matter."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.theory.evolution.complete import evolve
from analysis.theory.predict import belief_of, predict_belief
from runner.built import build
from runner.config.experiment import Experiment

BASE = Experiment().with_values({"channel.noise": 1.0, "channel.bits": 16, "run.rounds": 3})
SAMPLES = 4000
MARGIN = 4.0  # standard errors of a difference; eight comparisons of three rounds a case


@pytest.mark.statistical
@pytest.mark.parametrize("policy", ["adaptive", "static"])
@pytest.mark.parametrize(
    ("key", "values", "others"),
    [
        ("task.tokens", [8, 16, 32, 64, 128], {}),
        ("channel.bits", [1, 2, 3, 4, 6, 16], {"channel.clip": 4.0}),
        ("channel.channels", [1, 2, 3], {}),
    ],
)
def test_risk_falls_with_tokens_bits_and_channels(
    policy: str, key: str, values: list[int], others: dict[str, object]
) -> None:
    predictions = [
        predict_belief(
            build(BASE.with_values({**others, "policy.kind": policy, key: value})).scenario, SAMPLES
        )
        for value in values
    ]
    for less, more in pairwise(predictions):
        margin = MARGIN * np.hypot(less.risk_se, more.risk_se) + 1e-12
        assert (more.risk <= less.risk + margin).all()


@pytest.mark.statistical
@pytest.mark.parametrize("policy", ["adaptive", "static"])
@pytest.mark.parametrize("prior", ["tree", "matched_gaussian"])
def test_risk_falls_with_rounds(policy: str, prior: str) -> None:
    experiment = BASE.with_values({"policy.kind": policy, "prior.kind": prior, "run.rounds": 8})
    errors = predict_belief(build(experiment).scenario, SAMPLES).errors
    steps = np.diff(errors, axis=0)  # of the same samples
    assert (steps.mean(axis=1) <= MARGIN * steps.std(axis=1) / np.sqrt(SAMPLES)).all()


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_rotation_of_the_prior_changes_nothing(first: int, second: int) -> None:
    """Another draw of the orthonormal directions is a rotation: same law, so the same risk within error."""
    risks = [
        predict_belief(build(BASE.with_values({"run.seed": seed})).scenario, 1000) for seed in (first, second)
    ]
    margin = 5.0 * np.hypot(risks[0].risk_se, risks[1].risk_se) + 0.01
    assert (np.abs(risks[0].risk - risks[1].risk) <= margin).all()


@given(st.permutations(list(range(2))), st.permutations(list(range(2))))
def test_the_order_of_siblings_changes_nothing(root: list[int], below: list[int]) -> None:
    """Leaves that are listed in another order, within the tree's symmetry, are the same prior."""
    setting = belief_of(build(BASE).scenario)
    prior = setting.prior
    blocks = prior.atoms.reshape(2, 2, 2, -1)[root][:, below].reshape(8, -1)
    permuted = replace(setting, prior=replace(prior, atoms=blocks))
    left, right = (evolve(each, "exact", 1000, seed=3) for each in (setting, permuted))
    margin = 5.0 * np.hypot(left.risk_se, right.risk_se) + 0.01
    assert (np.abs(left.risk - right.risk) <= margin).all()
