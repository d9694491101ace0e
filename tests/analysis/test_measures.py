"""Measures of a run against loops over its rows, which share no code with them; also of an older run."""

import math
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import Run, open_run
from analysis.measures import beliefs, messages
from runner.config.experiment import Experiment
from runner.simulation.simulate import simulate

OLD = Path(__file__).parents[1] / "golden" / "schema-2"
TINY = Experiment().with_values(
    {"task.tokens": 5, "task.prompts": 7, "run.rounds": 3, "run.trace": "full", "graph.kind": "ring",
     "graph.degree": 2, "channel.noise": 0.7, "channel.bits": 6, "channel.clip": 1.5}
)  # fmt: skip
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", params=["new", "old"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    if request.param == "old":
        return open_run(OLD)
    return open_run(simulate(TINY, out=tmp_path_factory.mktemp("runs")).folder or "")


def rows_of(frame: pd.DataFrame) -> Rows:
    return frame.to_dict("records")  # type: ignore[return-value]


def over_prompts(rows: Rows, keys: tuple[str, ...], value: Any) -> dict[Any, tuple[float, float, int]]:
    """Mean and standard error over prompts of the means over their rows, by keys."""
    cells: dict[Any, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[tuple(row[key] for key in keys)][row["prompt"]].append(float(value(row)))
    found = {}
    for key, by_prompt in cells.items():
        means = [mean(values) for values in by_prompt.values()]
        error = stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
        found[key] = (mean(means), error, len(means))
    return found


def assert_table(
    found: pd.DataFrame, keys: tuple[str, ...], expected: dict[Any, tuple[float, float, int]]
) -> None:
    assert len(found) == len(expected)
    for row in rows_of(found):
        value, error, prompts = expected[tuple(row[key] for key in keys)]
        np.testing.assert_allclose((row["value"], row["se"]), (value, error), rtol=1e-5, atol=1e-7)
        assert row["prompts"] == prompts


def test_risk(run: Run) -> None:
    rows = rows_of(run.workspaces)
    assert_table(
        beliefs.risk_by_round(run.prompts),
        ("round",),
        over_prompts(rows_of(run.prompts), ("round",), lambda row: row["risk"]),
    )
    np.testing.assert_allclose(beliefs.risk_by_round(run.prompts)["value"], run.rounds["risk"])
    atoms = pd.DataFrame(
        {"atom": [0, 1], "mass": [0.25, 0.75], "vector_1": [2.0, 0.0], "vector_2": [0.0, 1.0]}
    )
    assert_table(
        beliefs.risk_by_position(run.workspaces, atoms),
        ("round", "position"),
        over_prompts(rows, ("round", "position"), lambda row: row["error"] / (0.25 * 4 + 0.75)),
    )


@pytest.mark.parametrize("level", [1, 2, 3])
def test_levels(level: int, run: Run) -> None:
    rows = rows_of(run.workspaces)
    for found, column in (
        (beliefs.resolved_by_level(run.workspaces), f"correct_{level}"),
        (beliefs.entropy_by_level(run.workspaces), f"entropy_{level}"),
    ):
        expected = over_prompts(rows, ("round",), lambda row, column=column: row[column])
        assert_table(found[found["level"] == level], ("round",), expected)


def test_rounds_to_resolve(run: Run) -> None:
    history: dict[tuple[int, int], list[list[bool]]] = defaultdict(list)
    for row in sorted(rows_of(run.workspaces), key=lambda row: row["round"]):
        history[row["position"], row["prompt"]].append([row[f"correct_{level}"] for level in (1, 2, 3)])
    last = int(run.workspaces["round"].max())
    for level in (1, 2, 3):
        times = []
        for (position, prompt), rounds in history.items():
            right = [levels[level - 1] for levels in rounds]
            time = next((t for t in range(last + 1) if all(right[t:])), last + 1)
            times.append({"position": position, "prompt": prompt, "time": time})
        expected = over_prompts(times, (), lambda row: row["time"])
        found = beliefs.rounds_to_resolve(run.workspaces).query("level == @level")
        assert_table(found, (), expected)
        never = over_prompts(times, (), lambda row, last=last: row["time"] == last + 1)[()][0]
        assert found["never"].item() == pytest.approx(never)


def test_disagreement(run: Run) -> None:
    groups: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    for row in rows_of(run.workspaces):
        groups[row["round"], row["prompt"]].append([row[f"estimate_{index}"] for index in range(1, 8)])
    rows = []
    for (index, prompt), points in groups.items():
        pairs = [(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
        distance = mean(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in pairs)
        rows.append({"round": index, "prompt": prompt, "value": distance})
    found = beliefs.disagreement(run.workspaces)
    assert_table(found, ("round",), over_prompts(rows, ("round",), lambda row: row["value"]))


def test_messages(run: Run) -> None:
    rows = rows_of(run.messages)
    spectrum = messages.spectrum(run.messages)
    assert_table(
        spectrum, ("round", "code"), over_prompts(rows, ("round", "code"), lambda row: row["value"] ** 2)
    )
    for row in rows_of(spectrum):
        there = [one for one in rows if one["round"] == row["round"]]
        assert row["share"] == pytest.approx(mean(one["code"] == row["code"] for one in there))
    saturation = messages.saturation(run.messages)
    assert_table(
        saturation, ("round", "code"), over_prompts(rows, ("round", "code"), lambda row: row["clipped"])
    )


def test_information(run: Run) -> None:
    tokens, prompts = run.workspaces["position"].nunique(), run.workspaces["prompt"].nunique()
    found = messages.information(run.workspaces, run.rounds, tokens, prompts)
    start = {
        (row["position"], row["prompt"]): row["entropy_3"]
        for row in rows_of(run.table("workspaces", rounds=[0]))
    }
    expected = over_prompts(
        rows_of(run.workspaces), ("round",),
        lambda row: start[row["position"], row["prompt"]] - row["entropy_3"],
    )  # fmt: skip
    assert_table(found, ("round",), expected)
    bits = [int(run.messages["bits"].iloc[0]) * index for index in range(len(found))]
    assert found["sent"].tolist() == bits
    np.testing.assert_allclose(found["per_bit"][1:], found["value"][1:] / bits[1:])


def test_calibration_and_posterior_error_of_a_run_with_beliefs(tmp_path: Path) -> None:
    run = open_run(simulate(TINY, out=tmp_path).folder or "")
    rows, truths = rows_of(run.workspaces), {row["prompt"]: row for row in rows_of(run.truths)}

    def divergence(row: dict[str, Any]) -> float:
        p = [truths[row["prompt"]][f"exact_{atom}"] for atom in range(8)]
        q = [row[f"belief_{atom}"] for atom in range(8)]
        return sum(a * math.log2(a / max(b, 2.0**-126)) for a, b in zip(p, q, strict=True) if a > 2.0**-126)

    found = beliefs.posterior_error(run.workspaces, run.truths)
    expected = over_prompts(rows, ("round",), divergence)
    assert_table(found, ("round",), expected)
    assert found["value"].iloc[0] == pytest.approx(3.0, abs=0.2), (
        "the prior is three bits away from certainty"
    )
    heard = sorted((row for row in rows if row["round"]), key=lambda row: row["claimed"])
    binned = [{**row, "bin": math.ceil(10 * (index + 1) / len(heard))} for index, row in enumerate(heard)]
    calibration = beliefs.calibration(run.workspaces)
    assert calibration["bin"].tolist() == list(range(1, 11))
    assert calibration["claimed"].is_monotonic_increasing
    assert_claimed = {b: mean(row["claimed"] for row in binned if row["bin"] == b) for b in range(1, 11)}
    np.testing.assert_allclose(calibration["claimed"], list(assert_claimed.values()), rtol=1e-5)
    slope = beliefs.calibration_slope(run.workspaces)
    for row in rows_of(slope):
        here = [one for one in rows if one["round"] == row["round"]]
        ratio = sum(one["error"] for one in here) / sum(one["claimed"] for one in here)
        assert row["value"] == pytest.approx(ratio)
        without = [
            sum(one["error"] for one in here if one["prompt"] != prompt)
            / sum(one["claimed"] for one in here if one["prompt"] != prompt)
            for prompt in truths
        ]
        count = len(without)
        spread = sum((value - mean(without)) ** 2 for value in without)
        assert row["se"] == pytest.approx(math.sqrt((count - 1) / count * spread), abs=1e-9)


def test_what_was_not_traced_gives_empty_tables() -> None:
    old = open_run(OLD)
    workspaces = old.workspaces.assign(claimed=np.nan)
    assert not len(beliefs.calibration(workspaces)) and not len(beliefs.calibration_slope(workspaces))
    truths = pd.DataFrame({"prompt": [0], "atom": [0]})
    assert not len(beliefs.posterior_error(old.workspaces, truths))


@pytest.mark.statistical
def test_beliefs_of_the_exact_law_are_calibrated(tmp_path: Path) -> None:
    """Where belief is exact, on the complete graph, error and claim agree: |z| < 4 in 3 rounds (2e-4)."""
    exact = {
        "task.tokens": 8,
        "task.prompts": 800,
        "run.rounds": 3,
        "run.trace": "full",
        "channel.noise": 1.0,
    }
    run = open_run(simulate(Experiment().with_values(exact), out=tmp_path).folder or "")
    slope = beliefs.calibration_slope(run.workspaces).query("round > 0")
    assert (np.abs((slope["value"] - 1) / slope["se"]) < 4).all()
