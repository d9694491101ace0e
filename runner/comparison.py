"""Theory, agents and transformer on one experiment, side by side, with its null.

This module stands above `analysis`: it is where what the runner measured meets what theory predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa

from analysis.baselines import baseline_risk
from analysis.figures import risk_against_depth, save
from analysis.measures import paired_difference
from analysis.prediction import foreseen, infinite_tokens
from analysis.verdict import sentence
from runner.agreement import on_agents
from runner.assembly import check
from runner.console import print_comparison
from runner.display import Display
from runner.engine import Engine
from runner.experiment import Experiment
from runner.folders import new_folder
from runner.models import job_of, trained_models
from runner.plan import Comparison, PolicyName, Variant
from runner.risk import mean_over_prompts
from runner.simulation import Simulation, simulate
from runner.tables import write_table, write_text
from runner.weights import Trained

INFINITE = "adaptive, infinite N"  # the policy's name in rows of closed forms


@dataclass
class _Rows:
    """Collects the rows of the table that a comparison ends with."""

    rows: list[dict[str, object]] = field(default_factory=list)

    def add(
        self,
        source: str,
        prior: str,
        policy: str,
        depths: Sequence[int],
        risk: Sequence[float],
        errors: Sequence[float],
    ) -> None:
        for depth, value, error in zip(depths, risk, errors, strict=True):
            self.rows.append(
                {
                    "source": source,
                    "prior": prior,
                    "policy": policy,
                    "depth": int(depth),
                    "risk": float(value),
                    "risk_se": float(error),
                }
            )

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


@dataclass(frozen=True)
class Compared:
    """What a comparison gives.

    Attributes:
        rows: source, prior, policy, depth, risk (relative), risk_se.
        max_difference: largest difference of an answer between a transformer and the agents that run its
            weights, in units of sqrt(E|w|^2), over prompts, tokens, components and depths; None without
            transformers.
        sentence: what was seen.
        folder: traces, table and figure.
        figure: path of the figure.
    """

    rows: pd.DataFrame
    max_difference: float | None
    sentence: str
    folder: Path
    figure: Path

    def answer(self) -> dict[str, object]:
        """What `compare --json` reports."""
        return {
            "rows": self.rows.to_dict("records"),
            "max_difference": self.max_difference,
            "sentence": self.sentence,
            "figure": str(self.figure),
            "run": str(self.folder),
        }

    def show(self) -> None:
        """Print it."""
        print_comparison(self.rows)
        print(f"\nfigure: {self.figure}\ntraces: {self.folder}\n\n{self.sentence}")


def compare(
    comparison: Comparison, engine: Engine, out: Path, workers: int, display: Display, name: str = "compare"
) -> Compared:
    """Run everything that a comparison names.

    Args:
        comparison: the experiment and what is compared.
        engine: plays all simulations; its actors are kept from one to the next.
        out: folder below which the comparison is stored, and the weights are cached.
        workers: processes that train side by side.
        display: shows the progress.
        name: first part of the folder's name.

    Raises:
        UsageErrors: if one of the experiments cannot be run; before anything starts.
    """
    check_plan(comparison)
    plan = comparison.pairs()
    folder = new_folder(out, f"{name}-{comparison.identity()}")
    rows = _Rows()
    _theory(comparison, plan, rows, display)
    models = _train(comparison, out / "weights", workers, display)
    measured = _agents(comparison, plan, engine, folder, rows, display)
    _baselines(comparison, plan, rows)
    difference = _transformers(comparison, models, engine, folder, rows, display)
    frame = rows.frame()
    gap = _null_gap(measured)
    text = sentence(frame, difference, gap)
    write_table(folder / "comparison.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    write_text(folder / "verdict.txt", text + "\n")
    figure = save(risk_against_depth(frame, caption(comparison)), folder, "risk-against-depth")
    return Compared(frame, difference, text, folder, figure)


def check_plan(comparison: Comparison) -> None:
    """Refuse a comparison one of whose experiments cannot run.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    for prior, policy in comparison.pairs():
        check(comparison.variant(prior, policy))
    for variant in comparison.compare.transformers:
        check(comparison.transformer_variant(comparison.run.rounds, variant))
        job_of(comparison.transformer_variant(comparison.run.rounds, variant))


