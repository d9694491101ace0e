"""Agents on graphs against the theory of graphs, the reference values, and the limits of a light cone."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis.theory.limits.physical import light_cone_bound
from analysis.theory.predict import predict, predict_on_graph
from runner.built import build
from runner.config.experiment import Experiment, load
from runner.config.studies import Comparison
from runner.simulation.simulate import simulate
from tests.commands import run
from topology.families import FAMILIES

REFERENCE = Experiment().with_values(
    {
        "task.tokens": 64,
        "task.prompts": 400,
        "run.rounds": 12,
        "policy.kind": "gossip",
        "policy.control_variate": False,
        "policy.rounds_per_scale": 4,
    }
)
# THEORY.md section 6, locality; standard error about .005 at .3, less below.
REFERENCES = {"complete": 0.0, "random_regular": 0.006, "small_world": 0.046, "ring": 0.113}
REFERENCE_ERROR = 0.004
SMALL = Experiment().with_values(
    {"task.tokens": 16, "task.prompts": 2000, "run.rounds": 3, "graph.window": 6}
)
FALSE_ALARM = 1e-3  # for all cases of a test together


@pytest.mark.statistical
@pytest.mark.parametrize("belief", ["exact", pytest.param("joint", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", REFERENCES)
def test_gossip_comes_out_at_the_reference_values(kind: str, belief: str) -> None:
    """Mean over three graphs, within three standard errors of prompts, graphs and reference together.

    The references take fields for Gaussian; with their exact law agents are no worse.
    """
    values = {"graph.kind": kind, "policy.belief": belief}
    runs = [simulate(REFERENCE.with_values({**values, "graph.seed": seed})) for seed in (0, 1, 2)]
    risks, errors = (np.array([getattr(run, name)[-1] for run in runs]) for name in ("risk", "risk_se"))
    allowed = np.sqrt((errors**2).mean() + risks.var(ddof=1) / 3 + REFERENCE_ERROR**2)
    excess = (risks.mean() - REFERENCES[kind]) / allowed
    assert excess < 3 and (belief == "exact" or excess > -3)


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["random_regular", pytest.param("star", marks=pytest.mark.slow)])
def test_the_rounds_per_scale_that_theory_chooses_are_the_best(kind: str) -> None:
    """Better than each other choice that was tried, or not worse by three paired standard errors."""
    experiment = REFERENCE.with_values({"graph.kind": kind, "policy.rounds_per_scale": "auto"})
    (chosen,) = build(experiment).turns
    best = simulate(experiment).prompt_risk[-1]
    for turn in {1, 2, 3, 6, 12} - {chosen}:
        other = simulate(experiment.with_values({"policy.rounds_per_scale": turn})).prompt_risk[-1]
        difference = best - other
        assert difference.mean() < 3 * difference.std() / np.sqrt(len(difference)), turn


@pytest.mark.statistical
@pytest.mark.parametrize("mixing", ["uniform", "metropolis"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_fixed_questions_without_control_have_the_exact_risk_on_every_graph(kind: str, mixing: str) -> None:
    """Tokens cannot disagree: state evolution with the weights of each position assumes nothing else."""
    experiment = SMALL.with_values(
        {
            "graph.kind": kind,
            "graph.mixing": mixing,
            "policy.kind": "static",
            "policy.control_variate": False,
            "channel.noise": 0.5,
        }
    )
    predicted, measured = predict_on_graph(build(experiment).scenario, 6_000), simulate(experiment)
    error = np.hypot(predicted.risk_se[1:], measured.risk_se[1:])
    score = (measured.risk[1:] - predicted.risk[1:]) / error
    assert np.abs(score).max() < norm.isf(FALSE_ALARM / (2 * 3 * 2 * len(FAMILIES)))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", ["ring", "path", "star", "barbell", "small_world", "tree"])
def test_gossip_about_one_question_has_the_predicted_risk_after_every_hop(kind: str) -> None:
    """A prior with a single code, on which all agree: three hops, with transmitter noise that each adds."""
    experiment = SMALL.with_values(
        {
            "graph.kind": kind,
            "prior.levels": 1,
            "prior.dim": 2,
            "policy.kind": "gossip",
            "policy.rounds_per_scale": 3,
            "channel.noise": 0.3,
        }
    )
    predicted, measured = predict_on_graph(build(experiment).scenario, 6_000), simulate(experiment)
    error = np.hypot(predicted.risk_se[1:], measured.risk_se[1:])
    score = (measured.risk[1:] - predicted.risk[1:]) / error
    assert np.abs(score).max() < norm.isf(FALSE_ALARM / (2 * 3 * 6))


@pytest.mark.statistical
@pytest.mark.parametrize("kind", FAMILIES)
def test_flooding_has_the_risk_of_the_best_linear_estimate_on_its_light_cone(kind: str) -> None:
    experiment = SMALL.with_values({"graph.kind": kind, "policy.kind": "flood", "task.prompts": 400})
    predicted, measured = predict_on_graph(build(experiment).scenario, 4_000), simulate(experiment)
    score = (measured.risk - predicted.risk) / np.hypot(predicted.risk_se, measured.risk_se)
    assert np.abs(score).max() < norm.isf(FALSE_ALARM / (2 * 4 * len(FAMILIES)))


@pytest.mark.statistical
@pytest.mark.parametrize("policy", ["adaptive", "static", "gossip", "gradient", "flood"])
@pytest.mark.parametrize("kind", ["path", "ring", "star", "causal"])
def test_no_policy_beats_the_bayes_risk_of_its_light_cone(kind: str, policy: str) -> None:
    """With four numbers and little noise the bound is close: no policy is below by four standard errors."""
    experiment = SMALL.with_values(
        {
            "graph.kind": kind,
            "policy.kind": policy,
            "prior.kind": "gaussian",
            "prior.dim": 4,
            "task.prompts": 500,
            "task.label_noise": 0.3,
        }
    )
    bound, error = light_cone_bound(build(experiment).scenario, 4_000)
    measured = simulate(experiment)
    margin = 4 * np.hypot(error, measured.risk_se)
    assert (measured.risk >= bound - margin).all()
    if policy == "flood":
        assert (measured.risk <= bound + margin).all(), "and this one reaches it"


@pytest.mark.slow
@pytest.mark.statistical
def test_star_barbell_and_line_show_the_bottleneck_that_theory_predicts() -> None:
    """After 12 rounds, against a random graph of degree 4: theory's order and, within a quarter, its risks.

    A line averages over about the square root of T tokens; the hub of a star has half the weight of all it
    tells; two halves of a barbell each know what a complete graph of half the size would.
    """
    risk: dict[str, tuple[float, float]] = {}
    for kind in ("random_regular", "star", "path", "barbell"):
        experiment = REFERENCE.with_values({"graph.kind": kind, "task.prompts": 800})
        predicted, measured = predict_on_graph(build(experiment).scenario, 8_000), simulate(experiment)
        risk[kind] = float(predicted.risk[-1]), float(measured.risk[-1])
        spread = 4 * np.hypot(predicted.risk_se[-1], measured.risk_se[-1])
        assert abs(risk[kind][1] - risk[kind][0]) < 0.25 * risk[kind][0] + spread, kind
    for side in (0, 1):
        assert risk["path"][side] > 2 * risk["star"][side] > 10 * risk["random_regular"][side]
    half = REFERENCE.with_values({"task.tokens": 32, "task.prompts": 1000})
    halves = simulate(half)
    barbell = simulate(REFERENCE.with_values({"graph.kind": "barbell", "task.prompts": 1000}))
    error = np.hypot(halves.risk_se[-1], barbell.risk_se[-1])
    assert abs(halves.risk[-1] - barbell.risk[-1]) < 4 * error
    assert barbell.risk[-1] > 100 * simulate(REFERENCE).risk[-1], "the other half is never heard in time"


@pytest.mark.slow
def test_the_numbers_in_the_readme_are_those_of_the_preset() -> None:
    """Agents on two graphs at three depths, and theory beside them, digit by digit."""
    readme = (Path(__file__).parents[2] / "topology" / "README.md").read_text(encoding="utf-8")
    preset = Path(__file__).parents[2] / "runner" / "config" / "presets" / "locality.toml"
    comparison = load(Comparison, preset)
    assert comparison.locality is not None
    for kind, name in (("ring", "ring"), ("small_world", "small world")):
        (row,) = re.findall(rf"^\| {name} \|[^|]*\|(.*)\|$", readme, re.MULTILINE)
        for depth, cell in zip((3, 6, 12), row.split("|"), strict=False):
            values = {"graph.kind": kind, "policy.kind": "gossip", "run.rounds": depth}
            experiment = comparison.experiment().with_values(values)
            agents = simulate(experiment).risk[-1]
            theory = predict_on_graph(build(experiment).scenario, comparison.locality.theory_samples).risk[-1]
            assert cell.split() == [_three(agents), f"({_three(theory)})"], (kind, depth)


def _three(risk: float) -> str:
    """Three digits after the point, two below .1."""
    return (f"{risk:.3f}" if risk > 0.01 else f"{risk:.4f}").lstrip("0")


def test_what_has_no_theory_has_none() -> None:
    for kind in ("gradient", "learned"):
        assert predict(build(Experiment().with_values({"policy.kind": kind})).scenario, 300) is None


def test_compare_locality_makes_its_tables_figures_and_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = {
        "locality.families": '["complete","ring"]',
        "locality.depths": "[2,4]",
        "locality.turns": "[1,2]",
        "locality.context_policies": '["static codes, no cv","flood"]',
        "locality.context_rounds": "2",
        "locality.theory_samples": "300",
        "task.tokens": "12",
        "task.prompts": "50",
        "transformer.steps": "20",
    }
    settings = [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]
    assert run(["compare", "locality", *settings, "--json"], monkeypatch) == 0
    (line,) = capfd.readouterr().out.splitlines()
    answer = json.loads(line)
    depths, contexts = pd.DataFrame(answer["depths"]), pd.DataFrame(answer["contexts"])
    assert len(depths) == 2 * 2 * 2
    assert len(answer["turns"]) == 2 * 2 * 2
    assert set(depths["source"]) == {"theory", "agents"}
    assert (depths["risk"] >= depths["limit"] - 4 * depths["risk_se"]).all()
    assert set(zip(contexts["source"], contexts["policy"], strict=True)) == {
        ("agents", "static codes, no cv"),
        ("theory", "static codes, no cv"),
        ("agents", "flood"),
        ("theory", "flood"),
        ("transformer", "feedforward"),
        ("limit", "Bayes"),
    }
    assert sorted(contexts["context"].unique()) == list(range(1, 13))
    assert [Path(path).stem for path in answer["figures"]] == [
        "locality-depth",
        "rounds-per-scale",
        "context",
    ]
    assert all(Path(path).stat().st_size > 20_000 for path in answer["figures"])
    assert answer["sentence"].startswith("After 4 rounds gossip is at: complete")
    assert (Path(answer["run"]) / "depths.parquet").is_file()


def test_policies_and_transformers_are_compared_on_a_graph_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = {
        "graph.kind": "ring",
        "run.engine": "local",
        "run.rounds": "2",
        "task.tokens": "12",
        "task.prompts": "100",
        "transformer.steps": "30",
        "compare.policies": '["adaptive","gossip","gradient"]',
        "compare.theory_samples": "500",
    }
    settings = [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]
    assert run(["compare", "demo", *settings, "--json"], monkeypatch) == 0
    answer = json.loads(capfd.readouterr().out)
    rows = pd.DataFrame(answer["rows"])
    tree = rows[rows["prior"] == "tree"]
    assert set(tree[tree["source"] == "theory"]["policy"]) == {"adaptive", "gossip"}
    assert set(tree[tree["source"] == "agents"]["policy"]) == {"adaptive", "gossip", "gradient"}
    assert set(tree[tree["source"] == "transformer"]["policy"]) == {"feedforward", "linear"}
    assert answer["max_difference"] < 1e-10


def test_a_comparison_of_graphs_that_cannot_run_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["compare", "locality", "--set", "graph.degree=3"], monkeypatch) == 2
    assert "degree" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_check_draws_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["check", "demo", "--set", "graph.kind=path", "--figure"], monkeypatch) == 0
    out = capfd.readouterr().out
    assert "██▄\n ▀██▄\n" in out
    (picture,) = tmp_path.glob("runs/graph-*/graph.png")
    assert picture.stat().st_size > 20_000
