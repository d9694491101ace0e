"""How the cells of one round lead into the bundles of histories of the next."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.transformer.compiler.cells import Cells, distance, weighed
from agents.transformer.compiler.survey import EDGE, History, Outlook, Survey


class Entry(NamedTuple):
    """How one cell of one bundle leads into a bundle of the next round.

    Attributes:
        target: index of the bundle.
        shift: what is added to each offset, that of the field just heard included [l + 1].
        near: the same, no more than what keeps an offset within the new bundle [l + 1].
    """

    target: int
    shift: Float[np.ndarray, " offsets"]
    near: Float[np.ndarray, " offsets"]


def common_slopes(histories: list[History], views: list[Outlook]) -> list[Float[np.ndarray, " l"]]:
    """One slope for all bundles in which the same was asked, so that their offsets mean the same."""
    totals: dict[tuple[int, ...], tuple[float, Float[np.ndarray, " l"]]] = {}
    keys = [(*history.codes.tolist(), history.asks) for history in histories]
    for key, history, view in zip(keys, histories, views, strict=True):
        weight, slope = totals.get(key, (0.0, np.zeros(len(history.codes))))
        totals[key] = (weight + history.probability, slope + history.probability * view.slope())
    return [totals[key][1] / totals[key][0] for key in keys]


def bundled(
    histories: list[History], surveys: list[Survey], cells: list[Cells], merge: float, codes: int
) -> tuple[list[History], list[list[Entry]]]:
    """Bundle the cells to which all bundles lead: same questions asked and to be asked, similar beliefs.

    Args:
        histories: the bundles of this round.
        surveys: of each.
        cells: of each.
        merge: greatest distance from the likeliest member of a bundle.
        codes: size of the codebook.

    Returns:
        The bundles of the next round, and for each bundle of this round how its cells lead there.
    """
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for k, (history, survey, part) in enumerate(zip(histories, surveys, cells, strict=True)):
        for i, point in enumerate(part.points):
            key = (*history.codes.tolist(), history.asks, *survey.ranks[0, point].tolist())
            groups.setdefault(key, []).append((k, i))
    bundles: list[History] = []
    found: dict[tuple[int, int], Entry] = {}
    for members in groups.values():
        for cluster in _clusters(members, histories, surveys, cells, merge):
            bundle, entries = _bundle(cluster, histories, surveys, cells, len(bundles), codes)
            bundles.append(bundle)
            found.update(zip(cluster, entries, strict=True))
    return bundles, [[found[k, i] for i in range(len(part.points))] for k, part in enumerate(cells)]


def _clusters(
    members: list[tuple[int, int]],
    histories: list[History],
    surveys: list[Survey],
    cells: list[Cells],
    merge: float,
) -> list[list[tuple[int, int]]]:
    """Each cell, the likeliest first, joins the nearest cluster within `merge`, or begins one."""
    clusters: list[list[tuple[int, int]]] = []
    chance = {(k, i): float(histories[k].probability * cells[k].mass[i]) for k, i in members}
    for k, i in sorted(members, key=lambda cell: -chance[cell]):
        here = surveys[k].atoms[cells[k].points[i]]
        far = []
        for (other, j), *_ in clusters:
            moved = np.linalg.norm(histories[k].fields - histories[other].fields) / surveys[k].noise
            there = surveys[other].atoms[cells[other].points[j]]
            far.append(weighed(float(distance(here, there, float(moved))), chance[k, i]))
        if far and min(far) < merge:
            clusters[int(np.argmin(far))].append((k, i))
        else:
            clusters.append([(k, i)])
    return clusters


def _bundle(
    cluster: list[tuple[int, int]],
    histories: list[History],
    surveys: list[Survey],
    cells: list[Cells],
    index: int,
    codes: int,
) -> tuple[History, list[Entry]]:
    """One bundle from a cluster of cells, the likeliest of which stands first, and their entries into it."""
    first, point = cluster[0]
    history, survey = histories[first], surveys[first]
    rounds = len(history.codes)
    tilt = np.eye(rounds + 1)
    tilt[:rounds, :rounds], tilt[rounds, :rounds] = history.tilt, survey.slope
    share = np.array([histories[k].probability * cells[k].mass[i] for k, i in cluster])
    probability = float(share.sum())
    centres = np.array([np.append(histories[k].fields, 0.0) + tilt @ cells[k].centres[i] for k, i in cluster])
    centre = share @ centres / probability
    shifts = np.linalg.solve(tilt, (centres - centre).T).T
    spreads = np.array([cells[k].spread[i] for k, i in cluster])
    spread = np.sqrt(share @ (spreads**2 + shifts**2) / probability)
    entries = []
    for (k, i), shift, own in zip(cluster, shifts, spreads, strict=True):
        moved = shift.copy()
        moved[:-1] -= cells[k].centres[i, :-1]
        room = np.maximum(EDGE * (spread - own), 0.0)
        entries.append(Entry(index, moved, np.clip(moved, -room, room)))
    ranks = survey.ranks[0, cells[first].points[point]]
    asked = np.append(history.codes, history.asks)
    return History(asked, centre, tilt, spread, probability, ranks, int(ranks[0]) % codes), entries
