"""Training of transformers, one model or many at a time; trained weights are kept and used again."""

from collections.abc import Sequence
from pathlib import Path

from agents.transformer.model import Transformer
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.errors import expect
from runner.progress import Progress
from runner.training.baselines import Baseline, BaselineJob, train_baselines
from runner.training.job import job_of
from runner.training.store import Trained, obtain
from runner.training.trainer import train_all
from runner.validate import validate_path

__all__ = ["Trained", "train", "trained_baselines", "trained_models"]


def train(
    experiment: Experiment | Built, out: Path | str = "runs", progress: Progress | None = None
) -> Trained[Transformer]:
    """Train the transformer of an experiment, or take it from the folder where its weights are kept.

    Args:
        experiment: its depth is run.rounds, its architecture and training are those of [transformer].
        out: folder below which weights are kept, in `weights`.
        progress: shows how far training is; by default nothing is shown.

    Raises:
        UsageError: if the experiment cannot be run.
        RunError: if a loss is not finite or explodes, or a file of weights is damaged or of something else.

    Example:
        >>> import tempfile
        >>> short = {"policy.kind": "learned", "transformer.steps": 5, "run.rounds": 1, "task.tokens": 4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = train(Experiment().with_values(short), folder)
        >>> trained.model().sizes.layers
        1
    """
    validate_path("out", out)
    if progress is not None:
        expect("progress", progress, Progress, "a Progress, or None for nothing to be shown")
    built = experiment if isinstance(experiment, Built) else build(experiment)
    return trained_models([built], Path(out) / "weights", 1, progress or Progress(quiet=True))[0]


def trained_models(
    experiments: Sequence[Built], folder: Path, workers: int, progress: Progress
) -> list[Trained[Transformer]]:
    """The trained transformer of each experiment; only what the folder lacks is trained.

    Args:
        experiments: one for each model.
        folder: where weights are kept.
        workers: processes that train side by side.
        progress: shows how far training is.

    Raises:
        RunError: if a loss is not finite or explodes, or a file is damaged or of something else.
    """
    jobs = [job_of(built) for built in experiments]
    return obtain(jobs, train_all, folder, workers, progress, "transformer")


def trained_baselines(
    jobs: Sequence[BaselineJob], folder: Path, workers: int, progress: Progress
) -> list[Trained[Baseline]]:
    """The trained baseline of each job; only what the folder lacks is trained.

    Args:
        jobs: from `baseline_job_of`, one for each model.
        folder: where weights are kept.
        workers: processes that train side by side, at most.
        progress: shows how far training is.

    Raises:
        RunError: if a loss is not finite or explodes, or a file is damaged or of something else.
    """
    return obtain(jobs, train_baselines, folder, workers, progress, "baseline")
