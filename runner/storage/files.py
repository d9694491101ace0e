"""Folders and files that are written: checked before anything starts, and never in place of others."""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, overload

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.traces.location import Location, Place, written_whole
from runner.errors import RunError, UsageError

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # is set in what `ray job submit` starts
_SPLIT = (pa.float32(), pa.float64())
_COUNTED = {"sender", "position", "prompt"}
_GROUP = 2**17  # rows: what a filter skips, or reads, at once
_LONGEST_NAME = 100  # characters; behind them stand an identity and the time


def check_folder(folder: Place, key: str = "out") -> None:
    """Make a folder, and refuse one that cannot be written into, or that would be taken away.

    Args:
        folder: with its parents, which are made too.
        key: what the user named it by.

    Raises:
        UsageError: saying why it cannot be written.
    """
    if isinstance(folder, Location):
        _check_shared(folder, key)
        return
    if _JOB in os.environ and folder.absolute().is_relative_to(Path.cwd()):
        possible = "a URI (s3://..., file:///...), or a path outside of the job's own folder"
        advice = "The job's folder is a copy that Ray takes away: name another one with --out"
        raise UsageError(key, str(folder), possible, advice)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as failure:
        words = getattr(failure, "strerror", None) or str(failure)
        raise UsageError(key, str(folder), f"a folder that can be written ({words})") from None


def _check_shared(folder: Location, key: str) -> None:
    """Refuse shared storage that cannot be written."""
    probe = folder / f".{secrets.token_hex(4)}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as failure:
        words = str(failure).strip().splitlines()[-1]
        raise UsageError(key, str(folder), f"shared storage that can be written ({words})") from None


def check_name(name: str) -> None:
    """Refuse a name that would lead out of the folder that it is put in, or is none.

    Raises:
        UsageError: saying what a name is.
    """
    bounded = isinstance(name, str) and 0 < len(name.encode(errors="replace")) <= _LONGEST_NAME
    if not bounded or not name.isprintable() or name[0] in " .-" or set(name) & set("/\\"):
        possible = f"a plain name of 1 to {_LONGEST_NAME} bytes without slashes, dots or hyphens in front"
        raise UsageError("name", name, possible)


def name_of(file: str) -> str:
    """The name that a run has from its experiment file: of letters, digits, dots and hyphens.

    Example:
        >>> name_of("experiments/my tree.toml"), name_of("../\\n.toml")
        ('my-tree', 'run')
    """
    plain = re.sub(r"[^\w.-]+", "-", Path(file).stem).strip(".-")
    return plain.encode()[: _LONGEST_NAME // 2].decode(errors="ignore") or "run"


@overload
def new_folder(parent: Path, name: str) -> Path: ...
@overload
def new_folder(parent: Place, name: str) -> Place: ...
def new_folder(parent: Place, name: str) -> Place:
    """A fresh folder `name`-time below `parent`; never one that exists.

    Raises:
        UsageError: if the name would lead elsewhere.
        RunError: if it cannot be made.
    """
    check_name(name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    if isinstance(parent, Location):  # where two may make the same folder, and neither is told
        stamp += f"-{secrets.token_hex(4)}"
    with storing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            folder = parent / (f"{name}-{stamp}" + (f"-{attempt}" if attempt else ""))
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    raise RunError(f"{parent / name}-{stamp}: there are a thousand folders of that name; try again")


@contextmanager
def storing(path: Place) -> Iterator[None]:
    """Tell a user whose disk is full, or was taken away, what happened.

    Raises:
        RunError: in place of an OSError.
    """
    try:
        yield
    except OSError as failure:
        raise RunError(
            f"{path} cannot be written: {failure.strerror or failure}. What was stored before is kept; make "
            "room, or name another folder with --out"
        ) from failure


@contextmanager
def fresh_file(path: Place) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is whole; until then, and if that fails, there is none of its name.

    What lies in its place is replaced; a link is, not what it points to.

    Raises:
        RunError: if it cannot be written.
    """
    if isinstance(path, Location):
        with storing(path), written_whole(path) as whole:
            yield whole
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_table(path: Place, table: pa.Table) -> None:
    """Write a Parquet file that appears only when it is whole.

    Raises:
        RunError: if it cannot be written.
    """
    with fresh_file(path) as file:
        kinds = {field.name: field.type for field in table.schema}
        # The bytes of one significance together, and what counts by its differences, take half the room and
        # less time.
        split = [name for name, kind in kinds.items() if kind in _SPLIT or name == "wire"]
        encoding = dict.fromkeys(split, "BYTE_STREAM_SPLIT")
        encoding |= dict.fromkeys(kinds.keys() & _COUNTED, "DELTA_BINARY_PACKED")
        repeated = [name for name in kinds if name not in encoding and not pa.types.is_boolean(kinds[name])]
        pq.write_table(
            table,
            file,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=repeated,
            column_encoding=encoding,
            row_group_size=_GROUP,
        )


def write_text(path: Place, text: str) -> None:
    """Write a text file that appears only when it is whole.

    Raises:
        RunError: if it cannot be written.
    """
    with fresh_file(path) as file:
        file.write(text.encode())


def write_animation(figures: Sequence[Any], folder: Path, name: str, seconds: float = 1.0) -> Path:
    """Write `name`.gif, one picture for each figure, into a folder; returns its path.

    Args:
        figures: of matplotlib, of one size.
        folder: that exists.
        name: without an ending.
        seconds: that each is shown; the last one three times as long.

    Raises:
        RunError: if it cannot be written.
    """
    from PIL import Image

    pictures = []
    for figure in figures:
        with BytesIO() as drawn:
            figure.savefig(drawn, format="png", dpi=110, facecolor="white")
            pictures.append(Image.open(drawn).convert("RGB").quantize(256))
    times = [round(1000 * seconds)] * (len(pictures) - 1) + [round(3000 * seconds)]
    with fresh_file(folder / f"{name}.gif") as file:
        pictures[0].save(
            file, format="gif", save_all=True, append_images=pictures[1:], duration=times, loop=0
        )
    return folder / f"{name}.gif"


def write_figure(figure: Any, folder: Path, name: str) -> Path:
    """Write `name`.png and `name`.svg into a folder; returns the path of the PNG.

    Args:
        figure: of matplotlib.
        folder: that exists.
        name: without an ending.

    Raises:
        RunError: if they cannot be written.
    """
    target = folder / f"{name}.png"
    with fresh_file(target) as file:
        figure.savefig(file, format="png", dpi=200, facecolor="white")
    with fresh_file(target.with_suffix(".svg")) as file:
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    return target
