"""Trained weights for an experiment: taken from the cache, or trained and put there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents.transformer import Architecture
from runner.assembly import channel_of, mixing_for, prior_of
from runner.display import Display
from runner.errors import RunFailed
from runner.experiment import Experiment
from runner.training import train_all
from runner.weights import Job, Trained, cache_key, load_cached, recipe_for, save_cached

_WORKSPACES = 2048  # in a step, on graphs whose tokens hear different things


def job_of(experiment: Experiment) -> Job:
    """What determines the weights of the experiment's transformer: its depth is run.rounds."""
    section = experiment.transformer
    prior, mixing = prior_of(experiment), mixing_for(experiment)
    weights = mixing.weights.toarray().astype(float)
    architecture = Architecture(
        dim=prior.dim,
        layers=experiment.run.rounds,
        heads=experiment.channel.channels,
        width=section.width,
        hidden=section.hidden,
        feedforward=section.feedforward,
        adaptive_queries=section.adaptive_queries,
        control_variate=experiment.policy.control_variate,
    )
    # Where tokens hear different things each has a workspace of its own: a step then takes fewer prompts.
    batch = section.batch or (512 if mixing.is_shared else max(32, _WORKSPACES // mixing.tokens))
    recipe = replace(recipe_for(architecture, section.seed), batch=batch, learning_rate=section.learning_rate)
    if section.steps is not None:
        recipe = replace(recipe, steps=section.steps, warmup=min(recipe.warmup, section.steps // 2))
    return Job(
        prior,
        experiment.task.label_noise,
        channel_of(experiment),
        weights / weights.sum(axis=1, keepdims=True),
        architecture,
        recipe,
    )


def trained_model(experiment: Experiment, folder: Path, display: Display) -> Trained:
    """The trained transformer of one experiment."""
    return trained_models([experiment], folder, 1, display)[0]


def trained_models(
    experiments: Sequence[Experiment], folder: Path, workers: int, display: Display
) -> list[Trained]:
    """The trained transformer of each experiment; only what the cache lacks is trained.

    Args:
        experiments: one for each model.
        folder: of the cache.
        workers: processes that train side by side.
        display: shows the progress.

    Raises:
        RunFailed: if a loss is not finite.
    """
    jobs = [job_of(experiment) for experiment in experiments]
    keys = [cache_key(*job) for job in jobs]
    found = {key: load_cached(folder, key) for key in keys}
    missing = {key: job for key, job in zip(keys, jobs, strict=True) if found[key] is None}
    if missing:
        steps = [job.recipe.steps * job.architecture.layers for job in missing.values()]
        progress = [0.0] * len(missing)
        label = f"training {len(missing)} transformer" + ("s" if len(missing) > 1 else "")
        with display.task(label, float(sum(steps))) as advance:

            def tell(index: int, step: int, loss: float) -> None:
                job = list(missing.values())[index]
                progress[index] = step * job.architecture.layers
                advance(sum(progress), f"depth {job.architecture.layers}: loss {loss:.3f}")

            try:
                models = train_all(list(missing.values()), workers, tell)
            except FloatingPointError as failure:
                raise RunFailed(f"training failed: {failure} (transformer.learning_rate)") from None
            for key, trained in zip(missing, models, strict=True):
                save_cached(folder, key, trained)
                found[key] = trained
    return [model for key in keys if (model := found[key]) is not None]
