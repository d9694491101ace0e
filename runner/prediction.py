"""What theory says of an experiment, without running an agent: risk, limits, and the optimum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.theory import predict as theory
from analysis.theory.closed_forms.allocation import allocation
from analysis.theory.closed_forms.asymptotic import (
    pooled_failure_level,
    ridge_limit,
    tree_pooled,
    tree_static_linear,
)
from analysis.theory.closed_forms.linear_attention import linear_attention_risk
from analysis.theory.dynamic_programming.optimal import affordable_rounds, optimal
from analysis.theory.evolution.complete import Form, Prediction
from analysis.theory.evolution.graph import LocalPrediction, predicted_depth
from analysis.theory.limits.distortion_rate import discrete_tree_levels
from analysis.theory.limits.physical import light_cone_bound, physical_limit
from analysis.theory.queries.greedy import code_loss
from analysis.theory.queries.questions import exact_question, first_question
from analysis.theory.setting import Scenario
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.config.studies import of_kind
from runner.errors import UsageError, expect_count
from topology.metrics import MOST_COMPUTED, spectrum

_BAYES_SAMPLES = 2_000
MOST_SAMPLES = 10**8  # of tasks and fields: beyond, memory is the limit and precision is not
COLUMNS = ["source", "round", "risk", "risk_se"]


def predict(
    experiment: Experiment | Built | None = None, samples: int = 20_000, form: Form = "exact"
) -> pd.DataFrame:
    """Risk of the experiment's policy after each round, by state evolution.

    Args:
        experiment: what would be run; the defaults if left out.
        samples: size of the Monte-Carlo sample over tasks and fields, from 2 to 10^8.
        form: `exact` at any N, or `gaussian`, the mean field of large N.

    Returns:
        Columns source ("theory"), round, risk (relative to E|w|^2), risk_se; no rows for a policy without
        theory.

    Raises:
        UsageError: if the experiment cannot be run, or there is no such sample or form.

    Source: THEORY.md section 7.2.

    Example:
        >>> predict(Experiment(), samples=500)["risk"].round(1).tolist()
        [1.0, 0.5, 0.2, 0.0, 0.0]
        >>> len(predict(Experiment().with_values({"policy.kind": "learned"}), samples=500))
        0
    """
    expect_count("samples", samples, least=2, most=MOST_SAMPLES)
    if form not in get_args(Form):
        raise UsageError("form", form, " | ".join(f'"{name}"' for name in get_args(Form)))
    found = theory.predict(as_built(experiment).scenario, samples, form)
    if found is None:
        return pd.DataFrame(columns=COLUMNS)
    return _curve("theory", found.risk, found.risk_se)


@dataclass(frozen=True, eq=False)
class Forecast:
    """All that theory says of one experiment.

    Attributes:
        curves: source, round, risk (relative to E|w|^2), risk_se, for rounds 0..L. Sources, each where it is
            computed:

            * theory: state evolution of the experiment's policy, from whole examples;
            * mean field: the same with Gaussian fields, the limit of large N;
            * infinite N: closed form of the adaptive policy as N -> infinity;
            * infinite N, pooled, and infinite N, linear decoder: of pooled queries without noise, and of
              static codes whose fields are read linearly, on orthonormal trees;
            * optimal: estimate of the best adaptive choice of codes at this N, the exact risk of the greedy
              policy times optimal over greedy on the Gaussian channel;
            * physical limit: no system that hears as many bits is below it;
            * Bayes limit: the exact posterior given all examples in the light cone; no policy is below it;
            * channel optimal, channel greedy, channel static: dynamic programming on the Gaussian channel.
        facts: law (what the risk rests on), mixing_time (rounds), depth (scales times mixing time), code_loss
            (risk of the best code over that of the best query on the sphere, in the first round), allocation
            (rounds that each level of a binary orthonormal tree is best asked in a row, with hard decisions),
            greedy_over_optimal (by round, on the Gaussian channel), pooled_failure_level (coarsest level at
            which a pooled query has a signal-to-noise ratio of 1 or less), ridge_limit and linear_attention
            (relative risk of ridge regression as N and d grow in a fixed ratio, and of one linear-attention
            layer on all examples, for the isotropic Gaussian prior), these three where all hear the same;
            None where one is not computed.
    """

    curves: pd.DataFrame
    facts: dict[str, Any]

    def curve(self, source: str) -> pd.DataFrame | None:
        """The rows of one source; None if it was not computed."""
        rows = self.curves[self.curves["source"] == source].reset_index(drop=True)
        return rows if len(rows) else None

    def answer(self) -> dict[str, Any]:
        """All of it in what JSON can hold: each source's risk and standard error by round, and the facts."""
        curves = {
            str(source): {"risk": rows["risk"].tolist(), "risk_se": rows["risk_se"].tolist()}
            for source, rows in self.curves.groupby("source", sort=False)
        }
        return {"curves": curves, **self.facts}

    def remarks(self) -> list[str]:
        """What the curves do not show, a sentence each."""
        facts, said = self.facts, []
        predicted = self.curve("theory") is not None
        if facts["code_loss"] is not None:
            loss = f"{facts['code_loss']:.3f}"
            said.append(f"In the first round the best code has {loss} times the risk of the best query.")
        if facts["allocation"] is not None:
            turns = ", ".join(str(count) for count in facts["allocation"])
            said.append(f"Asking level by level with hard decisions, the rounds are best spent as {turns}.")
        if self.curve("optimal") is None and predicted and facts["code_loss"] is not None:
            said.append(
                "The optimum is not computed: so many rounds exceed what dynamic programming affords."
            )
        if facts["depth"] is not None and facts["mixing_time"]:
            said.append(
                f"The graph mixes in {facts['mixing_time']:.3g} rounds: of the order of {facts['depth']:.3g} "
                "are needed to resolve all scales."
            )
        if not predicted:
            said.append(
                "No theory is written for learned weights, gradient descent, flooding with noise, and an own "
                "example beside Gaussian or passed-on fields on a graph."
            )
        return said


