"""What holds for every policy: purity, honest messages, and numbers that depend on addresses alone."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from agents.inference.answers import Answers
from agents.inference.exact import ExactBelief
from agents.policies.base import Policy
from agents.policies.learned import Affine, Layer, Learned
from agents.prior import draw_latent
from agents.step import Aggregate, System, draw_block, step
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.local import LocalEngine
from topology.mixing import Mixing

BASE = Experiment().with_values(
    {"task.prompts": 40, "task.tokens": 12, "channel.noise": 0.5, "channel.bits": 12, "run.rounds": 3}
)
VARIANTS: dict[str, dict[str, object]] = {
    "adaptive": {},
    "adaptive without control": {"policy.control_variate": False},
    "adaptive, two channels": {"channel.channels": 2},
    "adaptive, joint rounds": {"policy.belief": "joint"},
    "adaptive, independent rounds": {"policy.belief": "independent"},
    "adaptive, level by level, ternary, two channels": {
        "policy.order": "level",
        "channel.channels": 2,
        "prior.levels": 2,
        "prior.branching": 3,
        "prior.dim": 8,
    },
    "adaptive, own example, ring": {"policy.own_example": True, "graph.kind": "ring"},
    "adaptive, own example, joint rounds, jitter": {
        "policy.own_example": True,
        "policy.belief": "joint",
        "prior.jitter": 0.3,
        "prior.dim": 9,
    },
    "adaptive, causal, repeats count half": {"policy.repeats": 0.5, "graph.kind": "causal"},
    "static": {"policy.kind": "static"},
    "static pooled, three channels": {
        "policy.kind": "static",
        "policy.order": "pooled",
        "channel.channels": 3,
        "policy.control_variate": False,
    },
    "gaussian": {"prior.kind": "matched_gaussian"},
    "jitter": {"prior.jitter": 0.3, "prior.branching": 3, "prior.levels": 2, "prior.dim": 9},
    "random directions": {"prior.directions": "random", "prior.dim": 4},
    "gossip": {"policy.kind": "gossip", "policy.rounds_per_scale": 2},
    "gossip, two channels, jitter": {
        "policy.kind": "gossip",
        "policy.rounds_per_scale": [2, 1],
        "channel.channels": 2,
        "prior.jitter": 0.3,
    },
    "gossip, exact law, ring": {
        "policy.kind": "gossip",
        "policy.rounds_per_scale": 2,
        "graph.kind": "ring",
    },
    "gradient": {"policy.kind": "gradient"},
    "flood": {"policy.kind": "flood"},
    "learned": {"policy.kind": "learned", "channel.channels": 2},
}


def random_transformer(dim: int, heads: int, rounds: int, control_variate: bool = True) -> Learned:
    """Weights that were never trained, of a size that keeps numbers moderate."""
    generator = np.random.default_rng(9)
    width, hidden = 6, 10

    def affine(outputs: int, inputs: int) -> Affine:
        return Affine(
            generator.normal(size=(outputs, inputs)) / np.sqrt(inputs), 0.1 * generator.normal(size=outputs)
        )

    layers = tuple(
        Layer(
            affine(heads * dim, width),
            affine(heads, width),
            (affine(hidden, width + heads), affine(width, hidden)),
        )
        for _ in range(rounds)
    )
    readout = generator.normal(size=(dim, width)) / np.sqrt(width)
    return Learned(generator.normal(size=width), layers, readout, heads, control_variate)


def assemble(name: str, graph: str = "complete") -> tuple[System, Mixing]:
    experiment = BASE.with_values({**VARIANTS[name], "graph.kind": graph})
    built = build(experiment)
    if built.entry.is_trained:
        weights = random_transformer(built.prior.dim, experiment.channel.channels, experiment.run.rounds)
        built = built.with_weights(weights)
    return built.system, built.mixing


def played(
    system: System, mixing: Mixing, prompts: range, block: int | None = None
) -> list[tuple[bytes, ...]]:
    """All bits of a run, round by round."""
    bits = []
    for outcome in LocalEngine(block).play(system, mixing, prompts, detail=True, messages=True):
        detail, sent = outcome.report.detail, outcome.sent
        assert detail is not None
        arrays = [outcome.report.error, outcome.report.effective, detail.estimate, detail.entropy]
        arrays += [sent.codes, sent.wire, outcome.clipped] if sent is not None else []
        bits.append(tuple(np.ascontiguousarray(array).tobytes() for array in arrays))
    return bits


def outcome_arrays(system: System, mixing: Mixing, prompts: range) -> list[np.ndarray]:
    arrays = []
    for outcome in LocalEngine().play(system, mixing, prompts, detail=True, messages=True):
        assert outcome.report.detail is not None
        arrays += [outcome.report.error, outcome.report.detail.estimate]
        arrays += [outcome.sent.wire] if outcome.sent is not None else []
    return arrays


@pytest.mark.parametrize("graph", ["complete", "causal"])
@pytest.mark.parametrize("name", VARIANTS)
def test_bits_do_not_depend_on_blocks(name: str, graph: str) -> None:
    system, mixing = assemble(name, graph)
    expected = played(system, mixing, range(40), block=12)
    for block in (1, 5):
        assert played(system, mixing, range(40), block) == expected


@pytest.mark.parametrize("graph", ["complete", "causal"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_prompt_gives_the_same_bits_alone_and_in_a_batch(name: str, graph: str) -> None:
    system, mixing = assemble(name, graph)
    batch = outcome_arrays(system, mixing, range(40))
    for prompt in (0, 17, 39):
        alone = outcome_arrays(system, mixing, range(prompt, prompt + 1))
        for whole, part in zip(batch, alone, strict=True):
            np.testing.assert_array_equal(whole[..., prompt], part[..., 0])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_is_a_pure_function(name: str) -> None:
    system, mixing = assemble(name)
    place = draw_block(system, np.arange(12), range(40))
    first = step(system, place, None, None, None, 0, detail=True)
    assert first.sent is not None
    sums = mixing.aggregate(first.sent.codes, first.sent.wire, system.policy.codes, np.arange(12))
    arguments = (system, place, first.state, first.sent, Aggregate(*sums), 1, True)
    before = copy.deepcopy(leaves(arguments[2:5]))
    once, twice = step(*arguments), step(*arguments)
    assert leaves(once) == leaves(twice)
    assert leaves(arguments[2:5]) == before, "a step must not change its arguments"


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_and_codes_are_those_of_the_protocol(name: str) -> None:
    system, _ = assemble(name)
    policy: Policy[Any] = system.policy
    place = draw_block(system, np.arange(5), range(7))
    state = policy.start(place.tokens)
    assert policy.estimate(state).shape == (5, system.prior.dim, 7)
    message = policy.emit(state, place.tokens, 1)
    assert message.codes.shape == message.values.shape == (5, system.channel.channels, 7)
    assert 0 <= message.codes.min() <= message.codes.max() < policy.codes
    belief = policy.atoms(state)
    if belief is not None:
        np.testing.assert_allclose(belief.sum(axis=1), 1.0)


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["adaptive", "adaptive without control", "static"])
def test_a_message_is_an_unbiased_estimate_of_its_question(name: str) -> None:
    """E[m] = u.w for any control; z over tokens of one prompt, false alarm 1e-4 a case, seed fixed."""
    system, _ = assemble(name)
    system = replace(system, seed=123)
    place = draw_block(system, np.arange(4000), range(1))
    state = system.policy.start(place.tokens)
    # A control that is wrong, as a belief may be.
    state = state._replace(vector=state.vector + 0.5)
    message = system.policy.emit(state, place.tokens, 1)
    direction = system.policy.inference.codebook.directions[message.codes[0, 0, 0]]
    truth = draw_latent(system.prior, system.seed, range(1)).vector[:, 0]
    values = message.values[:, 0, 0]
    score = (values.mean() - direction @ truth) / (values.std() / np.sqrt(len(values)))
    assert abs(score) < norm.isf(0.5e-4)


@pytest.mark.parametrize("name", ["adaptive", "learned"])
def test_a_causal_token_hears_no_later_token(name: str) -> None:
    """The light cone of the causal graph: the first tokens' bits are those of a shorter context."""
    system, mixing = assemble(name, "causal")
    shorter = build(BASE.with_values({"graph.kind": "causal", "task.tokens": 5})).mixing
    long = [o.report.error[:5] for o in LocalEngine().play(system, mixing, range(40))]
    short = [o.report.error for o in LocalEngine().play(system, shorter, range(40))]
    np.testing.assert_array_equal(long, short)


@pytest.mark.parametrize("control_variate", [True, False])
def test_adaptive_and_static_coincide_on_the_null(control_variate: bool) -> None:
    """What was heard changes no posterior covariance of a Gaussian, hence no question."""
    null = BASE.with_values(
        {"prior.kind": "matched_gaussian", "policy.control_variate": control_variate, "run.rounds": 6}
    )
    runs = []
    for kind in ("adaptive", "static"):
        experiment = null.with_values({"policy.kind": kind})
        built = build(experiment)
        runs.append(played(built.system, built.mixing, range(40)))
    assert runs[0] == runs[1]


def leaves(value: Any) -> list[bytes]:
    """All arrays of nested tuples, as bytes."""
    if isinstance(value, np.ndarray):
        return [np.ascontiguousarray(value).tobytes()]
    if isinstance(value, ExactBelief) and isinstance(value.answers, Answers):
        value = value._replace(answers=value.answers.first(value.heard))
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [repr(value).encode()]
