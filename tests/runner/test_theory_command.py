"""`tokenfield theory`: complete answers, ordered limits, and figures, without an agent."""

import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from analysis.theory.limits.physical import physical_limit
from runner.built import build
from runner.config.experiment import Experiment, load
from runner.config.studies import Comparison
from runner.prediction import Forecast, forecast, mixing_time, predict
from runner.progress import Progress
from runner.simulation.simulate import simulate
from runner.studies.estimators import estimator_risk
from runner.studies.structure import draw_figures
from tests.commands import run

DEMO = Experiment().with_values({"channel.noise": 1.0, "channel.bits": 16, "run.rounds": 3})
SYSTEMS: dict[str, dict[str, object]] = {
    "demo": {"run.rounds": 4},
    "static": {"policy.kind": "static", "policy.control_variate": False},
    "pooled": {"policy.kind": "static", "policy.order": "pooled", "policy.control_variate": False},
    "few bits": {"channel.bits": 2, "channel.clip": 3.0},
    "one bit, few tokens": {"channel.bits": 1, "channel.clip": 2.0, "task.tokens": 4},
    "two channels": {"channel.channels": 2, "run.rounds": 2},
    "ternary": {"prior.branching": 3, "prior.levels": 2, "prior.dim": 8, "run.rounds": 3},
    "random directions": {"prior.directions": "random", "prior.dim": 4, "run.rounds": 3},
    "jitter": {"prior.jitter": 0.3, "run.rounds": 2},
    "gaussian": {"prior.kind": "gaussian"},
    "matched gaussian": {"prior.kind": "matched_gaussian"},
    "noiseless": {"channel.noise": 0.0, "run.rounds": 3},
}


def risk(found: Forecast, source: str) -> "pd.Series[float]":
    curve = found.curve(source)
    assert curve is not None
    return curve["risk"]


def is_ordered(found: Forecast) -> bool:
    """Whether limits <= optimal <= risk holds, within three standard errors."""
    risk = found.curve("theory")
    if risk is None:
        return True
    margin = 3 * risk["risk_se"] + 1e-12  # certainties differ by rounding
    bayes, limit, best = (found.curve(name) for name in ("Bayes limit", "physical limit", "optimal"))
    assert bayes is not None and limit is not None
    # The agents do not read their own example before they hear it among others.
    floor = np.maximum(limit["risk"], bayes["risk"] - 3 * bayes["risk_se"])
    least = risk["risk"] if best is None else best["risk"]
    return bool((floor <= least + margin).all() and (least <= risk["risk"] + margin).all())


def test_the_answer_has_every_curve(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["theory", "demo", "--json", "--precision", "2000"], monkeypatch) == 0
    (line,) = capfd.readouterr().out.splitlines()
    answer = json.loads(line)
    curves = answer["curves"]
    for name in ("theory", "mean field", "infinite N", "optimal", "physical limit", "Bayes limit"):
        assert len(curves[name]["risk"]) == len(curves[name]["risk_se"]) == 5, name
    bayes = curves["Bayes limit"]["risk"]
    assert 0 <= bayes[-1] < 1e-6 < 0.25 < bayes[0]
    assert answer["code_loss"] == pytest.approx(1.148, abs=0.005)
    assert sum(answer["allocation"]) == 4
    assert curves["physical limit"]["risk"][0] == pytest.approx(1.0)


def test_closed_forms_stand_beside_what_is_computed() -> None:
    """Many tokens without noise come to them; so does ridge regression, the Bayes limit of a Gaussian."""
    many = {"task.tokens": 20_000, "channel.noise": 0.0, "policy.control_variate": False, "run.rounds": 3}
    pooled = {"policy.kind": "static", "policy.order": "pooled"}
    for name, at, many_tokens in (
        ("infinite N", many, many),
        ("infinite N, pooled", many | pooled, many | pooled),
        ("infinite N, linear decoder", many, many | {"prior.kind": "matched_gaussian"}),
    ):
        closed = risk(forecast(DEMO.with_values({**at, "task.tokens": 32}), 100), name)
        sampled = predict(DEMO.with_values(many_tokens), 20_000, "gaussian")
        # Two-sided false-alarm rate of 1e-6 per round; 1/N corrections are far below 0.005.
        assert ((sampled["risk"] - closed).abs() <= 4.9 * sampled["risk_se"] + 0.005).all(), name
    gaussian = {"prior.kind": "gaussian", "prior.dim": 40, "task.tokens": 40, "task.label_noise": 0.3}
    found = forecast(Experiment().with_values({**gaussian, "run.rounds": 1}), 100)
    assert risk(found, "Bayes limit").iloc[-1] == pytest.approx(found.facts["ridge_limit"], rel=0.05)
    risks = estimator_risk(build(Experiment().with_values({**gaussian, "task.prompts": 2000})))
    assert risks["linear attention"].mean() == pytest.approx(found.facts["linear_attention"], rel=0.03)
    assert found.facts["pooled_failure_level"] is None
    noisy = DEMO.with_values({"task.tokens": 4, "prior.levels": 4, "prior.dim": 15, "channel.noise": 3.0})
    assert forecast(noisy, 50).facts["pooled_failure_level"] == 1
    closed = ("pooled_failure_level", "ridge_limit", "linear_attention")
    ring = nx.cycle_graph(8)
    for name, graph in (("complete", ring), ("star", None)):
        other = DEMO.with_values({"graph.kind": name, "task.tokens": 8, "channel.noise": 3.0})
        facts = forecast(build(other, graph), 50).facts
        assert [facts[key] for key in closed] == [None] * 3


