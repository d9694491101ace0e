"""A run on disk: complete, readable when stopped, its size predicted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.traces.reader import open_run
from analysis.traces.schema import KEYS, SCHEMAS, group_of, schema_of
from runner.config.experiment import Experiment
from runner.engines.base import Outcome
from runner.errors import UnreadableError, UsageError
from runner.simulation.simulate import simulate
from runner.storage.writer import SAMPLED_PROMPTS, predicted_bytes

SMALL = Experiment().with_values(
    {"task.prompts": 60, "task.tokens": 6, "run.rounds": 2, "channel.noise": 1.0, "channel.bits": 8,
     "channel.clip": 2.0}
)  # fmt: skip


@pytest.mark.parametrize(("level", "prompts"), [("rounds", 0), ("sampled", SAMPLED_PROMPTS), ("full", 60)])
def test_a_trace_holds_what_its_level_says(level: str, prompts: int, tmp_path: Path) -> None:
    result = simulate(SMALL.with_values({"run.trace": level}), out=tmp_path)
    run = open_run(result.folder or "")
    assert run.is_complete
    assert Experiment.model_validate(run.manifest["experiment"]) == result.experiment
    assert (run.experiment.task.tokens, run.experiment.run.trace) == (6, level)
    np.testing.assert_array_equal(run.rounds["risk"], result.risk)
    np.testing.assert_array_equal(
        run.prompts.pivot(index="round", columns="prompt", values="risk"), result.prompt_risk
    )
    if prompts == 0:
        with pytest.raises(FileNotFoundError, match=r'run\.trace = "rounds"'):
            run.messages  # noqa: B018
        return
    assert len(run.messages) == prompts * 6 * 2
    assert len(run.workspaces) == prompts * 6 * 3
    assert set(run.messages["prompt"]) == set(range(prompts))


SELECTIONS: list[dict[str, object]] = [
    {"trace.every": 2},
    {"trace.rounds": [1]},
    {"trace.positions": [4, 1]},
    {"trace.prompts": [41, 0, 7], "run.batch": 20},
    {"trace.prompts": [50], "run.trace": "sampled", "run.batch": 20},
    {"trace.columns": ["wire", "error"]},
    {"trace.columns": []},
    {
        "trace.rounds": [2],
        "trace.positions": [0],
        "trace.prompts": [3],
        "trace.columns": ["bits", "estimate"],
    },
]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_a_selection_keeps_those_rows_and_columns_of_the_full_trace(
    selection: dict[str, object], tmp_path: Path
) -> None:
    full = SMALL.with_values({"run.trace": "full"})
    some = full.with_values(selection)
    whole, part = (
        open_run(simulate(one, out=tmp_path / str(one is full)).folder or "") for one in (full, some)
    )
    assert some.identity() == full.identity()
    keep = some.trace
    for table, place in (("messages", "sender"), ("workspaces", "position")):
        expected = getattr(whole, table)
        rounds = keep.rounds if keep.rounds is not None else range(0, 3, keep.every)
        expected = expected[expected["round"].isin(rounds)]
        if keep.positions is not None:
            expected = expected[expected[place].isin(keep.positions)]
        if keep.prompts is not None:
            expected = expected[expected["prompt"].isin(keep.prompts)]
        if keep.columns is not None:
            expected = expected[
                [*KEYS[table], *(name for name in expected if group_of(name) in keep.columns)]
            ]
        order = ["prompt", *(key for key in KEYS[table] if key != "prompt")]
        left, right = (
            frame.sort_values(order).reset_index(drop=True) for frame in (getattr(part, table), expected)
        )
        assert len(left) or keep.columns == [] or not len(right)
        pd.testing.assert_frame_equal(left, right)
    np.testing.assert_array_equal(whole.prompts["risk"].sort_values(), part.prompts["risk"].sort_values())
    assert predicted_bytes(some) <= predicted_bytes(full)


@pytest.mark.parametrize(
    "selection",
    [{"trace.rounds": [3]}, {"trace.positions": [0, 6]}, {"trace.prompts": [60]}, {"trace.columns": ["w"]},
     {"trace.every": 0}, {"trace.positions": []}, {"trace.rounds": [-1]}],
    ids=str,
)  # fmt: skip
def test_a_selection_of_what_there_is_not_is_refused(selection: dict[str, object], tmp_path: Path) -> None:
    (key,) = selection
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        simulate(SMALL.with_values(selection), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_messages_state_value_wire_and_clip_consistently(tmp_path: Path) -> None:
    result = simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path)
    messages = open_run(result.folder or "").messages
    assert messages["wire"].between(0, 255).all()
    assert np.allclose(messages["value"], messages["wire"] * 4.0 / 255 - 2.0)
    assert messages["clipped"].sum() == result.clipped > 0
    assert (messages.loc[messages["clipped"], "wire"].isin([0, 255])).all()
    assert set(messages["bits"]) == {8 + 3}


def test_workspaces_agree_with_the_risk(tmp_path: Path) -> None:
    result = simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path)
    workspaces = open_run(result.folder or "").workspaces
    np.testing.assert_allclose(workspaces.groupby("round")["error"].mean(), result.risk)
    start = workspaces[workspaces["round"] == 0]
    entropies = start[["entropy_1", "entropy_2", "entropy_3"]]
    np.testing.assert_allclose(entropies, [[1.0, 2.0, 3.0]] * len(start), rtol=1e-6)
    heard = workspaces[workspaces["round"] > 0]
    assert (heard["effective"] <= 6).all()
    assert (heard["effective"] >= 1).all()


def test_keys_made_of_several_columns_do_not_overflow(tmp_path: Path) -> None:
    messages = open_run(
        simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path).folder or ""
    ).messages
    columns = ["round", "sender", "prompt", "channel", "code", "bits"]
    key, exact = messages[columns[0]], [int(value) for value in messages[columns[0]]]
    for column in columns[1:]:
        key = key * 1000 + messages[column]
        exact = [before * 1000 + int(value) for before, value in zip(exact, messages[column], strict=True)]
    assert key.tolist() == exact
    assert max(exact) > 2**50


def test_integers_are_compact_on_disk_and_wide_in_memory(tmp_path: Path) -> None:
    run = open_run(simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path).folder or "")
    for name in ("messages", "workspaces", "prompts", "rounds", "timing"):
        frame = getattr(run, name)
        integers = {str(kind) for kind in frame.dtypes if kind.kind in "iu"}
        assert integers == {"int64"}, name
        for path in (*run.folder.glob(f"{name}/*.parquet"), *run.folder.glob(f"{name}.parquet")):
            assert pq.read_schema(path).equals(schema_of(name, run.manifest["sizes"]))
    assert not any(kind.kind == "O" for kind in run.workspaces.dtypes), "nothing that pandas cannot group by"


@pytest.mark.parametrize("name", ["messages", "workspaces", "prompts"])
def test_a_table_is_refused_where_its_frame_and_both_arrow_tables_do_not_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path).folder or Path()
    frame = getattr(open_run(folder), name)
    compact = pq.read_table(folder / name, partitioning=None)
    wide = pa.Table.from_pandas(frame)
    taken = int(frame.memory_usage(deep=True).sum()) + compact.nbytes + wide.nbytes
    monkeypatch.setattr("analysis.traces.tables.available_memory", lambda: taken)
    with pytest.raises(UnreadableError, match="GiB of memory"):
        getattr(open_run(folder), name)


@pytest.mark.parametrize("table", SCHEMAS)
def test_no_column_but_the_round_is_hidden_by_an_attribute_of_a_frame(table: str) -> None:
    assert {name for name in SCHEMAS[table].names if hasattr(pd.DataFrame, name)} <= {"round"}


def test_trace_none_leaves_the_manifest_alone(tmp_path: Path) -> None:
    result = simulate(SMALL.with_values({"run.trace": "none"}), out=tmp_path)
    assert result.folder is not None
    assert [path.name for path in result.folder.iterdir()] == ["manifest.json"]
    assert json.loads((result.folder / "manifest.json").read_text())["status"] == "complete"


def test_a_stopped_run_is_readable_up_to_its_last_round(tmp_path: Path) -> None:
    def stop(prompts: range, outcome: Outcome) -> None:
        if outcome.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path, observer=stop)
    (folder,) = tmp_path.iterdir()
    run = open_run(folder)
    assert not run.is_complete
    assert set(run.workspaces["round"]) == {0, 1}
    with pytest.raises(FileNotFoundError, match="stopped before its end"):
        run.rounds  # noqa: B018


@pytest.mark.parametrize("level", ["none", "rounds", "sampled", "full"])
def test_the_predicted_size_bounds_the_size(level: str, tmp_path: Path) -> None:
    experiment = SMALL.with_values({"run.trace": level, "task.prompts": 2000})
    folder = simulate(experiment, out=tmp_path).folder
    assert folder is not None
    parts = [path for path in folder.rglob("*.parquet") if path.parent != folder]
    size = sum(path.stat().st_size for path in parts)
    overhead = 6000 * len(parts)  # schema and footer of a Parquet file
    assert size <= predicted_bytes(experiment) + overhead


def test_a_trace_that_does_not_fit_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr("runner.storage.writer.shutil.disk_usage", lambda path: nearly_full)
    with pytest.raises(UsageError, match=r"run\.trace = 'full' .* GiB of free disk"):
        simulate(SMALL.with_values({"run.trace": "full"}), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_of_one_experiment_take_two_folders(tmp_path: Path) -> None:
    first, second = (simulate(SMALL, out=tmp_path).folder for _ in range(2))
    assert first != second


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no manifest"):
        open_run(tmp_path)


def test_a_run_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="upgrade"):
        open_run(tmp_path)
