"""What a user launches: experiments, engines, training, comparison, the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runner.guard import check_packages

__tokenfield__ = "0.1.0"

check_packages()

if TYPE_CHECKING:
    from runner.continuation import resume
    from runner.experiment import Experiment
    from runner.simulation import Simulation, simulate

__all__ = ["Experiment", "Simulation", "resume", "simulate"]

_HOMES = {
    "Experiment": "runner.experiment",
    "resume": "runner.continuation",
    "Simulation": "runner.simulation",
    "simulate": "runner.simulation",
}


def __getattr__(name: str) -> Any:
    """Load what a user asks for when it is asked for: an actor process imports this package too."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
