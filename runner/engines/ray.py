"""The Ray engine: one actor for each block of token positions, and a hub between them.

Here is how a cluster is joined or started, and actors with it; `runner.engines.rounds` plays on them.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from time import monotonic, sleep
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import numpy as np
import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agents.step import System
from analysis.guard import PACKAGES
from analysis.resources import available_cores, available_memory
from runner.engines.actors import Hub, TokenActor
from runner.engines.base import Outcome
from runner.engines.environment import prepare
from runner.engines.placement import homes
from runner.engines.rounds import Rounds
from runner.errors import RunError, UsageError, expect, expect_count
from runner.source import fingerprint, folder_of
from topology.partition import few_cuts

if TYPE_CHECKING:  # a token actor loads neither the progress nor networkx
    from runner.progress import Progress
    from topology.mixing import Mixing


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # an actor is one of many on its cores
# Ray starts a process ahead for each core that it is told of, and no actor asks for cores: a hub and an actor
# there always are, and more would stay idle.
_AHEAD = 2
_ACTOR_BYTES = 60 * 2**20  # memory of an idle actor process
_RESTARTS = 20  # of an actor that dies: one that dies whenever it starts ends the run
_GRACE = 3  # seconds in which processes end by themselves
_KNOCKS = 4  # at the head, before it is taken for lost
_NOTED = 0.5  # seconds between two looks for new ones
_STALLED = 180  # seconds without one more actor that is up
_STARTING = 4  # actors for each core that are started at a time


def connect(address: str | None = None, folder: str | None = None, ahead: int | None = _AHEAD) -> bool:
    """Join the named cluster, the one in RAY_ADDRESS, or start one here; true if it was started.

    Args:
        address: of a running cluster.
        folder: where one that is started keeps its sockets and logs.
        ahead: processes that one that is started keeps ready, where there are so many cores; all if None.

    Raises:
        UsageError: if a cluster was named and cannot be joined; none is started in its place. Or if the
            folder of one that is started here could not be written.
    """
    if ray.is_initialized():
        return False
    found = prepare(address, folder)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if found is not None:
        folders = [str(folder_of(name)) for name in PACKAGES]
        code = {"py_modules": folders, "env_vars": _ONE_THREAD}
        with _in_order("the cluster could not be joined"):
            ray.init(address=found, runtime_env=code, **options)
        return False
    with _inherited(_ONE_THREAD), _in_order("Ray could not be started"):
        ray.init(
            num_cpus=min(available_cores(), ahead or available_cores()), include_dashboard=False, **options
        )
    return True


def leave(owned: bool) -> None:
    """End the cluster, if it was started here."""
    if owned:
        ray.shutdown()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of Ray as one of ours; a token's own failure stays what it is in process.

    Raises:
        RunError: saying what failed, and how.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as failure:
        if isinstance(failure.cause, ArithmeticError | np.linalg.LinAlgError):
            raise failure.cause from None
        raise RunError(f"{what}: {type(failure.cause).__name__}: {failure.cause}") from failure
    except ray.exceptions.ActorDiedError as failure:
        words = str(failure).rstrip().splitlines()[-1]  # of what its start raised; else what Ray may know
        if "worker process has died" in words:
            words = f"an actor died, and did so again after {_RESTARTS} new starts; most often for want of "
            words += "memory: take more run.tokens_per_actor, or a smaller run.batch"
        raise RunError(f"{what}: {words}") from failure
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as failure:
        raise RunError(f"{what}: {failure}") from failure


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
def _in_order(what: str) -> Iterator[None]:
    """Leave nothing half started behind, and keep what this process does on SIGTERM.

    Ray sets a handler that ends the process in the middle of whatever it does.

    Raises:
        RunError: saying what failed, whatever Ray raised.
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
        if isinstance(failure, Exception):
            raise RunError(f"{what}: {failure}") from failure
        raise
    restore()