def forecast(experiment: Experiment | Built, samples: int = 20_000) -> Forecast:
    """Predict everything that has a theory.

    Args:
        experiment: what would be run.
        samples: size of the Monte-Carlo samples of state evolution, from 2 to 10^8.

    Raises:
        UsageError: if the experiment cannot be run, or there is no such sample.

    Source: THEORY.md section 7.
    """
    expect_count("samples", samples, least=2, most=MOST_SAMPLES)
    built = as_built(experiment)
    scenario, complete = built.scenario, built.mixing.is_shared
    rounds, tokens = scenario.rounds, scenario.mixing.tokens
    exact, gaussian = (theory.predict(scenario, samples, form) for form in ("exact", "gaussian"))
    curves = []
    if exact is not None and gaussian is not None:
        curves.append(_curve("theory", exact.risk, exact.risk_se))
        curves.append(_curve("mean field", gaussian.risk, gaussian.risk_se))
    if complete:
        curves += [_curve(name, risk, np.zeros_like(risk)) for name, risk in _closed_forms(scenario).items()]
    ratio = None
    if isinstance(exact, Prediction):
        # The greedy policy of the optimum is the experiment's own, if that is adaptive.
        adaptive = built if scenario.adapts else built.varied(of_kind("adaptive"))
        ratio, best = _optimum(adaptive, exact if scenario.adapts else None, samples)
        curves += best
    floor = physical_limit(scenario)
    curves.append(_curve("physical limit", floor, np.zeros_like(floor)))
    curves.append(_curve("Bayes limit", *light_cone_bound(scenario, _BAYES_SAMPLES)))
    time = mixing_time(built)
    section = built.experiment.policy
    alike = section.kind == "static" and not section.control_variate
    known = scenario.setting is not None and scenario.setting.exact
    agreed = isinstance(exact, LocalPrediction) and not alike and not known
    return Forecast(
        pd.concat(curves, ignore_index=True),
        {
            "law": "neighbours taken to agree" if agreed else "exact at this N",
            "mixing_time": time,
            "depth": None if time is None else predicted_depth(int(scenario.prior.scales.max()), time),
            "code_loss": _code_loss(built) if complete and tokens > 3 and rounds else None,
            "allocation": _allocation(built) if complete else None,
            "greedy_over_optimal": ratio,
            **_closed_facts(scenario, complete),
        },
    )


def mixing_time(built: Built) -> float | None:
    """Rounds in which a deviation from the mean shrinks by e; None if infinite, or the graph is too large.

    Example:
        >>> mixing_time(build(Experiment()))
        0.0
    """
    known = built.closed_reach
    if known is None and built.mixing.tokens > MOST_COMPUTED:
        return None
    time = spectrum(built.mixing)[1] if known is None else known.mixing_time
    return time if time < float("inf") else None


