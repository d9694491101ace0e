"""The belief is the exact posterior: oracles enumerate the atoms with dense matrices."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from agents.channel import Field
from agents.codebook import pooled, principal
from agents.inference.gaussian import GaussianInference
from agents.prior import Prior, gaussian, matched_gaussian, tree

SIGMA, CHANNEL, N = 0.3, 0.5, 20.0
PRIORS = {
    "binary": tree(3, 2, 0.8, 7),
    "ternary": tree(2, 3, 0.7, 8),
    "random directions": tree(3, 2, 0.9, 4, "random", seed=5),
    "ternary random": tree(2, 3, 0.9, 5, "random", seed=6),
    "jittered": tree(2, 2, 0.8, 4, jitter=0.3),
    "gaussian": gaussian(5),
    "matched": matched_gaussian(tree(2, 3, 0.7, 9)),
}


def heard_by_all(codes: np.ndarray, values: np.ndarray, effective: np.ndarray) -> Field:
    """A field that all tokens around contributed to."""
    return Field(codes, values, effective, effective[:, 0])


def oracle(
    prior: Prior,
    queries: np.ndarray,
    controls: np.ndarray,
    values: np.ndarray,
    joint: bool = True,
    shares: np.ndarray | None = None,
    channel: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior weights, mean and covariance of w, by enumeration, for offsets that are known.

    Fields y = U w + noise; noise under atom m from E[q_t q_s'] = (mu - v_t)(mu - v_s)' + S, times the share
    of the tokens behind two fields that is common to both (1/N), and the noise of the channel in each field.
    """
    shared = prior.factor @ prior.factor.T
    rounds = len(values)
    logs, means, covariances = [], [], []
    for weight, atom in zip(prior.weights, prior.atoms, strict=True):
        noise = np.zeros((rounds, rounds))
        for t in range(rounds):
            for s in range(rounds):
                second = np.outer(atom - controls[t], atom - controls[s]) + shared
                noise[t, s] = queries[t] @ queries[s] * (np.trace(second) + SIGMA**2)
                noise[t, s] += queries[t] @ second.T @ queries[s]
        noise *= 1 / N if shares is None else shares
        noise += np.diag(np.full(rounds, CHANNEL / N) if channel is None else channel)
        if not joint:
            noise = np.diag(np.diag(noise))
        total = queries @ shared @ queries.T + noise
        logs.append(np.log(weight) + multivariate_normal.logpdf(values, queries @ atom, total))
        gain = shared @ queries.T @ np.linalg.inv(total)
        means.append(atom + gain @ (values - queries @ atom))
        covariances.append(shared - gain @ queries @ shared)
    weights = np.exp(np.array(logs) - max(logs))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    spread = np.array(means) - mean
    covariance = np.einsum("m,mij->ij", weights, np.array(covariances)) + (spread.T * weights) @ spread
    return weights, mean, covariance


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", PRIORS)
def test_posterior_without_control_is_that_of_enumeration(name: str, joint: bool) -> None:
    prior = PRIORS[name]
    book = principal(prior)
    generator = np.random.default_rng(1)
    codes = generator.integers(0, len(book), (6, 3))
    values = generator.normal(size=(6, 3)) * 0.5
    inference = GaussianInference(prior, book, SIGMA, CHANNEL, joint)
    belief = inference.start(1, 3)
    for code, value in zip(codes, values, strict=True):
        fields = (code[None, None], value[None, None], np.full((1, 1, 3), N))
        belief = inference.hear(belief, heard_by_all(*fields), None, 1)
    for column in range(3):
        queries = book.directions[codes[:, column]]
        controls = np.zeros((6, prior.dim))
        weights, mean, covariance = oracle(prior, queries, controls, values[:, column], joint)
        np.testing.assert_allclose(inference.atoms(belief)[0, :, column], weights, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(inference.estimate(belief)[0, :, column], mean, rtol=1e-7, atol=1e-12)
        forms = np.einsum("cd,de,ce->c", book.directions, covariance, book.directions)
        np.testing.assert_allclose(inference.variances(belief)[0, :, column], forms, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["binary", "ternary", "random directions", "ternary random"])
def test_posterior_with_control_is_that_of_enumeration(name: str, channels: int) -> None:
    prior = PRIORS[name]
    book = principal(prior)
    generator = np.random.default_rng(2)
    inference = GaussianInference(prior, book, SIGMA, CHANNEL)
    belief = inference.start(1, 1)
    queries, controls, heard = [], [], []
    for _ in range(4):
        control = inference.estimate(belief)
        code = generator.choice(len(book), channels, replace=False)
        values = 0.5 * generator.normal(size=channels)
        belief = inference.hear(
            belief,
            heard_by_all(code[None, :, None], values[None, :, None], np.full((1, channels, 1), N)),
            control,
            1,
        )
        queries += list(book.directions[code])
        controls += [control[0, :, 0]] * channels
        heard += list(values)
    weights, mean, _ = oracle(prior, np.array(queries), np.array(controls), np.array(heard))
    np.testing.assert_allclose(inference.atoms(belief)[0, :, 0], weights, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(inference.estimate(belief)[0, :, 0], mean, rtol=1e-6, atol=1e-12)


def test_repeating_a_question_without_control_and_noise_tells_nothing() -> None:
    prior = PRIORS["binary"]
    inference = GaussianInference(prior, principal(prior), 0.1, 0.0)
    belief = inference.start(1, 1)
    fields = (np.zeros((1, 1, 1), dtype=int), np.full((1, 1, 1), 0.3), np.full((1, 1, 1), 16.0))
    once = inference.hear(belief, heard_by_all(*fields), None, 1)
    again = inference.hear(once, heard_by_all(*fields), None, 1)
    np.testing.assert_allclose(inference.atoms(again), inference.atoms(once), atol=1e-6)


def test_a_variance_that_had_to_be_held_is_counted() -> None:
    """Twelve tokens behind a mean of two that are around: no process has such covariances."""
    prior = PRIORS["binary"]
    inference = GaussianInference(prior, principal(prior), 0.1, 0.0)
    for around, expected in ((12.0, 0), (2.0, 1)):
        belief = inference.start(1, 1)
        for round in (1, 2):
            number = np.full((1, 1, 1), 12.0)
            field = Field(np.zeros((1, 1, 1), dtype=int), number / 40, number, np.full((1, 1), around))
            belief = inference.hear(belief, field, None, round)
        assert inference.held(belief).item() == expected


@pytest.mark.parametrize("name", PRIORS)
def test_means_over_different_tokens_share_what_independent_draws_share(name: str) -> None:
    """Of 12 tokens around, 12, 5, 1 and 8 answered, the own one always; and some means were passed on."""
    prior = PRIORS[name]
    book = principal(prior)
    generator = np.random.default_rng(4)
    codes = generator.integers(0, len(book), (4, 1))
    values, counts, around = generator.normal(size=4), np.array([12.0, 5.0, 1.0, 8.0]), 12.0
    relayed = np.array([1.0, 2.5, 1.0, 3.0])
    inference = GaussianInference(prior, book, SIGMA, CHANNEL)
    belief = inference.start(1, 1)
    for code, value, count, times in zip(codes, values, counts, relayed, strict=True):
        number = np.full((1, 1, 1), count)
        heard = Field(
            code[None, :, None],
            np.full((1, 1, 1), value),
            number,
            np.full((1, 1), around),
            times + 0 * number,
        )
        belief = inference.hear(belief, heard, None, 1)
    drawn = (counts - 1) / (around - 1)  # the chance that another token is among those who answered
    shares = (1 + (around - 1) * np.outer(drawn, drawn)) / np.outer(counts, counts)
    np.fill_diagonal(shares, 1 / counts)
    queries = book.directions[codes[:, 0]]
    weights, mean, _ = oracle(
        prior, queries, np.zeros((4, prior.dim)), values, True, shares, CHANNEL * relayed / counts
    )
    np.testing.assert_allclose(inference.atoms(belief)[0, :, 0], weights, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(inference.estimate(belief)[0, :, 0], mean, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "matched"])
@pytest.mark.parametrize("with_control", [True, False])
def test_variance_of_a_gaussian_does_not_depend_on_what_is_heard(name: str, with_control: bool) -> None:
    prior = PRIORS[name]
    inference = GaussianInference(prior, principal(prior), SIGMA, CHANNEL)
    variances = []
    for seed in (0, 1):
        generator = np.random.default_rng(seed)
        belief = inference.start(1, 1)
        for code in (0, 1, 0, 2):
            control = inference.estimate(belief) if with_control else None
            value = generator.normal(size=(1, 1, 1))
            belief = inference.hear(
                belief, heard_by_all(np.full((1, 1, 1), code), value, np.full((1, 1, 1), N)), control, 1
            )
        variances.append(inference.variances(belief))
    np.testing.assert_array_equal(*variances)


def test_a_field_of_no_token_changes_nothing() -> None:
    prior = PRIORS["jittered"]
    inference = GaussianInference(prior, pooled(prior), SIGMA, CHANNEL)
    belief = inference.start(2, 3)
    codes, nothing = np.zeros((2, 1, 3), dtype=int), np.zeros((2, 1, 3))
    after = inference.hear(belief, heard_by_all(codes, nothing, nothing), None, 1)
    np.testing.assert_array_equal(inference.estimate(after), inference.estimate(belief))
    np.testing.assert_array_equal(inference.variances(after), inference.variances(belief))


def test_variances_never_grow_negative_over_many_rounds() -> None:
    """The covariance of rounds stays positive, with jitter and with questions asked again and again."""
    prior = PRIORS["jittered"]
    book = principal(prior)
    inference = GaussianInference(prior, book, 0.1, 1e-6)
    generator = np.random.default_rng(3)
    for with_control in (True, False):
        belief = inference.start(1, 200)
        for _ in range(12):
            codes = generator.integers(0, len(book), (1, 1, 200))
            values = 0.3 * generator.normal(size=(1, 1, 200))
            control = inference.estimate(belief) if with_control else None
            belief = inference.hear(belief, heard_by_all(codes, values, np.full((1, 1, 200), N)), control, 1)
            assert inference.variances(belief).min() > -1e-12
            assert np.isfinite(inference.estimate(belief)).all()
