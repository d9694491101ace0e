"""Prompts of a training step: token by token, or only what their tokens say together.

On the complete graph every field is a function of the moments of a prompt, and these have a law of
their own: a step then costs the same for any number of tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from agents.channel import Channel
from agents.rng import Purpose, uniforms
from agents.transformer.model import transmit
from runner.training.job import Job


class Use(IntEnum):
    """What prompts are for; no two uses share a generator's seed."""

    TRAINING = 0
    VALIDATION = 1


class Tokens(NamedTuple):
    """Examples of every token, and the standard normal noise of its transmitter in each layer."""

    inputs: Float[Tensor, "models d B N"]
    labels: Float[Tensor, "models B N"]
    noise: list[Float[Tensor, "models K B N"]]
    mixing: Float[Tensor, "rows N"]
    channel: Channel

    @property
    def receivers(self) -> int:
        """Tokens that hear different things."""
        return len(self.mixing)

    def field(
        self,
        raw: Float[Tensor, "some K d asked"],
        scale: Float[Tensor, "some K asked"],
        vector: Float[Tensor, "some d asked"] | None,
        said: Float[Tensor, "some K asked"],
        layer: int,
    ) -> Float[Tensor, "some K columns"]:
        """What the first models of a stack hear in a layer, as `Transformer.forward` computes it.

        The query is `raw` times `scale`, of norm 1. There is a column for each prompt and receiver; in what
        comes in it may be for each receiver alone, where all prompts ask the same.
        """
        some, heads, dim, _ = raw.shape
        query = (raw * scale[:, :, None]).view(some, heads, dim, -1, self.receivers)
        said = said.view(some, heads, -1, self.receivers)
        tokens = self.inputs[:some, None]  # [some, 1, d, B, N] beside [some, K, d, B, rows]
        key = (query * tokens).sum(2)  # [some, K, B, N]
        value = self.labels[:some, None]
        if vector is not None:
            own = vector.view(some, 1, dim, -1, self.receivers)
            value = value - (own * tokens).sum(2)
            said = said + (query * own).sum(2)
        message = key * value + said
        if self.channel.noise:
            message = message + self.channel.noise * self.noise[layer][:some]
        message = transmit(message, self.channel)
        # Model by model: a product of matrices may round a row by its place among the rows.
        return torch.stack([one @ self.mixing.T for one in message]).flatten(2)


class Statistics(NamedTuple):
    """Moments of the tokens, and the noise of the field in each layer.

    mean over tokens of m = u'(X'y / N - (X'X / N) v) + u.v + e, for messages that are not clipped.
    """

    answer: Float[Tensor, "models d B"]  # X'y / N
    unseen: Float[Tensor, "models d d B"]  # 1 - X'X / N: what the tokens do not see of a vector
    noise: list[Float[Tensor, "models K B"]]

    @property
    def receivers(self) -> int:
        """All tokens hear the same."""
        return 1

    def field(
        self,
        raw: Float[Tensor, "some K d asked"],
        scale: Float[Tensor, "some K asked"],
        vector: Float[Tensor, "some d asked"] | None,
        said: Float[Tensor, "some K asked"],
        layer: int,
    ) -> Float[Tensor, "some K columns"]:
        """What the first models of a stack hear in a layer; a product is cheaper to scale than a query."""
        some = len(raw)
        heard = self.answer[:some]
        if vector is not None:
            heard = heard + (self.unseen[:some] * vector[:, :, None]).sum(1)
        return torch.addcmul(said + self.noise[layer][:some], (raw * heard[:, None]).sum(2), scale)


class Prompts(NamedTuple):
    """Prompts of one step for a stack of models: the true task and what can be heard of it."""

    task: Float[Tensor, "models d B"]
    heard: Tokens | Statistics


class _Draw(NamedTuple):
    """What one stream yields: the true task; inputs [d, B, N] and labels [B, N], or what the tokens do not
    see [d, d, B] and answer [d, B]; the noise."""

    task: Float[Tensor, "d B"]
    first: Float[Tensor, "d _ _"]
    second: Float[Tensor, "_ _"]
    noise: list[Float[Tensor, "K ..."]]


@dataclass(frozen=True)
class PromptSource:
    """What prompts are made of, as tensors on the device: prior, label noise, tokens, channel."""

    atoms: Float[Tensor, "M d"]
    weights: Float[Tensor, " M"]
    factor: Float[Tensor, "d rank"]
    mixing: Float[Tensor, "rows N"]
    label_noise: float
    channel: Channel
    statistics: bool

    @classmethod
    def of(cls, job: Job, place: torch.device) -> "PromptSource":
        """The material of a job."""
        parts = (job.prior.atoms, job.prior.weights, job.prior.factor, job.mixing)
        atoms, weights, factor, mixing = (
            torch.as_tensor(part, dtype=torch.float32, device=place) for part in parts
        )
        return cls(
            atoms, weights, factor, mixing, job.label_noise, job.channel, job.recipe.sampling == "statistics"
        )


