"""Where a training stands: all that it needs to go on as if nothing had happened, and its file."""

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from runner.arrays import Unreadable, read_arrays, remove_arrays, write_arrays
from runner.weights import Job, address, code_version, identity

SAVE_SECONDS = 2.0  # between two checkpoints of a model, at least


class CheckpointRefused(ValueError):
    """A checkpoint that belongs to something else; says what it is of, what was expected, what to do."""


@dataclass
class Standing:
    """A model in training, after some steps.

    Attributes:
        step: steps done.
        weights: one row, as `Layout` has it.
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
    """The file in which a job's standing is kept while it is trained.

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
            self.path = folder / f"{address(job)}.checkpoint.npz"
            self._of = {**identity(job), "code": code_version()}

    def load(self) -> Standing | None:
        """Where training was interrupted; None if it was not.

        Raises:
            CheckpointRefused: if the file is damaged, or of another experiment, architecture, recipe or
                version of the code.
        """
        if self.path is None:
            return None
        try:
            header, arrays = read_arrays(self.path)
            found: dict[str, Any] = header["of"]
            self._refuse_other(found)
            values: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
            values |= {name: header[name] for name in _NUMBERS}
            standing = Standing(**values, best=arrays.get("best"))
        except FileNotFoundError:
            return None
        except (Unreadable, KeyError) as failure:
            raise CheckpointRefused(
                f"{self.path} cannot be continued: {failure}. Delete it, and training starts anew"
            ) from None
        standing.losses = [(int(step), float(loss)) for step, loss in standing.losses]
        standing.validation = [(int(step), float(loss)) for step, loss in standing.validation]
        self.saved = standing.step
        return standing

    def save(self, standing: Standing) -> None:
        """Keep where training stands, unless that was done a moment ago."""
        if self.path is None or monotonic() - self._last < self._every:
            return
        arrays = {name: getattr(standing, name) for name in _ARRAYS}
        if standing.best is not None:
            arrays["best"] = standing.best
        numbers = {name: getattr(standing, name) for name in _NUMBERS}
        write_arrays(self.path, {"of": self._of, **numbers}, arrays)
        self._last, self.saved = monotonic(), standing.step

    def due(self) -> bool:
        """Whether `save` would save."""
        return self.path is not None and monotonic() - self._last >= self._every

    def remove(self) -> None:
        """Training has ended, and its weights are kept elsewhere."""
        if self.path is not None:
            remove_arrays(self.path)

    def _refuse_other(self, found: dict[str, Any]) -> None:
        words = {
            "experiment": "another experiment (prior, label noise, channel or graph)",
            "architecture": "another architecture",
            "recipe": "another recipe",
            "code": "another version of the code, of torch or of its device",
        }
        for key, other in words.items():
            expected, given = self._of[key], found.get(key)
            if given == expected:
                continue
            if isinstance(expected, dict) and isinstance(given, dict):
                names = [name for name in expected if expected[name] != given.get(name)]
                expected, given = ({n: part.get(n) for n in names} for part in (expected, given))
            raise CheckpointRefused(
                f"{self.path} is a checkpoint of {other}: it is of {given}, expected was {expected}. "
                "Delete it to train from the start, or go on with what wrote it"
            )
