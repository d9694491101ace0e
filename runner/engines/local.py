"""The in-process engine: blocks of tokens, one after the other, in this process."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from agents.step import Aggregate, Sent, System, draw_block, step
from runner.engines.base import Outcome, aggregate_blocks, join_reports, join_sent, rows_of
from runner.errors import expect_count
from topology.mixing import Mixing
from topology.partition import blocks

_CACHED = 4096  # token-prompts whose workspaces stay in a processor's cache


class LocalEngine:
    """Plays all tokens in this process, in blocks that fit the cache.

    Attributes:
        block: tokens in a block; by default as many as keep the workspaces in cache.

    Raises:
        UsageError: if a block would hold no token.

    Example:
        >>> LocalEngine(block=8).name
        'local'
    """

    name = "local"

    def __init__(self, block: int | None = None) -> None:
        if block is not None:
            expect_count("block", block)
        self.block = block

    def play(
        self, system: System, mixing: Mixing, prompts: range, *, detail: bool = False, messages: bool = False
    ) -> Iterator[Outcome]:
        """The rounds 0..L of a batch of prompts, in order."""
        per_block = self.block or max(1, _CACHED // len(prompts))
        parts = blocks(mixing.tokens, per_block)
        rows = rows_of(mixing)
        drawn = [draw_block(system, part, prompts) for part in parts]
        states: list[Any] = [None] * len(parts)
        sent: list[Sent | None] = [None] * len(parts)
        aggregates: list[Aggregate | None] = [None] * len(parts)
        clipped, scalars = np.zeros((0, system.channel.channels, len(prompts)), dtype=bool), 0
        for index in range(system.rounds + 1):
            began = perf_counter()
            before = _joined(sent)
            if before is not None:
                heard = aggregate_blocks(rows, before, system.policy.codes, parts)
                aggregates = [*heard] if len(heard) == len(parts) else [heard[0]] * len(parts)
            steps = [
                step(system, block, state, own, aggregate, index, detail)
                for block, state, own, aggregate in zip(drawn, states, sent, aggregates, strict=True)
            ]
            states = [result.state for result in steps]
            sent = [result.sent for result in steps]
            report = join_reports([result.report for result in steps])
            spent = perf_counter() - began
            yield Outcome(index, report, before if messages else None, clipped, scalars, spent)
            clipped, scalars = report.clipped, report.scalars

    def close(self) -> None:
        """Nothing is held."""


def _joined(sent: list[Sent | None]) -> Sent | None:
    present = [block for block in sent if block is not None]
    return join_sent(present) if present else None