class Stream:
    """Fresh prompts without end, the same for every depth: each layer's noise has its own generator.

    Args:
        material: of the prompts.
        seed: of a recipe.
        layers: depth of the deepest model that uses them.
        use: what they are for.
    """

    def __init__(self, material: PromptSource, seed: int, layers: int, use: Use = Use.TRAINING) -> None:
        self._material, place = material, material.atoms.device
        # A CPU generator keeps 32 bits of its seed; the last tells what the prompts are for.
        address = uniforms(seed, Purpose.TRAINING, range(1), 2 + layers)[1:, 0]
        seeds = [2 * int(2**31 * number) + use for number in address]
        self._generators = [torch.Generator(place).manual_seed(number) for number in seeds]

    def draw(self, size: int) -> _Draw:
        """So many prompts more."""
        this, generator = self._material, self._generators[0]
        atom = torch.multinomial(this.weights, size, replacement=True, generator=generator)
        task = this.atoms.T[:, atom]
        if this.factor.any():
            task = task + this.factor @ self._normal(generator, this.factor.shape[1], size)
        return self._moments(task, generator) if this.statistics else self._tokens(task, generator)

    def state(self, layers: int) -> UInt8[np.ndarray, "generators bytes"]:
        """Where the generators are that a model of so many layers uses."""
        return np.stack([generator.get_state().numpy() for generator in self._generators[: layers + 1]])

    def restore(self, state: UInt8[np.ndarray, "generators bytes"]) -> None:
        """Continue from `state()`."""
        for generator, row in zip(self._generators, state, strict=False):
            generator.set_state(torch.from_numpy(row.copy()))

    def _tokens(self, task: Float[Tensor, "d B"], generator: torch.Generator) -> _Draw:
        this, (dim, size) = self._material, task.shape
        tokens, heads = this.mixing.shape[1], this.channel.channels
        flat = self._normal(generator, dim + 1, size, tokens)  # one call is faster than two
        inputs, errors = flat[:dim], flat[dim]
        labels = (task[:, :, None] * inputs).sum(0) + this.label_noise * errors
        layers = self._generators[1:] if this.channel.noise else []
        noise = [self._normal(layer, heads, size, tokens) for layer in layers]
        return _Draw(task, inputs, labels, noise)

    def _moments(self, task: Float[Tensor, "d B"], generator: torch.Generator) -> _Draw:
        """1 - X'X / N and X'y / N, from the lower triangle that squares to a Wishart matrix.

        Source: M. S. Bartlett, On the theory of statistical regression (1933),
            doi:10.1017/S0370164600015637; THEORY.md section 7, state evolution exact at any N.
        """
        this, (dim, size) = self._material, task.shape
        tokens, place = this.mixing.shape[1], task.device
        freedom = torch.arange(tokens, tokens - dim - 1, -1, device=place).clamp_min(1)
        halves = (freedom / 2)[:, None].expand(-1, size).contiguous()
        diagonal = (2 * torch._standard_gamma(halves, generator)).sqrt()
        below = torch.split(self._normal(generator, dim * (dim + 1) // 2, size), list(range(dim, -1, -1)))
        moments = torch.zeros(dim + 1, dim + 1, size, device=place)  # of (x, e)
        for row in range(min(dim + 1, tokens)):  # fewer tokens than rows: the matrix is singular
            column = torch.cat([diagonal[row : row + 1], below[row]])
            moments[row:, row:].addcmul_(column[:, None], column, value=1 / tokens)
        gram, errors = moments[:dim, :dim], moments[dim, :dim]
        answer = (gram * task[:, None]).sum(0) + this.label_noise * errors
        spread = math.sqrt(this.channel.variance / tokens)
        noise = [spread * self._normal(layer, this.channel.channels, size) for layer in self._generators[1:]]
        return _Draw(task, torch.eye(dim, device=place)[:, :, None] - gram, answer, noise)

    def _normal(self, generator: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=generator, device=self._material.atoms.device)


def side_by_side(material: PromptSource, draws: Sequence[_Draw], streams: Sequence[int]) -> Prompts:
    """Prompts for a stack of models, of which model m uses the draw of stream streams[m]."""
    task = _gathered([draw.task for draw in draws], streams)
    first = _gathered([draw.first for draw in draws], streams)
    second = _gathered([draw.second for draw in draws], streams)
    noise = [_gathered(layer, streams) for layer in zip(*(draw.noise for draw in draws), strict=True)]
    if material.statistics:
        return Prompts(task, Statistics(second, first, noise))
    return Prompts(task, Tokens(first, second, noise, material.mixing, material.channel))


def _gathered(parts: Sequence[Float[Tensor, "..."]], streams: Sequence[int]) -> Float[Tensor, "models ..."]:
    """The part of each model's stream; nothing is copied where all have the same one."""
    if len(parts) == 1:
        return parts[0].expand(len(streams), *parts[0].shape)
    return torch.stack([parts[stream] for stream in streams])
