"""Piecewise linear functions written into one hidden layer of ReLUs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from agents.policies.learned import Affine


@dataclass(frozen=True)
class WorkspaceLayout:
    """Which coordinates of a compiled workspace hold what.

    The first say in which bundle of histories the token is: one of them is 1, the others 0. Then come, for
    each field but the last, its offset from the bundle's centre, twice: the one says where decisions
    lie, the other, clamped closer, how far to interpolate. The last d hold the estimate.

    Attributes:
        states: most bundles in any round.
        rounds: L.
        dim: d.

    Example:
        >>> layout = WorkspaceLayout(states=10, rounds=3, dim=7)
        >>> layout.width, layout.offset(0), layout.near(1), layout.estimate
        (21, 10, 13, slice(14, 21, None))
    """

    states: int
    rounds: int
    dim: int

    @property
    def width(self) -> int:
        """W."""
        return self.states + 2 * (self.rounds - 1) + self.dim

    @property
    def bundle(self) -> slice:
        """One-hot code of the bundle."""
        return slice(0, self.states)

    @property
    def estimate(self) -> slice:
        """Estimate of w."""
        return slice(self.width - self.dim, self.width)

    @property
    def field(self) -> int:
        """The field, which the feedforward block reads after the workspace."""
        return self.width

    def offset(self, index: int) -> int:
        """Offset of the field of round index + 1."""
        return self.states + index

    def near(self, index: int) -> int:
        """The same, clamped closer."""
        return self.states + self.rounds - 1 + index


class ReluBlock:
    """A feedforward block under construction: hidden units one after the other.

    Args:
        bounds: largest magnitude of each coordinate of the workspace, and of the field after them.

    Example:
        >>> block = ReluBlock(np.array([1.0, 8.0]))
        >>> block.add({1: 1.0}, -0.5, {0: 2.0}, gate=0)  # 2 relu(s - 0.5) where p[0] = 1, else 0
        >>> first, second = block.weights()
        >>> hidden = lambda p, s: np.maximum(first.weight @ np.array([p, s]) + first.bias, 0)
        >>> [float((second.weight @ hidden(p, 3.0)).item()) for p in (0.0, 1.0)]
        [0.0, 5.0]
    """

    def __init__(self, bounds: Float[np.ndarray, " inputs"]) -> None:
        self._bounds = bounds
        self._first: list[Float[np.ndarray, " inputs"]] = []
        self._bias: list[float] = []
        self._second: list[Float[np.ndarray, " W"]] = []

    def bound(self, coordinate: int) -> float:
        """Largest magnitude of a coordinate."""
        return float(self._bounds[coordinate])

    def add(
        self, inputs: Mapping[int, float], bias: float, outputs: Mapping[int, float], gate: int | None = None
    ) -> None:
        """One unit relu(inputs.[p, s] + bias - M (1 - p[gate])) that adds to the coordinates `outputs`.

        M is more than the rest can ever be, so that a unit is silent where its gate is 0.
        """
        if not any(outputs.values()):
            return
        first, second = np.zeros(len(self._bounds)), np.zeros(len(self._bounds) - 1)
        first[list(inputs)] = list(inputs.values())
        second[list(outputs)] = list(outputs.values())
        if gate is not None:
            closed = float(np.abs(first) @ self._bounds) + max(bias, 0.0) + 1.0
            first[gate] += closed
            bias -= closed
        self._first.append(first)
        self._bias.append(bias)
        self._second.append(second)

    def weights(self) -> tuple[Affine, Affine]:
        """The two affine maps of the block."""
        second = np.array(self._second).T.copy()
        return Affine(np.array(self._first), np.array(self._bias)), Affine(second, np.zeros(len(second)))
