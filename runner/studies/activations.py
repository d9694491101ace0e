"""Workspaces and queries layer by layer, of the torch module and of agents, and answers if changed."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from agents.channel import Channel
from agents.policies.bayesian import Bayesian
from agents.policies.intervened import Change, Intervened
from agents.policies.learned import NORM_FLOOR, Learned
from agents.reductions import affine, dot
from agents.rng import Purpose, normals_at
from agents.step import System, draw_block, step
from agents.transformer.model import Transformer
from runner.engines import Engine
from runner.engines.base import hearing, rows_of
from runner.engines.local import LocalEngine
from runner.errors import UsageError
from runner.validate import validate_policy
from topology.mixing import Mixing

_Arguments = tuple[Tensor, Tensor, Tensor, Channel, Tensor]  # of the module's forward pass


class Activations(NamedTuple):
    """What happens inside a transformer, on given prompts; one row if all tokens hear the same.

    Attributes:
        workspaces: p after 0, 1, ..., L layers: the function vector [L + 1, rows, W, B].
        queries: u with which each layer asks, norm 1 [L, rows, K, d, B].
        estimates: R p [L + 1, rows, d, B].
    """

    workspaces: Float[np.ndarray, "depths rows W B"]
    queries: Float[np.ndarray, "layers rows K d B"]
    estimates: Float[np.ndarray, "depths rows d B"]


def play_states(system: System, mixing: Mixing, prompts: range) -> Iterator[Any]:
    """The workspaces of all tokens after rounds 0..L, whatever the policy holds in them.

    Args:
        system: what is the same at all positions.
        mixing: who hears whom.
        prompts: consecutive prompt indices, played together.
    """
    positions, rows = np.arange(mixing.tokens), rows_of(mixing)
    block = draw_block(system, positions, prompts)
    now = step(system, block, None, None, None, 0)
    yield now.state
    for round in range(1, system.rounds + 1):
        assert now.sent is not None  # a message follows every round but the last
        aggregate = hearing(rows, now.sent, system.policy.codes, positions)(positions)
        now = step(system, block, now.state, now.sent, aggregate, round)
        yield now.state


def agents_activations(system: System, mixing: Mixing, prompts: range) -> Activations:
    """Workspaces, queries and estimates of tokens that run trained weights.

    Args:
        system: whose policy is `Learned`.
        mixing: who hears whom.
        prompts: consecutive prompt indices.

    Raises:
        TypeError: if the policy has no trained weights.

    Source: THEORY.md section 8.
    """
    policy = system.policy
    if not isinstance(policy, Learned):
        raise TypeError(f"{type(policy).__name__} has no workspace vector: the policy must be Learned")
    states = list(play_states(system, mixing, prompts))
    return Activations(
        np.stack(states),
        np.stack([query_of(policy, state, index + 1) for index, state in enumerate(states[:-1])]),
        np.stack([policy.estimate(state) for state in states]),
    )


def explicit_activations(system: System, mixing: Mixing, prompts: range) -> Activations:
    """Beliefs, questions and estimates of agents that hold a belief, in place of a transformer's.

    The workspace is the posterior of the atoms with its mean below it: W = M + d.

    Args:
        system: whose policy asks from a belief, in codes.
        mixing: who hears whom.
        prompts: consecutive prompt indices.

    Raises:
        TypeError: if the policy holds no such belief.
    """
    policy = system.policy
    if not isinstance(policy, Bayesian):
        raise TypeError(f"{type(policy).__name__} asks from no belief: the policy must be adaptive or static")
    states = list(play_states(system, mixing, prompts))
    estimates = np.stack([policy.estimate(state) for state in states])
    beliefs = np.stack([policy.atoms(state) for state in states])
    codes = np.stack([policy.choose(state.belief, index + 1) for index, state in enumerate(states[:-1])])
    queries = np.moveaxis(policy.inference.codebook.directions[codes], -1, 3)
    return Activations(np.concatenate([beliefs, estimates], axis=2), queries, estimates)


def query_of(policy: Learned, state: Float[np.ndarray, "n W B"], round: int) -> Float[np.ndarray, "n K d B"]:
    """The query with which a token asks in a round: normalise(Q p)."""
    raw = affine(*policy.layers[round - 1].query, state)
    raw = raw.reshape(len(raw), policy.channels, -1, raw.shape[2])
    parts = list(np.moveaxis(raw, 2, 0))
    return np.asarray(raw / np.sqrt(dot(parts, parts) + NORM_FLOOR)[:, :, None])


def agents_estimates(
    system: System,
    mixing: Mixing,
    prompts: range,
    layer: int | None = None,
    change: Change | None = None,
    engine: Engine | None = None,
) -> Float[np.ndarray, "depths N d B"]:
    """Estimates of w after rounds 0..L, if workspaces are changed at the end of one round.

    Args:
        system: what is the same at all positions; any policy whose workspace the change understands.
        mixing: who hears whom.
        prompts: consecutive prompt indices, played together: a patch counts its donors among them.
        layer: round after which the workspace is changed.
        change: what is done to it; None leaves it alone.
        engine: where the tokens live; in this process by default.

    Raises:
        UsageError: if the change does not fit the rounds, the tokens or the prompts; or if there is a change
            without a layer, or a layer without a change.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.
    """
    if (layer is None) != (change is None):
        raise UsageError("layer", layer, "a round together with a change, or neither")
    if change is not None and layer is not None:
        system = _changed(system, mixing, prompts, layer, change)
    outcomes = (engine or LocalEngine()).play(system, mixing, prompts, detail=True)
    details = [outcome.report.detail for outcome in outcomes]
    return np.stack([detail.estimate for detail in details if detail is not None])


def module_activations(
    model: Transformer, system: System, mixing: Mixing, prompts: range, dtype: torch.dtype = torch.float64
) -> Activations:
    """Workspaces, queries and estimates of the module, on the prompts and with the noise of the agents.

    Args:
        model: the transformer, as deep as system.rounds.
        system: addresses the prompts and the noise; its policy is not used.
        mixing: who hears whom; one row gives one workspace for all tokens.
        prompts: consecutive prompt indices.
        dtype: precision of the forward pass; the model itself is left as it is.

    Source: THEORY.md section 8.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    arguments = _arguments(system, mixing, prompts, dtype)
    rows, width = len(arguments[2]), model.sizes.width
    workspaces = [model.start.expand(len(prompts), rows, width)]

    def keep(_block: nn.Module, _heard: tuple[Tensor, ...], thought: Tensor) -> None:
        workspaces.append(workspaces[-1] + thought)

    hooks = [layer.update.register_forward_hook(keep) for layer in model.rounds()]
    with torch.no_grad():
        estimates = model(*arguments)
        asked = [layer.query(before) for layer, before in zip(model.rounds(), workspaces, strict=False)]
    for hook in hooks:
        hook.remove()
    sizes = model.sizes
    raw = _array(torch.stack(asked)).reshape(sizes.layers, rows, sizes.heads, sizes.dim, len(prompts))
    norm = np.sqrt((raw**2).sum(axis=3, keepdims=True) + NORM_FLOOR)
    return Activations(_array(torch.stack(workspaces)), raw / norm, _array(estimates))


