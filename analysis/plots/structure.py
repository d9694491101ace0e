"""Figures of the paper's question: depth, and the gain of adaptivity, against the structure of the prior."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.style import BLUE, GREY, SEQUENCE, drawing

AXIS_NAMES = {
    "prior.levels": "levels D",
    "prior.branching": "branching r",
    "prior.decay": "decay ρ",
    "prior.jitter": "jitter",
    "prior.dim": "dimension d",
}
_POINTS: dict[str, Any] = {"fmt": "o-", "color": BLUE, "capsize": 3, "markersize": 5}


def depth_against_structure(tables: Mapping[str, pd.DataFrame], level: float, caption: str) -> Figure:
    """Depth at which the adaptive risk falls under a level, one panel for each key that is varied.

    Args:
        tables: by the panel's title, columns of `structure.depth_needed`.
        level: the level of the risk.
        caption: what is held fixed, below the panels.
    """
    with drawing(9.2, 6.4, caption) as figure:
        panels = figure.subplots(2, 2).ravel()
        for axis, (title, table) in zip(panels, tables.items(), strict=True):
            reached = table[np.isfinite(table["depth"])]
            low, high = reached["low"].clip(lower=0), reached["high"].replace(np.inf, np.nan)
            bars = [reached["depth"] - low, (high - reached["depth"]).fillna(0)]
            axis.errorbar(reached["value"], reached["depth"], np.abs(bars), **_POINTS)
            missed = table[~np.isfinite(table["depth"])]
            for value in missed["value"]:
                axis.annotate(
                    "not\nreached", (value, 0.25), ha="center", va="bottom", color=GREY, fontsize=7.5
                )
            axis.set_xlim(*_padded(table["value"]))
            axis.set_ylim(0, 1.15 * max(1.0, float(reached["depth"].max(skipna=True) or 1.0)))
            axis.set_xlabel(AXIS_NAMES.get(str(table["key"].iloc[0]), str(table["key"].iloc[0])))
            axis.set_ylabel(f"rounds to risk {level:g}")
            axis.set_title(title, loc="left")
            if all(float(value).is_integer() for value in table["value"]):
                axis.set_xticks(table["value"])
    return figure


def gain_against_structure(tables: Mapping[str, tuple[str, pd.DataFrame]], caption: str) -> Figure:
    """Static over adaptive risk, one panel for each way from a tree to a Gaussian.

    Args:
        tables: by the panel's title, the key on the x-axis and columns of `structure.gain_of_adaptivity`.
        caption: what is held fixed, below the panels.
    """
    with drawing(9.2, 3.9, caption) as figure:
        panels = figure.subplots(1, len(tables), squeeze=False)[0]
        for axis, (title, (key, table)) in zip(panels, tables.items(), strict=True):
            axis.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
            axis.errorbar(table[key], table["ratio"], 2 * table["ratio_se"], **_POINTS)
            axis.set_yscale("log")
            _plain_log(axis)
            axis.set_xlabel(AXIS_NAMES.get(key, key))
            axis.set_title(title, loc="left")
        panels[0].set_ylabel("risk of static / adaptive")
    return figure


def pooled_against_tokens(table: pd.DataFrame, caption: str) -> Figure:
    """Risk of pooled questions against N: they fail below the N where their signal sinks into noise.

    Args:
        table: columns of `structure.pooled_failure`.
        caption: what is held fixed, below the panel.
    """
    with drawing(8.2, 4.6, caption) as figure:
        axis = figure.subplots()
        handles = []
        for (colour, *_), (levels, part) in zip(SEQUENCE, table.groupby("levels"), strict=False):
            for policy, line in (("static pooled, no cv", "-"), ("adaptive", ":")):
                rows = part[part["policy"] == policy]
                risk = rows["risk"].clip(lower=1e-4)
                axis.errorbar(
                    rows["tokens"], risk, 2 * rows["risk_se"], color=colour, linestyle=line,
                    marker="o" if line == "-" else None, markersize=4, capsize=2,
                )  # fmt: skip
            axis.axvline(float(part["threshold"].iloc[0]), color=colour, linewidth=0.8, linestyle="--")
            handles.append(Line2D([], [], color=colour, marker="o", markersize=4, label=f"{levels} levels"))
        handles += [
            Line2D([], [], color=GREY, linestyle="-", label="static pooled"),
            Line2D([], [], color=GREY, linestyle=":", label="adaptive"),
            Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="signal-to-noise ratio 1"),
        ]
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_ylim(0.8e-4, 1.5)
        counts = sorted(table["tokens"].unique())
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_xlabel("token positions N")
        axis.set_ylabel("excess risk / E|w|² after D rounds")
        figure.legend(handles=handles, loc="outside right center")
    return figure


def _padded(values: "pd.Series[float]") -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _plain_log(axis: Axes) -> None:
    """Numbers, not powers of ten, on a log axis that spans a decade or so."""
    low, high = axis.get_ylim()
    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 50, 100) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
