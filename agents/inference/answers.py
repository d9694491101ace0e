"""The answers that beliefs heard, where they are taken together: kept once for all beliefs of a chain."""

from collections.abc import Callable

import numpy as np

NODES = 5  # of the quadrature over g, which each answer is kept at

Array = np.ndarray


class Answers:
    """All answers that a chain of beliefs heard, oldest first; a belief knows how many of them are its own.

    A belief that is continued once writes behind its last answer; one that is continued again, where another
    has written, gets a copy. So a belief never changes.
    """

    def __init__(self, capacity: int, tokens: int, dim: int, atoms: int, prompts: int) -> None:
        self.capacity, self.written = capacity, 0
        nodes = (tokens, prompts, NODES * atoms)
        self.codes = np.empty((capacity, tokens, prompts), dtype=np.int64)
        self.fields = np.empty((capacity, tokens, 5, prompts))
        self.controls = np.empty((capacity, tokens, dim, prompts))
        self.scales, self.innovations, self.evidences = (np.empty((capacity, *nodes)) for _ in range(3))
        self.rows = np.empty((capacity * (capacity - 1) // 2, *nodes))

    def after(self, count: int) -> "Answers":
        """Where answer `count` can be written, the earlier ones before it."""
        if count == self.written < self.capacity and self.codes.flags.writeable:
            return self
        tokens, dim, prompts = self.controls.shape[1:]
        room = self.capacity if count < self.capacity else 2 * self.capacity
        copy = Answers(room, tokens, dim, self.scales.shape[-1] // NODES, prompts)
        for ours, theirs in zip(self._parts(count), copy._parts(count), strict=True):
            theirs[:] = ours
        copy.written = count
        return copy

    def changed(self, change: Callable[[Array], Array]) -> "Answers":
        """A copy with every array changed, each handed over with tokens first and prompts last."""
        tokens, dim, prompts = self.controls.shape[1:]
        copy = Answers(self.capacity, tokens, dim, self.scales.shape[-1] // NODES, prompts)
        copy.written = self.written
        kept = zip(self._parts(self.written), copy._parts(self.written), strict=True)
        for number, (ours, theirs) in enumerate(kept):
            axis = -1 if number < len(self.first(0)) else 1  # of the prompts, in what is kept of one answer
            for mine, there in zip(ours, theirs, strict=True):
                there[:] = np.moveaxis(change(np.moveaxis(mine, axis, -1)), -1, axis)
        return copy

    def first(self, count: int) -> tuple[Array, Array, Array]:
        """Codes, fields and controls of the first answers, which all else follows from."""
        return self.codes[:count], self.fields[:count], self.controls[:count]

    def _parts(self, count: int) -> tuple[Array, ...]:
        parts = (self.scales, self.innovations, self.evidences)
        return (*self.first(count), *(part[:count] for part in parts), self.rows[: count * (count - 1) // 2])
