"""Where simulations are played; a new engine is a module here and an entry in `ENGINES`."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runner.engines.base import Engine, Outcome
from runner.errors import UsageError

if TYPE_CHECKING:  # an actor process loads neither this nor what draws it
    from runner.progress import Progress


class EngineOptions(NamedTuple):
    """What an engine is opened with; each reads what it needs.

    Attributes:
        tokens_per_actor: token positions that an actor holds; "auto" for one actor on each core.
        address: of a running cluster; None for the environment's, or one of its own.
        progress: shows what takes long.
        folder: where a cluster of its own keeps sockets and logs; None for the environment's.
    """

    tokens_per_actor: int | Literal["auto"] = 1
    address: str | None = None
    progress: "Progress | None" = None
    folder: str | None = None


def check_local(options: EngineOptions) -> None:
    """Refuse what the engine in process would silently not do.

    Raises:
        UsageError: if a cluster, or a folder of one, was named.
    """
    for key, value in {"--address": options.address, "--ray-folder": options.folder}.items():
        if value is not None:
            raise UsageError(key, value, 'left out, or run.engine = "ray"; it is "local"')


def _local(options: EngineOptions) -> Engine:
    check_local(options)
    from runner.engines.local import LocalEngine

    return LocalEngine()


def prepare_ray(options: EngineOptions) -> None:
    """Set what Ray reads from the environment when it is imported.

    Raises:
        UsageError: if the cluster cannot be joined, or one of its own could not write to its folder.
    """
    from runner.engines.environment import prepare

    prepare(options.address, options.folder)


def _ray(options: EngineOptions) -> Engine:
    prepare_ray(options)
    from runner.engines.ray import RayEngine

    return RayEngine(*options)


def __getattr__(name: str) -> Any:
    """The Ray engine, loaded when it is asked for."""
    if name == "RayEngine":
        prepare_ray(EngineOptions())
        return import_module("runner.engines.ray").RayEngine
    raise AttributeError(f"module 'runner.engines' has no attribute {name!r}")


# What it takes to open each engine; Ray is imported only if it is wanted.
ENGINES: dict[str, Callable[[EngineOptions], Engine]] = {"local": _local, "ray": _ray}

__all__ = ["ENGINES", "Engine", "EngineOptions", "Outcome", "prepare_ray"]
