"""The study of the causal graph: agents, theory and transformers by tokens heard, and what it refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.report.verdict import causal_sentence
from runner.config.experiment import load
from runner.config.studies import Comparison
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.progress import Progress
from runner.studies import Findings, Session, study_of

PRESET = Path(__file__).parents[2] / "runner" / "config" / "presets" / "causal.toml"
SMALL: dict[str, object] = {
    "task.tokens": 8,
    "task.prompts": 100,
    "run.rounds": 2,
    "transformer.steps": 5,
    "causal.seeds": 2,
    "causal.contexts": [2, 8],
    "causal.noises": [0.0, 0.5],
    "causal.examined": 60,
    "causal.theory_samples": 100,
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    comparison = load(Comparison, PRESET, SMALL)
    session = Session(LocalEngine(), tmp_path_factory.mktemp("causal"), 1, Progress(quiet=True), "causal")
    return study_of(comparison).prepare(comparison)(session)


def test_every_source_has_a_risk_for_every_number_of_tokens(findings: Findings) -> None:
    contexts = findings.frames["contexts"]
    found = contexts.groupby(["source", "policy", "noise", "seed"])["context"].agg(["min", "max", "count"])
    assert (found == [1, 8, 8]).all(axis=None)
    policies = contexts.groupby("source")["policy"].unique()
    assert set(policies["agents"]) == {"adaptive", "adaptive widest", "static codes", "adaptive, own example"}
    assert set(policies["theory"]) == set(policies["agents"])
    assert contexts[contexts["source"] == "transformer"]["seed"].nunique() == 2
    assert np.isfinite(contexts["risk"]).all()


def test_the_inside_is_measured_at_the_chosen_positions(findings: Findings) -> None:
    inside = findings.frames["inside"]
    assert set(inside["measure"]) == {"probe", "query", "level", "patch"}
    assert set(inside["context"]) == {2, 8}
    assert set(inside["source"]) == {"agents", "transformer"}
    level = inside[(inside["measure"] == "level") & (inside["source"] == "agents")]
    asked = level[level["value"] > 0.99]
    assert (asked["layer"] == asked["scale"]).all() and len(asked) == 8, "agents ask level by level"


def test_tables_figures_and_sentence_are_stored(findings: Findings) -> None:
    names = {path.name for path in findings.folder.iterdir()}
    assert {"contexts.parquet", "inside.parquet", "verdict.txt"} <= names
    assert {"context-noise-0.png", "context-noise-0.5.png"} <= names
    assert "τ = 0.5" in findings.sentence and "explain" in findings.sentence


def rows(values: dict[str, float], source: str, policy: str) -> pd.DataFrame:
    heard, risk = list(map(int, values)), list(values.values())
    named = {"source": source, "policy": policy, "noise": 0.0, "context": heard}
    return pd.DataFrame({**named, "risk": risk, "risk_se": 1e-3})


@pytest.mark.parametrize(
    ("trained", "level", "explained"),
    [
        ({"8": 0.30, "64": 0.0004}, 0.97, True),
        ({"8": 0.45, "64": 0.0004}, 0.97, True),  # worse than the agents, which is said
        ({"8": 0.15, "64": 0.0004}, 0.97, False),
        ({"8": 0.30, "64": 0.0004}, 0.50, False),
    ],
)
def test_the_sentence_says_whether_agents_explain_the_transformer(
    trained: dict[str, float], level: float, explained: bool
) -> None:
    contexts = pd.concat(
        [rows({"8": 0.28, "64": 0.0001}, "agents", "adaptive"), rows(trained, "transformer", "transformer")]
    )
    inside = pd.DataFrame(
        [
            {"source": source, "noise": 0.0, "context": 8, "measure": "level", "layer": 1, "scale": scale,
             "value": value}
            for source, shares in (("agents", (1.0, 0.0)), ("transformer", (level, 1 - level)))
            for scale, value in enumerate(shares, 1)
        ]
    )  # fmt: skip
    said = causal_sentence(contexts, inside)
    assert ("agents explain the transformer" in said) == explained, said
    assert ("are better at 8 tokens" in said) == (trained["8"] == 0.45), said


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"causal.contexts": [9]}, r"causal\.contexts = 9"),
        ({"prior.kind": "gaussian"}, r"prior\.kind"),
        ({"run.rounds": 0}, r"run\.rounds"),
        ({"causal.policies": ["adaptiv"]}, r"causal\.policies"),
        ({"causal.seeds": 0}, r"causal\.seeds"),
    ],
)
def test_what_cannot_be_studied_is_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        comparison = load(Comparison, PRESET, {**SMALL, **values})
        study_of(comparison).prepare(comparison)