def test_the_mixing_time_of_a_large_graph_is_told_where_it_is_known() -> None:
    joint = {"task.tokens": 3000, "policy.belief": "joint"}
    assert mixing_time(build(DEMO.with_values({**joint, "graph.kind": "star"}))) == pytest.approx(
        1.443, abs=1e-3
    )
    assert mixing_time(build(DEMO.with_values({**joint, "graph.kind": "path"}))) is None
    assert mixing_time(build(DEMO.with_values({"task.tokens": 16}), nx.path_graph(16))) > 10


@pytest.mark.statistical
@pytest.mark.parametrize("name", SYSTEMS)
def test_limits_optimum_and_risk_are_in_order(name: str) -> None:
    found = forecast(DEMO.with_values(SYSTEMS[name]), 4000)
    assert is_ordered(found)
    if (best := found.curve("channel optimal")) is not None:
        assert (best["risk"] <= risk(found, "channel greedy") + 1e-12).all()
        assert (best["risk"] <= risk(found, "channel static") + 1e-12).all()
        assert (risk(found, "physical limit") <= best["risk"] + best["risk_se"] + 1e-12).all()


def test_is_ordered_can_fail() -> None:
    found = forecast(DEMO.with_values({"run.rounds": 1}), 500)
    assert is_ordered(found)
    curves = found.curves.copy()
    curves.loc[curves["source"] == "physical limit", "risk"] = [1.0, 0.9]
    assert not is_ordered(replace(found, curves=curves))


@pytest.mark.parametrize("null", ["matched_gaussian", "gaussian"])
def test_the_optimum_gains_nothing_on_a_gaussian(null: str) -> None:
    found = forecast(DEMO.with_values({"prior.kind": null}), 500)
    np.testing.assert_allclose(risk(found, "channel optimal"), risk(found, "channel static"), atol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("name", SYSTEMS)
def test_agents_stay_above_the_limits(name: str) -> None:
    experiment = DEMO.with_values({**SYSTEMS[name], "task.prompts": 1000})
    result = simulate(experiment)
    assert (result.risk >= physical_limit(build(experiment).scenario) - 3 * result.risk_se - 1e-12).all()


@pytest.mark.statistical
def test_every_preset_stays_above_the_limits() -> None:
    presets = sorted((Path(__file__).parents[2] / "runner" / "config" / "presets").glob("*.toml"))
    assert presets
    for preset in presets:
        comparison = load(Comparison, preset, {"task.prompts": 300})
        for prior, policy in comparison.pairs():
            experiment = comparison.variant(prior, policy).with_values({"run.engine": "local"})
            result = simulate(experiment)
            margin = 3 * result.risk_se + 1e-12
            assert (result.risk >= physical_limit(build(experiment).scenario) - margin).all(), (
                preset,
                policy,
            )


@pytest.mark.statistical
@pytest.mark.parametrize("policy", ["adaptive", "static", "gossip", "flood"])
@pytest.mark.parametrize("kind", ["ring", "star", "causal"])
def test_no_policy_is_predicted_below_the_limits_of_its_graph(kind: str, policy: str) -> None:
    """By state evolution or, for `flood`, in closed form: within three standard errors."""
    found = forecast(
        DEMO.with_values(
            {
                "graph.kind": kind,
                "policy.kind": policy,
                "channel.noise": 0.0 if policy == "flood" else 0.3,
                "channel.bits": 24,
            }
        ),
        1000,
    )
    assert found.curve("theory") is not None
    assert is_ordered(found)
    assert found.facts["allocation"] is found.facts["code_loss"] is found.curve("infinite N") is None


@pytest.mark.parametrize("keys", [{"policy.kind": "gradient"}, {"policy.kind": "learned"}])
def test_what_has_no_theory_is_null_and_the_limits_remain(keys: dict[str, object]) -> None:
    found = forecast(DEMO.with_values(keys), 500)
    assert found.curve("theory") is None
    assert found.curve("optimal") is None
    assert len(risk(found, "physical limit")) == 4


def test_the_figures_are_drawn(tmp_path: Path) -> None:
    paths = draw_figures(DEMO.with_values({"run.rounds": 2}), tmp_path, 30, Progress(quiet=True))
    assert [path.stem for path in paths] == [
        "depth-against-structure",
        "gain-of-adaptivity",
        "pooled-failure",
    ]
    assert all(path.stat().st_size > 20_000 and path.with_suffix(".svg").is_file() for path in paths)


def test_theory_of_beliefs_that_disagree_covers_the_edges() -> None:
    """No round, certain beliefs without label noise, keys of other policies, gossip with own example."""
    ring = DEMO.with_values({"graph.kind": "ring", "task.tokens": 8, "task.prompts": 50})
    assert simulate(ring.with_values({"run.rounds": 0})).risk.tolist() == [1.0]
    certain = ring.with_values({"graph.kind": "complete", "task.label_noise": 0.0, "channel.noise": 0.0})
    assert np.isfinite(forecast(certain, 300).curves["risk"]).all()
    plain, turned = (build(ring.with_values({"policy.rounds_per_scale": turns})) for turns in ("auto", 64))
    assert plain.plan.repeats == turned.plan.repeats, "rounds of averaging are a key of gossip alone"
    gossip = {"policy.kind": "gossip", "policy.rounds_per_scale": 2, "policy.own_example": True}
    assert predict(certain.with_values(gossip), 100).empty
    assert len(predict(ring.with_values(gossip), 100)) == len(predict(ring, 100))
