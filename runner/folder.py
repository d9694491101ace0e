"""Folders of runs: fresh ones, and files in them that appear only when they are whole."""

import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def new_folder(parent: Path, name: str) -> Path:
    """A fresh folder `name`-time below `parent`; never one that exists."""
    parent.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1000):
        folder = parent / (f"{name}-{stamp}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent / name}-{stamp}")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file that appears only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def git_revision() -> str | None:
    """Revision of the source, if it is a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
