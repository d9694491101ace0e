"""Measures: pure functions from numbers or frames to frames, with standard errors by prompt."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def __getattr__(name: str) -> Any:
    """A module of this package, loaded when it is asked for."""
    if name not in {module.name for module in iter_modules(__path__)}:
        raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
