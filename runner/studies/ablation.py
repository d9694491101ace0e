"""What each part of a transformer is for: trained without it, by depth and seed, beside theory and agents."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.transformer.export import export
from agents.transformer.model import Transformer
from analysis.measures.ablation import FULL
from analysis.measures.claims import verdicts
from analysis.measures.probes import FunctionVectors
from analysis.plots.ablation import risk_by_ablation
from analysis.report.tables import by_depth, claims_table, median_over_seeds
from analysis.report.verdict import claims_sentence
from analysis.statistics import mean_over_prompts
from analysis.theory.limits.physical import light_cone_bound, physical_limit
from runner.built import Built, build
from runner.config.studies import AblationSection, Comparison
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.storage.files import write_figure
from runner.studies.base import Findings, Session, Work, parameters, study
from runner.studies.function_vectors import measure_function_vectors
from runner.studies.parity import on_agents
from runner.studies.variant_theory import predict_variant
from runner.training import Trained, trained_baselines
from runner.training.baselines import Baseline, baseline_job_of, design_for, risk_on_prompts
from runner.training.evaluation import last_risks
from runner.training.job import job_of

_NULL = "matched_gaussian"
_EXAMINED = 1_000  # prompts on which function vectors are measured, and as many that fit the probes
_BESIDE = 200  # prompts on which agents run the weights
_BAYES_SAMPLES = 2_000
_UNBOUNDED = 2_000  # prompts on which baselines are scored

Key = tuple[str, str, int, int]  # prior, variant, depth, seed
Models = dict[Key, Trained[Transformer]]
_TOLD = "{0[1]}, {0[0]}".format  # how the progress names a prior and a variant
_BOUNDLESS = "{0[0]}, depth {0[1]}".format  # and a transformer whose messages are not bounded


def prepare(comparison: Comparison) -> Callable[[Session], Findings]:
    """Build and check every model of a comparison of ablations.

    Returns:
        What trains every variant at every depth, puts theory and agents beside them, and decides the claims.
        Its findings have the frames `rows` (source, prior, policy, depth, seed, risk, risk_se, rule by which
        theory reaches the risk) and `claims` (claim, test, effect, low, high, needed, holds).

    Raises:
        UsageError: naming the key, what was given, what is possible.
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
        raise UsageError.of(errors)
    base = build(comparison.experiment())
    models = {key: build(comparison.ablated(*key), like=base) for key in _keys(comparison, plan)}
    for built in models.values():
        job_of(built)
    return study(comparison, partial(_run, comparison, plan, base, models))


def _run(
    comparison: Comparison, plan: AblationSection, base: Built, wanted: dict[Key, Built], work: Work
) -> Findings:
    models = work.trained(wanted, "{0[1]}, {0[0]}, depth {0[2]}, seed {0[3]}".format, work.session.train)
    trained = {key: built for key, built in wanted.items() if key in models}
    parts = [
        *_transformer_rows(trained, models, work),
        *_theory_rows(wanted, plan, work),
        *_agent_rows(base, wanted, work),
        *_limit_rows(base, wanted),
        *_baseline_rows(base, plan, work),
    ]
    difference, vectors = None, None
    if FULL in plan.variants and trained:
        difference = _difference(trained, models, work)
        if comparison.prior.kind == "tree":
            vectors = work.attempt(
                "function vectors", partial(_function_vectors, trained, models, work.session)
            )
    work.check()
    rows = pd.concat(parts, ignore_index=True)
    claims = verdicts(rows, difference, vectors)
    title = "risk / E|w|², median (least to largest seed)"
    caption = (
        f"{parameters(comparison)}. Points: median of {plan.seeds} seeds; bars: from the least seed to the "
        f"largest, and two standard errors over {comparison.task.prompts:,} prompts beyond"
    )
    figure = risk_by_ablation(rows, caption)
    return Findings(
        {"rows": rows, "claims": claims},
        claims_sentence(claims),
        work.folder,
        [write_figure(figure, work.folder, "ablations")],
        displays=[
            by_depth(rows, title, ["source", "policy"], median_over_seeds, "prior"),
            claims_table(claims),
        ],
    )


def _keys(comparison: Comparison, plan: AblationSection) -> Iterator[Key]:
    """Prior, variant, depth and seed of every model: all variants on the file's prior, some on its null."""
    variants = {comparison.prior.kind: list(plan.variants)}
    if comparison.prior.kind == "tree" and plan.null:
        variants[_NULL] = list(plan.null)
    for prior, names in variants.items():
        yield from product([prior], names, range(1, comparison.run.rounds + 1), range(plan.seeds))


def _rows(
    source: str, prior: str, policy: str, depths: object, risk: object, error: object, **more: object
) -> pd.DataFrame:
    """Rows of the table; without a seed it is the first, without a rule there is none."""
    columns = {"source": source, "prior": prior, "policy": policy, "depth": depths, "seed": 0}
    return pd.DataFrame({**columns, "risk": risk, "risk_se": error, "rule": "", **more})


def _curve(
    source: str, prior: str, policy: str, risk: Float[np.ndarray, " r"], error: Float[np.ndarray, " r"],
    **more: object,
) -> pd.DataFrame:  # fmt: skip
    return _rows(source, prior, policy, np.arange(1, len(risk)), risk[1:], error[1:], **more)


