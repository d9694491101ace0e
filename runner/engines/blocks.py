"""Token positions of one process, in blocks whose workspaces fit the cache; side by side, given threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any, TypeVar

import numpy as np

from agents.step import Aggregate, Report, Sent, Step, System, draw_block, step
from runner.engines.base import join_reports, join_sent
from topology.partition import blocks

Done = TypeVar("Done")
_CACHED = 4096  # token-prompts whose workspaces stay in a processor's cache


class Blocks:
    """Workspaces of some token positions, round after round.

    Args:
        system: what is simulated.
        positions: of the tokens.
        prompts: those that are played.
        block: tokens in a block; by default as many as fit the cache.
        pool: where blocks are played side by side; by default one after the other.

    Attributes:
        receivers: of each block the tokens, as places in `positions`.
    """

    def __init__(
        self,
        system: System,
        positions: np.ndarray,
        prompts: range,
        block: int | None = None,
        pool: Executor | None = None,
    ) -> None:
        self._system, self._pool = system, pool
        self.receivers = blocks(len(positions), block or max(1, _CACHED // len(prompts)))
        self._drawn = self._each(lambda part: draw_block(system, positions[part], prompts), self.receivers)
        self._states: list[Any] = [None] * len(self.receivers)
        self._sent: list[Sent | None] = [None] * len(self.receivers)

    def step(
        self, round: int, hear: Callable[[np.ndarray], Aggregate] | None, detail: bool
    ) -> tuple[Sent | None, Report]:
        """Finish a round and begin the next: messages and report of all tokens.

        Args:
            round: 0 starts the workspaces.
            hear: gives what some receivers heard; None in round 0.
            detail: report the workspaces too.
        """

        def one(drawn: Any, state: Any, sent: Sent | None, receivers: np.ndarray) -> Step:
            heard = None if hear is None else hear(receivers)
            return step(self._system, drawn, state, sent, heard, round, detail)

        steps = self._each(one, self._drawn, self._states, self._sent, self.receivers)
        self._states, self._sent = [done.state for done in steps], [done.sent for done in steps]
        if len(steps) == 1:
            return steps[0].sent, steps[0].report
        sent = [done.sent for done in steps if done.sent is not None]
        return join_sent(sent) if sent else None, join_reports([done.report for done in steps])

    def _each(self, work: Callable[..., Done], *given: Sequence[Any]) -> list[Done]:
        """What is done for all blocks, in order; threads take on which of numpy's warnings are ignored."""
        tasks = list(zip(*given, strict=True))
        if self._pool is None or len(tasks) == 1:
            return [work(*task) for task in tasks]
        running = [self._pool.submit(copy_context().run, work, *task) for task in tasks]
        try:
            return [done.result() for done in running]
        finally:
            for done in running:  # where one failed, or this thread is told to end
                done.cancel()
