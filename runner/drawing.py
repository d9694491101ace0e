"""A picture of an experiment's graph, for `check --figure`.

This module stands above `analysis`, as `theory` does.
"""

from pathlib import Path

from analysis.figures import save
from analysis.graph_figure import graph_figure
from runner.assembly import graph_of, mixing_for
from runner.errors import UsageError, UsageErrors
from runner.experiment import Experiment
from runner.folders import new_folder


def draw_graph(experiment: Experiment, out: Path) -> Path:
    """Draw who hears whom, coloured by the effective number of tokens after L rounds of averaging.

    Args:
        experiment: its graph and its rounds.
        out: folder below which a folder for the picture is made.

    Raises:
        UsageErrors: if there are too many tokens to be seen.
    """
    section, rounds = experiment.graph, max(1, experiment.run.rounds)
    mixing = mixing_for(experiment)
    caption = f"{section.kind.replace('_', ' ')}, N = {mixing.tokens}, {section.mixing} weights; "
    caption += f"colour: N_eff after {rounds} round{'s' if rounds > 1 else ''} of averaging"
    try:
        figure = graph_figure(graph_of(experiment), mixing, caption, rounds)
    except ValueError as failure:
        raise UsageErrors([UsageError("--figure", mixing.tokens, str(failure))]) from None
    return save(figure, new_folder(out, f"graph-{experiment.identity()}"), "graph")
