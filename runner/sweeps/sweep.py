"""Play the points of a sweep that are missing, keep each as soon as it is done, and write one tidy table.

Points are plain Ray tasks: each is one pure call that takes seconds and gives a few kilobytes, and what was
done is known by the digest of experiment and code. Ray Tune would add a folder for each trial, checkpoints,
and a scheduler for searches that stop early; Ray Data, blocks of rows. Neither is needed, and both would hide
the one thing that matters here: which points are missing.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from analysis.statistics import mean_over_prompts
from analysis.traces.location import Place
from analysis.traces.sweep import MANIFEST, PROMPTS, TABLE, Sweep, open_sweep
from runner.config.experiment import Experiment
from runner.config.sweep import Alteration, Point, SweepFile, base_of, plain, points_of, sweep_of
from runner.errors import RunError, UnreadableError, UsageError, expect
from runner.progress import Progress
from runner.source import fingerprint
from runner.storage.arrays import SUFFIX, read_arrays, write_arrays
from runner.storage.files import check_folder, check_name, write_table, write_text
from runner.sweeps.conclusion import check_finding, conclude, forget
from runner.sweeps.point import play_point
from runner.validate import local_place

Where = Literal["ray", "local"]
Play = Callable[[Iterable[tuple[Any, ...]]], Iterator[tuple[int, Any]]]
Call = tuple[
    Experiment, Alteration, str, int
]  # what is played and done to it; theory beside, and its samples


def sweep(
    base: Experiment | str | None = None,
    *,
    set: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    list: Sequence[Mapping[str, Any]] | None = None,
    seeds: Sequence[int] = (0,),
    target_se: float | None = None,
    most_seeds: int = 64,
    on_failure: Literal["continue", "retry", "stop"] = "continue",
    theory: Literal["none", "exact", "gaussian"] = "none",
    out: Path | str = "runs",
    name: str = "sweep",
    resume: bool = True,
    engine: Where = "ray",
    address: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Play every combination of a grid, for each entry of a list, with each seed.

    Args:
        base: experiment, or name of a preset or a file, that all points start from.
        set: keys that all points have.
        grid: values of each dotted key.
        list: dotted keys that go together.
        seeds: values of run.seed, which all points share: their prompts are the same where they can be.
        target_se: standard error of the last round's risk at which a point takes no more seeds.
        most_seeds: up to which it does.
        on_failure: go on with the others, try again, or stop.
        theory: whether the risk that theory predicts stands beside, from whole examples at any N or as mean
            field of large N.
        out: folder below which the sweep is kept, as sweep-NAME.
        name: of the sweep.
        resume: take what an earlier sweep of that name has done.
        engine: ray for tasks on all cores, local for one point after the other in this process.
        address: of a running cluster.
        progress: shows what is done.

    Raises:
        UsageError: if a point cannot be run; before anything starts.
        RunError: if on_failure = "stop" and a point fails, naming it.

    Example:
        >>> import tempfile
        >>> small = {"task.prompts": 50, "task.tokens": 8, "run.rounds": 2}
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = sweep(set=small, grid={"channel.noise": [0.0, 2.0]}, out=out, engine="local")
        ...     found.table[found.table["round"] == 2].set_index("channel.noise")["risk"].round(1).to_dict()
        {0.0: 0.2, 2.0: 0.7}
    """
    expect(
        "base", base, (Experiment, str, PathLike, NoneType), "an experiment, or the name of a file or preset"
    )
    expect("out", out, (str, PathLike), "the path of a folder")
    expect("set", set, (Mapping, NoneType), 'a dictionary of dotted keys, as {"task.tokens": 8}')
    expect("grid", grid, (Mapping, NoneType), 'a dictionary of lists, as {"channel.bits": [2, 4]}')
    for key, values in (grid or {}).items():
        expect(f"grid, {key}", values, (tuple, type([]), range, np.ndarray), "a list of values")
    expect("list", list, (tuple, type([]), NoneType), "a list of dictionaries")
    for entry in list or ():
        expect("list", entry, Mapping, 'dictionaries of dotted keys, as {"task.tokens": 8}')
    expect("seeds", seeds, (tuple, type([]), range, np.ndarray), "a list of integers")
    expect("progress", progress, (Progress, NoneType), "a Progress, or None")
    started = base if isinstance(base, Experiment) else base_of(None if base is None else str(base), Path())
    given = {
        "set": dict(set or {}),
        "grid": {key: tuple(map(plain, values)) for key, values in (grid or {}).items()},
        "list": tuple(dict(entry) for entry in (list or ())),
        "seeds": tuple(map(plain, seeds)),
        "target_se": target_se,
        "most_seeds": most_seeds,
        "on_failure": on_failure,
        "theory": theory,
    }
    return play_sweep(
        sweep_of(given), started, out, name, resume=resume, engine=engine, address=address, progress=progress
    )