def caption(experiment: Experiment) -> str:
    """The parameters that a figure must state: N, K, b, c, tau and the prior."""
    task, channel, prior = experiment.task, experiment.channel, experiment.prior
    parts = (
        f"{prior.kind}: {prior.levels} levels, branching {prior.branching}, decay {prior.decay:g}, "
        f"d = {prior.dim}",
        f"N = {task.tokens}, {experiment.graph.kind} graph, σ = {task.label_noise:g}",
        f"K = {channel.channels}, b = {channel.bits} bits, c = {channel.clip:g}, τ = {channel.noise:g}",
    )
    marks = (
        "lines: state evolution",
        "points: agents, joint Bayesian decoder",
        "diamonds: trained transformers",
        f"bars: two standard errors over {task.prompts:,} prompts",
        "cv: control variate",
    )
    return "   |   ".join(parts) + "\n" + "; ".join(marks)


def _theory(
    comparison: Comparison, plan: list[tuple[str, PolicyName]], rows: _Rows, display: Display
) -> None:
    """State evolution and closed forms, for the policies that have them."""
    depths = range(comparison.run.rounds + 1)
    with display.task("theory: state evolution", len(plan)) as advance:
        for done, (prior, policy) in enumerate(plan, 1):
            experiment = comparison.variant(prior, policy)
            found = foreseen(experiment, comparison.compare.theory_samples)
            if found is not None:
                rows.add("theory", prior, policy, depths, found.risk.tolist(), found.risk_se.tolist())
            complete = comparison.graph.kind == "complete"
            if complete and policy == "adaptive" and (limit := infinite_tokens(experiment)) is not None:
                rows.add("theory", prior, INFINITE, depths, limit.tolist(), [0.0] * len(limit))
            advance(done, f"{policy}, {prior}")


def _train(
    comparison: Comparison, cache: Path, workers: int, display: Display
) -> dict[tuple[Variant, int], Trained]:
    keys = [
        (variant, depth)
        for variant in comparison.compare.transformers
        for depth in range(1, comparison.run.rounds + 1)
    ]
    experiments = [comparison.transformer_variant(depth, variant) for variant, depth in keys]
    models = trained_models(experiments, cache, workers, display)
    return dict(zip(keys, models, strict=True))


def _agents(
    comparison: Comparison,
    plan: list[tuple[str, PolicyName]],
    engine: Engine,
    folder: Path,
    rows: _Rows,
    display: Display,
) -> dict[tuple[str, str], Simulation]:
    measured: dict[tuple[str, str], Simulation] = {}
    with display.task("agents", len(plan)) as advance:
        for done, (prior, policy) in enumerate(plan, 1):
            advance(done - 1, f"{policy}, {prior}")
            result = simulate(
                comparison.variant(prior, policy), engine=engine, out=folder, name=_slug(prior, policy)
            )
            measured[prior, policy] = result
            depths = range(len(result.risk))
            rows.add("agents", prior, policy, depths, result.risk.tolist(), result.risk_se.tolist())
    return measured


def _baselines(comparison: Comparison, plan: list[tuple[str, PolicyName]], rows: _Rows) -> None:
    """What whole examples give, on the same prompts; in the row of the last depth, though they have none."""
    for prior, policy in dict(plan).items():
        for name, risk in baseline_risk(comparison.variant(prior, policy)).items():
            mean = mean_over_prompts(risk)
            depth = comparison.run.rounds
            rows.add("whole examples", prior, name, [depth], [float(mean.value)], [float(mean.error)])


def _transformers(
    comparison: Comparison,
    models: dict[tuple[Variant, int], Trained],
    engine: Engine,
    folder: Path,
    rows: _Rows,
    display: Display,
) -> float | None:
    """Each trained transformer, and agents that run its weights, on the prompts of the agents."""
    if not models:
        return None
    largest = 0.0
    with display.task("transformers, and their weights on agents", len(models)) as advance:
        for done, ((variant, depth), trained) in enumerate(models.items(), 1):
            advance(done - 1, f"{variant}, depth {depth}")
            experiment = comparison.transformer_variant(depth, variant)
            found = on_agents(trained, experiment, engine, folder, _slug("transformer", variant, str(depth)))
            largest = max(largest, found.difference)
            for source, (value, error) in (
                ("transformer", found.risk),
                ("transformer_on_agents", (found.agents.risk, found.agents.risk_se)),
            ):
                last = [float(value[-1])], [float(error[-1])]
                rows.add(source, comparison.prior.kind, variant, [depth], *last)
    return largest


def _null_gap(measured: dict[tuple[str, str], Simulation]) -> tuple[float, float] | None:
    adaptive = measured.get(("matched_gaussian", "adaptive"))
    static = measured.get(("matched_gaussian", "static codes"))
    if adaptive is None or static is None:
        return None
    gap = paired_difference(adaptive.prompt_risk[-1], static.prompt_risk[-1])
    return float(gap.value), float(gap.error)


def _slug(*words: str) -> str:
    return "-".join(words).replace(", ", "-").replace(" ", "-").replace("_", "-")
