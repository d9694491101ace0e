"""What each part of a transformer is for: trained without it, by depth and seed, beside theory and agents.

This module stands above `analysis`, as `comparison` does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from agents.transformer.export import export
from analysis.ablation import FULL
from analysis.ablation_figures import risk_by_ablation
from analysis.claims import verdicts
from analysis.figures import save
from analysis.function_vector_study import FunctionVectors, measure_function_vectors
from analysis.verdict import claims_sentence
from runner.ablation_rows import (
    Key,
    agent_rows,
    keys,
    limit_rows,
    theory_rows,
    transformer_rows,
    unconstrained_rows,
)
from runner.agreement import on_agents
from runner.assembly import check, mixing_for, prior_of, system_of
from runner.console import print_claims, print_seeds
from runner.display import Display
from runner.engine import Engine
from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.folders import new_folder
from runner.models import job_of, trained_models
from runner.plan import AblationSection, Comparison
from runner.tables import write_table, write_text
from runner.weights import Trained

_TAKEN_APART = 1_000  # prompts
_BESIDE = 200  # prompts on which agents run the weights


@dataclass(frozen=True)
class Ablated:
    """What a comparison of ablations gives.

    Attributes:
        rows: source, prior, policy, depth, seed, risk, risk_se, rule (by which theory reaches the risk).
        claims: claim, test, effect, low, high, needed, holds.
        sentence: what was seen.
        folder: tables and figure.
        figure: path of the figure.
    """

    rows: pd.DataFrame
    claims: pd.DataFrame
    sentence: str
    folder: Path
    figure: Path

    def answer(self) -> dict[str, object]:
        """What `compare --json` reports."""
        return {
            "rows": json.loads(self.rows.to_json(orient="records")),
            "claims": json.loads(self.claims.to_json(orient="records")),
            "sentence": self.sentence,
            "figure": str(self.figure),
            "run": str(self.folder),
        }

    def show(self) -> None:
        """Print it."""
        print_seeds(self.rows)
        print_claims(self.claims)
        print(f"\nfigure: {self.figure}\ntables: {self.folder}\n\n{self.sentence}")


def check_ablation(comparison: Comparison) -> None:
    """Refuse a comparison of ablations one of whose experiments cannot run.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    plan, errors = comparison.ablation or AblationSection(), []
    if comparison.graph.kind != "complete":
        errors.append(UsageError("graph.kind", comparison.graph.kind, '"complete", where theory is exact'))
    if comparison.run.rounds < 1:
        errors.append(UsageError("run.rounds", comparison.run.rounds, "1 or more layers"))
    for name in plan.null:
        if name not in plan.variants:
            errors.append(UsageError("ablation.null", name, f"one of {', '.join(plan.variants)}"))
    if errors:
        raise UsageErrors(errors)
    for prior, variant, depth, seed in keys(comparison, plan):
        experiment = comparison.ablated(prior, variant, depth, seed)
        check(experiment)
        job_of(experiment)


def compare_ablations(
    comparison: Comparison, engine: Engine, out: Path, workers: int, display: Display, name: str = "ablations"
) -> Ablated:
    """Train every variant at every depth, put theory and agents beside them, and decide the claims.

    Args:
        comparison: an experiment with an [ablation] table.
        engine: plays all simulations.
        out: folder below which the comparison is stored, and weights are cached.
        workers: processes that train side by side.
        display: shows the progress.
        name: first part of the folder's name.

    Raises:
        UsageErrors: if one of the experiments cannot be run; before anything starts.
    """
    check_ablation(comparison)
    plan = comparison.ablation or AblationSection()
    folder = new_folder(out, f"{name}-{comparison.identity()}")
    wanted = list(keys(comparison, plan))
    experiments = [comparison.ablated(*key) for key in wanted]
    models = dict(zip(wanted, trained_models(experiments, out / "weights", workers, display), strict=True))
    rows = pd.DataFrame(
        [
            *transformer_rows(comparison, plan, models, display),
            *theory_rows(comparison, plan, display),
            *agent_rows(comparison, plan, engine, display),
            *limit_rows(comparison, plan),
            *unconstrained_rows(comparison, plan, out / "weights", workers, display),
        ]
    )
    difference, vectors = None, None
    if FULL in plan.variants:
        difference = _difference(comparison, models, engine, display)
        if comparison.prior.kind == "tree":
            vectors = _taken_apart(comparison, models, display)
    claims = verdicts(rows, difference, vectors)
    text = claims_sentence(claims)
    for table, frame in (("ablation", rows), ("claims", claims)):
        write_table(folder / f"{table}.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    write_text(folder / "verdict.txt", text + "\n")
    figure = save(risk_by_ablation(rows, _caption(comparison, plan)), folder, "ablations")
    return Ablated(rows, claims, text, folder, figure)


def _difference(
    comparison: Comparison, models: dict[Key, Trained], engine: Engine, display: Display
) -> float:
    """Largest difference of an answer between the full transformers of the first seed and their agents."""
    largest, rounds = 0.0, comparison.run.rounds
    with display.task("weights on agents", rounds) as advance:
        for depth in range(1, rounds + 1):
            key = (comparison.prior.kind, FULL, depth, 0)
            few = {"task.prompts": min(_BESIDE, comparison.task.prompts), "run.trace": "none"}
            found = on_agents(models[key], comparison.ablated(*key).with_values(few), engine)
            largest = max(largest, found.difference)
            advance(depth, f"depth {depth}")
    return largest


def _taken_apart(comparison: Comparison, models: dict[Key, Trained], display: Display) -> FunctionVectors:
    """Probes, queries and patching of the deepest full transformer of the first seed."""
    key = (comparison.prior.kind, FULL, comparison.run.rounds, 0)
    experiment, model = comparison.ablated(*key), models[key].model().double()
    prior, mixing = prior_of(experiment), mixing_for(experiment)
    system = system_of(experiment, prior, mixing, export(model))
    prompts = min(2 * _TAKEN_APART, experiment.task.prompts)
    with display.task("function vectors", 1):
        return measure_function_vectors(model, system, mixing, range(prompts), prompts // 2)


def _caption(experiment: Experiment, plan: AblationSection) -> str:
    task, channel, prior = experiment.task, experiment.channel, experiment.prior
    return (
        f"{prior.kind}: {prior.levels} levels, branching {prior.branching}, ρ = {prior.decay:g}, "
        f"d = {prior.dim}; "
        f"N = {task.tokens}, complete graph, σ = {task.label_noise:g}; K = {channel.channels}, "
        f"b = {channel.bits} bits, c = {channel.clip:g}, τ = {channel.noise:g}. Points: median of "
        f"{plan.seeds} seeds; bars: from the least seed to the largest, and two standard errors over "
        f"{task.prompts:,} prompts beyond"
    )
