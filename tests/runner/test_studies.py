"""A study keeps each table that it computed: what is stopped or fails costs nothing else."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from runner.built import Built, build
from runner.config.experiment import load
from runner.config.studies import Comparison
from runner.engines.local import LocalEngine
from runner.errors import RunError
from runner.progress import Progress
from runner.storage.cells import Cells
from runner.studies import comparison as module
from runner.studies.base import Findings, Session, Work, study
from runner.studies.comparison import prepare
from tests.commands import run
from tests.runner.test_comparison import DEMO

SMALL = load(
    Comparison,
    DEMO,
    {
        "run.rounds": 1,
        "task.prompts": 40,
        "task.tokens": 8,
        "compare.transformers": [],
        "compare.theory_samples": 100,
        "compare.null": False,
    },
)


def session(out: Path, name: str = "study") -> Session:
    return Session(LocalEngine(), out, 1, Progress(quiet=True), name)


def counted(
    played: list[int], numbers: list[int], fails: BaseException | None = None
) -> Callable[[Work], Findings]:
    """A study of squares, in which 2 may fail, that notes what it computed."""

    def square(key: int, number: int) -> pd.DataFrame:
        if number == 2 and fails is not None:
            raise fails
        played.append(number)
        return pd.DataFrame({"square": [number**2]})

    def play(work: Work) -> Findings:
        tables = work.tables("squares", {number: number for number in numbers}, "number {}".format, square)
        work.check()
        return Findings({"squares": pd.concat(tables.values())}, "", work.folder, [])

    return play


@pytest.mark.parametrize("failure", [RunError("no luck"), KeyboardInterrupt()])
def test_what_was_computed_is_not_computed_again(failure: BaseException, tmp_path: Path) -> None:
    played: list[int] = []
    with pytest.raises(type(failure), match="same command") as caught:
        study(SMALL, counted(played, [1, 2, 3], failure))(session(tmp_path))
    assert played == ([1, 3] if isinstance(failure, RunError) else [1])
    assert "number 2: no luck" in str(caught.value) or isinstance(failure, KeyboardInterrupt)
    (stopped,) = tmp_path.iterdir()
    found = study(SMALL, counted(played, [1, 2, 3]))(session(tmp_path))
    assert sorted(played) == [1, 2, 3]
    assert found.folder == stopped
    assert list(found.frames["squares"]["square"]) == [1, 4, 9]
    again = study(SMALL, counted(played, [1, 2, 3]))(session(tmp_path))
    assert again.folder != stopped, "a study that came to its end is not continued"
    assert len(played) == 6


def test_a_study_is_continued_by_one_process_at_a_time_and_by_the_same_code_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        closing(Cells(tmp_path, "study", "keys")) as first,
        closing(Cells(tmp_path, "study", "keys")) as second,
    ):
        assert first.folder != second.folder
        first.close()
        with closing(Cells(tmp_path, "study", "keys")) as third:
            assert third.folder == first.folder
        monkeypatch.setattr("runner.storage.cells.fingerprint", lambda: "other")
        with closing(Cells(tmp_path, "study", "keys")) as other:
            assert other.folder not in (first.folder, second.folder)


@pytest.mark.parametrize("place", [0, 20, 400, -1, -9])
def test_a_damaged_table_is_computed_again(place: int, tmp_path: Path) -> None:
    played: list[int] = []
    with pytest.raises(RunError):
        study(SMALL, counted(played, [1, 2], RunError("no luck")))(session(tmp_path))
    (table,) = tmp_path.glob("*/cells/*.table")
    damaged = bytearray(table.read_bytes())
    damaged[place % len(damaged)] ^= 4
    table.write_bytes(damaged)
    found = study(SMALL, counted(played, [1, 2]))(session(tmp_path))
    assert played == [1, 1, 2]
    assert list(found.frames["squares"]["square"]) == [1, 4]


def test_keys_that_are_written_alike_are_computed_apart(tmp_path: Path) -> None:
    def play(work: Work) -> Findings:
        noises = {noise: noise for noise in (900.0001, 900.0004)}
        tables = work.tables(
            "noises", noises, "{:g}".format, lambda key, noise: pd.DataFrame({"noise": [noise]})
        )
        return Findings({"noises": pd.concat(tables.values())}, "", work.folder, [])

    found = study(SMALL, play)(session(tmp_path))
    assert list(found.frames["noises"]["noise"]) == [900.0001, 900.0004]


@pytest.mark.parametrize("other", [{"transformer.steps": 7}, {"run.trace": "full"}, {"run.seed": 1}])
def test_a_study_of_other_keys_is_not_continued(other: dict[str, object], tmp_path: Path) -> None:
    played: list[int] = []
    with pytest.raises(RunError):
        study(SMALL, counted(played, [1, 2], RunError("no luck")))(session(tmp_path))
    study(SMALL.with_values(other), counted(played, [1, 2]))(session(tmp_path))
    assert played == [1, 1, 2]


def test_a_comparison_whose_part_fails_completes_the_others_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prepare(SMALL)(session(tmp_path / "whole"))
    simulate, played = module.simulate, []

    def unlucky(built, **more):  # type: ignore[no-untyped-def]
        played.append(more["name"])
        if more["name"] == "tree-adaptive" and played.count("tree-adaptive") == 1:
            raise RunError("no luck")
        return simulate(built, **more)

    monkeypatch.setattr(module, "simulate", unlucky)
    with pytest.raises(RunError, match="agents, adaptive, tree: no luck"):
        prepare(SMALL)(session(tmp_path / "parts"))
    assert len(played) == len(SMALL.compare.policies)
    found = prepare(SMALL)(session(tmp_path / "parts"))
    assert len(played) == len(SMALL.compare.policies) + 1
    pd.testing.assert_frame_equal(found.frames["rows"], expected.frames["rows"])


def test_a_model_that_diverges_costs_no_other_its_training(tmp_path: Path) -> None:
    """The models of other depths are trained, the failing one is named, all tables but its own are kept."""
    both = SMALL.with_values({"compare.transformers": ["linear"], "run.rounds": 2})

    def unlucky(models: list[Built]) -> list[str]:
        if any(model.experiment.run.rounds == 2 for model in models):
            raise RunError("loss is not finite")
        return ["weights"] * len(models)

    work = Work(session(tmp_path), both)
    items = {depth: build(both.transformer_variant(depth, "linear")) for depth in (1, 2)}
    assert work.trained(items, "depth {}".format, unlucky) == {1: "weights"}
    with pytest.raises(RunError, match="training, depth 2: loss is not finite"):
        work.run(lambda work: work.check())  # type: ignore[arg-type,func-returns-value]


def test_two_commands_that_share_a_folder_both_end_well(tmp_path: Path) -> None:
    """They train the same weights, write the same caches, and each stores what it found."""
    settings = ["run.rounds=1", "task.prompts=40", "task.tokens=8", "compare.theory_samples=100"]
    settings += ["transformer.steps=30", 'compare.transformers=["linear"]', "run.engine=local"]
    arguments = ["compare", "demo", "--out", str(tmp_path), *(f"--set={setting}" for setting in settings)]
    both = [
        subprocess.Popen([sys.executable, "-m", "runner", *arguments], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(process.communicate(timeout=120)[1], process.returncode)[1] for process in both] == [0, 0]
    tables = [pd.read_parquet(path) for path in sorted(tmp_path.glob("demo-*/rows.parquet"))]
    pd.testing.assert_frame_equal(*tables)


def test_a_comparison_that_is_killed_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["run.rounds=2", "task.prompts=2000", "compare.transformers=[]", "run.engine=local"]
    arguments = ["compare", "demo", "--out", str(tmp_path), *(f"--set={setting}" for setting in settings)]
    process = subprocess.Popen([sys.executable, "-m", "runner", *arguments], stderr=subprocess.DEVNULL)
    while len(list(tmp_path.glob("demo-*/cells/*.table"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(tmp_path.glob("demo-*/cells/*.table")))
    theory, computed = module.predict_scenario, []

    def counting(*given):  # type: ignore[no-untyped-def]
        computed.append(given)
        return theory(*given)

    monkeypatch.setattr(module, "predict_scenario", counting)
    assert run(arguments, monkeypatch) == 0, capsys.readouterr().err
    (folder,) = tmp_path.glob("demo-*")
    assert (folder / "verdict.txt").is_file() and not (folder / "cells").exists()
    assert len(computed) <= 2 * len(SMALL.compare.policies) - min(kept, 3)
