"""Workspaces and queries of the torch module, layer by layer, and what it answers when they are changed."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from agents.channel import Channel
from agents.policies.intervened import Change
from agents.policies.learned import NORM_FLOOR
from agents.rng import Purpose, normals
from agents.step import System, take_place
from agents.transformer.model import Transformer
from runner.workspaces import Activations
from topology.mixing import Mixing

_Arguments = tuple[Tensor, Tensor, Tensor, Channel, Tensor]  # of the module's forward pass


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
    hooks = [layer.update.register_forward_hook(_keep(workspaces)) for layer in model.rounds()]
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

    The module's own forward pass runs on from the changed workspaces: they take the place of its start.

    Args:
        model: the transformer, as deep as system.rounds.
        system: addresses the prompts and the noise; its policy is not used.
        mixing: who hears whom.
        prompts: consecutive prompt indices: a patch counts its donors among them.
        layer: after which the workspace is changed, 0..L.
        change: what is done to it, the very object that changes the agents; with a choice of tokens there
            is a row for each token.
        dtype: precision of the forward pass.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.
    """
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


def _keep(workspaces: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A hook on the feedforward block that appends the workspace after it."""

    def keep(_block: nn.Module, _heard: tuple[Tensor, ...], thought: Tensor) -> None:
        workspaces.append(workspaces[-1] + thought)

    return keep


def _arguments(system: System, mixing: Mixing, prompts: range, dtype: torch.dtype) -> _Arguments:
    """Inputs, labels, mixing, channel and noise, as the module takes them."""
    positions, heads = np.arange(mixing.tokens), system.channel.channels
    tokens = take_place(system, positions, prompts).tokens
    noise = [
        [normals(system.seed, Purpose.CHANNEL, prompts, heads, int(i), round) for i in positions]
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
