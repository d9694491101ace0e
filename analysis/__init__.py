"""What a user reads: traces, theory, measures, figures. Nothing here runs a simulation."""

import sys
from functools import partial
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


def _in_notebook(maker: str, thing: Any) -> Any:
    return getattr(import_module("analysis.report.notebook"), maker)(thing)


def _show_in_notebooks() -> None:
    """Tell a notebook how runs look, and our figures, which belong to no window and no pyplot."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        formatters = shell.display_formatter.formatters
        shown = {
            "text/html": ("of_run", _HOMES["Run"], "Run"),
            "image/png": ("of_figure", "matplotlib.figure", "Figure"),
        }
        for kind, (maker, module, name) in shown.items():
            formatters[kind].for_type_by_name(module, name, partial(_in_notebook, maker))


_show_in_notebooks()

__all__ = ["Run", "Runs", "Sweep", "measures", "open_run", "open_runs", "open_sweep", "plots", "theory"]


def __getattr__(name: str) -> Any:
    """Load what a user asks for when it is asked for: theory alone needs neither pandas nor pyarrow."""
    if name in _MODULES:
        return import_module(f"analysis.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
