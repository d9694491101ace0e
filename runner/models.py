"""Trained weights for an experiment: taken from the cache, or trained and put there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Literal

from agents.channel import Channel
from agents.prior import Prior
from agents.transformer.model import Architecture
from runner.arrays import Unreadable
from runner.assembly import channel_of, mixing_for, prior_of
from runner.display import Display
from runner.errors import RunFailed, UsageError, UsageErrors
from runner.experiment import Experiment
from runner.training import REPORT_EVERY, CheckpointRefused, train_all
from runner.weights import Job, Trained, cache_key, load_cached, recipe_for

_WORKSPACES = 2048  # in a step, on graphs whose tokens hear different things
_FINE_BITS = 8  # of a message that rounds to less than a 60th of its standard deviation
_ROOMY_CLIP = 4.0  # standard deviations of a message, beyond which one in some thousand is clipped


def job_of(experiment: Experiment) -> Job:
    """What determines the weights of the experiment's transformer: its depth is run.rounds.

    Raises:
        UsageErrors: if the moments of a prompt would be sampled where they do not say what is heard.
    """
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
        looped=section.looped,
    )
    # Where tokens hear different things each has a workspace of its own: a step then takes fewer prompts.
    batch = section.batch or (512 if mixing.is_shared else max(32, _WORKSPACES // mixing.tokens))
    recipe = replace(recipe_for(architecture, section.seed), batch=batch, learning_rate=section.learning_rate)
    sampling = _sampling(experiment, prior, channel_of(experiment), mixing.is_shared)
    recipe = replace(recipe, sampling=sampling, patience=section.patience)
    steps = section.steps or max(1, round(section.effort * recipe.steps))
    recipe = replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 2))
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
        RunFailed: if a loss is not finite or explodes, or a file in the cache is damaged or of something
            else.
    """
    jobs = [job_of(experiment) for experiment in experiments]
    keys = [cache_key(*job) for job in jobs]
    try:
        found = {key: load_cached(folder, key) for key in keys}
    except Unreadable as failure:
        raise RunFailed(f"{failure}. Delete it, and the transformer is trained again") from None
    missing = {key: job for key, job in zip(keys, jobs, strict=True) if found[key] is None}
    if missing:
        work = [job.recipe.steps * job.architecture.layers for job in missing.values()]
        done: dict[int, int] = {}
        began, already = monotonic(), 0
        label = f"training {len(missing)} transformer" + ("s" if len(missing) > 1 else "")
        with display.task(label, float(sum(work))) as advance:

            def tell(index: int, step: int, loss: float) -> None:
                nonlocal already
                job = list(missing.values())[index]
                if index not in done:  # the first report may come from a checkpoint
                    already += max(0, step - REPORT_EVERY) * job.architecture.layers
                done[index] = step * job.architecture.layers
                total = sum(done.values())
                left = (monotonic() - began) * (sum(work) - total) / max(1, total - already)
                kind = f"depth {job.architecture.layers}" + (
                    "" if job.architecture.feedforward else ", linear"
                )
                advance(total, f"{kind}: loss {loss:.4f}, about {left:.0f} s left")

            try:
                models = train_all(list(missing.values()), workers, tell, folder)
            except FloatingPointError as failure:
                raise RunFailed(f"training failed: {failure} (transformer.learning_rate)") from None
            except CheckpointRefused as failure:
                raise RunFailed(f"training cannot go on: {failure}") from None
            found |= zip(missing, models, strict=True)
    return [model for key in keys if (model := found[key]) is not None]


def _sampling(
    experiment: Experiment, prior: Prior, channel: Channel, shared: bool
) -> Literal["tokens", "statistics"]:
    """How prompts are drawn in training; evaluation is on tokens and their messages in any case.

    Moments say what is heard on the complete graph, as long as messages are rounded finely and hardly
    ever clipped: where the clip is 4 standard deviations of a message of a token that knows nothing,
    var m = |w|^2 + (u.w)^2 + sigma^2 + tau^2 at the most.

    Raises:
        UsageErrors: if "statistics" was asked for elsewhere.
    """
    asked = experiment.transformer.sampling
    spread = (2 * prior.power() + experiment.task.label_noise**2 + channel.noise**2) ** 0.5
    if shared and channel.bits >= _FINE_BITS and channel.clip >= _ROOMY_CLIP * spread:
        return "tokens" if asked == "tokens" else "statistics"
    if asked == "statistics":
        needed = f"channel.bits from {_FINE_BITS} and channel.clip from {_ROOMY_CLIP * spread:.2f}"
        raise UsageErrors(
            [
                UsageError(
                    "transformer.sampling",
                    asked,
                    f'"tokens", or "auto"; "statistics" with graph.kind = "complete", {needed}',
                )
            ]
        )
    return "tokens"
