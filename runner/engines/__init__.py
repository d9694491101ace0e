"""Where simulations are played; a new engine is a module here and an entry in `ENGINES`."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from runner.engines.base import Engine, Outcome

if TYPE_CHECKING:  # an actor process loads neither this nor what draws it
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
    from runner.engines.local import LocalEngine

    return LocalEngine()


def _ray(options: EngineOptions) -> Engine:
    from runner.engines.environment import prepare

    prepare(joining=bool(options.address or os.environ.get("RAY_ADDRESS")))  # before Ray is imported
    from runner.engines.ray import RayEngine

    return RayEngine(*options)


# What it takes to open each engine; Ray is imported only if it is wanted.
ENGINES: dict[str, Callable[[EngineOptions], Engine]] = {"local": _local, "ray": _ray}

__all__ = ["ENGINES", "Engine", "EngineOptions", "Outcome"]
