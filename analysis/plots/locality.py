"""Figures of locality: what a sparse graph costs in depth, and a short context in risk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from analysis.plots.style import (
    CELLS,
    GREY,
    SHADE,
    VERMILION,
    Look,
    as_cells,
    by_graph,
    draw_curve,
    drawing,
    handle,
    lowest,
    policy_look,
    scale_axes,
    source_handles,
)

_SHOWN = 12  # contexts at which there is a point


def locality_depth_diagram(rows: pd.DataFrame, caption: str, scales: int, policy: str = "gossip") -> Figure:
    """Risk against depth on each graph, and the same numbers as a diagram of graph and depth.

    The line in the diagram is at depth = scales x mixing time, but at least one round a scale: the cells to
    its right have that depth or more.

    Args:
        rows: columns source (theory or agents), family, degree, gap, mixing_time, policy, depth, risk,
            risk_se, limit (which no policy is below at that depth; NaN if unknown); one row for each source,
            graph and depth.
        caption: the parameters of the experiment, below the panels.
        scales: how many scales of the prior are resolved one after the other.
        policy: the policy that is shown.
    """
    rows = rows[(rows["policy"] == policy) & np.isfinite(rows["risk"])]
    rows = rows.sort_values(["mixing_time", "family", "degree", "depth"])
    graphs = by_graph(rows)
    floor = lowest(rows["risk"])
    depths = rows["depth"].nunique()
    with drawing(10.4, max(4.8, 2.1 + 0.42 * len(graphs)), caption) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1, min(1.8, 1 + 0.08 * depths)])
        for look, part in graphs:
            draw_curve(left, part, "depth", look, floor)
            bound = part[part["limit"] > 0].drop_duplicates("depth")
            left.plot(
                bound["depth"], bound["limit"], ":", color=look.colour, linewidth=1.1, zorder=1,
                label=f"{look.name}, limit",
            )  # fmt: skip
        scale_axes(left, rows, "depth", "depth (rounds)", floor)
        left.set_title("Risk against depth", loc="left")
        handles = [handle(look, part) for look, part in graphs] + source_handles(rows, floor)
        if (rows["limit"] > floor).any():
            handles.append(Line2D([], [], color=GREY, linestyle=":", label="light-cone limit"))
        below: dict[str, Any] = {"loc": "upper center", "columnspacing": 1.2, "handlelength": 1.6}
        left.legend(handles=handles, bbox_to_anchor=(0.46, -0.14), ncols=3, **below)
        right.set_title("Risk by graph and depth", loc="left")
        right.set_axis_off()
        if len(rows):
            right.set_axis_on()
            _diagram(right, graphs, scales, floor)
            edge = Line2D([], [], color=VERMILION, linewidth=2.2, label=f"depth = {scales} × mixing time")
            told = [name for name in ("agents", "theory") if (rows["source"] == name).any()]
            note = Line2D([], [], linestyle="none", label=f"numbers: {', small: '.join(told)}")
            right.legend(handles=[edge, note], bbox_to_anchor=(0.46, -0.14), ncols=2, **below)
    return figure


def risk_against_context(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk against the number of tokens heard: theory as lines, agents as points, transformers as diamonds.

    Args:
        rows: columns source (theory, agents, transformer or limit), policy, context, risk, risk_se.
        caption: the parameters of the experiment, below the panel.
    """
    rows = rows[np.isfinite(rows["risk"])].sort_values("context")
    limit, reached = rows[rows["source"] == "limit"], rows[rows["source"] != "limit"]
    floor = lowest(reached["risk"])
    if len(limit):  # it may fall far below what anyone reaches, and is followed for a decade
        floor = max(min(floor, lowest(limit["risk"])), 0.1 * floor)
    handles: list[Any] = []
    with drawing(8.8, 4.6, caption) as figure:
        axis = figure.subplots()
        for trained in (False, True):
            chosen = reached[(reached["source"] == "transformer") == trained]
            for policy in dict.fromkeys(chosen["policy"]):
                look = policy_look(policy, trained)
                part = chosen[chosen["policy"] == policy]
                theory, points = part[part["source"] == "theory"], part[part["source"] != "theory"]
                draw_curve(axis, pd.concat([theory, _thinned(points)]), "context", look, floor)
                handles.append(handle(look, part))
        if len(limit):
            axis.fill_between(limit["context"], 1e-12, limit["risk"], color=SHADE, linewidth=0, zorder=0.5)
            axis.plot(limit["context"], limit["risk"], color=GREY, linewidth=1.2, zorder=1, label="limit")
            handles.append(Patch(facecolor=SHADE, edgecolor=GREY, label="below the Bayes limit"))
        scale_axes(axis, rows, "context", "tokens heard, i + 1", floor)
        figure.legend(handles=handles + source_handles(reached, floor), loc="outside right center")
    return figure


