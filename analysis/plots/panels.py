"""Figures of sweeps: panels of curves with error bars, theory as lines beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from analysis.plots.style import PALE, SEQUENCE, Look, drawing

_MANY = 4  # curves, beyond which their names stand below
_LEAST = 1e-4  # of a logarithmic axis; what is smaller is drawn at its foot


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel.

    Attributes:
        rows: series, x, value, se; and theory, where there is one.
        title: above it.
        across: label of x.
        up: label of the values.
        log_x, log_y: which axes are logarithmic; what is below 1e-4 is at the foot of one of values, hollow.
        looks: of series that have one of their own.
        line: values that a dotted line marks.
    """

    rows: pd.DataFrame
    title: str
    across: str
    up: str = "excess risk / E|w|²"
    log_x: bool = False
    log_y: bool = True
    looks: Mapping[str, Look] = field(default_factory=dict)
    line: float | None = None


def panels_figure(panels: Sequence[Panel], caption: str) -> Figure:
    """The panels side by side, points with bars of two standard errors.

    Args:
        panels: one or more.
        caption: what was run.

    Example:
        >>> rows = pd.DataFrame({"series": "a", "x": [1, 2], "value": [1.0, 0.5], "se": 0.1})
        >>> len(panels_figure([Panel(rows, "Risk", "rounds")], "").axes)
        1
    """
    tall = max(panel.rows["series"].nunique() for panel in panels) > _MANY
    with drawing(4.9 * len(panels) + 0.3, 4.3 + 0.6 * tall, caption) as figure:
        for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            rows = panel.rows
            told = {str(name): part.sort_values("x") for name, part in rows.groupby("series", sort=False)}
            for index, (name, part) in enumerate(told.items()):
                look = panel.looks.get(name, SEQUENCE[index % len(SEQUENCE)])
                value = part["value"].to_numpy(float)
                low = panel.log_y & (value < _LEAST)
                joined = "theory" not in part or part["theory"].isna().all()
                axis.errorbar(
                    part["x"][~low], value[~low], 2 * part["se"].fillna(0.0)[~low], color=look.colour,
                    marker=look.marker, markerfacecolor=look.face, markersize=5.5, capsize=2.5, linewidth=1.2,
                    linestyle=look.line if joined else "none", label=name,
                )  # fmt: skip
                foot = np.full(low.sum(), _LEAST)
                axis.plot(part["x"][low], foot, look.marker, color=look.colour, markerfacecolor="none")
                if not joined:
                    predicted = np.maximum(part["theory"], _LEAST)
                    axis.plot(part["x"], predicted, look.line, color=look.colour, linewidth=1.4)
            if panel.log_y and (rows["value"] < _LEAST).any():
                hollow = f"below {_LEAST:g}"
                axis.plot([], [], "o", color=PALE, markerfacecolor="none", label=hollow)
            if "theory" in rows and rows["theory"].notna().any():
                axis.plot([], [], color=PALE, label="lines: theory")
            if panel.line is not None:
                axis.axhline(panel.line, color=PALE, linewidth=1.0, linestyle=":")
            _scale(axis, panel)
            if len(told) > _MANY:  # they would cover what they name
                axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
            else:
                axis.legend(loc="best")
    return figure


def _scale(axis: Axes, panel: Panel) -> None:
    places = np.unique(panel.rows["x"].to_numpy(float))
    axis.set_title(panel.title, loc="left")
    axis.set_xlabel(panel.across)
    axis.set_ylabel(panel.up)
    if panel.log_y:
        axis.set_yscale("log")
        if (panel.rows["value"] < _LEAST).any():
            axis.set_ylim(bottom=0.7 * _LEAST)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        shown = panel.rows["value"][panel.rows["value"] >= _LEAST]
        if len(shown) and shown.max() < 100 * shown.min():
            axis.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    else:
        axis.set_ylim(bottom=min(0.0, float((panel.rows["value"] - 2 * panel.rows["se"].fillna(0)).min())))
    if panel.log_x:
        axis.set_xscale("log", base=2)
    where = np.log2(places) if panel.log_x else places
    kept: list[int] = []
    for index in reversed(range(len(places))):  # a number is left out where it would touch the next
        if not kept or where[kept[-1]] - where[index] >= 0.09 * (where[-1] - where[0]):
            kept.append(index)
    axis.set_xticks(places[kept], [f"{place:.2g}" if place < 1 else f"{place:g}" for place in places[kept]])
    axis.xaxis.set_minor_locator(NullLocator())
