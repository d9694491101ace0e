"""Risk against depth: theory, agents and transformers, a panel for each prior."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.plots.style import (
    POLICIES,
    TITLES,
    TRANSFORMERS,
    draw_curve,
    drawing,
    handle,
    policy_look,
    scale_axes,
)

_SHOWN = {
    "tree": ("adaptive", "static codes, no cv", "static pooled, no cv"),
    "matched_gaussian": ("adaptive", "static codes"),
}


def risk_against_depth(rows: pd.DataFrame, caption: str) -> Figure:
    """Risk by depth: theory as lines, agents as points with error bars, transformers as diamonds.

    Args:
        rows: columns source, prior, policy, depth, risk, risk_se, as `compare` gives them.
        caption: the parameters of the experiment, below the panels.
    """
    priors = list(dict.fromkeys(rows["prior"]))
    floor = max(1e-3, 0.5 * float(rows.loc[rows["risk"] > 0, "risk"].min()))
    with drawing(4.6 * len(priors) + 0.6, 4.6, caption) as figure:
        axes = figure.subplots(1, len(priors), squeeze=False)[0]
        for axis, prior in zip(axes, priors, strict=True):
            _panel(axis, rows[rows["prior"] == prior], prior, floor)
        for axis in axes[1:]:
            axis.set_ylabel("")
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, prior: str, floor: float) -> None:
    handles: list[Line2D] = []
    shown = [name for name in _SHOWN.get(prior, ()) if name in set(rows["policy"])]
    agents = rows[rows["source"].isin(["theory", "agents"])]
    for policy in shown or [name for name in dict.fromkeys(agents["policy"]) if name in POLICIES]:
        look, part = policy_look(policy), agents[agents["policy"] == policy]
        draw_curve(axis, part, "depth", look, floor)
        handles.append(handle(look, part))
    for policy, look in TRANSFORMERS.items():
        part = rows[(rows["source"] == "transformer") & (rows["policy"] == policy)]
        if len(part):
            draw_curve(axis, part.assign(depth=part["depth"] + 0.09), "depth", look, floor)
            handles.append(handle(look, part))
    scale_axes(axis, rows, "depth", "depth (rounds)", floor)
    axis.set_title(TITLES.get(prior, prior), loc="left")
    axis.legend(handles=handles, loc="lower left")
