"""Open a run as pandas frames: all that was written, as it was written, or an error that says what is not."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from os import PathLike
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import UnreadableError, printable, shown
from analysis.resources import available_memory
from analysis.traces.location import Location, Place, place
from analysis.traces.nodes import numbered, unpacked, with_names
from analysis.traces.schema import (
    IN_PARTS,
    KEYS,
    SCHEMA_VERSION,
    SCHEMAS,
    TableDigest,
    digest_of,
    part_name,
    part_of,
)

_MOST_ROUNDS = 10**6
_MOST_BYTES = 2**20  # of a manifest, which takes two KiB
_VALUE_BYTES = 24  # of a number: in Arrow as on disk and in 64 bits, and in pandas, at once
_LIST_BYTES = 200  # of a list, which pandas keeps as an array of its own


@dataclass(frozen=True)
class Run:
    """A run on disk. Each table is read when it is first asked for, and whole.

    The round is `frame["round"]`, never `frame.round`, which is a method of every pandas frame:
    `frame.round == 1` is False without an error. Integers have 64 bits, whatever they take on disk, so that
    keys made of several columns do not overflow.

    Raises:
        FileNotFoundError: for a table that the run did not store.
        UnreadableError: for one whose files are missing, damaged, changed, not of this run, or do not fit
            into the memory.

    Attributes:
        folder: the run's folder.
        manifest: what was run, with which code, and how far it came.
    """

    folder: Place
    manifest: dict[str, Any]

    @property
    def experiment(self) -> SimpleNamespace:
        """The experiment that was run: `run.experiment.task.tokens`, and so on for every key of its file."""
        tables = self.manifest["experiment"].items()
        return SimpleNamespace(**{name: SimpleNamespace(**keys) for name, keys in tables})

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest["status"] == "complete")

    @cached_property
    def messages(self) -> pd.DataFrame:
        """round, sender, prompt, channel, code, value, wire (integer), clipped, bits; the round is
        `messages["round"]`, never `messages.round`, which is a method."""
        return self._table("messages")

    @cached_property
    def workspaces(self) -> pd.DataFrame:
        """round, position, prompt, error |w - w_i|^2, effective (N_eff), estimate [d], and by level
        correct [D] and entropy [D] (bits); the round is `workspaces["round"]`, never `workspaces.round`."""
        return self._table("workspaces")

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """round, prompt, risk (relative, mean over positions), clipped; the round is `prompts["round"]`,
        never `prompts.round`."""
        return self._table("prompts")

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """round, source, risk, risk_se, bits, messages, clipped; the round is `rounds["round"]`, never
        `rounds.round`."""
        return self._table("rounds")

    @cached_property
    def timing(self) -> pd.DataFrame:
        """round, seconds: the one table that differs from engine to engine; the round is `timing["round"]`,
        never `timing.round`."""
        return self._table("timing")

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """position, name, and the attributes of the nodes of a graph that was handed in or read from a file.

        Where the graph is of a family, and in runs that are older than this table, a name is its position.
        """
        try:
            if self.manifest.get("nodes") is None:
                return numbered(self.manifest["experiment"].get("task", {}).get("tokens"))
            return unpacked(self._table("nodes"))
        except UnreadableError:
            raise
        except ValueError as failure:
            raise UnreadableError(f"{self.folder}: who stands where is damaged ({failure})") from None

    def named(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A copy of a frame of this run with the names of its positions: `sender_name`, `position_name`.

        Args:
            frame: with a column sender, receiver or position; the names behind it are categories.

        Raises:
            ValueError: if the frame has no such column, or positions that the run has not.
        """
        return with_names(frame, self.nodes)

    def _table(self, name: str) -> pd.DataFrame:
        digests = self.manifest.get("tables", {})
        table = read_table(self.folder, name, self.experiment.run.rounds, digests.get(name))
        if table is None:
            if not self.experiment.run.rounds:
                raise FileNotFoundError(f'{self.folder} holds no table "{name}": run.rounds = 0')
            raise FileNotFoundError(
                f'{self.folder} holds no table "{name}": the run was traced with run.trace = '
                f'"{self.experiment.run.trace}"'
                + ("" if self.is_complete else ", and was stopped before its end")
            )
        kept = self.manifest["experiment"].get("trace", {}).get("columns")
        if name in KEYS and isinstance(kept, list):
            return table.loc[:, [column for column in table if column in KEYS[name] or column in kept]]
        return table


