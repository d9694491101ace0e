"""Sweeps: each point once, whatever is interrupted; one table, with what failed in it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import open_sweep
from runner import predict, sweep
from runner.config.experiment import Experiment
from runner.config.sweep import SweepFile, points_of
from runner.errors import RunError, UsageError
from runner.simulation.simulate import simulate
from runner.sweeps import sweep as module
from tests.commands import run as command

SMALL = {"task.prompts": 20, "task.tokens": 6, "run.rounds": 2}
GRID = {"channel.noise": [0.0, 1.0], "policy.kind": ["adaptive", "static"]}


def local(out: Path, **given: Any) -> Any:
    return sweep(**{"set": SMALL, "grid": GRID, "out": out, "engine": "local", **given})


def test_every_point_is_what_it_is_alone(tmp_path: Path) -> None:
    found = local(tmp_path, seeds=(0, 3))
    table = found.table
    assert table["status"].eq("done").all() and len(table) == 4 * 3
    for noise in (0.0, 1.0):
        for kind in ("adaptive", "static"):
            keys = {**SMALL, "channel.noise": noise, "policy.kind": kind}
            alone = [simulate(Experiment().with_values({**keys, "run.seed": seed})) for seed in (0, 3)]
            rows = table[(table["channel.noise"] == noise) & (table["policy.kind"] == kind)]
            both = np.concatenate([one.prompt_risk for one in alone], axis=1)
            np.testing.assert_allclose(rows["risk"], both.mean(axis=1), rtol=1e-12)
            np.testing.assert_allclose(rows["risk_se"], both.std(axis=1, ddof=1) / np.sqrt(40), rtol=1e-9)
            assert rows["bits"].sum() == sum(one.bits for one in alone)
            assert rows["prompts"].eq(40).all() and rows["seeds"].eq(2).all()


def test_points_are_paired_by_prompt(tmp_path: Path) -> None:
    found = local(tmp_path)
    one, other = ({"channel.noise": 1.0, "policy.kind": kind} for kind in ("adaptive", "static"))
    difference = found.difference(one, other).iloc[-1]
    risks = [simulate(Experiment().with_values({**SMALL, **keys})).prompt_risk[-1] for keys in (one, other)]
    assert difference["value"] == pytest.approx((risks[0] - risks[1]).mean())
    assert difference["se"] == pytest.approx((risks[0] - risks[1]).std(ddof=1) / np.sqrt(20))
    with pytest.raises(ValueError, match="name 2 points"):
        found.difference({"channel.noise": 1.0}, other)
    with pytest.raises(ValueError, match="no keys of the sweep"):
        found.difference({"bits": 1}, other)


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Experiment] = []
    play = module.play_point
    monkeypatch.setattr(module, "play_point", lambda *given: (played.append(given[0]), play(*given))[1])
    local(tmp_path)
    assert len(played) == 4
    first = open_sweep(tmp_path / "sweep-sweep").table
    local(tmp_path)
    assert len(played) == 4
    pd.testing.assert_frame_equal(open_sweep(tmp_path / "sweep-sweep").table, first)
    local(tmp_path, grid={**GRID, "channel.noise": [0.0, 1.0, 2.0]})
    assert len(played) == 6, "an extended sweep plays what is new"
    local(tmp_path, seeds=(0, 1))
    assert len(played) == 10, "more seeds tighten what is there"
    with pytest.raises(UsageError, match="--resume"):
        local(tmp_path, resume=False)


def test_other_code_does_not_take_what_this_code_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local(tmp_path)
    monkeypatch.setattr(module, "fingerprint", lambda: "0.1.0+other")
    played: list[Experiment] = []
    play = module.play_point
    monkeypatch.setattr(module, "play_point", lambda *given: (played.append(given[0]), play(*given))[1])
    local(tmp_path)
    assert len(played) == 4


def test_seeds_are_added_until_the_error_is_small(tmp_path: Path) -> None:
    one = {"grid": {"channel.noise": [2.0]}, "set": {**SMALL, "task.prompts": 10}}
    coarse = local(tmp_path / "a", **one)
    error = float(coarse.table["risk_se"].iloc[-1])
    fine = local(tmp_path / "b", **one, target_se=error / 2)
    last = fine.table.iloc[-1]
    assert last["risk_se"] <= error / 2 and last["seeds"] > 2
    bounded = local(tmp_path / "c", **one, target_se=error / 1000, most_seeds=3)
    assert bounded.table["seeds"].iloc[-1] == 3


def failing(times: int) -> Any:
    """A point with noise 1 fails so often."""
    left = [times]

    def play(given: Experiment, *more: Any) -> Any:
        if given.channel.noise == 1.0 and left[0]:
            left[0] -= 1
            raise RunError("no luck")
        return module_play(given, *more)

    return play


module_play = module.play_point


def test_a_point_that_fails_is_in_the_table_and_the_others_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "play_point", failing(99))
    found = local(tmp_path)
    states = found.table.drop_duplicates("point")[["channel.noise", "status", "error"]]
    assert states["status"].tolist() == ["done", "done", "failed", "failed"]
    assert states["error"].tolist()[2] == "no luck"
    assert "'channel.noise': 1.0" in " ".join(capsys.readouterr().err.split()), "it is named at once"
    monkeypatch.undo()
    assert local(tmp_path).table["status"].eq("done").all()


def test_failures_are_retried_or_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "play_point", failing(2))
    assert local(tmp_path / "a", on_failure="retry").table["status"].eq("done").all()
    monkeypatch.setattr(module, "play_point", failing(1))
    with pytest.raises(RunError, match=r"channel\.noise.* failed: no luck.*--resume"):
        local(tmp_path / "b", on_failure="stop")
    kept = open_sweep(tmp_path / "b" / "sweep-sweep").table.drop_duplicates("point")["status"]
    assert kept.tolist() == ["done", "done", "failed", "missing"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"grid": {"task.tokns": [1]}}, "task.tokns"), ({"grid": {"channel.bits": []}}, "grid"),
     ({"grid": {"channel.bits": [4, 99]}}, r"99.*point"), ({"grid": {"run.seed": [1]}}, "seeds"),
     ({"grid": {"channel.bits": [4, 4]}}, "same experiment"), ({"seeds": ()}, "seeds"),
     ({"base": "dmeo"}, "demo"), ({"engine": "cloud"}, "engine"),
     ({"grid": {"channel.noise": np.linspace(0, 1, 400).tolist(), "run.rounds": [*range(1, 301)]}}, "up to")],
)  # fmt: skip
def test_what_cannot_be_played_is_refused_before_anything_is(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        local(tmp_path, **given)
    assert not list(tmp_path.glob("*/points/*"))


def test_entries_of_a_list_go_together() -> None:
    content = SweepFile(
        grid={"channel.bits": (2, 4)}, list=({"task.tokens": 8, "run.rounds": 3}, {"task.tokens": 16})
    )
    keys = [point.keys for point in points_of(content, Experiment())]
    assert keys[1] == {"task.tokens": 8, "run.rounds": 3, "channel.bits": 4} and len(keys) == 4


FILE = """
base = "demo"
seeds = [0, 1]
[set]
"task.prompts" = 30
"task.tokens" = 6
[grid]
"channel.noise" = [0.0, 0.5, 1.0, 1.5, 2.0]
"channel.bits" = [2, 4, 8, 16]
"""


def test_the_command_plays_a_file_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bits.toml").write_text(FILE)
    arguments = ["sweep", str(tmp_path / "bits.toml"), "--out", str(tmp_path), "--engine", "local", "--json"]
    assert command(arguments, monkeypatch) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["points"]) == 20 and {point["status"] for point in content["points"]} == {"done"}
    assert Path(content["sweep"]).name == "sweep-bits"
    assert command(arguments, monkeypatch) == 2
    assert command([*arguments, "--resume"], monkeypatch) == 0
    assert command(["sweep", str(tmp_path / "none.toml")], monkeypatch) == 2


MANY = f"""
[set]
"task.prompts" = 5
"run.rounds" = 1

