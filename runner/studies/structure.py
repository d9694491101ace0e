"""The paper's question, asked of theory: how depth follows from the structure of the latent variable.

Every function varies keys of an experiment and predicts, by state evolution, without running an agent.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from agents.prior import PRIORS, amplitudes
from analysis.plots.structure import depth_against_structure, gain_against_structure, pooled_against_tokens
from analysis.statistics import standard_error
from analysis.theory.closed_forms.asymptotic import pooled_signal_to_noise
from analysis.theory.evolution.complete import Prediction
from analysis.theory.predict import predict_belief
from runner.built import build
from runner.config.experiment import Experiment
from runner.config.studies import of_kind, policy_values
from runner.footprint import prior_options
from runner.progress import Progress
from runner.storage.files import new_folder, write_figure
from runner.studies.base import parameters

_LEVEL = 0.1  # risk that the figure of depth asks for


def draw_figures(experiment: Experiment, out: Path, precision: int, progress: Progress) -> list[Path]:
    """The paper's question in three figures: depth, gain of adaptivity, failure of pooled questions.

    Args:
        experiment: N, bits, noise and prior that the figures start from.
        out: folder below which a folder for the figures is made.
        precision: samples for each point.
        progress: shows the progress.
    """
    folder = new_folder(out, f"theory-{experiment.identity()}")
    plain = experiment.with_values(
        {"prior.kind": "tree", **of_kind("adaptive"), "policy.control_variate": True}
    )
    fixed = f"{parameters(plain)}; state evolution, {precision:,} samples a point; bars: two standard errors"
    deep = plain.with_values({"run.rounds": 12})
    shallow = deep.with_values({"prior.levels": 2})
    with progress.task("theory: figures", 3) as advance:
        needed = partial(depth_needed, level=_LEVEL, samples=precision)
        depths = {
            "Levels": needed(deep, "prior.levels", [1, 2, 3, 4, 5]),
            "Branching, two levels": needed(shallow, "prior.branching", [2, 3, 4, 5]),
            "Decay": needed(deep, "prior.decay", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
            "Jitter": needed(deep, "prior.jitter", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15]),
        }
        paths = [
            write_figure(depth_against_structure(depths, _LEVEL, fixed), folder, "depth-against-structure")
        ]
        advance(1, "depth against structure")
        jitters = [{"prior.jitter": value} for value in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)]
        mixed = [{"prior.directions": "random", "prior.dim": d} for d in (2, 3, 4, 5, 7, 10, 15, 30)]
        gains = {
            "From a tree to a Gaussian": ("prior.jitter", gain_of_adaptivity(plain, jitters, 2 * precision)),
            "Random directions, ten draws": (
                "prior.dim",
                gain_of_adaptivity(plain, mixed, precision, seeds=10),
            ),
        }
        caption = f"after {plain.run.rounds} rounds; {fixed}"
        paths.append(write_figure(gain_against_structure(gains, caption), folder, "gain-of-adaptivity"))
        advance(2, "gain of adaptivity")
        table = pooled_failure(plain, [8, 16, 32, 64, 128, 256, 512], [2, 3, 4, 5], precision)
        without = fixed.removeprefix(f"N = {plain.task.tokens}, ") + "; risks below 0.0001 are drawn there"
        paths.append(write_figure(pooled_against_tokens(table, without), folder, "pooled-failure"))
        advance(3, "pooled questions")
    return paths


def depth_needed(
    experiment: Experiment, key: str, values: Sequence[object], level: float, samples: int
) -> pd.DataFrame:
    """Depth at which the risk of the adaptive policy falls under a level, as a function of one key.

    The depth is read off the predicted curve, log-linear between rounds; its interval comes from the curve
    plus and minus two standard errors. It is infinite if the level is not reached within run.rounds.

    Args:
        experiment: all other keys; its policy is taken to be `adaptive`.
        key: dotted key that is varied, for example `prior.levels`.
        values: its values; `prior.dim` grows with a tree that needs more.
        level: risk relative to E|w|^2.
        samples: size of the Monte-Carlo sample.

    Returns:
        Columns key, value, depth, low, high (rounds).

    Example:
        >>> rows = depth_needed(Experiment(), "prior.levels", [1, 2], level=0.1, samples=500)
        >>> bool(rows["depth"][0] < rows["depth"][1])
        True
    """
    rows = []
    for value in values:
        varied = with_room(experiment, {key: value, **of_kind("adaptive")})
        prediction = _predict(varied, samples)
        margin = 2 * prediction.risk_se
        depth, low, high = (
            crossing(curve, level)
            for curve in (prediction.risk, prediction.risk - margin, prediction.risk + margin)
        )
        rows.append({"key": key, "value": value, "depth": depth, "low": low, "high": high})
    return pd.DataFrame(rows)


def gain_of_adaptivity(
    experiment: Experiment, values: Sequence[Mapping[str, object]], samples: int, seeds: int = 1
) -> pd.DataFrame:
    """Risk of static codes over that of the adaptive policy, after run.rounds rounds, control on for both.

    Both see the same tasks and the same Gram matrices, so the error of the ratio is that of pairs. A ratio
    of 1 means that nothing is gained by asking what the answers suggest.

    Args:
        experiment: all other keys.
        values: dotted keys and values of each point.
        samples: size of the Monte-Carlo sample for each seed.
        seeds: draws of the prior's directions that are averaged; with several, the error is over draws.

    Returns:
        One row a point: its keys, adaptive, static, ratio, ratio_se.

    Example:
        >>> points = [{"prior.kind": "tree"}, {"prior.kind": "matched_gaussian"}]
        >>> gain_of_adaptivity(Experiment(), points, samples=500)["ratio"].round(1).tolist()[1]
        1.0
    """

    def errors(keys: Mapping[str, object], kind: str) -> Float[np.ndarray, "seeds samples"]:
        """Relative errors of one policy after the last round, for each draw of the prior."""
        every = ({**keys, "policy.kind": kind, "run.seed": seed} for seed in range(seeds))
        return np.stack([_predict(with_room(experiment, drawn), samples).errors[-1] for drawn in every])

    rows = []
    for keys in values:
        adaptive, static = errors(keys, "adaptive"), errors(keys, "static")
        ratio = float(static.mean() / adaptive.mean())
        excess = static - ratio * adaptive
        units = excess.mean(axis=1) if seeds > 1 else excess[0]
        spread = float(standard_error(units) / adaptive.mean())
        means = {"adaptive": float(adaptive.mean()), "static": float(static.mean())}
        rows.append({**keys, **means, "ratio": ratio, "ratio_se": spread})
    return pd.DataFrame(rows)


def pooled_failure(
    experiment: Experiment, tokens: Sequence[int], levels: Sequence[int], samples: int
) -> pd.DataFrame:
    """Risk of pooled and adaptive questions after as many rounds as levels, and where pooling should fail.

    A pooled question of level h has a signal-to-noise ratio 2^(h-1) times below that of the right node: it
    fails when 2^(h-1) is of order N a_h^2 over the noise of one message.

    Returns:
        Columns levels, tokens, policy, risk, risk_se, threshold: the N at which the signal-to-noise ratio of
        the finest level is 1.

    Source: THEORY.md section 6.

    Example:
        >>> rows = pooled_failure(Experiment(), [16], [1, 2], samples=500)
        >>> len(rows), bool(rows["risk"].between(0, 1).all())
        (4, True)
    """
    rows = []
    for depth in levels:
        heights = amplitudes(depth, experiment.prior.decay)
        # One message at the finest level: its own signal, label noise and channel.
        noise = 1.0 + experiment.task.label_noise**2 + experiment.channel.noise**2
        threshold = 1.0 / float(pooled_signal_to_noise(heights, 1.0, noise).min())
        for count in tokens:
            sizes = {"prior.levels": depth, "task.tokens": count, "run.rounds": depth}
            for policy in ("adaptive", "static pooled, no cv"):
                prediction = _predict(with_room(experiment, {**sizes, **policy_values(policy)}), samples)
                rows.append(
                    {
                        "levels": depth,
                        "tokens": count,
                        "policy": policy,
                        "risk": float(prediction.risk[-1]),
                        "risk_se": float(prediction.risk_se[-1]),
                        "threshold": threshold,
                    }
                )
    return pd.DataFrame(rows)


def crossing(risk: np.ndarray, level: float) -> float:
    """First depth at which a curve of risks is at or below a level, log-linear between rounds.

    Example:
        >>> crossing(np.array([1.0, 0.1, 0.001]), 0.01)
        1.5
    """
    curve = np.maximum(np.asarray(risk, dtype=float), 1e-12)
    below = np.flatnonzero(curve <= level)
    if not len(below):
        return float("inf")
    after = int(below[0])
    if after == 0:
        return 0.0
    drop = np.log(curve[after - 1] / level) / np.log(curve[after - 1] / curve[after])
    return float(after - 1 + drop)


def with_room(experiment: Experiment, values: dict[str, object]) -> Experiment:
    """The experiment with some keys set, and with as many dimensions as its orthonormal tree then needs."""
    varied = experiment.with_values(values)
    needed = PRIORS[varied.prior.kind].least_dim(prior_options(varied))
    return varied.with_values({"prior.dim": max(varied.prior.dim, needed)})


def _predict(experiment: Experiment, samples: int) -> Prediction:
    """State evolution on the complete graph."""
    return predict_belief(build(experiment).scenario, samples)
