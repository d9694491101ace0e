"""Named arrays with a header in one file: no pickle, so that reading a file runs no code of it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from jaxtyping import Shaped
from numpy.lib.format import read_array, write_array

_HEADER = "header"


class Unreadable(ValueError):
    """A file that `write_arrays` did not write, or that was damaged since."""


def write_arrays(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]
) -> None:
    """Write a file that appears whole or not at all, whatever happens meanwhile.

    Args:
        path: of the file; its folder is made.
        header: what JSON can hold.
        arrays: by name; no name is "header".

    Source: numpy.lib.format, version 1.0, without objects.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    try:
        with temporary.open("wb") as file:
            with ZipFile(file, "w") as archive:
                for name, array in {_HEADER: text, **arrays}.items():
                    with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                        write_array(entry, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, Shaped[np.ndarray, "..."]]]:
    """Header and arrays of a file.

    Raises:
        FileNotFoundError: if there is none.
        Unreadable: if it is not such a file.
    """
    arrays = {}
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as entry:
                    arrays[name.removesuffix(".npy")] = read_array(entry, allow_pickle=False)
        header = json.loads(arrays.pop(_HEADER).tobytes())
    except FileNotFoundError:
        raise
    except Exception as failure:  # zip, zlib, numpy and json each have errors of their own
        raise Unreadable(f"{path} is damaged or not a file of tokenfield ({failure})") from None
    return header, arrays


def remove_arrays(path: Path) -> None:
    """Remove a file, and what writers that were killed left of it."""
    for leftover in path.parent.glob(f"{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
