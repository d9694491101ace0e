"""The folder of a study, and the tables that it computed so far: one that was stopped continues there."""

import fcntl
import hashlib
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from runner.source import fingerprint
from runner.storage.files import fresh_file, new_folder, storing, write_text

_HOME = "cells"  # below the study's folder, until it is complete
_STUDY = "study"  # by which code it was begun, with which keys
_DIGEST_BYTES = 16


class Cells:
    """The tables of a study, each kept as soon as it is computed; by name.

    A study that other code began or that has other keys, that came to its end, or that another process is at,
    is left alone: a folder of its own is made.

    Args:
        parent: folder below which studies lie.
        name: first part of the name of the study's folder.
        content: all keys that the study's tables depend on.

    Attributes:
        folder: of the study.
    """

    def __init__(self, parent: Path, name: str, content: str) -> None:
        self._lock: IO[str] | None = None
        self._study = f"{fingerprint()}\n{content}"
        for folder in sorted(parent.glob(f"{name}-*/{_HOME}"), reverse=True):
            if self._take(folder):
                self.folder = folder.parent
                return
        self.folder = new_folder(parent, name)
        write_text(self.folder / _HOME / _STUDY, self._study)
        self._take(self.folder / _HOME)

    def _take(self, home: Path) -> bool:
        """Whether it is a study of this code that was stopped, and no other process is at it."""
        with suppress(OSError):
            lock = (home / _STUDY).open(encoding="utf-8")
            with suppress(BlockingIOError):
                # It is let go when this process ends, however it does.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lock.read() == self._study:
                    self._lock = lock
                    return True
            lock.close()
        return False

    def read(self, name: str) -> pd.DataFrame | None:
        """A table that was computed; None if it was not, or its file is damaged."""
        try:
            stored = self._path(name).read_bytes()
        except OSError:
            return None
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if digest != _digest(content):
            return None
        return pq.read_table(pa.BufferReader(content)).to_pandas()

    def keep(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table.

        Raises:
            RunError: if it cannot be written.
        """
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(table), buffer, compression="zstd")
        content = buffer.getvalue().to_pybytes()
        with fresh_file(self._path(name)) as file:
            file.write(_digest(content) + content)

    def finish(self) -> None:
        """The study has come to its end: its own tables hold all of it."""
        with storing(self.folder):
            shutil.rmtree(self.folder / _HOME)
        self.close()

    def close(self) -> None:
        """Let others continue."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _path(self, name: str) -> Path:
        return self.folder / _HOME / f"{_digest(name.encode()).hex()}.table"


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
