"""A trained transformer on the very prompts, and with the very noise, that the agents get."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.prior import draw_latent
from agents.rng import Purpose, normals_at
from agents.task import draw_tokens
from agents.transformer.model import Transformer
from runner.built import Built
from runner.training.job import attention

_BATCH = 500


class _Batch(NamedTuple):
    """Some prompts as tensors: the task, examples, transmitter noise, weights of the graph."""

    task: Float[Tensor, "B d"]
    inputs: Float[Tensor, "B N d"]
    labels: Float[Tensor, "B N"]
    noise: Float[Tensor, "layers B N K"]
    mixing: Float[Tensor, "rows N"]


def forward_on_prompts(
    model: Transformer, built: Built, prompts: range, dtype: torch.dtype = torch.float64
) -> Float[np.ndarray, "depths rows d B"]:
    """Estimates of w after each layer, for the experiment's own prompts and transmitter noise.

    Args:
        model: the transformer, as deep as run.rounds.
        built: addresses the prompts and the noise.
        prompts: consecutive prompt indices.
        dtype: precision of the forward pass; a copy of the weights is converted to it.

    Source: THEORY.md section 8.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    parts = []
    for batch in _batches(built, prompts, dtype):
        with torch.no_grad():
            estimates = model(batch.inputs, batch.labels, batch.mixing, built.channel, batch.noise)
        parts.append(np.moveaxis(estimates.double().numpy(), 1, 3))
    return np.concatenate(parts, axis=3)


def last_risks(
    models: Sequence[Transformer], built: Built, prompts: range, dtype: torch.dtype = torch.float32
) -> Float[np.ndarray, "models B"]:
    """|w - w_L|^2 / E|w|^2 of several models on the same prompts, mean over positions.

    Args:
        models: of one task, channel and graph; none deeper than run.rounds.
        built: addresses the prompts and the noise.
        prompts: consecutive prompt indices.
        dtype: precision of the forward pass.

    Source: THEORY.md section 8.
    """
    ready, channel = [copy.deepcopy(model).to(dtype).eval() for model in models], built.channel
    power, parts = built.prior.power(), []
    for batch in _batches(built, prompts, dtype):
        with torch.no_grad():
            ends = [
                model(batch.inputs, batch.labels, batch.mixing, channel, batch.noise)[-1] for model in ready
            ]
        errors = torch.stack([(end - batch.task[:, None]).square().sum(-1).mean(-1) for end in ends])
        parts.append(errors.double().numpy() / power)
    return np.concatenate(parts, axis=1)


def prompt_risk(
    estimates: Float[np.ndarray, "depths rows d B"], built: Built, prompts: range
) -> Float[np.ndarray, "depths B"]:
    """|w - w_i|^2 / E|w|^2 of each prompt, mean over positions."""
    prior = built.prior
    truth = draw_latent(prior, built.experiment.run.seed, prompts).vector
    return np.asarray(((estimates - truth) ** 2).sum(axis=2).mean(axis=1) / prior.power())


def _batches(built: Built, prompts: range, dtype: torch.dtype) -> Iterator[_Batch]:
    """The prompts, some hundreds at a time."""
    experiment = built.experiment
    mixing = torch.as_tensor(attention(built.mixing), dtype=dtype)
    positions = np.arange(experiment.task.tokens)
    seed, layers, heads = experiment.run.seed, experiment.run.rounds, built.channel.channels
    for first in range(prompts.start, prompts.stop, _BATCH):
        batch = range(first, min(first + _BATCH, prompts.stop))
        latent = draw_latent(built.prior, seed, batch)
        tokens = draw_tokens(latent, experiment.task.label_noise, seed, batch, positions)
        noise = np.stack(
            [normals_at(seed, Purpose.CHANNEL, batch, heads, positions, layer + 1) for layer in range(layers)]
        )  # [layers, N, K, B]
        yield _Batch(
            torch.as_tensor(latent.vector.T, dtype=dtype),
            torch.as_tensor(np.moveaxis(tokens.inputs, 2, 0), dtype=dtype),
            torch.as_tensor(tokens.labels.T, dtype=dtype),
            torch.as_tensor(np.moveaxis(noise, 3, 1), dtype=dtype),
            mixing,
        )
