"""The belief from the exact law of a field: oracles integrate over g with scipy, or draw whole tokens."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, multivariate_normal, norm

from agents.channel import Field
from agents.codebook import principal
from agents.inference.exact import ExactInference
from agents.inference.gaussian import GaussianInference
from agents.prior import matched_gaussian, tree

SIGMA, NOISE = 0.3, 0.5
PRIORS = {"binary": tree(2, 2, 0.8, 3), "ternary": tree(2, 3, 0.7, 8)}


def field_of(code: int, value: float, count: float) -> Field:
    number = np.full((1, 1, 1), count)
    return Field(np.full((1, 1, 1), code), np.full((1, 1, 1), value), number, number[:, 0])


def density_of_one(value, atom, control, query, count, apart=0.0):
    """Density of one field under an atom, by adaptive quadrature over the chi-squared law of n g."""
    q = atom - control
    along = query @ q
    rest = q @ q - along**2 + SIGMA**2 + apart

    def given(total):
        g = total / count
        spread = np.sqrt((g * rest + NOISE**2) / count)
        return norm.pdf(value, query @ control + g * along, spread) * chi2.pdf(total, count)

    return quad(given, 0.0, np.inf, limit=400, epsabs=1e-12)[0]


@pytest.mark.parametrize("count", [4, 16, 64])
@pytest.mark.parametrize("name", PRIORS)
def test_the_posterior_after_one_field_is_that_of_the_integral(name: str, count: int) -> None:
    prior = PRIORS[name]
    book = principal(prior)
    inference = ExactInference(prior, book, SIGMA, NOISE**2, disagreement=np.array([[0.2]]))
    for value in (-0.7, 0.1, 0.9):
        control = np.linspace(-0.3, 0.4, prior.dim)
        heard = inference.hear(
            inference.start(1, 1), field_of(1, value, count), control[None, :, None], round=1
        )
        exact = np.array(
            [density_of_one(value, a, control, book.directions[1], count, 0.2) for a in prior.atoms]
        )
        np.testing.assert_allclose(inference.atoms(heard)[0, :, 0], exact / exact.sum(), rtol=0.02, atol=2e-3)


def test_answers_to_one_code_are_jointly_gaussian_given_g() -> None:
    """Two answers to code 0 around one to code 1, against a dense covariance and a fine rule over g."""
    prior, count = PRIORS["binary"], 16.0
    book = principal(prior)
    inference = ExactInference(prior, book, SIGMA, NOISE**2, grouped=True)
    controls = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, -0.2], [0.5, -0.1, 0.1]])
    codes, values = [0, 1, 0], [0.4, -0.2, 0.7]
    belief = inference.start(1, 1)
    for round, (code, value, control) in enumerate(zip(codes, values, controls, strict=True), 1):
        belief = inference.hear(belief, field_of(code, value, count), control[None, :, None], round)
    grid = np.linspace(1e-3, 4.0, 4001)
    rule = chi2.pdf(grid * count, count)
    logs = []
    for atom in prior.atoms:
        likelihood = density_of_one(values[1], atom, controls[1], book.directions[1], count)
        q = atom - controls[[0, 2]]
        u = book.directions[0]
        common = q @ q.T - np.outer(q @ u, q @ u) + SIGMA**2
        pairs = [
            multivariate_normal.pdf(
                [values[0], values[2]],
                controls[[0, 2]] @ u + g * (q @ u),
                (g * common + NOISE**2 * np.eye(2)) / count,
            )
            for g in grid
        ]
        logs.append(np.log(likelihood * (pairs @ rule)))
    weights = np.exp(np.array(logs) - max(logs))
    np.testing.assert_allclose(
        inference.atoms(belief)[0, :, 0], weights / weights.sum(), rtol=0.03, atol=3e-3
    )


@pytest.mark.statistical
def test_claimed_risk_is_the_realised_one_where_the_law_is_exact() -> None:
    """Whole tokens that share a control: after one field the posterior variance is the squared error."""
    prior, count, prompts = PRIORS["binary"], 6, 20_000
    book, generator = principal(prior), np.random.default_rng(11)
    atom = generator.integers(len(prior.atoms), size=prompts)
    inputs = generator.standard_normal((count, prompts, prior.dim))
    labels = (inputs * prior.atoms[atom]).sum(axis=2) + SIGMA * generator.standard_normal((count, prompts))
    noise = NOISE * generator.standard_normal((count, prompts))
    values = ((inputs @ book.directions[0]) * labels + noise).mean(axis=0)
    number = np.full((1, 1, prompts), float(count))
    heard = Field(np.zeros((1, 1, prompts), dtype=int), values[None, None], number, number[:, 0])
    ratios = {}
    for rule in (ExactInference, GaussianInference):
        inference = rule(prior, book, SIGMA, NOISE**2)
        belief = inference.hear(inference.start(1, prompts), heard, None, 1)
        error = ((inference.estimate(belief)[0].T - prior.atoms[atom]) ** 2).sum(axis=1)
        excess = error - inference.spread(belief)[0]
        ratios[rule] = excess.mean() / (excess.std() / np.sqrt(prompts))
    assert abs(ratios[ExactInference]) < norm.isf(0.5e-3)
    assert abs(ratios[GaussianInference]) > norm.isf(0.5e-3), "the Gaussian law is seen to be wrong here"


def test_a_repeated_answer_counts_with_its_weight() -> None:
    prior = PRIORS["binary"]
    weights = (1.0, 0.25)
    inference = ExactInference(prior, principal(prior), SIGMA, NOISE**2, repeats=weights)
    alone = ExactInference(prior, principal(prior), SIGMA, NOISE**2)
    start = alone.start(1, 1)
    once = alone.hear(start, field_of(0, 0.4, 9.0), None, 1).log_weights - start.log_weights
    belief = inference.hear(inference.start(1, 1), field_of(0, 0.4, 9.0), None, 1)
    belief = inference.hear(belief, field_of(0, 0.4, 9.0), None, 2)
    np.testing.assert_allclose(belief.log_weights, start.log_weights + 1.25 * once, rtol=1e-12)
    assert belief.times[0, 0, 0] == 2


def test_a_field_of_nobody_changes_nothing_and_is_no_answer() -> None:
    prior = PRIORS["binary"]
    for grouped in (True, False):
        inference = ExactInference(prior, principal(prior), SIGMA, NOISE**2, grouped)
        belief = inference.start(1, 1)
        after = inference.hear(belief, field_of(0, 0.0, 0.0), None, 1)
        np.testing.assert_array_equal(after.log_weights, belief.log_weights)
        assert not after.times.any()


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_an_own_example_is_one_whole_measurement(jitter: float) -> None:
    """Under each atom y is Gaussian with variance x' S x + sigma^2, and the Gaussian part is conditioned."""
    prior = tree(2, 2, 0.8, 4, jitter=jitter)
    generator = np.random.default_rng(2)
    inputs, label = generator.normal(size=prior.dim), 0.8
    rules = [GaussianInference] if jitter else [GaussianInference, ExactInference]
    spread = prior.factor @ prior.factor.T
    variance = inputs @ spread @ inputs + SIGMA**2
    likelihood = prior.weights * norm.pdf(label, prior.atoms @ inputs, np.sqrt(variance))
    weights = likelihood / likelihood.sum()
    gain = spread @ inputs / variance
    means = prior.atoms + np.outer(label - prior.atoms @ inputs, gain)
    for rule in rules:
        inference = rule(prior, principal(prior), SIGMA, NOISE**2)
        told = inference.told(inference.start(1, 1), inputs[None, :, None], np.full((1, 1), label))
        np.testing.assert_allclose(inference.atoms(told)[0, :, 0], weights, rtol=1e-9)
        np.testing.assert_allclose(inference.estimate(told)[0, :, 0], weights @ means, rtol=1e-9)


def test_a_prior_with_a_gaussian_part_is_refused() -> None:
    prior = matched_gaussian(PRIORS["binary"])
    with pytest.raises(ValueError, match="without a Gaussian part"):
        ExactInference(prior, principal(prior), SIGMA, NOISE**2)
