"""A trained transformer, and agents that run its weights by passing messages, on the same prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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
    gaps = _Gaps(estimates, float(built.prior.power()) ** 0.5)
    weights = built.with_weights(export(model))
    result = simulate(weights, engine=engine, out=out, observer=gaps, name=name)
    return Parity(mean_over_prompts(prompt_risk(estimates, built, prompts)), result, gaps.largest)


@dataclass
class _Gaps:
    """Watches agents run a transformer's weights; keeps the largest difference of their answers."""

    estimates: Float[np.ndarray, "depths rows d B"]
    unit: float
    largest: float = 0.0

    def __call__(self, prompts: range, outcome: Outcome) -> None:
        detail = outcome.report.detail
        if detail is not None:
            expected = self.estimates[outcome.round][:, :, prompts.start : prompts.stop]
            self.largest = max(self.largest, float(np.abs(detail.estimate - expected).max()) / self.unit)
