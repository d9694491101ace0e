"""The state of a training: all that it needs to resume to the same bits, and its file."""

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from runner.errors import CheckpointError, UnreadableError
from runner.storage.arrays import SUFFIX, read_arrays, remove_arrays, write_arrays
from runner.training.job import Job, address, code_version, difference

SAVE_SECONDS = 2.0  # between two checkpoints of a model, at least


@dataclass
class TrainingState:
    """A model in training, after some steps.

    Attributes:
        step: steps done.
        weights: one row, as `WeightLayout` has it.
        mean, square: AdamW's moments of the gradient.
        generators: states of the generators of prompts and of each layer's noise.
        losses: (step, mean loss since the entry before).
        total: sum of the losses since the last entry.
        seconds: wall time so far.
        validation: (step, risk on the validation set).
        best: weights of the least risk on the validation set; None without one.
        ended: nothing is left to do.
    """

    step: int
    weights: Float[np.ndarray, " P"]
    mean: Float[np.ndarray, " P"]
    square: Float[np.ndarray, " P"]
    generators: UInt8[np.ndarray, "generators bytes"]
    losses: list[tuple[int, float]] = field(default_factory=list)
    total: float = 0.0
    seconds: float = 0.0
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: Float[np.ndarray, " P"] | None = None
    ended: bool = False


_ARRAYS = ("weights", "mean", "square", "generators")
_NUMBERS = ("step", "losses", "total", "seconds", "validation", "ended")


class Checkpoint:
    """The file in which a job's training is kept while it is trained.

    Args:
        folder: of the cache of weights; None keeps nothing.
        job: what is trained.
        every: seconds between two savings, at least.

    Example:
        >>> Checkpoint(None, None).path is None
        True
    """

    def __init__(self, folder: Path | None, job: Job | None, every: float = SAVE_SECONDS) -> None:
        self.path: Path | None = None
        self.saved: int | None = None  # the step of the last one
        self._every, self._last = every, monotonic()
        if folder is not None and job is not None:
            self.path = folder / f"{address(job)}.checkpoint{SUFFIX}"
            self._job = job

    def load(self) -> TrainingState | None:
        """Where training was interrupted; None if it was not.

        Raises:
            CheckpointError: if the file is damaged, or of another experiment, architecture, recipe or
                version of the code.
        """
        if self.path is None:
            return None
        try:
            header, arrays = read_arrays(self.path)
            other = difference(header["of"], self._job)
            values: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
            values |= {name: header[name] for name in _NUMBERS}
            for name in ("losses", "validation"):
                values[name] = [(int(step), float(loss)) for step, loss in values[name]]
        except FileNotFoundError:
            return None
        except (UnreadableError, KeyError, TypeError, ValueError) as failure:
            raise CheckpointError(
                f"{self.path} cannot be continued: {failure}. Delete it, and training starts anew"
            ) from None
        if other is not None:
            raise CheckpointError(
                f"{self.path} is a checkpoint of {other}. Delete it to train from the start, or continue "
                "with what wrote it"
            )
        training = TrainingState(**values, best=arrays.get("best"))
        self.saved = training.step
        return training

    def save(self, training: TrainingState) -> None:
        """Keep where training stands, unless that was done a moment ago."""
        if self.path is None or monotonic() - self._last < self._every:
            return
        arrays = {name: getattr(training, name) for name in _ARRAYS}
        if training.best is not None:
            arrays["best"] = training.best
        numbers = {name: getattr(training, name) for name in _NUMBERS}
        of = {**self._job.identity(), "code": code_version()}
        write_arrays(self.path, {"of": of, **numbers}, arrays)
        self._last, self.saved = monotonic(), training.step

    def due(self) -> bool:
        """Whether `save` would save."""
        return self.path is not None and monotonic() - self._last >= self._every

    def remove(self) -> None:
        """Training has ended, and its weights are kept elsewhere."""
        if self.path is not None:
            remove_arrays(self.path)
