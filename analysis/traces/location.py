"""Where a run lies: a folder of this machine, or one on shared storage, named by a URI.

Shared storage is reached through pyarrow's file systems (s3, gs, hdfs, ...). A `Location` offers the part of
`pathlib.Path` that runs need, so that whoever writes or reads a run need not know which of the two it is.
"""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from posixpath import basename, dirname
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pyarrow import fs

from analysis.errors import UnreadableError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WHOLE = ("s3", "gcs", "abfs")  # file systems where a file appears when it is closed, and not before


@dataclass(frozen=True)
class Location:
    """A file or folder on shared storage.

    Attributes:
        system: pyarrow's file system.
        path: within it.
        uri: by which a user names it, without a password.
    """

    system: Any
    path: str
    uri: str

    def __truediv__(self, name: str) -> "Location":
        head, mark, query = self.uri.partition("?")
        return Location(self.system, f"{self.path}/{name}", f"{head}/{name}{mark}{query}")

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """Its last part."""
        return basename(self.path)

    @property
    def parent(self) -> "Location":
        """What it lies in."""
        head, mark, query = self.uri.partition("?")
        return Location(self.system, dirname(self.path), f"{head.rpartition('/')[0]}{mark}{query}")

    def exists(self) -> bool:
        """Whether it is there, as a file or as a folder."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Whether it is a folder; object stores have one where anything lies in it."""
        return bool(self._info().type == fs.FileType.Directory)

    def is_symlink(self) -> bool:
        """False: shared storage is not followed through links."""
        return False

    def iterdir(self) -> "Iterator[Location]":
        """What lies in the folder."""
        for info in self.system.get_file_info(fs.FileSelector(self.path)):
            yield self / info.base_name

    def open(self, mode: str = "rb") -> Any:
        """The file of pyarrow, to read.

        Raises:
            OSError: if it cannot be read.
        """
        assert mode == "rb", mode
        return self.system.open_input_file(self.path)

    def read_text(self, encoding: str = "utf-8") -> str:
        """What is in the file."""
        with self.open() as file:
            return str(file.read(), encoding)

    def write_bytes(self, content: bytes) -> None:
        """Put a file in place, whole or not at all.

        Raises:
            OSError: if that fails.
        """
        if self.system.type_name in _WHOLE:
            with self.system.open_output_stream(self.path) as file:
                file.write(content)
            return
        partial = f"{self.parent.path}/.{self.name}.partial"
        with self.system.open_output_stream(partial) as file:
            file.write(content)
        self.system.move(partial, self.path)

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder, and those it lies in.

        Raises:
            FileExistsError: if it is there and may not be.
        """
        if not exist_ok and self.exists():
            raise FileExistsError(self.uri)
        self.system.create_dir(self.path, recursive=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self.system.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    @contextmanager
    def copied(self) -> Iterator[Path]:
        """A copy on this machine, for what reads files there alone."""
        with tempfile.NamedTemporaryFile() as file:
            with self.open() as source:
                file.write(source.read())
            file.flush()
            yield Path(file.name)

    def _info(self) -> Any:
        return self.system.get_file_info(self.path)


Place = Path | Location


def place(given: "str | PathLike[str] | Location") -> Place:
    """The folder of a path, or of a URI such as s3://bucket/runs or file:///shared/runs.

    Args:
        given: path or URI; credentials are better left to the environment than put into it.

    Raises:
        UnreadableError: a ValueError, if the URI names no file system that pyarrow knows, or it cannot be
            reached.

    Example:
        >>> place("runs"), place("file:///shared/my%20runs")
        (PosixPath('runs'), PosixPath('/shared/my runs'))
    """
    if isinstance(given, Location):
        return given
    text = str(given)
    if not _SCHEME.match(text):
        return Path(given)
    parts = urlsplit(text)
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            possible = "file:///path on this machine, or the URI of shared storage, as s3://bucket/runs"
            raise UnreadableError(f"{text} names a file of {parts.netloc}; possible: {possible}")
        if not parts.path:
            raise UnreadableError(f"{text} names no folder; possible: file:///path")
        return Path(unquote(parts.path))
    shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        system, path = fs.FileSystem.from_uri(text)
    except Exception as failure:  # pyarrow has errors of many kinds, and some quote the password
        words = str(failure).replace(text, shown)
        raise UnreadableError(f"{shown} is no storage that can be reached ({words})") from None
    head, mark, query = shown.partition("?")
    if not path.strip("/"):
        raise UnreadableError(f"{shown} names no bucket or folder; possible: a URI as s3://bucket/runs")
    return Location(system, path.rstrip("/"), head.rstrip("/") + mark + query)


@contextmanager
def on_this_machine(where: Place) -> Iterator[Path]:
    """The file itself, or a copy of it here.

    Raises:
        OSError: if it cannot be read.
    """
    if isinstance(where, Path):
        yield where
        return
    with where.copied() as copy:
        yield copy


@contextmanager
def written_whole(where: Location) -> Iterator[IO[bytes]]:
    """What is written into it is put in place when all of it was written, and not if that failed."""
    with suppress(OSError):  # object stores have no folders
        where.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    yield buffer
    where.write_bytes(buffer.getvalue())
