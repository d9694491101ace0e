"""Open a run as pandas frames."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds

from runner.experiment import Experiment
from runner.record import SCHEMA_VERSION


@dataclass(frozen=True)
class Run:
    """A run on disk. Each table is read when it is first asked for.

    Attributes:
        folder: the run's folder.
        manifest: what was run, with which code, and how far it came.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def experiment(self) -> Experiment:
        """The experiment that was run."""
        return Experiment.model_validate(self.manifest["experiment"])

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest["status"] == "complete")

    @cached_property
    def messages(self) -> pd.DataFrame:
        """round, sender, prompt, channel, code, value, wire (integer), clipped, bits."""
        return self._table("messages")

    @cached_property
    def workspaces(self) -> pd.DataFrame:
        """round, position, prompt, error |w - w_i|^2, effective (N_eff), estimate [d], and by level
        correct [D] and entropy [D] (bits)."""
        return self._table("workspaces")

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """round, prompt, risk (relative, mean over positions), clipped."""
        return self._table("prompts")

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """round, source, risk, risk_se, bits, messages, clipped."""
        return self._table("rounds")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """round, seconds: the one table that differs from engine to engine."""
        return self._table("timing")

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.exists():
            path = self.folder / f"{name}.parquet"
        if not path.exists():
            level = self.manifest["experiment"]["run"]["trace"]
            raise FileNotFoundError(
                f'{self.folder} holds no table "{name}": the run was traced with run.trace = "{level}"'
                + ("" if self.is_complete else ", and was stopped before its end")
            )
        return ds.dataset(path, format="parquet").to_table().to_pandas()


def open_run(path: Path | str) -> Run:
    """Open a run's folder.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the run was written by a newer schema.

    Example:
        >>> import tempfile
        >>> from runner.simulation import simulate
        >>> small = Experiment().with_values({"task.prompts": 20, "run.trace": "full"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = open_run(simulate(small, out=folder).folder)
        ...     len(run.messages) == 32 * 20 * 4
        True
    """
    folder = Path(path)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise FileNotFoundError(f"no run at {folder}: it has no manifest.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    if content["schema"] > SCHEMA_VERSION:
        raise ValueError(
            f"{folder} has schema {content['schema']}, this tokenfield reads up to {SCHEMA_VERSION}: "
            "upgrade it"
        )
    return Run(folder, content)
