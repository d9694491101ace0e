"""A trained transformer, and agents that run its weights by passing messages, on the same prompts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.transformer.export import export
from agents.transformer.model import Transformer
from analysis.statistics import Estimate, mean_over_prompts
from runner.built import Built
from runner.engines.base import Engine, Outcome
from runner.simulation.simulate import Simulation, simulate
from runner.training.evaluation import forward_on_prompts, prompt_risk
from runner.training.store import Trained


class Parity(NamedTuple):
    """What the two gave.

    Attributes:
        risk: relative risk of the transformer after each layer.
        agents: the simulation of its weights.
        difference: largest difference of an answer, in units of sqrt(E|w|^2), over prompts, tokens,
            components and depths.
    """

    risk: Estimate
    agents: Simulation
    difference: float


def on_agents(
    trained: Trained[Transformer], built: Built, engine: Engine, out: Path | None = None, name: str = "run"
) -> Parity:
    """Run a transformer, and its weights on agents, in double precision.

    Args:
        trained: as deep as run.rounds.
        built: policy `learned`; addresses the prompts and the noise.
        engine: plays the simulation.
        out: folder below which traces are stored; None stores none.
        name: of the simulation's folder.

    Source: THEORY.md section 8, two systems, one computation.
    """
    model, prompts = trained.model(), range(built.experiment.task.prompts)
    estimates = forward_on_prompts(model, built, prompts)
    largest = 0.0

    def watch(batch: range, outcome: Outcome) -> None:
        nonlocal largest
        if outcome.report.detail is not None:
            gaps = outcome.report.detail.estimate - estimates[outcome.round][:, :, batch.start : batch.stop]
            largest = max(largest, float(np.abs(gaps).max()) / float(built.prior.power()) ** 0.5)

    weights = built.with_weights(export(model))
    result = simulate(weights, engine=engine, out=out, observer=watch, name=name)
    return Parity(mean_over_prompts(prompt_risk(estimates, built, prompts)), result, largest)
