"""How a loop is compiled: to one signature, when it is first called, kept on disk for the next process."""

import inspect
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

OFF = "TOKENFIELD_NUMPY"  # set to 1, numpy's code is used throughout
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_TYPES = {"s": "int32", "i": "int64", "u": "uint64", "f": "float64", "b": "boolean"}


def _available() -> bool:
    """Whether numba can be had."""
    if os.environ.get(OFF, "0") not in ("", "0") or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return False
    return find_spec("numba") is not None


AVAILABLE = _available()


class Compiled:
    """A loop that is compiled when it is first called, once for all threads."""

    def __init__(self, signature: str, function: Callable[..., Any]) -> None:
        self.signature, self.function = signature, function
        self._lock = threading.Lock()
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return (self._compiled or self.compile())(*arguments)

    def compile(self) -> Callable[..., Any]:
        """Compile it, or load what another process compiled."""
        with self._lock:
            if self._compiled is None:
                import numba

                make = numba.njit(_signature(self.signature), cache=True, **_OPTIONS)
                self._compiled = make(self.function)
            return self._compiled


def compiled(signature: str) -> Callable[[Callable[..., Any]], Compiled]:
    """Compile a loop to one signature; another layout or type of an argument is an error.

    The order of additions is kept, and nothing is contracted or taken to be finite.

    Args:
        signature: type of the result, `v` for none, then one word for each argument: s, i, u, f, b for
            int32, int64, uint64, float64, boolean, and the number of axes, as in `f3`; a capital letter for
            an array that is written to. All arrays are contiguous.

    Example:
        >>> import numpy as np
        >>> @compiled("v f1 F1")
        ... def double(numbers, result):
        ...     for index in range(len(numbers)):
        ...         result[index] = 2.0 * numbers[index]
        >>> double.signature
        'v f1 F1'
    """

    def decorate(function: Callable[..., Any]) -> Compiled:
        return Compiled(signature, inspect.unwrap(function))

    return decorate


def _signature(words: str) -> str:
    """The signature as numba reads it."""
    result, *arguments = words.split()
    found = [_type(word) for word in arguments]
    return f"{'void' if result == 'v' else _type(result)}({', '.join(found)})"


def _type(word: str) -> str:
    kind, axes = _TYPES[word[0].lower()], int(word[1:])
    return f"Array({kind}, {axes}, 'C', readonly={word[0].islower()})" if axes else kind
