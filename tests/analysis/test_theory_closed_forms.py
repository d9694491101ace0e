"""Closed forms against enumeration and Monte-Carlo that share nothing with them.

Every Monte-Carlo z-score is two-sided with a family-wise false-alarm rate of 1e-4 for each test; the
seeds were fixed before the first run.
"""

import numpy as np
import pytest
from scipy.stats import norm

from agents.codebook import pooled, principal
from agents.prior import amplitudes, gaussian, matched_gaussian, tree
from analysis.theory.closed_forms import asymptotic as closed_forms
from analysis.theory.closed_forms import linear_attention

FALSE_ALARM = 1e-4


def quantile(comparisons):
    """Largest |z| of that many normal z-scores, exceeded with probability FALSE_ALARM at most."""
    return norm.isf(FALSE_ALARM / 2 / comparisons)


def enumerate_noiseless(prior, directions, rounds, channels, adaptive):
    """Risk when fields tell u.w exactly: leaves are struck out, nothing is drawn."""
    leaves, risk = len(prior.atoms), np.zeros(rounds + 1)
    readings = np.round(prior.atoms @ directions.T, 9)
    for truth in range(leaves):
        alive = np.ones(leaves, dtype=bool)
        for done in range(rounds + 1):
            mean = prior.atoms[alive].mean(axis=0)
            risk[done] += ((prior.atoms[truth] - mean) ** 2).sum() / leaves
            variance = readings[alive].var(axis=0)
            if adaptive:
                codes = []
                for _ in range(channels):
                    codes.append(int(np.flatnonzero(variance > variance.max() - 1e-8)[0]))
                    variance[codes[-1]] = -np.inf
            else:
                codes = (np.arange(channels) + done * channels) % len(directions)
            alive &= (readings[:, codes] == readings[truth, codes]).all(axis=1)
    return risk / prior.power()


@pytest.mark.parametrize(
    ("levels", "branching", "channels"),
    [(4, 2, 1), (4, 2, 2), (4, 2, 3), (4, 2, 5), (5, 2, 6), (3, 3, 1), (3, 3, 2), (3, 3, 4), (2, 4, 3)],
)
@pytest.mark.parametrize("decay", [0.5, 0.8, 1.1])
def test_adaptive_limit_of_a_tree_is_that_of_striking_out_leaves(levels, branching, channels, decay):
    prior = tree(levels, branching, decay, branching**levels - 1)
    expected = enumerate_noiseless(prior, principal(prior).directions, levels, channels, adaptive=True)
    found = closed_forms.tree_adaptive(amplitudes(levels, decay), levels, channels, branching)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("levels", "branching", "channels"), [(4, 2, 1), (4, 2, 3), (3, 3, 1), (2, 4, 1)])
def test_pooled_limit_of_a_tree_is_that_of_striking_out_leaves(levels, branching, channels):
    prior = tree(levels, branching, 0.8, branching**levels - 1)
    expected = enumerate_noiseless(prior, pooled(prior).directions, levels, channels, adaptive=False)
    found = closed_forms.tree_pooled(amplitudes(levels, 0.8), levels, channels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("levels", "branching", "channels"), [(4, 2, 1), (4, 2, 2), (3, 3, 1), (2, 4, 3)])
def test_static_linear_limit_is_least_squares_on_the_codes_asked(levels, branching, channels):
    prior = tree(levels, branching, 0.8, branching**levels - 1)
    directions = principal(prior).directions
    rounds = len(directions) // channels
    expected = []
    for done in range(rounds + 1):
        heard = prior.atoms @ directions[: done * channels].T
        decoder = np.linalg.lstsq(heard, prior.atoms, rcond=None)[0]
        expected.append(((prior.atoms - heard @ decoder) ** 2).sum(axis=1).mean() / prior.power())
    found = closed_forms.tree_static_linear(amplitudes(levels, 0.8), rounds, channels, branching)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    tail = closed_forms.spectral_tail(matched_gaussian(prior), rounds, channels)
    np.testing.assert_allclose(tail, expected, rtol=0, atol=1e-9)


def test_static_linear_needs_exponentially_more_rounds_than_adaptive():
    heights = amplitudes(5, 0.8)
    adaptive = closed_forms.tree_adaptive(heights, 5)
    static = closed_forms.tree_static_linear(heights, 31)
    np.testing.assert_allclose([static[2**level - 1] for level in range(6)], adaptive, atol=1e-12)