def play_sweep(
    content: SweepFile,
    base: Experiment,
    out: Path | str,
    name: str,
    *,
    resume: bool,
    engine: Where = "ray",
    address: str | None = None,
    ray_folder: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Play what is missing of a sweep; see `sweep`."""
    expect("engine", engine, str, '"ray" or "local"')
    if engine not in ("ray", "local"):
        raise UsageError("engine", engine, '"ray" or "local"')
    check_name(name)
    check_finding(content, base)
    points, folder = points_of(content, base), local_place("--out", out) / f"sweep-{name}"
    check_folder(folder / "points", "--out")
    cells = Cells(folder)
    if not resume and cells.any():
        advice = "Continue it with --resume, or name another folder with --out"
        raise UsageError(
            "--out", str(folder), "a folder without a sweep; this one has points already", advice
        )
    forget(folder, content.finding)
    _write_manifest(folder, content, points)
    state = State(content, points, cells)
    showing = (progress or Progress(quiet=True)).task(f"{len(points)} points", state.wanted())
    try:
        with showing as advance, _playing(engine, address, ray_folder, bool(state.missing())) as play:
            _play(state, play, advance)
    finally:
        write_tables(folder, state)
    found = open_sweep(folder)
    if content.finding is not None and not state.failed:
        conclude(found, content.finding)
    return found


class Cells:
    """What was done, by the digest of experiment and code.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self._home = folder / "points"

    def any(self) -> bool:
        """Whether anything was done."""
        return any(self._home.glob(f"*{SUFFIX}"))

    def load(self, call: Call) -> dict[str, np.ndarray] | None:
        """What a point with its seed gave; None if it was not played by this code, or is damaged."""
        try:
            header, arrays = read_arrays(self._path(call))
        except (FileNotFoundError, UnreadableError):
            return None
        return arrays if header.get("code") == fingerprint() else None

    def save(self, call: Call, arrays: dict[str, np.ndarray]) -> None:
        """Keep what a point gave: whole or not at all."""
        experiment, alteration, theory, samples = call
        stated = {"experiment": experiment, "alteration": alteration}
        header = {name: part.model_dump(mode="json") for name, part in stated.items()}
        write_arrays(self._path(call), {"code": fingerprint(), "theory": [theory, samples], **header}, arrays)

    def _path(self, call: Call) -> Path:
        experiment, alteration, theory, samples = call
        beside = "" if theory == "none" else f"{theory}-{samples}"
        parts = (Point({}, experiment, alteration).identity(), beside)
        return self._home / f"{'-'.join(filter(None, parts))}-{fingerprint().rpartition('+')[2]}{SUFFIX}"


@dataclass(eq=False)
class State:
    """How far a sweep is.

    Attributes:
        content: what it varies.
        points: its points.
        cells: what is kept.
        done: arrays of each point and seed.
        failed: what was said of each point and seed that failed.
    """

    content: SweepFile
    points: Sequence[Point]
    cells: Cells
    done: dict[tuple[int, int], dict[str, np.ndarray]] = field(default_factory=dict)
    failed: dict[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in range(len(self.points)):
            for seed in self.seeds(index):
                arrays = self.cells.load(self.call(index, seed))
                if arrays is not None:
                    self.done[index, seed] = arrays

    def call(self, index: int, seed: int) -> Call:
        """What a point is played with, with its seed."""
        point = self.points[index]
        theory = self.content.theory, self.content.theory_samples
        return point.experiment.with_values({"run.seed": seed}), point.alteration, *theory

    def seeds(self, index: int) -> Iterator[int]:
        """The seeds that a point takes: those that are named, then more until its error is small enough."""
        taken = [*self.content.seeds]
        yield from taken
        while self.content.target_se is not None and len(taken) < self.content.most_seeds:
            error = self.error(index, taken)
            if error is None or error <= self.content.target_se:
                return
            taken.append(max(self.content.seeds) + 1 + len(taken) - len(self.content.seeds))
            yield taken[-1]

    def error(self, index: int, seeds: Sequence[int]) -> float | None:
        """Standard error of the last round's risk over some seeds; None if one of them is not done."""
        if any((index, seed) not in self.done for seed in seeds):
            return None
        risks = [self.done[index, seed]["risk"][-1] for seed in seeds]
        return float(mean_over_prompts(np.concatenate(risks)).error)

    def missing(self) -> list[tuple[int, int]]:
        """Points and seeds that are to be played now."""
        return [
            (index, seed)
            for index in range(len(self.points))
            for seed in self.seeds(index)
            if (index, seed) not in self.done and (index, seed) not in self.failed
        ]

    def wanted(self) -> int:
        """Points times seeds that are known to be wanted."""
        return len(self.points) * len(self.content.seeds)


@contextmanager
def _playing(engine: Where, address: str | None, folder: str | None, anything: bool) -> Iterator[Play]:
    """What plays calls: Ray, or this process."""
    if engine == "local" or not anything:
        yield _one_by_one
        return
    from runner.engines import EngineOptions, prepare_ray

    prepare_ray(EngineOptions(address=address, folder=folder))
    from runner.engines.tasks import on_ray

    with on_ray(play_point, address, folder) as play:
        yield play


def _one_by_one(calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    for index, arguments in enumerate(calls):
        try:
            found: Any = play_point(*arguments)
        except Exception as failure:
            found = failure
        yield index, found


def _play(state: State, play: Play, advance: Callable[..., None]) -> None:
    """Play what is missing, keep it, and play what is missing then, until nothing is."""
    tries = 1 + (state.content.retries if state.content.on_failure == "retry" else 0)
    for _ in range(tries):
        state.failed.clear()
        _play_missing(state, play, advance)
        if not state.failed:
            return


def _play_missing(state: State, play: Play, advance: Callable[..., None]) -> None:
    began, before = time.monotonic(), len(state.done)
    while missing := state.missing():
        calls = [state.call(*key) for key in missing]
        for index, found in play(calls):
            key = missing[index]
            if isinstance(found, Exception):
                _note_failure(state, key, found)
            else:
                state.cells.save(state.call(*key), found)
                state.done[key] = found
            finished = len(state.done) - before
            left = (time.monotonic() - began) / max(1, finished) * max(0, state.wanted() - len(state.done))
            words = f"{len(state.done)} done, {len(state.failed)} failed, about {left:.0f} s left"
            advance(len(state.done) + len(state.failed), words)


def _note_failure(state: State, key: tuple[int, int], failure: Exception) -> None:
    """Remember, and say at once, that a point failed.

    Raises:
        RunError: if the sweep is to stop then.
    """
    index, seed = key
    words = f"{failure}" or type(failure).__name__
    state.failed[key] = words
    named = f"point {state.points[index].keys} with seed {seed} failed: {words}"
    if state.content.on_failure == "stop":
        raise RunError(f"{named}. What was done is kept; continue with --resume") from failure
    Progress().say(named)


def write_tables(folder: Place, state: State) -> None:
    """The tidy table, and the risk of every prompt; the same bits, in whatever order points were played."""
    rows, prompts = [], []
    for index, point in enumerate(state.points):
        played = [
            (seed, state.done[index, seed]) for seed in state.seeds(index) if (index, seed) in state.done
        ]
        common = {"point": index, **point.keys}
        wrong = [words for (failed, _), words in sorted(state.failed.items()) if failed == index]
        if not played or wrong:
            status = "failed" if wrong else "missing"
            rows.append({**common, "status": status, "error": wrong[0] if wrong else None})
        if played and not wrong:
            rows += _rows(common, [arrays for _, arrays in played])
        for seed, arrays in played:
            prompts.append(_by_prompt(index, seed, arrays["risk"]))
    columns = ["point", *_keys(state.points), "round", "risk", "risk_se", "prompts", "seeds", "bits"]
    columns += ["theory", "theory_se"] if state.content.theory != "none" else []
    table = pd.DataFrame(rows, columns=[*columns, "status", "error"])
    for key in _keys(state.points):  # "auto" beside numbers, or lists, are words in the table
        table[key] = table[key].astype(object).where(table[key].notna(), None)  # not all points have all keys
        kinds = {type(value) for value in table[key] if value is not None}
        if (len(kinds) > 1 and not kinds <= {int, float}) or kinds & {list, tuple, dict}:
            table[key] = [None if value is None else f"{value}" for value in table[key]]
        elif kinds <= {int, float} and kinds:
            table[key] = pd.to_numeric(table[key])
    integers = ("round", "prompts", "seeds", "bits")
    table = table.astype({**dict.fromkeys(integers, "Int64"), "error": "string", "status": "string"})
    write_table(folder / TABLE, pa.Table.from_pandas(table, preserve_index=False))
    if prompts:
        write_table(
            folder / PROMPTS,
            pa.Table.from_pandas(pd.concat(prompts, ignore_index=True), preserve_index=False),
        )


def _rows(common: dict[str, Any], played: list[dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """A row for each round: prompts of all seeds are independent."""
    risk = mean_over_prompts(np.concatenate([arrays["risk"] for arrays in played], axis=1))
    bits = np.sum([arrays["bits"] for arrays in played], axis=0)
    count = sum(arrays["risk"].shape[1] for arrays in played)
    return [
        {
            **common,
            "round": index,
            "risk": float(risk.value[index]),
            "risk_se": float(risk.error[index]),
            "prompts": count,
            "seeds": len(played),
            "bits": int(bits[index]),
            **{name: float(played[0][name][index]) for name in ("theory", "theory_se") if name in played[0]},
            "status": "done",
            "error": None,
        }
        for index in range(len(risk.value))
    ]


def _by_prompt(index: int, seed: int, risk: Float[np.ndarray, "rounds B"]) -> pd.DataFrame:
    rounds, count = risk.shape
    return pd.DataFrame(
        {
            "point": np.full(risk.size, index),
            "seed": np.full(risk.size, seed),
            "round": np.repeat(np.arange(rounds), count),
            "prompt": np.tile(np.arange(count), rounds),
            "risk": risk.ravel(),
        }
    )


def _keys(points: Sequence[Point]) -> list[str]:
    return [*dict.fromkeys(key for point in points for key in point.keys)]


def _write_manifest(folder: Path, content: SweepFile, points: Sequence[Point]) -> None:
    stated = {
        "schema": 1,
        "keys": _keys(points),
        "points": len(points),
        "sweep": content.model_dump(mode="json"),
        "base": points[0].experiment.model_dump(mode="json"),
        "code": fingerprint(),
    }
    write_text(folder / MANIFEST, json.dumps(stated, indent=2) + "\n")
