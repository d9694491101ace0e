"""What all studies share: what they run with, and what they give."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa

from analysis.report.tables import Display
from runner.built import Built
from runner.config.experiment import Experiment
from runner.config.studies import Comparison
from runner.engines import Engine
from runner.errors import RunError
from runner.progress import Progress
from runner.storage.cells import Cells
from runner.storage.files import write_table, write_text

if TYPE_CHECKING:  # torch, which a simulation does without
    from agents.transformer.model import Transformer
    from runner.training import Trained

Key = TypeVar("Key")
Item = TypeVar("Item")
Found = TypeVar("Found")


class Session(NamedTuple):
    """What a study runs with.

    Attributes:
        engine: plays all simulations; its actors are kept from one to the next.
        out: folder below which the study is stored, and weights are kept.
        workers: processes that train side by side.
        progress: shows how far the study is.
        name: first part of the name of its folder.
    """

    engine: Engine
    out: Path
    workers: int
    progress: Progress
    name: str

    @property
    def weights(self) -> Path:
        """Where trained weights are kept."""
        return self.out / "weights"

    def train(self, some: list[Built]) -> "list[Trained[Transformer]]":
        """The trained transformer of each experiment."""
        from runner.training import trained_models

        return trained_models(some, self.weights, self.workers, self.progress)


class Work:
    """A study under way: what it computed is kept, and what fails keeps nothing else from being computed.

    Attributes:
        session: what the study runs with.
        folder: where its tables, figures and traces are.
    """

    def __init__(self, session: Session, comparison: Comparison) -> None:
        self.session = session
        elsewhere = {"engine", "tokens_per_actor", "batch"}  # where it is played changes no number
        content = comparison.model_dump_json(exclude={"run": elsewhere})
        self._cells = Cells(session.out, f"{session.name}-{comparison.identity()}", content)
        self.folder = self._cells.folder
        self._failures: list[str] = []

    def tables(
        self,
        step: str,
        items: Mapping[Key, Item],
        note: Callable[[Key], str],
        compute: Callable[[Key, Item], pd.DataFrame],
    ) -> dict[Key, pd.DataFrame]:
        """The table of each item of a long step, kept or computed now; without those that failed."""
        found: dict[Key, pd.DataFrame] = {}
        with self.session.progress.task(step, len(items)) as advance:
            for done, (key, item) in enumerate(items.items()):
                advance(done, note(key))
                name = f"{step}, {key!r}"  # a note may round what keys tell apart
                table = self._cells.read(name)
                if table is None:
                    table = self.attempt(f"{step}, {note(key)}", partial(compute, key, item))
                    if table is None:
                        continue
                    self._cells.keep(name, table)
                found[key] = table
        return found

    def trained(
        self,
        items: Mapping[Key, Item],
        note: Callable[[Key], str],
        train: Callable[[list[Item]], Sequence[Found]],
    ) -> dict[Key, Found]:
        """The trained model of each item, side by side; where one fails, the others one by one."""
        try:
            return dict(zip(items, train(list(items.values())), strict=True))
        except RunError:
            alone = {
                key: self.attempt(f"training, {note(key)}", partial(train, [item]))
                for key, item in items.items()
            }
        return {key: found[0] for key, found in alone.items() if found}

    def attempt(self, name: str, compute: Callable[[], Found]) -> Found | None:
        """What is computed; None if it failed, which is said at once."""
        try:
            return compute()
        except RunError as failure:
            self._failures.append(f"{name}: {failure}")
            self.session.progress.say(f"failed: {self._failures[-1]}")
            return None

    def check(self) -> None:
        """End here if anything failed: a verdict on a part would mislead.

        Raises:
            RunError: naming all that failed.
        """
        if self._failures:
            kept = f"All else is kept in {self.folder}; the same command computes only what failed"
            raise RunError("; ".join([f"{len(self._failures)} failed", *self._failures, kept]))

    def run(self, play: Callable[["Work"], "Findings"]) -> "Findings":
        """Run the study to its end, and store its findings.

        Raises:
            RunError: if a part of it failed; the others are kept.
            KeyboardInterrupt: with what a user is told.
        """
        try:
            findings = play(self).saved()
            self._cells.finish()
        except KeyboardInterrupt as stop:
            kept = f"What was computed is kept in {self.folder}; the same command continues there"
            raise KeyboardInterrupt(f"{stop}. {kept}" if str(stop) else kept) from None
        finally:
            self._cells.close()
        return findings


def study(comparison: Comparison, play: Callable[[Work], "Findings"]) -> Callable[[Session], "Findings"]:
    """What runs a study, or continues one of the same keys where it was stopped.

    Args:
        comparison: what the findings depend on.
        play: computes them.
    """
    return lambda session: Work(session, comparison).run(play)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a study gives.

    Attributes:
        frames: tidy tables by name, each with a column `source` where there are several sources.
        sentence: what was seen.
        folder: where tables, figures and traces are.
        figures: paths of the figures.
        numbers: what is not in a table.
        displays: what a terminal shows.
    """

    frames: Mapping[str, pd.DataFrame]
    sentence: str
    folder: Path
    figures: list[Path]
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    displays: list[Display] = field(default_factory=list)

    def answer(self) -> dict[str, object]:
        """All of it in what JSON can hold."""
        return {
            **{name: json.loads(frame.to_json(orient="records")) for name, frame in self.frames.items()},
            **self.numbers,
            "sentence": self.sentence,
            "figures": [str(path) for path in self.figures],
            "run": str(self.folder),
        }

    def saved(self) -> "Findings":
        """The same, after tables and sentence were written into the folder.

        Raises:
            RunError: if they cannot be written.
        """
        for name, frame in self.frames.items():
            write_table(self.folder / f"{name}.parquet", pa.Table.from_pandas(frame, preserve_index=False))
        write_text(self.folder / "verdict.txt", self.sentence + "\n")
        return self


def parameters(experiment: Experiment) -> str:
    """The parameters that every figure states: N, graph, prior, d, sigma, K, b, c, tau.

    Example:
        >>> parameters(Experiment())[:33]
        'N = 32, complete graph, σ = 0.1; '
    """
    task, channel, prior = experiment.task, experiment.channel, experiment.prior
    graph = experiment.graph.kind.replace("_", " ")
    return (
        f"N = {task.tokens}, {graph} graph, σ = {task.label_noise:g}; {prior.kind.replace('_', ' ')} prior: "
        f"{prior.levels} levels, branching {prior.branching}, ρ = {prior.decay:g}, d = {prior.dim}; "
        f"K = {channel.channels}, b = {channel.bits} bits, c = {channel.clip:g}, τ = {channel.noise:g}"
    )


class Study(NamedTuple):
    """One kind of comparison.

    Attributes:
        asked: whether a file asks for it.
        prepare: builds and checks all experiments, before anything starts; gives what runs them.
    """

    asked: Callable[[Comparison], bool]
    prepare: Callable[[Comparison], Callable[[Session], Findings]]
