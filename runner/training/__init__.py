"""Training of the constrained linear attention transformer, one model or many at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from agents.channel import Channel
from agents.prior import Prior
from agents.transformer.model import Architecture
from runner.training.checkpoint import SAVE_SECONDS, Checkpoint, CheckpointRefused
from runner.training.cohort import REPORT_EVERY, Diverged
from runner.training.pool import check, train_all
from runner.training.together import train_together
from runner.weights import Job, Recipe, Trained

__all__ = [
    "REPORT_EVERY",
    "CheckpointRefused",
    "Diverged",
    "Job",
    "Recipe",
    "Trained",
    "train",
    "train_all",
]


def train(
    prior: Prior,
    label_noise: float,
    channel: Channel,
    mixing: Float[np.ndarray, "rows N"],
    architecture: Architecture,
    recipe: Recipe,
    device: str | torch.device | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    folder: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Trained:
    """Train one transformer to estimate w after its last layer; on a CPU, same arguments, same weights.

    loss = E|w - w_L|^2 + auxiliary * (rate / learning_rate) * mean over 0 < l < L of E|w - w_l|^2

    Prompts come from generators of their own, at an address of their own, so that none of them is among
    the prompts of a simulation.

    Args:
        prior: prior of the task.
        label_noise: sigma.
        channel: the bound on a message.
        mixing: weights A of the locality graph, rows sum to 1; one row if all tokens hear the same.
        architecture: sizes and parts of the model.
        recipe: how to train it.
        device: where; by default on CUDA where there is one.
        on_progress: told (steps done, mean loss since the last call) from time to time.
        folder: where a checkpoint is kept, from which interrupted training goes on; it is removed at the end.
        save_seconds: between two checkpoints, at least.

    Raises:
        ValueError: if the parts do not fit together.
        Diverged: if the loss is not finite or explodes.
        CheckpointRefused: if the checkpoint belongs to something else.

    Source: THEORY.md section 8.
    """
    job = Job(prior, label_noise, channel, mixing, architecture, recipe)
    check(job)
    checkpoint = Checkpoint(folder, job, save_seconds)

    def tell(index: int, step: int, loss: float) -> None:
        if on_progress is not None:
            on_progress(step, loss)

    ((_, trained),) = train_together([job], device, tell, [checkpoint])
    checkpoint.remove()
    return trained