def module_estimates(
    model: Transformer,
    system: System,
    mixing: Mixing,
    prompts: range,
    layer: int,
    change: Change,
    dtype: torch.dtype = torch.float64,
) -> Float[np.ndarray, "depths rows d B"]:
    """Estimates of w after layers `layer`..L, if the workspaces are changed at the end of `layer`.

    The module's own forward pass runs on from the changed workspaces: they take the block of its start.

    Args:
        model, system, mixing, dtype: as for `module_activations`.
        prompts: consecutive prompt indices: a patch counts its donors among them.
        layer: after which the workspace is changed, 0..L.
        change: what is done to it, the very object that changes the agents; with a choice of tokens there
            is a row for each token.

    Raises:
        UsageError: if the change does not fit the layers, the tokens or the prompts.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.
    """
    _changed(system, mixing, prompts, layer, change)  # refuses what does not fit
    before = module_activations(model, system, mixing, prompts, dtype).workspaces[layer]
    inputs, labels, weights, channel, noise = _arguments(system, mixing, prompts, dtype)
    if change.tokens is not None and len(weights) == 1:
        weights = weights.expand(mixing.tokens, -1)
        before = np.broadcast_to(before, (mixing.tokens, *before.shape[1:]))
    changed = torch.as_tensor(np.moveaxis(change(before, np.arange(len(before))), 2, 0), dtype=dtype)
    model = copy.deepcopy(model).to(dtype).eval()
    rest = Transformer(replace(model.sizes, layers=model.sizes.layers - layer)).to(dtype)
    rest.layers, rest.readout = nn.ModuleList(list(model.rounds())[layer:]), model.readout
    with torch.no_grad():
        estimates = functional_call(
            rest, {"start": changed}, (inputs, labels, weights, channel, noise[layer:])
        )
    return _array(estimates)


def _changed(system: System, mixing: Mixing, prompts: range, layer: int, change: Change) -> System:
    """The same with workspaces changed at the end of one round.

    Raises:
        UsageError: if the change does not fit.
    """
    try:
        policy = Intervened(system.policy, layer, change)
    except ValueError as failure:
        raise UsageError("layer", layer, f"a round from 0 to {system.rounds}; {failure}") from None
    validate_policy(policy, system.rounds, mixing.tokens, [prompts])
    return replace(system, policy=policy)


def _arguments(system: System, mixing: Mixing, prompts: range, dtype: torch.dtype) -> _Arguments:
    """Inputs, labels, mixing, channel and noise, as the module takes them."""
    positions, heads = np.arange(mixing.tokens), system.channel.channels
    tokens = draw_block(system, positions, prompts).tokens
    noise = [
        normals_at(system.seed, Purpose.CHANNEL, prompts, heads, positions, round)
        for round in range(1, system.rounds + 1)
    ]  # [L][N][K, B]
    shape = (system.rounds, mixing.tokens, heads, len(prompts))
    arrays = (
        np.moveaxis(tokens.inputs, 2, 0),
        tokens.labels.T,
        mixing.shares().toarray(),
        np.moveaxis(np.reshape(noise, shape), 3, 1),
    )
    inputs, labels, weights, noises = (
        torch.as_tensor(np.ascontiguousarray(array), dtype=dtype) for array in arrays
    )
    return inputs, labels, weights, system.channel, noises


def _array(stacked: Tensor) -> Float[np.ndarray, "depths rows m B"]:
    """From the module's axes [depths, B, rows, m] to the agents'."""
    return np.ascontiguousarray(np.moveaxis(stacked.detach().double().numpy(), 1, 3))
