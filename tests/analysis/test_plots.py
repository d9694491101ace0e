"""Figures of locality draw the numbers of their frames, whatever part of them there is."""

from functools import cache
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from analysis.plots.graph import graph_figure, layout
from analysis.plots.locality import bottleneck, locality_depth_diagram, risk_against_context, short
from analysis.plots.style import FAMILIES as LOOKS
from analysis.plots.style import by_graph
from runner.storage.files import write_figure
from topology.families import FAMILIES, Family, Graph
from topology.metrics import Reach, reach
from topology.mixing import everyone, uniform, weigh

CAPTION = "N = 64, D = 3, ρ = 0.8, σ = 0.1, K = 1, b = 16 bits, c = 8, τ = 0; " * 3
KINDS = ["complete", "random_regular", "small_world", "grid", "ring", "star", "barbell", "path"]
DEPTHS = [3, 6, 9, 12, 24]
POLICIES = ["adaptive", "gossip", "gradient", "static codes, no cv"]


@cache
def reaches() -> dict[str, tuple[float, Reach]]:
    """Degree and reach of each family."""
    graphs = {kind: FAMILIES[kind](Family(64)) for kind in KINDS}
    return {
        kind: (graph.number_of_edges() / 64, reach(graph, weigh(graph, "metropolis")))
        for kind, graph in graphs.items()
    }


def frame_of_depths() -> pd.DataFrame:
    """Risk falls with depth over mixing time; the numbers are made up, and all differ."""
    rows = []
    for kind, (degree, found) in reaches().items():
        for depth in DEPTHS:
            for source, factor in (("theory", 1.0), ("agents", 1.07)):
                risk = factor / (1 + depth / max(1.0, found.mixing_time)) ** 1.3
                rows.append((source, kind, degree, *found, "gossip", depth, 2, risk))
    columns = ["source", "family", "degree", "diameter", "gap", "mixing_time", "policy", "depth"]
    frame = pd.DataFrame(rows, columns=[*columns, "rounds_per_scale", "risk"])
    frame["risk_se"] = np.where(frame["source"] == "agents", 0.03 * frame["risk"], 0.0)
    frame["limit"] = np.where(frame["family"] == "path", 0.3 / frame["depth"], np.nan)
    other = frame.assign(policy="adaptive", risk=0.99)
    return pd.concat([other, frame], ignore_index=True)


def frame_of_contexts() -> pd.DataFrame:
    rows = []
    for context in range(1, 65):
        for index, policy in enumerate(POLICIES):
            risk = 1 / (1 + context / (3 + index)) ** 1.5
            rows += [("theory", policy, context, risk, 0.0), ("agents", policy, context, 1.05 * risk, 0.01)]
        rows += [("transformer", "feedforward", context, 1 / (1 + context / 3.5) ** 1.5, 0.01)]
        rows += [("limit", "bayes", context, float(np.exp(-context / 4)), 0.0)]
    return pd.DataFrame(rows, columns=["source", "policy", "context", "risk", "risk_se"])


def frame_of_rounds() -> pd.DataFrame:
    """Risk is least at T = 2, 3, 4, ... for the families in turn."""
    rows = []
    for index, kind in enumerate(KINDS):
        for count in range(1, 13):
            risk = 0.05 * (1 + index) * np.exp(0.1 * (count - 2 - index) ** 2 / (1 + 0.2 * count))
            rows += [("theory", kind, count, risk, 0.0), ("agents", kind, count, 1.02 * risk, 0.01 * risk)]
    return pd.DataFrame(rows, columns=["source", "family", "rounds_per_scale", "risk", "risk_se"])


def legend(figure: Figure) -> list[str]:
    found = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    return [text.get_text() for one in found if one is not None for text in one.get_texts()]


def drawn(axis: Axes, label: str) -> np.ndarray:
    """Points of the line, or of the line through the points, with a label [points, 2]."""
    lines = [line for line in axis.get_lines() if line.get_label() == label]
    lines += [bars.lines[0] for bars in axis.containers if bars.get_label() == label]  # type: ignore[attr-defined]
    (line,) = lines
    return np.asarray(line.get_xydata())


