"""The seam between what is simulated and where: an engine plays the rounds of one system."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from agents.kernels import AVAILABLE
from agents.kernels import sums as loops
from agents.step import Aggregate, Detail, Report, Sent, System

if TYPE_CHECKING:  # a token actor loads no networkx
    from topology.mixing import Mixing


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


class Rows(NamedTuple):
    """Rows of a graph, compressed: row r hears `senders[starts[r]:starts[r + 1]]` with these integer weights.

    Attributes:
        starts: of each row, and the end of the last [rows + 1].
        senders: whom it hears.
        weights: with which weight.
        tokens: number of those that send.
    """

    starts: np.ndarray
    senders: np.ndarray
    weights: np.ndarray
    tokens: int


def rows_of(mixing: "Mixing") -> Rows:
    """All rows of a graph; a single one where all hear the same."""
    graph = mixing.weights
    return Rows(
        np.asarray(graph.indptr, dtype=np.int64),
        np.asarray(graph.indices, dtype=np.int32),
        np.asarray(graph.data, dtype=np.int64),
        mixing.tokens,
    )


def some_rows(rows: Rows, receivers: np.ndarray) -> tuple[Rows, np.ndarray]:
    """Some rows on the tokens that they hear; and which tokens these are."""
    counts = rows.starts[receivers + 1] - rows.starts[receivers]
    starts = np.concatenate([[0], np.cumsum(counts)])
    entries = np.arange(starts[-1]) + np.repeat(rows.starts[receivers] - starts[:-1], counts)
    heard, senders = np.unique(rows.senders[entries], return_inverse=True)
    return Rows(starts, senders.astype(np.int32), rows.weights[entries], len(heard)), heard


def summed(rows: Rows, receivers: np.ndarray, sent: Sent, codes: int) -> Aggregate:
    """What some receivers hear, code by code: exact integers, whatever the order.

    Raises:
        ValueError: if they are not messages of the tokens that the rows hear.
    """
    if rows.tokens != len(sent.wire):
        raise ValueError(f"messages of {len(sent.wire)} tokens, and a graph of {rows.tokens}")
    if not AVAILABLE:
        from scipy.sparse import csr_array

        from topology.mixing import Mixing  # an actor loads no networkx but here

        entries = (rows.weights, rows.senders, rows.starts)
        mixing = Mixing(csr_array(entries, shape=(len(rows.starts) - 1, rows.tokens)))
        return Aggregate(*mixing.aggregate(sent.codes, sent.wire, codes, receivers, sent.spoken))
    shape = (len(receivers), codes, sent.wire.shape[2])
    sums = Aggregate(*(np.zeros(shape, dtype=np.int64) for _ in range(3)))
    asked, wire = (part.astype(np.int64, copy=False) for part in (sent.codes, sent.wire))
    spoken = np.zeros((0, 0, 0), dtype=bool) if sent.spoken is None else sent.spoken
    graph = rows.starts, rows.senders, rows.weights
    loops.aggregate(*graph, receivers, asked, wire, spoken, sent.spoken is None, *sums)
    return sums


def hearing(rows: Rows, sent: Sent, codes: int, receivers: np.ndarray) -> Callable[[np.ndarray], Aggregate]:
    """A function that gives what some receivers hear; one sum for all where the graph has one row.

    Args:
        rows: of the graph, on the tokens that sent.
        sent: what they sent.
        codes: C.
        receivers: all that will be asked for.
    """
    if len(rows.starts) == 2:
        shared = summed(rows, np.zeros(1, dtype=np.int64), sent, codes)
        return lambda some: shared
    if AVAILABLE:
        wide = Sent(sent.codes.astype(np.int64), sent.wire.astype(np.int64), sent.spoken)
        return lambda some: summed(rows, some, wide, codes)
    # numpy looks through all messages for each code: once, not anew for some.
    whole = summed(rows, receivers, sent, codes)
    return lambda some: Aggregate(*(part[some] for part in whole))


def join_sent(blocks: list[Sent]) -> Sent:
    """The messages of consecutive blocks as one."""
    codes, wire = (np.concatenate([block[part] for block in blocks]) for part in range(2))
    if all(block.spoken is None for block in blocks):
        return Sent(codes, wire)
    masks = [np.ones(block.wire.shape, bool) if block.spoken is None else block.spoken for block in blocks]
    return Sent(codes, wire, np.concatenate(masks))
