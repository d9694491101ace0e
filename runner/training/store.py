"""Trained weights: what they are, the folder where they are kept, and how to get those of a job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from runner.errors import DivergenceError, RunError, UnreadableError, WeightsError
from runner.progress import Progress
from runner.storage.arrays import SUFFIX, read_arrays, write_arrays
from runner.training.job import Model, TrainingJob, cache_key, code_version, difference

Tell = Callable[[int, int, float], None]  # index of the job, steps done, mean loss since the last call


@dataclass(frozen=True, eq=False)
class Trained(Generic[Model]):
    """What training gives.

    Attributes:
        job: what was trained.
        state: weights by name, single precision.
        losses: (step, mean loss since the entry before).
        seconds: wall time of training, which models that were trained side by side share.
        validation: (step, loss on the validation set), where one was asked.
    """

    job: TrainingJob[Model]
    state: dict[str, Float[np.ndarray, "..."]]  # arrays, which cross processes by value
    losses: list[tuple[int, float]]
    seconds: float
    validation: list[tuple[int, float]] = field(default_factory=list)

    def model(self) -> Model:
        """The trained model, on the CPU."""
        model = self.job.module()
        model.load_state_dict({name: torch.from_numpy(value) for name, value in self.state.items()})
        return model.eval()


@runtime_checkable
class TrainAll(Protocol):
    """Trains several jobs of one kind, and keeps each one's weights as soon as it is trained."""

    def __call__(
        self, jobs: Sequence[Any], workers: int, on_progress: Tell, folder: Path
    ) -> Sequence[Trained[Any]]:
        """The trained models, in the order of the jobs."""
        ...


def path_of(folder: Path, job: TrainingJob[Any]) -> Path:
    """Where the weights of a job are kept: any other job, or version of training, has another file."""
    return folder / f"{cache_key(job)}{SUFFIX}"


def save(folder: Path, trained: Trained[Any]) -> Path:
    """Keep weights: the file appears whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    path = path_of(folder, trained.job)
    header = {
        "of": {**trained.job.identity(), "code": code_version()},
        "losses": trained.losses,
        "seconds": trained.seconds,
        "validation": trained.validation,
    }
    write_arrays(path, header, trained.state)
    return path


def load(folder: Path, job: TrainingJob[Model]) -> Trained[Model] | None:
    """The weights of a job; None if there are none.

    Raises:
        WeightsError: if the file is damaged, or of another job or version of training.
    """
    path = path_of(folder, job)
    try:
        header, state = read_arrays(path)
        other = difference(header["of"], job)
        losses, validation = ([(int(s), float(x)) for s, x in header[k]] for k in ("losses", "validation"))
        seconds = float(header["seconds"])
    except FileNotFoundError:
        return None
    except (UnreadableError, KeyError, TypeError, ValueError) as failure:
        raise WeightsError(f"{path} cannot be used: {failure}. Delete it, and the model is trained") from None
    if other is not None:
        raise WeightsError(f"{path} holds weights of {other}. Delete it, and the model is trained")
    return Trained(job, state, losses, seconds, validation)


def obtain(
    jobs: Sequence[TrainingJob[Model]],
    train_all: TrainAll,
    folder: Path,
    workers: int,
    progress: Progress,
    noun: str,
) -> list[Trained[Model]]:
    """The trained model of each job; only what the folder lacks is trained, and the same job once.

    Args:
        jobs: one for each model.
        train_all: trains those that are missing.
        folder: where weights are kept.
        workers: processes that train side by side, at most.
        progress: shows how far training is.
        noun: what is trained, in the singular.

    Raises:
        RunError: if a loss is not finite or explodes, or a file is damaged or of something else.
        KeyboardInterrupt: with what a user is told.
    """
    keys = [cache_key(job) for job in jobs]
    try:
        found = {key: load(folder, job) for key, job in zip(keys, jobs, strict=True)}
        missing = {key: job for key, job in zip(keys, jobs, strict=True) if found[key] is None}
        if missing:
            models = _train(list(missing.values()), train_all, folder, workers, progress, noun)
            found |= zip(missing, models, strict=True)
    except KeyboardInterrupt:
        kept = f"What was trained is kept in {folder}; the same command continues from there"
        raise KeyboardInterrupt(kept) from None
    except UnreadableError as failure:
        raise RunError(f"training cannot continue: {failure}") from None
    except DivergenceError as failure:
        raise RunError(f"training failed: {failure} (transformer.learning_rate)") from None
    return [model for key in keys if (model := found[key]) is not None]


def _train(
    jobs: Sequence[TrainingJob[Model]],
    train_all: TrainAll,
    folder: Path,
    workers: int,
    progress: Progress,
    noun: str,
) -> Sequence[Trained[Model]]:
    """Train with a display of progress, in units of the time that a job takes."""
    done = [0.0] * len(jobs)
    label = f"training {len(jobs)} {noun}" + ("s" if len(jobs) > 1 else "")
    with progress.task(label, sum(job.cost for job in jobs)) as advance:

        def tell(index: int, step: int, loss: float) -> None:
            job = jobs[index]
            done[index] = job.cost * step / job.steps
            advance(sum(done), f"{job.label}: loss {loss:.4f}")

        return train_all(jobs, workers, tell, folder)