class RayEngine:
    """Plays the rounds on Ray actors, which stay alive from one simulation to the next.

    Attributes:
        tokens_per_actor: positions that an actor holds; "auto" for one actor on each core of the cluster.

    Raises:
        UsageError: if an actor would hold no token, or a cluster was named and cannot be joined.
    """

    name = "ray"

    def __init__(
        self,
        tokens_per_actor: int | Literal["auto"] = 1,
        address: str | None = None,
        progress: "Progress | None" = None,
        folder: str | None = None,
    ) -> None:
        if tokens_per_actor != "auto":
            expect_count("tokens_per_actor", tokens_per_actor)
        expect("address", address, (str, NoneType), 'that of a running Ray cluster, "host:port", or None')
        self.tokens_per_actor = tokens_per_actor
        self._owned = connect(address, folder)
        self._head = str(ray.get_runtime_context().gcs_address)
        self._display = progress
        self.actors: list[Any] = []
        self.hub: Any = None
        self._homes: list[str] = []  # nodes on which the actors were started
        self._workers: list[psutil.Process] = []
        self._runs, self._name = 0, uuid4().hex

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
        parts = few_cuts(mixing.weights, self._per_actor(mixing.tokens))
        actors = self._ready(len(parts))
        self._runs += 1
        run = self._runs
        try:
            key = f"{self._name}-{run}"
            rounds = Rounds(
                key, actors, self.hub, system, mixing, prompts, parts, detail, messages, self._check_head
            )
            outcomes, index = rounds.outcomes(), 0
            while True:
                with _told(f"round {index} failed on the cluster"):
                    outcome = next(outcomes, None)
                if outcome is None:
                    break
                yield outcome
                index += 1
        except Exception:
            raise
        except BaseException:  # rounds that nobody waits for are in flight: the next run would wait for them
            if run == self._runs:
                self._end_actors()
            raise

    def _check_head(self) -> None:
        """Where the head of a cluster is gone, Ray itself would end this process after a minute.

        Raises:
            RunError: if it does not answer, several times in a row.
        """
        host, _, port = self._head.rpartition(":")
        for attempt in range(_KNOCKS):
            try:
                socket.create_connection((host, int(port)), timeout=_GRACE).close()
                return
            except OSError:
                sleep(attempt)
        self.actors, self.hub = [], None  # they are beyond reach
        raise RunError(f"the head of the cluster, {host}:{port}, does not answer any more: it is lost")

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        self._end_actors()
        if self._owned:
            ray.shutdown()
            self._owned = False
            # Where a signal ended the process that started them, they would wait for it for some time.
            for process in psutil.wait_procs(self._workers, timeout=_GRACE)[1]:
                with suppress(psutil.Error):
                    process.kill()

    def _end_actors(self) -> None:
        with suppress(ray.exceptions.RayError):  # of a cluster that is gone
            for actor in [*self.actors, *([self.hub] if self.hub else [])]:
                ray.kill(actor)
        self.actors, self.hub, self._homes = [], None, []

    def _ready(self, count: int) -> list[Any]:
        """At least `count` actors that run this very code."""
        self._check_room(count - len(self.actors))
        with _told("actors could not be started"):
            if self.hub is None:
                (self.hub,) = self._start(Hub, 1)
            if count > len(self.actors):
                self.actors += self._start(TokenActor, count - len(self.actors))
        return self.actors[:count]

    def _start(self, kind: type, count: int) -> list[Any]:
        """New actors, all of them up; none if that fails or is interrupted."""
        options: dict[str, Any] = {
            "num_cpus": 0,
            "max_restarts": _RESTARTS,
            "max_task_retries": 0,
            "allow_out_of_order_execution": True,
        }
        actor: Any = ray.remote(**options)(kind)
        fresh: list[Any] = []
        try:
            self._bring_up([actor.options(**place) for place in self._places(kind, count)], fresh)
        except BaseException:
            for one in fresh:
                ray.kill(one)
            self._homes = self._homes[: len(self.actors)]
            raise
        return fresh

    def _places(self, kind: type, count: int) -> list[dict[str, Any]]:
        """Where new actors are started. One whose node is lost is started again on any other."""
        if self._owned:
            return [{}] * count
        nodes = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
        if kind is not TokenActor or len(nodes) < 2:
            return [{}] * count
        names = sorted(nodes)
        held = [self._homes.count(name) for name in names]
        chosen = [names[index] for index in homes(count, [nodes[name] for name in names], held)]
        self._homes += chosen
        return [{"scheduling_strategy": NodeAffinitySchedulingStrategy(name, soft=True)} for name in chosen]

    def _note_workers(self) -> None:
        """Remember processes of our own cluster: a signal to the whole group ends what they are found by."""
        if self._owned:
            self._workers += [process for process in _workers() if process not in self._workers]

    def _bring_up(self, wanted: list[Any], fresh: list[Any]) -> None:
        """Start actors, some at a time, until all are up; say how many are, and what takes long.

        Processes that all start at once would take each other's time until none is up for minutes.
        """
        pending: set[Any] = set()
        count, last = len(wanted), monotonic()
        noted, most = last, _STARTING * self._cores()
        fewer = self._fewer(count)
        label = "starting actors" if count > 1 else "starting an actor"
        showing = self._display.task(label, count) if self._display else nullcontext()
        with showing as advance:
            while pending or len(fresh) < count:
                for one in wanted[len(fresh) : len(fresh) + most - len(pending)]:
                    fresh.append(one.remote())
                    pending.add(fresh[-1].fingerprint.remote())
                done, rest = ray.wait(list(pending), num_returns=1, timeout=1.0)
                if monotonic() - noted > _NOTED or not rest:
                    self._note_workers()
                    noted = monotonic()
                for remote in ray.get(done):
                    _check_code(remote)
                pending, up = set(rest), len(fresh) - len(rest)
                last = monotonic() if done else last
                if monotonic() - last > _STALLED:
                    raise RunError(
                        f"{up} of {count} actors are up, and none more came up in {_STALLED} s: "
                        f"{_waits_for()}. Take fewer: {fewer}"
                    )
                if advance:
                    advance(up, f"{up} of {count} are up; {_waits_for()}; {fewer}")

    def _cores(self) -> int:
        """Cores of the cluster."""
        if self._owned:
            return available_cores()
        return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]

    def _per_actor(self, tokens: int) -> int:
        """Positions that an actor holds."""
        return -(-tokens // self._cores()) if self.tokens_per_actor == "auto" else self.tokens_per_actor

    def _fewer(self, count: int) -> str:
        """What would start sooner."""
        cores = self._cores()
        if count <= cores:
            return 'run.engine = "local" needs none'
        return f'run.tokens_per_actor = "auto" needs {cores} of them'

    def _check_room(self, more: int) -> None:
        """Refuse more actors than this machine, or the cluster, has memory for."""
        free, needed = available_memory(), more * _ACTOR_BYTES
        if not self._owned:
            free = int(ray.cluster_resources().get("memory", needed))  # type: ignore[no-untyped-call]
        if needed > free:
            enough = -(-self._per_actor(more) * needed // free)
            possible = f'"auto", or {enough:,} or more here: {more:,} more actors take '
            possible += f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
            raise UsageError("run.tokens_per_actor", self.tokens_per_actor, possible)


def _workers() -> list[psutil.Process]:
    """Processes of the cluster that this process started."""
    with suppress(psutil.Error):
        children = psutil.Process().children()
        return [
            one for child in children if child.name() == "raylet" for one in child.children(recursive=True)
        ]
    return []


def _check_code(remote: str) -> None:
    """Refuse actors that run other code than this process."""
    if remote != fingerprint():
        raise RunError(
            f"an actor runs tokenfield {remote}, this process {fingerprint()}: install the same version on "
            "every node"
        )


def _waits_for() -> str:
    """What keeps actors from being up: an actor reserves no core, so it is memory, or time."""
    if available_memory() < 2 * _ACTOR_BYTES:
        return "no memory is left for more"
    busy = psutil.getloadavg()[0] / available_cores()
    return "their processes are being started" + (f" ({busy:.0f} want each core)" if busy >= 2 else "")
