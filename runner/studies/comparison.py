"""Theory, agents and transformers on one experiment, side by side, with its null."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import NoneType

import numpy as np
import pandas as pd

from agents.transformer.model import Transformer
from analysis.plots.risk import risk_against_depth
from analysis.report.tables import by_depth
from analysis.report.verdict import sentence
from analysis.resources import available_cores
from analysis.statistics import mean_over_prompts, paired_difference
from analysis.theory.predict import infinite_tokens
from analysis.theory.predict import predict as predict_scenario
from runner.built import Built, build
from runner.config.studies import Comparison, Variant
from runner.errors import UsageError, expect
from runner.progress import Progress
from runner.simulation.simulate import open_engine, simulate
from runner.storage.files import write_figure
from runner.studies.base import Findings, Session, Work, parameters, study
from runner.studies.estimators import estimator_risk
from runner.studies.parity import on_agents
from runner.training import Trained
from runner.training.job import job_of

INFINITE = "adaptive, infinite N"  # the policy's name in rows of closed forms

Pair = tuple[str, str]  # prior, policy
_TOLD = "{0[1]}, {0[0]}".format  # how the progress names a pair
_LAYERS = "{0[0]}, depth {0[1]}".format  # and a transformer


def compare(comparison: Comparison, session: Session | None = None) -> Findings:
    """Run everything that a comparison names.

    Args:
        comparison: the experiment and what is compared.
        session: what it runs with; by default the engine that the comparison names, and the folder `runs`.

    Returns:
        A frame `rows`: source (theory, agents, transformer, transformer_on_agents, whole examples), prior,
        policy, depth, risk (relative), risk_se; and `max_difference`, the largest difference of an answer
        between a transformer and the agents that run its weights, in units of sqrt(E|w|^2), over prompts,
        tokens, components and depths, None without transformers.

    Raises:
        UsageError: if one of the experiments cannot be run; before anything starts.
    """
    example = 'load(Comparison, Path("demo.toml")) of runner.config'
    expect("comparison", comparison, Comparison, f"a Comparison, for example {example}")
    expect("session", session, (Session, NoneType), "a Session of runner.studies, or None")
    play = prepare(comparison)
    if session is not None:
        return play(session)
    with closing(open_engine(comparison)) as engine:
        progress = Progress(quiet=True)
        return play(Session(engine, Path("runs"), available_cores(), progress, "comparison"))


def prepare(comparison: Comparison) -> Callable[[Session], Findings]:
    """Build and check every experiment of a comparison, each graph and prior once.

    Raises:
        UsageError: naming the key, what was given, what is possible.
    """
    if not comparison.compare.policies and not comparison.compare.transformers:
        possible = "one policy or more, where compare.transformers is empty too"
        raise UsageError("compare.policies", [], possible)
    base = build(comparison.experiment())
    pairs = {
        (prior, policy): build(comparison.variant(prior, policy), like=base)
        for prior, policy in comparison.pairs()
    }
    variants = {
        (variant, depth): build(comparison.transformer_variant(depth, variant), like=base)
        for variant in comparison.compare.transformers
        for depth in range(1, comparison.run.rounds + 1)
    }
    for built in variants.values():
        job_of(built)
    return study(comparison, partial(_run, comparison, pairs, variants))


def _run(
    comparison: Comparison,
    pairs: dict[Pair, Built],
    variants: dict[tuple[Variant, int], Built],
    work: Work,
) -> Findings:
    theory = _theory(comparison, pairs, work)
    trained = work.trained(variants, _LAYERS, work.session.train)
    measured = _agents(pairs, work)
    rows = _transformers({key: built for key, built in variants.items() if key in trained}, trained, work)
    work.check()
    agents = [
        _rows("agents", *pair, range(len(run)), *mean_over_prompts(run)) for pair, run in measured.items()
    ]
    difference = None if rows is None else float(rows["difference"].max())
    parts = [theory, *agents, _whole_examples(pairs)]
    parts += [] if rows is None else [rows.drop(columns="difference")]
    frame = pd.concat(parts, ignore_index=True)
    title = "risk / E|w|² ± standard error"
    caption = (
        f"{parameters(comparison)}. Lines: state evolution; points: agents; diamonds: trained transformers; "
        f"bars: two standard errors over {comparison.task.prompts:,} prompts; cv: control variate"
    )
    return Findings(
        {"rows": frame},
        sentence(frame, difference, _null_gap(measured)),
        work.folder,
        [write_figure(risk_against_depth(frame, caption), work.folder, "risk-against-depth")],
        {"max_difference": difference},
        [by_depth(frame, title, ["source", "policy"], section="prior")],
    )


def _rows(
    source: str, prior: str, policy: str, depths: Sequence[int], risk: object, error: object
) -> pd.DataFrame:
    columns = {"source": source, "prior": prior, "policy": policy, "depth": depths}
    return pd.DataFrame({**columns, "risk": risk, "risk_se": error})


def _theory(comparison: Comparison, pairs: dict[Pair, Built], work: Work) -> pd.DataFrame | None:
    """State evolution and closed forms, for the policies that have them."""
    depths = range(comparison.run.rounds + 1)

    def predicted(pair: Pair, built: Built) -> pd.DataFrame:
        prior, policy = pair
        found = predict_scenario(built.scenario, comparison.compare.theory_samples)
        parts = [] if found is None else [_rows("theory", prior, policy, depths, found.risk, found.risk_se)]
        complete = built.mixing.is_shared and policy == "adaptive"
        if complete and (limit := infinite_tokens(built.scenario)) is not None:
            parts.append(_rows("theory", prior, INFINITE, depths, limit, np.zeros_like(limit)))
        return pd.concat(parts) if parts else pd.DataFrame()

    parts = work.tables("theory: state evolution", pairs, _TOLD, predicted).values()
    return pd.concat(parts) if parts else None


def _agents(pairs: dict[Pair, Built], work: Work) -> dict[Pair, np.ndarray]:
    """Risk of each prompt, after each round."""

    def measured(pair: Pair, built: Built) -> pd.DataFrame:
        run = simulate(built, engine=work.session.engine, out=work.folder, name=_slug(*pair))
        return pd.DataFrame(run.prompt_risk.T)

    tables = work.tables("agents", pairs, _TOLD, measured)
    return {pair: np.ascontiguousarray(table.to_numpy().T) for pair, table in tables.items()}


def _whole_examples(pairs: dict[Pair, Built]) -> pd.DataFrame:
    """What whole examples give, on the same prompts; in the row of the last depth, though they have none."""
    parts = []
    for prior, built in {prior: built for (prior, _), built in pairs.items()}.items():
        for name, risk in estimator_risk(built).items():
            depth = [built.experiment.run.rounds]
            parts.append(_rows("whole examples", prior, name, depth, *mean_over_prompts(risk)))
    return pd.concat(parts)


def _transformers(
    variants: dict[tuple[Variant, int], Built],
    trained: dict[tuple[Variant, int], Trained[Transformer]],
    work: Work,
) -> pd.DataFrame | None:
    """Each trained transformer, and agents that run its weights, on the prompts of the agents."""

    def measured(key: tuple[Variant, int], built: Built) -> pd.DataFrame:
        variant, depth = key
        name, prior = _slug("transformer", variant, str(depth)), built.experiment.prior.kind
        found = on_agents(trained[key], built, work.session.engine, work.folder, name)
        parts = [
            _rows(source, prior, variant, [depth], value[-1:], error[-1:])
            for source, (value, error) in (
                ("transformer", found.risk),
                ("transformer_on_agents", (found.agents.risk, found.agents.risk_se)),
            )
        ]
        return pd.concat(parts).assign(difference=found.difference)

    step = "transformers, and their weights on agents"
    tables = work.tables(step, variants, _LAYERS, measured).values()
    return pd.concat(tables) if tables else None


def _null_gap(measured: dict[Pair, np.ndarray]) -> tuple[float, float] | None:
    adaptive = measured.get(("matched_gaussian", "adaptive"))
    static = measured.get(("matched_gaussian", "static codes"))
    if adaptive is None or static is None:
        return None
    gap = paired_difference(adaptive[-1], static[-1])
    return float(gap.value), float(gap.error)


def _slug(*words: str) -> str:
    return "-".join(words).replace(", ", "-").replace(" ", "-").replace("_", "-")
