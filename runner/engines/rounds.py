"""The rounds of one batch on actors: submitted ahead, collected in order, replayed where a process was lost.

Nothing is fetched while rounds are submitted: a round's packets go from actors to the hub, and what it makes
of them to the actors, while the next ones are on their way. What the hub handed on is kept until the batch
ends, so that an actor that was lost hears it again. Ray itself repeats no call: it knows of no workspaces.
Nor does it order them: each needs what the one before it gave. (In an ordered queue, a call that went down
with a process holds up those behind it for half a minute.)
"""

from collections.abc import Callable, Iterator
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from agents.step import Detail, Report, Sent, System
from runner.engines.actors import OutOfStepError, Play
from runner.engines.base import Outcome, Rows, join_reports, join_sent, rows_of, some_rows
from runner.engines.packets import Layout, unpack

if TYPE_CHECKING:
    from topology.mixing import Mixing

_INLINE = 2**15  # bytes of reports of a block up to which they go through the hub
_KEPT = 2**28  # bytes of what was handed on that are kept; beyond, a lost actor plays the batch anew
_LOOK = 5.0  # seconds without an answer after which the head is looked for
_LOSSES = 50  # in one batch, after which the run is given up
_PATIENCE = 180.0  # seconds for a process that is started anew


class LostError(Exception):
    """What was handed on cannot be had any more."""


