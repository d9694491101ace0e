"""A sweep file: a base, what is varied, and the seeds."""

import hashlib
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, Strict

from runner.config.experiment import Document, Experiment, load, parse
from runner.config.files import presets
from runner.errors import UsageError, nearest

MOST_POINTS = 100_000
_ALTERING = "intervene."

Values = Annotated[tuple[Any, ...], Field(min_length=1), Strict(False)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1), Strict(False)]


class Alteration(Document):
    """What is done to an experiment while it is played; in a sweep, keys `intervene.tokens` and so on.

    Attributes:
        tokens: positions whose messages, or workspaces, are other ones; a number for so many of the first.
        kind: silent, constant, flipped, random, adversarial or patched.
        size: of what they say instead; by default 1, of adversarial ones the clip of the channel.
        edges: pairs (sender, receiver) on which messages are silent, or patched.
        rounds: in which tokens or edges are altered; all if left out.
        trim: share of the messages about a code that each token leaves out of its mean, at either end.
        bits: bits of a scalar in a round and those that follow it, by round.

    Example:
        >>> Alteration(tokens=2).places, Alteration().is_none
        ((0, 1), True)
    """

    tokens: Annotated[int, Field(ge=0)] | Annotated[tuple[int, ...], Strict(False)] = ()
    kind: Literal["silent", "constant", "flipped", "random", "adversarial", "patched"] = "silent"
    size: float | None = Field(None, allow_inf_nan=False)
    edges: Annotated[tuple[Annotated[tuple[int, int], Strict(False)], ...], Strict(False)] = ()
    rounds: Annotated[tuple[int, ...], Strict(False)] | None = None
    trim: float = 0.0
    bits: dict[Annotated[int, Strict(False)], int] = Field(default_factory=dict)

    @property
    def places(self) -> tuple[int, ...]:
        """The positions."""
        return tuple(range(self.tokens)) if isinstance(self.tokens, int) else self.tokens

    @property
    def is_none(self) -> bool:
        """Whether nothing is altered."""
        return not (self.places or self.edges or self.trim or self.bits)

    def identity(self) -> str:
        """Stable id; empty if nothing is altered."""
        if self.is_none:
            return ""
        content = {**self.model_dump(mode="json"), "tokens": self.places}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=5).hexdigest()


class QuickSection(Document):
    """[quick]: what a sweep is cut down to by `--quick`; what is left out stays as it is.

    Attributes:
        set, grid, list, seeds: in their place; keys of `set` and of `grid` one by one.
    """

    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(default_factory=dict)
    list: Annotated[tuple[dict[str, Any], ...], Strict(False)] | None = None
    seeds: Seeds | None = None
    minutes: float | None = Field(None, gt=0)


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
        theory: whether the risk that theory predicts stands beside that of agents: by state evolution,
            `exact` at any N or `gaussian`, the mean field of large N.
        theory_samples: size of the Monte-Carlo sample over tasks and fields of that prediction.
        finding: what is decided of it, by the name of one of `analysis.report.findings`.
        minutes: that it takes on two cores, which the command says beforehand.
        quick: what `--quick` makes of it.
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
    theory: Literal["none", "exact", "gaussian"] = "none"
    theory_samples: int = Field(20_000, ge=2, le=10**8)
    finding: str | None = None
    minutes: float | None = Field(None, gt=0)
    quick: QuickSection | None = None

    def at_quick_size(self) -> "SweepFile":
        """The sweep, cut down.

        Raises:
            UsageError: if the file does not say to what.

        Example:
            >>> SweepFile(grid={"task.tokens": (8, 16)}, quick=QuickSection(seeds=(1,))).at_quick_size().seeds
            (1,)
        """
        if self.quick is None:
            raise UsageError("--quick", True, "a sweep whose file has a [quick] table, or a preset")
        values: dict[str, Any] = {
            "set": {**self.set, **self.quick.set},
            "grid": {**self.grid, **self.quick.grid},
            "quick": None,
            "minutes": self.quick.minutes,
        }
        for name in ("list", "seeds"):
            if (given := getattr(self.quick, name)) is not None:
                values[name] = given
        return self.model_copy(update=values)


class Point(NamedTuple):
    """One point of a sweep, without its seed.

    Attributes:
        keys: what sets it apart, by dotted key.
        experiment: what is run, with the first seed.
        alteration: what is done to it.
    """

    keys: dict[str, Any]
    experiment: Experiment
    alteration: Alteration = Alteration()

    def identity(self) -> str:
        """Stable id of all that determines its results."""
        return "-".join(filter(None, (self.experiment.identity(), self.alteration.identity())))


def sweeps() -> dict[str, Path]:
    """The sweep files that come with tokenfield, by name.

    Example:
        >>> "depth" in sweeps()
        True
    """
    return {path.stem: path for path in Path(__file__).with_name("presets").glob("sweeps/*.toml")}


def read_sweep(path: Path) -> tuple[SweepFile, Experiment]:
    """A sweep file, or a preset by its name, and the experiment that it starts from.

    Raises:
        UsageError: if a file is missing, or asks for something impossible.
    """
    known = sweeps()
    if not path.is_file() and path.suffix != ".toml":
        if str(path) not in known:
            possible = f"the path of a sweep file, or a preset: {', '.join(sorted(known))}"
            raise UsageError("SWEEP", str(path), possible, nearest(str(path), known))
        path = known[str(path)]
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
    given, changes = _split(sweep.set)
    common = base.with_values({**given, "run.seed": sweep.seeds[0]})
    found: dict[str, Point] = {}
    for entry in together:
        for values in product(*sweep.grid.values()):
            keys = {**entry, **dict(zip(sweep.grid, values, strict=True))}
            if "run.seed" in keys:
                raise UsageError(
                    "run.seed", keys["run.seed"], "left out of grid and list: it is what seeds name"
                )
            try:
                own, altering = _split(keys)
                experiment = common.with_values(own)
                alteration = parse(Alteration, {}, {**changes, **altering})
            except UsageError as failure:
                prefix = _ALTERING if failure.key.partition(".")[0] in Alteration.model_fields else ""
                raise UsageError(
                    prefix + failure.key, failure.given, failure.possible, f"It is that of point {keys}"
                ) from None
            point = Point(keys, experiment, alteration)
            if point.identity() in found:
                other = found[point.identity()].keys
                raise UsageError(
                    "grid", keys, f"points that differ; this one is the same experiment as {other}"
                )
            found[point.identity()] = point
    return list(found.values())


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys of the experiment, and those of what is done to it, without their first word."""
    own = {key: value for key, value in values.items() if not key.startswith(_ALTERING)}
    rest = {key.removeprefix(_ALTERING): value for key, value in values.items() if key not in own}
    return own, rest


def plain(value: Any) -> Any:
    """A number of numpy, which Python may hand in, as one of Python.

    Example:
        >>> type(plain(np.int64(3))).__name__
        'int'
    """
    return value.item() if isinstance(value, np.generic) else value


def sweep_of(values: dict[str, Any]) -> SweepFile:
    """A sweep from what Python hands in.

    Raises:
        UsageError: as for a file.
    """
    return parse(SweepFile, {key: value for key, value in values.items() if value is not None}, {})
