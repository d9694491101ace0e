"""The files of one table of a run as a frame: whole and checked, or the rows that are asked for."""

from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import UnreadableError
from analysis.resources import available_memory
from analysis.traces.location import Location, Place
from analysis.traces.schema import (
    IN_PARTS,
    TableDigest,
    part_name,
    part_of,
    rounds_of,
    schema_of,
)

_VALUE_BYTES = 24  # of a number: in Arrow as on disk and in 64 bits, and in pandas, at once
_PLACES = {"messages": "sender", "workspaces": "position", "nodes": "position", "graph": "sender"}


class Wanted(NamedTuple):
    """Which rows and columns of a table are asked for; None for all of them.

    Attributes:
        rounds: rounds.
        positions: senders of messages, positions of workspaces.
        prompts: indices of prompts.
        columns: names.
    """

    rounds: Collection[int] | None = None
    positions: Collection[int] | None = None
    prompts: Collection[int] | None = None
    columns: Collection[str] | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return all(part is None for part in self)


class Laid(NamedTuple):
    """How a run lies on disk, as its manifest says.

    Attributes:
        folder: of the run.
        rounds: L.
        prompts: of the run.
        batch: prompts in each part but the last.
        sizes: of numbered columns; None in the first two schemas.
        digests: of the tables of a complete run.
    """

    folder: Place
    rounds: int
    prompts: range
    batch: int
    sizes: Mapping[str, int] | None
    digests: Mapping[str, Any]


def read_table(laid: Laid, name: str, wanted: Wanted) -> pd.DataFrame | None:
    """A table of a run, its integers in 64 bits; None if there is none.

    A table that is read whole is checked against its digest; of one that is filtered only the files, and
    in them the row groups, that can hold a wanted row are read, and their checksums are checked.

    Args:
        laid: the run.
        name: of the table.
        wanted: rows and columns.

    Raises:
        UnreadableError: if files are missing, damaged, not of this run, or larger than the memory.
        ValueError: if the table has no such column, or nothing by which to filter.
    """
    folder, schema = laid.folder, schema_of(name, laid.sizes)
    files = files_of(laid, name)
    if not files:
        if name in laid.digests:
            _check_digest(folder, name, files, laid.digests[name])
        return None
    filters, columns = _filters(name, schema, wanted), _columns(name, schema, wanted.columns)
    if wanted.is_all and name in laid.digests:
        _check_digest(folder, name, files, laid.digests[name])
    files = [path for path in files if name not in IN_PARTS or _may_hold(laid, path, wanted)]
    try:
        needed = sum(_checked(path, name, schema) for path in files)
        if needed <= available_memory() or not wanted.is_all:
            tables = [_flat(_content(path, filters, columns)) for path in files]
            if not tables:
                tables = [_flat(schema.empty_table().select(columns or schema.names))]
            return _widened(pa.concat_tables(tables)).to_pandas()
    except UnreadableError:
        raise
    except Exception as failure:  # pyarrow has errors of many kinds
        raise UnreadableError(f"{folder}: its table {name!r} cannot be read ({failure})") from None
    raise UnreadableError(
        f"{folder}: its table {name!r} takes {needed / 2**30:.1f} GiB of memory, and "
        f"{available_memory() / 2**30:.1f} GiB are free; read some of it, with run.table({name!r}, "
        "rounds=[...], positions=[...], prompts=[...], columns=[...])"
    )


def files_of(laid: Laid, name: str) -> list[Place]:
    """The files of a table, in the order in which they were written, without gaps.

    Raises:
        UnreadableError: if some are missing, or lead out of the run's folder.
    """
    folder = laid.folder
    if name not in IN_PARTS:
        path = folder / f"{name}.parquet"
        return [_own(folder, path)] if path.exists() or path.is_symlink() else []
    home = folder / name
    if not home.exists() and not home.is_symlink():
        return []
    _own(folder, home)
    if not home.is_dir():
        raise UnreadableError(f"{home} is no folder of Parquet files")
    played = rounds_of(name, laid.rounds)
    found = sorted(part for path in home.iterdir() if (part := part_of(path.name)))
    batches = range(len(found) // max(1, len(played)) + 1)
    for part, expected in zip(found, product(batches, played), strict=False):
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


def _may_hold(laid: Laid, path: Place, wanted: Wanted) -> bool:
    """Whether a part can have a wanted row, by its name."""
    part = part_of(path.name)
    assert part is not None
    batch, index = part
    if wanted.rounds is not None and index not in wanted.rounds and path.parent.name != "truths":
        return False
    first = laid.prompts.start + batch * laid.batch
    held = range(first, min(first + laid.batch, laid.prompts.stop))
    return wanted.prompts is None or any(prompt in held for prompt in wanted.prompts)


def _filters(name: str, schema: pa.Schema, wanted: Wanted) -> list[tuple[str, str, list[int]]] | None:
    """What pyarrow skips row groups by, and drops rows."""
    by = {"rounds": "round", "positions": _PLACES.get(name, "position"), "prompts": "prompt"}
    found = []
    for kind, column in by.items():
        chosen: Iterable[int] | None = getattr(wanted, kind)
        if chosen is None or (name == "truths" and kind == "rounds"):
            continue
        if column not in schema.names:
            raise ValueError(f"{kind} = ...: the table {name!r} has no column {column!r} to choose by")
        found.append((column, "in", [int(index) for index in chosen]))
    return found or None


def _columns(name: str, schema: pa.Schema, wanted: Collection[str] | None) -> list[str] | None:
    if wanted is None:
        return None
    missing = [column for column in wanted if column not in schema.names]
    if missing:
        raise ValueError(f"columns = {missing}: the table {name!r} has {', '.join(schema.names)}")
    return list(wanted)


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


def _checked(path: Place, name: str, schema: pa.Schema) -> int:
    """Memory that a file's rows take, in bytes, an estimate from above; refuses other columns."""
    with path.open("rb") as file:
        part = pq.ParquetFile(file)
        if not part.schema_arrow.equals(schema):
            expected = ", ".join(f"{field.name} {field.type}" for field in schema)
            raise UnreadableError(f"{path} has other columns than the table {name!r} of a run: {expected}")
        groups = [part.metadata.row_group(index) for index in range(part.metadata.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
        return int(_VALUE_BYTES * values)


def _content(path: Place, filters: Any, columns: list[str] | None) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file, columns=columns, filters=filters, page_checksum_verification=True)


def _flat(table: pa.Table) -> pa.Table:
    """A table of the first two schemas with a numbered column for each place of its lists."""
    for name in [field.name for field in table.schema if pa.types.is_list(field.type)]:
        column, index = table[name].combine_chunks(), table.schema.get_field_index(name)
        table = table.remove_column(index)
        values = column.flatten()
        length = len(values) // max(1, len(column))
        for place in range(length):
            part = values.take(pa.array(np.arange(place, len(values), length)))
            table = table.append_column(f"{name}_{place + 1}", part)
    return table


def _widened(table: pa.Table) -> pa.Table:
    """The same numbers with integers of 64 bits: those of the disk are so narrow that products overflow."""
    wide = [
        field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field for field in table.schema
    ]
    return table.cast(pa.schema(wide, table.schema.metadata))
