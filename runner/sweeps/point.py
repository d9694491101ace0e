"""One point of a sweep: a pure function of its experiment, which a Ray task calls."""

import tempfile
from pathlib import Path

import numpy as np

from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from runner.progress import Progress
from runner.simulation.simulate import simulate


def play_point(experiment: Experiment) -> dict[str, np.ndarray]:
    """Simulate an experiment in this process; a learned policy is trained first.

    Args:
        experiment: what is run; its engine and its trace play no role.

    Returns:
        risk of each round and prompt, relative [L + 1, B]; bits sent in each round [L + 1].

    Example:
        >>> small = Experiment().with_values({"task.prompts": 5, "task.tokens": 4, "run.rounds": 1})
        >>> play_point(small)["risk"].shape
        (2, 5)
    """
    built = build(experiment.with_values({"run.engine": "local", "run.trace": "none"}))
    if built.entry.is_trained:
        from agents.transformer.export import export
        from runner.training import train

        with tempfile.TemporaryDirectory() as folder:
            trained = train(built, Path(folder), Progress(quiet=True))
        built = built.with_weights(export(trained.model()))
    done = simulate(built, engine=LocalEngine(threads=1))
    bits = done.scalars * (done.bits_per_message // experiment.channels)
    return {"risk": done.prompt_risk, "bits": bits.astype(np.int64)}
