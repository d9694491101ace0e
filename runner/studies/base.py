"""What all studies share: what they run with, and what they give."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa

from analysis.report.tables import Display
from runner.config.experiment import Experiment
from runner.config.studies import Comparison
from runner.engines import Engine
from runner.progress import Progress
from runner.storage.files import write_table, write_text

Key = TypeVar("Key")
Item = TypeVar("Item")


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

    def each(
        self, step: str, items: Collection[tuple[Key, Item]], note: Callable[[Key], str]
    ) -> Iterator[tuple[Key, Item]]:
        """The items of a long step one after the other; the progress shows at which key it is."""
        with self.progress.task(step, len(items)) as advance:
            for done, (key, item) in enumerate(items):
                advance(done, note(key))
                yield key, item


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
