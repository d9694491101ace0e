"""What theory says of an experiment, all of it: predictions, limits, and the optimum.

This module stands above `analysis`, as `comparison` does.
"""

from dataclasses import asdict, dataclass

import numpy as np

from agents.prior import amplitudes
from analysis.bounds import light_cone_bound, physical_limit
from analysis.prediction import foreseen, infinite_tokens, predict, setting_of
from analysis.theory.allocation import allocation
from analysis.theory.dynamic import affordable_rounds, optimal
from analysis.theory.evolution import Prediction
from analysis.theory.locality import LocalPrediction, predicted_depth
from analysis.theory.queries import code_loss
from analysis.theory.questions import exact_question, first_question
from runner.assembly import channel_of, prior_of
from runner.experiment import Experiment
from runner.facts import mixing_time

Curve = list[float]
# What is computed for every experiment.
SINGLE = ("law", "limit", "bayes", "bayes_se", "mixing_time", "depth", "code_loss", "allocation")
_BAYES_SAMPLES = 2_000


@dataclass(frozen=True)
class Foretold:
    """Predictions for one experiment, relative to E|w|^2, for rounds 0..L. What is not computed is None.

    Attributes:
        law: what the risk rests on.
        risk: state evolution of the experiment's policy, from whole examples.
        risk_se: its standard error.
        mean_field: state evolution with Gaussian fields, the limit of large N.
        mean_field_se: its standard error.
        infinite_tokens: closed form of the adaptive policy as N -> infinity.
        limit: physical limit; no system that hears as many bits is below it.
        bayes: risk of the exact posterior given all examples in the light cone; no policy is below it.
        bayes_se: its standard error.
        mixing_time: rounds in which a deviation from the mean shrinks by e; None on a large graph.
        depth: scales times mixing time, the order of the depth that the graph asks for.
        optimal: estimate of the best adaptive choice of codes at this N: exact risk of the greedy policy,
            times optimal over greedy on the Gaussian channel.
        greedy_over_optimal: by dynamic programming on the Gaussian channel.
        channel_optimal: dynamic programming on the Gaussian channel itself.
        channel_greedy: greedy on the same channel, by the same quadrature.
        channel_static: best fixed schedule on the same channel.
        channel_error: error of `channel_optimal`.
        allocation: how many of the L rounds each level of a binary orthonormal tree is best asked in a row,
            coarse to fine, with a hard decision after each.
        code_loss: risk of the best code over that of the best query on the sphere, in the first round.
    """

    law: str
    risk: Curve | None
    risk_se: Curve | None
    mean_field: Curve | None
    mean_field_se: Curve | None
    infinite_tokens: Curve | None
    limit: Curve
    bayes: Curve
    bayes_se: Curve
    mixing_time: float | None
    depth: float | None
    optimal: Curve | None
    greedy_over_optimal: Curve | None
    channel_optimal: Curve | None
    channel_greedy: Curve | None
    channel_static: Curve | None
    channel_error: Curve | None
    code_loss: float | None
    allocation: list[int] | None

    def answer(self) -> dict[str, object]:
        """All fields, for --json."""
        return asdict(self)


def foretell(experiment: Experiment, precision: int) -> Foretold:
    """Predict everything that has a theory, without running an agent.

    Args:
        experiment: what would be run.
        precision: size of the Monte-Carlo samples of state evolution.

    Source: THEORY.md section 7.
    """
    task, complete = experiment.task, experiment.graph.kind == "complete"
    bayes = light_cone_bound(experiment, _BAYES_SAMPLES)
    time = mixing_time(experiment)
    scales = int(prior_of(experiment).scales.max())
    found: dict[str, Curve | None] = dict.fromkeys(
        [name for name in Foretold.__dataclass_fields__ if name not in SINGLE]
    )
    exact, gaussian = (foreseen(experiment, precision, form) for form in ("exact", "gaussian"))
    if exact is not None and gaussian is not None:
        found |= {"risk": exact.risk.tolist(), "risk_se": exact.risk_se.tolist()}
        found |= {"mean_field": gaussian.risk.tolist(), "mean_field_se": gaussian.risk_se.tolist()}
    if isinstance(exact, Prediction):
        # The greedy policy of the optimum is the experiment's own, if that is adaptive.
        own = experiment.policy.kind == "adaptive"
        adaptive = experiment.with_values({"policy.kind": "adaptive"})
        found |= _best_codes(adaptive, exact if own else predict(adaptive, precision))
    limit = infinite_tokens(experiment) if complete else None
    found["infinite_tokens"] = None if limit is None else limit.tolist()
    alike = experiment.policy.kind == "static" and not experiment.policy.control_variate
    agreed = isinstance(exact, LocalPrediction) and not alike
    return Foretold(
        law="neighbours taken to agree" if agreed else "exact at this N",
        limit=physical_limit(experiment).tolist(),
        bayes=bayes.value.tolist(),
        bayes_se=bayes.error.tolist(),
        mixing_time=time,
        depth=None if time is None else predicted_depth(scales, time),
        code_loss=_code_loss(experiment) if complete and task.tokens > 3 and experiment.run.rounds else None,
        allocation=_allocation(experiment) if complete else None,
        **found,
    )