def as_built(experiment: Experiment | Built | None) -> Built:
    """What was built already, or is built now."""
    return (
        experiment
        if isinstance(experiment, Built)
        else build(Experiment() if experiment is None else experiment)
    )


def _curve(
    source: str, risk: Sequence[float] | np.ndarray, error: Sequence[float] | np.ndarray
) -> pd.DataFrame:
    rows = {"source": source, "round": np.arange(len(risk)), "risk": risk, "risk_se": error}
    return pd.DataFrame(rows, columns=COLUMNS)


def _closed_forms(scenario: Scenario) -> dict[str, Float[np.ndarray, " rounds"]]:
    """Risk by round in the limit N -> infinity, where it has a closed form."""
    prior, found = scenario.prior, {}
    limit = theory.infinite_tokens(scenario)
    if limit is not None:
        found["infinite N"] = limit
    levels = discrete_tree_levels(prior)
    if levels is not None:
        heights, rounds, channels = np.sqrt(levels.powers), scenario.rounds, scenario.channel.channels
        found["infinite N, pooled"] = tree_pooled(heights, rounds, channels)
        found["infinite N, linear decoder"] = tree_static_linear(heights, rounds, channels, levels.branching)
    return found


def _closed_facts(scenario: Scenario, complete: bool) -> dict[str, Any]:
    """Numbers in closed form for a token that hears N tokens; None where there is none."""
    if not complete:
        return dict.fromkeys(("pooled_failure_level", "ridge_limit", "linear_attention"))
    prior, tokens, noise = scenario.prior, scenario.mixing.tokens, scenario.label_noise
    levels = discrete_tree_levels(prior)
    failure = None
    if levels is not None:
        message = prior.power() + noise**2 + scenario.channel.variance
        failure = pooled_failure_level(np.sqrt(levels.powers), tokens, message, levels.branching)
    isotropic = len(prior.atoms) == 1 and np.allclose(prior.covariance(), np.eye(prior.dim) / prior.dim)
    # The closed forms take w ~ N(0, I), whose labels are d times as large.
    layer = (
        linear_attention_risk(tokens, prior.dim, noise * prior.dim**0.5) / prior.dim if isotropic else None
    )
    return {
        "pooled_failure_level": failure,
        "ridge_limit": ridge_limit(tokens / prior.dim, noise**2) if isotropic else None,
        "linear_attention": layer,
    }


def _allocation(built: Built) -> list[int] | None:
    """Best numbers of rounds by level, where they are computed: binary orthonormal trees, one channel."""
    prior, channel = built.prior, built.channel
    levels = discrete_tree_levels(prior)
    rounds = built.experiment.run.rounds
    if levels is None or levels.branching != 2 or channel.channels > 1 or rounds < 1:
        return None
    noise, control = built.experiment.task.label_noise, built.experiment.policy.control_variate
    best = allocation(
        np.sqrt(levels.powers), rounds, float(built.mixing.tokens), noise, channel.variance, control
    )
    return [int(turns) for turns in best.turns]


def _code_loss(built: Built) -> float:
    """How many times the risk of the best query on the sphere the best code has, in the first round."""
    prior, tokens = built.prior, built.mixing.tokens
    question = first_question if prior.factor.shape[1] else exact_question
    noise = built.experiment.task.label_noise
    return code_loss(question(prior, tokens, noise, built.channel.variance), prior)


def _optimum(
    adaptive: Built, greedy: Prediction | None, samples: int
) -> tuple[list[float] | None, list[pd.DataFrame]]:
    """Dynamic programming over the codes of the adaptive policy, where it is affordable."""
    setting = theory.belief_of(adaptive.scenario)
    if affordable_rounds(setting) < setting.rounds:
        return None, []
    best = optimal(setting)
    exact = greedy or theory.predict_belief(adaptive.scenario, samples)
    return best.ratio.tolist(), [
        _curve("optimal", exact.risk / best.ratio, exact.risk_se / best.ratio),
        _curve("channel optimal", best.risk, best.error),
        _curve("channel greedy", best.greedy, np.zeros_like(best.greedy)),
        _curve("channel static", best.static, np.zeros_like(best.static)),
    ]
