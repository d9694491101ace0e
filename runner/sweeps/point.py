"""One point of a sweep: a pure function of its experiment, which a Ray task calls."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from runner.built import build
from runner.config.experiment import Experiment
from runner.config.sweep import Alteration
from runner.engines import Engine
from runner.engines.local import LocalEngine
from runner.prediction import predict
from runner.progress import Progress
from runner.simulation.altered import altered
from runner.simulation.simulate import simulate


def play_point(
    experiment: Experiment, alteration: Alteration | None = None, theory: str = "none", samples: int = 20_000
) -> dict[str, np.ndarray]:
    """Simulate an experiment in this process; a learned policy is trained first.

    Args:
        experiment: what is run; its engine and its trace play no role.
        alteration: what is done to it.
        theory: `exact` or `gaussian`, where the risk is predicted too.
        samples: of tasks and fields, for that prediction.

    Returns:
        risk of each round and prompt, relative [L + 1, B]; bits sent in each round [L + 1]; and theory and
        theory_se [L + 1], NaN where there is no theory, if they were asked for.

    Example:
        >>> small = Experiment().with_values({"task.prompts": 5, "task.tokens": 4, "run.rounds": 1})
        >>> play_point(small)["risk"].shape
        (2, 5)
    """
    altering = alteration is not None and not alteration.is_none
    values: dict[str, Any] = {"run.engine": "local", "run.trace": "none"}
    if altering:  # the next prompt, of which some is taken, is among those that are played together
        values["run.batch"] = experiment.task.prompts
    built = build(experiment.with_values(values))
    if built.entry.is_trained:
        from agents.transformer.export import export
        from runner.training import train

        with tempfile.TemporaryDirectory() as folder:
            trained = train(built, Path(folder), Progress(quiet=True))
        built = built.with_weights(export(trained.model()))
    playing: Engine = LocalEngine(threads=1)
    if altering:
        assert alteration is not None
        policy, on_the_way = altered(built, alteration)
        built = built.with_policy(policy)
        playing = on_the_way or playing
    done = simulate(built, engine=playing)
    each = np.full(len(done.scalars), done.bits_per_message // experiment.channels)
    for first, narrowed in sorted(alteration.bits.items()) if alteration is not None else ():
        each[first:] = done.bits_per_message // experiment.channels - experiment.channel.bits + narrowed
    bits = done.scalars * each
    found = {"risk": done.prompt_risk, "bits": bits.astype(np.int64)}
    if theory != "none":
        rows = predict(built, samples, theory)  # type: ignore[arg-type]  # checked by the sweep's file
        nothing = np.full(len(found["risk"]), np.nan)
        known = len(rows) > 0 and not altering
        found["theory"] = rows["risk"].to_numpy(float) if known else nothing
        found["theory_se"] = rows["risk_se"].to_numpy(float) if known else nothing
    return found