class Rounds:
    """One batch of prompts on actors and a hub.

    Args:
        key: names the batch.
        actors: one for each block.
        hub: between them.
        system: what is simulated.
        mixing: who hears whom.
        prompts: those of the batch.
        parts: positions of each block.
        detail: report the workspaces too.
        messages: hand back the messages too.
        check_head: called from time to time while nothing comes; raises if the head of the cluster is gone.
    """

    def __init__(
        self,
        key: str,
        actors: list[Any],
        hub: Any,
        system: System,
        mixing: "Mixing",
        prompts: range,
        parts: list[np.ndarray],
        detail: bool,
        messages: bool,
        check_head: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_head = check_head
        self.actors, self.hub, self.parts, self.messages = actors, hub, parts, messages
        self.last = system.rounds
        channel, codes = system.channel, system.policy.codes
        code = "u1" if codes <= 256 else "u2"
        layout = Layout(codes, channel.channels, len(prompts), code, channel.wire_type.str)
        largest = 8 * len(parts[0]) * len(prompts)
        shared = mixing.is_shared
        # Blocks need not be consecutive: what comes from all stands in their order, and is put in place here.
        order = np.concatenate(parts)
        place = np.argsort(order)
        self._place = None if (order == place).all() else place
        self.apart = detail or largest > _INLINE
        play = Play(key, system, prompts, layout, self.apart, detail, messages, shared)
        self._key, self._play, self._layout, self._shared = key, ray.put(play), layout, shared
        rows = rows_of(mixing)
        self._heard: list[np.ndarray] | None = None
        if shared:
            self._rows = [_own(rows, part) for part in parts]
            each = 24 * codes * len(prompts)
        else:
            found = [some_rows(rows, part) for part in parts]
            self._rows, self._heard = [own for own, _ in found], [place[heard] for _, heard in found]
            each = (
                sum(map(len, self._heard))
                * len(prompts)
                * channel.channels
                * (2 + channel.wire_type.itemsize)
            )
        self._hub_rows = ray.put(rows) if shared else None
        self._kept = max(1, _KEPT // max(each, 1))
        self._fields: dict[int, list[Any]] = {}
        self._told: dict[int, list[Any]] = {}
        self._losses = 0

    def outcomes(self) -> Iterator[Outcome]:
        """The rounds in order; what was fetched is let go."""
        self._start_hub()
        self._submit(0)
        empty = (0, self._layout.channels, self._layout.prompts)
        clipped, scalars, before = np.zeros(empty, dtype=bool), 0, None
        for index in range(self.last + 1):
            began = perf_counter()
            sent, report = self._in_place(*self._collected(index))
            self._told.pop(index)
            self._fields.pop(index - self._kept, None)
            yield Outcome(
                index, report, before if self.messages else None, clipped, scalars, perf_counter() - began
            )
            clipped, scalars, before = report.clipped, report.scalars, sent

    def _start_hub(self) -> None:
        """The batch on the hub; what it gives is asked for by all exchanges, which so wait for it."""
        start = self.hub.start
        self._playing = start.remote(self._key, self._layout, self.apart, self._hub_rows, self._heard)

    def _start(self, block: int) -> Any:
        """Round 0 of one block."""
        start = self.actors[block].start.options(num_returns=2 if self.apart else 1)
        return start.remote(self._play, self.parts[block], self._rows[block])

    def _step(self, block: int, index: int) -> Any:
        """One round of one block, which hears what was handed on before it."""
        fields = self._fields[index]
        field = fields[0] if self._shared else fields[block]
        step = self.actors[block].step.options(num_returns=2 if self.apart else 1)
        return step.remote(self._key, index, field)

    def _submit(self, first: int, wanted: int = 0) -> None:
        """Send the rounds from `first` on their way; reports before `wanted` were collected already."""
        blocks = range(len(self.parts))
        for index in range(first, self.last + 1):
            packets = [self._start(block) if index == 0 else self._step(block, index) for block in blocks]
            said, told = packets, packets
            if self.apart:
                said, told = [packet[0] for packet in packets], [packet[1] for packet in packets]
            if index < self.last:
                fields = 1 if self._shared else len(self.parts)
                found = self.hub.exchange.options(num_returns=fields + (not self.apart)).remote(
                    self._playing, *said
                )
                found = found if isinstance(found, list) else [found]
                self._fields[index + 1] = found[:fields]
                told = told if self.apart else found[fields:]
            if index >= wanted:
                self._told[index] = told

    def _collected(self, index: int) -> tuple[Sent | None, Report]:
        """Messages and report of a round, after as many losses as it takes."""
        while True:
            try:
                told = ray.get(self._told[index], timeout=_LOOK)
                break
            except ray.exceptions.GetTimeoutError:
                self._check_head()
            except ray.exceptions.RayTaskError as failure:
                if not isinstance(failure.cause, OutOfStepError | ray.exceptions.RayError):
                    raise
                self._recover(index, failure)
            except ray.exceptions.RayError as failure:
                self._recover(index, failure)
        if not self.apart:
            packets = told if index == self.last else told[0]
            return unpack(packets, self._layout)
        sents = [sent for sent, _ in told if sent is not None]
        return join_sent(sents) if sents else None, join_reports([report for _, report in told])

    def _in_place(self, sent: Sent | None, report: Report) -> tuple[Sent | None, Report]:
        """Messages and report with positions in order."""
        place = self._place
        if place is None:
            return sent, report

        def moved(part: Any) -> Any:
            return part[place] if isinstance(part, np.ndarray) and len(part) else part

        if sent is not None:
            sent = Sent(*map(moved, sent))
        detail = None if report.detail is None else Detail(*map(moved, report.detail))
        error, effective, clipped = map(moved, report[:3])
        return sent, Report(error, effective, clipped, report.scalars, detail)

    def _recover(self, index: int, failure: Exception) -> None:
        """Bring every process to the end of the round before, and send the rest on its way anew."""
        self._losses += 1
        if self._losses > _LOSSES:
            raise failure
        at_hub, *at = self._reached([self.hub, *self.actors])
        if at_hub < 0:
            self._start_hub()
        first = (
            index  # or, where what the hub handed on was lost with its node, the round in whose end it did
        )
        while first and not self._can_be_had(first):
            first -= 1
        try:
            self._replay(
                [block for block, reached in enumerate(at) if reached not in (first - 1, first)], first - 1
            )
        except LostError:
            first = 0
        self._submit(first, wanted=index)

    def _can_be_had(self, index: int) -> bool:
        """Whether what was handed on for a round can still be had."""
        try:
            ray.get(self._fields.get(index, []))
        except ray.exceptions.RayError:
            return False
        return True

    def _reached(self, processes: list[Any]) -> list[int]:
        """The rounds that processes are in, once all are up."""
        until = monotonic() + _PATIENCE
        while True:
            asked = [process.reached.remote(self._key) for process in processes]
            try:
                return list(ray.get(asked, timeout=_PATIENCE / 4))
            except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
                self._check_head()
                if monotonic() > until:
                    raise
                sleep(0.02)

    def _replay(self, blocks: list[int], end: int) -> None:
        """Let blocks that were lost hear again what was handed on.

        Raises:
            LostError: if that cannot be had any more.
        """
        if end < 0 or not blocks:
            return
        if any(index not in self._fields for index in range(1, end + 1)):
            raise LostError
        replays = []
        for block in blocks:
            fields = [self._fields[index][0 if self._shared else block] for index in range(1, end + 1)]
            replay = self.actors[block].replay
            replays.append(replay.remote(self._play, self.parts[block], self._rows[block], *fields))
        try:
            ray.get(replays)
        except ray.exceptions.RayActorError:  # lost again: it will say so when it is asked for the next round
            return
        except ray.exceptions.RayError:
            raise LostError from None


def _own(rows: Rows, part: np.ndarray) -> Rows:
    """The one row of all, cut to the tokens of a block."""
    return Rows(np.array([0, len(part)]), np.arange(len(part), dtype=np.int32), rows.weights[part], len(part))
