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

    inputs: Float[Tensor, "models B N d"]
    labels: Float[Tensor, "models B N"]
    noise: list[Float[Tensor, "models B N K"]]
    mixing: Float[Tensor, "rows N"]
    channel: Channel

    @property
    def receivers(self) -> int:
        """Tokens that hear different things."""
        return len(self.mixing)

    def field(
        self,
        raw: Float[Tensor, "some B rows K d"],
        scale: Float[Tensor, "some B rows K 1"],
        vector: Float[Tensor, "some B rows d"] | None,
        said: Float[Tensor, "some B rows K"],
        layer: int,
    ) -> Float[Tensor, "some B rows K"]:
        """What the first models of a stack hear in a layer, as `Transformer.forward` computes it.

        The query is `raw` times `scale`, of norm 1.
        """
        some, query = len(raw), raw * scale
        tokens = self.inputs[:some, :, :, None]  # [some, B, N, 1, d]
        key = (query * tokens).sum(-1)  # [some, B, N, K]
        value = self.labels[:some, :, :, None]
        if vector is not None:
            own = vector[:, :, :, None]
            value = value - (own * tokens).sum(-1)
            said = said + (query * own).sum(-1)
        message = key * value + said
        if self.channel.noise:
            message = message + self.channel.noise * self.noise[layer][:some]
        message = transmit(message, self.channel)
        # Model by model: a product of matrices may round a row by its place among the rows.
        return torch.stack([(one.mT @ self.mixing.T).mT for one in message])


class Statistics(NamedTuple):
    """Moments of the tokens, and the noise of the field in each layer.

    mean over tokens of m = u'(X'y / N - (X'X / N) v) + u.v + e, for messages that are not clipped.
    """

    answer: Float[Tensor, "models B d"]  # X'y / N
    gram: list[Float[Tensor, "B d d"]]  # X'X / N of each model's prompts
    noise: list[Float[Tensor, "models B K"]]

    @property
    def receivers(self) -> int:
        """All tokens hear the same."""
        return 1

    def field(
        self,
        raw: Float[Tensor, "some B 1 K d"],
        scale: Float[Tensor, "some B 1 K 1"],
        vector: Float[Tensor, "some B 1 d"] | None,
        said: Float[Tensor, "some B 1 K"],
        layer: int,
    ) -> Float[Tensor, "some B 1 K"]:
        """What the first models of a stack hear in a layer; a product is cheaper to scale than a query."""
        heard = self.answer[: len(raw)]
        if vector is not None:
            heard = heard + self.missed(vector[:, :, 0])
        along = (raw * heard[:, :, None, None]).sum(-1) * scale[..., 0]
        return along + said + self.noise[layer][: len(raw), :, None]

    def missed(self, vector: Float[Tensor, "some B d"]) -> Float[Tensor, "some B d"]:
        """v - (X'X / N) v: the part of a vector that the tokens do not see; its own transpose."""
        pairs = zip(self.gram, vector[..., None], strict=False)  # no copies of the matrices are made
        return vector - torch.stack([torch.bmm(gram, own)[..., 0] for gram, own in pairs])


class Prompts(NamedTuple):
    """Prompts of one step for a stack of models: the true task and what can be heard of it."""

    task: Float[Tensor, "models B d"]
    heard: Tokens | Statistics


class _Draw(NamedTuple):
    """What one stream yields: the true task; inputs [B, d, N] and labels, or gram and answer; the noise."""

    task: Float[Tensor, "B d"]
    first: Float[Tensor, "B d _"]
    second: Float[Tensor, "B _"]
    noise: list[Float[Tensor, "..."]]


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
        task = this.atoms[atom]
        if this.factor.any():
            task = task + self._normal(generator, size, this.factor.shape[1]) @ this.factor.T
        return self._moments(task, generator) if this.statistics else self._tokens(task, generator)

    def state(self, layers: int) -> UInt8[np.ndarray, "generators bytes"]:
        """Where the generators are that a model of so many layers uses."""
        return np.stack([generator.get_state().numpy() for generator in self._generators[: layers + 1]])

    def restore(self, state: UInt8[np.ndarray, "generators bytes"]) -> None:
        """Continue from `state()`."""
        for generator, row in zip(self._generators, state, strict=False):
            generator.set_state(torch.from_numpy(row.copy()))

    def _tokens(self, task: Float[Tensor, "B d"], generator: torch.Generator) -> _Draw:
        this, (size, dim) = self._material, task.shape
        tokens, heads = this.mixing.shape[1], this.channel.channels
        flat = self._normal(generator, size * (dim + 1) * tokens)  # one call is faster than two
        inputs, errors = torch.split(flat, [size * dim * tokens, size * tokens])
        inputs = inputs.view(size, dim, tokens)
        labels = (task[:, :, None] * inputs).sum(1) + this.label_noise * errors.view(size, tokens)
        layers = self._generators[1:] if this.channel.noise else []
        noise = [self._normal(layer, size, tokens, heads) for layer in layers]
        return _Draw(task, inputs, labels, noise)

    def _moments(self, task: Float[Tensor, "B d"], generator: torch.Generator) -> _Draw:
        """X'X / N and X'y / N, from the lower triangle that squares to a Wishart matrix.

        Source: M. S. Bartlett, On the theory of statistical regression (1933),
            doi:10.1017/S0370164600015637; THEORY.md section 7, state evolution exact at any N.
        """
        this, (size, dim) = self._material, task.shape
        tokens = this.mixing.shape[1]
        freedom = torch.arange(tokens, tokens - dim - 1, -1, device=task.device).clamp_min(1)
        halves = (freedom / 2).expand(size, dim + 1).contiguous()
        lower = self._normal(generator, size, dim + 1, dim + 1).tril(-1)
        lower.diagonal(dim1=1, dim2=2).copy_((2 * torch._standard_gamma(halves, generator)).sqrt())
        lower = lower[:, :, :tokens]  # fewer tokens than rows: the matrix is singular
        moments = torch.bmm(lower, lower.mT) / tokens  # of (x, e) [B, d + 1, d + 1]
        gram = moments[:, :dim, :dim].contiguous()
        answer = (gram * task[:, None]).sum(-1) + this.label_noise * moments[:, :dim, dim]
        spread = math.sqrt(this.channel.variance / tokens)
        noise = [spread * self._normal(layer, size, this.channel.channels) for layer in self._generators[1:]]
        return _Draw(task, gram, answer, noise)

    def _normal(self, generator: torch.Generator, *shape: int) -> Float[Tensor, "..."]:
        return torch.randn(shape, generator=generator, device=self._material.atoms.device)


def side_by_side(material: PromptSource, draws: Sequence[_Draw], streams: Sequence[int]) -> Prompts:
    """Prompts for a stack of models, of which model m uses the draw of stream streams[m]."""
    models = len(streams)

    def gathered(parts: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "models ..."]:
        if len(parts) == 1:
            return parts[0].expand(models, *parts[0].shape)
        return torch.stack([parts[stream] for stream in streams])

    task, second = gathered([draw.task for draw in draws]), gathered([draw.second for draw in draws])
    noise = [gathered(layer) for layer in zip(*(draw.noise for draw in draws), strict=True)]
    if material.statistics:
        return Prompts(task, Statistics(second, [draws[stream].first for stream in streams], noise))
    # Tokens stay contiguous in memory, whatever is gathered: sums over d run along them.
    inputs = gathered([draw.first for draw in draws]).mT
    return Prompts(task, Tokens(inputs, second, noise, material.mixing, material.channel))
