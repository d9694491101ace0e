"""Run one experiment on an engine: batches of prompts, rounds, records, the risk."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from agents.policies import Policy
from agents.policies.learned import Learned
from agents.prior import Prior
from analysis.resources import available_memory
from analysis.statistics import mean_over_prompts
from analysis.traces.location import Place
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.engines import ENGINES, Engine, EngineOptions, Outcome
from runner.errors import RunError, TokenfieldError, UsageError
from runner.footprint import bytes_per_token_prompt
from runner.progress import Progress, in_notebook
from runner.simulation.accumulator import Totals, forget
from runner.simulation.interruption import explained
from runner.storage.files import check_name, new_folder
from runner.storage.manifest import Batches, weights_digest
from runner.storage.writer import TraceWriter, check_room
from runner.validate import (
    named_place,
    validate_called,
    validate_engine,
    validate_policy,
    validate_prompts,
    validate_traced,
)

if TYPE_CHECKING:
    import networkx as nx

_BATCH_BYTES = 2**30  # workspaces of a batch of prompts stay below this, and below a quarter of what is free

Observer = Callable[[range, Outcome], None]


@dataclass(frozen=True, eq=False)
class Simulation:
    """What came out of a simulation.

    Attributes:
        experiment: what was run.
        prompt_risk: |w - w_i|^2 / E|w|^2, mean over positions [L + 1, B].
        position_risk: the same, mean over prompts [L + 1, N].
        position_risk_se: its standard error over prompts; NaN for a single prompt [L + 1, N].
        bits_per_message: K (b + address bits), the most that a message can have.
        messages: messages sent, over all rounds, tokens and prompts.
        scalars: scalars sent in each round, over tokens and prompts [L + 1].
        clipped: scalars that did not fit the channel.
        seconds: wall-clock time of each round [L + 1].
        folder: where the run is stored; None if it was not.
    """

    experiment: Experiment
    prompt_risk: Float[np.ndarray, "rounds B"]
    position_risk: Float[np.ndarray, "rounds N"]
    position_risk_se: Float[np.ndarray, "rounds N"]
    bits_per_message: int
    messages: int
    scalars: Int[np.ndarray, " rounds"]
    clipped: int
    seconds: Float[np.ndarray, " rounds"]
    folder: Place | None

    @property
    def bits(self) -> int:
        """Bits sent, over all rounds, tokens and prompts, addresses included."""
        return int(self.scalars.sum()) * (self.bits_per_message // self.experiment.channels)

    @property
    def risk(self) -> Float[np.ndarray, " rounds"]:
        """Excess risk relative to E|w|^2, rounds 0..L."""
        return mean_over_prompts(self.prompt_risk).value

    @property
    def risk_se(self) -> Float[np.ndarray, " rounds"]:
        """Standard error of the risk over prompts; NaN for a single prompt."""
        return mean_over_prompts(self.prompt_risk).error

    def _repr_html_(self) -> str:
        """A table and a small figure, for notebooks."""
        from analysis.report.notebook import of_simulation

        rows = pd.DataFrame(
            {"round": range(len(self.risk)), "source": "agents", "risk": self.risk, "risk_se": self.risk_se}
        )
        facts = {
            "policy": self.experiment.policy.kind,
            "tokens": f"{self.experiment.task.tokens:,}",
            "prompts": f"{self.prompt_risk.shape[1]:,}",
            "bits sent": f"{self.bits:,}",
            "scalars clipped": f"{self.clipped:,}",
            "seconds": f"{self.seconds.sum():.2f}",
            "stored in": "nowhere" if self.folder is None else str(self.folder),
        }
        return of_simulation("Simulation", facts, rows)

    def __repr__(self) -> str:
        rows = "\n".join(
            f"  round {index}: risk {risk:.4f} ± {error:.4f}"
            for index, (risk, error) in enumerate(zip(self.risk, self.risk_se, strict=True))
        )
        return f"Simulation({self.experiment.policy.kind}, {self.experiment.task.tokens} tokens)\n{rows}"


def simulate(
    experiment: Experiment | Built | None = None,
    *,
    engine: Engine | None = None,
    out: Place | str | None = None,
    graph: "nx.Graph[Any] | None" = None,
    learned: Learned | None = None,
    prior: Prior | None = None,
    policy: Policy[Any] | None = None,
    prompts: range | None = None,
    observer: Observer | None = None,
    on_round: Callable[[range, int], None] | None = None,
    name: str = "run",
) -> Simulation:
    """Run an experiment.

    Args:
        experiment: what to run, as it is or built; the defaults if left out.
        engine: where to run it; by default what the experiment names.
        out: folder, or URI of one on shared storage, below which the run is stored; nothing is stored if
            left out.
        graph: any networkx graph in place of the experiment's; an edge j -> i means that i hears j, and
            tokens are its nodes in the order of their names.
        learned: weights of a learned policy.
        prior: in place of the experiment's.
        policy: in place of the experiment's.
        prompts: which prompts; 0..B-1 by default. Any subset gives the same numbers for its prompts.
        observer: called after each round with all that happened in it, workspaces and messages included.
        on_round: told (batch of prompts, round) as rounds end; by default a bar in a notebook.
        name: first part of the name of the run's folder.

    Raises:
        UsageError: if the experiment, or what was handed in with it, cannot be run; before anything starts.
        RunError: if the disk fills up, numbers grow beyond all bounds, or a policy that was handed in fails;
            what was stored until then stays.

    Example:
        >>> small = Experiment().with_values({"task.prompts": 200, "task.tokens": 16})
        >>> simulate(small).risk.round(2).tolist()[:2]
        [1.0, 0.51]
        >>> import networkx as nx
        >>> simulate(small, graph=nx.cycle_graph(16)).risk.round(2).tolist()[:2]
        [1.0, 0.65]
    """
    check_name(name)
    validate_called(observer=observer, on_round=on_round)
    if engine is not None:
        validate_engine(engine)
    parent = None if out is None else named_place("out", out)
    given = Experiment() if experiment is None else experiment
    if isinstance(given, Built):
        for key, value in {"graph": graph, "prior": prior, "policy": policy}.items():
            if value is not None:
                raise UsageError(key, value, "left out of what is built already; hand it to build")
        built = given.with_weights(learned) if learned is not None else given
    else:
        built = build(given, graph, learned, prior=prior, policy=policy)
    prompts = range(built.experiment.task.prompts) if prompts is None else prompts
    validate_prompts(prompts)
    validate_traced(built.experiment, prompts)
    batches = Batches(prompts, batch_size(built.experiment), weights_digest(built.learned))
    check_policy(built, batches)
    if parent is not None:
        check_room(built.experiment, parent)
    shown = told(on_round, built.system.rounds, prompts)
    with opened(engine, built.experiment) as playing, shown as on_round:
        writer = None
        if parent is not None:
            folder = new_folder(parent, f"{name}-{built.experiment.identity()}")
            writer = TraceWriter(folder, built, playing.name, batches)
        return play(built, playing, batches, writer, observer, on_round)


@contextmanager
def told(
    on_round: Callable[[range, int], None] | None, rounds: int, prompts: range
) -> Iterator[Callable[[range, int], None] | None]:
    """What is told of rounds that end: what was handed in; in a notebook otherwise a bar."""
    if on_round is not None or not in_notebook():
        yield on_round
        return
    with Progress().task("simulation", len(prompts) * (rounds + 1)) as advance:

        def follow(batch: range, round: int) -> None:
            done = (batch.start - prompts.start) * (rounds + 1) + len(batch) * (round + 1)
            advance(done, f"round {round} of {rounds}, prompts up to {batch.stop:,}")

        yield follow


def check_policy(built: Built, batches: Batches) -> None:
    """Refuse a policy that cannot be built, or does not fit, before anything is stored.

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    validate_policy(built.system.policy, built.system.rounds, built.mixing.tokens, batches.after())


