"""Several runs side by side: their tables stacked, with what differs between them as columns."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import UnreadableError
from analysis.traces.location import Location, Place, place
from analysis.traces.reader import Run, open_run


@dataclass(frozen=True, repr=False)
class Runs:
    """Runs in the order of their folders.

    Attributes:
        runs: the runs.
    """

    runs: tuple[Run, ...]

    def __repr__(self) -> str:
        differing = [name for name in map(str, self.parameters) if name != "run"]
        return f"Runs({len(self.runs)} runs, which differ in {', '.join(differing) or 'nothing'})"

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """A row for each run: its folder's name, and every key of the experiment in which any two differ."""
        flat = [_flat(run.manifest["experiment"]) for run in self.runs]
        keys = list(dict.fromkeys(key for one in flat for key in one))
        differing = [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat)]
        rows = [
            {"run": run.folder.name, **{key: one.get(key) for key in differing}}
            for run, one in zip(self.runs, flat, strict=True)
        ]
        return pd.DataFrame(rows, columns=["run", *differing])

    @property
    def messages(self) -> pd.DataFrame:
        """The messages of all runs."""
        return self.table("messages")

    @property
    def workspaces(self) -> pd.DataFrame:
        """The workspaces of all runs."""
        return self.table("workspaces")

    @property
    def prompts(self) -> pd.DataFrame:
        """Risk by round and prompt of all runs."""
        return self.table("prompts")

    @property
    def rounds(self) -> pd.DataFrame:
        """Risk by round of all runs."""
        return self.table("rounds")

    def table(
        self,
        name: str,
        *,
        rounds: Any = None,
        positions: Any = None,
        prompts: Any = None,
        columns: Any = None,
    ) -> pd.DataFrame:
        """A table of all runs, or some of it, behind the run's name and what differs.

        Args:
            name: of the table.
            rounds: which rounds.
            positions: which positions.
            prompts: which prompts.
            columns: which columns.
        """
        found = []
        for index, run in enumerate(self.runs):
            frame = run.table(name, rounds=rounds, positions=positions, prompts=prompts, columns=columns)
            for column, (key, value) in enumerate(self.parameters.iloc[index].items()):
                each = [value] * len(frame) if isinstance(value, list) else value
                frame.insert(column, str(key), each)
            found.append(frame)
        return pd.concat(found, ignore_index=True)


def open_runs(where: Place | str) -> Runs:
    """Open all runs of a folder, or those that a pattern names.

    Args:
        where: folder (or URI of one) that holds runs, or studies with runs; or a pattern, as runs/adaptive-*.

    Raises:
        FileNotFoundError: if there is none.
        UnreadableError: if one is damaged.

    Example:
        >>> import tempfile
        >>> from runner import Experiment, simulate
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for tokens in (8, 16):
        ...         small = Experiment().with_values({"task.prompts": 5, "task.tokens": tokens})
        ...         _ = simulate(small, out=folder)
        ...     open_runs(folder).rounds.groupby("task.tokens")["messages"].max().to_dict()
        {8: 40, 16: 80}
    """
    if not isinstance(where, str | PathLike | Location):
        raise UnreadableError(f"where = {where!r} is not possible; possible: a folder of runs, or a pattern")
    folders = sorted(_folders(where), key=str)
    if not folders:
        raise FileNotFoundError(f"no runs at {where}: no folder there has a manifest.json")
    return Runs(tuple(open_run(folder) for folder in folders))


def _folders(where: Place | str) -> list[Place]:
    """Folders of runs."""
    if not isinstance(where, Location) and glob.has_magic(str(where)):
        named = map(Path, glob.glob(str(where)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        return [found for found in named if (found / "manifest.json").is_file()]
    folder = place(where)
    if not folder.is_dir():
        return []
    if (folder / "manifest.json").is_file():
        return [folder]
    inside: list[Place] = [one for one in folder.iterdir() if one.is_dir()]
    return [run for one in inside for run in ([one] if (one / "manifest.json").is_file() else _below(one))]


def _below(folder: Place) -> list[Place]:
    """Runs one level further down, as studies keep them."""
    return [one for one in folder.iterdir() if one.is_dir() and (one / "manifest.json").is_file()]


def _flat(experiment: dict[str, Any]) -> dict[str, Any]:
    """Every key `table.key` of an experiment."""
    return {f"{table}.{key}": value for table, keys in experiment.items() for key, value in keys.items()}
