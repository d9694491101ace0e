"""The least risk that theory knows for a transformer that has some parts and lacks others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.prior import PRIORS
from analysis.theory.predict import belief_of, predict
from analysis.theory.queries.fixed import best_fixed_queries
from analysis.theory.queries.greedy import evolve_queries
from runner.built import Built
from runner.config.studies import of_kind

_SEARCHED = 20_000  # samples where each one's next query is searched


class VariantPrediction(NamedTuple):
    """What theory says of a transformer of each depth 0..L.

    Attributes:
        risk: relative, of the best that is known [L+1].
        risk_se: its standard error [L+1].
        rule: by which it is reached [L+1].
    """

    risk: Float[np.ndarray, " rounds"]
    risk_se: Float[np.ndarray, " rounds"]
    rule: list[str]


def predict_variant(built: Built, samples: int) -> VariantPrediction:
    """The least risk that theory knows for a transformer of each depth, given the parts that it has.

    With feedforward blocks and queries that adapt: greedy over codes, or over the whole sphere. With
    constant queries: fixed codes or levels in the best order, or the best fixed queries that are found.
    Without feedforward blocks: an affine reader of fixed codes, whose risk is that of the matched Gaussian;
    with queries that adapt it is an upper bound.

    Args:
        built: policy `learned`, complete graph; the parts are those of its [transformer] table.
        samples: size of the Monte-Carlo sample.

    Source: THEORY.md sections 6 to 8.

    Example:
        >>> from runner import Experiment, build
        >>> linear = {"policy.kind": "learned", "transformer.feedforward": False}
        >>> predict_variant(build(Experiment().with_values(linear)), 500).rule[1]
        'affine reader'
    """
    experiment = built.experiment
    parts = experiment.transformer
    adaptive = built.varied(of_kind("adaptive"))
    discrete = experiment.prior.kind == "tree" and not experiment.prior.jitter
    searched = discrete and experiment.channel.channels == 1
    curves: list[tuple[str, np.ndarray, np.ndarray]] = []

    def add(rule: str, values: dict[str, object]) -> None:
        found = predict(built.varied(values).scenario, samples)
        if found is not None:
            curves.append((rule, found.risk, found.risk_se))

    if not parts.feedforward:
        null = PRIORS[experiment.prior.kind].null or experiment.prior.kind
        add("affine reader", {"prior.kind": null, **of_kind("static")})
    elif parts.adaptive_queries:
        add("greedy codes", of_kind("adaptive"))
        if searched:
            free = evolve_queries(
                belief_of(adaptive.scenario), "exact", min(samples, _SEARCHED), experiment.run.seed
            )
            curves.append(("greedy queries", free.risk, free.risk_se))
    else:
        for order in ("codes", "pooled"):
            add(f"fixed {order}", of_kind("static", order))
        if searched:
            curves.append(("fixed queries", *_best_fixed(adaptive, samples)))
    risks = np.stack([risk for _, risk, _ in curves])
    best = risks.argmin(axis=0)
    columns = np.arange(risks.shape[1])
    errors = np.stack([error for _, _, error in curves])
    return VariantPrediction(
        risks[best, columns], errors[best, columns], [curves[index][0] for index in best]
    )


def _best_fixed(
    adaptive: Built, samples: int
) -> tuple[Float[np.ndarray, " rounds"], Float[np.ndarray, " rounds"]]:
    """Risk of fixed queries that are searched for each depth of its own."""
    rounds, seed = adaptive.experiment.run.rounds, adaptive.experiment.run.seed
    risk, error = np.ones(rounds + 1), np.zeros(rounds + 1)
    for depth in range(1, rounds + 1):
        setting = belief_of(adaptive.varied({"run.rounds": depth}).scenario)
        found = best_fixed_queries(setting, samples, seed).prediction
        risk[depth], error[depth] = found.risk[-1], found.risk_se[-1]
    return risk, error