def opened(engine: Engine | None, experiment: Experiment) -> AbstractContextManager[Engine]:
    """The engine that was handed in; or the one that the experiment names, closed at the end."""
    return closing(open_engine(experiment)) if engine is None else nullcontext(engine)


def open_engine(
    experiment: Experiment,
    address: str | None = None,
    progress: Progress | None = None,
    folder: str | None = None,
) -> Engine:
    """The engine that the experiment names.

    Args:
        experiment: its [run] table.
        address: of a running cluster.
        progress: shows what takes long.
        folder: where a cluster that is started keeps its sockets and logs.

    Raises:
        UsageError: if a cluster was named and cannot be joined, or the folder of a new one cannot be written.
    """
    section = experiment.run
    return ENGINES[section.engine](EngineOptions(section.tokens_per_actor, address, progress, folder))


def play(
    built: Built,
    engine: Engine,
    batches: Batches,
    writer: TraceWriter | None = None,
    observer: Observer | None = None,
    on_round: Callable[[range, int], None] | None = None,
) -> Simulation:
    """Play all prompts, or those that a stopped run still lacks; what is done is kept after each batch.

    Raises:
        RunError: saying why it stopped, and how to resume it.
        KeyboardInterrupt: likewise.
    """
    system, mixing = built.system, built.mixing
    totals = Totals.none(system.rounds + 1, mixing.tokens, len(batches.prompts))
    with explained(writer):
        if writer:
            totals.load(writer.folder)
            writer.restore(totals.batches)
        for batch in batches.after(totals.prompts):
            _play_batch(built, engine, batch, totals, writer, observer, on_round)
            totals.end_batch(len(batch))
            if writer:
                totals.save(writer.folder)
        count = len(batches.prompts)
        mean = totals.position_sum / count
        spread = np.maximum(totals.position_square / count - mean**2, 0.0)
        result = Simulation(
            built.experiment,
            totals.prompt_risk,
            mean,
            np.sqrt(spread / (count - 1)) if count > 1 else np.full_like(mean, np.nan),
            system.channel.bits_per_message(system.policy.codes),
            mixing.tokens * system.rounds * count,
            totals.scalars,
            int(totals.clipped.sum()),
            totals.seconds,
            writer.folder if writer else None,
        )
        if writer:
            counts = totals.clipped, totals.seconds, totals.scalars
            writer.finish(result.risk, result.risk_se, *counts, mixing.tokens * count)
            forget(writer.folder)
    return result


