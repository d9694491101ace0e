"""The seam between what is simulated and where: an engine plays the rounds of one system."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from agents.kernels import AVAILABLE
from agents.kernels import sums as loops
from agents.step import Aggregate, Detail, Report, Sent, System

if TYPE_CHECKING:  # a token actor loads no networkx
    from topology.mixing import Mixing

_AGGREGATED_BYTES = 2**28  # sums for so many receivers are held at once


class Outcome(NamedTuple):
    """What all token positions did in one round, positions in order.

    Attributes:
        round: 0 is the start, 1..L follow a field.
        report: of all positions at the end of the round.
        sent: messages that were sent at the beginning of the round, if messages were asked for.
        clipped: which scalars of the round's messages did not fit; no rows in round 0 [N, K, B].
        scalars: number of scalars that were sent in the round.
        seconds: wall-clock time of the round, as far as the engine can tell.
    """

    round: int
    report: Report
    sent: Sent | None
    clipped: np.ndarray
    scalars: int
    seconds: float


@runtime_checkable
class Engine(Protocol):
    """Plays rounds; the same bits come out of every engine."""

    @property
    def name(self) -> str:
        """Name in traces and on the command line."""
        ...

    def play(
        self,
        system: System,
        mixing: "Mixing",
        prompts: range,
        *,
        detail: bool = False,
        messages: bool = False,
    ) -> Iterator[Outcome]:
        """The rounds 0..L of a batch of prompts, in order.

        Args:
            system: what is the same at all positions.
            mixing: who hears whom.
            prompts: consecutive prompt indices.
            detail: report the workspaces too.
            messages: hand back the messages too.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


def join_reports(reports: list[Report]) -> Report:
    """The reports of consecutive blocks as one."""
    details = [report.detail for report in reports if report.detail is not None]
    return Report(
        np.concatenate([report.error for report in reports]),
        np.concatenate([report.effective for report in reports]),
        np.concatenate([report.clipped for report in reports]),
        sum(report.scalars for report in reports),
        Detail(*(np.concatenate(parts) for parts in zip(*details, strict=True))) if details else None,
    )


def aggregate_blocks(mixing: "Mixing", sent: Sent, codes: int, parts: list[np.ndarray]) -> list[Aggregate]:
    """What each block of receivers hears; a single aggregate if all hear the same.

    The messages are looked through once for many blocks: for each block anew, that would be most of a round.
    """
    if mixing.is_shared:
        return [Aggregate(*_sums(mixing, sent, codes, np.zeros(1, dtype=np.int64)))]
    at_once = max(1, _AGGREGATED_BYTES // (24 * codes * sent.wire.shape[2] * len(parts[0])))
    found: list[Aggregate] = []
    for first in range(0, len(parts), at_once):
        some = parts[first : first + at_once]
        sums = _sums(mixing, sent, codes, np.concatenate(some))
        ends = np.cumsum([len(part) for part in some])
        found += [
            Aggregate(*(rows[end - len(part) : end] for rows in sums))
            for part, end in zip(some, ends, strict=True)
        ]
    return found


def _sums(
    mixing: "Mixing", sent: Sent, codes: int, receivers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What some receivers hear, code by code."""
    if not AVAILABLE:
        return mixing.aggregate(sent.codes, sent.wire, codes, receivers, sent.spoken)
    graph, shape = mixing.weights, (len(receivers), codes, sent.wire.shape[2])
    total, weight, square = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    loops.aggregate(
        *(np.asarray(part, dtype=np.int64) for part in (graph.indptr, graph.indices, graph.data)),
        receivers,
        sent.codes.astype(np.int64),
        sent.wire.astype(np.int64),
        np.zeros((0, 0, 0), dtype=bool) if sent.spoken is None else sent.spoken,
        sent.spoken is None,
        total,
        weight,
        square,
    )
    return total, weight, square


def join_sent(blocks: list[Sent]) -> Sent:
    """The messages of consecutive blocks as one."""
    codes, wire = (np.concatenate([block[part] for block in blocks]) for part in range(2))
    spoken = [block.spoken for block in blocks if block.spoken is not None]
    return Sent(codes, wire, np.concatenate(spoken) if spoken else None)
