"""Dynamic programming: against enumeration, its order, its invariances, and rounds divided among scales.

Seeds were fixed before the first run; each test that draws states its false-alarm rate.
"""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.stats import norm

from agents.codebook import Codebook, principal
from agents.prior import amplitudes, gaussian, matched_gaussian, tree
from analysis.theory.closed_forms.allocation import allocation, decided_risk, resolution
from analysis.theory.dynamic_programming.answers import FiniteChannel
from analysis.theory.dynamic_programming.expectimax import Search
from analysis.theory.dynamic_programming.optimal import affordable_rounds, optimal
from analysis.theory.dynamic_programming.symmetry import exchanges
from analysis.theory.evolution.complete import evolve, extend
from analysis.theory.evolution.fields import GaussianLaw
from analysis.theory.evolution.posterior import condition, start
from analysis.theory.setting import Setting


def setting_of(prior, rounds, tau=1.0, tokens=32.0, control_variate=True, channels=1, **others):
    return Setting(
        prior=prior,
        codebook=principal(prior),
        policy="adaptive",
        rounds=rounds,
        channels=channels,
        effective=tokens,
        label_noise=0.1,
        message_noise_variance=tau**2,
        control_variate=control_variate,
        **others,
    )


def binary(levels, **others):
    return tree(levels, 2, 0.8, 2**levels - 1, **others)


def naive_optimum_of_two_rounds(setting, points=500):
    """Best adaptive and best fixed risk of two rounds, by two nested sums over a fine grid of fields.

    Nothing is shared with the software: densities of pairs of fields are written out.
    """
    atoms, weights, u = setting.prior.atoms, setting.prior.weights, setting.codebook.directions
    noise, tokens = setting.channel_variance, setting.effective
    grid = np.linspace(-3.0, 3.0, points)
    spacing = grid[1] - grid[0]
    adaptive, fixed = [], np.zeros((len(u), len(u)))
    for one in range(len(u)):
        u1 = u[one]
        variance = ((atoms**2).sum(1) + 0.01 + (atoms @ u1) ** 2 + noise) / tokens
        density = norm.pdf(grid[:, None], atoms @ u1, np.sqrt(variance)) * weights
        total = 0.0
        for heard, joint in zip(grid, density, strict=True):
            if joint.sum() < 1e-10:
                continue
            v = joint @ atoms / joint.sum() * setting.control_variate
            risks = []
            for other, u2 in enumerate(u):
                q1, q2 = atoms, atoms - v
                own = ((q2**2).sum(1) + 0.01 + (q2 @ u2) ** 2 + noise) / tokens
                cross = ((u1 @ u2) * ((q1 * q2).sum(1) + 0.01) + (q1 @ u2) * (q2 @ u1)) / tokens
                mean = atoms @ u2 + cross / variance * (heard - atoms @ u1)
                rest = np.sqrt(own - cross**2 / variance)
                pair = norm.pdf(grid[:, None], mean, rest) * joint
                second = pair @ (atoms**2).sum(1)
                first = pair @ atoms
                kept = pair.sum(1) > 1e-200
                risk = (second[kept] - (first[kept] ** 2).sum(1) / pair[kept].sum(1)).sum() * spacing
                risks.append(risk)
                fixed[one, other] += risk * spacing
            total += min(risks) * spacing
        adaptive.append(total)
    return min(adaptive), fixed.min()


@pytest.mark.parametrize("control_variate", [True, False])
@pytest.mark.parametrize(("levels", "tau", "tokens"), [(1, 1.0, 8.0), (2, 1.0, 16.0), (2, 0.4, 12.0)])
def test_two_rounds_are_nested_sums_over_a_fine_grid(levels, tau, tokens, control_variate):
    setting = setting_of(binary(levels), 2, tau, tokens, control_variate)
    found = optimal(setting, nodes=33)
    best, static = naive_optimum_of_two_rounds(setting)
    # Where the best code changes with what was heard, the value has a kink and the lattice converges slowly.
    assert found.risk[2] == pytest.approx(best, abs=2e-4)
    assert found.static[2] == pytest.approx(static, abs=2e-5)
    coarse = optimal(setting)
    assert abs(coarse.risk[2] - best) < coarse.error[2] + 2e-4
    assert abs(coarse.static[2] - static) < coarse.static_error[2] + 2e-4


