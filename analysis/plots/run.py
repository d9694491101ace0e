"""Figures of one run, from its frames: risk, levels, messages, information, calibration, beliefs."""

import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from analysis.plots.graph import Link, links_of
from analysis.plots.style import (
    BLUE,
    CELLS,
    GREY,
    INK,
    NODES,
    PALE,
    SEQUENCE,
    Look,
    as_cells,
    draw_curve,
    drawing,
    lowest,
    scale_axes,
    source_handles,
)

_MOST_TOKENS = 400  # of a graph that is drawn once a round
_ACROSS = 4  # panels side by side


def risk_by_round(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk by round: theory as a line, agents as points with bars of two standard errors.

    Args:
        rows: columns source (theory, agents), round, risk, risk_se.
        caption: what was run.
    """
    floor = lowest(rows["risk"])
    with drawing(5.4, 4.0, caption) as figure:
        axis = figure.subplots()
        draw_curve(axis, rows, "round", Look(BLUE, "o"), floor)
        scale_axes(axis, rows, "round", "round", floor)
        axis.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axis.legend(handles=source_handles(rows, floor), loc="lower left")
        axis.set_title("Risk after each round", loc="left")
    return figure


def residuals(rows: pd.DataFrame, caption: str) -> Figure:
    """Simulation less theory, in standard errors of the difference, by round.

    Args:
        rows: columns source (theory, agents), round, risk, risk_se.
        caption: what was run.
    """
    both = rows.pivot_table(index="round", columns="source", values=["risk", "risk_se"]).dropna()
    error = np.hypot(both["risk_se"]["agents"], both["risk_se"]["theory"])
    z = ((both["risk"]["agents"] - both["risk"]["theory"]) / np.maximum(error, 1e-12)).to_numpy(float)
    with drawing(5.4, 3.2, caption) as figure:
        axis = figure.subplots()
        axis.axhspan(-2, 2, color=PALE, alpha=0.25, linewidth=0)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.vlines(both.index, 0, z, color=BLUE, linewidth=1.2)
        axis.plot(both.index, z, "o", color=BLUE)
        reach = max(4.0, 1.15 * float(np.abs(z).max(initial=0.0)))
        axis.set_ylim(-reach, reach)
        axis.set_ylabel("(agents - theory) / s.e.")
        axis.set_xlabel("round")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title("Residuals; shaded: within 2 s.e.", loc="left")
    return figure


def levels(resolved: pd.DataFrame, entropy: pd.DataFrame, caption: str) -> Figure:
    """Which scales are resolved when: share of tokens on the true branch, and entropy of beliefs, by level.

    Args:
        resolved: round, level, value, se, as `measures.beliefs.resolved_by_level` gives it.
        entropy: the same of `entropy_by_level`; without rows the second panel is left out.
        caption: what was run.
    """
    parts = [("share on the true branch", resolved)] + [("entropy of the belief / bits", entropy)] * bool(
        len(entropy)
    )
    with drawing(4.6 * len(parts) + 0.4, 3.9, caption) as figure:
        axes = figure.subplots(1, len(parts), squeeze=False)[0]
        for axis, (label, table) in zip(axes, parts, strict=True):
            for level, part in table.groupby("level"):
                look = SEQUENCE[(int(str(level)) - 1) % len(SEQUENCE)]
                axis.errorbar(
                    part["round"], part["value"], 2 * part["se"], color=look.colour, marker=look.marker,
                    capsize=2.5, markersize=5, linewidth=1.4, label=f"level {level}",
                )  # fmt: skip
            axis.set_ylim(bottom=0)
            axis.set_xlabel("round")
            axis.set_ylabel(label)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylim(0, 1.03)
        axes[0].legend(loc="lower right")
        axes[0].set_title("Scales by round (level 1 is the coarsest)", loc="left")
    return figure


def message_map(spectrum: pd.DataFrame, caption: str) -> Figure:
    """What is asked when: share of a round's scalars by code, and the mean square of what is said.

    Args:
        spectrum: round, code, value, share, as `measures.messages.spectrum` gives it.
        caption: what was run.
    """
    panels = (("share", "Share of scalars that ask for a code"), ("value", "Mean square of what is said"))
    codes, rounds = int(spectrum["code"].max()) + 1, int(spectrum["round"].max())
    with drawing(9.4, min(6.0, 2.4 + 0.22 * codes), caption) as figure:
        for axis, (column, title) in zip(figure.subplots(1, 2), panels, strict=True):
            cells = np.full((codes, rounds), np.nan)
            cells[spectrum["code"], spectrum["round"] - 1] = spectrum[column]
            image = axis.imshow(np.ma.masked_invalid(cells), cmap=CELLS, aspect="auto", vmin=0)
            as_cells(axis)
            axis.set_title(title, loc="left")
            axis.set_xlabel("round")
            axis.set_ylabel("code (coarse to fine)")
            axis.set_xticks(range(rounds), [str(index) for index in range(1, rounds + 1)])
            axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
            axis.xaxis.set_major_locator(MaxNLocator(12, integer=True)) if rounds > 16 else None
            figure.colorbar(image, ax=axis, shrink=0.85)
    return figure


def information(table: pd.DataFrame, caption: str) -> Figure:
    """Bits that beliefs gained, and how much of each bit that was sent.

    Args:
        table: round, value, se, sent, per_bit, as `measures.messages.information` gives it.
        caption: what was run.
    """
    with drawing(9.4, 3.8, caption) as figure:
        gained, share = figure.subplots(1, 2)
        gained.errorbar(table["sent"], table["value"], 2 * table["se"], color=BLUE, marker="o", capsize=2.5)
        gained.set_xlabel("bits that a token was sent")
        gained.set_ylabel("bits that its belief gained")
        gained.set_title("Information", loc="left")
        heard = table[table["sent"] > 0]
        share.plot(heard["round"], heard["per_bit"], "o-", color=BLUE)
        share.set_xlabel("round")
        share.set_ylabel("bits gained for each bit sent")
        share.set_ylim(bottom=0)
        share.xaxis.set_major_locator(MaxNLocator(integer=True))
        share.set_title("Up to each round", loc="left")
    return figure


def calibration(table: pd.DataFrame, slope: float, slope_se: float, caption: str) -> Figure:
    """The error that tokens make against the error that their beliefs claim.

    Args:
        table: claimed, value, se, as `measures.beliefs.calibration` gives it.
        slope: error made over error claimed.
        slope_se: its standard error.
        caption: what was run.
    """
    with drawing(4.8, 4.4, caption) as figure:
        axis = figure.subplots()
        reach = 1e-9 + 1.08 * float(
            np.nanmax([table["claimed"].max(), (table["value"] + 2 * table["se"]).max()])
        )
        axis.plot(
            [0, reach], [0, reach], color=GREY, linewidth=0.9, linestyle="--", label="what is claimed is made"
        )
        axis.errorbar(
            table["claimed"], table["value"], 2 * table["se"], color=BLUE, marker="o", linestyle="none",
            capsize=2.5, label="tenths of the tokens ± 2 s.e.",
        )  # fmt: skip
        axis.set_xlim(0, reach)
        axis.set_ylim(0, reach)
        axis.set_xlabel("E|w - w_i|² under the belief")
        axis.set_ylabel("|w - w_i|²")
        axis.legend(loc="upper left")
        axis.set_title(f"Made / claimed = {slope:.3f} ± {slope_se:.3f}", loc="left")
    return figure


def beliefs_on_graph(graph: "nx.DiGraph[str]", workspaces: pd.DataFrame, prompt: int, caption: str) -> Figure:
    """The graph after each round, its tokens coloured by the probability of what is true, for one prompt.

    Args:
        graph: of the run.
        workspaces: the table of the run, with a column `true`: the belief in the true atom.
        prompt: which prompt.
        caption: what was run.

    Raises:
        ValueError: if there are too many tokens to be seen.
    """
    picture = _Picture(graph, workspaces, prompt)
    rows = -(-len(picture.rounds) // _ACROSS)
    across = min(_ACROSS, len(picture.rounds))
    with drawing(2.3 * across + 0.9, 2.4 * rows + 0.5, caption) as figure:
        axes = figure.subplots(rows, across, squeeze=False)
        for axis, index in zip(axes.flat, picture.rounds, strict=False):
            picture.draw(axis, index)
        picture.finish(figure, axes)
    return figure


def beliefs_by_round(
    graph: "nx.DiGraph[str]", workspaces: pd.DataFrame, prompt: int, caption: str
) -> list[Figure]:
    """The same, one figure for each round: the pictures of an animation.

    Args:
        graph: of the run.
        workspaces: the table of the run, with a column `true`: the belief in the true atom.
        prompt: which prompt.
        caption: what was run.

    Raises:
        ValueError: if there are too many tokens to be seen.
    """
    picture, figures = _Picture(graph, workspaces, prompt), []
    for index in picture.rounds:
        with drawing(5.6, 4.9, caption) as figure:
            axes = figure.subplots(1, 1, squeeze=False)
            picture.draw(axes[0, 0], index)
            picture.finish(figure, axes)
        figures.append(figure)
    return figures


class _Picture:
    """A graph whose tokens are coloured round after round, for one prompt.

    Raises:
        ValueError: if there are too many tokens to be seen.
    """

    def __init__(self, graph: "nx.DiGraph[str]", workspaces: pd.DataFrame, prompt: int) -> None:
        if len(graph) > _MOST_TOKENS:
            raise ValueError(f"a figure shows up to {_MOST_TOKENS} tokens in each round; got {len(graph):,}")
        order = {name: index for index, name in enumerate(graph)}
        plain: nx.DiGraph[int] = nx.DiGraph()
        plain.add_nodes_from(range(len(order)))
        plain.add_edges_from((order[one], order[other]) for one, other in graph.edges)
        self._places, self._links = links_of(plain)
        self._workspaces = workspaces[workspaces["prompt"] == prompt]
        self._drawn: PathCollection | None = None
        self.rounds = sorted(self._workspaces["round"].unique().tolist())

    def draw(self, axis: Axes, index: int) -> None:
        """The tokens after one round."""
        axis.set_title(f"round {index}", loc="left", fontsize=9)
        true = self._workspaces[self._workspaces["round"] == index].sort_values("position")["true"]
        self._drawn = _tokens(axis, self._places, self._links, true.to_numpy(float))

    def finish(self, figure: Figure, axes: np.ndarray) -> None:
        """No frames, and one scale for all axes."""
        for axis in axes.flat:
            axis.set_axis_off()
        if self._drawn is not None:
            bar = figure.colorbar(self._drawn, ax=axes, shrink=0.8)
            bar.set_label("belief in the truth")


def _tokens(axis: Axes, places: np.ndarray, lines: list[Link], values: np.ndarray) -> PathCollection:
    faint = float(np.clip(30 / max(1, len(lines)), 0.04, 0.6))
    axis.add_collection(LineCollection(lines, colors=INK, linewidths=0.6, alpha=faint, zorder=1))
    size = float(np.clip(900 / len(places), 6, 70))
    dots = axis.scatter(
        places[:, 0],
        places[:, 1],
        c=values,
        cmap=NODES,
        vmin=0,
        vmax=1,
        s=size,
        zorder=2,
        edgecolors="white",
        linewidths=0.5,
    )
    axis.set_aspect("equal")
    axis.margins(0.12)
    return dots
