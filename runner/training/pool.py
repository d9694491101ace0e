"""Training in several processes of one thread each."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from threading import Thread
from typing import Any

import torch

from runner.training.store import Tell, Trained

_POLL_SECONDS = 0.1

Part = Sequence[int]  # indices of jobs that one process trains, one after the other or side by side
Train = Callable[[Part, Tell], Iterator[tuple[int, Trained[Any]]]]


def train_parts(parts: Sequence[Part], train: Train, workers: int, tell: Tell) -> list[Trained[Any]]:
    """Train all parts, each in one process, in the order in which processes are free; on CUDA in this one.

    Args:
        parts: which jobs are trained by one process; together they have all indices 0, 1, ...
        train: yields index and result of each job of a part; where processes are used it is pickled.
        workers: number of processes; 1 trains in this one.
        tell: told (index of the job, steps done, mean loss since the last call).

    Raises:
        Exception: what a job raised; the others are ended.
    """
    found: dict[int, Trained[Any]] = {}
    if workers <= 1 or len(parts) <= 1 or torch.cuda.is_available():
        for part in parts:
            found |= dict(train(part, tell))
        return [found[index] for index in range(len(found))]
    context = get_context("spawn")
    with _signals_blocked():  # the first of them starts the process that tracks them
        queue: SimpleQueue[tuple[int, int, float]] = context.SimpleQueue()
        stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(parts)), context, _join_pool, (queue, stop)) as pool:
        try:
            waiting: set[Future[list[tuple[int, Trained[Any]]]]]
            with _signals_blocked():
                waiting = {pool.submit(_train_in_pool, part, train) for part in parts}
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                while not queue.empty():
                    tell(*queue.get())
                for future in done:
                    found.update(future.result())  # raises what the job raised
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    while not queue.empty():
        tell(*queue.get())
    return [found[index] for index in range(len(found))]


def shared_out(costs: Sequence[float], workers: int) -> list[list[int]]:
    """Share jobs out to workers: the longest first, each to who has least to do.

    Source: R. L. Graham, Bounds on multiprocessing timing anomalies (1969), doi:10.1137/0117039.

    Example:
        >>> shared_out([1.0, 4.0, 9.0, 16.0], 2)
        [[3], [0, 1, 2]]
    """
    parts: list[list[int]] = [[] for _ in range(min(workers, len(costs)))]
    loads = [0.0] * len(parts)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        least = loads.index(min(loads))
        parts[least].append(index)
        loads[least] += costs[index]
    return [sorted(part) for part in parts]


_link: tuple["SimpleQueue[tuple[int, int, float]]", Event] | None = None  # of a process in a pool


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let what is started meanwhile hear of no signal to its group; this process hears of it afterwards.

    They come to the parent too, which says when to stop. A process that is interrupted while it is being
    started, or loads its packages, would end in a trace.
    """
    ending = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        resource_tracker.ensure_running()  # which lets the first two through again
        signal.pthread_sigmask(signal.SIG_BLOCK, ending)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join_pool(queue: "SimpleQueue[tuple[int, int, float]]", stop: Event) -> None:
    global _link
    _link = queue, stop
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed says nothing, and its queue stays open."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _train_in_pool(part: Part, train: Train) -> list[tuple[int, Trained[Any]]]:
    if _link is None:
        raise RuntimeError("this process did not join a pool")
    queue, stop = _link

    def tell(index: int, step: int, loss: float) -> None:
        if stop.is_set():
            raise InterruptedError("training was stopped")
        queue.put((index, step, loss))

    return list(train(part, tell))
