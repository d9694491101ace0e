"""What a sparse graph costs in depth, and a short context in risk: theory, agents and transformer.

This module stands above `analysis`, as `comparison` does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from agents.transformer.export import export
from analysis.bounds import light_cone_bound
from analysis.figures import save
from analysis.locality_figures import bottleneck, locality_depth_diagram, risk_against_context
from analysis.prediction import foreseen, predict_on_graph
from analysis.theory.bayes import bayes_limit
from analysis.theory.light_cone import LightConeLimit
from analysis.theory.locality import LocalPrediction
from analysis.verdict import locality_sentence
from runner.assembly import check, graph_of, mixing_for, prior_of, turns_of
from runner.console import print_locality
from runner.display import Display
from runner.engine import Engine
from runner.experiment import Experiment
from runner.folders import new_folder
from runner.models import trained_model
from runner.plan import Comparison, LocalitySection, policy_values
from runner.simulation import Simulation, simulate
from runner.tables import write_table, write_text
from topology.metrics import reach

_BAYES_SAMPLES = 2_000
_EACH_POSITION = 10  # times as many samples where every position has a risk of its own

Row = dict[str, object]


@dataclass(frozen=True)
class Located:
    """What a comparison of graphs gives.

    Attributes:
        depths: source, family, degree, gap, mixing_time, diameter, policy, depth, rounds_per_scale, risk,
            risk_se, limit (Bayes risk of the light cone), for the locality-depth diagram.
        turns: source, family, rounds_per_scale, depth, risk, risk_se, at one depth.
        contexts: source, policy, context, risk, risk_se on the causal graph.
        sentence: what was seen.
        folder: traces, tables and figures.
        figures: paths of the figures.
    """

    depths: pd.DataFrame
    turns: pd.DataFrame
    contexts: pd.DataFrame
    sentence: str
    folder: Path
    figures: list[Path]

    def answer(self) -> dict[str, object]:
        """What `compare --json` reports."""
        frames = {"depths": self.depths, "turns": self.turns, "contexts": self.contexts}
        return {
            **{name: json.loads(frame.to_json(orient="records")) for name, frame in frames.items()},
            "sentence": self.sentence,
            "figures": [str(path) for path in self.figures],
            "run": str(self.folder),
        }

    def show(self) -> None:
        """Print it."""
        print_locality(self.depths)
        print("".join(f"figure: {path}\n" for path in self.figures) + f"tables: {self.folder}\n")
        print(self.sentence)


def compare_locality(
    comparison: Comparison, engine: Engine, out: Path, workers: int, display: Display, name: str = "locality"
) -> Located:
    """Put theory beside agents on many graphs and depths, and on the causal graph by context length.

    Args:
        comparison: an experiment with a [locality] table.
        engine: plays all simulations; its actors are kept from one to the next.
        out: folder below which the comparison is stored, and weights are cached.
        workers: unused, since there is one transformer at most.
        display: shows the progress.
        name: first part of the folder's name.

    Raises:
        UsageErrors: if one of the experiments cannot be run; before anything starts.
    """
    plan = comparison.locality or LocalitySection()
    check_locality(comparison)
    folder = new_folder(out, f"{name}-{comparison.identity()}")
    base = comparison.experiment()
    depths = pd.DataFrame(_depths(base, plan, engine, display))
    turns = pd.DataFrame(_turns(base, plan, engine, display))
    contexts = pd.DataFrame(_contexts(base, plan, engine, out / "weights", folder, display))
    scales = int(prior_of(base).scales.max())
    text = locality_sentence(depths, contexts)
    for table, frame in (("depths", depths), ("turns", turns), ("contexts", contexts)):
        write_table(folder / f"{table}.parquet", pa.Table.from_pandas(frame, preserve_index=False))
    write_text(folder / "verdict.txt", text + "\n")
    fixed = _caption(base)
    control = f"{'with' if base.policy.control_variate else 'no'} control variate"
    graphs = (
        f"degree {base.graph.degree} where the graph has one, {base.graph.mixing} weights, {control}; {fixed}"
    )
    averaged = f"{graphs}; gossip with the rounds per scale that theory finds best at each depth"
    figures = [
        save(locality_depth_diagram(depths, averaged, scales), folder, "locality-depth"),
        save(bottleneck(turns, f"after {_middle(plan)} rounds; {graphs}"), folder, "rounds-per-scale"),
    ]
    if len(contexts):
        caption = f"causal graph, after {plan.context_rounds} rounds, cv: control variate; {fixed}"
        figures.append(save(risk_against_context(contexts, caption), folder, "context"))
    return Located(depths, turns, contexts, text, folder, figures)


def check_locality(comparison: Comparison) -> None:
    """Refuse a comparison of graphs one of whose experiments cannot run.

    Raises:
        UsageErrors: naming the key, what was given, what is possible.
    """
    plan, base = comparison.locality or LocalitySection(), comparison.experiment()
    for family in plan.families:
        check(_gossip(base, family, max(plan.depths), "auto"))
    for policy in plan.context_policies:
        check(_causal(base, policy, plan.context_rounds))
    if plan.transformer:
        check(_causal(base, "learned", plan.context_rounds))


def _gossip(base: Experiment, family: str, depth: int, turns: object) -> Experiment:
    return base.with_values(
        {
            "graph.kind": family,
            "run.rounds": depth,
            "policy.kind": "gossip",
            "policy.rounds_per_scale": turns,
        }
    )


def _causal(base: Experiment, policy: str, rounds: int) -> Experiment:
    return base.with_values({"graph.kind": "causal", "run.rounds": rounds, **policy_values(policy)})


def _middle(plan: LocalitySection) -> int:
    """The depth at which rounds per scale are varied."""
    return sorted(plan.depths)[len(plan.depths) // 2]


def _depths(base: Experiment, plan: LocalitySection, engine: Engine, display: Display) -> list[Row]:
    rows: list[Row] = []
    with display.task("graphs and depths", len(plan.families) * len(plan.depths)) as advance:
        for family in plan.families:
            graph = graph_of(_gossip(base, family, 1, 1))
            mixing = mixing_for(_gossip(base, family, 1, 1))
            found = reach(graph, mixing)
            limit = light_cone_bound(_gossip(base, family, max(plan.depths), 1), _BAYES_SAMPLES).value
            for depth in plan.depths:
                advance(len(rows) // 2, f"{family}, depth {depth}")
                automatic = _gossip(base, family, depth, "auto")
                (turn,) = turns_of(automatic, mixing)
                experiment = automatic.with_values({"policy.rounds_per_scale": turn})
                shared: Row = {
                    "family": family,
                    "degree": graph.number_of_edges() / mixing.tokens,
                    "gap": found.gap,
                    "mixing_time": found.mixing_time,
                    "diameter": found.diameter,
                    "policy": "gossip",
                    "depth": depth,
                    "rounds_per_scale": turn,
                    "limit": float(limit[depth]),
                }
                rows += _pair(experiment, shared, plan, engine)
    return rows


def _turns(base: Experiment, plan: LocalitySection, engine: Engine, display: Display) -> list[Row]:
    rows: list[Row] = []
    depth = _middle(plan)
    with display.task("rounds per scale", len(plan.families) * len(plan.turns)) as advance:
        for family in plan.families:
            for turn in plan.turns:
                advance(len(rows) // 2, f"{family}, T = {turn}")
                shared: Row = {"family": family, "rounds_per_scale": turn, "depth": depth}
                rows += _pair(_gossip(base, family, depth, turn), shared, plan, engine)
    return rows


def _pair(experiment: Experiment, shared: Row, plan: LocalitySection, engine: Engine) -> list[Row]:
    """Theory and agents at the last round."""
    predicted = predict_on_graph(experiment, plan.theory_samples)
    measured = simulate(experiment, engine=engine)
    return [
        {"source": source, **shared, "risk": float(found.risk[-1]), "risk_se": float(found.risk_se[-1])}
        for source, found in (("theory", predicted), ("agents", measured))
    ]


def _contexts(
    base: Experiment, plan: LocalitySection, engine: Engine, cache: Path, folder: Path, display: Display
) -> list[Row]:
    """Risk by context length: position i of the causal graph hears i + 1 tokens, itself included."""
    rows: list[Row] = []
    positions = np.arange(1, base.task.tokens + 1)

    def add(source: str, policy: str, risk: Sequence[float], errors: Sequence[float]) -> None:
        for context, value, error in zip(positions, risk, errors, strict=True):
            row = {"source": source, "policy": policy, "context": int(context)}
            rows.append({**row, "risk": float(value), "risk_se": float(error)})

    runs = [*plan.context_policies, *(["feedforward"] if plan.transformer else [])]
    with display.task("causal graph", len(runs)) as advance:
        for done, policy in enumerate(runs):
            advance(done, policy)
            learned = None
            trained = policy == "feedforward"
            experiment = _causal(base, "learned" if trained else policy, plan.context_rounds)
            if trained:
                learned = export(trained_model(experiment, cache, display).model())
            run = simulate(experiment, engine=engine, out=folder, learned=learned, name=f"causal-{policy}")
            add("transformer" if trained else "agents", policy, *_last(run))
            theory = None if trained else foreseen(experiment, _EACH_POSITION * plan.theory_samples)
            if isinstance(theory, LocalPrediction | LightConeLimit):
                add("theory", policy, theory.position_risk[-1].tolist(), theory.position_risk_se[-1].tolist())
    if rows:
        prior, task = prior_of(base), base.task
        limit = bayes_limit(prior, task.tokens, task.label_noise, _BAYES_SAMPLES, base.run.seed)
        add("limit", "Bayes", limit.risk[1:].tolist(), limit.risk_se[1:].tolist())
    return rows


def _last(run: Simulation) -> tuple[list[float], list[float]]:
    return run.position_risk[-1].tolist(), run.position_risk_se[-1].tolist()


def _caption(base: Experiment) -> str:
    """What the figures hold fixed."""
    task, channel, prior = base.task, base.channel, base.prior
    return (
        f"N = {task.tokens}; {prior.kind} prior of {prior.levels} levels, branching {prior.branching}, "
        f"ρ = {prior.decay:g}, d = {prior.dim}; σ = {task.label_noise:g}, K = {channel.channels}, "
        f"b = {channel.bits} bits, c = {channel.clip:g}, τ = {channel.noise:g}; {task.prompts:,} prompts, "
        "bars: two standard errors"
    )
