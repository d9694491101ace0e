"""Run one experiment on an engine: batches of prompts, rounds, records, the risk."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from agents.policies.learned import Learned
from runner.assembly import (
    bytes_per_token_prompt,
    channel_of,
    check,
    mixing_for,
    prior_of,
    system_of,
)
from runner.display import Display
from runner.engine import Engine, Outcome
from runner.experiment import Experiment
from runner.local import LocalEngine
from runner.memory import available_memory
from runner.ray_environment import prepare
from runner.record import TraceWriter, check_room, new_folder, traced_prompts
from runner.risk import mean_over_prompts

_BATCH_BYTES = 2**30  # workspaces of a batch of prompts stay below this, and below a quarter of what is free

Observer = Callable[[range, Outcome], None]


@dataclass(frozen=True, eq=False)
class Simulation:
    """What came out of a simulation.

    Attributes:
        experiment: what was run.
        prompt_risk: |w - w_i|^2 / E|w|^2, mean over positions [L + 1, B].
        position_risk: the same, mean over prompts [L + 1, N].
        bits_per_message: K (b + address bits).
        messages: messages sent, over all rounds, tokens and prompts.
        clipped: scalars that did not fit the channel.
        seconds: wall-clock time of each round [L + 1].
        folder: where the run is stored; None if it was not.
    """

    experiment: Experiment
    prompt_risk: Float[np.ndarray, "rounds B"]
    position_risk: Float[np.ndarray, "rounds N"]
    bits_per_message: int
    messages: int
    clipped: int
    seconds: Float[np.ndarray, " rounds"]
    folder: Path | None

    @property
    def risk(self) -> Float[np.ndarray, " rounds"]:
        """Excess risk relative to E|w|^2, rounds 0..L."""
        return mean_over_prompts(self.prompt_risk).value

    @property
    def risk_se(self) -> Float[np.ndarray, " rounds"]:
        """Standard error of the risk over prompts; NaN for a single prompt."""
        return mean_over_prompts(self.prompt_risk).error

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  round {index}: risk {risk:.4f} ± {error:.4f}"
            for index, (risk, error) in enumerate(zip(self.risk, self.risk_se, strict=True))
        )
        return f"Simulation({self.experiment.policy.kind}, {self.experiment.task.tokens} tokens)\n{rows}"


def simulate(
    experiment: Experiment | None = None,
    *,
    engine: Engine | None = None,
    out: Path | str | None = None,
    learned: Learned | None = None,
    prompts: range | None = None,
    observer: Observer | None = None,
    on_round: Callable[[range, int], None] | None = None,
    name: str = "run",
) -> Simulation:
    """Run an experiment.

    Args:
        experiment: what to run; the defaults if left out.
        engine: where to run it; by default what the experiment names.
        out: folder below which the run is stored; nothing is stored if left out.
        learned: weights of a learned policy.
        prompts: which prompts; 0..B-1 by default. Any subset gives the same numbers for its prompts.
        observer: called after each round with all that happened in it, workspaces and messages included.
        on_round: told (batch of prompts, round) as rounds end.
        name: first part of the name of the run's folder.

    Raises:
        UsageErrors: if the experiment cannot be run; before anything starts.

    Example:
        >>> small = Experiment().with_values({"task.prompts": 200, "task.tokens": 16})
        >>> simulate(small).risk.round(2).tolist()[:2]
        [1.0, 0.51]
    """
    experiment = experiment or Experiment()
    check(experiment)
    if out is not None:
        check_room(experiment, Path(out))
    owned = engine is None
    engine = engine or engine_of(experiment)
    try:
        return _play(experiment, engine, out, learned, prompts, observer, on_round, name)
    finally:
        if owned:
            engine.close()


def engine_of(experiment: Experiment, address: str | None = None, display: Display | None = None) -> Engine:
    """The engine that the experiment names; Ray is imported only if it is wanted."""
    if experiment.run.engine == "local":
        return LocalEngine()
    prepare(joining=bool(address or os.environ.get("RAY_ADDRESS")))
    from runner.cluster import RayEngine

    return RayEngine(experiment.run.tokens_per_actor, address, display)


def _play(
    experiment: Experiment,
    engine: Engine,
    out: Path | str | None,
    learned: Learned | None,
    prompts: range | None,
    observer: Observer | None,
    on_round: Callable[[range, int], None] | None,
    name: str,
) -> Simulation:
    prior, mixing, channel = prior_of(experiment), mixing_for(experiment), channel_of(experiment)
    system = system_of(experiment, prior, mixing, learned)
    prompts = range(experiment.task.prompts) if prompts is None else prompts
    bits = channel.bits_per_message(system.policy.codes)
    writer = None
    if out is not None:
        folder = new_folder(Path(out), f"{name}-{experiment.identity()}")
        writer = TraceWriter(folder, experiment, bits // channel.channels, engine.name)
        writer.manifest("running")
    rounds = system.rounds + 1
    prompt_risk = np.empty((rounds, len(prompts)))
    position_sum = np.zeros((rounds, mixing.tokens))
    seconds = np.zeros(rounds)
    clipped = np.zeros(rounds, dtype=np.int64)
    for number, batch in enumerate(_batches(experiment, prompts)):
        wanted = observer is not None or (writer is not None and bool(traced_prompts(experiment, batch)))
        for outcome in engine.play(system, mixing, batch, detail=wanted, messages=wanted):
            error = outcome.report.error / prior.power()
            risk = _mean_over_positions(error)
            first = batch.start - prompts.start
            prompt_risk[outcome.round, first : first + len(batch)] = risk
            position_sum[outcome.round] += error.sum(axis=1)
            seconds[outcome.round] += outcome.seconds
            clipped[outcome.round] += int(outcome.clipped.sum())
            if writer:
                writer.round(number, batch, outcome, risk)
            if observer:
                observer(batch, outcome)
            if on_round:
                on_round(batch, outcome.round)
    result = Simulation(
        experiment,
        prompt_risk,
        position_sum / len(prompts),
        bits,
        mixing.tokens * system.rounds * len(prompts),
        int(clipped.sum()),
        seconds,
        writer.folder if writer else None,
    )
    if writer:
        writer.finish(result.risk, result.risk_se, clipped, seconds, mixing.tokens * len(prompts) * bits)
    return result


def _mean_over_positions(error: Float[np.ndarray, "N B"]) -> Float[np.ndarray, " B"]:
    """Mean over positions, added in their order: numpy's own sum depends on the number of prompts."""
    total = np.zeros(error.shape[1])
    for row in error:
        total += row
    return total / len(error)


def _batches(experiment: Experiment, prompts: range) -> list[range]:
    """Batches of prompts whose workspaces fit; results do not depend on them."""
    budget = min(_BATCH_BYTES, available_memory() // 4)
    size = max(1, budget // (bytes_per_token_prompt(experiment) * experiment.task.tokens))
    starts = range(prompts.start, prompts.stop, size)
    return [range(first, min(first + size, prompts.stop)) for first in starts]
