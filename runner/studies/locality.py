"""What a sparse graph costs in depth, and a short context in risk: theory, agents and transformer."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from agents.transformer.export import export
from analysis.plots.locality import bottleneck, locality_depth_diagram, risk_against_context
from analysis.report.tables import agents_and_theory, by_depth
from analysis.report.verdict import locality_sentence
from analysis.theory.evolution.graph import LocalPrediction
from analysis.theory.limits.bayes import bayes_limit
from analysis.theory.limits.light_cone import LightConeLimit
from analysis.theory.limits.physical import light_cone_bound
from analysis.theory.predict import predict, predict_on_graph
from runner.built import Built, build
from runner.config.studies import Comparison, LocalitySection, of_kind, policy_values
from runner.simulation.simulate import simulate
from runner.storage.files import new_folder, write_figure
from runner.studies.base import Findings, Session, parameters
from runner.training import train
from topology.metrics import reach

_BAYES_SAMPLES = 2_000
_EACH_POSITION = 10  # times as many samples where every position has a risk of its own
_LEARNED = "feedforward"  # how the trained transformer is called in tables

Row = dict[str, object]


def prepare(comparison: Comparison) -> Callable[[Session], Findings]:
    """Build and check every graph and policy of a comparison, once.

    Returns:
        What puts theory beside agents on many graphs and depths, and on the causal graph by context length.
        Its findings have the frames `depths` (source, family, degree, gap, mixing_time, diameter, policy,
        depth, rounds_per_scale, risk, risk_se, limit: Bayes risk of the light cone), `turns` (source, family,
        rounds_per_scale, depth, risk, risk_se, at one depth) and `contexts` (source, policy, context, risk,
        risk_se, causal graph).

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    plan, base = comparison.locality or LocalitySection(), build(comparison.experiment())
    graphs = {
        family: base.varied(
            {"graph.kind": family, "run.rounds": max(plan.depths), **of_kind("gossip"),
             "policy.rounds_per_scale": 1}
        )
        for family in plan.families
    }  # fmt: skip
    causal = base.varied({"graph.kind": "causal", "run.rounds": plan.context_rounds})
    contexts = {policy: causal.varied(policy_values(policy)) for policy in plan.context_policies}
    if plan.transformer:
        contexts[_LEARNED] = causal.varied(of_kind("learned"))
    return partial(_run, comparison, plan, base, graphs, contexts)


def _run(
    comparison: Comparison,
    plan: LocalitySection,
    base: Built,
    graphs: dict[str, Built],
    contexts: dict[str, Built],
    session: Session,
) -> Findings:
    folder = new_folder(session.out, f"{session.name}-{comparison.identity()}")
    frames = {
        "depths": pd.DataFrame(_depths(plan, graphs, session)),
        "turns": pd.DataFrame(_turns(plan, graphs, session)),
        "contexts": pd.DataFrame(_contexts(plan, base, contexts, folder, session)),
    }
    experiment, depths = base.experiment, frames["depths"]
    # The graph varies, or is named beside it.
    fixed = parameters(experiment).replace(f", {experiment.graph.kind} graph", "")
    fixed += f"; {experiment.task.prompts:,} prompts, bars: two standard errors"
    control = f"{'with' if experiment.policy.control_variate else 'no'} control variate"
    degree = f"degree {experiment.graph.degree} where the graph has one"
    on_graphs = f"{degree}, {experiment.graph.mixing} weights, {control}; {fixed}"
    averaged = f"{on_graphs}; gossip with the rounds per scale that theory finds best at each depth"
    scales = int(base.prior.scales.max())
    drawn = {
        "locality-depth": locality_depth_diagram(depths, averaged, scales),
        "rounds-per-scale": bottleneck(frames["turns"], f"after {_middle(plan)} rounds; {on_graphs}"),
    }
    if len(frames["contexts"]):
        caption = f"causal graph, after {plan.context_rounds} rounds, cv: control variate; {fixed}"
        drawn["context"] = risk_against_context(frames["contexts"], caption)
    shown = depths.assign(mixing=[f"{time:.3g}" for time in depths["mixing_time"]])
    title = "risk / E|w|² ± standard error (theory)"
    return Findings(
        frames,
        locality_sentence(depths, frames["contexts"]),
        folder,
        [write_figure(figure, folder, name) for name, figure in drawn.items()],
        displays=[by_depth(shown, title, ["family", "mixing"], agents_and_theory)],
    ).saved()


