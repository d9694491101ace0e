"""Theory, agents and transformer on the demo's system, to depth 3: the claims of the demo hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from analysis.report.verdict import largest_z, sentence
from analysis.statistics import z_scores
from runner.cli import main  # noqa: F401  (the command line imports without torch)
from runner.config.experiment import load
from runner.config.studies import Comparison
from runner.engines.local import LocalEngine
from runner.progress import Progress
from runner.studies import Findings, Session
from runner.studies.comparison import compare

DEMO = Path(__file__).parents[2] / "runner" / "config" / "presets" / "demo.toml"
FALSE_ALARM = 1e-3  # of the test of theory against agents, over all its pairs (Bonferroni)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    demo = load(Comparison, DEMO, {"run.rounds": 3})
    out = tmp_path_factory.mktemp("runs")
    return compare(demo, Session(LocalEngine(), out, 2, Progress(quiet=True), "demo"))


def risk(compared: Findings, source: str, policy: str, prior: str = "tree", depth: int = 3) -> float:
    rows = compared.frames["rows"]
    chosen = rows[
        (rows["source"] == source)
        & (rows["policy"] == policy)
        & (rows["prior"] == prior)
        & (rows["depth"] == depth)
    ]
    assert len(chosen) == 1
    return float(chosen["risk"].iloc[0])


def test_the_table_has_every_source_policy_prior_and_depth(compared: Findings) -> None:
    assert list(compared.frames["rows"].columns) == ["source", "prior", "policy", "depth", "risk", "risk_se"]
    counts = compared.frames["rows"].groupby("source").size().to_dict()
    assert counts == {
        "theory": 2 * 7 * 4,
        "agents": 2 * 6 * 4,
        "transformer": 2 * 3,
        "transformer_on_agents": 2 * 3,
        "whole examples": 2 * 4,
    }
    assert np.isfinite(compared.frames["rows"]["risk"]).all()
    assert not compared.frames["rows"].duplicated(["source", "prior", "policy", "depth"]).any()


@pytest.mark.statistical
def test_theory_agrees_with_agents(compared: Findings) -> None:
    found = largest_z(compared.frames["rows"])
    assert found is not None
    worst, pairs = found
    assert worst < norm.isf(FALSE_ALARM / (2 * pairs))


@pytest.mark.statistical
def test_agents_that_run_the_weights_answer_as_the_transformer(compared: Findings) -> None:
    assert compared.numbers["max_difference"] is not None
    assert compared.numbers["max_difference"] < 1e-9


@pytest.mark.statistical
def test_a_transformer_comes_close_to_the_adaptive_agents_and_needs_its_feedforward(
    compared: Findings,
) -> None:
    trained = risk(compared, "transformer", "feedforward")
    assert trained <= 1.5 * risk(compared, "agents", "adaptive")
    assert risk(compared, "transformer", "linear") >= 2 * trained


@pytest.mark.parametrize("suffix", ["", ", no cv"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_adaptivity_gains_nothing_on_the_null(compared: Findings, suffix: str, depth: int) -> None:
    adaptive, static = (
        risk(compared, "agents", f"{name}{suffix}", "matched_gaussian", depth)
        for name in ("adaptive", "static codes")
    )
    assert adaptive == static


def test_adaptivity_gains_on_the_tree(compared: Findings) -> None:
    best_fixed = min(risk(compared, "agents", f"static {order}, no cv") for order in ("codes", "pooled"))
    assert risk(compared, "agents", "adaptive") < 0.25 * best_fixed


def test_the_folder_holds_traces_table_figure_and_verdict(compared: Findings) -> None:
    names = {path.name for path in compared.folder.iterdir()}
    assert {"rows.parquet", "risk-against-depth.png", "risk-against-depth.svg", "verdict.txt"} <= names
    assert sum((compared.folder / name / "manifest.json").is_file() for name in names) == 12 + 6
    stored = pd.read_parquet(compared.folder / "rows.parquet")
    pd.testing.assert_frame_equal(stored, compared.frames["rows"])
    assert (compared.folder / "verdict.txt").read_text() == compared.sentence + "\n"


def test_weights_are_taken_from_the_cache(compared: Findings) -> None:
    demo = load(Comparison, DEMO, {"run.rounds": 3, "task.prompts": 20, "compare.theory_samples": 50})
    cache = compared.folder.parent / "weights"
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    compare(demo, Session(LocalEngine(), compared.folder.parent, 1, Progress(quiet=True), "compare"))
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_a_comparison_by_itself_is_kept_in_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"run.rounds": 1, "task.prompts": 20, "task.tokens": 4, "compare.theory_samples": 50}
    small = {"compare.policies": ["adaptive"], "compare.transformers": [], "run.engine": "local"}
    found = compare(load(Comparison, DEMO, few | small))
    assert found.folder.resolve().parent == tmp_path / "runs"
    assert set(found.frames["rows"]["source"]) == {"theory", "agents", "whole examples"}


def test_the_sentence_says_so_when_a_claim_fails(compared: Findings) -> None:
    assert "gains nothing" in sentence(compared.frames["rows"], 0.0, (0.001, 0.001))
    assert "differs from static" in sentence(compared.frames["rows"], 0.0, (0.01, 0.001))
    wrong = compared.frames["rows"].copy()
    wrong.loc[wrong["source"] == "agents", "risk"] *= 2
    assert "standard errors in" in sentence(wrong, 0.0, None)
    found = largest_z(wrong)
    assert found is not None
    assert found[0] > 10


def test_z_scores_of_equal_certainties_are_zero() -> None:
    zero = np.zeros(1)
    np.testing.assert_array_equal(z_scores(np.ones(1), zero, np.ones(1), zero), zero)
