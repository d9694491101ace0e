"""Whether explicit agents explain the causal transformer: both by context length, outside and inside."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.policies.intervened import Patch
from agents.prior import draw_latent
from agents.transformer.export import export
from agents.transformer.model import Transformer
from analysis.measures.interventions import followed
from analysis.measures.probes import (
    alignment,
    level_shares,
    nearest_atoms,
    probe_accuracy,
    relative_branches,
)
from analysis.plots.locality import risk_against_context
from analysis.report.tables import by_context, by_position_and_layer
from analysis.report.verdict import causal_sentence
from analysis.theory.evolution.graph import LocalPrediction
from analysis.theory.limits.bayes import bayes_limit
from analysis.theory.predict import predict
from runner.built import Built, build
from runner.config.studies import CausalSection, Comparison, of_kind, policy_values
from runner.errors import UsageError
from runner.simulation.simulate import simulate
from runner.storage.files import write_figure
from runner.studies.activations import (
    Activations,
    agents_estimates,
    explicit_activations,
    module_activations,
    module_estimates,
)
from runner.studies.base import Findings, Session, Work, parameters, study
from runner.training import Trained
from runner.training.job import job_of

TRAINED, EXPLICIT = "transformer", "adaptive"  # what the sentence compares
_OWN = "adaptive, own example"
_BAYES_SAMPLES = 2_000
_NAMED = "{0[1]}, τ = {0[0]:g}".format
_TOLD = "τ = {0[0]:g}, seed {0[1]}".format
_SAMPLES = 10  # times as many samples of theory as where all positions have one risk

Key = tuple[float, int]  # transmitter noise, seed of training


def prepare(comparison: Comparison) -> Callable[[Session], Findings]:
    """Build and check agents and transformers on the causal graph, at every noise.

    Returns:
        What trains the transformers and puts agents and theory beside them. Its findings have the frames
        `contexts` (source, policy, noise, seed, context, risk, risk_se) and `inside` (source, noise, seed,
        context, measure: probe, query, level or patch, layer, scale, value, se, control, control_se).

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    plan, rounds = comparison.causal or CausalSection(), comparison.run.rounds
    if comparison.prior.kind != "tree":
        raise UsageError("prior.kind", comparison.prior.kind, '"tree": other priors have no branches to read')
    if rounds < 1:
        raise UsageError("run.rounds", rounds, "1 or more layers")
    beyond = [place for place in plan.contexts if place > comparison.task.tokens]
    if beyond:
        raise UsageError(
            "causal.contexts", beyond[0], f"1 to {comparison.task.tokens}, tokens that are heard"
        )
    base = build(comparison.experiment()).varied({"graph.kind": "causal"})
    explicit = {
        (noise, policy): base.varied({**policy_values(policy), "channel.noise": noise})
        for noise in plan.noises
        for policy in dict.fromkeys((EXPLICIT, *plan.policies))
    }
    if plan.own_example:
        explicit |= {
            (noise, _OWN): explicit[noise, EXPLICIT].varied({"policy.own_example": True})
            for noise in plan.noises
        }
    learned = {
        (noise, seed): base.varied(
            {**of_kind("learned"), "channel.noise": noise,
             "transformer.seed": comparison.transformer.seed + seed}
        )
        for noise in plan.noises
        for seed in range(plan.seeds)
    }  # fmt: skip
    for built in learned.values():
        job_of(built)
    return study(comparison, partial(_run, comparison, plan, base, explicit, learned))


def _run(
    comparison: Comparison,
    plan: CausalSection,
    base: Built,
    explicit: dict[tuple[float, str], Built],
    learned: dict[Key, Built],
    work: Work,
) -> Findings:
    models = work.trained(learned, _TOLD, work.session.train)
    trained = {key: built for key, built in learned.items() if key in models}
    outside = [*_outside(plan, base, explicit, work), *_trained(trained, models, work)]
    inner = _inside(plan, explicit, trained, models, work)
    work.check()
    contexts, inside = pd.concat(outside, ignore_index=True), pd.concat(inner, ignore_index=True)
    prompts = f"{comparison.task.prompts:,} prompts, {plan.seeds} seeds, bars: two standard errors"
    drawn = {
        f"context-noise-{str(noise).removesuffix('.0')}": risk_against_context(
            _over_seeds(contexts[contexts["noise"] == noise]),
            f"{parameters(explicit[noise, EXPLICIT].experiment)}; L = {comparison.run.rounds}; {prompts}",
        )
        for noise in plan.noises
    }
    shown = contexts[contexts["context"].isin(plan.contexts)]
    return Findings(
        {"contexts": contexts, "inside": inside},
        causal_sentence(_over_seeds(shown), inside),
        work.folder,
        [write_figure(figure, work.folder, name) for name, figure in drawn.items()],
        displays=[
            by_context(_over_seeds(shown)),
            by_position_and_layer(inside, "level", "share of a query's square on the codes of each level"),
            by_position_and_layer(inside, "probe", "accuracy of a linear probe for the branch"),
            by_position_and_layer(inside, "patch", "answers that follow a donor, patched after the layer"),
        ],
    )


