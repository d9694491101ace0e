"""Compiled loops give the very bits of the numpy code that says what they compute."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agents.channel
import agents.policies.adaptive
import agents.policies.bayesian
import agents.rng
import agents.step
import runner.engines.base
from agents.channel import Channel, Field
from agents.codebook import principal
from agents.inference.exact import ExactBelief, ExactInference
from agents.inference.fast import FastExactInference
from agents.kernels import AVAILABLE, compiled
from agents.kernels.elementary import addresses
from agents.policies.adaptive import LevelByLevel, widest
from agents.prior import Prior, tree
from agents.rng import Purpose, normals_at, uniforms
from agents.step import Sent
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.base import hearing, join_sent, rows_of
from runner.engines.local import LocalEngine
from tests.bench.table import SEAMS
from topology.families import Family
from topology.mixing import mixing_of

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="numba cannot be had here")

PRIORS = {
    "binary": tree(3, 2, 0.8, 7),
    "ternary, random directions": tree(2, 3, 0.9, 5, "random", seed=6),
    "two atoms": tree(1, 2, 1.0, 1),
    "more atoms than lanes": tree(7, 2, 0.9, 6, "random", seed=1),
}
ROUNDS = 6
LAWS: dict[str, dict[str, Any]] = {
    "independent": {},
    "grouped": {"grouped": True, "fields": 2},  # fewer than are heard: the room grows
    "repeats": {"repeats": (1.0, 0.5, 0.0, 0.3, 1.0, 0.7)},
    "disagreement": {"disagreement": np.linspace(0.0, 0.4, ROUNDS * 9).reshape(ROUNDS, 9)},
}


@pytest.fixture
def in_numpy(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """numpy's code in place of all loops."""
    for module in SEAMS:
        monkeypatch.setattr(module, "AVAILABLE", False)
    yield monkeypatch


def fields(tokens: int, prompts: int, channels: int, relayed: bool, codes: int) -> Iterator[Field]:
    """Fields of some rounds, some of nobody, some of one token."""
    draws = np.random.default_rng(5)
    for _ in range(ROUNDS):
        shape = (tokens, channels, prompts)
        asked = np.stack([draws.permuted(np.arange(codes)) for _ in range(tokens * prompts)])
        asked = asked.reshape(tokens, prompts, codes)[..., :channels].transpose(0, 2, 1).copy()
        effective = draws.choice([0.0, 1.0, 3.5, 30.0], shape)
        passed = 1.0 + draws.random(shape) if relayed else None
        yield Field(asked, 0.5 * draws.normal(size=shape), effective, effective[:, 0], passed)


