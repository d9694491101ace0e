"""A sweep file: a base, what is varied, and the seeds."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, Strict

from runner.config.experiment import Document, Experiment, load, parse
from runner.config.files import presets
from runner.errors import UsageError, nearest

MOST_POINTS = 100_000

Values = Annotated[tuple[Any, ...], Field(min_length=1), Strict(False)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1), Strict(False)]


class SweepFile(Document):
    """What a sweep varies: every combination of the grid, for each entry of the list, with each seed.

    Attributes:
        base: an experiment file, relative to the sweep's, or a preset; the default experiment if left out.
        set: keys that all points have.
        grid: values of each dotted key.
        list: tables of dotted keys that go together.
        seeds: values of run.seed, which all points share: their prompts are the same, where they can be.
        target_se: standard error of the last round's risk; more seeds are taken until it is reached.
        most_seeds: up to which they are.
        on_failure: what happens when a point fails.
        retries: how often a failed point is tried again, if on_failure = "retry".
    """

    base: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(default_factory=dict)
    list: Annotated[tuple[dict[str, Any], ...], Strict(False)] = ()
    seeds: Seeds = (0,)
    target_se: float | None = Field(None, gt=0)
    most_seeds: int = Field(64, ge=1, le=10_000)
    on_failure: Literal["continue", "retry", "stop"] = "continue"
    retries: int = Field(2, ge=1, le=100)


class Point(NamedTuple):
    """One point of a sweep, without its seed.

    Attributes:
        keys: what sets it apart, by dotted key.
        experiment: what is run, with the first seed.
    """

    keys: dict[str, Any]
    experiment: Experiment


def read_sweep(path: Path) -> tuple[SweepFile, Experiment]:
    """A sweep file, and the experiment that it starts from.

    Raises:
        UsageError: if a file is missing, or asks for something impossible.
    """
    sweep = load(SweepFile, path)
    return sweep, base_of(sweep.base, path.parent)


def base_of(name: str | None, folder: Path) -> Experiment:
    """The experiment that a sweep starts from.

    Raises:
        UsageError: if there is no such file or preset.
    """
    if name is None:
        return Experiment()
    known = presets()
    file = folder / name
    if not file.is_file() and name not in known:
        possible = f"the path of an experiment file, or a preset: {', '.join(sorted(known))}"
        raise UsageError("base", name, possible, nearest(name, known))
    from runner.config.studies import Comparison

    return load(Comparison, file if file.is_file() else known[name]).experiment()


def points_of(sweep: SweepFile, base: Experiment) -> list[Point]:
    """Every point of a sweep, in the order of its file; all of them are checked here.

    Raises:
        UsageError: naming the point and the key, if one cannot be run; or if there are too many.

    Example:
        >>> sweep = SweepFile(grid={"task.tokens": (8, 16), "channel.bits": (2, 4)})
        >>> [point.keys for point in points_of(sweep, Experiment())][1]
        {'task.tokens': 8, 'channel.bits': 4}
    """
    together = sweep.list or ({},)
    count = len(together)
    for values in sweep.grid.values():
        count *= len(values)
    if count * len(sweep.seeds) > MOST_POINTS:
        raise UsageError("grid", f"{count:,} points", f"up to {MOST_POINTS:,} points times seeds")
    for entry in (sweep.set, *together, sweep.grid):
        if "run.seed" in entry:
            raise UsageError("run.seed", entry["run.seed"], "left out: seeds name it")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise UsageError(
            "seeds", sweep.seeds, "seeds that differ: one that is named twice has the same prompts"
        )
    common = base.with_values({**sweep.set, "run.seed": sweep.seeds[0]})
    found: dict[str, Point] = {}
    for entry in together:
        for values in product(*sweep.grid.values()):
            keys = {**entry, **dict(zip(sweep.grid, values, strict=True))}
            if "run.seed" in keys:
                raise UsageError(
                    "run.seed", keys["run.seed"], "left out of grid and list: it is what seeds name"
                )
            try:
                experiment = common.with_values(keys)
            except UsageError as failure:
                raise UsageError(
                    failure.key, failure.given, failure.possible, f"It is that of point {keys}"
                ) from None
            point = Point(keys, experiment)
            if experiment.identity() in found:
                other = found[experiment.identity()].keys
                raise UsageError(
                    "grid", keys, f"points that differ; this one is the same experiment as {other}"
                )
            found[experiment.identity()] = point
    return list(found.values())


def sweep_of(values: dict[str, Any]) -> SweepFile:
    """A sweep from what Python hands in.

    Raises:
        UsageError: as for a file.
    """
    return parse(SweepFile, {key: value for key, value in values.items() if value is not None}, {})
