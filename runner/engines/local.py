"""The in-process engine: blocks of tokens, side by side on the cores that this process may use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from time import perf_counter

import numpy as np

from agents.kernels import AVAILABLE
from agents.step import Sent, System
from analysis.resources import available_cores
from runner.engines.base import Outcome, hearing, rows_of
from runner.engines.blocks import Blocks
from runner.errors import expect_count
from topology.mixing import Mixing


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
        rows, everyone = rows_of(mixing), np.arange(mixing.tokens)
        clipped, scalars = np.zeros((0, system.channel.channels, len(prompts)), dtype=bool), 0
        sent: Sent | None = None
        with ThreadPoolExecutor(self.threads) if self.threads > 1 else nullcontext() as pool:
            tokens = Blocks(system, everyone, prompts, self.block, pool)
            for index in range(system.rounds + 1):
                began, before = perf_counter(), sent
                hear = None if before is None else hearing(rows, before, system.policy.codes, everyone)
                sent, report = tokens.step(index, hear, detail)
                spent = perf_counter() - began
                yield Outcome(index, report, before if messages else None, clipped, scalars, spent)
                clipped, scalars = report.clipped, report.scalars

    def close(self) -> None:
        """Nothing is held."""
