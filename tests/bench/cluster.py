"""Actors beside what Ray can do: calls with bytes inline, and an empty chain of actors and a hub."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from agents.step import Sent
from runner.engines.environment import prepare
from runner.engines.local import LocalEngine
from tests.bench.loops import built
from tests.bench.table import Row, compared, medians

prepare()

import ray  # noqa: E402  (reads its environment when imported)

from runner.engines.ray import RayEngine  # noqa: E402


@ray.remote(num_cpus=0)
class Echo:
    """An actor that does nothing but say a packet."""

    def __init__(self, size: int) -> None:
        self.packet = bytes(size)

    def say(self, _: Any) -> bytes:
        """As many bytes as a token would send."""
        return self.packet


@ray.remote(num_cpus=0)
class EchoHub:
    """A hub that does nothing but hand on."""

    def __init__(self, size: int) -> None:
        self.field = bytes(size)

    def exchange(self, *packets: bytes) -> tuple[bytes, list[bytes]]:
        """As many bytes as sums would take, and the packets."""
        return self.field, [*packets]


def measure(repeats: int) -> Iterator[Row]:
    """All rows."""
    engine = RayEngine()
    try:
        for tokens in (16, 32, 64):
            yield from _literal(engine, tokens, 64, 10, repeats)
        yield from _deeper(engine, repeats)
        yield from _blocks(engine, max(1, repeats // 3))
    finally:
        engine.close()


def _playing(engine: Any, tokens: int, prompts: int, rounds: int) -> Any:
    given = built(tokens, prompts, rounds)

    def play() -> None:
        for _ in engine.play(given.system, given.mixing, range(prompts)):
            pass

    return play


def _literal(engine: RayEngine, tokens: int, prompts: int, rounds: int, repeats: int) -> Iterator[Row]:
    engine.tokens_per_actor, codes = 1, 7
    ours = _playing(engine, tokens, prompts, rounds)
    ours()  # starts the actors
    echoes = [Echo.remote(20 * prompts) for _ in range(tokens)]  # type: ignore[attr-defined]
    hub = EchoHub.remote(24 * codes * prompts)  # type: ignore[attr-defined]
    field = bytes(24 * codes * prompts)
    shape = (1, 1, prompts)
    stored = ray.put(Sent(np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)))
    ray.get([echo.say.remote(field) for echo in echoes])

    def calls(given: Any) -> None:
        for _ in range(rounds + 1):
            said = [echo.say.remote(given) for echo in echoes]
        ray.get(said)

    def chain() -> None:
        heard: Any = field
        told = []
        for index in range(rounds + 1):
            said = [echo.say.remote(heard) for echo in echoes]
            if index < rounds:
                heard, packets = hub.exchange.options(num_returns=2).remote(*said)
                told.append(packets)
        for packets in told:
            ray.get(packets)
        ray.get(said)

    ways = {
        "tokens": ours,
        "calls, bytes inline": lambda: calls(field),
        "calls, a stored object": lambda: calls(stored),
        "empty chain": chain,
        "in process": _playing(LocalEngine(), tokens, prompts, rounds),
    }
    seconds = medians(ways, repeats)
    work = f"{tokens} actors of one token, 64 prompts, a round"
    for beside, goal in (
        ("calls, a stored object", 0.6), ("calls, bytes inline", None), ("empty chain", None),
        ("in process", None),
    ):  # fmt: skip
        yield compared(work, seconds, "tokens", beside, goal, per=rounds + 1)
    for actor in (*echoes, hub):
        ray.kill(actor)


def _deeper(engine: RayEngine, repeats: int) -> Iterator[Row]:
    engine.tokens_per_actor = 1
    for prompts in (64, 1000):
        engines = {"Ray": engine, "in process": LocalEngine(threads=1)}
        ways = {
            f"{name}, L = {rounds}": _playing(one, 4, prompts, rounds)
            for name, one in engines.items()
            for rounds in (10, 40)
        }
        seconds = medians(ways, repeats)
        for name in engines:
            names = {f"{name}, L = {rounds}": rounds for rounds in (10, 40)}
            grown = {key: seconds[key] / (rounds + 1) for key, rounds in names.items()}
            yield compared(
                f"4 tokens, {prompts} prompts, a round", grown, f"{name}, L = 40", f"{name}, L = 10"
            )


def _blocks(engine: RayEngine, repeats: int) -> Iterator[Row]:
    engine.tokens_per_actor = "auto"
    tokens, prompts, rounds = 100_000, 8, 4
    ways = {
        "one block on each core": _playing(engine, tokens, prompts, rounds),
        "in process, one thread": _playing(LocalEngine(threads=1), tokens, prompts, rounds),
        "in process, all cores": _playing(LocalEngine(), tokens, prompts, rounds),
    }
    seconds = medians(ways, repeats)
    work = f"complete graph, N = {tokens:,}, {prompts} prompts, a round"
    first = "one block on each core"
    yield compared(work, seconds, first, "in process, one thread", 1.7, per=rounds + 1)
    yield compared(work, seconds, first, "in process, all cores", per=rounds + 1)
