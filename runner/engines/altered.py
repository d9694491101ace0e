"""An engine in this process that alters messages on the way: edges cut or patched, means trimmed, bits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from jaxtyping import Int

from agents.step import Aggregate, Sent, System, draw_block, step
from runner.engines.base import Outcome, Rows, hearing, rows_of
from runner.errors import UsageError
from topology.mixing import Mixing

Edge = tuple[int, int]  # who says, who hears


@dataclass(frozen=True)
class AlteredEngine:
    """Plays all tokens in this process; what a receiver hears is altered, what senders know is not.

    Without alterations the bits are those of every engine. What was altered is not stored with a run: it can
    be read, but neither resumed nor played again. Bits are counted as the experiment has them.

    Attributes:
        edges: pairs (sender, receiver) on which messages are silenced, or taken from another prompt.
        rounds: in which they are; None for all.
        donor: how far the prompt lies behind, among those that are played together, whose message goes over
            the edges instead (path patching); 0 to silence them.
        trim: share of the messages about a code that a receiver leaves out of its mean, at either end.
        bits: bits of a scalar in a round and all that follow it, by round.

    Raises:
        UsageError: in `play`, if an edge or round does not exist, or a mean of unequal weights is trimmed.

    Source: N. Goldowsky-Dill et al., Localizing model behavior with path patching, arXiv:2304.05969; D. Yin
        et al., Byzantine-robust distributed learning, arXiv:1803.01498 (trimmed mean).

    Example:
        >>> AlteredEngine(edges=((0, 1),)).name
        'altered'
    """

    edges: tuple[Edge, ...] = ()
    rounds: tuple[int, ...] | None = None
    donor: int = 0
    trim: float = 0.0
    bits: Mapping[int, int] | None = None

    name = "altered"

    def play(
        self, system: System, mixing: Mixing, prompts: range, *, detail: bool = False, messages: bool = False
    ) -> Iterator[Outcome]:
        """The rounds 0..L of a batch of prompts, in order."""
        rows = rows_of(mixing)
        self._check(system, rows)
        if self.donor and self.donor % len(prompts) == 0:
            possible = f"a number that is no multiple of the {len(prompts)} prompts that are played together"
            raise UsageError("donor", self.donor, possible)
        block = draw_block(system, np.arange(mixing.tokens), prompts)
        clipped, scalars = np.zeros((0, system.channel.channels, len(prompts)), dtype=bool), 0
        state, sent, heard = None, None, system
        for index in range(system.rounds + 1):
            began = perf_counter()
            aggregate = None if sent is None else self._heard(rows, sent, system.policy.codes, index)
            says = self._narrowed(heard, index + 1)
            done = step(says, block, state, sent, aggregate, index, detail, heard=heard.channel)
            before, state, sent, heard = sent, done.state, done.sent, says
            spent = perf_counter() - began
            yield Outcome(index, done.report, before if messages else None, clipped, scalars, spent)
            clipped, scalars = done.report.clipped, done.report.scalars

    def close(self) -> None:
        """Nothing is held."""

    def _check(self, system: System, rows: Rows) -> None:
        for sender, receiver in self.edges:
            inside = 0 <= sender < rows.tokens and 0 <= receiver < rows.tokens
            if not inside or sender not in _senders(rows, receiver)[0]:
                possible = "pairs sender-receiver that the graph has; a token hears itself too"
                raise UsageError("edges", f"{sender}-{receiver}", possible)
        played = range(1, system.rounds + 1)
        for key, rounds in {"rounds": self.rounds, "bits": self.bits}.items():
            if any(index not in played for index in rounds or ()):
                raise UsageError(key, tuple(rounds or ()), f"rounds from 1 to {system.rounds}")
        for bits in (self.bits or {}).values():
            if not 1 <= bits <= 32:
                raise UsageError("bits", bits, "1 to 32")
        if not 0 <= self.trim < 0.5:
            raise UsageError("trim", self.trim, "at least 0 and less than 1/2")
        if self.trim and (rows.weights != 1).any():
            raise UsageError("trim", self.trim, 'a graph of equal weights, graph.mixing = "uniform"')

    def _narrowed(self, system: System, round: int) -> System:
        """The same with the bits that messages have from a round on."""
        if not self.bits or round not in self.bits:
            return system
        return replace(system, channel=replace(system.channel, bits=self.bits[round]))

    def _heard(self, rows: Rows, sent: Sent, codes: int, round: int) -> Aggregate:
        """What all receivers hear; one row for all if they hear the same."""
        everyone = np.arange(rows.tokens)
        due = self.edges if self.rounds is None or round in self.rounds else ()
        if not self.trim:
            plain = hearing(rows, sent, codes, everyone)(everyone)
            if not due:
                return plain
            shape = (rows.tokens, *plain.total.shape[1:])
            result = Aggregate(*(np.broadcast_to(part, shape).copy() for part in plain))
            altered = sorted({receiver for _, receiver in due})
        else:
            altered = everyone.tolist() if due or len(rows.starts) > 2 else [0]
            shape = (len(altered), codes, sent.wire.shape[2])
            result = Aggregate(*(np.zeros(shape, dtype=np.int64) for _ in range(3)))
        for receiver in altered:
            senders, weights = _senders(rows, receiver)
            cut = np.isin(senders, [one for one, other in due if other == receiver])
            sums = _mean(self._said(sent, senders, cut), weights, codes, self.trim)
            for part, own in zip(result, sums, strict=True):
                part[receiver] = own
        return result

    def _said(self, sent: Sent, senders: Int[np.ndarray, " S"], cut: np.ndarray) -> Sent:
        """The messages of some senders, after what happens to them on the way."""
        said, wire = sent.codes[senders], sent.wire[senders]
        spoken = np.ones(wire.shape, bool) if sent.spoken is None else sent.spoken[senders]
        if self.donor:
            for part in (said, wire, spoken):  # indexing made them copies
                part[cut] = np.roll(part[cut], -self.donor, axis=-1)
        else:
            spoken[cut] = False
        return Sent(said, wire, spoken)


def _senders(rows: Rows, receiver: int) -> tuple[Int[np.ndarray, " S"], Int[np.ndarray, " S"]]:
    """Whom a receiver hears, and with which weights; the one row of all serves each."""
    row = 0 if len(rows.starts) == 2 else receiver
    part = slice(rows.starts[row], rows.starts[row + 1])
    return rows.senders[part], rows.weights[part]


def _mean(said: Sent, weights: Int[np.ndarray, " S"], codes: int, trim: float) -> Aggregate:
    """Sums of one receiver, without the largest and smallest share of the messages about each code [C, B]."""
    prompts = said.wire.shape[2]
    wire = said.wire.reshape(-1, prompts).astype(np.int64)
    asked, each = said.codes.reshape(wire.shape), np.repeat(weights, said.wire.shape[1])[:, None]
    assert said.spoken is not None
    spoken = said.spoken.reshape(wire.shape)
    sums = Aggregate(*(np.zeros((codes, prompts), dtype=np.int64) for _ in range(3)))
    for code in range(codes):
        about = spoken & (asked == code)
        if trim:
            count = about.sum(axis=0)
            place = np.argsort(np.argsort(np.where(about, wire, np.iinfo(np.int64).max), axis=0), axis=0)
            beyond = (trim * count).astype(np.int64)
            about &= (place >= beyond) & (place < count - beyond)
        heard = np.where(about, each, 0)
        for part, values in zip(sums, (heard * wire, heard, heard * each), strict=True):
            part[code] = values.sum(axis=0)
    return sums
