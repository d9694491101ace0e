"""Bayes limit: against ridge regression, enumeration and exact special cases.

Monte-Carlo z-scores are two-sided with a family-wise false-alarm rate of 1e-4 for each test; seeds were
fixed before the first run.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from agents.prior import gaussian, matched_gaussian, tree
from analysis.theory.limits.bayes import bayes_limit

FALSE_ALARM = 1e-4
PRIORS = {
    "gaussian": gaussian(4),
    "null": matched_gaussian(tree(3, 2, 0.8, 7)),
    "tree": tree(3, 2, 0.8, 7),
    "ternary": tree(2, 3, 0.8, 4, directions="random"),
    "jitter": tree(2, 2, 0.8, 4, jitter=0.3),
}


def quantile(comparisons):
    return norm.isf(FALSE_ALARM / 2 / comparisons)


def posterior_mean(prior, x, y, label_noise):
    """Naively, for one prompt: one multivariate density and one gain for each atom."""
    form = prior.factor @ prior.factor.T
    covariance = x @ form @ x.T + label_noise**2 * np.eye(len(x))
    gain = form @ x.T @ np.linalg.inv(covariance)
    logs = np.array([multivariate_normal(x @ atom, covariance).logpdf(y) for atom in prior.atoms])
    weights = prior.weights * np.exp(logs - logs.max())
    means = prior.atoms + (y - prior.atoms @ x.T) @ gain.T
    return weights @ means / weights.sum()


@pytest.mark.statistical
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_it_is_the_squared_error_of_the_naive_posterior_mean(name, tokens):
    prior, sigma, prompts = PRIORS[name], 0.4, 800
    generator = np.random.default_rng(70)
    errors = np.empty(prompts)
    for prompt in range(prompts):
        w = prior.atoms[generator.choice(len(prior.weights), p=prior.weights)]
        w = w + prior.factor @ generator.standard_normal(prior.factor.shape[1])
        x = generator.standard_normal((tokens, prior.dim))
        y = x @ w + sigma * generator.standard_normal(tokens)
        errors[prompt] = ((w - posterior_mean(prior, x, y, sigma)) ** 2).sum() / prior.power()
    limit = bayes_limit(prior, tokens, sigma, samples=4000, seed=71)
    z = (errors.mean() - limit.risk[-1]) / np.hypot(errors.std() / np.sqrt(prompts), limit.risk_se[-1])
    assert abs(z) < quantile(1)


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_for_one_gaussian_it_is_the_risk_of_ridge_regression(sigma):
    dim, tokens, draws = 4, 8, 3000
    generator = np.random.default_rng(72)
    limit = bayes_limit(gaussian(dim), tokens, sigma, samples=4000, seed=73)
    z = []
    for length in range(1, tokens + 1):
        x = generator.standard_normal((draws, length, dim))
        ridge = np.eye(dim) * dim * sigma**2 + x.swapaxes(1, 2) @ x
        risk = np.trace(sigma**2 * np.linalg.inv(ridge), axis1=1, axis2=2)
        error = np.hypot(risk.std() / np.sqrt(draws), limit.risk_se[length])
        z.append((risk.mean() - limit.risk[length]) / error)
    assert np.abs(z).max() < quantile(tokens)


def test_without_label_noise_each_example_removes_one_dimension():
    limit = bayes_limit(gaussian(5), 7, 0.0, samples=2000, seed=74)
    exact = np.array([1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0])
    np.testing.assert_allclose(limit.risk, exact, atol=1e-9)  # an isotropic prior: the same in every draw
    singular = bayes_limit(matched_gaussian(tree(2, 2, 0.8, 6)), 6, 0.0, samples=300, seed=74)
    assert (singular.risk[3:] < 1e-9).all()  # three dimensions are all that matter


def test_without_label_noise_one_example_tells_the_atom():
    limit = bayes_limit(tree(3, 2, 0.8, 7), 3, 0.0, samples=1000, seed=75)
    assert limit.risk.tolist() == [pytest.approx(1.0), 0.0, 0.0, 0.0]
    jittered = bayes_limit(tree(2, 2, 0.8, 4, jitter=0.3), 8, 0.0, samples=1000, seed=75)
    assert (jittered.risk[4:] < 1e-9).all()
    assert jittered.risk[3] > 0.01


@pytest.mark.statistical
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("sigma", [0.0, 0.3, 3.0])
def test_it_falls_with_the_length_of_the_context(name, sigma):
    limit = bayes_limit(PRIORS[name], 12, sigma, samples=2000, seed=76)
    assert limit.risk.shape == limit.risk_se.shape == (13,)
    assert limit.risk[0] == pytest.approx(1.0)
    # Means of paired draws; one-sided at FALSE_ALARM over twelve steps.
    steps = np.diff(limit.draws, axis=0)
    assert (
        steps.mean(axis=1) <= norm.isf(FALSE_ALARM / 12) * steps.std(axis=1) / np.sqrt(2000) + 1e-12
    ).all()


@pytest.mark.statistical
def test_it_grows_with_label_noise_and_does_not_see_the_frame():
    prior = PRIORS["jitter"]
    quiet, loud = (bayes_limit(prior, 6, sigma, 2000, seed=77) for sigma in (0.2, 0.6))
    assert (quiet.risk[1:] < loud.risk[1:]).all()
    turn = np.linalg.qr(np.random.default_rng(78).standard_normal((4, 4)))[0]
    turned = replace(prior, atoms=prior.atoms @ turn, factor=turn.T @ prior.factor)
    other = bayes_limit(turned, 6, 0.2, 2000, seed=79)
    z = (quiet.risk - other.risk)[1:] / np.hypot(quiet.risk_se, other.risk_se)[1:]
    assert np.abs(z).max() < quantile(6)


@pytest.mark.statistical
def test_the_tree_knows_more_than_its_null():
    null, known = (bayes_limit(PRIORS[name], 20, 0.3, 2000, seed=80) for name in ("null", "tree"))
    assert (known.risk[2:] < null.risk[2:]).all()


def test_a_draw_does_not_depend_on_how_many_there_are_nor_on_the_length():
    few = bayes_limit(PRIORS["tree"], 4, 0.3, 100, seed=81).draws
    many = bayes_limit(PRIORS["tree"], 6, 0.3, 600, seed=81).draws
    np.testing.assert_allclose(few, many[:5, :100], rtol=1e-9)


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="samples"):
        bayes_limit(PRIORS["tree"], 3, 0.1, 1, seed=0)