def bottleneck(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk against rounds of averaging per scale, at one depth: few do not mix, many leave scales out.

    The best number is encircled and named in the legend: that of theory, or of agents where there is none.
    Where another is better for the agents, by three standard errors, it is named too.

    Args:
        rows: columns source (theory or agents), family, rounds_per_scale, risk, risk_se.
        caption: the parameters of the experiment, below the panel.
    """
    rows = rows[np.isfinite(rows["risk"])]
    floor = lowest(rows["risk"])
    handles: list[Any] = []
    with drawing(8.8, 4.6, caption) as figure:
        axis = figure.subplots()
        for look, part in by_graph(rows):
            draw_curve(axis, part, "rounds_per_scale", look, floor)
            theory, agents = (part[part["source"] == source] for source in ("theory", "agents"))
            best = _best(theory if len(theory) else agents)
            axis.plot(
                best["rounds_per_scale"], max(best["risk"], floor), "o", markersize=13, color=look.colour,
                markerfacecolor="none", markeredgewidth=1.4, zorder=4, clip_on=False,
                label=f"{look.name}, best",
            )  # fmt: skip
            name = f"{look.name}, best T = {best['rounds_per_scale']:g}"
            there = agents[agents["rounds_per_scale"] == best["rounds_per_scale"]]
            if len(theory) and len(there):
                ran, other = _best(there), _best(agents)
                # The least of a dozen noisy numbers is below the others by chance: three errors are asked.
                if ran["risk"] - other["risk"] > 3 * np.hypot(ran["risk_se"], other["risk_se"]):
                    name += f", of agents {other['rounds_per_scale']:g}"
            handles.append(handle(look._replace(name=name), part))
        scale_axes(axis, rows, "rounds_per_scale", "rounds of averaging per scale, T", floor)
        figure.legend(handles=handles + source_handles(rows, floor), loc="outside right center")
    return figure


def short(value: float) -> str:
    """Two significant digits without the leading zero, one below a thousandth: what fits in a cell.

    Example:
        >>> [short(value) for value in (1.0, 0.998, 0.114, 0.05, 0.0042, 0.00042, 0.0)]
        ['1.0', '1.0', '.11', '.050', '.0042', '4e-4', '0']
    """
    if value == 0 or not np.isfinite(value):
        return {np.inf: "∞"}.get(value, "0" if value == 0 else "–")
    if value < 0.000995:
        mantissa, power = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(power)}"
    if value >= 9.95:
        return f"{value:.0f}"
    places = 1 - int(np.floor(np.log10(float(f"{value:.1e}"))))
    return f"{value:.{places}f}".removeprefix("0")


def _best(rows: pd.DataFrame) -> dict[str, float]:
    """Rounds, risk and its error where the risk is least; the fewest rounds of equals."""
    row = rows.sort_values(["risk", "rounds_per_scale"]).iloc[0]
    return {name: float(row[name]) for name in ("rounds_per_scale", "risk", "risk_se")}


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows at about twelve contexts that are equally spaced on a log axis, the first and last among them."""
    contexts = np.unique(rows["context"].to_numpy(dtype=float))
    if len(contexts) <= _SHOWN:
        return rows
    targets = np.geomspace(contexts[0], contexts[-1], _SHOWN)
    nearest = np.abs(np.log(contexts[:, None] / targets)).argmin(axis=0)
    return rows[rows["context"].isin(contexts[nearest])]


def _diagram(axis: Axes, graphs: Sequence[tuple[Look, pd.DataFrame]], scales: int, floor: float) -> None:
    """A cell for each graph and depth: risk of the agents, which colours it, and theory's below, smaller."""
    depths = np.unique(np.concatenate([part["depth"] for _, part in graphs]))
    agents, theory = (
        np.array([_risks(part, source).reindex(depths) for _, part in graphs], dtype=float)
        for source in ("agents", "theory")
    )
    norm, colours = LogNorm(floor, 1.0, clip=True), CELLS
    known = np.where(np.isfinite(agents), agents, theory)
    axis.imshow(np.ma.masked_invalid(np.maximum(known, floor)), cmap=colours, norm=norm, aspect="auto")
    size = 8.5 if len(depths) <= 10 else 7.5
    above = (0, 4) if np.isfinite(theory).any() else (0, 0)
    below, small = ((0, -6), 0.8 * size) if np.isfinite(agents).any() else ((0, 0), size)
    for row, column in np.ndindex(agents.shape):
        risk, expected = float(agents[row, column]), float(theory[row, column])
        red, green, blue = colours(norm(np.maximum(known[row, column], floor)))[:3]
        ink = "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else "white"
        centred: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": ink,
            "textcoords": "offset points",
        }
        if np.isfinite(risk):
            axis.annotate(short(risk), (column, row), above, fontsize=size, gid="agents", **centred)
        if np.isfinite(expected):
            axis.annotate(short(expected), (column, row), below, fontsize=small, gid="theory", **centred)
    gaps = [float(part["gap"].iloc[0]) for _, part in graphs]
    times = np.array([float(part["mixing_time"].iloc[0]) for _, part in graphs])
    # At least one round a scale: even a graph that mixes at once asks about one scale after the other.
    needed = scales * np.maximum(1.0, np.nan_to_num(times, nan=np.inf, posinf=np.inf))
    edges = np.searchsorted(depths, needed) - 0.5
    axis.plot(
        np.repeat(edges, 2), (np.arange(len(edges))[:, None] + [-0.5, 0.5]).ravel(), color=VERMILION,
        linewidth=2.2, path_effects=[withStroke(linewidth=4, foreground="white")], clip_on=False, zorder=5,
        label="mixing",
    )  # fmt: skip
    names = [
        f"{look.name}\ngap {short(gap)}, time {short(time)}"
        for (look, _), gap, time in zip(graphs, gaps, times, strict=True)
    ]
    axis.set_xticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axis.set_yticks(range(len(graphs)), names, fontsize=8.5)
    axis.set_xlabel("depth (rounds)")
    as_cells(axis)


def _risks(rows: pd.DataFrame, source: str) -> "pd.Series[float]":
    """Risk of one source by depth."""
    return rows[rows["source"] == source].set_index("depth")["risk"]
