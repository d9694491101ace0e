"""Stored runs are drawn, and replayed prompt by prompt, as they were."""

import json
import shutil
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import open_run
from analysis.report.replay import bars, display, steps
from runner.config.experiment import Experiment
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.studies.overview import animation, figures, overview
from runner.studies.prompt import trace_of
from tests.commands import run as command

RING = Experiment().with_values(
    {"task.tokens": 6, "task.prompts": 40, "run.rounds": 3, "run.trace": "full", "graph.kind": "ring",
     "graph.degree": 2, "channel.channels": 2}
)  # fmt: skip
OLD = Path(__file__).parents[1] / "golden" / "schema-2"


@pytest.mark.parametrize(
    "settings",
    [{"run.trace": "sampled"}, {"run.trace": "rounds"}, {"trace.rounds": [1]}, {"trace.every": 2},
     {"trace.columns": ["wire"]}, {"run.batch": 7, "run.trace": "none"}],
    ids=str,
)  # fmt: skip
def test_a_prompt_that_was_not_traced_is_played_again_to_the_same_bits(
    settings: dict[str, object], tmp_path: Path
) -> None:
    full = trace_of(open_run(simulate(RING, out=tmp_path / "full").folder or ""), 33)
    some = trace_of(open_run(simulate(RING.with_values(settings), out=tmp_path / "some").folder or ""), 33)
    assert not full.again and some.again
    for name in ("messages", "workspaces", "truth", "nodes"):
        pd.testing.assert_frame_equal(getattr(some, name), getattr(full, name))


def test_the_steps_of_a_prompt_are_its_rows(tmp_path: Path) -> None:
    run = open_run(simulate(RING, out=tmp_path).folder or "")
    traced = trace_of(run, 5)
    found = steps(traced.messages, traced.workspaces, traced.nodes, 5)
    assert list(found) == [0, 1, 2, 3] and all(len(table) == 6 for table in found.values())
    row = found[2].iloc[4]
    said = run.messages.query("round == 2 and sender == 4 and prompt == 5").sort_values("channel")
    there = run.workspaces.query("round == 2 and position == 4 and prompt == 5").iloc[0]
    assert row["asked"] == " ".join(str(code) for code in said["code"])
    assert row["said"] == " ".join(f"{value:+.2f}" for value in said["value"])
    assert (row["error"], row["heard"], row["belief_3"]) == (
        there["error"],
        there["effective"],
        there["belief_3"],
    )
    assert row["right"] == sum(there[f"correct_{level}"] for level in (1, 2, 3))
    assert found[0]["said"].isna().all()
    shown = display(2, found[2], 3)
    assert shown.cells["bits unknown"].iloc[4] == f"{there['entropy_3']:.2f}"
    assert len(shown.cells["belief"].iloc[4]) == 8


def test_bars_tell_small_from_none() -> None:
    assert bars(np.array([0.0, 0.019, 0.05, 0.5, 1.0, np.nan])) == "  ▁▄█?"


@pytest.mark.parametrize("prompt", [40, 10**9])
def test_a_prompt_that_the_run_has_not_is_refused(prompt: int, tmp_path: Path) -> None:
    run = open_run(simulate(RING, out=tmp_path).folder or "")
    with pytest.raises(UsageError, match="0 to 39"):
        trace_of(run, prompt)


def test_a_run_with_an_object_handed_in_is_not_played_again(tmp_path: Path) -> None:
    given = nx.relabel_nodes(nx.cycle_graph(6), dict(enumerate("abcdef")))
    sampled = RING.with_values({"run.trace": "sampled"})
    run = open_run(simulate(sampled, graph=given, out=tmp_path).folder or "")
    assert not trace_of(run, 3).again
    with pytest.raises(UsageError, match="handed in"):
        trace_of(run, 33)


def test_the_replay_command_prints_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(simulate(RING, out=tmp_path).folder)
    assert command(["replay", folder, "--prompt", "5", "--json"], monkeypatch) == 0
    content = json.loads(capsys.readouterr().out)
    traced = trace_of(open_run(folder), 5)
    assert content["true_atom"] == traced.truth["atom"].item()
    assert [len(part["tokens"]) for part in content["rounds"]] == [6] * 4
    assert (
        content["rounds"][3]["tokens"][2]["error"] == traced.workspaces.query("round == 3")["error"].iloc[2]
    )
    assert command(["replay", folder, "--prompt", "5"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "round 3" in out and "levels right" in out
    assert command(["replay", str(OLD), "--prompt", "1"], monkeypatch) == 0
    assert command(["replay", folder, "--prompt", "99"], monkeypatch) == 2
    assert command(["replay", str(tmp_path / "none")], monkeypatch) == 2


def test_the_plot_command_draws_what_the_trace_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = simulate(RING, out=tmp_path).folder
    assert command(["plot", str(folder), "--json"], monkeypatch) == 0
    names = {Path(path).stem for path in json.loads(capsys.readouterr().out)["figures"]}
    assert names == {
        "risk", "residuals", "levels", "messages", "information", "calibration", "beliefs-on-graph"
    }  # fmt: skip
    for name in names:
        assert (Path(str(folder)) / "figures" / f"{name}.svg").stat().st_size > 1000
    rounds = simulate(RING.with_values({"run.trace": "rounds"}), out=tmp_path / "other").folder
    assert (
        command(["plot", str(rounds), "--no-theory", "--json", "--out", str(tmp_path / "f")], monkeypatch)
        == 0
    )
    assert [Path(path).stem for path in json.loads(capsys.readouterr().out)["figures"]] == ["risk"]
    copied = shutil.copytree(OLD, tmp_path / "old")
    assert command(["plot", str(copied), "--json"], monkeypatch) == 0, "an older run has figures too"


def test_a_figure_shows_the_measures(tmp_path: Path) -> None:
    found = overview(open_run(simulate(RING, out=tmp_path).folder or ""))
    assert set(found.risk["source"]) == {"theory", "agents"}
    drawn = figures(found)
    level, points = found.tables["resolved by level"].query("level == 2"), drawn["levels"].axes[0].lines
    assert any(np.array_equal(line.get_ydata(), level["value"]) for line in points)
    share = found.tables["spectrum"].query("round == 1 and code == 0")["share"].item()
    assert drawn["messages"].axes[0].images[0].get_array()[0, 0] == share
    gained = found.tables["information"]["value"]
    assert any(np.array_equal(line.get_ydata(), gained) for line in drawn["information"].axes[0].lines)


def test_an_animation_shows_the_graph_after_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(simulate(RING, out=tmp_path).folder or "")
    assert command(["plot", str(run.folder), "--no-theory", "--animate", "--json"], monkeypatch) == 0
    path = Path(json.loads(capsys.readouterr().out)["figures"][-1])
    with Image.open(path) as moving:
        assert path.name == "beliefs-on-graph.gif" and moving.n_frames == 4  # type: ignore[attr-defined]
    frames = animation(overview(run, theory=False))
    for index, figure in enumerate(frames):
        there = run.workspaces[(run.workspaces["round"] == index) & (run.workspaces["prompt"] == 0)]
        true = there.sort_values("position")
        atom = run.truths.query("prompt == 0")["atom"].item()
        tokens = next(part for part in figure.axes[0].collections if part.get_array() is not None)
        np.testing.assert_array_equal(tokens.get_array(), true[f"belief_{atom}"])
    rounds = simulate(RING.with_values({"run.trace": "rounds"}), out=tmp_path / "other").folder
    assert command(["plot", str(rounds), "--no-theory", "--animate"], monkeypatch) == 2
