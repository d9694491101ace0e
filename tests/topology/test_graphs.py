"""Graph families, mixing weights and reach: each against its definition, by other means."""

from fractions import Fraction
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from topology.families import FAMILIES, Family, barbell, grid, ring, tree
from topology.io import read_named, relabelled
from topology.metrics import closed_reach, light_cone, reach
from topology.mixing import Mixing, everyone, metropolis, uniform, weigh

SPARSE = ["ring", "path", "grid", "small_world", "random_regular", "erdos_renyi", "star", "tree", "barbell"]
SMALL = Experiment().with_values(
    {"task.tokens": 12, "task.prompts": 30, "run.rounds": 3, "channel.noise": 0.5, "channel.bits": 12}
)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tokens", [8, 15, 40])
def test_a_family_is_connected_simple_and_the_same_every_time(kind: str, tokens: int) -> None:
    family = Family(tokens, degree=4, seed=7)
    graph = FAMILIES[kind](family)
    assert sorted(graph.nodes) == list(range(tokens))
    assert not list(nx.selfloop_edges(graph))
    assert nx.is_weakly_connected(graph)
    assert kind == "causal" or all(graph.has_edge(b, a) for a, b in graph.edges)
    assert set(graph.edges) == set(FAMILIES[kind](family).edges)


@pytest.mark.parametrize("kind", ["small_world", "random_regular", "erdos_renyi"])
def test_another_seed_is_another_graph(kind: str) -> None:
    one, other = (FAMILIES[kind](Family(40, seed=seed)) for seed in (0, 1))
    assert set(one.edges) != set(other.edges)


def test_shapes_are_those_of_their_names() -> None:
    assert set(dict(ring(Family(20, degree=6)).in_degree).values()) == {6}
    assert nx.diameter(grid(Family(24))) == 3 + 5
    assert grid(Family(7)).number_of_edges() == 12, "a prime number of tokens is a line"
    assert tree(Family(13, degree=4)).number_of_edges() == 24
    assert barbell(Family(10)).number_of_edges() == 2 * 20 + 2
    assert {degree for _, degree in FAMILIES["random_regular"](Family(30, degree=5)).in_degree} == {5}


@pytest.mark.parametrize(
    ("kind", "family"),
    [("ring", Family(8, degree=3)), ("ring", Family(4, degree=4)), ("random_regular", Family(5, degree=3))],
)
def test_a_family_that_does_not_exist_is_refused(kind: str, family: Family) -> None:
    with pytest.raises(ValueError, match="degree"):
        FAMILIES[kind](family)


@pytest.mark.parametrize("kind", SPARSE)
def test_metropolis_rows_and_columns_sum_to_the_same_integer(kind: str) -> None:
    dense = metropolis(FAMILIES[kind](Family(20))).weights.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    assert set(dense.sum(axis=1)) == {2**20}
    assert (np.diag(dense) > 0).all()


