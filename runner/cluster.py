"""The Ray engine: one actor for each block of token positions, a hub that sums integers.

A step is a pure function of its arguments. The workspace travels as an object reference, so an actor
that is lost and restarted computes the same bits from the same arguments. Nothing is fetched while
rounds are submitted: all rounds are in flight, and results are collected in order.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from agents.step import Place, Sent, Step, System, Tally, step, take_place
from runner.engine import Outcome, join_reports, join_sent, tally_blocks
from runner.errors import RunFailed, UsageError, UsageErrors
from runner.guard import PACKAGES
from runner.memory import available_memory
from runner.source import fingerprint, folder_of
from topology.partition import blocks

if TYPE_CHECKING:  # a token actor loads neither the display nor networkx
    from runner.display import Display
    from topology.mixing import Mixing


_ACTOR_BYTES = 60 * 2**20  # memory of an idle actor process


class TokenActor:
    """One block of token positions. It keeps no state but a memo of what its tokens know."""

    def __init__(self) -> None:
        self._key = ""
        self._place: Place | None = None

    def fingerprint(self) -> str:
        """The code that this actor runs."""
        return fingerprint()

    def step(
        self,
        key: str,
        system: System,
        positions: np.ndarray,
        prompts: range,
        state: Any,
        sent: Sent | None,
        tally: Tally | None,
        round: int,
        detail: bool,
    ) -> Step:
        """One step of the block; `key` names (system, positions, prompts)."""
        if self._place is None or key != self._key:
            self._place, self._key = take_place(system, positions, prompts), key
        return step(system, self._place, state, sent, tally, round, detail)


class Hub:
    """Sums what all tokens said, for every block of receivers."""

    def tally(
        self, mixing: "Mixing", count: int, parts: list[np.ndarray], *sent: Sent
    ) -> Tally | list[Tally]:
        """One tally for each block; a single one if all receivers hear the same."""
        tallies = tally_blocks(mixing, join_sent(list(sent)), count, parts)
        return tallies if len(tallies) > 1 else tallies[0]


def connect(address: str | None = None) -> bool:
    """Join the named cluster, the one in RAY_ADDRESS, or start one here; true if it was started.

    Raises:
        UsageErrors: if a cluster was named and cannot be joined; none is started in its place.
    """
    if ray.is_initialized():
        return False
    named = address or os.environ.get("RAY_ADDRESS")
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if named:
        _knock(named)
        folders = [str(folder_of(name)) for name in PACKAGES]
        try:
            ray.init(
                address=named,
                runtime_env={"py_modules": folders, "env_vars": threads},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as failure:
            raise UsageErrors(
                [UsageError("--address", named, f"the address of a running Ray cluster ({failure})")]
            ) from None
        return False
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": threads},
    )
    return True


def _knock(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as failure:
        raise UsageErrors(
            [UsageError("--address", address, f"host:port of a running Ray cluster ({failure})")]
        ) from None


class RayEngine:
    """Plays the rounds on Ray actors, which stay alive from one simulation to the next.

    Attributes:
        tokens_per_actor: positions that an actor holds.
    """

    name = "ray"

    def __init__(
        self, tokens_per_actor: int = 1, address: str | None = None, display: "Display | None" = None
    ) -> None:
        self.tokens_per_actor = tokens_per_actor
        self._owned = connect(address)
        self._display = display
        self.actors: list[Any] = []
        self.hub: Any = None
        self._runs = 0

    def play(
        self,
        system: System,
        mixing: "Mixing",
        prompts: range,
        *,
        detail: bool = False,
        messages: bool = False,
    ) -> Iterator[Outcome]:
        """The rounds 0..L of a batch of prompts, in order."""
        parts = blocks(mixing.tokens, self.tokens_per_actor)
        actors = self._ready(len(parts))
        heard = 1 if mixing.is_shared else len(parts)
        self._runs += 1
        shared_system, shared_mixing = ray.put(system), ray.put(mixing)
        states: list[Any] = [None] * len(parts)
        sent: list[Any] = [None] * len(parts)
        tallies: list[Any] = [None] * len(parts)
        reports: list[list[Any]] = []
        spoken: list[list[Any]] = []
        for index in range(system.rounds + 1):
            if index:
                summed = self.hub.tally.options(num_returns=heard).remote(
                    shared_mixing, system.policy.codes, parts, *sent
                )
                tallies = [summed] * len(parts) if heard == 1 else summed
            spoken.append(sent if messages and index else [])
            triples = [
                actor.step.options(num_returns=3).remote(
                    f"{self._runs}", shared_system, part, prompts, state, own, tally, index, detail
                )
                for actor, part, state, own, tally in zip(actors, parts, states, sent, tallies, strict=True)
            ]
            states, sent, told = ([triple[k] for triple in triples] for k in range(3))
            reports.append(told)
        del states, sent, tallies
        yield from _collect(reports, spoken, (0, system.channel.channels, len(prompts)))

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        for actor in [*self.actors, *([self.hub] if self.hub else [])]:
            ray.kill(actor)
        self.actors, self.hub = [], None
        if self._owned:
            ray.shutdown()
            self._owned = False

    def _ready(self, count: int) -> list[Any]:
        """At least `count` actors that run this very code."""
        if self._owned:
            self._check_room(count - len(self.actors))
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        if self.hub is None:
            self.hub = ray.remote(**options)(Hub).remote()
        kind: Any = ray.remote(**options)(TokenActor)
        fresh: list[Any] = [kind.remote() for _ in range(count - len(self.actors))]
        self.actors += fresh
        if fresh:
            showing = self._display.task("starting actors", len(fresh)) if self._display else nullcontext()
            with showing as advance:
                for started, remote in enumerate(_as_they_come(fresh), 1):
                    if remote != fingerprint():
                        raise RunFailed(
                            f"an actor runs tokenfield {remote}, this process {fingerprint()}: install the "
                            "same version on every node"
                        )
                    if advance:
                        advance(started, f"{started} of {len(fresh)}")
        return self.actors[:count]

    def _check_room(self, more: int) -> None:
        """Refuse more actors than this machine has memory for."""
        free, needed = available_memory(), more * _ACTOR_BYTES
        if needed > free:
            enough = -(-self.tokens_per_actor * needed // free)
            possible = f"{enough:,} or more here: {more:,} more actors take {needed / 2**30:.1f} GiB, and "
            possible += f"{free / 2**30:.1f} GiB are free"
            raise UsageErrors([UsageError("run.tokens_per_actor", self.tokens_per_actor, possible)])


def _as_they_come(actors: list[Any]) -> Iterator[str]:
    """Fingerprints of actors, in the order in which they are up."""
    pending: set[Any] = {actor.fingerprint.remote() for actor in actors}
    while pending:
        done, rest = ray.wait(list(pending), num_returns=1)
        pending = set(rest)
        yield from ray.get(done)


def _collect(
    reports: list[list[Any]], spoken: list[list[Any]], empty: tuple[int, int, int]
) -> Iterator[Outcome]:
    """Fetch the rounds in order; what was fetched is let go."""
    clipped, scalars = np.zeros(empty, dtype=bool), 0
    for index, told in enumerate(reports):
        began = perf_counter()
        try:
            report = join_reports(ray.get(told))
            sent = join_sent(ray.get(spoken[index])) if spoken[index] else None
        except ray.exceptions.RayError as failure:
            raise RunFailed(f"round {index} failed on the cluster: {failure}") from None
        reports[index], spoken[index] = [], []
        yield Outcome(index, report, sent, clipped, scalars, perf_counter() - began)
        clipped, scalars = report.clipped, report.scalars
