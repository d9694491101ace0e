"""Baselines: each against another road to the same number, on the prompts of a simulation."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm

from agents.prior import gaussian, tree
from analysis.theory.closed_forms.linear_attention import linear_attention_risk
from analysis.theory.limits.bayes import bayes_limit
from runner.built import build
from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate
from runner.studies.estimators import bayes, estimator_risk

BASE = Experiment().with_values({"task.tokens": 10, "task.prompts": 2000, "task.label_noise": 0.3})
PRIORS: dict[str, dict[str, object]] = {
    "tree": {},
    "jitter": {"prior.jitter": 0.3},
    "random directions": {"prior.directions": "random", "prior.dim": 4},
    "gaussian": {"prior.kind": "gaussian"},
    "matched": {"prior.kind": "matched_gaussian"},
}


@pytest.mark.statistical
@pytest.mark.parametrize("name", PRIORS)
def test_bayes_has_the_bayes_risk(name: str) -> None:
    """z over prompts, false-alarm rate 1e-3 for all priors together; the theory draws its own prompts."""
    experiment = BASE.with_values(PRIORS[name])
    risk = estimator_risk(build(experiment))["Bayes"]
    limit = bayes_limit(build(experiment).prior, 10, 0.3, 8000, seed=5)
    error = np.hypot(risk.std() / np.sqrt(len(risk)), limit.risk_se[-1])
    assert abs(risk.mean() - limit.risk[-1]) < norm.isf(0.5e-3 / len(PRIORS)) * error


@pytest.mark.parametrize("name", PRIORS)
def test_ridge_is_what_flooding_ends_with(name: str) -> None:
    experiment = BASE.with_values(
        {**PRIORS[name], "policy.kind": "flood", "run.rounds": 1, "channel.bits": 48, "channel.clip": 16.0}
    ).with_values({"task.prompts": 100})
    np.testing.assert_allclose(
        simulate(experiment).prompt_risk[1], estimator_risk(build(experiment))["ridge"], rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("name", ["gaussian", "tree"])
def test_one_step_is_a_round_of_gradient_descent(name: str) -> None:
    experiment = BASE.with_values({**PRIORS[name], "policy.kind": "gradient", "run.rounds": 1})
    step = 10 / (10 + 7 + 1 + 7 * 0.3**2)
    wide = {"channel.bits": 48, "channel.clip": 64.0, "policy.step": step, "task.prompts": 100}
    experiment = experiment.with_values(wide)
    np.testing.assert_allclose(
        simulate(experiment).prompt_risk[1], estimator_risk(build(experiment))["one gradient step"], rtol=1e-9
    )


@pytest.mark.statistical
def test_one_step_has_the_risk_of_the_best_linear_attention() -> None:
    experiment = BASE.with_values({"prior.kind": "gaussian", "task.prompts": 4000})
    risk = estimator_risk(build(experiment))["one gradient step"]
    # The closed form is for |w|^2 = d on average, and counts the risk in the same unit.
    expected = linear_attention_risk(10, 7, np.sqrt(7) * 0.3) / 7
    assert abs(risk.mean() - expected) < norm.isf(0.5e-3) * risk.std() / np.sqrt(len(risk))


@pytest.mark.statistical
def test_no_estimator_beats_a_richer_one() -> None:
    """Paired on the same prompts, beyond four standard errors."""
    risks = estimator_risk(build(BASE))
    order = ["Bayes", "ridge", "linear attention", "one gradient step"]
    for better, worse in pairwise(order):
        gain = risks[worse] - risks[better]
        assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain)), worse


def test_bayes_solves_equations_without_noise() -> None:
    generator = np.random.default_rng(2)
    for prior in (gaussian(5), tree(2, 2, 0.8, 5, jitter=0.4)):
        w = prior.atoms[0] + prior.factor @ generator.normal(size=prior.factor.shape[1])
        inputs = generator.normal(size=(9, 5, 1))
        found = bayes(prior, inputs, np.einsum("ndb,d->nb", inputs, w), 0.0)
        np.testing.assert_allclose(found[:, 0], w, atol=1e-7)
