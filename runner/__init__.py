"""What a user launches: experiments, engines, training, studies, the command line."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__tokenfield__ = "0.1.0"


def _refuse_foreign(name: str) -> None:
    """Refuse another distribution's package of our name, before any of its code runs."""
    spec = find_spec(name)
    read = getattr(spec and spec.loader, "get_source", lambda name: "")
    try:
        own = f'__tokenfield__ = "{__tokenfield__}"' in (read(name) or "")
    except ImportError:  # the file is not text in the encoding it claims
        own = False
    if not own:
        place = spec and (spec.origin or ", ".join(spec.submodule_search_locations or ()))
        raise ImportError(
            f"tokenfield needs its own package `{name}`, but Python finds another one or version first "
            f"at {place}. Uninstall the distribution that it belongs to, or rename the folder."
        )


_refuse_foreign("analysis")  # which has the check of all four

from analysis.guard import check_packages  # noqa: E402

check_packages()

if TYPE_CHECKING:
    from runner.built import Built, build
    from runner.config.experiment import Experiment
    from runner.engines.local import LocalEngine
    from runner.engines.ray import RayEngine
    from runner.prediction import predict
    from runner.simulation.resume import resume
    from runner.simulation.simulate import Simulation, simulate
    from runner.studies.comparison import compare
    from runner.sweeps.sweep import sweep
    from runner.training import train

_HOMES = {
    "Built": "runner.built",
    "Experiment": "runner.config.experiment",
    "LocalEngine": "runner.engines.local",
    "RayEngine": "runner.engines",
    "Simulation": "runner.simulation.simulate",
    "build": "runner.built",
    "compare": "runner.studies.comparison",
    "predict": "runner.prediction",
    "resume": "runner.simulation.resume",
    "simulate": "runner.simulation.simulate",
    "sweep": "runner.sweeps.sweep",
    "train": "runner.training",
}

__all__ = [
    "Built",
    "Experiment",
    "LocalEngine",
    "RayEngine",
    "Simulation",
    "build",
    "compare",
    "predict",
    "resume",
    "simulate",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load what a user asks for when it is asked for: an actor process imports this package too."""
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
