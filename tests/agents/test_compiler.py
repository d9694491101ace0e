"""An explicit agent written into weights asks, hears and estimates what the agent does."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from agents.channel import Channel
from agents.codebook import principal
from agents.inference.gaussian import GaussianInference
from agents.policies.adaptive import Adaptive
from agents.policies.learned import Learned
from agents.prior import Prior, matched_gaussian, tree
from agents.rng import Purpose, normals
from agents.step import draw_block
from agents.transformer.compiler import Compiled, Precision, compile_policy
from agents.transformer.compiler.splines import interpolation_error, knots_for
from agents.transformer.model import Architecture, Transformer
from runner.built import build
from runner.config.experiment import Experiment
from runner.engines.base import Outcome
from runner.simulation.simulate import simulate

SEED = 11
FLOOR = 1e-4  # mean squared error that the construction allows itself, where the agent's own risk is nothing


def experiment(
    levels: int, noise: float, control: bool, rounds: int, tokens: int, prompts: int
) -> Experiment:
    return Experiment().with_values(
        {
            "policy.belief": "joint",
            "prior.levels": levels,
            "prior.dim": 2**levels - 1,
            "channel.noise": noise,
            "policy.control_variate": control,
            "task.tokens": tokens,
            "task.prompts": prompts,
            "run.rounds": rounds,
            "run.seed": SEED,
        }
    )


def agent_of(setting: Experiment) -> Adaptive:
    policy = build(setting).policy
    assert isinstance(policy, Adaptive)
    return policy


def compiled_of(setting: Experiment, precision: Precision | None = None) -> Compiled:
    return compile_policy(agent_of(setting), setting.task.tokens, setting.run.rounds, precision)


def loaded(weights: Learned) -> Transformer:
    """The torch module with these weights; its blocks are as wide as the widest, filled up with zeros."""
    dim, width = weights.readout.shape
    hidden = max(len(layer.update[0].bias) for layer in weights.layers)
    sizes = Architecture(dim, len(weights.layers), 1, width, hidden, control_variate=weights.control_variate)
    model = Transformer(sizes).double()
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    state["start"] = torch.as_tensor(weights.start_vector)
    state["readout"] = torch.as_tensor(weights.readout)
    for number, layer in enumerate(weights.layers):
        first, second = layer.update
        units = len(first.bias)
        parts: dict[str, Any] = {
            "query.weight": layer.query.weight,
            "query.bias": layer.query.bias,
            "emission.weight": layer.emission.weight,
            "emission.bias": layer.emission.bias,
            "update.2.bias": second.bias,
        }
        for name, value in parts.items():
            state[f"layers.{number}.{name}"] = torch.as_tensor(value)
        state[f"layers.{number}.update.0.weight"][:units] = torch.as_tensor(first.weight)
        state[f"layers.{number}.update.0.bias"][:units] = torch.as_tensor(first.bias)
        state[f"layers.{number}.update.2.weight"][:, :units] = torch.as_tensor(second.weight)
    model.load_state_dict(state)
    return model


class Played(NamedTuple):
    """Estimates after each round [L + 1, B, d], and the code asked in each round [L, B]."""

    estimates: np.ndarray
    codes: np.ndarray


def transformer_plays(setting: Experiment, weights: Learned, prompts: range) -> Played:
    """The torch module on the examples and the transmitter noise of the simulation."""
    prior, count = build(setting).prior, setting.task.tokens
    place = draw_block(build(setting).system, np.arange(count), prompts)
    noise = [
        [normals(SEED, Purpose.CHANNEL, prompts, 1, position, round).T for position in range(count)]
        for round in range(1, setting.run.rounds + 1)
    ]
    model, queries = loaded(weights), []
    for layer in model.rounds():
        layer.query.register_forward_hook(lambda module, inputs, output: queries.append(output[:, 0].numpy()))
    with torch.no_grad():
        estimates = model(
            torch.as_tensor(place.tokens.inputs.transpose(2, 0, 1).copy()),
            torch.as_tensor(place.tokens.labels.T.copy()),
            torch.full((1, count), 1 / count, dtype=torch.float64),
            build(setting).channel,
            torch.as_tensor(np.array(noise).transpose(0, 2, 1, 3).copy()),
        )
    codes = np.array([(query @ prior.axes.T).argmax(axis=1) for query in queries])
    return Played(estimates[:, :, 0].numpy(), codes)


def agents_play(setting: Experiment, learned: Learned | None = None) -> Played:
    """The first token of a simulation: on the complete graph all hear and think the same."""
    estimates: dict[int, list[np.ndarray]] = {}
    codes: dict[int, list[np.ndarray]] = {}

    def watch(_: range, outcome: Outcome) -> None:
        assert outcome.report.detail is not None
        estimates.setdefault(outcome.round, []).append(outcome.report.detail.estimate[0].T)
        if outcome.sent is not None:
            assert (outcome.sent.codes == outcome.sent.codes[0]).all()
            codes.setdefault(outcome.round, []).append(outcome.sent.codes[0, 0])

    simulate(setting, learned=learned, observer=watch)
    return Played(
        np.stack([np.concatenate(estimates[round]) for round in sorted(estimates)]),
        np.stack([np.concatenate(codes[round]) for round in sorted(codes)]),
    )


def truth_of(setting: Experiment, prompts: range) -> np.ndarray:
    system = build(setting).system
    return draw_block(system, np.arange(1), prompts).truth.vector.T


# The difference of risks is judged one-sided at three standard errors: a false alarm once in 700 rounds.
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("levels", "noise", "control", "rounds", "tokens"),
    [
        *((2, 0.0, control, rounds, 32) for control in (True, False) for rounds in (1, 2, 3)),
        *((2, 1.0, control, rounds, 32) for control in (True, False) for rounds in (1, 2, 3)),
        (2, 1.0, True, 3, 64),
        (3, 0.0, True, 3, 32),
        (3, 1.0, True, 1, 32),
        (3, 1.0, True, 2, 32),
        (3, 1.0, True, 3, 32),
        (3, 1.0, False, 3, 32),
        pytest.param(3, 1.0, True, 4, 32, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_compiled_weights_have_the_agents_risk_and_ask_what_it_asks(
    levels: int, noise: float, control: bool, rounds: int, tokens: int
) -> None:
    count = 1500 if rounds < 4 else 600  # the last is as large as all others together
    setting = experiment(levels, noise, control, rounds, tokens, count)
    mine = transformer_plays(setting, compiled_of(setting).learned, range(count))
    agents, truth = agents_play(setting), truth_of(setting, range(count))
    risks = [((played.estimates - truth) ** 2).sum(axis=2) for played in (mine, agents)]
    excess = risks[0] - risks[1]
    error = excess.std(axis=1) / count**0.5
    # In the last of D + 1 noisy rounds what is left of the risk is a few rare confusions, and each has a path
    # of its own. There the goal of 1 % is missed: 4 to 20 % were measured, and a fifth is what is claimed.
    share = np.where(np.arange(rounds + 1) > levels, 0.2, 0.01) if levels > 2 else 0.01
    allowed = share * risks[1].mean(axis=1) + 3 * error + FLOOR
    assert (excess.mean(axis=1) <= allowed).all(), (excess.mean(axis=1), risks[1].mean(axis=1), error)
    # Without noise all is settled after a question a level, and what is asked then changes nothing.
    matters = slice(0, rounds if noise else levels)
    assert (mine.codes[matters] == agents.codes[matters]).mean() >= 0.99


@pytest.mark.parametrize("control", [True, False])
def test_the_transformer_computes_what_its_tokens_compute(control: bool) -> None:
    setting = experiment(2, 1.0, control, 3, 32, 20)
    # Steps of width 1e-3 amplify rounding a thousandfold, those of the default ten million times.
    compiled = compiled_of(setting, Precision(ramp=1e-3, arc=0.4, merge=0.1))
    torched = transformer_plays(setting, compiled.learned, range(20))
    tokens = agents_play(setting.with_values({"policy.kind": "learned"}), compiled.learned)
    assert np.abs(np.diff(tokens.estimates, axis=0)).max() > 0.1
    assert np.abs(tokens.estimates - torched.estimates).max() < 1e-9


def test_the_layout_tells_what_a_workspace_holds() -> None:
    setting = experiment(2, 1.0, True, 2, 32, 50)
    compiled, agent = compiled_of(setting), agent_of(setting)
    learned, layout = compiled.learned, compiled.layout
    place = draw_block(build(setting).system, np.arange(3), range(50))
    state = learned.start(place.tokens)
    assert not compiled.asks(state, 1).any()
    assert state.shape[1] == layout.width == learned.readout.shape[1]
    assert (learned.readout[:, layout.estimate] == np.eye(3)).all()
    assert not learned.readout[:, : layout.estimate.start].any()
    for histories, layer in zip(compiled.histories, learned.layers, strict=True):
        assert sum(history.probability for history in histories) == pytest.approx(1.0)
        directions = agent.inference.codebook.directions[[history.asks for history in histories]]
        assert np.array_equal(directions, layer.query.weight[:, : len(histories)].T)


def test_error_falls_with_the_fourth_power_of_the_knots() -> None:
    integrals = np.array([1.0, 1e-3, 1e-6])
    for wanted in (1e-3, 1e-6):
        knots = knots_for(integrals, wanted)
        assert sum(map(interpolation_error, integrals.tolist(), knots)) <= wanted
    setting = experiment(2, 1.0, True, 1, 32, 2000)
    agents = agents_play(setting)
    for wanted in (1e-4, 1e-6):
        compiled = compiled_of(setting, Precision(error=wanted))
        mine = transformer_plays(setting, compiled.learned, range(2000))
        error = ((mine.estimates[1] - agents.estimates[1]) ** 2).sum(axis=1).mean()
        assert compiled.errors[0, 0] <= wanted and 0.2 * wanted < error < 2 * wanted


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (tree(2, 2, 0.8, 3, jitter=0.1), "without jitter"),
        (matched_gaussian(tree(2, 2, 0.8, 3)), "not priors with a Gaussian part"),
        (tree(2, 3, 0.8, 8), "branching 2"),
        (tree(2, 2, 0.8, 3, "random"), "orthonormal directions"),
    ],
)
def test_priors_that_are_not_covered_are_refused(prior: Prior, message: str) -> None:
    agent = Adaptive(GaussianInference(prior, principal(prior), 0.1, Channel().variance), 1, True)
    with pytest.raises(ValueError, match=message):
        compile_policy(agent, 32, 2)


def test_sizes_that_are_not_covered_are_refused() -> None:
    agent = agent_of(experiment(2, 1.0, True, 2, 32, 1))
    with pytest.raises(ValueError, match="1 channel can be compiled, this one has 2"):
        compile_policy(replace(agent, channels=2), 32, 2)
    with pytest.raises(ValueError, match="got 32 and 0"):
        compile_policy(agent, 32, 0)
    with pytest.raises(ValueError, match="more than 3: raise states, arc or merge"):
        compile_policy(agent, 32, 2, Precision(states=3))
