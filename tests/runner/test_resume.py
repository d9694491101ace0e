"""A run that was stopped goes on to the same bits, and says how."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.transformer.export import export
from agents.transformer.model import Architecture, Transformer
from analysis import open_run
from analysis.traces.schema import digest_of
from runner import Experiment, resume, simulate
from runner.engines.local import LocalEngine
from runner.errors import RunError, UsageError
from runner.simulation.simulate import Simulation
from runner.storage.arrays import read_arrays, write_arrays
from runner.storage.manifest import Batches
from tests.commands import run

SMALL = Experiment().with_values(
    {"task.prompts": 50, "task.tokens": 8, "run.batch": 20, "run.rounds": 2, "run.trace": "full",
     "channel.noise": 0.5}
)  # fmt: skip
TABLES = ("messages", "workspaces", "prompts", "rounds")


def stop_at(first: int, round: int, failure: BaseException) -> Callable[[range, int], None]:
    def stop(prompts: range, at: int) -> None:
        if (prompts.start, at) == (first, round):
            raise failure

    return stop


def stopped(
    out: Path, experiment: Experiment = SMALL, first: int = 20, round: int = 1, **given: object
) -> Path:
    # No command can name what was handed in as an object.
    words = r"runner\.resume\(" if {"graph", "prior", "policy"} & given.keys() else "tokenfield resume"
    with pytest.raises(KeyboardInterrupt, match=words):
        simulate(experiment, out=out, on_round=stop_at(first, round, KeyboardInterrupt()), **given)
    (folder,) = (path for path in out.iterdir() if (path / "manifest.json").exists())
    return folder


def assert_same(left: Simulation, right: Simulation) -> None:
    for name in ("prompt_risk", "position_risk", "position_risk_se", "scalars"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    assert (left.clipped, left.messages, left.bits) == (right.clipped, right.messages, right.bits)
    assert left.folder is not None
    assert right.folder is not None
    one, other = open_run(left.folder), open_run(right.folder)
    assert one.is_complete
    assert other.is_complete
    for table in TABLES:
        if (left.folder / table).exists() or (left.folder / f"{table}.parquet").exists():
            pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table))


@pytest.mark.parametrize("trace", ["none", "rounds", "sampled", "full"])
@pytest.mark.parametrize(("first", "round"), [(0, 0), (0, 2), (20, 0), (40, 1), (40, 2)])
def test_a_run_that_was_stopped_anywhere_ends_with_the_same_bits(
    tmp_path: Path, first: int, round: int, trace: str
) -> None:
    experiment = SMALL.with_values({"run.trace": trace})
    folder = stopped(tmp_path / "stopped", experiment, first, round)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "stopped"
    resumed = resume(folder)
    assert resumed.folder == folder
    assert_same(resumed, simulate(experiment, out=tmp_path / "whole"))
    assert not list(folder.glob("totals*"))


@given(stops=st.lists(st.tuples(st.sampled_from([0, 20, 40]), st.integers(0, 2)), min_size=1, max_size=4))
@settings(max_examples=8)
def test_it_may_be_stopped_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, stops: list[tuple[int, int]]
) -> None:
    out = tmp_path_factory.mktemp("runs")
    folder = stopped(out / "stopped", first=0, round=0)
    for first, round in stops:
        try:
            resume(folder, on_round=stop_at(first, round, KeyboardInterrupt()))
        except KeyboardInterrupt:
            continue
        break  # it came to its end before it could be stopped
    else:
        resume(folder)
    whole = simulate(SMALL, out=out / "whole")
    assert whole.folder is not None
    for table in TABLES:
        found, expected = (getattr(open_run(run), table) for run in (folder, whole.folder))
        pd.testing.assert_frame_equal(found, expected)


def test_what_is_stored_before_the_stop_can_be_read(tmp_path: Path) -> None:
    folder = stopped(tmp_path, first=40, round=1)
    half, whole = open_run(folder), simulate(SMALL, out=tmp_path / "whole")
    assert not half.is_complete
    assert whole.folder is not None
    complete = open_run(whole.folder).messages
    expected = complete[(complete["prompt"] < 40) | (complete["round"] <= 1)]
    pd.testing.assert_frame_equal(half.messages, expected.reset_index(drop=True))


def test_graph_and_weights_that_were_handed_in_are_asked_for_again(tmp_path: Path) -> None:
    ring = nx.cycle_graph(8)
    folder = stopped(tmp_path / "graph", graph=ring)
    with pytest.raises(UsageError, match="graph"):
        resume(folder)
    assert_same(resume(folder, graph=ring), simulate(SMALL, out=tmp_path / "whole", graph=ring))
    learned = SMALL.with_values({"policy.kind": "learned"})
    weights, others = (export(Transformer(Architecture(dim=7, layers=2), seed=seed)) for seed in (0, 1))
    folder = stopped(tmp_path / "weights", learned, learned=weights)
    with pytest.raises(UsageError, match="weights"):
        resume(folder, learned=others)
    assert_same(resume(folder, learned=weights), simulate(learned, out=tmp_path / "whole", learned=weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "complete"}, "came to its end"),
        ({"code": "0.0.1+abc"}, "0.0.1"),
        ({"batch": "20"}, "folder of a run"),
        ({"experiment": {"task": {"tokens": -1}}}, "folder of a run"),
    ],
)
def test_a_run_that_cannot_go_on_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = stopped(tmp_path)
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **change}
    content["digest"] = digest_of(content)
    path.write_text(json.dumps(content))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(UsageError, match=message):
        resume(folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_totals_are_refused(tmp_path: Path, damage: str) -> None:
    folder = stopped(tmp_path)
    path = folder / "totals.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        header, arrays = read_arrays(path)
        write_arrays(path, header, {**arrays, "clipped": np.zeros(7, dtype=np.int64)})
    with pytest.raises(RunError, match="anew"):
        resume(folder)


def test_a_full_disk_is_reported_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    real, written = pq.write_table, 0

    def full(*given: Any, **named: Any) -> None:
        nonlocal written
        written += 1
        if written > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*given, **named)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(RunError, match=r"No space left.*tokenfield resume"):
        simulate(SMALL, out=tmp_path / "full")
    monkeypatch.undo()
    (folder,) = (tmp_path / "full").iterdir()
    assert_same(resume(folder), simulate(SMALL, out=tmp_path / "whole"))


def test_exhausted_memory_is_reported_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.batch.*tokenfield resume"):
        simulate(SMALL, out=tmp_path, on_round=stop_at(20, 1, MemoryError()))


def test_a_course_has_every_prompt_once() -> None:
    course = Batches(range(3, 50), batch=20)
    assert [list(part) for part in course.after()] == [
        list(range(3, 23)), list(range(23, 43)), list(range(43, 50)),
    ]  # fmt: skip
    assert course.after(20) == course.after()[1:]
    assert course.after(47) == []


def test_a_process_that_is_killed_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"task.prompts": 4000, "run.batch": 20, "run.trace": "sampled", "task.tokens": 16}
    settings = [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    file = tmp_path / "experiment.toml"
    file.touch()
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "runner", "run", str(file), *settings, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("*/totals.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = out.iterdir()
    assert not open_run(folder).is_complete
    assert run(["resume", str(folder), "--json"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(folder)
    whole = simulate(Experiment().with_values(values), out=tmp_path / "whole")
    assert whole.folder is not None
    for table in TABLES:
        found, expected = (getattr(open_run(path), table) for path in (folder, whole.folder))
        pd.testing.assert_frame_equal(found, expected)
    assert run(["resume", str(folder)], monkeypatch) == 2
    assert "came to its end" in capsys.readouterr().err


@pytest.mark.ray
def test_a_run_of_one_engine_is_resumed_on_another_by_ray_and_in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"task.prompts": 40, "run.batch": 20, "task.tokens": 4}
    expected = simulate(Experiment().with_values(values)).risk.tolist()
    for began, other in (("local", "ray"), ("ray", "local")):
        out = tmp_path / began
        with pytest.raises(KeyboardInterrupt):
            stopping = {"out": out, "on_round": stop_at(20, 1, KeyboardInterrupt()), "engine": LocalEngine()}
            simulate(Experiment().with_values({**values, "run.engine": began}), **stopping)
        (folder,) = out.iterdir()
        assert run(["resume", str(folder), "--engine", "local", "--address", "a:1"], monkeypatch) == 2
        assert "run.engine" in capsys.readouterr().err
        assert run(["resume", str(folder), "--engine", ""], monkeypatch) == 2, (
            "of an unset variable of a shell"
        )
        assert "run.engine" in capsys.readouterr().err
        assert run(["resume", str(folder), "--engine", other, "--json"], monkeypatch) == 0
        assert json.loads(capsys.readouterr().out)["risk"] == expected
        assert open_run(folder).manifest["engine"] == other
