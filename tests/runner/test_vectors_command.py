"""`tokenfield vectors`: a transformer examined on the command line, and sentences that can be false."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.report.verdict import vectors_sentence
from tests.commands import run


def test_the_study_has_its_tables_figures_and_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = {
        "prior.levels": 2,
        "prior.dim": 3,
        "run.rounds": 2,
        "task.prompts": 80,
        "transformer.steps": 30,
    }
    settings = [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]
    assert run(["vectors", "demo", *settings, "--json"], monkeypatch) == 0
    answer = json.loads(capfd.readouterr().out)
    assert len(answer["probes"]) == 3 * 2
    assert {row["path"] for row in answer["alignment"]} == {"true", "believed"}
    assert {row["layer"] for row in answer["patching"]} == {0, 1, 2}
    assert answer["sentence"].startswith("A linear probe reads scale 1 ")
    assert [Path(path).stem for path in answer["figures"]] == ["probes", "queries", "patching", "steering"]
    assert all(Path(path).stat().st_size > 10_000 for path in answer["figures"])
    assert (Path(answer["run"]) / "steering.parquet").is_file()
    assert run(["vectors", "demo", *settings], monkeypatch) == 0
    assert "accuracy of a linear probe" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("prior.kind=gaussian", "prior.kind"),
        ("task.prompts=10", "task.prompts"),
        ("run.rounds=0", "run.rounds"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(
    setting: str,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["vectors", "demo", "--set", setting], monkeypatch) == 2
    assert f"{key} = " in capfd.readouterr().err


def frames(accuracy: list[list[float]], gain: float) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Probes [layers, scales], queries and patching of a made-up transformer."""
    cells = [
        (layer, scale + 1, value) for layer, row in enumerate(accuracy) for scale, value in enumerate(row)
    ]
    probes = pd.DataFrame(cells, columns=["layer", "scale", "value"]).assign(se=0.01, control=0.5, chance=0.5)
    queries = probes.assign(path="true", value=0.5 + gain, control=0.5, gain=gain, gain_se=0.01)
    patching = probes.assign(pairs="part", tokens="all")
    return probes, queries, patching


def test_the_sentence_says_what_was_seen_and_also_if_it_was_not() -> None:
    right = vectors_sentence(*frames([[0.5, 0.5], [0.98, 0.5], [0.98, 0.97]], 0.4))
    assert "1 after layer 1, 2 after layer 2: coarse first, then finer" in right
    assert "queries follow what was resolved" in right
    wrong = vectors_sentence(*frames([[0.5, 0.5], [0.5, 0.98], [0.98, 0.98]], 0.0))
    assert "1 after layer 2, 2 after layer 1: not coarse first" in wrong
    assert "queries do not follow" in wrong
    never = vectors_sentence(*frames([[0.5, 0.5], [0.98, 0.6]], 0.0))
    assert "2 after layer none: not coarse first" in never
