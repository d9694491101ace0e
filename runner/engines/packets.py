"""What a step sends, as one string of bytes: Ray takes longer to wrap a few small arrays than to send them.

A packet of n tokens holds codes and wire, which scalars were spoken if not all, what was clipped, errors, and
effective numbers, behind a head of three integers: n, which of these there are, and the number of scalars.
"""

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from agents.step import Aggregate, Report, Sent
from runner.engines.base import join_reports, join_sent

_SENT, _SPOKEN, _HEARD = 1, 2, 4


class Layout(NamedTuple):
    """What is the same for all packets of a simulation.

    Attributes:
        codes: C, which the sums are over.
        channels: K.
        prompts: B.
        code: type of a code.
        wire: type of a scalar on the wire.
    """

    codes: int
    channels: int
    prompts: int
    code: str
    wire: str


def pack(sent: Sent | None, report: Report) -> bytes:
    """Messages that begin a round, and the report on the one before, as a packet."""
    spoken = None if sent is None else sent.spoken
    flags = _SENT * (sent is not None) + _SPOKEN * (spoken is not None) + _HEARD * (len(report.effective) > 0)
    parts: list[bytes] = [np.array([len(report.error), flags, report.scalars], dtype=np.int64).tobytes()]
    if sent is not None:
        parts += [sent.codes.tobytes(), sent.wire.tobytes()]
        parts += [] if spoken is None else [spoken.tobytes()]
        parts.append(report.clipped.tobytes())
    return b"".join((*parts, report.error.tobytes(), report.effective.tobytes()))


def unpack(packets: list[bytes], layout: Layout) -> tuple[Sent | None, Report]:
    """Messages and report of consecutive blocks as one."""
    sents: list[Sent] = []
    reports: list[Report] = []
    for (head, _), group in groupby(packets, lambda packet: (packet[:16], len(packet))):
        tokens, flags = np.frombuffer(head, dtype=np.int64).tolist()
        found = np.frombuffer(b"".join(group), dtype=_record(tokens, flags, layout))
        clipped = np.empty((0, layout.channels, layout.prompts), dtype=bool)
        if flags & _SENT:
            spoken = _joined(found["spoken"]) if flags & _SPOKEN else None
            sents.append(Sent(_joined(found["codes"]), _joined(found["wire"]), spoken))
            clipped = _joined(found["clipped"])
        effective = _joined(found["effective"]) if flags & _HEARD else np.empty((0, layout.prompts))
        scalars = int(found["scalars"].sum())
        reports.append(Report(_joined(found["error"]), effective, clipped, scalars, None))
    return join_sent(sents) if sents else None, join_reports(reports)


def pack_messages(sent: Sent) -> bytes:
    """Messages without a report."""
    flags = _SENT + _SPOKEN * (sent.spoken is not None)
    head = np.array([len(sent.wire), flags], dtype=np.int64).tobytes()
    spoken = b"" if sent.spoken is None else sent.spoken.tobytes()
    return b"".join((head, sent.codes.tobytes(), sent.wire.tobytes(), spoken))


def unpack_messages(packets: list[bytes], layout: Layout) -> Sent:
    """Messages of consecutive blocks as one."""
    sents = []
    for (head, _), group in groupby(packets, lambda packet: (packet[:16], len(packet))):
        tokens, flags = np.frombuffer(head, dtype=np.int64).tolist()
        found = np.frombuffer(b"".join(group), dtype=_messages(tokens, flags, layout))
        spoken = _joined(found["spoken"]) if flags & _SPOKEN else None
        sents.append(Sent(_joined(found["codes"]), _joined(found["wire"]), spoken))
    return join_sent(sents)


def pack_sums(sums: Aggregate) -> bytes:
    """Sums of one row."""
    return b"".join(part.tobytes() for part in sums)


def unpack_sums(packet: bytes, layout: Layout) -> Aggregate:
    """Sums of one row."""
    return Aggregate(*np.frombuffer(packet, dtype=np.int64).reshape(3, 1, layout.codes, layout.prompts))


def _messages(tokens: int, flags: int, layout: Layout) -> np.dtype[np.void]:
    shape = (tokens, layout.channels, layout.prompts)
    fields: list[Any] = [("tokens", "i8"), ("flags", "i8")]
    fields += [("codes", layout.code, shape), ("wire", layout.wire, shape)]
    return np.dtype(fields + ([("spoken", "?", shape)] if flags & _SPOKEN else []))


def _record(tokens: int, flags: int, layout: Layout) -> np.dtype[np.void]:
    shape = (tokens, layout.channels, layout.prompts)
    fields: list[Any] = []
    if flags & _SENT:
        fields = [("codes", layout.code, shape), ("wire", layout.wire, shape)]
        fields += ([("spoken", "?", shape)] if flags & _SPOKEN else []) + [("clipped", "?", shape)]
    fields.append(("error", "f8", (tokens, layout.prompts)))
    if flags & _HEARD:
        fields.append(("effective", "f8", (tokens, layout.prompts)))
    return np.dtype([("tokens", "i8"), ("flags", "i8"), ("scalars", "i8"), *fields])


def _joined(parts: np.ndarray) -> np.ndarray:
    """Consecutive blocks [blocks, n, ...] as one, aligned."""
    return np.ascontiguousarray(parts).reshape(-1, *parts.shape[2:])
