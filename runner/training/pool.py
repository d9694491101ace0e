"""Training of many models: who is trained beside whom, and in which process."""

import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch

from runner.training.checkpoint import SAVE_SECONDS, Checkpoint
from runner.training.cohort import Tell
from runner.training.stack import stackable
from runner.training.together import train_together
from runner.weights import Job, Recipe, Trained, address, cache_key, save_cached

_POLL_SECONDS = 0.1
_MOST = 16  # models side by side: beyond, a processor gains nothing and its cache overflows


def train_all(
    jobs: Sequence[Job],
    workers: int = 1,
    on_progress: Tell | None = None,
    folder: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> list[Trained]:
    """Train several models: those of one shape side by side, in so many processes of one thread each.

    The weights of a model depend neither on the number of processes nor on what is trained beside it.
    On CUDA there is one process.

    Args:
        jobs: what to train.
        workers: number of processes; 1 trains in this one.
        on_progress: told (index of the job, steps done, mean loss since the last call).
        folder: of the cache. Weights are put there as soon as a model is trained; until then checkpoints
            are kept there, from which an interrupted call goes on.
        save_seconds: between two checkpoints of a model, at least.

    Raises:
        ValueError: if the parts of a job do not fit together.
        Diverged: if a loss is not finite or explodes; the other jobs are ended.
        CheckpointRefused: if a checkpoint belongs to something else.
    """
    for job in jobs:
        check(job)
    tell = on_progress or _ignore
    here = partial(_train_part, jobs=jobs, folder=folder, save_seconds=save_seconds)
    if workers <= 1 or len(jobs) <= 1 or torch.cuda.is_available():
        found = dict(here(range(len(jobs)), tell=tell))
        return [found[index] for index in range(len(jobs))]
    context = get_context("spawn")
    queue: SimpleQueue[tuple[int, int, float]] = context.SimpleQueue()
    stop = context.Event()
    parts = shared_out([cost(job) for job in jobs], workers)
    with ProcessPoolExecutor(len(parts), context, _join_pool, (queue, stop)) as pool:
        try:
            waiting: set[Future[list[tuple[int, Trained]]]]
            waiting = {pool.submit(_train_in_pool, part, here) for part in parts}
            found = {}
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
    return [found[index] for index in range(len(jobs))]


def check(job: Job) -> None:
    """Refuse a job whose parts do not fit together.

    Raises:
        ValueError: naming what was given and what is possible.
    """
    rows, tokens = job.mixing.shape
    if rows not in (1, tokens):
        raise ValueError(f"mixing needs 1 row or as many as the {tokens} tokens, got {rows}")
    if not np.allclose(job.mixing.sum(axis=1), 1.0):
        raise ValueError("the rows of mixing must sum to 1: divide the weights by their sum")
    sizes, statistics = job.architecture, job.recipe.sampling == "statistics"
    if sizes.dim != job.prior.dim:
        raise ValueError(f"the architecture has dim {sizes.dim}, the prior {job.prior.dim}")
    if sizes.heads != job.channel.channels:
        raise ValueError(f"the architecture has {sizes.heads} heads, the channel {job.channel.channels}")
    if statistics and (rows > 1 or not np.allclose(job.mixing, 1 / tokens)):
        raise ValueError("statistics stand for tokens on the complete graph alone: sample tokens")


def cost(job: Job) -> float:
    """About how long a job takes, in units of its own."""
    sizes, tokens = job.architecture, 0 if job.recipe.sampling == "statistics" else job.mixing.shape[1]
    rows = job.mixing.shape[0]
    numbers = (sizes.width + sizes.heads) * (sizes.hidden if sizes.feedforward else 4)
    layer = rows * (numbers + 2000) + tokens * sizes.heads * 25 * (sizes.dim + 4)
    return job.recipe.steps * job.recipe.batch * float(layer) * sizes.layers


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


def groups(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs are trained side by side: those that differ in depth, seed and schedule alone."""
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        sizes, recipe = job.architecture, job.recipe
        bare = Recipe(batch=recipe.batch, sampling=recipe.sampling)
        name = address(job._replace(architecture=replace(sizes, layers=1), recipe=bare))
        alike[name if stackable(sizes, recipe.batch) else f"{name}, alone: {index}"].append(index)
    return [group[first : first + _MOST] for group in alike.values() for first in range(0, len(group), _MOST)]


def _train_part(
    indices: Sequence[int], tell: Tell, jobs: Sequence[Job], folder: Path | None, save_seconds: float
) -> Iterator[tuple[int, Trained]]:
    """Train some of the jobs in this process."""
    for group in groups([jobs[index] for index in indices]):
        members = [indices[place] for place in group]
        checkpoints = [Checkpoint(folder, jobs[index], save_seconds) for index in members]

        def named(place: int, step: int, loss: float, members: list[int] = members) -> None:
            tell(members[place], step, loss)

        for place, trained in train_together(
            [jobs[index] for index in members], tell=named, checkpoints=checkpoints
        ):
            if folder is not None:
                save_cached(folder, cache_key(*jobs[members[place]]), trained)
                checkpoints[place].remove()
            yield members[place], trained


_link: tuple["SimpleQueue[tuple[int, int, float]]", Event] | None = None  # of a process in a pool


def _join_pool(queue: "SimpleQueue[tuple[int, int, float]]", stop: Event) -> None:
    global _link
    _link = queue, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop


def _train_in_pool(
    part: Sequence[int], here: Callable[..., Iterator[tuple[int, Trained]]]
) -> list[tuple[int, Trained]]:
    if _link is None:
        raise RuntimeError("this process did not join a pool")
    queue, stop = _link

    def tell(index: int, step: int, loss: float) -> None:
        if stop.is_set():
            raise InterruptedError("training was stopped")
        queue.put((index, step, loss))

    return list(here(part, tell=tell))


def _ignore(index: int, step: int, loss: float) -> None: ...
