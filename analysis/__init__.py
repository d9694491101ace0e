"""What a user reads: traces, theory, measures, figures. Nothing here runs a simulation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from analysis.guard import check_packages

__tokenfield__ = "0.1.0"

check_packages()

if TYPE_CHECKING:
    from analysis import measures, plots, theory
    from analysis.traces.reader import Run, open_run
    from analysis.traces.runs import Runs, open_runs
    from analysis.traces.sweep import Sweep, open_sweep

_HOMES = {
    "Run": "analysis.traces.reader",
    "Runs": "analysis.traces.runs",
    "Sweep": "analysis.traces.sweep",
    "open_run": "analysis.traces.reader",
    "open_runs": "analysis.traces.runs",
    "open_sweep": "analysis.traces.sweep",
}
_MODULES = ("measures", "plots", "theory")

__all__ = ["Run", "Runs", "Sweep", "measures", "open_run", "open_runs", "open_sweep", "plots", "theory"]


def __getattr__(name: str) -> Any:
    """Load what a user asks for when it is asked for: theory alone needs neither pandas nor pyarrow."""
    if name in _MODULES:
        return import_module(f"analysis.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
