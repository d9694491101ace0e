"""The one style of all figures: palette, looks of what is drawn, captions, axes of risk.

Colours are told apart by the colour-blind, markers tell curves apart without colour.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

# P. Okabe and K. Ito, Color universal design (2008), and some more that differ from them in lightness.
BLACK, BLUE, SKY, GREEN, ORANGE = "#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILION, PINK, OLIVE, VIOLET, BROWN = "#D55E00", "#CC79A7", "#857A00", "#6A3D9A", "#7B3F00"
GREY, PALE, SHADE, INK = "#777777", "#a8a8a8", "#e2e2e2", "#555555"
CELLS = mpl.colormaps["viridis"]  # of numbers in cells
# The bright end is left out: it would be pale on white.
NODES = LinearSegmentedColormap.from_list("nodes", CELLS(np.linspace(0, 0.9, 256)))
_FLOOR = 1e-4  # of the axis of risk; what is lower is drawn at its foot


class Look(NamedTuple):
    """How the points of one family or policy are drawn.

    Attributes:
        colour: of line and points.
        marker: matplotlib's letter.
        hollow: whether the points are white inside.
        name: in the legend.
        overlaid: drawn as large open points and a dashed line, through which a coinciding curve is seen.
    """

    colour: str
    marker: str
    hollow: bool = False
    name: str = ""
    overlaid: bool = False

    @property
    def face(self) -> str:
        """Colour of the inside of a point."""
        return "none" if self.overlaid else "white" if self.hollow else self.colour

    @property
    def line(self) -> Literal["-", "--"]:
        """Style of the line."""
        return "--" if self.overlaid else "-"


# In a fixed order, where things are told apart by their number alone: scales, layers, levels.
SEQUENCE = tuple(
    Look(*pair)
    for pair in zip((BLUE, GREEN, VERMILION, PINK, ORANGE, SKY, BLACK, OLIVE), "os^DvPXh", strict=True)
)
FAMILIES = {
    "complete": Look(BLACK, "o"),
    "random_regular": Look(BLUE, "s"),
    "erdos_renyi": Look(SKY, "D"),
    "small_world": Look(GREEN, "^"),
    "grid": Look(ORANGE, "P"),
    "ring": Look(VERMILION, "v"),
    "star": Look(PINK, "*"),
    "tree": Look(OLIVE, "h"),
    "barbell": Look(GREY, "X"),
    "path": Look(VIOLET, "<"),
    "causal": Look(BROWN, "p"),
}
POLICIES = {
    "adaptive": Look(BLUE, "o"),
    "adaptive widest": Look(SKY, "v"),
    "adaptive level": Look(OLIVE, ">"),
    "adaptive, own example": Look(GREEN, "P"),
    "static codes": Look(VERMILION, "s", overlaid=True),
    "static codes, no cv": Look(VERMILION, "s"),
    "static pooled, no cv": Look(GREEN, "^"),
    "static": Look(VERMILION, "P"),
    "gossip": Look(SKY, "s"),
    "gradient": Look(BLACK, "^"),
    "flood": Look(GREEN, "v"),
}
TRANSFORMERS = {
    "feedforward": Look(PINK, "D", True, "transformer with feedforward"),
    "linear": Look(ORANGE, "D", True, "transformer without feedforward"),
    "transformer": Look(PINK, "D", True, "transformer"),
}
VARIANTS = {
    "full": Look(BLUE, "D"),
    "no feedforward": Look(ORANGE, "s"),
    "constant queries": Look(VERMILION, "^"),
    "neither": Look(OLIVE, "P"),
    "no control variate": Look(GREEN, "v"),
    "looped": Look(PINK, "o"),
}
_SPARE = (
    Look("#8B1A1A", "d"), Look("#1B4965", ">"), Look("#4F772D", "H"), Look("#5F5F5F", "8"), Look(VIOLET, "X"),
    Look(BROWN, "p"),
)  # fmt: skip
TITLES = {"tree": "Tree prior", "matched_gaussian": "Null: matched Gaussian", "gaussian": "Gaussian prior"}


@contextmanager
def style() -> Iterator[None]:
    """The one style of all figures."""
    settings: dict[str, object] = {
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
    with mpl.rc_context(settings):  # type: ignore[arg-type]  # its keys are a Literal
        yield


def policy_look(policy: str, trained: bool = False) -> Look:
    """Colour and marker of a policy; diamonds, white inside, for what is trained.

    Example:
        >>> policy_look("adaptive").colour, policy_look("linear", trained=True).name
        ('#0072B2', 'transformer without feedforward')
    """
    if trained:
        return TRANSFORMERS.get(policy, Look(GREY, "D", True, f"transformer {policy}"))
    return POLICIES.get(policy, Look(GREY, "o"))._replace(name=policy)


def variant_looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each variant of a transformer, none of them twice."""
    spare = iter(_SPARE * len(names))
    return {name: (VARIANTS.get(name) or next(spare))._replace(name=name) for name in names}


def by_graph(rows: pd.DataFrame) -> list[tuple[Look, pd.DataFrame]]:
    """The rows of each graph, in order of appearance, with a look that no other graph has.

    Args:
        rows: columns family, and degree if a family has graphs of several degrees, which are then named.

    Example:
        >>> rows = pd.DataFrame({"family": ["ring", "ring", "small_world"], "degree": [2, 4, 4]})
        >>> [look.name for look, _ in by_graph(rows)]
        ['ring, degree 2', 'ring, degree 4', 'small world']
    """
    keys = ["family", "degree"] if "degree" in rows else ["family"]
    parts = [part for _, part in rows.groupby(keys, sort=False, dropna=False)]
    families = [str(part["family"].iloc[0]) for part in parts]
    spare = iter(_SPARE * len(parts))
    looks = []
    for index, (family, part) in enumerate(zip(families, parts, strict=True)):
        known = family in FAMILIES and family not in families[:index]
        several = families.count(family) > 1
        name = family.replace("_", " ") + (f", degree {part['degree'].iloc[0]:g}" if several else "")
        looks.append((FAMILIES[family] if known else next(spare))._replace(name=name))
    return list(zip(looks, parts, strict=True))