GRID = [
    *product((1,), (4,), (0.0, 1.0), (8.0, 64.0), (True, False)),
    *product((2,), (4,), (0.0, 1.0), (32.0,), (True, False)),
    *product((3,), (2,), (0.0, 0.5, 2.0), (8.0, 128.0), (True, False)),
    (3, 3, 1.0, 32.0, True),
]


@pytest.mark.parametrize(("levels", "rounds", "tau", "tokens", "control_variate"), GRID)
def test_optimum_is_at_most_greedy_and_static_and_falls_with_rounds(
    levels, rounds, tau, tokens, control_variate
):
    found = optimal(setting_of(binary(levels), rounds, tau, tokens, control_variate))
    rounding = 1e-12
    assert (found.risk <= found.greedy).all()
    assert (found.risk <= found.static).all()
    assert found.risk[0] == found.greedy[0] == found.static[0] == pytest.approx(1.0)
    assert found.risk[1] == pytest.approx(found.static[1], abs=1e-12)
    for curve in (found.risk, found.static):
        assert (np.diff(curve) <= rounding).all()
    for error in (found.error, found.greedy_error, found.static_error):
        assert (error >= found.cut).all()
    assert (found.cut >= -rounding).all()
    assert (found.ratio >= 1).all()


def test_more_tokens_and_less_noise_never_hurt():
    prior = binary(2)
    for settings in (
        [setting_of(prior, 3, 1.0, tokens) for tokens in (8.0, 16.0, 32.0, 64.0)],
        [setting_of(prior, 3, tau) for tau in (3.0, 2.0, 1.0, 0.5)],
        [replace(setting_of(prior, 3), label_noise=sigma) for sigma in (2.0, 1.0, 0.5, 0.1)],
    ):
        found = [optimal(setting) for setting in settings]
        for worse, better in pairwise(found):
            assert (better.risk <= worse.risk + better.error + worse.error).all()


def gaussian_risk(setting, codes):
    """Posterior variance after a schedule of single codes: the covariance of w, updated field by field."""
    prior, directions = setting.prior, setting.codebook.directions
    whole = prior.covariance()
    fields, signals, blocks = [], [], []
    left = whole
    for round, code in enumerate(codes):
        u = directions[code]
        now = left if setting.control_variate else whole
        row = []
        for earlier in range(round + 1):
            other = directions[codes[earlier]]
            token = (u @ other) * (np.trace(now) + 0.01) + u @ now @ other
            token += setting.channel_variance * (earlier == round)
            row.append(token / setting.effective + u @ whole @ other)
        signals.append(whole @ u)
        fields.append(row)
        size = round + 1
        blocks = np.zeros((size, size))
        for t, values in enumerate(fields):
            blocks[t, : t + 1] = blocks[: t + 1, t] = values
        gain = np.array(signals)
        left = whole - gain.T @ np.linalg.solve(blocks, gain)
    return np.trace(left) / prior.power()


@pytest.mark.parametrize("control_variate", [True, False])
@pytest.mark.parametrize("prior", [matched_gaussian(binary(2)), gaussian(3)], ids=["matched", "isotropic"])
def test_on_a_gaussian_prior_the_optimum_is_the_best_of_all_schedules(prior, control_variate):
    setting = setting_of(prior, 4, 1.0, 12.0, control_variate)
    found = optimal(setting)
    for rounds in range(1, 5):
        every = [gaussian_risk(setting, codes) for codes in product(range(3), repeat=rounds)]
        assert found.risk[rounds] == pytest.approx(min(every), abs=1e-10)
    best = [codes for (codes,) in found.schedule]
    assert gaussian_risk(setting, best) == pytest.approx(found.risk[4], abs=1e-10)


