"""Trained weights: what determines them, what they are, and where they are kept."""

import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from agents.channel import Channel
from agents.prior import Prior
from agents.transformer.model import Architecture, Transformer
from runner.arrays import read_arrays, write_arrays

# Raised by every change after which the same job gives other weights, and by no other: trained weights are
# kept under it. A test compares the losses of short trainings with those recorded for this version.
TRAINING_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW, linear warm-up, cosine to zero, fresh prompts at every step.

    Attributes:
        steps: number of updates.
        batch: prompts in each update.
        learning_rate: at the end of the warm-up.
        warmup: steps of linear warm-up.
        betas: decay of AdamW's first and second moments.
        weight_decay: of AdamW.
        clip_norm: largest norm of a gradient.
        auxiliary: weight at first of the mean loss at the inner depths; it falls with the learning rate.
        seed: of the initial weights and of the prompts.
        sampling: "tokens" draws every token and its message; "statistics" draws the moments of a prompt,
            on the complete graph, where no message is clipped.
        patience: training stops when the risk on the validation set has not fallen by a thousandth in so
            many reports in a row, and the weights are those of its least risk; 0 goes through all steps.
    """

    steps: int = 3000
    batch: int = 512
    learning_rate: float = 1e-2
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    auxiliary: float = 0.3
    seed: int = 0
    sampling: Literal["tokens", "statistics"] = "tokens"
    patience: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, 0 <= step < steps.

        Example:
            >>> Recipe(steps=100, warmup=10, learning_rate=1.0).rate(9)
            1.0
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * self.learning_rate * (1.0 + math.cos(math.pi * share))


def recipe_for(sizes: Architecture, seed: int = 0) -> Recipe:
    """The recipe that takes a model close to its best on a tree of at most four levels.

    Without hinges there is less to learn, and it is learnt sooner.

    Example:
        >>> recipe_for(Architecture(dim=7, layers=3)).steps
        3750
    """
    return Recipe(steps=(1250 if sizes.feedforward else 500) * sizes.layers, seed=seed)


class Job(NamedTuple):
    """Everything that determines the weights of one model: the arguments of `train`."""

    prior: Prior
    label_noise: float
    channel: Channel
    mixing: Float[np.ndarray, "rows N"]
    architecture: Architecture
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gives.

    Attributes:
        architecture: of the model.
        state: its weights by name, single precision.
        losses: (step, mean |w - w_hat|^2 at the last depth since the entry before).
        seconds: wall time of training, which models that were trained side by side share.
        validation: (step, mean |w - w_hat|^2 at the last depth on the validation set), where one was asked.
    """

    architecture: Architecture
    state: dict[str, Float[np.ndarray, "..."]]  # arrays, which cross processes by value
    losses: list[tuple[int, float]]
    seconds: float
    validation: list[tuple[int, float]] = field(default_factory=list)

    def model(self) -> Transformer:
        """The trained transformer, on the CPU."""
        model = Transformer(self.architecture)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in self.state.items()})
        return model


def cache_key(
    prior: Prior,
    label_noise: float,
    channel: Channel,
    mixing: Float[np.ndarray, "rows N"],
    architecture: Architecture,
    recipe: Recipe,
) -> str:
    """Hash of what determines the weights: the arguments of `train`, its version, torch and its device.

    Args:
        prior: prior of the task; its atoms, weights and factor count.
        label_noise: sigma.
        channel: the bound on a message.
        mixing: weights A of the locality graph.
        architecture: sizes and parts of the model.
        recipe: how it is trained.

    Example:
        >>> from agents.prior import gaussian
        >>> ring = np.full((1, 4), 0.25)
        >>> len(cache_key(gaussian(2), 0.1, Channel(), ring, Architecture(dim=2, layers=1), Recipe()))
        32
    """
    job = Job(prior, label_noise, channel, mixing, architecture, recipe)
    return _digest(identity(job), code_version())


def identity(job: Job) -> dict[str, Any]:
    """What a job is, in what JSON can hold: its experiment as a hash, architecture and recipe by name."""
    digest = hashlib.sha256()
    for array in (job.prior.atoms, job.prior.weights, job.prior.factor, job.mixing):
        exact = np.ascontiguousarray(array, dtype=np.float64)
        digest.update(repr(exact.shape).encode() + exact.tobytes())
    digest.update(repr([float(job.label_noise), job.channel]).encode())
    recipe = {**asdict(job.recipe), "betas": list(job.recipe.betas)}
    return {
        "experiment": digest.hexdigest()[:16],
        "architecture": asdict(job.architecture),
        "recipe": recipe,
    }


def address(job: Job) -> str:
    """Names what is trained, by any version of the code."""
    return _digest(identity(job))


def code_version() -> str:
    """What else the weights depend on: the version of training, torch, and whether there is CUDA."""
    return f"training {TRAINING_VERSION}, torch {torch.__version__}, cuda {torch.cuda.is_available()}"


def _digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


def load_cached(folder: Path, key: str) -> Trained | None:
    """What was saved under a key; None if nothing was.

    Raises:
        Unreadable: if the file is damaged.
    """
    path = _path(folder, key)
    if not path.exists():
        return None
    header, state = read_arrays(path)
    return Trained(
        architecture=Architecture(**header["architecture"]),
        state=state,
        losses=[(int(step), float(loss)) for step, loss in header["losses"]],
        seconds=header["seconds"],
        validation=[(int(step), float(loss)) for step, loss in header["validation"]],
    )


def save_cached(folder: Path, key: str, trained: Trained) -> Path:
    """Save under a key: the file appears whole or not at all."""
    header = {
        "architecture": asdict(trained.architecture),
        "losses": trained.losses,
        "seconds": trained.seconds,
        "validation": trained.validation,
    }
    path = _path(folder, key)
    write_arrays(path, header, trained.state)
    return path


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.npz"
