"""Figures of function vectors: what workspaces know, what queries ask, whose branch an answer follows."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.style import BLACK, GREY, SEQUENCE, as_cells, drawing

_MAP = mpl.colormaps["cividis"]
_DARK = 0.55  # shades below which numbers are white
_BARS, _CELLS = "; bars are 2 s.e.", "; ± is 1 s.e."


def probe_map(rows: pd.DataFrame, caption: str) -> Figure:
    """Accuracy of the linear probe, layer by layer and scale by scale, with its standard errors.

    Args:
        rows: columns of `probe_accuracy`.
        caption: the parameters, below the panel.
    """
    layers = sorted(rows["layer"].unique().tolist())
    # The control is a column of its own, behind the layers, from the last workspace.
    control = _control(rows, layers[-1], layers[-1] + 1)
    height = 1.5 + 0.75 * rows["scale"].nunique()
    with drawing(1.1 * len(layers) + 3.0, height, caption + _CELLS) as figure:
        axis = figure.subplots()
        names = [*(_name(layer) for layer in layers), f"{layers[-1]}, branches\nshuffled"]
        # A blind probe is right as often as chance: shades begin there.
        _map(axis, pd.concat([rows, control]), names, float(min(0.5, rows["chance"].min())))
        axis.axvline(len(layers) - 0.5, color="white", linewidth=5)
        axis.set_title("Linear probe of the branch from the workspace: accuracy", loc="left")
        axis.set_xlabel("after layer")
    return figure


def query_alignment(rows: pd.DataFrame, spread: pd.DataFrame, caption: str) -> Figure:
    """Alignment of queries with the node on the path, by layer and scale, and how much queries vary.

    Args:
        rows: columns of `alignment`, for one kind of path.
        spread: columns of `query_spread`.
        caption: the parameters, below the panels.
    """
    with drawing(9.6, 4.3, caption + _BARS) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
        handles = []
        own: dict[str, Any] = {"linestyle": "-"}
        other: dict[str, Any] = {"linestyle": ":", "markerfacecolor": "white"}
        for index, (scale, part) in enumerate(rows.groupby("scale")):
            colour, marker, *_ = SEQUENCE[index % 8]
            look: dict[str, Any] = {"color": colour, "marker": marker}
            # Side by side, for bars and points of several scales coincide near zero.
            across = part["layer"] + 0.06 * (index - 1)
            left.errorbar(across, part["value"], 2 * part["se"], capsize=3, zorder=3, **own, **look)
            left.errorbar(across, part["control"], 2 * part["control_se"], capsize=3, **other, **look)
            handles.append(Line2D([], [], label=f"scale {scale}", **look))
        handles.append(Line2D([], [], color=GREY, marker="o", label="own path", **own))
        handles.append(Line2D([], [], color=GREY, marker="o", label="query of another prompt", **other))
        left.set_ylim(-0.04, 1.06)
        left.set_ylabel("squared cosine of query and node")
        left.set_title("What a layer asks about", loc="left")
        right.errorbar(spread["layer"], spread["value"], 2 * spread["se"], color=BLACK, marker="o", capsize=3)
        right.set_ylim(-0.04, 1.0)
        right.set_ylabel("1 − largest eigenvalue of E[uu′]")
        right.set_title("Queries differ between prompts", loc="left")
        for axis in (left, right):
            axis.set_xticks(sorted(rows["layer"].unique().tolist()))
            axis.set_xlabel("layer")
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def patching_map(rows: pd.DataFrame, caption: str, pairs: str = "part") -> Figure:
    """Share of answers that take the donor's branch, by the layer that was patched and by scale.

    Args:
        rows: columns of `followed`, and tokens; one panel for each value of it.
        caption: the parameters, below the panels.
        pairs: which prompts: those that part from their donor at the scale, or differ there.
    """
    rows = rows[rows["pairs"] == pairs]
    layers = sorted(rows["layer"].unique().tolist())
    panels = list(dict.fromkeys(rows["tokens"]))
    titles = {"all": "all tokens patched", "one": "only the token that answers"}
    width = (0.85 * len(layers) + 1.6) * len(panels)
    with drawing(max(width, 8.0), 1.75 + 0.75 * rows["scale"].nunique(), caption + _CELLS) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, tokens in zip(axes, panels, strict=True):
            part = rows[rows["tokens"] == tokens]
            # The control is a column of its own, before the layers.
            names = ["none", *(_name(layer) for layer in layers)]
            _map(axis, pd.concat([_control(part, layers[0], -1), part]), names, 0.0)
            axis.axvline(0.5, color="white", linewidth=5)
            axis.set_xlabel("patched after layer")
            axis.set_title(titles.get(tokens, tokens), loc="left")
        kind = {
            "part": "part from their donor at that scale",
            "differ": "differ from their donor at that scale",
        }
        figure.suptitle(f"Answers with the donor's branch, of prompts that {kind[pairs]}", fontsize=10.5)
    return figure


def steering_curves(rows: pd.DataFrame, caption: str, value: str = "value") -> Figure:
    """How far answers move along a scale's axis, or how often they turn, against the strength of steering.

    Args:
        rows: columns of `steering_curve`, and layer.
        caption: the parameters, below the panels.
        value: value, the way moved; or turned, the share of answers in the target branch.
    """
    scales = sorted(rows["scale"].unique().tolist())
    control, error = ("control", "se") if value == "value" else ("control_turned", "turned_se")
    with drawing(3.1 * len(scales) + 1.0, 4.2, caption + _BARS) as figure:
        axes = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
        handles = []
        layers = sorted(rows["layer"].unique().tolist())
        for axis, scale in zip(axes, scales, strict=True):
            for index, layer in enumerate(layers):  # points get smaller, so that equal ones can be seen
                part = rows[(rows["scale"] == scale) & (rows["layer"] == layer)].sort_values("strength")
                colour, marker, *_ = SEQUENCE[index % 8]
                axis.errorbar(
                    part["strength"], part[value], 2 * part[error], color=colour, marker=marker,
                    markersize=max(3.0, 7.5 - 1.3 * index), capsize=2, zorder=3,
                )  # fmt: skip
                axis.errorbar(
                    part["strength"], part[control], 2 * part[f"{control}_se"], color=colour, linestyle=":",
                    linewidth=1.1,
                )  # fmt: skip
                if axis is axes[0]:
                    handles.append(Line2D([], [], color=colour, marker=marker, label=f"after layer {layer}"))
            axis.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--")
            axis.set_title(f"Scale {scale}", loc="left")
            axis.set_xlabel("strength (1 = difference of means)")
        words = {"value": "way to the other branch", "turned": "answers in the other branch"}
        axes[0].set_ylabel(words[value])
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="random direction"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _map(axis: Axes, rows: pd.DataFrame, names: Sequence[str], low: float) -> None:
    """A number with its standard error in each cell, scales downwards, layers across."""
    table = rows.pivot(index="scale", columns="layer", values=["value", "se"])
    values, errors = (table[column].to_numpy(dtype=float) for column in ("value", "se"))
    axis.imshow(np.ma.masked_invalid(values), cmap=_MAP, vmin=low, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = (value - low) / (1.0 - low) < _DARK
        error = errors[row, column]
        text = f"{value:.2f}\n±{error:.2f}" if np.isfinite(value) else "no pair"
        axis.text(column, row, text, ha="center", va="center", fontsize=9,
                  color="white" if dark else "black")  # fmt: skip
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(values)), [f"{scale}" for scale in sorted(rows["scale"].unique().tolist())])
    axis.set_ylabel("scale (1 = coarsest)")
    as_cells(axis)


def _control(rows: pd.DataFrame, layer: int, shown_at: int) -> pd.DataFrame:
    """The controls of one layer, as a column of the map."""
    control = rows[rows["layer"] == layer]
    return control.assign(layer=shown_at, value=control["control"], se=control["control_se"])


def _name(layer: int) -> str:
    return "start" if layer == 0 else str(layer)
