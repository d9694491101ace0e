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
from runner.storage.files import new_folder, storing, write_table, write_text

_HOME = "cells"  # below the study's folder, until it is complete
_CODE = "code"


class Cells:
    """The tables of a study, each kept as soon as it is computed; by name.

    A study of the same name that other code began, that came to its end, or that another process is at, is
    left alone: a folder of its own is made.

    Attributes:
        folder: of the study.
    """

    def __init__(self, parent: Path, name: str) -> None:
        self._lock: IO[str] | None = None
        for folder in sorted(parent.glob(f"{name}-*/{_HOME}"), reverse=True):
            if self._take(folder):
                self.folder = folder.parent
                return
        self.folder = new_folder(parent, name)
        write_text(self.folder / _HOME / _CODE, fingerprint())
        self._take(self.folder / _HOME)

    def _take(self, home: Path) -> bool:
        """Whether it is a study of this code that was stopped, and no other process is at it."""
        with suppress(OSError):
            lock = (home / _CODE).open()
            with suppress(BlockingIOError):
                # It is let go when this process ends, however it does.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lock.read() == fingerprint():
                    self._lock = lock
                    return True
            lock.close()
        return False

    def read(self, name: str) -> pd.DataFrame | None:
        """A table that was computed; None if it was not, or its file is damaged."""
        try:
            return pq.read_table(self._path(name)).to_pandas()
        except (OSError, pa.ArrowException):
            return None

    def keep(self, name: str, table: pd.DataFrame) -> None:
        """Keep a table.

        Raises:
            RunError: if it cannot be written.
        """
        write_table(self._path(name), pa.Table.from_pandas(table))

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
        return self.folder / _HOME / f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}.parquet"