def _transformer_rows(wanted: dict[Key, Built], models: Models, work: Work) -> Collection[pd.DataFrame]:
    """Risk of each model; those of one variant are scored on the same prompts at once."""

    def scored(key: tuple[str, str], deepest: Built) -> pd.DataFrame:
        mine = {other: trained for other, trained in models.items() if other[:2] == key}
        prompts = range(deepest.experiment.task.prompts)
        risks = last_risks([trained.model() for trained in mine.values()], deepest, prompts)
        depths, seeds = ([other[place] for other in mine] for place in (2, 3))
        return _rows("transformer", *key, depths, *mean_over_prompts(risks), seed=seeds)

    return work.tables("scoring", _deepest(wanted), _TOLD, scored).values()


def _theory_rows(wanted: dict[Key, Built], plan: AblationSection, work: Work) -> Collection[pd.DataFrame]:
    """What theory says of each variant, and by which rule."""

    def predicted(key: tuple[str, str], deepest: Built) -> pd.DataFrame:
        found = predict_variant(deepest, plan.theory_samples)
        return _curve("theory", *key, found.risk, found.risk_se, rule=found.rule[1:])

    return work.tables("theory", _deepest(wanted), _TOLD, predicted).values()


def _deepest(wanted: dict[Key, Built]) -> dict[tuple[str, str], Built]:
    """The deepest model of each prior and variant."""
    return {key[:2]: built for key, built in wanted.items() if key[3] == 0}


def _priors(base: Built, wanted: dict[Key, Built], policy: str) -> dict[str, Built]:
    """The experiment on each prior, with a policy in place of its own."""
    values: dict[str, object] = {"policy.kind": policy, "run.trace": "none"}
    priors = dict.fromkeys(key[0] for key in wanted)
    return {prior: base.varied({**values, "prior.kind": prior}) for prior in priors}


def _agent_rows(base: Built, wanted: dict[Key, Built], work: Work) -> Collection[pd.DataFrame]:
    """Explicit agents on the same prompts."""

    def measured(prior: str, built: Built) -> pd.DataFrame:
        found = simulate(built, engine=work.session.engine)
        return _curve("agents", prior, "adaptive", found.risk, found.risk_se)

    priors = _priors(base, wanted, "adaptive")
    return work.tables("agents", priors, "adaptive, {}".format, measured).values()


def _limit_rows(base: Built, wanted: dict[Key, Built]) -> list[pd.DataFrame]:
    """The larger of what so many bits, and all examples, leave of the risk."""
    parts = []
    for prior, built in _priors(base, wanted, "learned").items():
        bayes, _ = light_cone_bound(built.scenario, _BAYES_SAMPLES)
        limit = np.maximum(physical_limit(built.scenario), bayes)
        parts.append(_curve("limit", prior, "limit", limit, np.zeros_like(limit)))
    return parts


def _baseline_rows(base: Built, plan: AblationSection, work: Work) -> Collection[pd.DataFrame]:
    """Transformers whose messages are not bounded, one seed of each depth; none if none are wanted."""
    experiment, session = base.experiment, work.session
    depths, seed = range(1, experiment.run.rounds + 1), experiment.transformer.seed
    designs = [design_for(kind, depth, seed) for kind in plan.unconstrained for depth in depths]
    jobs = {(design.kind, design.layers): baseline_job_of(base, design) for design in designs}
    models = work.trained(
        jobs,
        _BOUNDLESS,
        lambda some: trained_baselines(some, session.weights, session.workers, session.progress),
    )
    prompts = range(min(_UNBOUNDED, experiment.task.prompts))

    def scored(key: tuple[str, int], model: Trained[Baseline]) -> pd.DataFrame:
        kind, depth = key
        means = mean_over_prompts(risk_on_prompts(model, base, prompts))
        return _rows("unconstrained", experiment.prior.kind, kind, [depth], *means)

    return work.tables("scoring, messages unbounded", models, _BOUNDLESS, scored).values()


def _difference(wanted: dict[Key, Built], models: Models, work: Work) -> float | None:
    """Largest difference of an answer between the full transformers of the first seed and their agents."""
    prior = next(iter(wanted))[0]
    mine = {key: built for key, built in wanted.items() if key[:2] == (prior, FULL) and key[3] == 0}

    def largest(key: Key, built: Built) -> pd.DataFrame:
        few = min(_BESIDE, built.experiment.task.prompts)
        fewer = built.varied({"task.prompts": few, "run.trace": "none"})
        return pd.DataFrame({"difference": [on_agents(models[key], fewer, work.session.engine).difference]})

    tables = work.tables("weights on agents", mine, lambda key: f"depth {key[2]}", largest).values()
    return float(pd.concat(tables)["difference"].max()) if tables else None


def _function_vectors(wanted: dict[Key, Built], models: Models, session: Session) -> FunctionVectors:
    """Probes, queries and patching of the deepest full transformer of the first seed."""
    prior = next(iter(wanted))[0]
    key = max(key for key in wanted if key[:2] == (prior, FULL) and key[3] == 0)
    model, built = models[key].model(), wanted[key]
    system = built.with_weights(export(model)).system
    prompts = min(2 * _EXAMINED, built.experiment.task.prompts)
    with session.progress.task("function vectors", 1):
        return measure_function_vectors(model, system, built.mixing, range(prompts), prompts // 2)