@pytest.mark.parametrize("channels", [1, 2])
def test_on_the_null_dynamic_programming_gains_nothing_over_static(channels):
    prior = matched_gaussian(binary(3))
    for tau, control_variate in product((0.0, 1.0), (True, False)):
        found = optimal(setting_of(prior, 4 // channels, tau, 32.0, control_variate, channels))
        np.testing.assert_allclose(found.risk, found.static, rtol=0, atol=1e-12)
        assert not found.error.any()


def test_estimated_error_covers_the_change_to_many_more_points():
    for levels, tau, control_variate in product((1, 2), (0.5, 1.0), (True, False)):
        setting = setting_of(binary(levels), 2, tau, 16.0, control_variate)
        fine = optimal(setting, nodes=33, cut=1e-9)
        off = []
        for nodes in (5, 17):
            found = optimal(setting, nodes=nodes, cut=1e-9)
            off.append([np.abs(found.risk - fine.risk).max(), np.abs(found.static - fine.static).max()])
            assert (np.abs(found.risk - fine.risk) <= found.error + fine.error).all()
            assert (np.abs(found.greedy - fine.greedy) <= found.greedy_error + fine.greedy_error).all()
            assert (np.abs(found.static - fine.static) <= found.static_error + fine.static_error).all()
        assert max(off[1]) < max(1e-4, 0.5 * max(off[0]))


def test_what_is_cut_costs_no_more_than_its_bound():
    setting = setting_of(binary(2), 3)
    whole = optimal(setting, cut=0.0)
    for cut in (1e-5, 1e-3):
        found = optimal(setting, cut=cut)
        assert (found.risk >= whole.risk - 1e-12).all()
        assert (found.risk - found.cut <= whole.risk + 1e-12).all()
    assert not whole.cut.any()


def test_risk_is_invariant_under_rotation_and_the_order_of_leaves():
    prior = binary(2)
    setting = setting_of(prior, 3)
    one = optimal(setting)
    turn = np.linalg.qr(np.random.default_rng(51).standard_normal((3, 3)))[0]
    rotated = replace(prior, atoms=prior.atoms @ turn, factor=turn.T @ prior.factor, axes=prior.axes @ turn)
    order = np.array([2, 0, 3, 1])
    mixed = replace(prior, atoms=prior.atoms[order], branches=prior.branches[order])
    for other in (rotated, mixed):
        found = optimal(setting_of(other, 3))
        for name in ("risk", "greedy", "static"):
            np.testing.assert_allclose(getattr(found, name), getattr(one, name), atol=1e-9)
    # Siblings changed places: every field of their node has the other sign, and the lattice other points.
    swapped = replace(prior, axes=prior.axes * np.array([[-1.0], [1.0], [-1.0]]))
    found = optimal(setting_of(swapped, 3))
    assert (np.abs(found.risk - one.risk) <= found.error + one.error).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_symmetries_save_work_and_change_nothing(channels):
    setting = setting_of(binary(2), 4 - channels, channels=channels)
    search = Search(setting, 1e-9, 4, 1.0)
    assert len(search.symmetries) == 3
    used = search.result().curves
    search.symmetries = []
    plain = search.result().curves
    # Equal but for where the lattice lies in the image of a field under a change of sign.
    np.testing.assert_allclose(used, plain, atol=1e-3)


def test_symmetries_map_the_prior_to_itself():
    for prior in (binary(3), tree(2, 3, 0.7, 8), binary(2, jitter=0.2)):
        book = principal(prior)
        found = exchanges(prior, book)
        assert found
        for symmetry in found:
            image = book.directions[symmetry.codes] * symmetry.signs[:, None]
            np.testing.assert_allclose(image @ image.T, book.gram(), atol=1e-12)
            along, mapped = prior.atoms @ book.directions.T, prior.atoms @ image.T
            rows = {tuple(row) for row in along.round(9) + 0.0}
            assert {tuple(row) for row in mapped.round(9) + 0.0} == rows
    assert not exchanges(tree(2, 2, 0.8, 4, directions="random"), principal(tree(2, 2, 0.8, 4, "random")))
    assert len(exchanges(gaussian(3), principal(gaussian(3)))) == 3
    null = matched_gaussian(binary(2))
    assert [found.codes.tolist() for found in exchanges(null, principal(null))] == [[0, 2, 1]]


@pytest.mark.parametrize("control_variate", [True, False])
@pytest.mark.parametrize(("jitter", "channels"), [(0.0, 1), (0.3, 1), (0.3, 2)])
def test_histories_hold_the_reference_posterior(jitter, channels, control_variate):
    prior = binary(2, jitter=jitter)
    setting = setting_of(prior, 3, 1.0, 12.0, control_variate, channels)
    channel = FiniteChannel(setting)
    histories, record = channel.start(), start(prior, 1)
    for codes in ((0, 1), (2, 0), (0, 2)):
        opened, belief = channel.open(histories), condition(prior, record)
        values = []
        for code in codes[:channels]:
            branches = channel.ask(histories, opened, code, half=60)
            answer = int(branches.joint[0].sum(axis=1).argmax()) + 3
            values.append(branches.heard.innovation[0, 0])  # mean of the field under the first atom
            histories = branches.settle(histories, np.array([0]), np.array([answer]))
            last = histories.past[-1]
            values[-1] += last.innovation[0, 0] * last.row[0, 0, -1]
        asked = setting.codebook.directions[list(codes[:channels])][None]
        control = belief.mean() if control_variate else np.zeros((1, prior.dim))
        record = extend(setting, record, belief, asked, control, np.array(values)[None])
        belief = condition(prior, record)
        np.testing.assert_allclose(histories.means, np.broadcast_to(belief.means, (1, 4, 3)), atol=1e-9)
        np.testing.assert_allclose(histories.weights, belief.weights, atol=1e-6)
        forms = belief.forms(prior)
        if forms is not None:
            np.testing.assert_allclose(histories.forms, np.broadcast_to(forms, (1, 4, 3, 3)), atol=1e-9)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("levels", "tau", "control_variate", "channels"),
    [(2, 1.0, True, 1), (2, 1.0, False, 1), (3, 0.0, True, 1), (2, 1.0, True, 2)],
)
def test_greedy_is_the_adaptive_policy_of_state_evolution(levels, tau, control_variate, channels):
    # Distance beyond the stated error, in standard errors of 40,000 draws; false-alarm rate 1e-3.
    setting = setting_of(binary(levels), 3 if channels == 1 else 2, tau, 32.0, control_variate, channels)
    found = optimal(setting, nodes=7)
    drawn = evolve(setting, "gaussian", 40_000, seed=52)
    beyond = np.maximum(np.abs(found.greedy - drawn.risk) - found.greedy_error, 0.0)[1:]
    assert (beyond / drawn.risk_se[1:]).max() < norm.isf(1e-3 / 6)


@pytest.mark.statistical
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_best_schedule_has_its_risk_in_state_evolution(tau):
    # The schedule was not chosen on these draws; false-alarm rate 1e-3.
    setting = setting_of(binary(3), 3, tau)
    found = optimal(setting, nodes=7)
    fixed = replace(setting, policy="static", schedule=found.schedule)
    drawn = evolve(fixed, "gaussian", 40_000, seed=53)
    beyond = max(abs(found.static[3] - drawn.risk[3]) - found.static_error[3], 0.0)
    assert beyond / drawn.risk_se[3] < norm.isf(1e-3 / 2)


def test_without_noise_a_finer_question_tells_more_than_the_widest():
    # Noiseless answers of a node of level 2: left or right, or not here. Half the prompts are resolved,
    # and the others know their branch: a_2^2 / 2 is left, where the root leaves a_2^2.
    prior = binary(2)
    found = optimal(replace(setting_of(prior, 1, 0.0, 1e6), label_noise=0.0))
    share = amplitudes(2, 0.8)[1] ** 2
    assert found.first[0] in ((1,), (2,))
    assert found.risk[1] == pytest.approx(share / 2, abs=1e-3)
    assert found.greedy[1] == pytest.approx(share, abs=1e-3)


def test_two_codes_a_round_beat_one_and_one_round_is_a_schedule():
    prior = binary(2)
    one, two = optimal(setting_of(prior, 2)), optimal(setting_of(prior, 2, channels=2))
    assert (two.risk <= one.risk + one.error + two.error).all()
    assert two.risk[1] == pytest.approx(two.static[1], abs=1e-12)
    assert two.schedule[0] == (0, 1)


def test_settings_out_of_reach_are_refused():
    prior = binary(3)
    setting = setting_of(prior, 9)
    assert 4 <= affordable_rounds(setting) < 9
    assert 4 <= affordable_rounds(setting_of(matched_gaussian(prior), 9)) < 9
    with pytest.raises(ValueError, match="rounds"):
        optimal(setting)
    with pytest.raises(ValueError, match="nodes"):
        optimal(setting_of(prior, 1), nodes=4)
    with pytest.raises(ValueError, match="cut"):
        optimal(setting_of(prior, 1), cut=-1.0)
    with pytest.raises(ValueError, match="ways"):
        allocation(amplitudes(8, 0.8), 60, 32.0, 0.1, 1.0)
    with pytest.raises(ValueError, match="rounds"):
        allocation(amplitudes(2, 0.8), -1, 32.0, 0.1, 1.0)


@pytest.mark.slow
def test_four_levels_and_four_rounds_are_within_reach():
    found = optimal(setting_of(binary(4), 4))
    assert (found.risk <= found.greedy).all()
    assert (found.risk <= found.static).all()


@pytest.mark.slow
def test_more_points_at_three_levels_and_four_rounds_stay_within_the_error():
    setting = setting_of(binary(3), 4)
    coarse, fine = optimal(setting), optimal(setting, nodes=9)
    assert (np.abs(coarse.risk - fine.risk) <= coarse.error + fine.error).all()


def test_codes_may_be_any_unit_directions():
    prior = binary(2)
    book = principal(prior)
    sums = book.directions[1:].sum(axis=0) / np.sqrt(2)
    larger = Codebook(np.vstack([book.directions, sums]), np.append(book.scales, 2))
    setting = setting_of(prior, 2)
    more = optimal(replace(setting, codebook=larger))
    less = optimal(setting)
    assert (more.risk <= less.risk + more.error + less.error).all()


@pytest.mark.parametrize("control_variate", [True, False])
def test_allocation_is_the_best_of_all_divisions(control_variate):
    heights = amplitudes(3, 0.8)
    for rounds, noise in product((0, 1, 5, 9), (0.5, 4.0, 25.0)):
        system = (heights, 32.0, 0.1, noise, control_variate)
        found = allocation(heights, rounds, *system[1:])
        assert found.turns.sum() == rounds
        for turns in product(range(rounds + 1), repeat=3):
            if sum(turns) == rounds:
                risk = decided_risk(heights, resolution(np.array([turns]), *system))[0]
                assert found.risk <= risk + 1e-12
        assert found.risk == pytest.approx(
            decided_risk(heights, resolution(found.turns[None], *system))[0], abs=1e-12
        )


def test_allocation_is_a_recursion_over_levels():
    # With control the gain of level h is P_{h-1}^2 [a_h^2 (2 p - 1)^2 + p^2 (gain below)].
    heights, rounds, tokens, noise = amplitudes(4, 0.9), 14, 24.0, 6.0
    power = heights**2
    gain = np.zeros(rounds + 1)
    for level in reversed(range(4)):
        often = np.maximum(np.arange(rounds + 1), 1)
        variance = (power[level:].sum() + 0.01 + power[level] + noise / often) / tokens
        right = norm.cdf(heights[level] / np.sqrt(variance))
        right[0] = 0.5
        gain = np.array(
            [
                max(
                    power[level] * (2 * right[t] - 1) ** 2 + right[t] ** 2 * gain[total - t]
                    for t in range(total + 1)
                )
                for total in range(rounds + 1)
            ]
        )
    found = allocation(heights, rounds, tokens, 0.1, noise)
    assert found.risk == pytest.approx(1 - gain[rounds], abs=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("control_variate", [True, False])
def test_division_of_rounds_has_its_risk_when_fields_are_drawn(control_variate):
    # 40,000 prompts on the Gaussian law with the covariance of all rounds; false-alarm rate 1e-3.
    prior, samples, noise = binary(3), 40_000, 6.0
    heights, generator = amplitudes(3, 0.8), np.random.default_rng(54)
    found = allocation(heights, 8, 32.0, 0.1, noise, control_variate)
    assert (found.turns > 0).all()
    truth = prior.atoms[generator.integers(8, size=samples)]
    law = GaussianLaw(32.0, 0.1, noise, truth)
    node, decided = np.zeros(samples, dtype=int), np.zeros((samples, 3))
    parts = np.zeros((samples, 3, 7))
    for level, turns in enumerate(found.turns):
        u = prior.axes[2**level - 1 + node]
        control = parts.sum(axis=1) * control_variate
        heard = [
            law.fields(u[:, None], control, generator.standard_normal((samples, 1)))[:, 0]
            for _ in range(turns)
        ]
        decided[:, level] = np.where(np.mean(heard, axis=0) > 0, 1.0, -1.0)
        parts[:, level] = heights[level] * decided[:, level, None] * u
        # The first child of a node lies along its axis or against it.
        first = prior.atoms[node * 2 ** (3 - level)]
        along = np.sign((first * u).sum(axis=1))
        node = 2 * node + (decided[:, level] != along)
    before = np.append(1.0, found.resolved[:-1])
    estimate = (parts * (2 * found.resolved - before)[:, None]).sum(axis=1)
    errors = ((truth - estimate) ** 2).sum(axis=1)
    z = (errors.mean() - found.risk) / (errors.std() / np.sqrt(samples))
    assert abs(z) < norm.isf(1e-3 / 2)
