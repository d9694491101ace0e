"""Compiled loops beside numpy: a belief, a whole step, whole runs in process; and what bounds them."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np

from agents.channel import Field
from agents.codebook import principal
from agents.inference.base import Inference
from agents.inference.exact import ExactInference
from agents.inference.fast import FastExactInference
from agents.policies.adaptive import widest
from agents.prior import tree
from agents.step import Aggregate, draw_block, step
from runner.built import Built, build
from runner.config.experiment import Experiment
from runner.engines.base import hearing, rows_of
from runner.engines.local import LocalEngine
from tests.bench.table import Row, compared, in_numpy, medians

_PROMPTS = 64
_NOISY: dict[str, object] = {"channel.noise": 1.0, "channel.bits": 16, "run.trace": "none"}
_RING: dict[str, object] = {
    "graph.kind": "ring", "graph.degree": 4, "policy.repeats": 0.0, "policy.order": "level",
}  # fmt: skip


def built(tokens: int, prompts: int, rounds: int, **values: object) -> Built:
    """An experiment on a noisy channel of 16 bits."""
    sizes = {"task.tokens": tokens, "task.prompts": prompts, "run.rounds": rounds}
    made = build(Experiment().with_values({**_NOISY, **sizes, **values}))
    assert made.system.policy  # which is made here, not while the clock runs
    return made


def played(given: Built, engine: LocalEngine, prompts: int) -> Callable[[], None]:
    """All rounds of a batch."""

    def play() -> None:
        for _ in engine.play(given.system, given.mixing, range(prompts)):
            pass

    return play


def measure(repeats: int) -> Iterator[Row]:
    """All rows."""
    yield from _beliefs(repeats)
    yield from _steps(repeats)
    yield from _runs(repeats)
    yield _roofline(repeats)
    yield from _growth()


def _belief(inference: Inference[Any], tokens: int, rounds: int) -> Callable[[], None]:
    """Updates, estimates and variances of some rounds; the questions are asked beforehand."""
    draws = np.random.default_rng(0)
    values = 0.4 * draws.normal(size=(rounds, tokens, 1, _PROMPTS))
    effective, codes = np.full((tokens, 1, _PROMPTS), 32.0), []
    belief = inference.start(tokens, _PROMPTS)

    def field(index: int) -> Field:
        return Field(codes[index], values[index], effective, effective[:, 0])

    for index in range(rounds):
        codes.append(widest(inference.variances(belief), 1))
        belief = inference.hear(belief, field(index), inference.estimate(belief), index + 1)

    def play() -> None:
        belief = inference.start(tokens, _PROMPTS)
        control = inference.estimate(belief)
        for index in range(rounds):
            belief = inference.hear(belief, field(index), control, index + 1)
            control = inference.estimate(belief)
            inference.variances(belief)

    return play


def _beliefs(repeats: int) -> Iterator[Row]:
    prior = tree(3, 2, 0.8, 7)
    rule = (prior, principal(prior), 0.1, 1.0)
    for tokens, goal in ((1, 20.0), (64, 6.0)):
        for rounds in (4, 10):
            for name, grouped in (("answers apart", False), ("grouped", True)):
                fast, plain = FastExactInference(*rule, grouped), ExactInference(*rule, grouped)
                ways = {"loops": _belief(fast, tokens, rounds), "numpy": _belief(plain, tokens, rounds)}
                work = f"belief, {name}, {tokens} tokens, 64 prompts, 8 atoms, L = {rounds}"
                yield compared(work, medians(ways, repeats), "loops", "numpy", goal, per=rounds)


def _stepping(given: Built, tokens: int, rounds: int) -> Callable[[], None]:
    """Steps of a block that hears the sums of all."""
    system, everyone = given.system, np.arange(tokens)
    whole = draw_block(system, np.arange(given.mixing.tokens), range(_PROMPTS))
    block, rows = draw_block(system, everyone, range(_PROMPTS)), rows_of(given.mixing)
    sums: list[Aggregate | None] = [None]
    now = step(system, whole, None, None, None, 0)
    for round in range(1, rounds + 1):
        assert now.sent is not None
        heard = hearing(rows, now.sent, system.policy.codes, everyone)(everyone)
        sums.append(heard)
        now = step(system, whole, now.state, now.sent, heard, round)

    def play() -> None:
        now = step(system, block, None, None, None, 0)
        for round in range(1, rounds + 1):
            now = step(system, block, now.state, now.sent, sums[round], round)

    return play


def _steps(repeats: int) -> Iterator[Row]:
    for tokens, goal in ((1, 8.0), (64, 4.0)):
        for rounds in (4, 10):
            with in_numpy():
                plain = _stepping(built(64, _PROMPTS, rounds), tokens, rounds)
            fast = _stepping(built(64, _PROMPTS, rounds), tokens, rounds)

            def on_numpy(plain: Callable[[], None] = plain) -> None:
                with in_numpy():
                    plain()

            seconds = medians({"loops": fast, "numpy": on_numpy}, repeats)
            work = f"whole step, {tokens} tokens, 64 prompts, L = {rounds}"
            yield compared(work, seconds, "loops", "numpy", goal, per=rounds + 1)


def _as_it_was(given: Built, prompts: int) -> Callable[[], None]:
    """numpy, which looks through all messages for every block of receivers."""
    system, mixing = given.system, given.mixing
    parts = np.array_split(np.arange(mixing.tokens), max(1, mixing.tokens * prompts // 4096))

    def play() -> None:
        with in_numpy():
            blocks = [draw_block(system, part, range(prompts)) for part in parts]
            steps = [step(system, block, None, None, None, 0) for block in blocks]
            for round in range(1, system.rounds + 1):
                sent = [done.sent for done in steps if done.sent is not None]
                codes, wire = (np.concatenate([one[index] for one in sent]) for index in range(2))
                heard = [
                    Aggregate(*mixing.aggregate(codes, wire, system.policy.codes, part)) for part in parts
                ]
                steps = [
                    step(system, block, done.state, done.sent, sums, round)
                    for block, done, sums in zip(blocks, steps, heard, strict=True)
                ]

    return play


def _runs(repeats: int) -> Iterator[Row]:
    for name, tokens, prompts, values, goal in (
        ("ring of degree 4", 4096, 64, _RING, 15.0),
        ("complete graph", 20_000, 16, {}, 8.0),
    ):
        with in_numpy():
            plain = built(tokens, prompts, 4, **values)
        given = built(tokens, prompts, 4, **values)
        one, both = LocalEngine(threads=1), LocalEngine()
        ways: dict[str, Callable[[], object]] = {
            "loops, one thread": played(given, one, prompts),
            "loops, all cores": played(given, both, prompts),
            "numpy, as it was": _as_it_was(plain, prompts),
        }
        seconds = medians(ways, max(1, repeats // 3))
        work = f"{name}, N = {tokens:,}, {prompts} prompts, 4 rounds, in process"
        yield compared(work, seconds, "loops, all cores", "numpy, as it was", goal, per=4)
        yield compared(work, seconds, "loops, one thread", "numpy, as it was", per=4)
        yield compared(work, seconds, "loops, all cores", "loops, one thread", per=4)


def _roofline(repeats: int) -> Row:
    """A step of a block against moving once what it must read and write, at the rate of a copy."""
    given, tokens = built(64, _PROMPTS, 4, **_RING), 64
    block = draw_block(given.system, np.arange(tokens), range(_PROMPTS))
    first = step(given.system, block, None, None, None, 0)
    assert first.sent is not None
    everyone = np.arange(tokens)
    heard = hearing(rows_of(given.mixing), first.sent, given.system.policy.codes, everyone)(everyone)
    done = step(given.system, block, first.state, first.sent, heard, 1)
    parts = [block, first.state, first.sent, heard, done.state, done.sent, done.report]
    size = sum(part.nbytes for whole in parts for part in _arrays(whole))
    source = np.ones(2**24)
    target = np.empty_like(source)

    def copy() -> None:
        target[:] = source

    seconds = medians(
        {"step": lambda: step(given.system, block, first.state, first.sent, heard, 1), "copy": copy}, repeats
    )
    bound = {"step": seconds["step"], "memory": seconds["copy"] * size / (2 * source.nbytes)}
    remark = f"{size / tokens / _PROMPTS:,.0f} bytes a token-prompt"
    return compared("step of 64 tokens beside moving its bytes once", bound, "step", "memory", None, remark)


def _arrays(part: Any) -> Iterator[np.ndarray]:
    if isinstance(part, np.ndarray):
        yield part
    elif isinstance(part, tuple):
        for inner in part:
            yield from _arrays(inner)


def _growth() -> Iterator[Row]:
    """Exponents of the cost in process, fitted to four sizes each."""
    sizes: dict[str, tuple[list[int], Callable[[int], tuple[Built, int]]]] = {
        "tokens": ([512, 1024, 2048, 4096], lambda n: (built(n, 16, 4, **_RING), 16)),
        "prompts": ([64, 128, 256, 512], lambda b: (built(64, b, 4, **_RING), b)),
        "rounds, answers apart": ([5, 10, 20, 40], lambda rounds: (built(64, 64, rounds, **_RING), 64)),
        "rounds, grouped": ([5, 10, 20, 40], lambda rounds: (built(64, 64, rounds), 64)),
        "atoms": (
            [4, 8, 16, 32],
            lambda atoms: (
                built(64, 64, 4, **_RING, **{"prior.levels": atoms.bit_length() - 1, "prior.dim": 32}), 64,
            ),
        ),
    }  # fmt: skip
    for name, (values, make) in sizes.items():
        taken = []
        for value in values:
            given, prompts = make(value)
            play, times = played(given, LocalEngine(threads=1), prompts), []
            for _ in range(3):
                began = perf_counter()
                play()
                times.append(perf_counter() - began)
            taken.append(min(times))
        exponent = float(np.polyfit(np.log(values), np.log(taken), 1)[0])
        remark = f"cost grows with the power {exponent:.2f}"
        yield Row(
            f"{name}, {values[0]} to {values[-1]}, one thread", f"{values[-1]}", f"{values[0]}",
            1e3 * taken[-1], 1e3 * taken[0], taken[0] / taken[-1], None, remark,
        )  # fmt: skip
