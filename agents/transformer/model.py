"""The constrained linear attention transformer, and its export to message-passing tokens.

A layer is a round: every token asks along a query that it reads from its workspace, says one clipped and
rounded number for each head, hears the mean over its neighbours, and updates its workspace.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.channel import Channel
from agents.policies.learned import NORM_FLOOR


@dataclass(frozen=True)
class Architecture:
    """Sizes of a transformer, and which of its parts it has.

    Attributes:
        dim: input dimension d.
        layers: depth L.
        heads: scalar channels K.
        width: workspace W.
        hidden: width of the feedforward block.
        feedforward: False makes the block one affine map, without a ReLU.
        adaptive_queries: False replaces the query Q p by a learned constant.
        control_variate: False leaves the token's own estimate R p out of the message.
        looped: True repeats one layer, with the same weights, L times.

    Source: THEORY.md section 8, ablations.
    """

    dim: int
    layers: int
    heads: int = 1
    width: int = 32
    hidden: int = 128
    feedforward: bool = True
    adaptive_queries: bool = True
    control_variate: bool = True
    looped: bool = False

    @property
    def distinct(self) -> int:
        """Layers with weights of their own.

        Example:
            >>> Architecture(dim=3, layers=4).distinct, Architecture(dim=3, layers=4, looped=True).distinct
            (4, 1)
        """
        return min(1, self.layers) if self.looped else self.layers


class Layer(nn.Module):
    """Weights of one layer: query Q p, emission E p, feedforward block MLP([p, s])."""

    query: nn.Linear
    emission: nn.Linear
    update: nn.Sequential

    def __init__(self, sizes: Architecture, generator: torch.Generator) -> None:
        super().__init__()
        heard = sizes.width + sizes.heads
        self.query = _affine(sizes.width, sizes.heads * sizes.dim, 1.0, generator)  # W -> K d
        self.emission = _affine(sizes.width, sizes.heads, 0.0, generator)  # W -> K
        if sizes.feedforward:  # W + K -> H -> W
            first = _affine(heard, sizes.hidden, 2.0**0.5, generator)
            second = _affine(sizes.hidden, sizes.width, 0.5, generator)
            self.update = nn.Sequential(first, nn.ReLU(), second)
        else:  # W + K -> W
            self.update = nn.Sequential(_affine(heard, sizes.width, 0.5, generator))
        nn.init.normal_(self.query.bias, generator=generator)
        if not sizes.adaptive_queries:  # the bias alone is the query
            nn.init.zeros_(self.query.weight).requires_grad_(False)


class Transformer(nn.Module):
    """Layers that alternate one round of bounded messages with one feedforward block.

    u = normalise(Q p); m = (u.x)(y - (R p).x) + u.(R p) + E p; p <- p + MLP([p, A channel(m)]); w = R p.

    Args:
        sizes: the architecture.
        seed: of the initial weights.

    Source: THEORY.md section 8.

    Example:
        >>> model = Transformer(Architecture(dim=3, layers=2))
        >>> inputs, labels, mixing = torch.randn(5, 4, 3), torch.randn(5, 4), torch.full((1, 4), 0.25)
        >>> list(model(inputs, labels, mixing, Channel(), None).shape)
        [3, 5, 1, 3]
    """

    def __init__(self, sizes: Architecture, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.sizes = sizes
        self.start = nn.Parameter(torch.randn(sizes.width, generator=generator))
        self.layers = nn.ModuleList(Layer(sizes, generator) for _ in range(sizes.distinct))
        self.readout = nn.Parameter(
            0.1 * torch.randn(sizes.dim, sizes.width, generator=generator) / sizes.width**0.5
        )

    def forward(
        self,
        inputs: Float[Tensor, "B N d"],
        labels: Float[Tensor, "B N"],
        mixing: Float[Tensor, "rows N"],
        channel: Channel,
        noise: Float[Tensor, "layers B N K"] | None,
    ) -> Float[Tensor, "depths B rows d"]:
        """Estimates of w after 0, 1, ..., L layers.

        Args:
            inputs: x of each token.
            labels: y of each token.
            mixing: weights A with which receivers hear tokens, rows sum to 1; with a single row
                everyone hears the same, and one workspace stands for all.
            channel: the bound on a message.
            noise: standard normal numbers, which the transmitter multiplies by tau; None is silence.
        """
        sizes, rows = self.sizes, len(mixing)
        tokens = inputs[:, :, None]  # [B, N, 1, d] beside [B, rows, K, d]
        workspace = self.start.expand(len(inputs), rows, -1)  # [B, rows, W]
        estimates = [workspace @ self.readout.T]  # [B, rows, d]
        for index, layer in enumerate(self.rounds()):
            query = layer.query(workspace).unflatten(-1, (sizes.heads, sizes.dim))  # [B, rows, K, d]
            query = query * torch.rsqrt(query.square().sum(-1, keepdim=True) + NORM_FLOOR)
            said = layer.emission(workspace)  # [B, rows, K]
            key = (query * tokens).sum(-1)  # u.x [B, N, K]
            value = labels[:, :, None]  # [B, N, 1]
            if sizes.control_variate:
                vector = estimates[-1][:, :, None]  # [B, rows, 1, d]
                value = value - (vector * tokens).sum(-1)  # y - (R p).x
                said = said + (query * vector).sum(-1)
            message = key * value + said  # [B, N, K]
            if noise is not None and channel.noise:
                message = message + channel.noise * noise[index]
            message = transmit(message, channel)
            field = (message.mT @ mixing.T).mT  # [B, rows, K]
            workspace = workspace + layer.update(torch.cat([workspace, field], dim=-1))
            estimates.append(workspace @ self.readout.T)
        return torch.stack(estimates)

    def rounds(self) -> Iterable[Layer]:
        """The layer of each round, with its type."""
        layers = cast(Iterable[Layer], self.layers)
        return list(layers)[:1] * self.sizes.layers if self.sizes.looped else layers


def transmit(message: Float[Tensor, "..."], channel: Channel) -> Float[Tensor, "..."]:
    """Clip and round as `Channel` does; the gradient passes straight through the rounding.

    Source: Y. Bengio et al., Estimating or propagating gradients through stochastic neurons (2013),
        arXiv:1308.3432.

    Example:
        >>> transmit(torch.tensor([-9.0, 0.9]), Channel(bits=2, clip=3.0)).tolist()
        [-3.0, 1.0]
    """
    held = message.clamp(-channel.clip, channel.clip)
    with torch.no_grad():
        rounding = ((held + channel.clip) / channel.step).round() * channel.step - channel.clip - held
    return held + rounding


def _affine(inputs: int, outputs: int, scale: float, generator: torch.Generator) -> nn.Linear:
    """Affine map with zero bias and weights of standard deviation scale / sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # draws nothing by itself
    nn.init.normal_(layer.weight, std=scale / inputs**0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer
