"""What a sparse graph costs in depth, and a short context in risk: theory, agents and transformer."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

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
from runner.storage.files import write_figure
from runner.studies.base import Findings, Session, Work, parameters, study
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
    return study(comparison, partial(_run, comparison, plan, base, graphs, contexts))


def _run(
    comparison: Comparison,
    plan: LocalitySection,
    base: Built,
    graphs: dict[str, Built],
    contexts: dict[str, Built],
    work: Work,
) -> Findings:
    frames = {
        "depths": _depths(plan, graphs, work),
        "turns": _turns(plan, graphs, work),
        "contexts": _contexts(plan, base, contexts, work),
    }
    work.check()
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
        work.folder,
        [write_figure(figure, work.folder, name) for name, figure in drawn.items()],
        displays=[by_depth(shown, title, ["family", "mixing"], agents_and_theory)],
    )


def _middle(plan: LocalitySection) -> int:
    """The depth at which rounds per scale are varied."""
    return sorted(plan.depths)[len(plan.depths) // 2]


def _depths(plan: LocalitySection, graphs: dict[str, Built], work: Work) -> pd.DataFrame:
    @cache
    def of_graph(family: str) -> tuple[Row, Float[np.ndarray, " rounds"]]:
        """What is the same at all depths, and the limit at each."""
        deepest = graphs[family]
        found = reach(deepest.graph, deepest.mixing)
        limit, _ = light_cone_bound(deepest.scenario, _BAYES_SAMPLES)
        shared: Row = {
            "family": family,
            "degree": deepest.graph.number_of_edges() / deepest.mixing.tokens,
            "gap": found.gap,
            "mixing_time": found.mixing_time,
            "diameter": found.diameter,
            "policy": "gossip",
        }
        return shared, limit

    def compared(key: tuple[str, int], deepest: Built) -> pd.DataFrame:
        family, depth = key
        automatic = deepest.varied({"run.rounds": depth, "policy.rounds_per_scale": "auto"})
        (turn,) = automatic.turns
        shared, limit = of_graph(family)
        here = {**shared, "depth": depth, "rounds_per_scale": turn, "limit": float(limit[depth])}
        return _pair(automatic.varied({"policy.rounds_per_scale": turn}), here, plan, work.session)

    cases = {(family, depth): deepest for family, deepest in graphs.items() for depth in plan.depths}
    tables = work.tables("graphs and depths", cases, "{0[0]}, depth {0[1]}".format, compared)
    return _joined(tables)


def _turns(plan: LocalitySection, graphs: dict[str, Built], work: Work) -> pd.DataFrame:
    depth = _middle(plan)

    def compared(key: tuple[str, int], deepest: Built) -> pd.DataFrame:
        family, turn = key
        shared: Row = {"family": family, "rounds_per_scale": turn, "depth": depth}
        built = deepest.varied({"run.rounds": depth, "policy.rounds_per_scale": turn})
        return _pair(built, shared, plan, work.session)

    cases = {(family, turn): deepest for family, deepest in graphs.items() for turn in plan.turns}
    return _joined(work.tables("rounds per scale", cases, "{0[0]}, T = {0[1]}".format, compared))


def _joined(tables: Mapping[Any, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables.values(), ignore_index=True) if tables else pd.DataFrame()


def _pair(built: Built, shared: Row, plan: LocalitySection, session: Session) -> pd.DataFrame:
    """Theory and agents at the last round."""
    predicted = predict_on_graph(built.scenario, plan.theory_samples)
    measured = simulate(built, engine=session.engine)
    return pd.DataFrame(
        [
            {"source": source, **shared, "risk": float(found.risk[-1]), "risk_se": float(found.risk_se[-1])}
            for source, found in (("theory", predicted), ("agents", measured))
        ]
    )


def _contexts(plan: LocalitySection, base: Built, contexts: dict[str, Built], work: Work) -> pd.DataFrame:
    """Risk by context length: position i of the causal graph hears i + 1 tokens, itself included."""

    def rows(source: str, policy: str, risk: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
        context = np.arange(1, len(risk) + 1)
        columns = {"source": source, "policy": policy, "context": context}
        return pd.DataFrame({**columns, "risk": risk, "risk_se": errors})

    def measured(policy: str, built: Built) -> pd.DataFrame:
        trained, session = built.entry.is_trained, work.session
        if trained:
            built = built.with_weights(export(train(built, session.out, session.progress).model()))
        run = simulate(built, engine=session.engine, out=work.folder, name=f"causal-{policy}")
        source = "transformer" if trained else "agents"
        parts = [rows(source, policy, run.position_risk[-1], run.position_risk_se[-1])]
        theory = predict(built.scenario, _EACH_POSITION * plan.theory_samples)
        if isinstance(theory, LocalPrediction | LightConeLimit):
            parts.append(rows("theory", policy, theory.position_risk[-1], theory.position_risk_se[-1]))
        return pd.concat(parts)

    tables = list(work.tables("causal graph", contexts, str, measured).values())
    if tables:
        task, seed = base.experiment.task, base.experiment.run.seed
        limit = bayes_limit(base.prior, task.tokens, task.label_noise, _BAYES_SAMPLES, seed)
        tables.append(rows("limit", "Bayes", limit.risk[1:], limit.risk_se[1:]))
    return _joined(dict(enumerate(tables)))
