"""Figures of transformers that lack a part: risk against depth, and their gap to the full one."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.measures.ablation import FULL, gaps, medians
from analysis.plots.style import (
    GREY,
    PALE,
    SHADE,
    TITLES,
    Look,
    drawing,
    log_axis,
    lowest,
    scale_axes,
    variant_looks,
)

_OTHERS: dict[str, Literal[":", "--", "-."]] = {
    "softmax": ":",
    "masked softmax": "--",
    "linear self-attention": "-.",
}
_SPREAD = 0.30  # width over which the points of one depth are set side by side
_LOWEST = 1e-3  # of the axis of risk; curves of unbounded messages leave it below


def risk_by_ablation(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk against depth on each prior, and the gaps to the full transformer on the first.

    Points are medians over seeds; bars go from the least to the largest seed and two standard errors beyond.

    Args:
        rows: columns source (theory, limit, agents, transformer, unconstrained), prior, policy, depth, seed,
            risk, risk_se.
        caption: the parameters of the experiment, below the panels.
    """
    rows = rows[rows["depth"] > 0]
    found = medians(rows)
    priors = list(dict.fromkeys(rows["prior"]))
    names = list(dict.fromkeys(found[found["source"] == "transformer"]["policy"]))
    looks = variant_looks(names)
    table = gaps(rows, priors[0]) if FULL in names else None
    floor = max(_LOWEST, lowest(found[found["source"] != "limit"]["risk"]))
    count = len(priors) + (table is not None and len(table) > 0)
    with drawing(4.2 * count + 2.3, 4.7, caption) as figure:
        axes = figure.subplots(1, count, squeeze=False)[0]
        for axis, prior in zip(axes, priors, strict=False):
            _risks(axis, found[found["prior"] == prior], looks, floor)
            axis.set_title(TITLES.get(prior, prior), loc="left")
        for axis in axes[1 : len(priors)]:  # the first one's, on the same scale
            axis.set_ylabel("")
        if table is not None and len(table):
            _gaps(axes[-1], table, looks)
        figure.legend(handles=_handles(found, looks, floor), loc="outside right center")
    return figure


def _beside(index: int, count: int) -> float:
    """How far right of its depth the points of a variant are."""
    return 0.0 if count < 2 else _SPREAD * (index / (count - 1) - 0.5)


def _points(axis: Axes, rows: pd.DataFrame, value: str, look: Look, right: float) -> None:
    """Medians with bars from low to high, so far right of their depth."""
    axis.errorbar(
        rows["depth"] + right, rows[value], [rows[value] - rows["low"], rows["high"] - rows[value]],
        color=look.colour, marker=look.marker, markersize=5, linestyle="none", capsize=2, elinewidth=1,
        zorder=3,
    )  # fmt: skip


def _risks(axis: Axes, found: pd.DataFrame, looks: dict[str, Look], floor: float) -> None:
    shown = [name for name in looks if name in set(found[found["source"] == "transformer"]["policy"])]
    for name, dashes in _OTHERS.items():
        part = found[(found["source"] == "unconstrained") & (found["policy"] == name)].sort_values("depth")
        axis.plot(part["depth"], part["risk"], dashes, color=GREY, linewidth=1.2, zorder=1.5)
    for index, name in enumerate(shown):
        look, own = looks[name], found[found["policy"] == name]
        theory = own[own["source"] == "theory"].sort_values("depth")
        axis.plot(theory["depth"], theory["risk"], color=look.colour, linewidth=1.4, zorder=2)
        trained = own[own["source"] == "transformer"].sort_values("depth")
        _points(axis, trained, "risk", look, _beside(index, len(shown)))
    agents = found[(found["source"] == "agents") & (found["policy"] == "adaptive")]
    axis.plot(
        agents["depth"], agents["risk"], "o", color="black", markerfacecolor="none", markersize=9, zorder=4
    )
    limit = found[found["source"] == "limit"].sort_values("depth")
    if len(limit):
        axis.fill_between(limit["depth"], 1e-12, limit["risk"], color=SHADE, linewidth=0, zorder=0.5)
    scale_axes(axis, found, "depth", "depth (layers)", floor)
    axis.set_xticks(np.unique(found["depth"]))


def _gaps(axis: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    names = list(dict.fromkeys(table["policy"]))
    for index, name in enumerate(names):
        look, part = looks[name], table[table["policy"] == name]
        axis.plot(part["depth"], part["predicted"], color=look.colour, linewidth=1.4, zorder=2)
        _points(axis, part, "ratio", look, _beside(index, len(names)))
    axis.axhline(1.0, color=GREY, linewidth=0.8, zorder=1)
    log_axis(axis)
    axis.set_xticks(np.unique(table["depth"]))
    axis.set_xlabel("depth (layers)")
    axis.set_ylabel("risk over that of the full transformer")
    axis.set_title("Gap", loc="left")


def _handles(found: pd.DataFrame, looks: dict[str, Look], floor: float) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    told = set(found[found["source"] == "theory"]["policy"])
    for name, look in looks.items():
        line: Literal["-", "none"] = "-" if name in told else "none"
        handles.append(
            Line2D([], [], color=look.colour, marker=look.marker, linestyle=line, markersize=5, label=name)
        )
    if told:
        handles.append(Line2D([], [], color=PALE, label="lines: theory"))
    if (found["source"] == "agents").any():
        handles.append(
            Line2D([], [], color="black", marker="o", markerfacecolor="none", markersize=9, linestyle="none",
                   label="adaptive agents")
        )  # fmt: skip
    others = set(found[found["source"] == "unconstrained"]["policy"])
    handles += [
        Line2D([], [], color=GREY, linestyle=dashes, label=f"{name}\n(unbounded messages)")
        for name, dashes in _OTHERS.items()
        if name in others
    ]
    if ((found["source"] == "limit") & (found["risk"] > floor)).any():
        handles.append(Patch(facecolor=SHADE, label="below the limit"))
    return handles
