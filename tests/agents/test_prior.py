"""Priors have the moments and the geometry that the theory gives them."""

import numpy as np
import pytest
from scipy.stats import norm

from agents.codebook import pooled, principal
from agents.prior import Prior, amplitudes, draw_latent, gaussian, matched_gaussian, tree

FALSE_ALARM = 1e-4  # of each test below, over all its z-scores (Bonferroni)


@pytest.mark.parametrize("branching", [2, 3, 4])
@pytest.mark.parametrize("directions", ["orthonormal", "random"])
def test_siblings_are_centred_with_mean_squared_norm_of_their_level(branching: int, directions: str) -> None:
    levels, decay = 2, 0.7
    prior = tree(levels, branching, decay, branching**levels - 1, directions)  # type: ignore[arg-type]
    heights = amplitudes(levels, decay)
    leaves = prior.atoms.reshape(branching, branching, -1)
    children = leaves.mean(axis=1)
    np.testing.assert_allclose(children.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((children**2).sum(axis=1).mean(), heights[0] ** 2)
    offsets = leaves - children[:, None]
    np.testing.assert_allclose(offsets.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((offsets**2).sum(axis=2).mean(axis=1), heights[1] ** 2)
    assert prior.power() == pytest.approx(1.0, abs=1e-12)


def test_orthonormal_axes_are_orthonormal_and_span_the_atoms() -> None:
    prior = tree(3, 3, 0.8, 30)
    np.testing.assert_allclose(prior.axes @ prior.axes.T, np.eye(26), atol=1e-12)
    np.testing.assert_allclose(prior.atoms @ prior.axes.T @ prior.axes, prior.atoms, atol=1e-12)


def test_codes_of_a_tree_are_eigenvectors_of_its_covariance() -> None:
    prior = tree(3, 2, 0.8, 7, seed=3)
    values = np.einsum("cd,de,ce->c", prior.axes, prior.covariance(), prior.axes)
    np.testing.assert_allclose(prior.covariance() @ prior.axes.T, prior.axes.T * values, atol=1e-12)
    expected = amplitudes(3, 0.8)[prior.scales - 1] ** 2 / 2.0 ** (prior.scales - 1)
    np.testing.assert_allclose(values, expected)


def test_too_few_dimensions_are_refused_with_the_number_needed() -> None:
    with pytest.raises(ValueError, match="need dim >= 7, got 6"):
        tree(3, 2, 0.8, 6)


@pytest.mark.parametrize(
    "prior",
    [
        tree(3, 2, 0.8, 7),
        tree(2, 3, 0.9, 4, "random", 0.2),
        gaussian(3),
        matched_gaussian(tree(2, 2, 0.5, 5)),
    ],
)
@pytest.mark.statistical
def test_draws_have_the_mean_and_covariance_of_the_prior(prior: Prior) -> None:
    count = 40_000
    w = draw_latent(prior, seed=11, prompts=range(count)).vector.T
    products = np.einsum("bi,bj->bij", w - prior.mean(), w - prior.mean()).reshape(count, -1)
    sample = np.concatenate([w, products], axis=1)
    expected = np.concatenate([prior.mean(), prior.covariance().ravel()])
    errors = sample.std(axis=0) / np.sqrt(count)
    scores = (sample.mean(axis=0) - expected) / np.maximum(errors, 1e-12)
    assert np.abs(scores).max() < norm.isf(FALSE_ALARM / (2 * len(scores)))


@pytest.mark.parametrize("directions", ["orthonormal", "random"])
def test_matched_gaussian_has_the_same_moments_and_as_many_codes(directions: str) -> None:
    prior = tree(3, 2, 0.8, 7, directions, seed=2)  # type: ignore[arg-type]
    null = matched_gaussian(prior)
    np.testing.assert_allclose(null.covariance(), prior.covariance(), atol=1e-12)
    np.testing.assert_allclose(null.mean(), prior.mean(), atol=1e-12)
    values = np.einsum("cd,de,ce->c", null.axes, null.covariance(), null.axes)
    np.testing.assert_allclose(null.covariance() @ null.axes.T, null.axes.T * values, atol=1e-9)
    assert (np.diff(values) < 1e-9).all(), "coarse to fine"
    assert len(principal(null)) == len(principal(prior))


def test_pooled_queries_have_norm_one_and_see_each_node_of_their_level_alike() -> None:
    prior = tree(3, 2, 0.8, 7)
    book = pooled(prior)
    np.testing.assert_allclose(np.linalg.norm(book.directions, axis=1), 1)
    overlap = book.directions @ prior.axes.T
    for row, level in zip(overlap, book.scales, strict=True):
        np.testing.assert_allclose(row[prior.scales == level], 2.0 ** (-(level - 1) / 2))
        np.testing.assert_allclose(row[prior.scales != level], 0, atol=1e-12)
