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
        nodes = (tokens, prompts, NODES, atoms)
        self.codes = np.empty((capacity, tokens, prompts), dtype=np.int64)
        self.counts, self.readings = np.empty((2, capacity, tokens, prompts))
        self.controls = np.empty((capacity, tokens, dim, prompts))
        self.shares, self.scales, self.innovations, self.evidences = np.empty((4, capacity, *nodes))
        self.rows = np.empty((capacity * (capacity - 1) // 2, *nodes))

    def after(self, count: int) -> "Answers":
        """Where answer `count` can be written, the earlier ones before it."""
        if count == self.written < self.capacity and self.codes.flags.writeable:
            return self
        tokens, dim, prompts = self.controls.shape[1:]
        room = self.capacity if count < self.capacity else 2 * self.capacity
        copy = Answers(room, tokens, dim, self.shares.shape[-1], prompts)
        for ours, theirs in zip(self.first(count), copy.first(count), strict=True):
            theirs[:] = ours
        copy.rows[: count * (count - 1) // 2] = self.rows[: count * (count - 1) // 2]
        copy.written = count
        return copy

    def changed(self, change: Callable[[Array], Array]) -> "Answers":
        """A copy with every array changed, each handed over with tokens first and prompts last."""
        tokens, dim, prompts = self.controls.shape[1:]
        copy = Answers(self.capacity, tokens, dim, self.shares.shape[-1], prompts)
        copy.written = self.written
        pairs = self.written * (self.written - 1) // 2
        kept = zip(
            (*self.first(self.written), self.rows[:pairs]),
            (*copy.first(self.written), copy.rows[:pairs]),
            strict=True,
        )
        for ours, theirs in kept:
            axis = 1 if ours.ndim == 5 else -1  # of the prompts, in what is kept of one answer
            for mine, there in zip(ours, theirs, strict=True):
                there[:] = np.moveaxis(change(np.moveaxis(mine, axis, -1)), -1, axis)
        return copy

    def first(self, count: int) -> tuple[Array, ...]:
        """All of the first answers but the factor, whose entries between different codes are unset."""
        parts = (self.codes, self.counts, self.readings, self.controls, self.shares, self.scales)
        return tuple(part[:count] for part in (*parts, self.innovations, self.evidences))