def test_tree_limits_refuse_what_they_do_not_cover():
    with pytest.raises(ValueError, match="coarse to fine"):
        closed_forms.tree_adaptive(np.array([1.0, 2.0]), 2)
    with pytest.raises(ValueError, match="multiple of branching"):
        closed_forms.tree_adaptive(np.ones(3), 2, channels=1, branching=4)


def test_pooled_signal_is_the_variance_of_the_pooled_field():
    for branching in (2, 3):
        prior = tree(3, branching, 0.8, branching**3 - 1)
        fields = prior.atoms @ pooled(prior).directions.T
        found = closed_forms.pooled_signal_to_noise(amplitudes(3, 0.8), 32.0, 0.5, branching)
        np.testing.assert_allclose(found, 32.0 * fields.var(axis=0) / 0.5)


def test_pooled_fails_at_the_first_level_whose_signal_drowns():
    heights = amplitudes(8, 0.8)
    level = closed_forms.pooled_failure_level(heights, 16.0)
    assert level is not None
    assert 2 ** (level - 1) >= 16 * heights[level - 1] ** 2
    assert 2 ** (level - 2) < 16 * heights[level - 2] ** 2
    assert closed_forms.pooled_failure_level(heights, 1e9) is None


@pytest.mark.statistical
def test_spectral_tail_is_the_residual_of_a_gaussian_vector():
    prior = matched_gaussian(tree(3, 2, 0.7, 9, directions="random", seed=3))
    draws = np.random.default_rng(20).standard_normal((20_000, prior.factor.shape[1])) @ prior.factor.T
    axes = np.linalg.svd(prior.factor)[0].T
    residual = [((draws - draws @ axes[:k].T @ axes[:k]) ** 2).sum(axis=1) / prior.power() for k in (0, 2, 4)]
    expected = closed_forms.spectral_tail(prior, 2, 2)
    z = [(r.mean() - e) / (r.std() / np.sqrt(len(r))) for r, e in zip(residual, expected, strict=True)]
    assert np.abs(z).max() < quantile(3)


def test_spectral_tail_of_white_noise_is_a_line():
    np.testing.assert_allclose(closed_forms.spectral_tail(gaussian(6), 4, 2), [1, 2 / 3, 1 / 3, 0, 0])


@pytest.mark.statistical
@pytest.mark.parametrize(("dim", "context", "label_noise"), [(5, 20, 0.0), (5, 20, 1.0), (3, 4, 0.5)])
def test_one_linear_attention_layer_reaches_its_closed_form_at_the_best_step(dim, context, label_noise):
    generator = np.random.default_rng(21)
    prompts = 20_000
    w = generator.standard_normal((prompts, dim))
    x = generator.standard_normal((prompts, context, dim))
    y = np.einsum("bnd,bd->bn", x, w) + label_noise * generator.standard_normal((prompts, context))
    gradient = np.einsum("bn,bnd->bd", y, x) / context
    best = linear_attention.linear_attention_step(context, dim, label_noise)
    errors = ((w - best * gradient) ** 2).sum(axis=1)
    expected = linear_attention.linear_attention_risk(context, dim, label_noise)
    # The derivative of the squared error in the step has mean zero at the best step.
    slope = ((best * gradient - w) * gradient).sum(axis=1)
    z = [
        (errors.mean() - expected) / (errors.std() / np.sqrt(prompts)),
        slope.mean() / (slope.std() / np.sqrt(prompts)),
    ]
    assert np.abs(z).max() < quantile(2)


def anisotropic(dim, rank):
    """Input covariance with condition number 10 and a task of low rank, in unrelated frames."""
    generator = np.random.default_rng(24)
    turn = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    factor = generator.standard_normal((dim, rank)) / np.sqrt(rank)
    return (turn * np.geomspace(0.3, 3.0, dim)) @ turn.T, factor


@pytest.mark.statistical
@pytest.mark.parametrize("scalar", [True, False])
@pytest.mark.parametrize(("dim", "context", "label_noise", "rank"), [(4, 12, 0.5, 4), (3, 5, 0.0, 2)])
def test_one_layer_on_anisotropic_inputs_reaches_its_closed_form_and_is_best(
    scalar, dim, context, label_noise, rank
):
    inputs, factor = anisotropic(dim, rank)
    generator, prompts = np.random.default_rng(25), 40_000
    w = generator.standard_normal((prompts, rank)) @ factor.T
    x = generator.standard_normal((prompts, context, dim)) @ np.linalg.cholesky(inputs).T
    y = np.einsum("bnd,bd->bn", x, w) + label_noise * generator.standard_normal((prompts, context))
    field = np.einsum("bn,bnd->bd", y, x) / context
    layer = linear_attention.anisotropic_layer(inputs, factor @ factor.T, context, label_noise, scalar)
    error = w - field @ layer.matrix.T
    # Expected derivatives of the squared error are zero at the best step, and at the best matrix.
    slopes = ((error @ inputs) * field).sum(axis=1)[:, None] if scalar else error[:, :, None] * field[:, None]
    samples = [
        ((error @ inputs) * error).sum(axis=1) - layer.prediction_risk,
        (error**2).sum(axis=1) - layer.estimation_risk,
        *slopes.reshape(prompts, -1).T,
    ]
    z = [sample.mean() / (sample.std() / np.sqrt(prompts)) for sample in samples]
    assert np.abs(z).max() < quantile(len(z))


