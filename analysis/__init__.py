"""What a user reads: theory, traces, measures, figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import runner  # which checks, as it is imported, that all four packages are tokenfield's own

__tokenfield__ = "0.1.0"

if getattr(runner, "__tokenfield__", None) is None:
    raise ImportError(
        f"tokenfield needs its own package `runner`, but Python finds another one at {runner.__file__}."
    )

if TYPE_CHECKING:
    from analysis.prediction import predict
    from analysis.traces import Run, open_run

__all__ = ["Run", "open_run", "predict"]

_HOMES = {"Run": "analysis.traces", "open_run": "analysis.traces", "predict": "analysis.prediction"}


def __getattr__(name: str) -> Any:
    """Load what a user asks for when it is asked for: theory alone needs neither pandas nor pyarrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
