"""Runs at the edge of what there is are drawn, replayed and reported; what cannot be is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import open_run
from runner import sweep
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.studies.overview import figures, overview
from runner.studies.prompt import trace_of
from tests.commands import run as command

SMALL = Experiment().with_values({"task.tokens": 6, "task.prompts": 6, "run.rounds": 2, "run.trace": "full"})
ODD: list[dict[str, Any]] = [
    {"run.rounds": 0}, {"run.rounds": 1}, {"task.prompts": 1}, {"task.tokens": 1},
    {"task.tokens": 2},
    {"trace.positions": [1, 3]}, {"trace.rounds": [1]}, {"trace.every": 2}, {"trace.columns": ["wire"]},
    {"prior.levels": 1}, {"prior.kind": "gaussian"}, {"prior.kind": "matched_gaussian"},
    {"prior.jitter": 0.3},
    {"policy.kind": "gossip", "graph.kind": "ring"}, {"policy.kind": "gradient"}, {"policy.kind": "flood"},
    {"run.trace": "rounds"},
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", ODD, ids=str)
def test_every_run_is_read_by_every_command(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(simulate(SMALL.with_values(settings), out=tmp_path).folder)
    assert command(["plot", folder, "--no-theory"], monkeypatch) == 0
    assert command(["replay", folder], monkeypatch) == 0
    assert command(["report", folder, "--out", str(tmp_path / "page.html")], monkeypatch) == 0


def test_a_run_without_traces_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(simulate(SMALL.with_values({"run.trace": "none"}), out=tmp_path).folder)
    for arguments in (["plot", folder], ["report", folder, "--out", str(tmp_path / "p.html")]):
        assert command(arguments, monkeypatch) == 2
        assert 'run.trace = "none"' in capsys.readouterr().err


@pytest.mark.parametrize("out", ["", "/tmp", "nope://x", "file://"])
def test_a_page_needs_a_file(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(simulate(SMALL, out=tmp_path).folder)
    assert command(["report", folder, "--out", out], monkeypatch) == 2


@pytest.mark.parametrize("settings", [{"trace.every": 2}, {"trace.rounds": [1, 2]}])
def test_a_measure_that_needs_all_rounds_is_left_out_without_them(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = open_run(simulate(SMALL.with_values(settings), out=tmp_path).folder or "")
    assert "rounds to resolve" not in overview(run, theory=False).tables


def test_bits_are_those_of_the_prompts_that_were_played(tmp_path: Path) -> None:
    given = SMALL.with_values({"task.prompts": 400})
    run = open_run(simulate(given, prompts=range(20, 60), out=tmp_path).folder or "")
    found = overview(run, theory=False)
    assert found.tables["information"]["sent"].tolist() == [0.0, 27.0, 54.0]
    assert figures(found)


@pytest.mark.parametrize(
    "given", [[2], (2,), range(2, 3), np.array([2]), pd.Series([2]), {2}, [np.int64(2)]],
    ids=lambda given: type(given).__name__
)  # fmt: skip
def test_rounds_are_named_by_any_sequence(given: Any, tmp_path: Path) -> None:
    run = open_run(simulate(SMALL, out=tmp_path).folder or "")
    assert len(run.table("messages", rounds=given)) == 36


@pytest.mark.parametrize(
    "given",
    [{"rounds": [True]}, {"prompts": np.arange(6) == 5}, {"positions": [1.5]}, {"positions": ["1"]},
     {"rounds": "12"}, {"rounds": 1}, {"columns": []}, {"rounds": [None]}],
    ids=str,
)  # fmt: skip
def test_what_names_no_rows_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    run = open_run(simulate(SMALL, out=tmp_path).folder or "")
    with pytest.raises(ValueError, match="is not possible"):
        run.table("messages", **given)


def test_a_prompt_of_which_some_rounds_are_missing_is_played_again(tmp_path: Path) -> None:
    folder = Path(str(simulate(SMALL, out=tmp_path).folder))
    for name in ("messages", "workspaces"):
        (folder / name / "batch-00000-round-002.parquet").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    from analysis.traces.schema import digest_of

    stopped = {key: value for key, value in manifest.items() if key not in ("digest", "tables")} | {
        "status": "stopped"
    }
    (folder / "manifest.json").write_text(json.dumps({**stopped, "digest": digest_of(stopped)}))
    traced = trace_of(open_run(folder), 1)
    assert traced.again and set(traced.workspaces["round"]) == {0, 1, 2}


@pytest.mark.parametrize(
    "given",
    [{"seeds": [1, 1]}, {"seeds": 3}, {"set": {"run.seed": 7}}, {"list": [{"run.seed": 7}]}, {"grid": [1]},
     {"set": [1]}, {"list": {"a": 1}}, {"base": 3}, {"out": 3}, {"grid": {"policy.kind": "static"}},
     {"grid": {"channel.bits": 3}}, {"progress": 3}, {"out": "nope://x"}],
    ids=str,
)  # fmt: skip
def test_a_sweep_refuses_by_name_what_it_cannot_take(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        sweep(**{"out": tmp_path, "engine": "local", **given})
    assert not list(tmp_path.iterdir())


def test_a_grid_of_words_and_numbers_is_a_table(tmp_path: Path) -> None:
    found = sweep(
        set={"task.tokens": 4, "task.prompts": 5, "run.rounds": 1}, seeds=np.arange(2),
        grid={"policy.repeats": ["auto", 0.5], "channel.bits": np.array([3, 4])},
        out=tmp_path, engine="local",
    )  # fmt: skip
    assert set(found.table["policy.repeats"]) == {"auto", "0.5"}
    assert set(found.table["channel.bits"]) == {3, 4}
    assert found.table["seeds"].eq(2).all()