def bars(axis: Axes, label: str) -> np.ndarray:
    """Lengths of the error bars to one side, for a label."""
    (container,) = [one for one in axis.containers if one.get_label() == label]
    (lines,) = container.lines[2]  # type: ignore[attr-defined]
    return np.array([np.ptp(path.vertices[:, 1]) / 2 for path in lines.get_paths()])


def cells(axis: Axes, source: str) -> dict[tuple[int, int], str]:
    """Texts of the diagram by row and column."""
    texts = [text for text in axis.texts if isinstance(text, Annotation) and text.get_gid() == source]
    return {(round(text.xy[1]), round(text.xy[0])): text.get_text() for text in texts}


def fits(figure: Figure) -> None:
    """It can be drawn, and nothing runs out of it."""
    figure.canvas.draw()
    extent, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(extent.x0, extent.y0) > -0.01
    assert extent.x1 < width + 0.01
    assert extent.y1 < height + 0.01


def is_saved(figure: Figure, folder: Path) -> None:
    assert write_figure(figure, folder, "figure").stat().st_size > 10_000
    assert (folder / "figure.svg").is_file()
    fits(figure)


def apart(places: np.ndarray) -> bool:
    """Whether no token hides another."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)[~np.eye(len(places), dtype=bool)]
    return bool(distances.min() > 0.002 * distances.max())


def test_the_diagram_draws_the_numbers_of_its_frame(tmp_path: Path) -> None:
    frame = frame_of_depths()
    figure = locality_depth_diagram(frame, CAPTION, scales=3)
    left, right = figure.axes
    is_saved(figure, tmp_path)
    names = {kind: kind.replace("_", " ") for kind in KINDS}
    assert set(names.values()) < set(legend(figure))
    shown = frame[frame["policy"] == "gossip"]
    for kind, name in names.items():
        for source, label in (("theory", f"{name}, theory"), ("agents", name)):
            rows = shown[(shown["family"] == kind) & (shown["source"] == source)]
            np.testing.assert_array_equal(drawn(left, label), rows[["depth", "risk"]])
        np.testing.assert_allclose(bars(left, name), 2 * rows["risk_se"])
    np.testing.assert_allclose(drawn(left, "path, limit")[:, 1], 0.3 / np.array(DEPTHS))
    order = shown.drop_duplicates("family").sort_values("mixing_time")["family"].tolist()
    for source in ("theory", "agents"):
        rows = shown[shown["source"] == source]
        expected = {
            (order.index(kind), DEPTHS.index(depth)): short(risk)
            for kind, depth, risk in zip(rows["family"], rows["depth"], rows["risk"], strict=True)
        }
        assert cells(right, source) == expected
    labels = [text.get_text().split("\n")[0] for text in right.get_yticklabels()]
    assert labels == [names[kind] for kind in order]
    assert right.get_yticklabels()[0].get_text() == "complete\ngap 1.0, time 0"


def test_cells_right_of_the_line_have_depth_for_their_mixing_time() -> None:
    frame = frame_of_depths()
    line = drawn(locality_depth_diagram(frame, CAPTION, scales=3).axes[1], "mixing")
    times = np.sort(frame.drop_duplicates("family")["mixing_time"])
    for row, time in enumerate(times):
        (edge,) = set(line[2 * row : 2 * row + 2, 0])
        assert [column > edge for column in range(len(DEPTHS))] == [
            depth >= 3 * max(1, time) for depth in DEPTHS
        ]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[rows["source"] == "agents"],
        lambda rows: rows[rows["source"] == "theory"],
        lambda rows: rows[rows["policy"] == "adaptive"],
        lambda rows: rows[:0],
        lambda rows: rows[~((rows["family"] == "grid") & (rows["depth"] == 9))],
        lambda rows: rows.assign(risk=np.where(rows["depth"] > 9, 0.0, rows["risk"])),
        lambda rows: rows.assign(risk=0.0, risk_se=0.0),
        lambda rows: rows.assign(risk_se=np.nan),
        lambda rows: rows.assign(limit=np.nan, diameter=None),
        lambda rows: rows.assign(mixing_time=np.inf, gap=0.0),
        lambda rows: rows.assign(risk=np.where(rows["depth"] > 9, np.nan, rows["risk"])),
        lambda rows: rows[rows["depth"] == 3],
        lambda rows: rows[rows["family"] == "ring"].assign(family="file"),
        lambda rows: rows.assign(depth=rows["depth"] - 3),
    ],
)
def test_a_diagram_of_part_of_a_frame_is_drawn(change: object) -> None:
    frame = change(frame_of_depths())  # type: ignore[operator]
    figure = locality_depth_diagram(frame, CAPTION, scales=3)
    fits(figure)
    shown = frame[(frame["policy"] == "gossip") & np.isfinite(frame["risk"])]
    for source in ("agents", "theory"):
        rows = shown[shown["source"] == source].drop_duplicates(["family", "degree", "depth"])
        assert sorted(cells(figure.axes[1], source).values()) == sorted(map(short, rows["risk"]))


def test_a_risk_below_the_axis_is_drawn_at_its_foot() -> None:
    frame = frame_of_depths()
    frame.loc[(frame["family"] == "grid") & (frame["depth"] == 24), "risk"] = 0.0
    figure = locality_depth_diagram(frame, CAPTION, scales=3)
    np.testing.assert_array_equal(drawn(figure.axes[0], "grid, below the axis")[:, 0], [24])
    assert len(drawn(figure.axes[0], "ring, below the axis")) == 0
    assert any(text.startswith("below ") for text in legend(figure))
    assert "0" in cells(figure.axes[1], "agents").values()


def test_graphs_of_one_family_are_told_apart_by_degree() -> None:
    rows = pd.DataFrame({"family": ["ring", "ring", "grid", "file"], "degree": [2.0, 8.0, 3.5, 4.0]})
    looks = [look for look, _ in by_graph(rows)]
    assert [look.name for look in looks] == ["ring, degree 2", "ring, degree 8", "grid", "file"]
    assert len({(look.colour, look.marker) for look in looks}) == 4
    assert len({look.marker for look in LOOKS.values()}) == len(LOOKS)


def test_contexts_are_drawn_with_all_of_theory_and_a_dozen_points(tmp_path: Path) -> None:
    frame = frame_of_contexts()
    figure = risk_against_context(frame, CAPTION)
    (axis,) = figure.axes
    is_saved(figure, tmp_path)
    assert {*POLICIES, "transformer with feedforward", "below the Bayes limit"} < set(legend(figure))
    for policy in POLICIES:
        rows = frame[frame["policy"] == policy].set_index(["source", "context"])["risk"]
        theory = drawn(axis, f"{policy}, theory")
        np.testing.assert_array_equal(theory[:, 1], rows["theory"])
        points = drawn(axis, policy)
        assert 8 <= len(points) <= 12
        assert (points[0, 0], points[-1, 0]) == (1, 64)
        np.testing.assert_array_equal(points[:, 1], rows["agents"].loc[points[:, 0].astype(int)])
        np.testing.assert_allclose(bars(axis, policy), 0.02)
    limit = frame[frame["source"] == "limit"]
    np.testing.assert_array_equal(drawn(axis, "limit"), limit[["context", "risk"]])


@pytest.mark.parametrize("source", ["theory", "agents", "transformer", "limit"])
def test_contexts_are_drawn_without_one_source_and_with_it_alone(source: str) -> None:
    frame = frame_of_contexts()
    for rows in (frame[frame["source"] != source], frame[frame["source"] == source], frame[:0]):
        fits(risk_against_context(rows.assign(risk_se=np.nan), CAPTION))
    fits(risk_against_context(frame.assign(risk=0.0, policy="unheard of"), CAPTION))


def test_the_best_number_of_rounds_is_encircled_and_named(tmp_path: Path) -> None:
    frame = frame_of_rounds()
    figure = bottleneck(frame, CAPTION)
    (axis,) = figure.axes
    is_saved(figure, tmp_path)
    for kind, rows in frame[frame["source"] == "theory"].groupby("family"):
        name = str(kind).replace("_", " ")
        best = rows.sort_values("risk").iloc[0]
        np.testing.assert_array_equal(drawn(axis, f"{name}, theory"), rows[["rounds_per_scale", "risk"]])
        np.testing.assert_array_equal(
            drawn(axis, f"{name}, best"), [best[["rounds_per_scale", "risk"]].tolist()]
        )
        assert f"{name}, best T = {best['rounds_per_scale']}" in legend(figure)


def test_the_best_of_the_agents_is_named_where_it_is_certainly_another() -> None:
    frame = frame_of_rounds()
    ring = (frame["family"] == "ring") & (frame["source"] == "agents") & (frame["rounds_per_scale"] == 10)
    frame.loc[ring, ["risk", "risk_se"]] = 0.01, 0.001
    assert "ring, best T = 6, of agents 10" in legend(bottleneck(frame, CAPTION))
    frame["risk_se"] = np.nan
    assert "ring, best T = 6" in legend(bottleneck(frame, CAPTION))
    frame.loc[:, "risk"] = 0.0
    assert "ring, best T = 1" in legend(bottleneck(frame, CAPTION)), "the fewest rounds of equals"


@pytest.mark.parametrize("source", ["theory", "agents", "nobody"])
def test_the_bottleneck_of_one_source_is_drawn(source: str) -> None:
    frame = frame_of_rounds()
    rows = frame[frame["source"] == source]
    figure = bottleneck(rows, CAPTION)
    fits(figure)
    assert ("ring, best T = 6" in legend(figure)) == (source != "nobody")


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tokens", [4, 32])
def test_a_graph_is_drawn_with_its_mask(kind: str, tokens: int, tmp_path: Path) -> None:
    graph = FAMILIES[kind](Family(tokens, degree=2 if tokens == 4 else 6))
    mixing = weigh(graph, "metropolis")
    figure = graph_figure(graph, mixing, CAPTION, rounds=3)
    nodes, mask, _ = figure.axes
    fits(figure)
    if kind == "small_world":
        is_saved(figure, tmp_path)
    filled = mask.images[0].get_array()
    assert isinstance(filled, np.ma.MaskedArray)
    np.testing.assert_array_equal(~np.ma.getmaskarray(filled), mixing.weights.toarray() > 0)
    reached = mixing.effective(3)
    np.testing.assert_allclose(filled.diagonal(), reached)
    (dots,) = [one for one in nodes.collections if isinstance(one, PathCollection)]
    np.testing.assert_allclose(np.asarray(dots.get_array()), reached)
    assert apart(layout(graph).places)


@pytest.mark.parametrize("kind", ["path", "grid", "small_world", "random_regular", "tree", "star"])
def test_two_hundred_tokens_are_drawn_apart(kind: str) -> None:
    graph = FAMILIES[kind](Family(200))
    fits(graph_figure(graph, uniform(graph), CAPTION))
    assert apart(layout(graph).places)


def test_links_of_one_direction_have_arrows_and_shared_weights_fill_the_mask() -> None:
    graph: Graph = nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 3), (3, 0), (3, 1)])
    figure = graph_figure(graph, uniform(graph), CAPTION)
    assert len(figure.axes[0].patches) == 4
    whole = graph_figure(FAMILIES["complete"](Family(5)), everyone(5), CAPTION)
    filled = whole.axes[1].images[0].get_array()
    assert isinstance(filled, np.ma.MaskedArray)
    assert filled.count() == 25
    assert not whole.axes[0].patches


@pytest.mark.parametrize(
    "graph",
    [nx.empty_graph(1), nx.empty_graph(5), nx.path_graph(2), nx.disjoint_union_all([nx.cycle_graph(4)] * 2)],
)
def test_small_and_unconnected_graphs_are_drawn(graph: "nx.Graph[int]") -> None:
    directed = graph.to_directed()
    fits(graph_figure(directed, uniform(directed), CAPTION))


def test_too_many_tokens_to_be_seen_are_refused() -> None:
    graph = FAMILIES["path"](Family(2001))
    with pytest.raises(ValueError, match="up to 2,000 tokens; got 2,001"):
        graph_figure(graph, uniform(graph), CAPTION)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00094, "9e-4"),
        (0.00097, "1e-3"),
        (0.000999, ".0010"),
        (0.0999, ".10"),
        (0.996, "1.0"),
        (25.72, "26"),
        (9.96, "10"),
    ],
)
def test_a_number_in_a_cell_has_two_digits(value: float, text: str) -> None:
    assert short(value) == text
