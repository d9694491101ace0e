"""Open a run as pandas frames."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables import read_table
from runner.errors import Unreadable, UsageErrors, shown
from runner.experiment import Experiment, parse
from runner.tables import SCHEMA_VERSION, digest_of

_MOST_BYTES = 2**20  # of a manifest, which takes two KiB


@dataclass(frozen=True)
class Run:
    """A run on disk. Each table is read when it is first asked for, and whole.

    Raises:
        FileNotFoundError: for a table that the run did not store.
        Unreadable: for one whose files are missing, damaged, changed, not of this run, or do not fit into
            the memory.

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
        seals = self.manifest.get("tables", {})
        table = read_table(self.folder, name, self.experiment.run.rounds, seals.get(name))
        if table is None:
            raise FileNotFoundError(
                f'{self.folder} holds no table "{name}": the run was traced with run.trace = '
                f'"{self.experiment.run.trace}"'
                + ("" if self.is_complete else ", and was stopped before its end")
            )
        return table


def open_run(path: Path | str) -> Run:
    """Open a run's folder.

    A run that was stopped is opened too, and is not `is_complete`: its tables hold what it came to.

    Raises:
        FileNotFoundError: if there is no run.
        Unreadable: a ValueError, if the manifest is damaged, was changed since it was written, or is of a
            schema or an experiment that this version does not know; it names the file and what is wrong.

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
    try:
        if not manifest.is_file():
            raise FileNotFoundError(f"no run at {folder}: it has no manifest.json")
        with manifest.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise Unreadable(f"{manifest} cannot be read ({failure.strerror})") from None
    if len(text) > _MOST_BYTES:
        raise Unreadable(f"{manifest} is no manifest of a run: it has more than {_MOST_BYTES:,} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise Unreadable(f"{manifest} is damaged: {failure}") from None
    _check_manifest(manifest, content)
    return Run(folder, content)


def _check_manifest(path: Path, content: Any) -> None:
    """Refuse what no version wrote, what a newer one wrote, and what was changed since."""
    if not isinstance(content, dict) or type(schema := content.get("schema")) is not int or schema < 1:
        raise Unreadable(f"{path} is no manifest of a run: it states no schema from 1 to {SCHEMA_VERSION}")
    if schema > SCHEMA_VERSION:
        raise Unreadable(
            f"{path} has schema {shown(schema)}, this tokenfield reads up to {SCHEMA_VERSION}: upgrade it"
        )
    if "digest" in content and content["digest"] != digest_of(content):
        raise Unreadable(f"{path} was changed since it was written: its digest is that of other content")
    if content.get("status") not in ("running", "stopped", "complete"):
        given = shown(content.get("status"))
        raise Unreadable(f'{path} has status {given}; possible: "running", "stopped", "complete"')
    tables = content.get("tables", {})
    if not isinstance(tables, dict):
        raise Unreadable(f"{path} is damaged: tables = {shown(tables)}")
    experiment = content.get("experiment")
    try:
        if not isinstance(experiment, dict):
            raise Unreadable(f"{path} is damaged: experiment = {shown(experiment)}")
        parse(Experiment, experiment)
    except UsageErrors as failure:
        writer = shown(content.get("code"))
        raise Unreadable(f"{path}, written by {writer}, states an unknown experiment: {failure}") from None
