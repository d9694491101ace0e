"""Weights of unconstrained models in files, which say of what they are."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from runner.arrays import Unreadable, read_arrays, write_arrays
from runner.unconstrained.design import Job
from runner.unconstrained.training import Trained
from runner.weights import code_version

_HEARS = "hears"  # name of the graph among the arrays; no weight of "masked softmax" has it
_OTHER = {
    "experiment": "another experiment (prior, label noise, number of tokens or graph)",
    "design": "another design",
    "code": "another version of the code, of torch or of its device",
}


class WeightsRefused(ValueError):
    """A file of weights that is damaged or of something else; says what it is of and what to do."""


def identity(job: Job) -> dict[str, Any]:
    """What determines the weights, in what JSON can hold: the task as a hash, the design by name.

    Example:
        >>> from agents.prior import gaussian
        >>> from runner.unconstrained.design import Design
        >>> job = Job(gaussian(2), 0.1, 8, None, Design("softmax", layers=3))
        >>> sorted(identity(job)), identity(job)["design"]["layers"]
        (['code', 'design', 'experiment'], 3)
    """
    task = hashlib.sha256()
    hears = np.zeros((0, 0), dtype=bool) if job.hears is None else job.hears
    for array in (job.prior.atoms, job.prior.weights, job.prior.factor, hears):
        exact = np.ascontiguousarray(array, dtype=np.float64)
        task.update(repr(exact.shape).encode() + exact.tobytes())
    task.update(repr([float(job.label_noise), job.tokens]).encode())
    return {
        "experiment": task.hexdigest()[:16],
        "design": asdict(job.design),
        "code": code_version(),
    }


def path_of(folder: Path, job: Job) -> Path:
    """Where the weights of a job are kept: any other job, or version of the code, has another file."""
    name = hashlib.sha256(repr(identity(job)).encode()).hexdigest()[:32]
    return folder / f"{name}.unconstrained.npz"


def save(folder: Path, job: Job, trained: Trained) -> Path:
    """Keep weights: the file appears whole or not at all."""
    header = {"of": identity(job), "losses": trained.losses, "seconds": trained.seconds}
    arrays = trained.state if trained.hears is None else {**trained.state, _HEARS: trained.hears}
    path = path_of(folder, job)
    write_arrays(path, header, arrays)
    return path


def load(folder: Path, job: Job) -> Trained | None:
    """The weights of a job; None if there are none.

    Raises:
        WeightsRefused: if the file is damaged, or of another experiment, design or version of the code.
    """
    path = path_of(folder, job)
    try:
        header, arrays = read_arrays(path)
        _refuse_other(path, header["of"], identity(job))
        losses = [(int(step), float(loss)) for step, loss in header["losses"]]
        seconds = float(header["seconds"])
    except FileNotFoundError:
        return None
    except (Unreadable, KeyError, TypeError) as failure:
        raise WeightsRefused(
            f"{path} cannot be used: {failure}. Delete it, and the model is trained"
        ) from None
    hears = arrays.pop(_HEARS, None)
    return Trained(job.design, job.prior.dim, job.tokens, hears, arrays, losses, seconds)


def _refuse_other(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, other in _OTHER.items():
        wanted, given = expected[key], found[key]
        if given == wanted:
            continue
        if isinstance(wanted, dict) and isinstance(given, dict):
            names = [name for name in wanted if wanted[name] != given.get(name)]
            wanted, given = ({name: part.get(name) for name in names} for part in (wanted, given))
        raise WeightsRefused(
            f"{path} holds weights of {other}: it is of {given}, expected was {wanted}. "
            "Delete it, and the model is trained"
        )
