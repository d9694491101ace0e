"""Where a line of fields is cut: at decisions, and wherever the belief has moved far enough."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from agents.transformer.compiler.survey import EDGE, History, Survey

_POWER = 0.25  # a belief of probability p counts as p^(1/4): later fields may raise it again
_FIELD = 0.3  # arc of a field that is one standard deviation longer
_SHARE = 0.2  # a cell of probability P has an arc of arc / P^(1/5), which lowers the error most for its cost
_ROOM = 2.0  # cuts do not overtake each other within so many standard deviations of an offset


class Cells(NamedTuple):
    """Intervals of z between cuts, numbered from the left.

    Attributes:
        cuts: where the intervals meet [c].
        drift: how far each cut moves with each offset [c, l].
        centres: mean of each offset and of z in each interval [c + 1, l + 1].
        spread: their standard deviations [c + 1, l + 1].
        mass: probability of each interval given the history [c + 1].
        points: the point of the line that stands for each interval [c + 1].
    """

    cuts: Float[np.ndarray, " c"]
    drift: Float[np.ndarray, "c l"]
    centres: Float[np.ndarray, "cells offsets"]
    spread: Float[np.ndarray, "cells offsets"]
    mass: Float[np.ndarray, " cells"]
    points: Int[np.ndarray, " cells"]


def distance(
    atoms: Float[np.ndarray, "*points M"],
    others: Float[np.ndarray, "*points M"],
    fields: Float[np.ndarray, "*points"] | float,
) -> Float[np.ndarray, "*points"]:
    """How far beliefs are apart, radians or so: between their fourth roots, and 0.3 a standard deviation.

    Example:
        >>> one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        >>> round(float(distance(one, other, 0.0)), 3)
        1.414
    """
    apart = np.linalg.norm(atoms**_POWER - others**_POWER, axis=-1)
    return np.asarray(np.hypot(apart, _FIELD * np.asarray(fields)))


def weighed(length: float, probability: float) -> float:
    """A distance that is crossed with some probability, as it counts in the error."""
    return float(length * probability**_SHARE)


def cut(survey: Survey, history: History, arc: float, least: float) -> Cells:
    """Cut a line into cells in which the agent asks the same and believes nearly the same.

    The line is cut where any of the choices that matter changes, and between so that no cell is longer than
    `arc`. Cuts where a choice changes move with the offsets.

    Args:
        survey: of the bundle.
        history: the bundle.
        arc: longest cell.
        least: cells of smaller probability are joined to a neighbour.
    """
    changes = (np.diff(survey.ranks[0], axis=0) != 0).any(axis=1)
    density, floor = survey.density(), least / history.probability
    ends = _joined([0, *(np.flatnonzero(changes) + 1).tolist(), len(density)], density, floor)
    moved = np.diff(survey.z) / survey.noise
    steps = np.append(0.0, distance(survey.atoms[1:], survey.atoms[:-1], moved))
    finer = {0}
    for first, stop in itertools.pairwise(ends):
        length = np.cumsum(steps[first:stop]) - steps[first]
        counted = weighed(float(length[-1]), history.probability * float(density[first:stop].sum()))
        pieces = 1 if survey.silent else int(np.ceil(counted / arc + 1e-9))
        marks = np.searchsorted(length, length[-1] * np.arange(1, pieces) / pieces)
        finer |= {first + int(mark) for mark in marks} | {stop}
    ends = _joined(sorted(finer), density, floor)
    inner = np.array(ends[1:-1], dtype=int)
    cuts = 0.5 * (survey.z[inner - 1] + survey.z[inner])
    drift = _drifts(survey, history, inner, cuts)
    cell_of = (survey.z[:, None, None] > cuts + survey.offsets @ drift.T).sum(axis=2).T  # [lines, G]
    joint = survey.share[:, None] * survey.densities
    moments = []
    for cell, (first, stop) in enumerate(itertools.pairwise(ends)):
        part = np.where(cell_of == cell, joint, 0.0)
        if not part.any():
            part[0, first:stop] = joint[0, first:stop]
        moments.append(_moments(survey, history, part))
    centres, spread, masses = (np.array(part) for part in zip(*moments, strict=True))
    points = [
        _standing(survey, first, stop, float(centre))
        for first, stop, centre in zip(ends[:-1], ends[1:], centres[:, -1], strict=True)
    ]
    return Cells(cuts, drift, centres, spread, masses / masses.sum(), np.array(points))


def _joined(ends: list[int], density: Float[np.ndarray, " G"], least: float) -> list[int]:
    """Drop ends of intervals until each has the mass `least`, the lightest first."""
    ends = [*ends]
    while len(ends) > 2:
        masses = [density[first:stop].sum() for first, stop in itertools.pairwise(ends)]
        lightest = int(np.argmin(masses))
        if masses[lightest] >= least:
            break
        last = lightest == len(masses) - 1
        leftwards = lightest > 0 and (last or masses[lightest - 1] > masses[lightest + 1])
        del ends[lightest if leftwards else lightest + 1]
    return ends


def _moments(
    survey: Survey, history: History, part: Float[np.ndarray, "lines G"]
) -> tuple[Float[np.ndarray, " offsets"], Float[np.ndarray, " offsets"], float]:
    """Mean and standard deviation of the offsets and of z where `part` of the bundle is, and its mass."""
    total = float(part.sum())
    by_line, by_z = part.sum(axis=1) / total, part.sum(axis=0) / total
    centre = np.append(by_line @ survey.offsets, by_z @ survey.z)
    # The few lines stand for a whole bundle, so a cell that only one of them enters has some width too.
    kept = (by_line @ survey.offsets**2 - centre[:-1] ** 2) / (survey.share @ survey.offsets**2)
    spread = history.spread * np.sqrt(np.clip(kept, 0.2, 1.0))
    own = np.sqrt(max(float(by_z @ (survey.z - centre[-1]) ** 2), 1e-12))
    return centre, np.append(spread, own), total


def _standing(survey: Survey, first: int, stop: int, centre: float) -> int:
    """The point nearest to the centre of an interval that has its commonest choices."""
    rows, density = survey.ranks[0, first:stop], survey.density()[first:stop]
    kind = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    common = kind == np.bincount(kind, weights=density).argmax()
    away = np.where(common, np.abs(survey.z[first:stop] - centre), np.inf)
    return first + int(away.argmin())


def _drifts(
    survey: Survey, history: History, inner: Int[np.ndarray, " c"], cuts: Float[np.ndarray, " c"]
) -> Float[np.ndarray, "c l"]:
    """Drifts of all cuts, held back where one would overtake another: cells have an order.

    The likeliest changes of what is asked next come first; cuts that change nothing follow those beside.
    """
    before, after = survey.ranks[0, inner - 1], survey.ranks[0, inner]
    changed: Bool[np.ndarray, "c R"] = before != after
    density, room = survey.density()[inner], _ROOM * history.spread
    held: dict[int, Float[np.ndarray, " l"]] = {}
    for one in sorted(
        range(len(inner)), key=lambda c: (not changed[c, 0], not changed[c].any(), -density[c])
    ):
        left = max((c for c in held if c < one), default=None)
        right = min((c for c in held if c > one), default=None)
        beside = [c for c in (left, right) if c is not None]
        base = held[beside[0]] if beside else np.zeros(len(room))
        if left is not None and right is not None:
            share = (cuts[one] - cuts[left]) / (cuts[right] - cuts[left])
            base = (1 - share) * held[left] + share * held[right]
        own = _drift(survey, history, int(inner[one])) if changed[one].any() else base
        for scale in np.linspace(1.0, 0.0, 21):
            held[one] = base + scale * (own - base)
            if all(np.abs(held[one] - held[c]) @ room <= 0.95 * abs(cuts[c] - cuts[one]) for c in beside):
                break
    return np.array([held[c] for c in range(len(inner))]).reshape(len(inner), len(room))


def _drift(survey: Survey, history: History, index: int) -> Float[np.ndarray, " l"]:
    """How far the change before point `index` moves with each offset: found again on the lines beside."""
    before, after = survey.ranks[0, index - 1], survey.ranks[0, index]
    drift = np.zeros(len(history.spread))
    for offset, spread in enumerate(history.spread):
        found = []
        for side, line in ((1, survey.ranks[1 + 2 * offset]), (-1, survey.ranks[2 + 2 * offset])):
            same = np.flatnonzero((line[:-1] == before).all(axis=1) & (line[1:] == after).all(axis=1)) + 1
            if len(same):
                nearest = same[np.abs(same - index).argmin()]
                found.append((survey.z[nearest] - survey.z[index]) / (side * EDGE * spread))
        drift[offset] = np.mean(found) if found else 0.0
    return drift