@contextmanager
def drawing(width: float, height: float, caption: str) -> Iterator[Figure]:
    """A figure in the one style, with a caption below the panels that is broken where it is too long."""
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.supxlabel(fill(caption, int(14.5 * width)), fontsize=8, color=INK)
        figure.draw_without_rendering()  # panels of a fixed shape find their place in the second pass


def draw_curve(axis: Axes, rows: pd.DataFrame, x: str, look: Look, floor: float) -> None:
    """Theory as a line, all else as points with bars of two standard errors; what is below the floor, at it.

    Args:
        axis: where to draw.
        rows: columns source, `x`, risk, risk_se.
        x: the column across.
        look: of line and points.
        floor: lower end of the axis of risk.
    """
    theory = rows[rows["source"] == "theory"].sort_values(x)
    points = rows[rows["source"] != "theory"].sort_values(x)
    axis.plot(
        theory[x], theory["risk"], look.line, color=look.colour, linewidth=1.6, zorder=2,
        label=f"{look.name}, theory",
    )  # fmt: skip
    axis.errorbar(
        points[x], points["risk"], 2 * points["risk_se"], color=look.colour, marker=look.marker,
        markersize=_size(look), markerfacecolor=look.face, linestyle="none",
        capsize=2.5, zorder=3, label=look.name,
    )  # fmt: skip
    lower = points[points["risk"] < floor]
    axis.plot(
        lower[x], np.full(len(lower), 0.02), marker=look.marker, color=look.colour, markersize=_size(look),
        markerfacecolor="none", linestyle="none", transform=axis.get_xaxis_transform(),
        label=f"{look.name}, below the axis",
    )  # fmt: skip


def handle(look: Look, rows: pd.DataFrame) -> Line2D:
    """The look in a legend: a line if the rows have theory, a point if they have anything else."""
    line, point = (rows["source"] == "theory").any(), (rows["source"] != "theory").any()
    return Line2D(
        [], [], color=look.colour, linestyle=look.line if line else "none", label=look.name,
        marker=look.marker if point else "none", markersize=_size(look),
        markerfacecolor=look.face,
    )  # fmt: skip


def source_handles(rows: pd.DataFrame, floor: float) -> list[Line2D]:
    """What lines, points, and points at the foot of the axis mean, as far as there are such."""
    handles = []
    if (rows["source"] == "theory").any():
        handles.append(Line2D([], [], color=PALE, label="theory"))
    if (rows["source"] == "agents").any():
        handles.append(
            Line2D([], [], color=PALE, marker="o", linestyle="none", markersize=5, label="agents ± 2 s.e.")
        )
    if ((rows["source"] != "theory") & (rows["risk"] < floor)).any():
        handles.append(
            Line2D([], [], color=PALE, marker="o", linestyle="none", markersize=5, markerfacecolor="none",
                   label=f"below {floor:.2g}")
        )  # fmt: skip
    return handles


def lowest(risk: "pd.Series[float]") -> float:
    """Lower end of an axis that shows these risks, but for those that are tiny.

    Example:
        >>> lowest(pd.Series([0.5, 0.0])), lowest(pd.Series([0.5, 1e-9]))
        (0.3, 0.0001)
    """
    positive = risk[risk > 0]
    return max(_FLOOR, 0.6 * float(positive.min())) if len(positive) else _FLOOR


def log_axis(axis: Axes) -> None:
    """A logarithmic axis upwards, with plain numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def as_cells(axis: Axes) -> None:
    """Nothing but names around an image whose cells are read one by one."""
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def scale_axes(axis: Axes, rows: pd.DataFrame, x: str, label: str, floor: float) -> None:
    """Risk on a logarithmic axis; across, the counts that occur, logarithmic too where they grow eightfold.

    Args:
        axis: whose scales are set.
        rows: columns `x` and risk.
        x: the column across.
        label: of the axis across.
        floor: lower end of the axis of risk.
    """
    log_axis(axis)
    axis.set_ylim(floor, 1.3 * max(1.0, float(rows["risk"].max() if len(rows) else 1.0)))
    axis.set_ylabel("excess risk / E|w|²")
    axis.set_xlabel(label)
    counts = np.unique(rows[x].to_numpy(dtype=float))
    if not len(counts):
        return
    places = counts
    if counts[0] > 0 and counts[-1] >= 8 * counts[0]:
        axis.set_xscale("log", base=2)
        places = np.log2(counts)
    # A number is left out where it would touch the next; of very many, the powers of two are shown.
    kept: list[int] = []
    for index, place in reversed(list(enumerate(places))):
        regular = len(counts) <= 16 or places is counts or place == int(place)
        if regular and (not kept or places[kept[-1]] - place >= 0.07 * (places[-1] - places[0])):
            kept.append(index)
    axis.set_xticks(counts[kept], [f"{count:g}" for count in counts[kept]])
    axis.xaxis.set_minor_locator(NullLocator())


def _size(look: Look) -> float:
    if look.overlaid:
        return 9.0
    return {"*": 9.0, "P": 6.5, "X": 6.5, "D": 5.0, "s": 5.0}.get(look.marker, 5.8)
