"""Figures, in one style that is safe for the colour-blind and readable in print."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

# P. Okabe and K. Ito, Color universal design (2008).
POLICY_COLOURS = {
    "adaptive": "#0072B2",
    "static codes, no cv": "#D55E00",
    "static pooled, no cv": "#009E73",
    "static codes": "#D55E00",
    "feedforward": "#CC79A7",
    "linear": "#E69F00",
}
# Shapes tell policies apart without colour, and open ones let a coinciding point be seen through.
POLICY_MARKERS: dict[str, dict[str, Any]] = {
    "adaptive": {"marker": "o", "markersize": 4.5},
    "static codes": {"marker": "s", "markersize": 8, "markerfacecolor": "none"},
    "static codes, no cv": {"marker": "s", "markersize": 5.5},
    "static pooled, no cv": {"marker": "^", "markersize": 6},
}
POLICY_NAMES = {
    "adaptive": "adaptive",
    "static codes": "static codes",
    "static codes, no cv": "static codes, no cv",
    "static pooled, no cv": "static pooled, no cv",
    "feedforward": "with feedforward",
    "linear": "without feedforward",
}
SHOWN = {
    "tree": ("adaptive", "static codes, no cv", "static pooled, no cv"),
    "matched_gaussian": ("adaptive", "static codes"),
}
TITLES = {"tree": "Tree prior", "matched_gaussian": "Null: matched Gaussian", "gaussian": "Gaussian prior"}


@contextmanager
def style() -> Iterator[None]:
    """The one style of all figures."""
    settings: dict[Any, object] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.hashsalt": "tokenfield",
    }
    with mpl.rc_context(settings):
        yield


def risk_against_depth(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk by depth: theory as lines, agents as points with error bars, transformers as diamonds.

    Args:
        rows: columns source, prior, policy, depth, risk, risk_se, as `compare` gives them.
        caption: the parameters of the experiment, below the panels.
    """
    priors = list(dict.fromkeys(rows["prior"]))
    with style():
        figure = Figure(figsize=(4.6 * len(priors) + 0.6, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(priors), squeeze=False)[0]
        for axis, prior in zip(axes, priors, strict=True):
            _panel(axis, rows[rows["prior"] == prior], prior)
        axes[0].set_ylabel("excess risk / E|w|²")
        low = max(1e-3, 0.5 * float(rows.loc[rows["risk"] > 0, "risk"].min()))
        for axis in axes:
            axis.set_ylim(low, 1.3)
        figure.supxlabel(caption, fontsize=8, color="#555555")
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, prior: str) -> None:
    handles: list[Line2D] = []
    shown = [name for name in SHOWN.get(prior, ()) if name in set(rows["policy"])]
    for policy in shown or [name for name in dict.fromkeys(rows["policy"]) if name in POLICY_COLOURS]:
        colour = POLICY_COLOURS[policy]
        theory = _select(rows, "theory", policy)
        line: Any = "--" if policy == "static codes" else "-"
        axis.plot(theory["depth"], theory["risk"], line, color=colour, linewidth=1.6, zorder=2)
        agents = _select(rows, "agents", policy)
        marks = POLICY_MARKERS.get(policy, POLICY_MARKERS["adaptive"])
        axis.errorbar(
            agents["depth"], agents["risk"], 2 * agents["risk_se"], color=colour, capsize=3,
            linestyle="none", zorder=3, **marks,
        )  # fmt: skip
        handles.append(Line2D([], [], color=colour, linestyle=line, label=POLICY_NAMES[policy], **marks))
    for policy in ("feedforward", "linear"):
        trained = _select(rows, "transformer", policy)
        if trained.empty:
            continue
        axis.errorbar(
            trained["depth"] + 0.09, trained["risk"], 2 * trained["risk_se"], fmt="D",
            color=POLICY_COLOURS[policy], markerfacecolor="white", markersize=6, markeredgewidth=1.6,
            linestyle="none", capsize=3, zorder=4,
        )  # fmt: skip
        handles.append(
            Line2D(
                [], [], color=POLICY_COLOURS[policy], marker="D", markerfacecolor="white", markersize=6,
                markeredgewidth=1.6, linestyle="none", label=f"transformer {POLICY_NAMES[policy]}",
            )
        )  # fmt: skip
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks(np.unique(rows["depth"]))
    axis.set_xlabel("depth (rounds)")
    axis.set_title(TITLES.get(prior, prior), loc="left")
    axis.legend(handles=handles, loc="lower left")


def _select(rows: pd.DataFrame, source: str, policy: str) -> pd.DataFrame:
    return rows[(rows["source"] == source) & (rows["policy"] == policy)].sort_values("depth")