def _play_batch(
    built: Built,
    engine: Engine,
    batch: range,
    totals: Totals,
    writer: TraceWriter | None,
    observer: Observer | None,
    on_round: Callable[[range, int], None] | None,
) -> None:
    wanted = observer is not None or (writer is not None and writer.stores(batch))
    power = built.prior.power()
    outcomes = engine.play(built.system, built.mixing, batch, detail=wanted, messages=wanted)
    with (
        closing(outcomes) if isinstance(outcomes, Generator) else nullcontext()
    ):  # not when Python gets to it
        for outcome in _sound(outcomes, "policy" in built.handed_in):
            risk = totals.add(outcome, outcome.report.error / power)
            if writer:
                writer.round(totals.batches, batch, outcome, risk)
            if observer:
                observer(batch, outcome)
            if on_round:
                on_round(batch, outcome.round)


def _sound(outcomes: Iterator[Outcome], own_policy: bool) -> Iterator[Outcome]:
    """The rounds, as long as all numbers in them are finite and a policy that was handed in does not fail."""
    round = 0
    try:
        for outcome in outcomes:
            if not np.isfinite(outcome.report.error).all():
                raise FloatingPointError(f"an estimate of round {outcome.round} is not finite")
            yield outcome
            round = outcome.round + 1
    except (FloatingPointError, np.linalg.LinAlgError) as failure:
        raise RunError(
            f"the simulation failed: {failure}. Its numbers are too large or too small: take a smaller "
            "policy.step, more label noise, or other weights"
        ) from failure
    except (TokenfieldError, MemoryError, OSError):
        raise
    except Exception as failure:  # of a user's own code, which may raise anything
        if not own_policy:
            raise
        words = f"round {round} failed in the policy that was handed in: {type(failure).__name__}: {failure}"
        raise RunError(words) from failure


def batch_size(experiment: Experiment) -> int:
    """Prompts at a time: as many as fit into memory; results do not depend on it."""
    if experiment.run.batch is not None:
        return experiment.run.batch
    budget = min(_BATCH_BYTES, available_memory() // 4)
    return max(1, budget // (bytes_per_token_prompt(experiment) * experiment.task.tokens))
