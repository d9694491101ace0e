"""Unconstrained models for experiments: taken from the cache, or trained and put there."""

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from runner.display import Display
from runner.errors import RunFailed
from runner.unconstrained.cache import WeightsRefused, load, path_of
from runner.unconstrained.design import Job
from runner.unconstrained.pool import cost, train_all
from runner.unconstrained.training import Trained


def trained_unconstrained(jobs: Sequence[Job], folder: Path, workers: int, display: Display) -> list[Trained]:
    """The trained model of each job; only what the cache lacks is trained, and the same job once.

    Args:
        jobs: from `job_of`, one for each model.
        folder: of the cache.
        workers: processes that train side by side, at most.
        display: shows the progress.

    Raises:
        RunFailed: if a loss is not finite or explodes, or a file in the cache is damaged or of something
            else.
    """
    paths = [path_of(folder, job) for job in jobs]
    try:
        found = {path: load(folder, job) for path, job in zip(paths, jobs, strict=True)}
    except WeightsRefused as failure:
        raise RunFailed(str(failure)) from None
    missing = {path: job for path, job in zip(paths, jobs, strict=True) if found[path] is None}
    if missing:
        try:
            models = _train(list(missing.values()), folder, workers, display)
        except FloatingPointError as failure:
            raise RunFailed(f"training failed: {failure}") from None
        found |= zip(missing, models, strict=True)
    return [model for path in paths if (model := found[path]) is not None]


def _train(jobs: Sequence[Job], folder: Path, workers: int, display: Display) -> list[Trained]:
    """Train with progress, in units of the time that a job takes."""
    work = [cost(job) for job in jobs]
    done = [0.0] * len(jobs)
    began = monotonic()
    label = f"training {len(jobs)} unconstrained model" + ("s" if len(jobs) > 1 else "")
    with display.task(label, sum(work)) as advance:

        def tell(index: int, step: int, loss: float) -> None:
            design = jobs[index].design
            done[index] = work[index] * step / design.steps
            left = (monotonic() - began) * (sum(work) / sum(done) - 1.0)
            advance(
                sum(done), f"{design.kind}, depth {design.layers}: loss {loss:.4f}, about {left:.0f} s left"
            )

        return train_all(jobs, workers, tell, folder)