def _outside(
    plan: CausalSection, base: Built, explicit: dict[tuple[float, str], Built], work: Work
) -> list[pd.DataFrame]:
    """Risk of agents and of theory by tokens heard, and the Bayes limit."""

    def compared(key: tuple[float, str], built: Built) -> pd.DataFrame:
        noise, policy = key
        run = simulate(built, engine=work.session.engine)
        parts = [_rows("agents", policy, noise, run.position_risk[-1], run.position_risk_se[-1])]
        theory = predict(built.scenario, _SAMPLES * plan.theory_samples)
        if isinstance(theory, LocalPrediction):
            risk, error = theory.position_risk[-1], theory.position_risk_se[-1]
            parts.append(_rows("theory", policy, noise, risk, error))
        return pd.concat(parts)

    task, seed = base.experiment.task, base.experiment.run.seed
    parts = list(work.tables("agents and theory", explicit, _NAMED, compared).values())
    limit = bayes_limit(base.prior, task.tokens, task.label_noise, _BAYES_SAMPLES, seed)
    return parts + [
        _rows("limit", "Bayes", noise, limit.risk[1:], limit.risk_se[1:]) for noise in plan.noises
    ]


def _trained(
    learned: dict[Key, Built], models: dict[Key, Trained[Transformer]], work: Work
) -> list[pd.DataFrame]:
    """Risk of each trained transformer by tokens heard, on the prompts of the agents."""

    def measured(key: Key, built: Built) -> pd.DataFrame:
        noise, seed = key
        run = simulate(built.with_weights(export(models[key].model())), engine=work.session.engine)
        risk, error = run.position_risk[-1], run.position_risk_se[-1]
        return _rows("transformer", TRAINED, noise, risk, error, seed)

    return list(work.tables("transformers", learned, _TOLD, measured).values())


def _rows(
    source: str, policy: str, noise: float, risk: Float[np.ndarray, " N"], error: Float[np.ndarray, " N"],
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    heard = np.arange(1, len(risk) + 1)
    named = {"source": source, "policy": policy, "noise": noise, "seed": seed, "context": heard}
    return pd.DataFrame({**named, "risk": risk, "risk_se": error})


def _over_seeds(contexts: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of training, with the error of prompts and seeds together."""
    keys = ["source", "policy", "noise", "context"]
    grouped = contexts.groupby(keys, sort=False)
    seeds = grouped["risk"].count()
    between = grouped["risk"].var(ddof=1).fillna(0.0) / seeds
    within = grouped["risk_se"].apply(lambda errors: (errors**2).mean())  # the seeds share their prompts
    rows = pd.DataFrame({"risk": grouped["risk"].mean(), "risk_se": np.sqrt(between + within)})
    return rows.reset_index()


def _inside(
    plan: CausalSection,
    explicit: dict[tuple[float, str], Built],
    learned: dict[Key, Built],
    models: dict[Key, Trained[Transformer]],
    work: Work,
) -> list[pd.DataFrame]:
    """Probes, queries and patching of agents and transformers at some positions."""
    prompts = range(plan.examined)
    held = prompts[plan.examined // 2 :]
    patch = Patch(np.roll(np.arange(len(held)), -1))

    def of_agents(noise: float, built: Built) -> pd.DataFrame:
        system, mixing = built.system, built.mixing
        layers = range(system.rounds + 1)
        answers = [agents_estimates(system, mixing, held, layer, patch)[-1] for layer in layers]
        found = _measured(plan, built, explicit_activations(system, mixing, prompts), np.stack(answers))
        return found.assign(source="agents", noise=noise, seed=0)

    def of_transformer(key: Key, built: Built) -> pd.DataFrame:
        noise, seed = key
        model = models[key].model()
        system, mixing = built.with_weights(export(model)).system, built.mixing
        layers = range(system.rounds + 1)
        answers = [module_estimates(model, system, mixing, held, layer, patch)[-1] for layer in layers]
        found = _measured(plan, built, module_activations(model, system, mixing, prompts), np.stack(answers))
        return found.assign(source="transformer", noise=noise, seed=seed)

    examined = {noise: explicit[noise, EXPLICIT] for noise in plan.noises}
    return [
        *work.tables("inside the agents", examined, "τ = {:g}".format, of_agents).values(),
        *work.tables("inside the transformers", learned, _TOLD, of_transformer).values(),
    ]


def _measured(
    plan: CausalSection, built: Built, inner: Activations, patched: Float[np.ndarray, "layers N d B"]
) -> pd.DataFrame:
    """All measures at all positions that are looked at; those of the second half of the prompts."""
    prior, fitted = built.prior, plan.examined // 2
    atoms = draw_latent(prior, built.experiment.run.seed, range(plan.examined)).atom
    labels, donors = relative_branches(prior.branches)[atoms], np.roll(np.arange(plan.examined - fitted), -1)
    parts = []
    for place in plan.contexts:
        estimates, queries = inner.estimates[:, place - 1], inner.queries[:, place - 1, ..., fitted:]
        believed = nearest_atoms(estimates[:-1, :, fitted:], prior)
        frames = {
            "probe": probe_accuracy(inner.workspaces[:, place - 1], labels, fitted),
            "query": alignment(queries, believed, prior),
            "level": level_shares(queries, prior),
            "patch": followed(
                patched[:, place - 1], estimates[-1][:, fitted:], atoms[fitted:], donors, prior
            ).query("pairs == 'part'"),
        }
        parts += [frame.assign(measure=name, context=place) for name, frame in frames.items()]
    columns = ["context", "measure", "layer", "scale", "value", "se", "control", "control_se"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)
