"""The in-process engine: blocks of tokens, side by side on the cores that this process may use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from agents.kernels import AVAILABLE
from agents.step import Aggregate, Sent, System, draw_block, step
from analysis.resources import available_cores
from runner.engines.base import Outcome, aggregate_blocks, join_reports, join_sent, rows_of
from runner.errors import expect_count
from topology.mixing import Mixing
from topology.partition import blocks

Done = TypeVar("Done")
_CACHED = 4096  # token-prompts whose workspaces stay in a processor's cache


class LocalEngine:
    """Plays all tokens in this process, in blocks that fit the cache.

    Compiled loops leave the interpreter to other threads, so that blocks are played side by side; numpy's
    code holds it too often for that to pay. A block's numbers do not depend on when it is played.

    Attributes:
        block: tokens in a block; by default as many as keep the workspaces in cache.
        threads: that play blocks; by default one for each core that this process may use.

    Raises:
        UsageError: if a block would hold no token, or there would be no thread.

    Example:
        >>> LocalEngine(block=8).name
        'local'
    """

    name = "local"

    def __init__(self, block: int | None = None, threads: int | None = None) -> None:
        for name, value in {"block": block, "threads": threads}.items():
            if value is not None:
                expect_count(name, value)
        self.block = block
        self.threads = threads or (available_cores() if AVAILABLE else 1)

    def play(
        self, system: System, mixing: Mixing, prompts: range, *, detail: bool = False, messages: bool = False
    ) -> Iterator[Outcome]:
        """The rounds 0..L of a batch of prompts, in order."""
        per_block = self.block or max(1, _CACHED // len(prompts))
        parts = blocks(mixing.tokens, per_block)
        rows = rows_of(mixing)
        states: list[Any] = [None] * len(parts)
        sent: list[Sent | None] = [None] * len(parts)
        aggregates: list[Aggregate | None] = [None] * len(parts)
        clipped, scalars = np.zeros((0, system.channel.channels, len(prompts)), dtype=bool), 0
        threads = min(self.threads, len(parts))
        with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
            drawn = _each(pool, lambda part: draw_block(system, part, prompts), parts)
            for index in range(system.rounds + 1):
                began = perf_counter()
                before = _joined(sent)
                if before is not None:
                    heard = aggregate_blocks(rows, before, system.policy.codes, parts)
                    aggregates = [*heard] if len(heard) == len(parts) else [heard[0]] * len(parts)
                one = partial(step, system, round=index, detail=detail)
                steps = _each(pool, one, drawn, states, sent, aggregates)
                states = [result.state for result in steps]
                sent = [result.sent for result in steps]
                report = join_reports([result.report for result in steps])
                spent = perf_counter() - began
                yield Outcome(index, report, before if messages else None, clipped, scalars, spent)
                clipped, scalars = report.clipped, report.scalars

    def close(self) -> None:
        """Nothing is held."""


def _each(pool: ThreadPoolExecutor | None, work: Callable[..., Done], *given: Sequence[Any]) -> list[Done]:
    """What is done for all blocks, in order; threads take on what this one ignores of numpy's warnings."""
    blocks = zip(*given, strict=True)
    if pool is None:
        return [work(*block) for block in blocks]
    running = [pool.submit(copy_context().run, work, *block) for block in blocks]
    try:
        return [done.result() for done in running]
    finally:
        for done in running:  # where one failed, or this thread is told to end
            done.cancel()


def _joined(sent: list[Sent | None]) -> Sent | None:
    present = [block for block in sent if block is not None]
    return join_sent(present) if present else None
