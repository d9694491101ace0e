"""A locality graph as a figure: nodes and links, and beside them the mask of an attention."""

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from scipy.spatial import KDTree

from analysis.errors import printable
from analysis.plots.style import INK, NODES, drawing
from topology.families import Family, Graph, barbell, grid
from topology.mixing import Mixing

_MOST = 2000  # tokens; the dots of more would be smaller than a pixel
_ROW = 40  # tokens in a row of a path, which is folded when it is longer
_SPRINGS = 150  # tokens from which springs stand in for Kamada and Kawai's layout, whose time grows as N^3
_PANEL = 270.0  # points across the panel of nodes
_LINK = "#7f7f7f"
_MOST_NAMED = 40  # tokens; the names of more would cover each other
_LONGEST_NAME = 16  # letters

Places = Float[np.ndarray, "N 2"]
Link = Float[np.ndarray, "_ 2"]  # points along it


class Drawing(NamedTuple):
    """Where the tokens are drawn, and how the links between them run.

    Attributes:
        places: coordinates of each token.
        curve: `straight`; `inward`, bent to the centre of a circle; or `over`, in arcs above a line.
    """

    places: Places
    curve: str = "straight"


def graph_figure(
    graph: Graph, mixing: Mixing, caption: str, rounds: int = 1, names: Sequence[str] = ()
) -> Figure:
    """Who hears whom, as nodes and links and as a mask; colours tell how many tokens each averages over.

    The scale of the colours, from 1 to N, depends on N alone, so graphs of one size can be compared.

    Args:
        graph: an edge j -> i means that i hears j.
        mixing: with which weights; the mask is filled where they are positive.
        caption: what the graph is, below the panels.
        rounds: T of the effective number of tokens N_eff(i, T).
        names: of the nodes; they are written beside them, and along the mask, up to 40 tokens

    Raises:
        ValueError: if there are too many tokens to be seen.
    """
    size = graph.number_of_nodes()
    if size > _MOST:
        raise ValueError(
            f"a figure shows up to {_MOST:,} tokens; got {size:,}; topology.picture draws larger graphs"
        )
    labels = [_label(name) for name in names] if size <= _MOST_NAMED else []
    reached = mixing.effective(rounds)
    norm = LogNorm(1, max(size, 2))
    with drawing(9.6, 5.05, caption) as figure:
        nodes, mask = figure.subplots(1, 2)
        _draw_nodes(nodes, graph, reached, norm, labels)
        heard = np.broadcast_to(mixing.weights.toarray() > 0, (size, size))
        shown = np.ma.masked_where(~heard, np.broadcast_to(reached[:, None], (size, size)))
        image = mask.imshow(shown, cmap=NODES, norm=norm, interpolation="nearest")
        mask.set_xlabel("sender j")
        mask.set_ylabel("receiver i")
        mask.set_title("Attention mask", loc="left")
        mask.grid(visible=False)
        mask.spines[["top", "right"]].set_visible(True)
        for axis in (mask.xaxis, mask.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
            if size <= 64:  # white lines between the cells let a reader count them
                axis.set_ticks(np.arange(0.5, size - 1), minor=True)
        if labels:
            small = min(7.0, 0.7 * _PANEL / size)
            mask.set_xticks(range(size), labels, fontsize=small, rotation=90, parse_math=False)
            mask.set_yticks(range(size), labels, fontsize=small, parse_math=False)
        mask.grid(visible=True, which="minor", color="white", linewidth=0.5)
        mask.tick_params(which="minor", length=0)
        ticks = [2**power for power in range(size.bit_length())]
        ticks += [size] if size > 1.3 * ticks[-1] else []
        bar = figure.colorbar(image, ax=[nodes, mask], shrink=0.7, pad=0.02, ticks=ticks)
        bar.ax.set_yticks(ticks, [str(tick) for tick in ticks])
        bar.ax.minorticks_off()
        bar.set_label(f"N_eff after {rounds} round{'s' * (rounds > 1)} of averaging")
    return figure


def layout(graph: Graph) -> Drawing:
    """Where to draw each token: a shape that is known by its links gets the drawing that shows it best.

    Lines for paths and for causal graphs, a circle for rings, small worlds and complete graphs, rows and
    columns for grids, rays for trees and stars, two circles for barbells; otherwise springs.

    Args:
        graph: on the nodes 0..N-1.

    Example:
        >>> from topology.families import Family, star
        >>> layout(star(Family(5))).places[0].tolist() == [0, 0]
        True
    """
    size = graph.number_of_nodes()
    order = np.arange(size)
    if size < 3 or _is_causal(graph):
        return Drawing(np.stack([order, 0.0 * order], axis=1), "over" if _is_causal(graph) else "straight")
    links = graph.to_undirected()
    if nx.is_tree(links):
        largest = max(degree for _, degree in links.degree)
        return Drawing(_folded(links) if largest == 2 else _rays(links))
    family, edges = Family(size), set(graph.edges)
    if edges == set(grid(family).edges):
        columns = next(j for j in range(1, size) if not graph.has_edge(j - 1, j))
        return Drawing(np.stack([order % columns, -(order // columns)], axis=1).astype(float))
    if edges == set(barbell(family).edges):
        half = size // 2
        left = np.roll(_circle(half), -1, axis=0)  # so that the two tokens of the bridge face each other
        right = _circle(size - half) * [-1, 1] + [3.2, 0]
        return Drawing(np.concatenate([left, right]))
    if _is_ring_like(links):
        return Drawing(_circle(size)[:, ::-1], "inward")
    if size <= _SPRINGS and nx.is_connected(links):
        placed = nx.kamada_kawai_layout(links)
    else:
        placed = nx.spring_layout(links, seed=0)
    return Drawing(np.array([placed[node] for node in range(size)]))


def links_of(graph: Graph) -> tuple[Places, list[Link]]:
    """Where each token is drawn, and the points along each link.

    Args:
        graph: on the nodes 0..N-1.

    Example:
        >>> from topology.families import Family, star
        >>> places, links = links_of(star(Family(5)))
        >>> len(places), len(links)
        (5, 4)
    """
    places, curve = layout(graph)
    step = _neighbouring(places)
    drawn = {(min(edge), max(edge)) for edge in graph.edges if edge[0] != edge[1]}
    return places, [_run(places[a], places[b], curve, step) for a, b in sorted(drawn)]


def _neighbouring(places: Places) -> float:
    """Distance of tokens that are drawn side by side."""
    if len(places) < 2:
        return float(max(0.5, np.ptp(places, axis=0).max() / 2))
    return float(np.quantile(np.asarray(KDTree(places).query(places, k=2)[0])[:, 1], 0.1))


def _circle(size: int) -> Places:
    angle = 2 * np.pi * np.arange(size) / size
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _folded(links: "nx.Graph[int]") -> Places:
    """A path from end to end, turning round at the end of each row."""
    end = min(node for node, degree in links.degree if degree == 1)
    step = np.empty(len(links))
    step[list(nx.dfs_preorder_nodes(links, end))] = np.arange(len(links))
    row, column = step // _ROW, step % _ROW
    apart = min(6.0, _ROW / (1 + row.max()))
    return np.stack([np.where(row % 2 == 0, column, _ROW - 1 - column), -apart * row], axis=1)


def _rays(links: "nx.Graph[int]") -> Places:
    """A tree from its centre outwards, leaves at equal angles."""
    root = nx.center(links)[0]
    depth = nx.single_source_shortest_path_length(links, root)
    leaves = [n for n in nx.dfs_preorder_nodes(links, root) if links.degree(n) == 1 and n != root]
    angle = {leaf: 2 * np.pi * index / len(leaves) for index, leaf in enumerate(leaves)}
    for node in nx.dfs_postorder_nodes(links, root):
        below = [angle[child] for child in links[node] if depth[child] > depth[node]]
        if below:
            angle[node] = (min(below) + max(below)) / 2
    return np.array([depth[n] * np.array([np.cos(angle[n]), np.sin(angle[n])]) for n in range(len(links))])


def _is_causal(graph: Graph) -> bool:
    return graph.number_of_edges() > 0 and all(sender < receiver for sender, receiver in graph.edges)


def _is_ring_like(links: "nx.Graph[int]") -> bool:
    """Whether most links join near neighbours on the circle of positions, and more than chance would."""
    size, count = links.number_of_nodes(), links.number_of_edges()
    reach = max(1, round(count / size))
    if 2 * reach >= size - 1:
        return True
    near = sum(min((a - b) % size, (b - a) % size) <= reach for a, b in links.edges) / max(1, count)
    chance = 2 * reach / (size - 1)
    return (near - chance) / (1 - chance) > 0.6


def _run(start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"], curve: str, step: float) -> Link:
    """The points along a link; `step` is the distance of neighbours on the circle."""
    if curve == "straight":
        return np.stack([start, end])
    if curve == "over":
        turn = np.linspace(0, np.pi, 40)[:, None]
        middle, radius = (start + end) / 2, (end[0] - start[0]) / 2
        return middle + radius * np.concatenate([-np.cos(turn), np.sin(turn)], axis=1)
    # A chord to the next but one would lie under the token between: it is pulled to the centre.
    pull = min(0.5, max(0.0, float(np.linalg.norm(end - start)) - step))
    along = np.linspace(0, 1, 24)[:, None]
    control = (start + end) / 2 * (1 - pull)
    return (1 - along) ** 2 * start + 2 * along * (1 - along) * control + along**2 * end


def _opacity(lines: list[Link]) -> Float[np.ndarray, " links"]:
    """The clearer a link, the more others run where it runs: a bundle is grey, and a lone bridge is seen."""
    middles = np.array([line.mean(axis=0) for line in lines])
    near = 0.07 * np.ptp(np.concatenate(lines), axis=0).max()
    others = KDTree(middles).query_ball_point(middles, near, return_length=True)
    return np.clip(10 / np.asarray(others), 0.015, 0.9)


def _label(name: str) -> str:
    """A name as it is drawn: short, and of letters that the font has."""
    font = get_font(findfont(FontProperties()))
    text = "".join(
        letter if font.get_char_index(ord(letter)) else ascii(letter)[1:-1] for letter in printable(name)
    )
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _draw_nodes(
    axis: Axes, graph: Graph, reached: Float[np.ndarray, " N"], norm: LogNorm, labels: Sequence[str]
) -> None:
    places, curve = layout(graph)
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    half = max(0.5, float((places.max(axis=0) - places.min(axis=0)).max()) / 2)
    step = _neighbouring(places)
    diameter = float(np.clip(0.75 * step / (2 * half) * _PANEL, 2.5, 15))  # of a node, in points
    mutual = [(a, b) for a, b in graph.edges if a < b and graph.has_edge(b, a)]
    single = [(a, b) for a, b in graph.edges if not graph.has_edge(b, a)]
    links = mutual + single if curve == "over" else mutual
    count = len(mutual) + len(single)
    width = 0.5 if count > 300 else 0.9
    lines = [_run(places[a], places[b], curve, step) for a, b in links]
    if lines:
        drawn = LineCollection(lines, colors=_LINK, linewidths=width, alpha=_opacity(lines), zorder=1)
        axis.add_collection(drawn)
    axis.scatter(
        places[:, 0], places[:, 1], s=diameter**2, c=reached, cmap=NODES, norm=norm, zorder=3,
        edgecolors="white", linewidths=min(0.8, diameter / 10),
    )  # fmt: skip
    for place, label in zip(places, labels, strict=False):
        axis.annotate(
            label, place, (0, diameter / 2 + 1), textcoords="offset points", ha="center", va="bottom",
            fontsize=7, color=INK, zorder=4, parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    if curve == "over":
        axis.text(
            middle[0], -0.08 * half, "messages go to the right", ha="center", va="top", fontsize=9,
            color=INK,
        )  # fmt: skip
    else:
        for a, b in single:
            axis.add_patch(
                FancyArrowPatch(
                    tuple(places[a]), tuple(places[b]), arrowstyle="-|>", mutation_scale=8, color=_LINK,
                    linewidth=width, shrinkA=diameter / 2, shrinkB=diameter / 2, zorder=2,
                )
            )  # fmt: skip
    axis.set_xlim(middle[0] - 1.08 * half, middle[0] + 1.08 * half)
    axis.set_ylim(middle[1] - 1.08 * half, middle[1] + 1.08 * half)
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title("Who hears whom", loc="left")
