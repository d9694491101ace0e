"""The Ray engine: one actor for each block of token positions, a hub that sums integers.

A step is a pure function of its arguments. The workspace travels as an object reference, so an actor
that is lost and restarted computes the same bits from the same arguments. Nothing is fetched while
rounds are submitted: all rounds are in flight, and results are collected in order.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from agents.step import Aggregate, Block, Sent, Step, System, draw_block, step
from analysis.guard import PACKAGES
from analysis.resources import available_cores, available_memory
from runner.engines.base import Outcome, aggregate_blocks, join_reports, join_sent
from runner.errors import RunError, UsageError
from runner.source import fingerprint, folder_of
from topology.partition import blocks

if TYPE_CHECKING:  # a token actor loads neither the progress nor networkx
    from runner.progress import Progress
    from topology.mixing import Mixing


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # an actor is one of many on its cores
_ACTOR_BYTES = 60 * 2**20  # memory of an idle actor process


class TokenActor:
    """One block of token positions. It keeps no state but a memo of what its tokens know."""

    def __init__(self) -> None:
        self._key = ""
        self._block: Block | None = None

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
        aggregate: Aggregate | None,
        round: int,
        detail: bool,
    ) -> Step:
        """One step of the block; `key` names (system, positions, prompts)."""
        if self._block is None or key != self._key:
            self._block, self._key = draw_block(system, positions, prompts), key
        return step(system, self._block, state, sent, aggregate, round, detail)


class Hub:
    """Sums what all tokens said, for every block of receivers."""

    def aggregate(
        self, mixing: "Mixing", count: int, parts: list[np.ndarray], *sent: Sent
    ) -> Aggregate | list[Aggregate]:
        """One aggregate for each block; a single one if all receivers hear the same."""
        aggregates = aggregate_blocks(mixing, join_sent(list(sent)), count, parts)
        return aggregates if len(aggregates) > 1 else aggregates[0]


def connect(address: str | None = None) -> bool:
    """Join the named cluster, the one in RAY_ADDRESS, or start one here; true if it was started.

    Raises:
        UsageError: if a cluster was named and cannot be joined; none is started in its place.
    """
    if ray.is_initialized():
        return False
    named = address or os.environ.get("RAY_ADDRESS")
    if named:
        _check_reachable(named)
        folders = [str(folder_of(name)) for name in PACKAGES]
        try:
            with _in_order():
                ray.init(
                    address=named,
                    runtime_env={"py_modules": folders, "env_vars": _ONE_THREAD},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (ConnectionError, RuntimeError, ValueError) as failure:
            raise UsageError(
                "--address", named, f"the address of a running Ray cluster ({failure})"
            ) from None
        return False
    with _inherited(_ONE_THREAD), _in_order():
        ray.init(
            num_cpus=available_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    return True


@contextmanager
def _inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the processes that are started meanwhile, and of theirs.

    A runtime environment would make an actor's start twice as long: Ray then loads itself once to set it up,
    and once more in the actor.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _in_order() -> Iterator[None]:
    """Leave nothing half started behind, and keep what this process does on SIGTERM.

    Ray sets a handler that ends the process in the middle of whatever it does.
    """
    before = signal.getsignal(signal.SIGTERM)

    def restore() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)

    try:
        yield
    except BaseException as failure:
        ray.shutdown()
        restore()
        if isinstance(failure, SystemExit):  # from Ray's handler, which was there already
            signal.raise_signal(signal.SIGTERM)
        raise
    restore()


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as failure:
        raise UsageError("--address", address, f"host:port of a running Ray cluster ({failure})") from None


class RayEngine:
    """Plays the rounds on Ray actors, which stay alive from one simulation to the next.

    Attributes:
        tokens_per_actor: positions that an actor holds.
    """

    name = "ray"

    def __init__(
        self, tokens_per_actor: int = 1, address: str | None = None, progress: "Progress | None" = None
    ) -> None:
        self.tokens_per_actor = tokens_per_actor
        self._owned = connect(address)
        self._display = progress
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
        aggregates: list[Any] = [None] * len(parts)
        reports: list[list[Any]] = []
        spoken: list[list[Any]] = []
        for index in range(system.rounds + 1):
            if index:
                summed = self.hub.aggregate.options(num_returns=heard).remote(
                    shared_mixing, system.policy.codes, parts, *sent
                )
                aggregates = [summed] * len(parts) if heard == 1 else summed
            spoken.append(sent if messages and index else [])
            triples = [
                actor.step.options(num_returns=3).remote(
                    f"{self._runs}", shared_system, part, prompts, state, own, aggregate, index, detail
                )
                for actor, part, state, own, aggregate in zip(
                    actors, parts, states, sent, aggregates, strict=True
                )
            ]
            states, sent, told = ([triple[k] for triple in triples] for k in range(3))
            reports.append(told)
        del states, sent, aggregates
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
                        raise RunError(
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
            raise UsageError("run.tokens_per_actor", self.tokens_per_actor, possible)


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
        except ray.exceptions.RayTaskError as failure:
            if isinstance(failure.cause, ArithmeticError | np.linalg.LinAlgError):
                raise failure.cause from None  # a token's own failure, as in process
            raise RunError(f"round {index} failed on the cluster: {failure}") from None
        except ray.exceptions.RayError as failure:
            raise RunError(f"round {index} failed on the cluster: {failure}") from None
        reports[index], spoken[index] = [], []
        yield Outcome(index, report, sent, clipped, scalars, perf_counter() - began)
        clipped, scalars = report.clipped, report.scalars