def read(inference: ExactInference, belief: ExactBelief) -> list[np.ndarray]:
    example = (np.full((*inference.estimate(belief).shape,), 0.3), np.full(belief.positions.shape, 0.2))
    told = inference.told(belief, *example)
    return [
        belief.log_weights, belief.alone, inference.asked(belief), inference.atoms(belief),
        inference.estimate(belief), inference.variances(belief), inference.spread(belief),
        inference.estimate(told), inference.variances(told), inference.atoms(told),
    ]  # fmt: skip


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize(("tokens", "prompts", "channels"), [(1, 33, 1), (5, 7, 1), (3, 1, 2), (1, 1, 1)])
def test_the_belief_has_the_bits_of_numpy(
    name: str, law: str, tokens: int, prompts: int, channels: int
) -> None:
    prior = PRIORS[name]
    book = principal(prior)
    if channels > len(book):
        pytest.skip("this prior has one direction")
    rule, given = (prior, book, 0.1, 0.4), dict(LAWS[law])
    fast = FastExactInference(*rule, **given)
    given.pop("fields", None)
    plain = ExactInference(*rule, **given)
    places = np.arange(tokens) + 4
    one, other = fast.start(tokens, prompts, places), plain.start(tokens, prompts, places)
    for index, field in enumerate(fields(tokens, prompts, channels, tokens == 5, len(book)), start=1):
        control = None if tokens == 3 else plain.estimate(other)
        one, other = fast.hear(one, field, control, index), plain.hear(other, field, control, index)
        for mine, theirs in zip(read(fast, one), read(plain, other), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_belief_that_is_continued_twice_does_not_change() -> None:
    prior = PRIORS["binary"]
    fast = FastExactInference(prior, principal(prior), 0.1, 0.4, grouped=True, fields=9)
    heard = list(fields(2, 5, 1, False, 7))
    before = fast.hear(fast.start(2, 5), heard[0], None, 1)
    alone = fast.hear(fast.hear(before, heard[1], None, 2), heard[2], None, 3)
    again = fast.hear(before, heard[3], None, 2)
    once_more = fast.hear(fast.hear(before, heard[1], None, 2), heard[2], None, 3)
    np.testing.assert_array_equal(alone.log_weights, once_more.log_weights)
    assert not np.array_equal(again.log_weights, fast.hear(before, heard[1], None, 2).log_weights)


def test_draws_have_the_bits_of_numpy(in_numpy: pytest.MonkeyPatch) -> None:
    positions = np.array([0, 3, 2**40])
    for count in (1, 2, 3, 8):
        for seed, first in ((0, 0), (2**64 - 1, 10**12)):
            asked = (seed, Purpose.CHANNEL, range(first, first + 5), count, positions, 7)
            in_numpy.setattr(agents.rng, "AVAILABLE", True)
            fast = normals_at(*asked)
            in_numpy.setattr(agents.rng, "AVAILABLE", False)
            np.testing.assert_array_equal(fast, normals_at(*asked))
    assert uniforms(1, Purpose.TOKEN, range(1), 1, 2, 3).shape == (1, 1)


@pytest.mark.parametrize("kind", ["complete", "causal", "ring", "star"])
@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
@pytest.mark.parametrize("quiet", [False, True])
def test_sums_have_the_bits_of_numpy(
    kind: str, weights: str, quiet: bool, in_numpy: pytest.MonkeyPatch
) -> None:
    draws, mixing = np.random.default_rng(3), mixing_of(kind, Family(12, degree=4), weights)
    codes = draws.integers(0, 5, (12, 2, 6)).astype(np.uint8)
    wire = draws.integers(0, 2**31, codes.shape).astype(np.uint32)
    spoken = draws.random(codes.shape) < 0.6 if quiet else None
    given = rows_of(mixing), Sent(codes, wire, spoken), 5, np.arange(12)
    plain = hearing(*given)
    in_numpy.setattr(runner.engines.base, "AVAILABLE", True)
    fast = hearing(*given)
    for part in (np.arange(5), np.arange(5, 12)):
        asked = np.zeros(1, dtype=np.int64) if mixing.is_shared else part
        judge = mixing.aggregate(codes, wire, 5, asked, spoken)
        for sums, others, expected in zip(fast(part), plain(part), judge, strict=True):
            np.testing.assert_array_equal(sums, expected)
            np.testing.assert_array_equal(others, expected)


def test_the_wire_has_the_bits_of_numpy(in_numpy: pytest.MonkeyPatch) -> None:
    values = np.concatenate([np.linspace(-9.0, 9.0, 201), [8.0, -8.0, 0.0, -0.0]])[None, None]
    for bits in (1, 3, 16, 24, 48):
        channel = Channel(bits=bits)
        plain = channel.encode(values)
        in_numpy.setattr(agents.channel, "AVAILABLE", True)
        fast = channel.encode(values)
        with pytest.raises(FloatingPointError):
            channel.encode(np.full((1, 1, 2), np.nan))
        in_numpy.setattr(agents.channel, "AVAILABLE", False)
        for mine, theirs in zip(fast, plain, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


def test_the_widest_codes_are_those_of_numpy(in_numpy: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    variances = np.round(draws.random((4, 7, 30)), 1)  # with ties
    variances[0] += 1e-10 * draws.random((7, 30))  # and with near ones
    plain = widest(variances, 3)
    in_numpy.setattr(agents.policies.adaptive, "AVAILABLE", True)
    np.testing.assert_array_equal(widest(variances, 3), plain)


@pytest.mark.parametrize(
    "values",
    [
        {"graph.kind": "causal", "policy.order": "level", "policy.own_example": True},
        {"graph.kind": "ring", "graph.degree": 4, "policy.kind": "gossip", "policy.rounds_per_scale": 2},
        {"prior.branching": 3, "prior.levels": 2, "prior.dim": 9, "channel.channels": 2},
        {"policy.kind": "flood", "graph.kind": "path"},
        {"policy.kind": "gradient", "channel.bits": 9},
    ],
    ids=str,
)
def test_a_run_has_the_bits_of_numpy(values: dict[str, object], in_numpy: pytest.MonkeyPatch) -> None:
    given = {"task.tokens": 10, "run.rounds": 5, "channel.noise": 0.7, **values}
    built = build(Experiment().with_values(given))
    plain = built.system, list(LocalEngine().play(built.system, built.mixing, range(3, 12), detail=True))
    for module in SEAMS:
        in_numpy.setattr(module, "AVAILABLE", True)
    built = build(Experiment().with_values(given))
    fast = (
        built.system,
        list(LocalEngine(block=3).play(built.system, built.mixing, range(3, 12), detail=True)),
    )
    assert type(fast[0].policy) is type(plain[0].policy)
    for mine, theirs in zip(fast[1], plain[1], strict=True):
        np.testing.assert_array_equal(mine.report.error, theirs.report.error)
        np.testing.assert_array_equal(mine.clipped, theirs.clipped)
        assert mine.report.detail is not None and theirs.report.detail is not None
        for sums, expected in zip(mine.report.detail, theirs.report.detail, strict=True):
            np.testing.assert_array_equal(sums, expected)


def test_levels_in_turn_are_those_of_numpy(in_numpy: pytest.MonkeyPatch) -> None:
    prior: Prior = PRIORS["ternary, random directions"]
    rule = (prior, principal(prior), 0.1, 0.4)
    fast, plain = (
        LevelByLevel(FastExactInference(*rule), 2, True),
        LevelByLevel(ExactInference(*rule), 2, True),
    )
    one, other = fast.inference.start(3, 20), plain.inference.start(3, 20)
    for index, field in enumerate(fields(3, 20, 2, False, len(rule[1])), start=1):
        in_numpy.setattr(agents.policies.adaptive, "AVAILABLE", True)
        codes = fast.choose(one, index)
        in_numpy.setattr(agents.policies.adaptive, "AVAILABLE", False)
        np.testing.assert_array_equal(codes, plain.choose(other, index))
        one = fast.inference.hear(one, field, None, index)
        other = plain.inference.hear(other, field, None, index)


def test_without_the_compiler_numpy_computes_the_same() -> None:
    """What is said where numba cannot be had: nothing, and the numbers are the same."""
    program = (
        "import sys, runner, agents.kernels\n"
        "e = runner.Experiment().with_values({'task.tokens': 6, 'task.prompts': 9})\n"
        "risk = runner.simulate(e).prompt_risk.sum().hex()\n"
        "print(agents.kernels.AVAILABLE, 'numba' in sys.modules, risk)"
    )
    said = {}
    for off in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TOKENFIELD_NUMPY": off},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        said[off] = done.stdout.split()
    assert said["0"][:2] == ["True", "True"] and said["1"][:2] == ["False", "False"]
    assert said["0"][2] == said["1"][2]


def test_addresses_are_those_of_functions() -> None:
    assert (addresses()[:, 0] > 0).all()


def test_a_loop_takes_one_type_and_layout() -> None:
    @compiled("v f2 F2")
    def copy(source: Any, target: Any) -> None:
        for i in range(source.shape[0]):
            for j in range(source.shape[1]):
                target[i, j] = source[i, j]

    held = np.arange(6.0).reshape(2, 3)
    held.flags.writeable = False
    made = np.empty((2, 3))
    copy(held, made)
    np.testing.assert_array_equal(made, held)
    with pytest.raises(TypeError):
        copy(held.T, made)
    with pytest.raises(TypeError):
        copy(made, held)


def test_threads_that_come_first_compile_once() -> None:
    made = []

    @compiled("i0 i0")
    def twice(number: int) -> int:
        return 2 * number

    threads = [threading.Thread(target=lambda: made.append(twice(21))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [42] * 4


def test_blocks_of_which_some_send_all_are_joined_with_the_others() -> None:
    codes, wire = np.zeros((2, 1, 3), dtype=np.uint8), np.ones((2, 1, 3), dtype=np.uint16)
    mask = np.array([[[True, False, True]], [[False, False, True]]])
    joined = join_sent([Sent(codes, wire), Sent(codes, wire, mask), Sent(codes, wire)])
    assert joined.spoken is not None
    np.testing.assert_array_equal(joined.spoken, np.concatenate([mask | True, mask, mask | True]))
    assert join_sent([Sent(codes, wire), Sent(codes, wire)]).spoken is None


@pytest.mark.parametrize("kind", ["adaptive", "static", "gossip", "gradient", "flood"])
def test_a_prior_of_single_precision_is_taken_in_double(kind: str, in_numpy: pytest.MonkeyPatch) -> None:
    prior = PRIORS["binary"]
    names = ("atoms", "weights", "axes", "factor")
    single = replace(prior, **{name: getattr(prior, name).astype(np.float32) for name in names})
    experiment = Experiment().with_values({"task.tokens": 4, "policy.kind": kind, "run.rounds": 2})
    errors = []
    for available in (True, False):
        for module in SEAMS:
            in_numpy.setattr(module, "AVAILABLE", available)
        built = build(experiment, prior=single)
        played = LocalEngine(threads=1).play(built.system, built.mixing, range(5))
        errors.append([outcome.report.error for outcome in played])
    np.testing.assert_array_equal(*errors)
