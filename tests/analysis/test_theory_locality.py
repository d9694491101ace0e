"""State evolution on a graph and the light cone limit, against tokens that are drawn one by one.

The simulations of this module know matrices and Gaussian densities; they share priors, codebooks and
graphs with the theory, no other code. Each statistical test has a family-wise false-alarm rate of 1e-3
(Bonferroni over all its cases); seeds were fixed before the first run.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, multivariate_normal, norm

from agents.codebook import principal
from agents.prior import gaussian, tree
from analysis.theory.evolution.complete import evolve
from analysis.theory.evolution.graph import evolve_on_graph, predicted_depth
from analysis.theory.evolution.hops import hops_of
from analysis.theory.evolution.relays import GaussianRelay, RelayChannel, WeightedRelay
from analysis.theory.limits.bayes import bayes_limit
from analysis.theory.limits.light_cone import light_cone_limit
from analysis.theory.setting import Setting
from topology.families import FAMILIES, Family
from topology.metrics import light_cones, reach
from topology.mixing import everyone, mixing_of, uniform

FALSE_ALARM = 1e-3
GRAPHS = [("ring", "uniform"), ("path", "uniform"), ("star", "metropolis"), ("star", "uniform")]
GRAPHS += [("barbell", "uniform"), ("small_world", "metropolis"), ("causal", "uniform")]
TOKENS, LABEL_NOISE, NOISE = 12, 0.6, 0.7


def quantile(comparisons, excess=1.0):
    """Limit of a z-score; `excess`: how much oftener than a normal variable the score passes it."""
    return norm.isf(FALSE_ALARM / excess / 2 / comparisons)


def graph_mixing(kind, weights="uniform", tokens=TOKENS):
    return mixing_of(kind, Family(tokens, rewire=0.5), weights)


def dense(mixing):
    weights = np.broadcast_to(mixing.weights.toarray(), (mixing.tokens, mixing.tokens))
    return weights / weights.sum(axis=1, keepdims=True)


def powers(mixing, turns):
    """A, ..., A^T [T, N, N]."""
    return np.stack([np.linalg.matrix_power(dense(mixing), hop) for hop in range(1, turns + 1)])


def setting_of(prior, rounds, channels=1, noise=NOISE, label_noise=LABEL_NOISE, **others):
    kind = "static" if "schedule" in others else "adaptive"
    return Setting(
        prior, principal(prior), kind, rounds, channels, 1.0, label_noise, message_noise_variance=noise**2,
        **others,
    )  # fmt: skip


# The constants of a position


@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("turns", [1, 2, 4])
def test_hops_are_the_rows_of_powers_of_the_weights(kind, weights, turns):
    mixing = graph_mixing(kind, weights)
    kinds, kind_of = hops_of(mixing, turns)
    rows = powers(mixing, turns)
    for position in range(TOKENS):
        hops, row = kinds[kind_of[position]], rows[:, position]
        np.testing.assert_allclose(1 / hops.effective, (row**2).sum(axis=1), rtol=1e-10)
        np.testing.assert_allclose(hops.overlap, row @ row.T, rtol=1e-10)
        np.testing.assert_allclose(hops.root() @ hops.root().T, row @ row.T, rtol=1e-10)
        np.testing.assert_allclose(hops.passes(), (row**2).sum(axis=1).cumsum(), rtol=1e-10)
        heard = row[:, row.any(axis=0)]
        np.testing.assert_allclose(
            np.sort(np.repeat(hops.weights, hops.counts, axis=1)), np.sort(heard), atol=1e-12
        )


def test_positions_that_a_symmetry_exchanges_are_of_one_kind():
    sizes = {kind: len(hops_of(graph_mixing(kind), 4)[0]) for kind in ("complete", "ring", "star", "path")}
    assert sizes == {
        "complete": 1,
        "ring": 1,
        "star": 2,
        "path": 5,
    }  # four hops do not feel an end further off
    assert len(hops_of(graph_mixing("causal"), 1)[0]) == TOKENS
    assert len(hops_of(everyone(10**6), 3)[0]) == 1


def test_a_phase_has_at_least_one_round():
    with pytest.raises(ValueError, match="at least one"):
        hops_of(everyone(3), 0)


# The complete graph


@pytest.mark.parametrize("form", ["weighted", "gaussian", "exact"])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"control_variate": False, "joint": False},
        {"channels": 2},
        {"clip": 2.0, "step": 0.25},
        {"schedule": ((0,), (1,), (2,), (0,))},
    ],
)
def test_one_hop_on_the_complete_graph_is_state_evolution_sample_by_sample(form, others):
    setting = setting_of(tree(2, 2, 0.8, 4, jitter=0.1), 4, **others)
    found = evolve_on_graph(setting, everyone(20), 1, samples=512, seed=1, form=form)
    plain = "gaussian" if form == "gaussian" else "exact"
    expected = evolve(replace(setting, effective=20.0), plain, samples=512, seed=1)
    np.testing.assert_allclose(found.risk, expected.risk, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.risk_se, expected.risk_se, rtol=0, atol=1e-9)
    assert (found.position_risk == found.risk[:, None]).all()


@pytest.mark.statistical
@pytest.mark.parametrize("control_variate", [True, False])
def test_one_hop_on_the_complete_graph_has_the_risk_of_state_evolution(control_variate):
    setting = setting_of(tree(3, 2, 0.8, 7), 5, control_variate=control_variate)
    mixing = uniform(FAMILIES["complete"](Family(24)))
    found = evolve_on_graph(setting, mixing, 1, samples=6000, seed=2, form="gaussian")
    expected = evolve(replace(setting, effective=24.0), "gaussian", samples=6000, seed=3)
    z = (found.risk - expected.risk)[1:] / np.hypot(found.risk_se, expected.risk_se)[1:]
    assert np.abs(z).max() < quantile(2 * 5), z.round(2)


# Tokens that pass on what they hold. One code: they cannot disagree.


def phases_of_one_code(mixing, turns, rounds, prompts, seed, products):
    """Squared error of every token, w = +1 or -1 along the first of two axes [L+1, N, B]."""
    generator, size = np.random.default_rng(seed), mixing.tokens
    sign = generator.choice([-1.0, 1.0], size=prompts)
    x, y = generator.standard_normal((2, size, prompts))
    message = x * (x * sign + LABEL_NOISE * y)  # the second axis is not asked, and w has no part along it
    token = 1.0 + 1.0 + LABEL_NOISE**2
    if not products:
        message = sign + np.sqrt(token) * y
    mixed = dense(mixing)
    count = 1 / (powers(mixing, turns) ** 2).sum(axis=2)  # N_eff(i, h) [T, N]
    channel = NOISE**2 * np.cumsum(1 / count, axis=0)
    variance = (1.0 + LABEL_NOISE**2) / count + channel
    heard, errors = [], [np.ones((size, prompts))]
    for round in range(rounds):
        hop = round % turns
        said = held if hop else message
        held = mixed @ (said + NOISE * generator.standard_normal((size, prompts)))
        means = [*means, held] if hop else [held]
        best = variance[: hop + 1].argmin(axis=0)  # the most precise mean of the phase so far
        mean = np.empty((size, prompts))
        for i in range(size):
            hops = [then[i] for _, then in heard] + [best[i]]
            number = count[hops, i]
            covariance = token / np.maximum(number[:, None], number) + np.diag(channel[hops, i])
            values = np.stack([past[i] for past, _ in heard] + [means[best[i]][i]])
            mean[i] = np.tanh(np.linalg.solve(covariance, np.ones(len(hops))) @ values)
        errors.append((mean - sign) ** 2)
        if hop == turns - 1:
            heard.append((np.take_along_axis(np.stack(means), best[None, :, None], 0)[0], best))
    return np.stack(errors)


@pytest.mark.statistical
@pytest.mark.parametrize("form", ["exact", "gaussian"])
@pytest.mark.parametrize(("kind", "weights"), GRAPHS)
def test_passing_on_is_predicted_at_every_position_and_round(kind, weights, form):
    # `exact`: messages are products of Gaussians; `gaussian`: they are Gaussian with the same variance, and
    # then the mean field is exact at any N_eff. Squared errors are skew: a mean of 2,000 of them
    # passes this limit up to three times as often as a normal variable.
    mixing, turns, rounds, prompts = graph_mixing(kind, weights), 3, 5, 2000
    setting = setting_of(tree(1, 2, 1.0, 2), rounds, control_variate=False)
    simulated = phases_of_one_code(mixing, turns, rounds, prompts, seed=4, products=form == "exact")
    found = evolve_on_graph(setting, mixing, turns, 2048 * TOKENS, seed=5, form=form)
    limit = quantile(2 * len(GRAPHS) * rounds * (TOKENS + 1), excess=3.0)
    error = np.hypot(simulated.std(axis=2) / np.sqrt(prompts), found.position_risk_se)
    z = (simulated.mean(axis=2) - found.position_risk)[1:] / error[1:]
    assert np.abs(z).max() < limit, z.round(1)
    overall = simulated.mean(axis=1)
    error = np.hypot(overall.std(axis=1) / np.sqrt(prompts), found.risk_se)
    z = (overall.mean(axis=1) - found.risk)[1:] / error[1:]
    assert np.abs(z).max() < limit, z.round(1)


def likelihood_means(prior, label_noise, asked, controls, values, share):
    """Posterior over the atoms of a discrete prior from means of T messages: probabilities [B, M].

    asked [T, B, d], controls [T, B, d], values [T, B]; share [T, T] times the covariance of one token's
    messages is that of the means.
    """
    logs = []
    for atom in prior.atoms:
        q = atom - controls
        inner, across = np.einsum("tbd,sbd->bts", asked, asked), np.einsum("tbd,sbd->bts", asked, q)
        token = inner * (np.einsum("tbd,sbd->bts", q, q) + label_noise**2) + across * across.swapaxes(1, 2)
        covariance = token * share + 1e-12 * np.eye(len(asked))
        off = (values - asked @ atom).T
        mismatch = (off * np.linalg.solve(covariance, off[..., None])[..., 0]).sum(axis=1)
        logs.append(-0.5 * (mismatch + np.linalg.slogdet(covariance)[1]))
    likelihood = np.exp(np.array(logs).T - np.max(logs, axis=0)[:, None])
    return likelihood / likelihood.sum(axis=1, keepdims=True)


@pytest.mark.statistical
@pytest.mark.parametrize(("lengths", "unasked"), [((2,), False), ((1, 3), False), ((1,), True)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("control_variate", [True, False])
@pytest.mark.parametrize(("kind", "position"), [("ring", 0), ("star", 3)])
def test_tokens_that_ask_the_same_are_predicted_on_a_tree(
    kind, position, control_variate, channels, lengths, unasked
):
    # All tokens take the questions and the control of one position, the largest variances under its belief.
    rounds, prompts, label_noise = 4, 1500, 0.3
    prior = tree(2, 2, 0.8, 3)
    directions = principal(prior).directions
    mixing = graph_mixing(kind)
    weights = powers(mixing, max(lengths))[:, position]
    count = 1 / (weights**2).sum(axis=1)
    generator = np.random.default_rng(6)
    truth = prior.atoms[generator.integers(len(prior.atoms), size=prompts)]
    x = generator.standard_normal((TOKENS, prompts, 3))
    y = (x * truth).sum(axis=2) + label_noise * generator.standard_normal((TOKENS, prompts))
    belief = np.full((prompts, len(prior.atoms)), 1 / len(prior.atoms))
    kept, errors, asked_so_far = [], [], np.zeros((prompts, len(directions)))
    while len(errors) < rounds:
        length = lengths[min(len(kept) // channels, len(lengths) - 1)]
        v = belief @ prior.atoms * control_variate
        project = prior.atoms @ directions.T
        variance = belief @ project**2 - (belief @ project) ** 2
        if unasked:
            variance = variance - 10.0 * asked_so_far
        codes = np.argsort(-variance.round(9), axis=1, kind="stable")[:, :channels]
        new = []
        for channel in range(channels):
            asked_so_far[np.arange(prompts), codes[:, channel]] += 1
            u = directions[codes[:, channel]]
            message = (x * u).sum(axis=2) * (y - (x * v).sum(axis=2)) + (u * v).sum(axis=1)
            new.append((u, v, message))
        for hop in range(min(length, rounds - len(errors))):
            best = count[: hop + 1].argmax()  # the most precise mean so far
            everything = [*kept, *((u, v, weights[best] @ message, best) for u, v, message in new)]
            last = np.array([item[3] for item in everything])
            share = 1 / np.maximum(count[last][:, None], count[last])
            asked, controls, values = (np.stack([item[k] for item in everything]) for k in range(3))
            belief = likelihood_means(prior, label_noise, asked, controls, values, share)
            errors.append(((belief @ prior.atoms - truth) ** 2).sum(axis=1))
        kept = everything
    errors = np.stack(errors)
    setting = setting_of(
        prior, rounds, channels, noise=0.0, label_noise=label_noise, control_variate=control_variate
    )
    samples = 3000 * len(hops_of(mixing, 1)[0])
    found = evolve_on_graph(setting, mixing, lengths, samples, seed=7, form="weighted", unasked=unasked)
    error = np.hypot(errors.std(axis=1) / np.sqrt(prompts), found.position_risk_se[1:, position])
    z = (errors.mean(axis=1) - found.position_risk[1:, position]) / error
    assert np.abs(z).max() < quantile(24 * rounds, excess=3.0), z.round(2)


def relay_of(form, setting, hops, truth, generator):
    if form == "gaussian":
        return GaussianRelay(setting, hops, truth)
    size = int(hops.counts.sum())
    split = replace_counts(hops)
    return WeightedRelay(
        setting, split, truth, generator.standard_normal((len(truth), truth.shape[1] + 1, size))
    )


def replace_counts(hops):
    """Every token in a group of its own, so that its own inputs are a root of its Gram matrix."""
    return hops._replace(
        weights=np.repeat(hops.weights, hops.counts, axis=1), counts=np.ones(hops.counts.sum(), dtype=int)
    )


@pytest.mark.statistical
@pytest.mark.parametrize("form", ["weighted", "gaussian"])
def test_means_of_two_phases_have_the_covariance_of_the_shared_tokens(form):
    # Phase one asks u with control v; the mean of T hops is kept. Phase two asks u' with v'.
    samples, turns = 60_000, 3
    w = np.array([0.5, -0.4, 0.3])
    u = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    v = np.array([[0.1, 0.2, 0.0], [0.4, -0.1, 0.3]])
    generator = np.random.default_rng(8)
    mixing = graph_mixing("path")
    row = powers(mixing, turns)[:, 1]
    kinds, kind_of = hops_of(mixing, turns)
    truth = np.broadcast_to(w, (samples, 3))
    setting = setting_of(gaussian(3), 6)
    relay = relay_of(form, setting, kinds[kind_of[1]], truth, generator)
    means = []
    for phase in range(2):
        asked, control = np.broadcast_to(u[phase], (samples, 1, 3)), np.broadcast_to(v[phase], (samples, 3))
        relay.ask(asked, control, generator.standard_normal((turns, samples, 1)))
        means.append([relay.after(hop)[:, 0] for hop in range(turns)])
    token = np.empty((2, 2))
    for t in range(2):
        for s in range(2):
            q, r = w - v[t], w - v[s]
            token[t, s] = (u[t] @ u[s]) * (q @ r + LABEL_NOISE**2) + (u[t] @ r) * (u[s] @ q)
    z = []
    for hop in range(turns):
        expected = [
            (means[0][hop] ** 2, (token[0, 0] + NOISE**2) * (row[hop] ** 2).sum()),
            (means[1][hop] ** 2, (token[1, 1] + NOISE**2) * (row[hop] ** 2).sum()),
            (means[1][hop] * means[0][-1], token[1, 0] * (row[hop] * row[-1]).sum()),
            (means[1][hop] * means[0][0], token[1, 0] * (row[hop] * row[0]).sum()),
            (means[1][hop] * means[1][-1], (token[1, 1] + NOISE**2) * (row[hop] * row[-1]).sum()),
        ]
        z += [(one.mean() - value) / (one.std() / np.sqrt(samples)) for one, value in expected]
    assert np.abs(z).max() < quantile(2 * len(z)), np.round(z, 2)


@pytest.mark.statistical
@pytest.mark.parametrize("form", ["weighted", "gaussian"])
def test_clipped_messages_that_are_passed_on_keep_their_mean_and_variance(form):
    samples, turns, clip, bits = 40_000, 3, 1.5, 2
    step = 2 * clip / (2**bits - 1)
    w, u, v = np.array([0.9, -0.4, 0.3]), np.array([0.6, 0.8, 0.0]), np.array([0.2, 0.1, 0.4])
    generator = np.random.default_rng(9)
    mixing = graph_mixing("star", "metropolis")
    row = powers(mixing, turns)[:, 4]
    setting = setting_of(gaussian(3), 3, clip=clip, step=step)
    kinds, kind_of = hops_of(mixing, turns)
    hops, truth = kinds[kind_of[4]], np.broadcast_to(w, (samples, 3))
    relay = relay_of(form, setting, hops, truth, generator)
    wire = RelayChannel(setting, hops, truth)
    asked, control = np.broadcast_to(u, (samples, 1, 3)), np.broadcast_to(v, (samples, 3))
    relay.ask(asked, control, generator.standard_normal((turns, samples, 1)))
    wire.ask(asked, control, generator.standard_normal((turns, samples, 1)))
    x = generator.standard_normal((20_000, TOKENS, 3))
    e, n = generator.standard_normal((2, 20_000, TOKENS))
    message = (x @ u) * (x @ (w - v) + LABEL_NOISE * e) + u @ v + NOISE * n
    message = np.round((np.clip(message, -clip, clip) + clip) / step) * step - clip
    passed = (NOISE**2 + step**2 / 12) * (row**2).sum(axis=1).cumsum()
    z = []
    for hop in range(turns):
        held = wire.hold(hop, relay.after(hop), generator.standard_normal((samples, 1)))[:, 0]
        direct = message @ row[hop]
        more = passed[hop - 1] if hop else 0.0  # of the hops after the first, averaged hop - 1, ..., 1 times
        for one, other, extra in (
            (held, direct, 0.0),
            ((held - held.mean()) ** 2, (direct - direct.mean()) ** 2, more),
        ):
            error = np.hypot(one.std() / len(one) ** 0.5, other.std() / len(other) ** 0.5)
            z.append((one.mean() - other.mean() - extra) / error)
    assert np.abs(z).max() < quantile(2 * len(z)), np.round(z, 2)


# The exact form


@pytest.mark.statistical
@pytest.mark.parametrize(("kind", "weights"), [("causal", "uniform"), ("star", "metropolis")])
def test_static_questions_without_control_are_predicted_exactly(kind, weights):
    mixing, rounds, prompts = graph_mixing(kind, weights), 4, 1500
    prior = tree(2, 2, 0.8, 3)
    codebook = principal(prior)
    schedule = tuple((code % len(codebook),) for code in range(rounds))
    generator = np.random.default_rng(10)
    truth = prior.atoms[generator.integers(len(prior.atoms), size=prompts)]
    x = generator.standard_normal((prompts, TOKENS, 3))
    y = (x @ truth[..., None])[..., 0] + LABEL_NOISE * generator.standard_normal((prompts, TOKENS))
    u = codebook.directions[[codes[0] for codes in schedule]]
    noise = NOISE * generator.standard_normal((rounds, prompts, TOKENS))
    fields = np.stack([((x @ u[t]) * y + noise[t]) @ dense(mixing).T for t in range(rounds)], axis=2)
    share = (dense(mixing) ** 2).sum(axis=1)
    errors = np.empty((rounds, TOKENS, prompts))
    for i in range(TOKENS):
        for t in range(rounds):
            asked = u[: t + 1]
            logs = []
            for atom in prior.atoms:
                token = (asked @ asked.T) * (atom @ atom + LABEL_NOISE**2)
                token = token + np.outer(asked @ atom, asked @ atom) + NOISE**2 * np.eye(t + 1)
                logs.append(multivariate_normal(asked @ atom, token * share[i]).logpdf(fields[:, i, : t + 1]))
            likelihood = np.exp(np.array(logs) - np.max(logs, axis=0))
            mean = (likelihood / likelihood.sum(axis=0)).T @ prior.atoms
            errors[t, i] = ((mean - truth) ** 2).sum(axis=1)
    setting = setting_of(prior, rounds, schedule=schedule, control_variate=False)
    found = evolve_on_graph(setting, mixing, 1, 2048 * TOKENS, seed=11, form="exact")
    error = np.hypot(errors.std(axis=2) / np.sqrt(prompts), found.position_risk_se[1:])
    z = (errors.mean(axis=2) - found.position_risk[1:]) / error
    assert np.abs(z).max() < quantile(2 * z.size, excess=2.0), z.round(1)


def test_the_exact_form_is_refused_where_tokens_can_disagree():
    prior = tree(2, 2, 0.8, 3)
    ring = graph_mixing("ring")
    schedule = ((0,), (1,))
    for setting in (
        setting_of(prior, 2),
        setting_of(prior, 2, control_variate=False),
        setting_of(prior, 2, schedule=schedule),
    ):
        with pytest.raises(ValueError, match="disagree"):
            evolve_on_graph(setting, ring, 1, 256, seed=0, form="exact")
    for setting in (
        setting_of(prior, 2, schedule=schedule, control_variate=False),
        setting_of(prior, 2, channels=3, control_variate=False),
    ):
        evolve_on_graph(setting, ring, 1, 256, seed=0, form="exact")
    for lengths in (0, (), (2, 0)):
        with pytest.raises(ValueError, match="at least one"):
            evolve_on_graph(setting, ring, lengths, 256, seed=0)


# Rounds within a phase


@pytest.mark.parametrize("form", ["weighted", "gaussian"])
def test_the_risk_of_a_round_does_not_depend_on_how_many_follow(form):
    prior = tree(3, 2, 0.8, 7)
    short, long = (
        evolve_on_graph(setting_of(prior, rounds), graph_mixing("path"), 3, 600, seed=12, form=form)
        for rounds in (5, 10)
    )
    np.testing.assert_allclose(short.position_risk, long.position_risk[:6], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(short.risk_se, long.risk_se[:6], rtol=1e-9, atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["ring", "random_regular"])
@pytest.mark.parametrize("form", ["weighted", "gaussian"])
def test_risk_falls_from_hop_to_hop_where_passing_on_is_free(kind, form):
    setting = setting_of(tree(3, 2, 0.8, 7), 8, noise=0.0, label_noise=0.1)
    found = evolve_on_graph(setting, graph_mixing(kind, tokens=32), 4, 4000, seed=13, form=form)
    # The two risks of a step are taken for independent; they are not, and the step is then better known.
    z = -np.diff(found.risk) / np.hypot(found.risk_se[:-1], found.risk_se[1:])
    assert z.min() > -quantile(4 * 8)
    assert (z[[1, 5]] > quantile(4 * 8)).all()  # the second hop of a phase shows


@pytest.mark.statistical
def test_a_hop_that_costs_more_than_it_brings_is_not_taken():
    # On a noisy channel two more hops bring something; a longer way only brings noise, and changes nothing.
    setting = setting_of(tree(3, 2, 0.8, 7), 4, noise=0.5)
    found = evolve_on_graph(setting, graph_mixing("ring", tokens=32), 4, 20_000, seed=14)
    hops = hops_of(graph_mixing("ring", tokens=32), 4)[0][0]
    variance = (1.0 + LABEL_NOISE**2) / hops.effective + 0.25 * hops.passes()
    best = int(variance.argmin())
    assert best == 2
    assert found.risk[best + 1] < found.risk[1]
    np.testing.assert_array_equal(found.risk[best + 1 :], found.risk[best + 1])


@pytest.mark.statistical
def test_the_standard_error_of_the_mean_over_positions_is_its_spread_over_seeds():
    setting = setting_of(tree(1, 2, 1.0, 2), 2, control_variate=False)
    runs = [evolve_on_graph(setting, graph_mixing("star"), 2, 512, seed=100 + k) for k in range(60)]
    spread = np.var([run.risk[1:] for run in runs], axis=0, ddof=1)
    stated = np.mean([run.risk_se[1:] ** 2 for run in runs], axis=0)
    low, high = chi2.isf([1 - FALSE_ALARM / 4, FALSE_ALARM / 4], 59) / 59
    assert ((low < spread / stated) & (spread / stated < high)).all()


def test_depth_is_scales_times_the_mixing_time():
    graph = FAMILIES["ring"](Family(32, degree=2))
    time = reach(graph, uniform(graph)).mixing_time
    angle = (1 + 2 * np.cos(2 * np.pi / 32)) / 3  # second eigenvalue of a circulant of three equal weights
    assert predicted_depth(3, time) == pytest.approx(-3 / np.log(angle))
    assert predicted_depth(3, reach(FAMILIES["complete"](Family(8)), everyone(8)).mixing_time) == 3


# The light cone


@pytest.mark.parametrize("kind", FAMILIES)
def test_light_cones_are_the_supports_of_powers(kind):
    graph = FAMILIES[kind](Family(TOKENS))
    sizes = light_cones(graph, 4)
    reached, hears = np.eye(TOKENS, dtype=int), dense(uniform(graph)) > 0
    for size in sizes:
        np.testing.assert_array_equal(size, reached.sum(axis=1))
        reached = (hears.astype(int) @ reached > 0).astype(int)


@pytest.mark.parametrize("kind", ["complete", "star", "ring", "path"])
def test_the_full_light_cone_is_the_bayes_limit(kind):
    prior = tree(2, 2, 0.8, 3)
    limit = light_cone_limit(prior, FAMILIES[kind](Family(TOKENS)), TOKENS, 0.5, samples=300, seed=15)
    bayes = bayes_limit(prior, TOKENS, 0.5, samples=300, seed=15)
    np.testing.assert_allclose(limit.risk[-1], bayes.risk[-1], rtol=1e-12)
    np.testing.assert_allclose(limit.risk_se[-1], bayes.risk_se[-1], rtol=1e-9)
    np.testing.assert_array_equal(limit.position_risk[-1], np.full(TOKENS, bayes.risk[-1]))
    np.testing.assert_array_equal(limit.position_risk[0], np.full(TOKENS, bayes.risk[1]))


def test_the_light_cone_limit_falls_and_the_first_causal_token_stays_alone():
    limit = light_cone_limit(gaussian(4), FAMILIES["causal"](Family(8, window=2)), 4, 0.5, 500, seed=16)
    assert (np.diff(limit.position_risk, axis=0) <= 0).all()
    assert (np.diff(limit.risk) < 0).all()
    assert (limit.sizes[:, 0] == 1).all()
    assert (limit.position_risk[:, 0] == limit.position_risk[0, 0]).all()
    assert (np.diff(limit.position_risk[-1]) < 0).all()
    with pytest.raises(ValueError, match="negative"):
        light_cone_limit(gaussian(4), FAMILIES["path"](Family(3)), -1, 0.5, 500, seed=16)


@pytest.mark.statistical
def test_for_one_gaussian_the_light_cone_limit_is_the_risk_of_ridge_regression():
    dim, sigma, draws, rounds = 4, 0.4, 3000, 3
    graph = FAMILIES["path"](Family(9))
    limit = light_cone_limit(gaussian(dim), graph, rounds, sigma, 4000, seed=17)
    generator = np.random.default_rng(18)
    x = generator.standard_normal((draws, 9, dim))
    z, overall = [], np.zeros((rounds + 1, draws))
    for round in range(rounds + 1):
        for i in range(9):
            near = x[:, max(0, i - round) : i + round + 1]
            ridge = np.eye(dim) * dim * sigma**2 + near.swapaxes(1, 2) @ near
            risk = np.trace(sigma**2 * np.linalg.inv(ridge), axis1=1, axis2=2)
            error = np.hypot(risk.std() / np.sqrt(draws), limit.position_risk_se[round, i])
            z.append((risk.mean() - limit.position_risk[round, i]) / error)
            overall[round] += risk / 9
    error = np.hypot(overall.std(axis=1) / np.sqrt(draws), limit.risk_se)
    z += list((overall.mean(axis=1) - limit.risk) / error)
    assert np.abs(z).max() < quantile(len(z)), np.round(z, 2)


@pytest.mark.statistical
def test_the_error_of_the_light_cone_limit_is_its_spread_over_seeds():
    graph, seeds = FAMILIES["path"](Family(6)), range(200, 300)
    runs = [light_cone_limit(gaussian(3), graph, 2, 0.5, samples=256, seed=seed) for seed in seeds]
    spread = np.var([run.risk for run in runs], axis=0, ddof=1)
    stated = np.mean([run.risk_se**2 for run in runs], axis=0)
    low, high = chi2.isf([1 - FALSE_ALARM / 6, FALSE_ALARM / 6], 99) / 99
    assert ((low < spread / stated) & (spread / stated < high)).all()


@pytest.mark.statistical
@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("kind", ["causal", "path", "star"])
def test_no_prediction_from_whole_tokens_is_below_the_light_cone_limit(kind, turns):
    prior, rounds = tree(2, 2, 0.8, 3), 6
    graph = FAMILIES[kind](Family(TOKENS))
    setting = setting_of(prior, rounds, noise=0.0)
    found = evolve_on_graph(setting, uniform(graph), turns, 512 * TOKENS, seed=19)
    limit = light_cone_limit(prior, graph, rounds, LABEL_NOISE, 2000, seed=20)
    error = np.hypot(found.position_risk_se, limit.position_risk_se)
    z = (found.position_risk - limit.position_risk)[1:] / error[1:]
    assert z.min() > -quantile(6 * rounds * TOKENS)
    assert (limit.position_risk[0] < 1).all()