@pytest.mark.parametrize("kind", [*SPARSE, "causal", "complete"])
@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_effective_number_is_that_of_exact_fractions(kind: str, weights: str, rounds: int) -> None:
    mixing = weigh(FAMILIES[kind](Family(8)), weights)
    rows = [[int(value) for value in row] for row in mixing.weights.toarray()]
    shares = [[Fraction(value, sum(row)) for value in row] for row in rows]
    power = shares
    for _ in range(rounds - 1):
        power = [
            [sum((power[i][k] * shares[k][j] for k in range(8)), Fraction(0)) for j in range(8)]
            for i in range(8)
        ]
    expected = [float(1 / sum((value**2 for value in row), Fraction(0))) for row in power]
    np.testing.assert_allclose(mixing.effective(rounds), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", [*SPARSE, "complete"])
def test_averaging_reaches_everyone_in_the_end(kind: str) -> None:
    mixing = metropolis(FAMILIES[kind](Family(10)))
    np.testing.assert_allclose(mixing.effective(2000), 10.0, rtol=1e-6)


def test_reach_agrees_with_closed_forms() -> None:
    tokens = 12
    cycle = ring(Family(tokens, degree=2))
    found = reach(cycle, uniform(cycle))
    assert found.diameter == 6
    # Eigenvalues (1 + 2 cos(2 pi k / N)) / 3 of the lazy walk on a cycle.
    second = (1 + 2 * np.cos(2 * np.pi / tokens)) / 3
    assert found.gap == pytest.approx(1 - second)
    assert found.mixing_time == pytest.approx(-1 / np.log(second))
    whole = FAMILIES["complete"](Family(5))
    assert reach(whole, everyone(5)) == (1, 1.0, 0.0)
    causal = FAMILIES["causal"](Family(5))
    assert reach(causal, uniform(causal)).diameter is None


@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
@pytest.mark.parametrize(
    ("kind", "variants"),
    [
        ("complete", [{}]),
        ("star", [{}]),
        ("causal", [{"window": window} for window in (None, 1, 2, 5)]),
        ("ring", [{"degree": degree} for degree in (2, 4, 6, 10, 48)]),
    ],
)
def test_a_closed_form_is_what_is_computed(kind: str, variants: list[dict[str, int]], weights: str) -> None:
    compared = 0
    for tokens in (*range(1, 15), 31, 32, 33, 49, 50):
        for family in (Family(tokens, **variant) for variant in variants):
            if kind == "ring" and family.degree >= tokens:
                continue
            closed = closed_reach(kind, family, weights)
            assert closed is not None
            graph = FAMILIES[kind](family)
            mixing = weigh(graph, weights)
            found = reach(graph, mixing)
            assert closed.diameter == found.diameter, family
            assert closed.gap == pytest.approx(found.gap, abs=1e-10), family
            assert closed.mixing_time == pytest.approx(found.mixing_time, rel=1e-7, abs=0.02), family
            assert mixing.degree == pytest.approx(graph.number_of_edges() / tokens)
            compared += 1
    assert compared >= 19


def test_a_closed_form_keeps_its_precision_where_the_gap_is_tiny() -> None:
    tokens = 2**20
    found = closed_reach("ring", Family(tokens, degree=4), "uniform")
    assert found is not None and found.diameter == tokens // 4
    # (2/5) (2 - cos a - cos 2a) = a^2 + O(a^4) with a = 2 pi / N
    assert found.gap == pytest.approx((2 * np.pi / tokens) ** 2, rel=1e-9)
    assert found.mixing_time == pytest.approx(1 / found.gap, rel=1e-4)


def test_a_family_that_takes_a_name_has_no_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert closed_reach("grid", Family(16), "uniform") is None
    monkeypatch.setitem(FAMILIES, "ring", FAMILIES["path"])
    assert closed_reach("ring", Family(16), "uniform") is None


@pytest.mark.parametrize("kind", SPARSE)
def test_a_large_graph_has_the_spectrum_of_dense_algebra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = FAMILIES[kind](Family(40))
    mixing = metropolis(graph)
    dense = reach(graph, mixing)
    monkeypatch.setattr("topology.metrics._DENSE", 10)
    assert reach(graph, mixing).gap == pytest.approx(dense.gap, abs=1e-8)


@pytest.mark.parametrize("kind", [*SPARSE, "causal"])
def test_light_cone_is_the_support_of_a_power_of_the_weights(kind: str) -> None:
    graph = FAMILIES[kind](Family(15))
    support = uniform(graph).weights.toarray() > 0
    reached = np.eye(15, dtype=bool)
    for rounds in range(4):
        np.testing.assert_array_equal(light_cone(graph, rounds), reached.sum(axis=1))
        reached = support @ reached


@pytest.mark.parametrize("mixing", ["uniform", "metropolis"])
def test_a_token_beyond_r_hops_changes_no_bit_by_round_r(mixing: str) -> None:
    """A line of 12 tokens and the same with a thirteenth: it is felt one hop a round, and no sooner.

    Constants that theory settles for a whole graph are left out: they are those of another graph.
    """
    errors = []
    for tokens in (12, 13):
        experiment = SMALL.with_values(
            {
                "graph.kind": "path",
                "graph.mixing": mixing,
                "task.tokens": tokens,
                "run.rounds": 5,
                "policy.belief": "joint",
            }
        )
        rows: list[np.ndarray] = []
        simulate(experiment, observer=lambda _, outcome, rows=rows: rows.append(outcome.report.error[:12]))
        errors.append(np.stack(rows))
    changed = (errors[0] != errors[1]).any(axis=2)
    for round in range(6):
        # The last token's weights change with its neighbour; what it hears changes from round 1 on.
        assert not changed[round, : 12 - round].any()
    assert changed[5, 11]


@pytest.mark.parametrize("kind", [*SPARSE, "causal"])
@pytest.mark.parametrize("mixing", ["uniform", "metropolis"])
def test_bits_do_not_depend_on_blocks_on_any_graph(kind: str, mixing: str) -> None:
    experiment = SMALL.with_values({"graph.kind": kind, "graph.mixing": mixing, "graph.window": 3})
    runs = [simulate(experiment, engine=LocalEngine(block)).prompt_risk for block in (1, 5, 12)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


@pytest.mark.parametrize("suffix", [".graphml", ".edges"])
def test_a_graph_from_a_file_is_the_graph_that_was_written(suffix: str, tmp_path: Path) -> None:
    graph = nx.karate_club_graph()
    target = tmp_path / f"graph{suffix}"
    plain = nx.Graph(graph.edges)
    nx.write_graphml(plain, target) if suffix == ".graphml" else nx.write_edgelist(plain, target, data=False)
    read = relabelled(read_named(target))
    assert set(read.edges) == set(plain.to_directed().edges)
    experiment = SMALL.with_values({"graph.kind": "file", "graph.path": str(target), "task.tokens": 34})
    assert isinstance(build(experiment).mixing, Mixing)
    with pytest.raises(UsageError, match=r"task\.tokens = 12 .* 34"):
        build(experiment.with_values({"task.tokens": 12})).graph  # noqa: B018


def test_a_directed_graph_keeps_its_directions(tmp_path: Path) -> None:
    target = tmp_path / "graph.graphml"
    nx.write_graphml(nx.DiGraph([("a", "b"), ("b", "c")]), target)
    assert set(relabelled(read_named(target)).edges) == {(0, 1), (1, 2)}


@pytest.mark.parametrize("content", [None, "not a graph at all\n", "<graphml>"])
def test_a_file_that_is_no_graph_is_refused(content: str | None, tmp_path: Path) -> None:
    target = tmp_path / "graph.graphml"
    if content is not None:
        target.write_text(content)
    experiment = SMALL.with_values({"graph.kind": "file", "graph.path": str(target)})
    with pytest.raises(UsageError, match=r"graph\.path"):
        build(experiment).graph  # noqa: B018


def test_a_large_random_graph_is_drawn_edge_by_edge() -> None:
    """Mean degree within five standard errors of what was asked for."""
    graph = FAMILIES["erdos_renyi"](Family(5000, degree=20, seed=3))
    pairs = graph.number_of_edges() / 2
    assert abs(pairs - 5000 * 20 / 2) < 5 * np.sqrt(5000 * 20 / 2)
    assert nx.is_strongly_connected(graph)


def test_a_random_graph_that_is_never_connected_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="raise the degree"):
        FAMILIES["erdos_renyi"](Family(100_000, degree=4))
