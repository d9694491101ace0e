"""Transformers that lack a part: what theory says of them, medians over seeds, gaps to the full one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.prediction import foreseen, setting_of
from analysis.theory.fixed import best_fixed_queries
from analysis.theory.queries import evolve_queries
from runner.experiment import Experiment

FULL = "full"  # the variant that lacks nothing
_SEARCHED = 20_000  # samples where each one's next query is searched


class Foresight(NamedTuple):
    """What theory says of a transformer of each depth 0..L.

    Attributes:
        risk: relative, of the best that is known [L+1].
        risk_se: its standard error [L+1].
        rule: by which it is reached [L+1].
    """

    risk: Float[np.ndarray, " rounds"]
    risk_se: Float[np.ndarray, " rounds"]
    rule: list[str]


def predicted(experiment: Experiment, samples: int) -> Foresight:
    """The least risk that theory knows for a transformer of each depth, given the parts that it has.

    With feedforward blocks and queries that adapt: greedy over codes, or over the whole sphere. With
    constant queries: fixed codes or levels in the best order, or the best fixed queries that are found.
    Without feedforward blocks: an affine reader of fixed codes, whose risk is that of the matched Gaussian;
    with queries that adapt it is an upper bound.

    Args:
        experiment: policy `learned`, complete graph; the parts are those of its [transformer] table.
        samples: size of the Monte-Carlo sample.

    Source: THEORY.md sections 6 to 8.

    Example:
        >>> learned = Experiment().with_values({"policy.kind": "learned", "transformer.feedforward": False})
        >>> predicted(learned, 500).rule[1]
        'affine reader'
    """
    parts = experiment.transformer
    adaptive = experiment.with_values({"policy.kind": "adaptive"})
    discrete = experiment.prior.kind == "tree" and not experiment.prior.jitter
    searched = discrete and experiment.channel.channels == 1
    curves: list[tuple[str, np.ndarray, np.ndarray]] = []

    def add(rule: str, values: dict[str, object]) -> None:
        found = foreseen(experiment.with_values(values), samples)
        if found is not None:
            curves.append((rule, found.risk, found.risk_se))

    if not parts.feedforward:
        null = "matched_gaussian" if experiment.prior.kind == "tree" else experiment.prior.kind
        add("affine reader", {"prior.kind": null, "policy.kind": "static"})
    elif parts.adaptive_queries:
        add("greedy codes", {"policy.kind": "adaptive"})
        if searched:
            free = evolve_queries(setting_of(adaptive), "exact", min(samples, _SEARCHED), experiment.run.seed)
            curves.append(("greedy queries", free.risk, free.risk_se))
    else:
        for order in ("codes", "pooled"):
            add(f"fixed {order}", {"policy.kind": "static", "policy.order": order})
        if searched:
            curves.append(("fixed queries", *_best_fixed(adaptive, samples)))
    risks = np.stack([risk for _, risk, _ in curves])
    best = risks.argmin(axis=0)
    columns = np.arange(risks.shape[1])
    errors = np.stack([error for _, _, error in curves])
    return Foresight(risks[best, columns], errors[best, columns], [curves[index][0] for index in best])


def _best_fixed(
    experiment: Experiment, samples: int
) -> tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, " rounds"]]:
    """Risk of fixed queries that are searched for each depth of its own."""
    risk, error = np.ones(experiment.run.rounds + 1), np.zeros(experiment.run.rounds + 1)
    for depth in range(1, experiment.run.rounds + 1):
        setting = setting_of(experiment.with_values({"run.rounds": depth}))
        found = best_fixed_queries(setting, samples, experiment.run.seed).prediction
        risk[depth], error[depth] = found.risk[-1], found.risk_se[-1]
    return risk, error


def medians(rows: pd.DataFrame) -> pd.DataFrame:
    """Median over seeds, with an interval: from the least to the largest, and two standard errors beyond.

    Of five seeds least and largest enclose the median of all seeds with probability 1 - 2/32 = .94; the
    standard errors are those over prompts.

    Args:
        rows: columns source, prior, policy, depth, seed, risk, risk_se.

    Returns:
        columns source, prior, policy, depth, risk, low, high, seeds.

    Example:
        >>> rows = pd.DataFrame({"source": "transformer", "prior": "tree", "policy": "full", "depth": 1,
        ...                      "seed": [0, 1, 2], "risk": [0.2, 0.3, 0.5], "risk_se": 0.01})
        >>> medians(rows)[["risk", "low", "high", "seeds"]].round(2).values.tolist()
        [[0.3, 0.18, 0.52, 3.0]]
    """
    keys = ["source", "prior", "policy", "depth"]
    ends = rows.assign(low=rows["risk"] - 2 * rows["risk_se"], high=rows["risk"] + 2 * rows["risk_se"])
    grouped = ends.groupby(keys, sort=False)
    found = grouped.agg(
        risk=("risk", "median"), low=("low", "min"), high=("high", "max"), seeds=("seed", "size")
    )
    return found.reset_index()


def gaps(rows: pd.DataFrame, prior: str, variants: Sequence[str] | None = None) -> pd.DataFrame:
    """Risk of each variant over that of the full transformer, by depth, and what theory says of the ratio.

    Args:
        rows: as for `medians`; sources transformer and theory.
        prior: on which.
        variants: which; all but the full one by default.

    Returns:
        columns policy, depth, ratio, low, high, predicted (NaN without theory). The interval holds all
        ratios of two values in the intervals of the two medians.
    """
    found = medians(rows[rows["prior"] == prior])
    trained: Any
    theory: Any
    trained, theory = (
        found[found["source"] == source].set_index(["policy", "depth"])
        for source in ("transformer", "theory")
    )
    names = [name for name in dict.fromkeys(trained.index.get_level_values(0)) if name != FULL]
    table = []
    for name in names if variants is None else variants:
        for depth in trained.loc[name].index:
            own: Any = trained.loc[(name, depth)]
            full: Any = trained.loc[(FULL, depth)]
            told = all((which, depth) in theory.index for which in (name, FULL))
            table.append(
                {
                    "policy": name,
                    "depth": int(depth),
                    "ratio": own["risk"] / full["risk"],
                    "low": own["low"] / full["high"],
                    "high": own["high"] / full["low"],
                    "predicted": theory.loc[(name, depth), "risk"] / theory.loc[(FULL, depth), "risk"]
                    if told
                    else np.nan,
                }
            )
    return pd.DataFrame(table, columns=["policy", "depth", "ratio", "low", "high", "predicted"])
