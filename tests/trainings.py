"""One training by itself, as the trainings side by side are held against it."""

from collections.abc import Callable
from pathlib import Path

from agents.transformer.model import Transformer
from runner.training.checkpoint import SAVE_SECONDS, Checkpoint
from runner.training.job import Job
from runner.training.store import Trained
from runner.training.trainer import train_together


def train_job(
    job: Job,
    device: str | None = None,
    on_progress: Callable[[int, float], None] | None = None,
    folder: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Trained[Transformer]:
    """Train one transformer; with a folder, from the checkpoint that lies there."""
    checkpoint = Checkpoint(folder, job, save_seconds)

    def tell(index: int, step: int, loss: float) -> None:
        if on_progress is not None:
            on_progress(step, loss)

    ((_, trained),) = train_together([job], device, tell, [checkpoint])
    checkpoint.remove()
    return trained