def _allocation(experiment: Experiment) -> list[int] | None:
    """Best numbers of rounds by level, where they are computed: binary orthonormal trees, one channel."""
    section, channel = experiment.prior, channel_of(experiment)
    binary = section.kind == "tree" and section.branching == 2 and section.directions == "orthonormal"
    if not binary or section.jitter or channel.channels > 1 or experiment.run.rounds < 1:
        return None
    best = allocation(
        amplitudes(section.levels, section.decay),
        experiment.run.rounds,
        float(experiment.task.tokens),
        experiment.task.label_noise,
        channel.variance,
        experiment.policy.control_variate,
    )
    return [int(turns) for turns in best.turns]


def _code_loss(experiment: Experiment) -> float:
    """How many times the risk of the best query on the sphere the best code has, in the first round."""
    prior, channel, task = prior_of(experiment), channel_of(experiment), experiment.task
    if prior.factor.shape[1]:
        return code_loss(first_question(prior, task.tokens, task.label_noise, channel.variance), prior)
    return code_loss(exact_question(prior, task.tokens, task.label_noise, channel.variance), prior)


def _best_codes(adaptive: Experiment, greedy: Prediction) -> dict[str, Curve | None]:
    """Dynamic programming over the codes of the adaptive policy, where it is affordable."""
    setting = setting_of(adaptive)
    if affordable_rounds(setting) < setting.rounds:
        return {}
    best = optimal(setting)
    return {
        "optimal": (greedy.risk / best.ratio).tolist(),
        "greedy_over_optimal": best.ratio.tolist(),
        "channel_optimal": best.risk.tolist(),
        "channel_greedy": best.greedy.tolist(),
        "channel_static": best.static.tolist(),
        "channel_error": best.error.tolist(),
    }


def rows_of(foretold: Foretold) -> list[tuple[str, Curve, Curve | None]]:
    """Name, curve and standard error of each prediction that was computed, for a table."""
    candidates: list[tuple[str, Curve | None, Curve | None]] = [
        (f"risk ({foretold.law})", foretold.risk, foretold.risk_se),
        ("risk (mean field)", foretold.mean_field, foretold.mean_field_se),
        ("adaptive, infinite N", foretold.infinite_tokens, None),
        ("optimal codes, estimate", foretold.optimal, None),
        ("greedy / optimal", foretold.greedy_over_optimal, None),
        ("physical limit", foretold.limit, None),
        ("Bayes limit, light cone", foretold.bayes, foretold.bayes_se),
    ]
    return [(name, curve, error) for name, curve, error in candidates if curve is not None]


def remarks(foretold: Foretold) -> list[str]:
    """What a table of curves does not show, a sentence each."""
    said = []
    if foretold.code_loss is not None:
        said.append(
            f"In the first round the best code has {foretold.code_loss:.3f} times the risk of the best query."
        )
    if foretold.allocation is not None:
        turns = ", ".join(str(count) for count in foretold.allocation)
        said.append(f"Asking level by level with hard decisions, the rounds are best spent as {turns}.")
    if foretold.optimal is None and foretold.risk is not None and foretold.code_loss is not None:
        said.append("The optimum is not computed: so many rounds are out of reach of dynamic programming.")
    if foretold.depth is not None and foretold.mixing_time:
        said.append(
            f"The graph mixes in {foretold.mixing_time:.3g} rounds: of the order of {foretold.depth:.3g} are "
            "needed to resolve all scales."
        )
    if foretold.risk is None:
        said.append("No theory is written for learned weights, gradient descent, and flooding with noise.")
    return said


def is_ordered(foretold: Foretold) -> bool:
    """Whether limits <= optimal <= risk holds, within three standard errors."""
    if foretold.risk is None or foretold.risk_se is None:
        return True
    margin = 3 * np.array(foretold.risk_se) + 1e-12  # certainties differ by rounding
    # The agents do not read their own example before they hear it among others.
    bayes = np.array(foretold.bayes) - 3 * np.array(foretold.bayes_se)
    floor = np.maximum(foretold.limit, bayes)
    best = np.array(foretold.optimal if foretold.optimal is not None else foretold.risk)
    return bool((floor <= best + margin).all() and (best <= np.array(foretold.risk) + margin).all())
