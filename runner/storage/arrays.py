"""Named arrays with a header in one safetensors file, which holds no code and is known when it is damaged."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from analysis.traces.location import Location, Place, on_this_machine
from runner.errors import UnreadableError
from runner.storage.files import fresh_file

SUFFIX = ".safetensors"
_KINDS = "biuf"  # truth values, integers, floats


def write_arrays(
    path: Place, header: Mapping[str, Any], arrays: Mapping[str, Shaped[np.ndarray, "..."]]
) -> None:
    """Write a file that appears whole or not at all, whatever happens meanwhile.

    Args:
        path: of the file; its folder is made.
        header: what JSON can hold.
        arrays: of numbers, by name.

    Raises:
        ValueError: if an array holds anything but numbers.
        RunError: if it cannot be written.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise ValueError(f"{name} holds values of type {array.dtype}, and files hold numbers")
    exact = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(header)
    content = save(exact, metadata={"header": text, "digest": _digest(text, exact)})
    with fresh_file(path) as file:
        file.write(content)
        if not isinstance(path, Location):
            file.flush()
            os.fsync(file.fileno())


def read_arrays(path: Place) -> tuple[dict[str, Any], dict[str, Shaped[np.ndarray, "..."]]]:
    """Header and arrays of a file.

    Raises:
        FileNotFoundError: if there is none.
        UnreadableError: if it is not such a file, or was changed since it was written.
    """
    try:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        with on_this_machine(path) as here, safe_open(here, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header = json.loads(metadata["header"])
        if not isinstance(header, dict) or metadata["digest"] != _digest(metadata["header"], arrays):
            raise ValueError("its digest is that of other content")
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise UnreadableError(f"{path} cannot be read ({failure.strerror or failure})") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as failure:
        raise UnreadableError(f"{path} is damaged or not a file of tokenfield ({failure})") from None
    return header, arrays


def remove_arrays(path: Place) -> None:
    """Remove a file, and what writers that were killed left of it."""
    if not isinstance(path, Location):
        for leftover in path.parent.glob(f".{path.name}.*.partial"):
            leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _digest(header: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """Hash of all that a file says: names, types, shapes and numbers."""
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
    return digest.hexdigest()
