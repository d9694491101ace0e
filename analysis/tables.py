"""Reading the tables of a run: all that was written, as it was written, or an error that says what is not."""

from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import Unreadable
from runner.memory import available_memory
from runner.tables import IN_PARTS, SCHEMAS, Seal, part_name, part_of

_VALUE_BYTES = 24  # of a number, in Arrow and in pandas at once
_LIST_BYTES = 200  # of a list, which pandas keeps as an array of its own


def read_table(folder: Path, name: str, rounds: int, seal: Any = None) -> pd.DataFrame | None:
    """A table of a run; None if there is none.

    Args:
        folder: of the run.
        name: of the table.
        rounds: L of the run.
        seal: what the manifest says of the table's files; None where it says nothing.

    Raises:
        Unreadable: if files are missing, damaged, not of this run, or larger than the memory.
    """
    files = _files(folder, name, rounds)
    if seal is not None:
        _check_seal(folder, name, files, seal)
    if not files:
        return None
    try:
        needed = sum(_checked(path, name) for path in files)
        if needed <= available_memory():
            return pa.concat_tables([_content(path) for path in files]).to_pandas()
    except Unreadable:
        raise
    except Exception as failure:  # pyarrow has errors of many kinds
        raise Unreadable(f"{folder}: its table {name!r} cannot be read ({failure})") from None
    raise Unreadable(
        f"{folder}: its table {name!r} takes {needed / 2**30:.1f} GiB of memory, and "
        f"{available_memory() / 2**30:.1f} GiB are free; read its files one by one, with pyarrow.parquet"
    )


def _files(folder: Path, name: str, rounds: int) -> list[Path]:
    """The files of a table, in the order in which they were written, without gaps."""
    if name not in IN_PARTS:
        path = folder / f"{name}.parquet"
        return [_own(folder, path)] if path.exists() or path.is_symlink() else []
    home = folder / name
    if not home.exists() and not home.is_symlink():
        return []
    _own(folder, home)
    if not home.is_dir():
        raise Unreadable(f"{home} is no folder of Parquet files")
    first = 0 if name != "messages" else 1
    found = sorted(part for path in home.iterdir() if (part := part_of(path.name)))
    batches = range(len(found) // max(1, rounds + 1 - first) + 1)
    for part, expected in zip(found, product(batches, range(first, rounds + 1)), strict=False):
        if part != expected:
            raise Unreadable(f"{home} lacks {part_name(*expected)}, and has {part_name(*part)}")
    return [_own(folder, home / part_name(*part)) for part in found]


def _own(folder: Path, path: Path) -> Path:
    """A path, if it does not lead out of the run's folder."""
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to nothing, or to itself
        inside = False
    if not inside or not (path.is_file() or path.is_dir()):
        raise Unreadable(
            f"{path} is a link that leaves the run's folder, or no file; put the file in its place"
        )
    return path


def _check_seal(folder: Path, name: str, files: list[Path], seal: Any) -> None:
    found = Seal()
    try:
        for path in files:
            found.add(path)
    except OSError as failure:
        raise Unreadable(f"{folder}: its table {name!r} cannot be read ({failure})") from None
    if found.content() != seal:
        there, written = found.content()["files"], seal.get("files") if isinstance(seal, dict) else None
        words = f"of {written} files {there} are there" if there != written else "its bytes are others"
        raise Unreadable(f"{folder}: its table {name!r} was changed since it was written: {words}")


def _checked(path: Path, name: str) -> int:
    """Memory that a file's rows take, in bytes, an estimate from above; refuses other columns."""
    schema = SCHEMAS[name]
    with path.open("rb") as file:
        part = pq.ParquetFile(file)
        if not part.schema_arrow.equals(schema):
            expected = ", ".join(f"{field.name} {field.type}" for field in schema)
            raise Unreadable(f"{path} has other columns than the table {name!r} of a run: {expected}")
        groups = [part.metadata.row_group(index) for index in range(part.metadata.num_row_groups)]
        values = sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
        lists = sum(pa.types.is_list(field.type) for field in schema) * part.metadata.num_rows
        return int(_VALUE_BYTES * values + _LIST_BYTES * lists)


def _content(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pq.ParquetFile(file, page_checksum_verification=True).read()
