"""Training of many unconstrained models, each in one process."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from runner.unconstrained.cache import save
from runner.unconstrained.design import Job
from runner.unconstrained.training import Trained, train

Tell = Callable[[int, int, float], None]
Report = tuple[int, int, float]

_POLL_SECONDS = 0.1


def train_all(
    jobs: Sequence[Job], workers: int = 1, on_progress: Tell | None = None, folder: Path | None = None
) -> list[Trained]:
    """Train several models, the longest first, in at most so many processes of one thread each.

    The weights of a model depend neither on the number of processes nor on the other jobs. On CUDA there
    is one process.

    Args:
        jobs: what to train.
        workers: number of processes; 1 trains in this one.
        on_progress: told (index of the job, steps done, mean loss since the last call).
        folder: of the cache, where weights are put as soon as a model is trained.

    Raises:
        Diverged: if a loss is not finite or explodes; the other jobs are ended.
    """
    tell = on_progress or _ignore
    order = sorted(range(len(jobs)), key=lambda index: -cost(jobs[index]))
    found: dict[int, Trained] = {}
    if workers <= 1 or len(jobs) <= 1 or torch.cuda.is_available():
        for index in order:
            found[index] = _one(index, jobs[index], folder, tell)
        return [found[index] for index in range(len(jobs))]
    context = get_context("spawn")
    queue: SimpleQueue[Report] = context.SimpleQueue()
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _join_pool, (queue, stop)) as pool:
        try:
            named = {pool.submit(_one_in_pool, index, jobs[index], folder): index for index in order}
            waiting = set(named)
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                while not queue.empty():
                    tell(*queue.get())
                found |= {named[future]: future.result() for future in done}  # raises what the job raised
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    while not queue.empty():
        tell(*queue.get())
    return [found[index] for index in range(len(jobs))]


def cost(job: Job) -> float:
    """About how long a job takes, in units of its own."""
    design, tokens, dim = job.design, job.tokens, job.prior.dim
    if design.kind == "linear self-attention":
        step = tokens * dim * 20.0 + design.layers * (dim + 1) ** 3 * 24.0
    else:
        length = 2 * tokens if design.kind == "softmax" else tokens
        step = design.layers * length * (12.0 * design.width**2 + length * (2.0 * design.width + 20.0))
    return design.steps * design.batch * step


def _one(index: int, job: Job, folder: Path | None, tell: Tell) -> Trained:
    trained = train(job, on_progress=lambda step, loss: tell(index, step, loss))
    if folder is not None:
        save(folder, job, trained)
    return trained


_link: tuple["SimpleQueue[Report]", Event] | None = None  # of a process in a pool


def _join_pool(queue: "SimpleQueue[Report]", stop: Event) -> None:
    global _link
    _link = queue, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop


def _one_in_pool(index: int, job: Job, folder: Path | None) -> Trained:
    if _link is None:
        raise RuntimeError("this process did not join a pool")
    queue, stop = _link

    def tell(index: int, step: int, loss: float) -> None:
        if stop.is_set():
            raise InterruptedError("training was stopped")
        queue.put((index, step, loss))

    return _one(index, job, folder, tell)


def _ignore(index: int, step: int, loss: float) -> None: ...