[grid]
"task.tokens" = {list(range(3, 23))}
"channel.bits" = {list(range(3, 13))}
"""


@pytest.mark.ray
@pytest.mark.parametrize(("file", "apart"), [(FILE, 1), pytest.param(MANY, 50, marks=pytest.mark.slow)])
def test_a_sweep_by_ray_that_is_killed_three_times_ends_with_the_same_tables(
    file: str, apart: int, tmp_path: Path
) -> None:
    """Kill -9 at random moments; bit by bit the tables of one that nobody disturbed, in this process."""
    (tmp_path / "bits.toml").write_text(file)
    base = [sys.executable, "-m", "runner", "sweep", str(tmp_path / "bits.toml"), "--out"]
    subprocess.run([*base, str(tmp_path / "alone"), "--engine", "local"], check=True, capture_output=True)
    disturbed, dice, kills = tmp_path / "disturbed", random.Random(7), 0
    while True:
        process = subprocess.Popen(
            [*base, str(disturbed), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        if kills < 3:
            until = len(list(disturbed.glob("*/points/*"))) + dice.randint(1, apart)
            while process.poll() is None and len(list(disturbed.glob("*/points/*"))) < until:
                time.sleep(0.02)
            time.sleep(dice.uniform(0, 0.05))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        if process.wait() == 0:
            break
    assert kills
    for name in ("points", "prompts"):
        tables = [
            (folder / "sweep-bits" / f"{name}.parquet").read_bytes()
            for folder in (tmp_path / "alone", disturbed)
        ]
        assert tables[0] == tables[1]


def test_interventions_are_swept_whatever_the_batch_is(tmp_path: Path) -> None:
    keys = {"intervene.kind": "patched", "intervene.edges": [[0, 1], [1, 1]], "graph.kind": "path"}
    risks = [
        local(
            tmp_path / f"{size}", set={**SMALL, **keys, "run.batch": size}, grid={"channel.noise": [0.1]}
        ).last
        for size in (1, 5, 20)
    ]
    assert risks[0]["risk"].tolist() == risks[1]["risk"].tolist() == risks[2]["risk"].tolist()
    plain = local(tmp_path / "p", set={**SMALL, "graph.kind": "path"}, grid={"channel.noise": [0.1]}).last
    assert plain["risk"].tolist() != risks[0]["risk"].tolist()
    some = local(
        tmp_path / "s", grid={"intervene.tokens": [0, [0, 3]], "intervene.bits": [{"1": 2}, {"2": 24}]}
    )
    bits = some.table[some.table["point"] == 0]["bits"].tolist()
    address = 6 * 20 * 3  # tokens, prompts, bits of a code
    assert bits == [0, address + 2 * 120, address + 2 * 120]
    assert some.table[some.table["point"] == 1]["bits"].tolist() == [
        0,
        address + 24 * 120,
        address + 24 * 120,
    ]
    for wrong in ({"intervene.kind": ["loud"]}, {"intervene.trims": [0.1]}, {"intervene.tokens": ["x"]}):
        with pytest.raises(UsageError):
            local(tmp_path / "w", grid=wrong)


def test_theory_stands_beside_points_where_there_is_one(tmp_path: Path) -> None:
    grid = {"policy.kind": ["adaptive", "gradient"]}
    found = local(tmp_path, grid=grid, theory="exact").table
    rows = found[found["policy.kind"] == "adaptive"]
    alone = predict(Experiment().with_values(SMALL))
    assert rows["theory"].tolist() == alone["risk"].tolist()
    assert rows["theory_se"].tolist() == alone["risk_se"].tolist()
    assert found[found["policy.kind"] == "gradient"]["theory"].isna().all()
    assert "theory" not in local(tmp_path, grid=grid).table
