"""The weights of one layer: what is estimated, and into which bundle of histories a field leads."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.codebook import Codebook
from agents.policies.learned import Affine, Layer
from agents.transformer.compiler.bundles import Entry
from agents.transformer.compiler.cells import Cells
from agents.transformer.compiler.relu import ReluBlock, WorkspaceLayout
from agents.transformer.compiler.splines import Spline
from agents.transformer.compiler.survey import EDGE, History

CLAMP = 2.5  # offsets are held within so many standard deviations
_NEGLIGIBLE = 0.01  # a tilt that matters less than this share of the wanted error is left out


class Transition(NamedTuple):
    """What one bundle of histories does with a field.

    Attributes:
        history: the bundle.
        slope: how far the field moves with each offset [l].
        spline: what is estimated.
        cells: where the field may fall; None in the last round.
        entries: where each cell leads.
    """

    history: History
    slope: Float[np.ndarray, " l"]
    spline: Spline
    cells: Cells | None
    entries: list[Entry]


def wire(
    steps: list[Transition],
    layout: WorkspaceLayout,
    bounds: Float[np.ndarray, " inputs"],
    codebook: Codebook,
    error: float,
    ramp: float,
) -> Layer:
    """One layer: bundle k asks its code, and its gated units replace what the workspace holds.

    Args:
        steps: one for each bundle.
        layout: of the workspace.
        bounds: largest magnitude of each coordinate, and of the field.
        codebook: what may be asked.
        error: mean squared error that matters.
        ramp: width of a decision, in units of z.

    Source: THEORY.md section 8, two systems, one computation.
    """
    query = np.zeros((layout.dim, layout.width))
    block = ReluBlock(bounds)
    for coordinate in range(layout.estimate.start, layout.estimate.stop):  # the old estimate goes
        for sign in (1.0, -1.0):
            block.add({coordinate: sign}, 0.0, {coordinate: -sign})
    for state, step in enumerate(steps):
        query[:, state] = codebook.directions[step.history.asks]
        constant = {state: -1.0}
        _write_estimate(block, layout, state, step, error, constant)
        if step.cells is not None:
            _write_cells(block, layout, state, step, step.cells, ramp, constant)
        block.add({state: 1.0}, 0.0, constant)
    silence = Affine(np.zeros((1, layout.width)), np.zeros(1))
    return Layer(Affine(query, np.zeros(layout.dim)), silence, block.weights())


def _line(layout: WorkspaceLayout, step: Transition) -> dict[int, float]:
    """z = s - slope.offset."""
    moved = {layout.offset(i): -float(slope) for i, slope in enumerate(step.slope)}
    return {layout.field: 1.0, **moved}


def _vector(layout: WorkspaceLayout, values: Float[np.ndarray, " d"]) -> dict[int, float]:
    return {layout.estimate.start + i: float(value) for i, value in enumerate(values) if abs(value) > 1e-12}


def _plus(outputs: dict[int, float], more: dict[int, float], sign: float = 1.0) -> None:
    for coordinate, value in more.items():
        outputs[coordinate] = outputs.get(coordinate, 0.0) + sign * value


def _write_estimate(
    block: ReluBlock,
    layout: WorkspaceLayout,
    state: int,
    step: Transition,
    error: float,
    constant: dict[int, float],
) -> None:
    """ReLUs at the knots, and beside each one that moves with an offset: their difference is a slope.

    relu(z - t) - relu(z - t - k x) = k x beyond the knot t, for any small offset x.
    """
    spline, history, line = step.spline, step.history, _line(layout, step)
    gaps = np.diff(spline.knots)
    slopes = np.zeros((len(spline.knots) + 1, layout.dim))
    slopes[1:-1] = np.diff(spline.values, axis=0) / gaps[:, None]
    kinks = np.diff(slopes, axis=0)  # change of slope at each knot [J, d]
    origin = spline.values[0].copy()
    for index, tilt in enumerate(spline.tilts):
        near = layout.near(index)
        size = history.probability * history.spread[index] ** 2 * float((tilt**2).sum(axis=1).max())
        if size < _NEGLIGIBLE * error:
            continue
        block.add({near: 1.0}, block.bound(near), _vector(layout, tilt[0]), gate=state)
        origin -= block.bound(near) * tilt[0]
        for knot, jump in enumerate(np.diff(tilt, axis=0)):
            closest = gaps[max(knot - 1, 0) : knot + 1].min() if len(gaps) else 0.1
            reach = float(closest / (2 * history.spread[index]))
            kinks[knot] += jump / reach
            moved = {**line, near: -reach}
            block.add(moved, -float(spline.knots[knot]), _vector(layout, -jump / reach), gate=state)
    for knot, kink in zip(spline.knots, kinks, strict=True):
        block.add(line, -float(knot), _vector(layout, kink), gate=state)
    _plus(constant, _vector(layout, origin))


def _write_cells(
    block: ReluBlock,
    layout: WorkspaceLayout,
    state: int,
    step: Transition,
    cells: Cells,
    ramp: float,
    constant: dict[int, float],
) -> None:
    """Steps at the cuts, each a pair of steep ReLUs; within a cell the offset rises from its lower bound."""
    line, index = _line(layout, step), len(step.history.codes)
    middle, spread = cells.centres[:, -1], cells.spread[:, -1]
    edges = np.concatenate([[-np.inf], cells.cuts, [np.inf]])
    held = []  # bounds of the new offset in each cell, for both of its coordinates
    for coordinate, most in ((layout.offset(index), CLAMP), (layout.near(index), EDGE)):
        low = np.minimum(np.maximum(edges[:-1], middle - most * spread), middle)
        high = np.maximum(np.minimum(edges[1:], middle + most * spread), middle)
        held.append((coordinate, low - middle, high - middle))
        for first, last in zip(low, high, strict=True):
            block.add(line, -float(first), {coordinate: 1.0}, gate=state)
            block.add(line, -float(last), {coordinate: -1.0}, gate=state)
    _plus(constant, _entered(layout, step.entries[0]))
    _plus(constant, {coordinate: float(low[0]) for coordinate, low, _ in held})
    for number, place in enumerate(cells.cuts):
        outputs = _entered(layout, step.entries[number + 1])
        _plus(outputs, _entered(layout, step.entries[number]), -1.0)
        _plus(outputs, {coordinate: float(low[number + 1] - high[number]) for coordinate, low, high in held})
        cut = dict(line)
        _plus(cut, {layout.offset(i): -float(drift) for i, drift in enumerate(cells.drift[number])})
        for side in (1.0, -1.0):
            steep = {coordinate: side * value / ramp for coordinate, value in outputs.items()}
            block.add(cut, -float(place) + side * ramp / 2, steep, gate=state)


def _entered(layout: WorkspaceLayout, entry: Entry) -> dict[int, float]:
    """What it takes to enter a bundle: its one, and what the earlier offsets are from its centre."""
    outputs = {entry.target: 1.0}
    for index, (shift, near) in enumerate(zip(entry.shift, entry.near, strict=True)):
        outputs |= {layout.offset(index): float(shift), layout.near(index): float(near)}
    return outputs
