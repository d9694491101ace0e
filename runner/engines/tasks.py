"""Independent calls side by side, as Ray tasks: on the cores of this machine, or of a cluster."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from runner.engines.ray import connect, leave

_AHEAD = 2  # calls for each core that are on their way


@contextmanager
def on_ray(
    function: Callable[..., Any], address: str | None = None, folder: str | None = None
) -> Iterator[Callable[[Iterable[tuple[Any, ...]]], Iterator[tuple[int, Any]]]]:
    """A function that plays calls on Ray and gives (index, result or exception) as they end.

    A call whose worker is lost is played again by Ray; it must be a pure function of its arguments.

    Args:
        function: what is called.
        address: of a running cluster; by default one is started here, on all cores, and ended afterwards.
        folder: where that keeps its sockets and logs.

    Raises:
        UsageError: if a cluster was named and cannot be joined.
    """
    owned = connect(address, folder, ahead=None)
    remote: Any = ray.remote(num_cpus=1, max_retries=5, retry_exceptions=False)(function)
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]

    def play(calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        waiting, running = enumerate(calls), {}
        try:
            while True:
                for index, arguments in waiting:
                    running[remote.remote(*arguments)] = index
                    if len(running) >= _AHEAD * cores:
                        break
                if not running:
                    return
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                index = running.pop(done)
                try:
                    found = ray.get(done)
                except ray.exceptions.RayTaskError as failure:
                    found = failure.cause if isinstance(failure.cause, Exception) else failure
                except ray.exceptions.RayError as failure:
                    found = failure
                yield index, found
        finally:
            for call in running:
                ray.cancel(call, force=True)

    try:
        yield play
    finally:
        leave(owned)