def _middle(plan: LocalitySection) -> int:
    """The depth at which rounds per scale are varied."""
    return sorted(plan.depths)[len(plan.depths) // 2]


def _depths(plan: LocalitySection, graphs: dict[str, Built], session: Session) -> list[Row]:
    rows: list[Row] = []
    with session.progress.task("graphs and depths", len(graphs) * len(plan.depths)) as advance:
        for family, deepest in graphs.items():
            found = reach(deepest.graph, deepest.mixing)
            limit, _ = light_cone_bound(deepest.scenario, _BAYES_SAMPLES)
            for depth in plan.depths:
                advance(len(rows) // 2, f"{family}, depth {depth}")
                automatic = deepest.varied({"run.rounds": depth, "policy.rounds_per_scale": "auto"})
                (turn,) = automatic.turns
                shared: Row = {
                    "family": family,
                    "degree": deepest.graph.number_of_edges() / deepest.mixing.tokens,
                    "gap": found.gap,
                    "mixing_time": found.mixing_time,
                    "diameter": found.diameter,
                    "policy": "gossip",
                    "depth": depth,
                    "rounds_per_scale": turn,
                    "limit": float(limit[depth]),
                }
                rows += _pair(automatic.varied({"policy.rounds_per_scale": turn}), shared, plan, session)
    return rows


def _turns(plan: LocalitySection, graphs: dict[str, Built], session: Session) -> list[Row]:
    rows: list[Row] = []
    depth = _middle(plan)
    cases = [((family, turn), deepest) for family, deepest in graphs.items() for turn in plan.turns]
    for (family, turn), deepest in session.each("rounds per scale", cases, "{0[0]}, T = {0[1]}".format):
        shared: Row = {"family": family, "rounds_per_scale": turn, "depth": depth}
        built = deepest.varied({"run.rounds": depth, "policy.rounds_per_scale": turn})
        rows += _pair(built, shared, plan, session)
    return rows


def _pair(built: Built, shared: Row, plan: LocalitySection, session: Session) -> list[Row]:
    """Theory and agents at the last round."""
    predicted = predict_on_graph(built.scenario, plan.theory_samples)
    measured = simulate(built, engine=session.engine)
    return [
        {"source": source, **shared, "risk": float(found.risk[-1]), "risk_se": float(found.risk_se[-1])}
        for source, found in (("theory", predicted), ("agents", measured))
    ]


def _contexts(
    plan: LocalitySection, base: Built, contexts: dict[str, Built], folder: Path, session: Session
) -> list[Row]:
    """Risk by context length: position i of the causal graph hears i + 1 tokens, itself included."""
    rows: list[Row] = []

    def add(source: str, policy: str, risk: np.ndarray, errors: np.ndarray) -> None:
        for context, (value, error) in enumerate(zip(risk, errors, strict=True), 1):
            row = {"source": source, "policy": policy, "context": context}
            rows.append({**row, "risk": float(value), "risk_se": float(error)})

    for policy, built in session.each("causal graph", contexts.items(), str):
        trained = built.entry.is_trained
        if trained:
            built = built.with_weights(export(train(built, session.out, session.progress).model()))
        run = simulate(built, engine=session.engine, out=folder, name=f"causal-{policy}")
        add("transformer" if trained else "agents", policy, run.position_risk[-1], run.position_risk_se[-1])
        theory = predict(built.scenario, _EACH_POSITION * plan.theory_samples)
        if isinstance(theory, LocalPrediction | LightConeLimit):
            add("theory", policy, theory.position_risk[-1], theory.position_risk_se[-1])
    if rows:
        task, seed = base.experiment.task, base.experiment.run.seed
        limit = bayes_limit(base.prior, task.tokens, task.label_noise, _BAYES_SAMPLES, seed)
        add("limit", "Bayes", limit.risk[1:], limit.risk_se[1:])
    return rows