def open_run(path: Place | str) -> Run:
    """Open a run's folder.

    A run that was stopped is opened too, and is not `is_complete`: its tables hold what it came to.

    Args:
        path: of the folder, or its URI.

    Raises:
        FileNotFoundError: if there is no run.
        UnreadableError: a ValueError, if the manifest is damaged, was changed since it was written, or is of
            a schema that this version does not know; it names the file and what is wrong.

    Example:
        >>> import tempfile
        >>> from runner import Experiment, simulate
        >>> small = Experiment().with_values({"task.prompts": 20, "run.trace": "full"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = open_run(simulate(small, out=folder).folder)
        ...     len(run.messages) == 32 * 20 * 4
        True
    """
    if not isinstance(path, str | PathLike | Location):
        possible = "the path of a run's folder; a run is stored where runner.simulate is given out=..."
        raise UnreadableError(f"path = {shown(path)} is not possible; possible: {possible}")
    folder = place(path)
    manifest = folder / "manifest.json"
    try:
        if not manifest.is_file():
            raise FileNotFoundError(f"no run at {folder}: it has no manifest.json")
        with manifest.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise UnreadableError(f"{manifest} cannot be read ({failure.strerror})") from None
    if len(text) > _MOST_BYTES:
        raise UnreadableError(f"{manifest} is no manifest of a run: it has more than {_MOST_BYTES:,} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise UnreadableError(f"{manifest} is damaged: {failure}") from None
    _check_manifest(manifest, content)
    return Run(folder, content)


def _check_manifest(path: Place, content: Any) -> None:
    """Refuse what no version wrote, what a newer one wrote, and what was changed since."""
    if not isinstance(content, dict) or type(schema := content.get("schema")) is not int or schema < 1:
        raise UnreadableError(
            f"{path} is no manifest of a run: it states no schema from 1 to {SCHEMA_VERSION}"
        )
    if schema > SCHEMA_VERSION:
        raise UnreadableError(
            f"{path} has schema {shown(schema)}, this tokenfield reads up to {SCHEMA_VERSION}: upgrade it"
        )
    if "digest" in content and content["digest"] != digest_of(content):
        raise UnreadableError(f"{path} was changed since it was written: its digest is that of other content")
    if content.get("status") not in ("running", "stopped", "complete"):
        given = shown(content.get("status"))
        raise UnreadableError(f'{path} has status {given}; possible: "running", "stopped", "complete"')
    tables = content.get("tables", {})
    if not isinstance(tables, dict):
        raise UnreadableError(f"{path} is damaged: tables = {shown(tables)}")
    experiment = content.get("experiment")
    if not isinstance(experiment, dict):
        raise UnreadableError(f"{path} is damaged: experiment = {shown(experiment)}")
    for name, keys in experiment.items():
        if not isinstance(keys, dict):
            raise UnreadableError(f"{path} is damaged: experiment.{printable(name)} = {shown(keys)}")
    run = experiment.get("run", {})
    rounds, trace = run.get("rounds"), run.get("trace")
    if type(rounds) is not int or not 0 <= rounds <= _MOST_ROUNDS or not isinstance(trace, str):
        stated = f"run.rounds = {shown(rounds)}, run.trace = {shown(trace)}"
        raise UnreadableError(f"{path} is damaged: its experiment states {stated}")


def read_table(folder: Place, name: str, rounds: int, digest: Any = None) -> pd.DataFrame | None:
    """A table of a run, its integers in 64 bits; None if there is none.

    Args:
        folder: of the run.
        name: of the table.
        rounds: L of the run.
        digest: what the manifest says of the table's files; None where it says nothing.

    Raises:
        UnreadableError: if files are missing, damaged, not of this run, or larger than the memory.
    """
    files = _files(folder, name, rounds)
    if digest is not None:
        _check_digest(folder, name, files, digest)
    if not files:
        return None
    try:
        needed = sum(_checked(path, name) for path in files)
        if needed <= available_memory():
            return pa.concat_tables([_widened(_content(path)) for path in files]).to_pandas()
    except UnreadableError:
        raise
    except Exception as failure:  # pyarrow has errors of many kinds
        raise UnreadableError(f"{folder}: its table {name!r} cannot be read ({failure})") from None
    raise UnreadableError(
        f"{folder}: its table {name!r} takes {needed / 2**30:.1f} GiB of memory, and "
        f"{available_memory() / 2**30:.1f} GiB are free; read its files one by one, with pyarrow.parquet"
    )


def _files(folder: Place, name: str, rounds: int) -> list[Place]:
    """The files of a table, in the order in which they were written, without gaps."""
    if name not in IN_PARTS:
        path = folder / f"{name}.parquet"
        return [_own(folder, path)] if path.exists() or path.is_symlink() else []
    home = folder / name
    if not home.exists() and not home.is_symlink():
        return []
    _own(folder, home)
    if not home.is_dir():
        raise UnreadableError(f"{home} is no folder of Parquet files")
    first = 0 if name != "messages" else 1
    found = sorted(part for path in home.iterdir() if (part := part_of(path.name)))
    batches = range(len(found) // max(1, rounds + 1 - first) + 1)
    for part, expected in zip(found, product(batches, range(first, rounds + 1)), strict=False):
        if part != expected:
            raise UnreadableError(f"{home} lacks {part_name(*expected)}, and has {part_name(*part)}")
    return [_own(folder, home / part_name(*part)) for part in found]


def _own(folder: Place, path: Place) -> Place:
    """A path, if it does not lead out of the run's folder."""
    if isinstance(path, Location) or isinstance(folder, Location):
        return path
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to nothing, or to itself
        inside = False
    if not inside or not (path.is_file() or path.is_dir()):
        raise UnreadableError(
            f"{path} is a link that leaves the run's folder, or no file; put the file in its place"
        )
    return path


def _check_digest(folder: Place, name: str, files: list[Place], digest: Any) -> None:
    found = TableDigest()
    try:
        for path in files:
            found.add(path)
    except OSError as failure:
        raise UnreadableError(f"{folder}: its table {name!r} cannot be read ({failure})") from None
    if found.content() != digest:
        there, written = found.content()["files"], digest.get("files") if isinstance(digest, dict) else None
        words = f"of {written} files {there} are there" if there != written else "its bytes are others"
        raise UnreadableError(f"{folder}: its table {name!r} was changed since it was written: {words}")


def _checked(path: Place, name: str) -> int:
    """Memory that a file's rows take, in bytes, an estimate from above; refuses other columns."""
    schema = SCHEMAS[name]
    with path.open("rb") as file:
        part = pq.ParquetFile(file)
        if not part.schema_arrow.equals(schema):
            expected = ", ".join(f"{field.name} {field.type}" for field in schema)
            raise UnreadableError(f"{path} has other columns than the table {name!r} of a run: {expected}")
        groups = [part.metadata.row_group(index) for index in range(part.metadata.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
        lists = sum(pa.types.is_list(field.type) for field in schema) * part.metadata.num_rows
        return int(_VALUE_BYTES * values + _LIST_BYTES * lists)


def _content(path: Place) -> pa.Table:
    with path.open("rb") as file:
        return pq.ParquetFile(file, page_checksum_verification=True).read()


def _widened(table: pa.Table) -> pa.Table:
    """The same numbers with integers of 64 bits: those of the disk are so narrow that products overflow."""
    wide = [
        field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field for field in table.schema
    ]
    return table.cast(pa.schema(wide, table.schema.metadata))
