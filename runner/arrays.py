"""Named arrays with a header in one file: no pickle, so that reading a file runs no code of it."""

import json
import os
from collections.abc import Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from jaxtyping import Shaped
from numpy.lib.format import read_array, read_array_header_1_0, read_magic, write_array

from runner.errors import Unreadable as Unreadable
from runner.folders import fresh_file

_HEADER = "header"
_NAMES = "arrays"  # the key of the header that tells which arrays there are
_SUFFIX = ".npy"
_KINDS = "biuf"  # truth values, integers, floats


def write_arrays(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]
) -> None:
    """Write a file that appears whole or not at all, whatever happens meanwhile.

    Args:
        path: of the file; its folder is made.
        header: what JSON can hold; no key is "arrays".
        arrays: of numbers, by name; no name is "header".

    Raises:
        RunFailed: if it cannot be written.

    Source: numpy.lib.format, version 1.0, without objects.
    """
    content = json.dumps({**header, _NAMES: sorted(arrays)})
    text = np.frombuffer(content.encode(), dtype=np.uint8)
    with fresh_file(path) as file:
        with ZipFile(file, "w") as archive:
            for name, array in {_HEADER: text, **arrays}.items():
                with archive.open(ZipInfo(name + _SUFFIX), "w", force_zip64=True) as entry:
                    write_array(entry, np.asarray(array), version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, Shaped[np.ndarray, "..."]]]:
    """Header and arrays of a file. Nothing in it takes more memory than the file is long.

    Raises:
        FileNotFoundError: if there is none.
        Unreadable: if it is not such a file.
    """
    arrays = {}
    try:
        with path.open("rb") as file, ZipFile(file) as archive:
            entries = archive.infolist()
            _check_sizes(entries, os.fstat(file.fileno()).st_size)
            for entry in entries:
                arrays[entry.filename.removesuffix(_SUFFIX)] = _numbers(archive.read(entry))
        header = json.loads(arrays.pop(_HEADER).tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no table of keys")
        if header.pop(_NAMES, sorted(arrays)) != sorted(arrays):
            raise ValueError("arrays are missing, or others are there")
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise Unreadable(f"{path} cannot be read ({failure.strerror or failure})") from None
    except Exception as failure:  # zip, zlib, numpy and json each have errors of their own
        raise Unreadable(f"{path} is damaged or not a file of tokenfield ({failure})") from None
    return header, arrays


def remove_arrays(path: Path) -> None:
    """Remove a file, and what writers that were killed left of it."""
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _check_sizes(entries: list[ZipInfo], size: int) -> None:
    """Refuse an archive that is larger than it looks, or says two things under one name."""
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("two arrays have one name")
    for entry in entries:
        if entry.compress_type != ZIP_STORED or not entry.filename.endswith(_SUFFIX):
            raise ValueError(f"{entry.filename[:100]!r} is not an array as tokenfield writes it")
    if sum(max(entry.file_size, entry.compress_size) for entry in entries) > size:
        raise ValueError("its arrays are larger than the file")


def _numbers(content: bytes) -> Shaped[np.ndarray, "..."]:
    """The array in the bytes of a .npy file, after its header was found to tell the truth."""
    stream = BytesIO(content)
    if read_magic(stream) != (1, 0):
        raise ValueError("an array of another format")
    shape, _, dtype = read_array_header_1_0(stream)
    if dtype.kind not in _KINDS or not dtype.isnative:
        raise ValueError(f"an array of type {dtype}, which is no number of this machine")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"an array of shape {shape} that holds {len(content) - stream.tell()} bytes")
    stream.seek(0)
    return read_array(stream, allow_pickle=False)
