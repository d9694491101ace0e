"""What theory settles for the agents: weights of repeated answers, disagreement, order of questions."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from scipy.stats import norm

from agents.codebook import principal
from agents.prior import gaussian, tree
from analysis.theory import plan as planning
from analysis.theory.evolution.complete import evolve, foremost
from analysis.theory.evolution.population import evolve_population
from analysis.theory.plan import hear_all, plan
from analysis.theory.setting import Setting
from topology.families import FAMILIES, Family
from topology.mixing import everyone, metropolis, past, uniform

PRIOR = tree(3, 2, 0.8, 7)


def setting_of(rounds: int = 5, noise: float = 0.0, **more) -> Setting:
    return Setting(PRIOR, principal(PRIOR), "adaptive", rounds, 1, 16.0, 0.1, noise**2, exact=True, **more)


def test_tokens_that_all_hear_the_same_take_answers_jointly() -> None:
    settled = plan(setting_of(), everyone(16), 0, ("widest", "level"))
    assert settled.grouped
    assert settled.order == "widest"
    assert settled.disagreement is None
    complete = FAMILIES["complete"](Family(9))
    assert hear_all(uniform(complete)) and hear_all(metropolis(complete))
    assert not hear_all(past(9))


def test_a_repeated_answer_is_worth_nothing_without_noise_and_something_with_it() -> None:
    """On the causal graph, where the same tokens give the same answer again."""
    quiet, noisy = (plan(setting_of(6, noise), past(32), 0, ("level",)) for noise in (0.0, 1.0))
    assert quiet.repeats is not None and max(quiet.repeats) <= 0.25
    assert noisy.repeats is not None and max(noisy.repeats[3:]) >= 0.5
    assert noisy.repeats[:3] == (0.0, 0.0, 0.0), "nothing is repeated while levels are asked in turn"


def test_levels_are_asked_in_turn_where_tokens_hear_different_numbers() -> None:
    assert plan(setting_of(4), past(64), 0, ("widest", "level")).order == "level"


def test_tokens_that_share_all_they_hear_do_not_disagree() -> None:
    """Cliques without a link between them; a link makes its two ends disagree with the others."""
    cliques = nx.disjoint_union(nx.complete_graph(6), nx.complete_graph(6)).to_directed()
    apart = evolve_population(setting_of(4), uniform(cliques), 100, 0).disagreement
    np.testing.assert_allclose(apart, 0.0, atol=1e-12)
    cliques.add_edges_from([(0, 6), (6, 0)])
    linked = evolve_population(setting_of(4), uniform(cliques), 100, 0).disagreement
    np.testing.assert_array_equal(linked[0], 0.0)  # all begin with the mean of the prior
    assert linked[1:].max() > 0.01


def test_risk_never_rises_as_theory_plans_it() -> None:
    for family in ("causal", "ring", "star"):
        mixing = uniform(FAMILIES[family](Family(16, degree=4)))
        for noise in (0.0, 0.3, 1.0):
            risk = plan(setting_of(8, noise), mixing, 0, ("level",)).risk
            assert risk is not None
            assert (np.diff(risk[3:]) <= 1e-12).all(), "a repeated answer is weighed not to hurt"


def test_a_graph_that_is_too_large_counts_first_answers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGEST_POPULATION", 8)
    settled = plan(setting_of(3), past(16), 0, ("widest", "level"))
    assert settled.repeats == (0.0, 0.0, 0.0)
    assert (settled.order, settled.disagreement) == ("level", None)


@pytest.mark.statistical
def test_a_population_on_the_complete_graph_is_one_belief() -> None:
    """While no code is repeated, laws with and without grouping are the same."""
    setting = setting_of(3, 0.7, order="level", repeats=(0.0,) * 3, disagreement=np.zeros((3, 16)))
    found = evolve_population(setting, everyone(16), 4000, seed=1).prompt_risk
    alone = evolve(setting, "exact", 20_000, seed=2)
    error = np.hypot(found.std(axis=1) / np.sqrt(4000), alone.risk_se)[1:]
    z = (found.mean(axis=1) - alone.risk)[1:] / error
    assert np.abs(z).max() < norm.isf(0.5e-3 / 3), z


def test_the_likeliest_node_of_the_level_in_turn_is_foremost() -> None:
    weights = np.array([[0.05, 0.05, 0.1, 0.35, 0.2, 0.15, 0.05, 0.05]])
    asked = [np.flatnonzero(foremost(setting_of(), weights, round)[0]).tolist() for round in (1, 2, 3, 4)]
    assert asked == [[0], [1], [4], []], "the root, the left half with .55, its right half with .45"
    ternary = tree(2, 3, 0.7, 8)
    two = Setting(ternary, principal(ternary), "adaptive", 4, 1, 16.0, 0.1, exact=True)
    mass = np.full((1, 9), 0.1) + np.eye(9)[[7]] * 0.1
    asked = [np.flatnonzero(foremost(two, mass, round)[0]).tolist() for round in (1, 2, 3, 4, 5)]
    assert asked == [[0, 1], [0, 1], [6, 7], [6, 7], []], "two codes a node, a round for each"
    both = replace(two, channels=2)
    assert [foremost(both, mass, round).any() for round in (1, 2, 3)] == [True, True, False]


def test_beliefs_of_the_exact_law_need_a_discrete_prior() -> None:
    with pytest.raises(ValueError, match="without a Gaussian part"):
        Setting(gaussian(3), principal(gaussian(3)), "adaptive", 2, 1, 8.0, 0.1, exact=True)
    with pytest.raises(ValueError, match="exact law"):
        evolve_population(replace(setting_of(), exact=False), past(4), 10, 0)
