"""Where simulations are played; a new engine is a module here and an entry in `ENGINES`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.engines.base import Engine, Outcome
from runner.errors import UsageError

if TYPE_CHECKING:  # an actor process loads neither this nor what draws it
    from runner.engines.ray import RayEngine
    from runner.progress import Progress


class EngineOptions(NamedTuple):
    """What an engine is opened with; each reads what it needs.

    Attributes:
        tokens_per_actor: token positions that an actor holds.
        address: of a running cluster; None for the environment's, or one of its own.
        progress: shows what takes long.
    """

    tokens_per_actor: int = 1
    address: str | None = None
    progress: "Progress | None" = None


def _local(options: EngineOptions) -> Engine:
    if options.address is not None:
        raise UsageError("--address", options.address, 'left out, or run.engine = "ray"; it is "local"')
    from runner.engines.local import LocalEngine

    return LocalEngine()


def _ray(options: EngineOptions) -> Engine:
    return _ray_engine(options.address)(*options)


def _ray_engine(address: str | None = None) -> "type[RayEngine]":
    from runner.engines.environment import prepare

    prepare(address)  # before Ray is imported, which then reads it
    from runner.engines.ray import RayEngine

    return RayEngine


def __getattr__(name: str) -> Any:
    """The Ray engine, loaded when it is asked for."""
    if name == "RayEngine":
        return _ray_engine()
    raise AttributeError(f"module 'runner.engines' has no attribute {name!r}")


# What it takes to open each engine; Ray is imported only if it is wanted.
ENGINES: dict[str, Callable[[EngineOptions], Engine]] = {"local": _local, "ray": _ray}

__all__ = ["ENGINES", "Engine", "EngineOptions", "Outcome"]
