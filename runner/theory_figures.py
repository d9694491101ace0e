"""The figures of the paper's question, drawn for the system of one experiment.

This module stands above `analysis`, as `theory` does.
"""

from pathlib import Path

from analysis.figures import save
from analysis.structure import depth_needed, gain_of_adaptivity, pooled_failure
from analysis.structure_figures import depth_against_structure, gain_against_structure, pooled_against_tokens
from runner.display import Display
from runner.experiment import Experiment
from runner.folders import new_folder

_LEVEL = 0.1  # risk that the figure of depth asks for


def draw_figures(experiment: Experiment, out: Path, precision: int, display: Display) -> list[Path]:
    """The paper's question in three figures: depth, gain of adaptivity, failure of pooled questions.

    Args:
        experiment: N, bits, noise and prior that the figures start from.
        out: folder below which a folder for the figures is made.
        precision: samples for each point.
        display: shows the progress.
    """
    folder = new_folder(out, f"theory-{experiment.identity()}")
    plain = experiment.with_values(
        {"prior.kind": "tree", "policy.kind": "adaptive", "policy.control_variate": True}
    )
    task, channel = plain.task, plain.channel
    fixed = f"N = {task.tokens}, σ = {task.label_noise:g}, K = {channel.channels}, b = {channel.bits} bits, "
    fixed += f"c = {channel.clip:g}, τ = {channel.noise:g}; state evolution, {precision:,} samples a point; "
    fixed += "bars: two standard errors"
    deep = plain.with_values({"run.rounds": 12})
    shallow = deep.with_values({"prior.levels": 2})
    with display.task("theory: figures", 3) as advance:
        depths = {
            "Levels": depth_needed(deep, "prior.levels", [1, 2, 3, 4, 5], _LEVEL, precision),
            "Branching, two levels": depth_needed(
                shallow, "prior.branching", [2, 3, 4, 5], _LEVEL, precision
            ),
            "Decay": depth_needed(deep, "prior.decay", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], _LEVEL, precision),
            "Jitter": depth_needed(
                deep, "prior.jitter", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15], _LEVEL, precision
            ),
        }
        paths = [save(depth_against_structure(depths, _LEVEL, fixed), folder, "depth-against-structure")]
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
        paths.append(save(gain_against_structure(gains, caption), folder, "gain-of-adaptivity"))
        advance(2, "gain of adaptivity")
        table = pooled_failure(plain, [8, 16, 32, 64, 128, 256, 512], [2, 3, 4, 5], precision)
        without = fixed.removeprefix(f"N = {task.tokens}, ") + "; risks below 0.0001 are drawn there"
        paths.append(save(pooled_against_tokens(table, without), folder, "pooled-failure"))
        advance(3, "pooled questions")
    return paths