def test_a_layer_on_isotropic_inputs_is_the_isotropic_one():
    for scalar in (True, False):
        layer = linear_attention.anisotropic_layer(np.eye(4), np.eye(4), 7, 0.3, scalar)
        step = linear_attention.linear_attention_step(7, 4, 0.3)
        np.testing.assert_allclose(layer.matrix, step * np.eye(4), atol=1e-12)
        risk = linear_attention.linear_attention_risk(7, 4, 0.3)
        np.testing.assert_allclose([layer.prediction_risk, layer.estimation_risk], risk)


def test_a_preconditioner_gains_only_if_inputs_or_tasks_are_anisotropic():
    inputs, factor = anisotropic(4, 4)
    task = factor @ factor.T
    step, matrix = (
        linear_attention.anisotropic_layer(inputs, task, 9, 0.1, scalar) for scalar in (True, False)
    )
    assert matrix.prediction_risk < 0.9 * step.prediction_risk
    assert matrix.prediction_risk < np.trace(inputs @ task)
    turn = np.linalg.qr(np.random.default_rng(26).standard_normal((4, 4)))[0]
    turned = linear_attention.anisotropic_layer(turn @ inputs @ turn.T, turn @ task @ turn.T, 9, 0.1)
    np.testing.assert_allclose(turned.matrix, turn @ matrix.matrix @ turn.T, atol=1e-10)
    with pytest.raises(ValueError, match="context"):
        linear_attention.anisotropic_layer(np.eye(2), np.eye(2), 0, 0.1)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("ratio", "noise_variance", "value"), [(0.5, 0.1, 0.5742), (1.0, 0.1, 0.2702), (2.0, 0.25, 0.1754)]
)
def test_ridge_limit_is_approached_by_ridge_in_large_dimension(ratio, noise_variance, value):
    # x ~ N(0, I_d), w ~ N(0, I_d / d), label noise of variance noise_variance. The expected error of
    # ridge with penalty d noise_variance, given the inputs, is a trace. Inputs alone are drawn.
    generator = np.random.default_rng(22)
    expected = closed_forms.ridge_limit(ratio, noise_variance)
    assert round(expected, 4) == value
    deviations = []
    for dim in (50, 100, 200):
        draws = []
        for _ in range(12800 // dim):
            x = generator.standard_normal((round(ratio * dim), dim))
            draws.append(np.trace(np.linalg.inv(np.eye(dim) + x.T @ x / (dim * noise_variance))) / dim)
        deviations.append((np.mean(draws) - expected, np.std(draws, ddof=1) / np.sqrt(len(draws))))
    # The finite-size correction is c / d; with c fitted, nothing but noise is left at the largest d.
    mean, error = np.array(deviations).T
    scale = 1 / np.array([50.0, 100.0, 200.0])
    weight = scale / error
    c = (weight @ (mean / error)) / (weight @ weight)
    z = (mean - c * scale) / error
    assert np.abs(z).max() < quantile(3)
    assert abs(mean[-1]) < 0.01 * expected


@pytest.mark.statistical
def test_ridge_is_best_at_the_penalty_that_the_limit_assumes():
    generator = np.random.default_rng(23)
    dim, context, noise_variance, penalties = 20, 30, 0.1, np.array([0.25, 1.0, 4.0])
    errors = np.empty((3, 2000))
    for prompt in range(errors.shape[1]):
        w = generator.standard_normal(dim) / np.sqrt(dim)
        x = generator.standard_normal((context, dim))
        y = x @ w + np.sqrt(noise_variance) * generator.standard_normal(context)
        for row, factor in enumerate(penalties):
            penalty = factor * dim * noise_variance
            errors[row, prompt] = ((w - np.linalg.solve(x.T @ x + penalty * np.eye(dim), x.T @ y)) ** 2).sum()
    for row in (0, 2):
        gap = errors[row] - errors[1]
        assert gap.mean() > quantile(2) * gap.std() / np.sqrt(gap.size)
