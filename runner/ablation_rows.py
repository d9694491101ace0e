"""What every source says of transformers that lack a part: trained models, theory, agents, limits.

Each function gives rows: source, prior, policy, depth, seed, risk, risk_se, rule.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from analysis.ablation import predicted
from analysis.bounds import light_cone_bound, physical_limit
from runner.display import Display
from runner.engine import Engine
from runner.evaluation import last_risks
from runner.plan import AblationSection, Comparison
from runner.risk import mean_over_prompts
from runner.simulation import simulate
from runner.unconstrained import design_for, job_of, risk_on_prompts, trained_unconstrained
from runner.weights import Trained

NULL = "matched_gaussian"
_BAYES_SAMPLES = 2_000
_UNBOUNDED = 2_000  # prompts on which transformers with unbounded messages are scored

Key = tuple[str, str, int, int]  # prior, variant, depth, seed
Row = dict[str, object]


def keys(comparison: Comparison, plan: AblationSection) -> Iterator[Key]:
    """Prior, variant, depth and seed of every model."""
    for prior, names in variants(comparison, plan).items():
        for variant in names:
            for depth in range(1, comparison.run.rounds + 1):
                for seed in range(plan.seeds):
                    yield prior, variant, depth, seed


def variants(comparison: Comparison, plan: AblationSection) -> dict[str, list[str]]:
    """The variants on each prior: all on that of the file, some on its null."""
    found: dict[str, list[str]] = {comparison.prior.kind: list(plan.variants)}
    if comparison.prior.kind == "tree" and plan.null:
        found[NULL] = list(plan.null)
    return found


def _row(
    source: str, prior: str, policy: str, depth: int, risk: float, error: float, seed: int = 0, rule: str = ""
) -> Row:
    return {
        "source": source, "prior": prior, "policy": policy, "depth": depth, "seed": seed, "risk": float(risk),
        "risk_se": float(error), "rule": rule,
    }  # fmt: skip


def _curve(
    source: str, prior: str, policy: str, risk: Float[np.ndarray, " r"], error: Float[np.ndarray, " r"]
) -> list[Row]:
    return [_row(source, prior, policy, depth, risk[depth], error[depth]) for depth in range(1, len(risk))]


def transformer_rows(
    comparison: Comparison, plan: AblationSection, models: dict[Key, Trained], display: Display
) -> list[Row]:
    """Risk of each model; those of one variant are scored on the same prompts at once."""
    rows, groups = [], [(p, v) for p, names in variants(comparison, plan).items() for v in names]
    with display.task("scoring", len(groups)) as advance:
        for done, (prior, variant) in enumerate(groups):
            advance(done, f"{variant}, {prior}")
            mine = {key: trained for key, trained in models.items() if key[:2] == (prior, variant)}
            deepest = comparison.ablated(prior, variant, comparison.run.rounds, 0)
            risks = last_risks([t.model() for t in mine.values()], deepest, range(comparison.task.prompts))
            for (_, _, depth, seed), risk in zip(mine, risks, strict=True):
                mean = mean_over_prompts(risk)
                rows.append(
                    _row("transformer", prior, variant, depth, float(mean.value), float(mean.error), seed)
                )
    return rows


def theory_rows(comparison: Comparison, plan: AblationSection, display: Display) -> list[Row]:
    """What theory says of each variant, and by which rule."""
    rows, groups = [], [(p, v) for p, names in variants(comparison, plan).items() for v in names]
    with display.task("theory", len(groups)) as advance:
        for done, (prior, variant) in enumerate(groups):
            advance(done, f"{variant}, {prior}")
            experiment = comparison.ablated(prior, variant, comparison.run.rounds, 0)
            found = predicted(experiment, plan.theory_samples)
            rows += [
                _row("theory", prior, variant, depth, found.risk[depth], found.risk_se[depth], 0, rule)
                for depth, rule in enumerate(found.rule)
                if depth
            ]
    return rows


def agent_rows(comparison: Comparison, plan: AblationSection, engine: Engine, display: Display) -> list[Row]:
    """Explicit agents on the same prompts."""
    rows = []
    priors = list(variants(comparison, plan))
    with display.task("agents", len(priors)) as advance:
        for done, prior in enumerate(priors):
            advance(done, f"adaptive, {prior}")
            experiment = comparison.experiment()
            values = {"prior.kind": prior, "policy.kind": "adaptive", "run.trace": "none"}
            found = simulate(experiment.with_values(values), engine=engine)
            rows += _curve("agents", prior, "adaptive", found.risk, found.risk_se)
    return rows


def limit_rows(comparison: Comparison, plan: AblationSection) -> list[Row]:
    """The larger of what so many bits, and all examples, leave of the risk."""
    rows = []
    for prior in variants(comparison, plan):
        learned = comparison.experiment().with_values({"prior.kind": prior, "policy.kind": "learned"})
        limit = np.maximum(physical_limit(learned), light_cone_bound(learned, _BAYES_SAMPLES).value)
        rows += _curve("limit", prior, "limit", limit, np.zeros_like(limit))
    return rows


def unconstrained_rows(
    comparison: Comparison, plan: AblationSection, cache: Path, workers: int, display: Display
) -> list[Row]:
    """Transformers whose messages are not bounded, one seed of each depth, on the file's prior."""
    depths = range(1, comparison.run.rounds + 1)
    experiment, first = comparison.experiment(), comparison.transformer.seed
    designs = [design_for(kind, depth, first) for kind in plan.unconstrained for depth in depths]
    jobs = [job_of(experiment, design) for design in designs]
    models = trained_unconstrained(jobs, cache, workers, display)
    rows, prompts = [], range(min(_UNBOUNDED, experiment.task.prompts))
    with display.task("scoring, messages unbounded", len(models)) as advance:
        for done, (design, model) in enumerate(zip(designs, models, strict=True)):
            advance(done, f"{design.kind}, depth {design.layers}")
            mean = mean_over_prompts(risk_on_prompts(model, experiment, prompts))
            end = float(mean.value), float(mean.error)
            rows.append(_row("unconstrained", experiment.prior.kind, design.kind, design.layers, *end))
    return rows
