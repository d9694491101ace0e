"""What runs in the processes of a cluster: blocks of tokens, and the hub between them.

An actor keeps the workspaces of its tokens, and the round that they are in. Who asks for the round that it
has just ended gets the same packet again; who asks for any other than the next one is told so, and replays to
it what it heard. So a process that was lost and came back, which knows nothing, cannot go on with workspaces
that are not its own.
"""

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from agents.step import Aggregate, Report, Sent, System
from runner.engines.base import Rows, hearing, summed
from runner.engines.blocks import Blocks
from runner.engines.packets import (
    Layout,
    pack,
    pack_messages,
    pack_sums,
    unpack,
    unpack_messages,
    unpack_sums,
)
from runner.source import fingerprint

_ONE = np.zeros(1, dtype=np.int64)


class OutOfStepError(Exception):
    """A process was asked for a round that does not follow on the one it is in."""


class Play(NamedTuple):
    """What is the same for all blocks of a batch of prompts.

    Attributes:
        key: names the batch.
        system: what is simulated.
        prompts: those of the batch.
        layout: of packets.
        apart: reports go to the driver by themselves, as arrays; else within the packets, through the hub.
        detail: report the workspaces too.
        messages: report the messages too, where reports go by themselves.
        summed: blocks send the sums over their tokens in place of the messages: all hear the same.
    """

    key: str
    system: System
    prompts: range
    layout: Layout
    apart: bool
    detail: bool
    messages: bool
    summed: bool


class TokenActor:
    """One block of token positions."""

    def __init__(self) -> None:
        gc.freeze()  # what imports made stays: no collection has to walk it again
        self._key, self._round = "", -1
        self._last: Any = None
        self._tokens: Blocks | None = None

    def fingerprint(self) -> str:
        """The code that this actor runs."""
        return fingerprint()

    def reached(self, key: str) -> int:
        """The round that it has ended; -1 if it plays another batch, or none."""
        return self._round if key == self._key else -1

    def start(self, play: Play, positions: np.ndarray, rows: Rows) -> Any:
        """Round 0 of a batch.

        Args:
            play: the batch.
            positions: of the block's tokens.
            rows: whom they hear, of the messages that come; or the weights of what they send themselves.
        """
        self._play, self._rows, self._last, self._tokens = play, rows, None, None  # no two batches at a time
        self._tokens = Blocks(play.system, positions, play.prompts)
        return self._end(0, None)

    def step(self, key: str, round: int, field: bytes) -> Any:
        """Finish a round with what was heard, and begin the next: one packet, or what is said and the report.

        Raises:
            OutOfStepError: if the block is not at the end of the round before, nor of this one.
        """
        reached = self.reached(key)
        if reached == round:
            return self._last
        if reached != round - 1:
            raise OutOfStepError(f"round {round} was asked for after {reached}")
        layout = self._play.layout
        if self._play.summed:
            shared = unpack_sums(field, layout)
            return self._end(round, lambda receivers: shared)
        heard = unpack_messages([field], layout)
        everyone = np.arange(len(self._rows.starts) - 1)
        return self._end(round, hearing(self._rows, heard, layout.codes, everyone))

    def replay(self, play: Play, positions: np.ndarray, rows: Rows, *fields: bytes) -> None:
        """The first rounds of a batch once more, with what was heard in them."""
        self.start(play, positions, rows)
        for index, field in enumerate(fields, 1):
            self.step(play.key, index, field)

    def _end(self, round: int, hear: Callable[[np.ndarray], Aggregate] | None) -> Any:
        assert self._tokens is not None
        sent, report = self._tokens.step(round, hear, self._play.detail)
        self._key, self._round, self._last = self._play.key, round, self._told(sent, report)
        if round == self._play.system.rounds:
            self._tokens = None
        return self._last

    def _told(self, sent: Sent | None, report: Report) -> Any:
        play = self._play
        if not play.apart:
            return pack(sent, report)
        said = b""
        if sent is not None and play.summed:
            said = pack_sums(summed(self._rows, _ONE, sent, play.layout.codes))
        elif sent is not None:
            said = pack_messages(sent)
        return said, (sent if play.messages else None, report)


class Hub:
    """Hands on what all tokens said: sums where all hear the same, else the messages that a block hears."""

    def __init__(self) -> None:
        self._key = ""

    def fingerprint(self) -> str:
        """The code that this actor runs."""
        return fingerprint()

    def reached(self, key: str) -> int:
        """0 if it plays this batch, -1 if another, or none."""
        return 0 if key == self._key else -1

    def start(
        self, key: str, layout: Layout, apart: bool, rows: Rows | None, heard: list[np.ndarray] | None
    ) -> str:
        """A batch; gives its name.

        Args:
            key: names it.
            layout: of packets.
            apart: whether reports go by themselves.
            rows: the one row that all hear; None where they differ.
            heard: tokens that each block hears then; None where all hear the same.
        """
        self._key, self._layout, self._apart, self._rows, self._heard = key, layout, apart, rows, heard
        return key

    def exchange(self, key: str, *packets: bytes) -> Any:
        """What each block hears, or all do; then the packets, unless reports went apart.

        Raises:
            OutOfStepError: if it plays another batch.
        """
        if key != self._key:
            raise OutOfStepError("the hub plays another batch")
        layout, apart = self._layout, self._apart
        fields: list[bytes]
        if apart and self._heard is None:
            sums = [unpack_sums(packet, layout) for packet in packets]
            fields = [pack_sums(Aggregate(*(sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True))))]
        else:
            sent = unpack_messages([*packets], layout) if apart else unpack([*packets], layout)[0]
            assert sent is not None
            if self._heard is None:
                assert self._rows is not None
                fields = [pack_sums(summed(self._rows, _ONE, sent, layout.codes))]
            else:
                fields = [pack_messages(_of(sent, tokens)) for tokens in self._heard]
        found = fields if apart else [*fields, [*packets]]
        return found if len(found) > 1 else found[0]


def _of(sent: Sent, tokens: np.ndarray) -> Sent:
    spoken = None if sent.spoken is None else sent.spoken[tokens]
    return Sent(sent.codes[tokens], sent.wire[tokens], spoken)
