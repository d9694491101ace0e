"""Softmax transformers: one reads examples in a row, the other has a token for each example."""

import math
from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

_PLACES = 50.0  # the slowest wave of the initial positions has a period of so many places x 2 pi
_HEIGHT = 0.2  # root mean square of an initial position's components


class Block(nn.Module):
    """One block: z <- z + attention(norm z), then z <- z + W2 gelu(W1 norm z), hidden width 4 W.

    Source: A. Radford et al., Language models are unsupervised multitask learners (2019), section 2.3.
    """

    def __init__(self, width: int, heads: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        small = (2 * layers) ** -0.5  # both halves of all blocks add up in the stream
        self.before_attention, self.before_update = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = affine(width, 3 * width, 1.0, generator)
        self.projection = affine(width, width, small, generator)
        self.hidden = affine(width, 4 * width, 1.0, generator)
        self.update = affine(4 * width, width, small, generator)

    def forward(
        self, stream: Float[Tensor, "B T W"], hears: Bool[Tensor, "T T"] | None
    ) -> Float[Tensor, "B T W"]:
        """The stream after this block; token i attends to those that it hears."""
        parts = self.attention(self.before_attention(stream)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, T, W / heads] each
        heard = scaled_dot_product_attention(query, key, value, attn_mask=hears)
        stream = stream + self.projection(heard.transpose(1, 2).flatten(2))
        return stream + self.update(gelu(self.hidden(self.before_update(stream)), approximate="tanh"))


class Softmax(nn.Module):
    """Causal transformer over x_1, y_1, ..., x_N, y_N, which answers y at each x, and any queries after.

    An x fills the first d of d + 1 components, a y the last, and one linear map reads both in. Positions
    are learned, one for each place of the sequence; all queries have that of x_{N+1}, attend to all
    examples and to themselves, and to no other query. Positions begin as waves, for which the place
    before is one linear map of a place: to find the x of a y is then learned once, not place by place.

    Source: S. Garg et al., arXiv:2208.01066, section 2 and appendix A; waves: A. Vaswani et al.,
        arXiv:1706.03762, section 3.5.

    Example:
        >>> model = Softmax(3, tokens=4, width=8, heads=2, layers=1, seed=0)
        >>> answers = model(torch.randn(5, 4, 3), torch.randn(5, 4), torch.randn(5, 2, 3))
        >>> list(answers.shape)
        [5, 6]
    """

    def __init__(self, dim: int, tokens: int, width: int, heads: int, layers: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.read_in = affine(dim + 1, width, 1.0, generator)
        self.places = nn.Parameter(_waves(2 * tokens + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, layers, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.read_out = affine(width, 1, 0.1, generator)

    def forward(
        self,
        inputs: Float[Tensor, "B n d"],
        labels: Float[Tensor, "B n"],
        queries: Float[Tensor, "B Q d"],
    ) -> Float[Tensor, "B n+Q"]:
        """Answers at x_1, ..., x_n, of which each knows the examples before it, and at the queries.

        Args:
            inputs: x of each example, n <= N.
            labels: y of each example.
            queries: x of each query.
        """
        examples = torch.stack(
            [nn.functional.pad(inputs, (0, 1)), nn.functional.pad(labels[..., None], (inputs.shape[2], 0))], 2
        ).flatten(1, 2)  # [B, 2n, d + 1]
        known, asked = examples.shape[1], queries.shape[1]
        places = torch.cat([self.places[:known], self.places[-1:].expand(asked, -1)])
        stream = self.read_in(torch.cat([examples, nn.functional.pad(queries, (0, 1))], 1)) + places
        hears = torch.ones(known + asked, known + asked, dtype=torch.bool, device=inputs.device).tril()
        hears[known:, known:] = torch.eye(asked, dtype=torch.bool, device=inputs.device)
        for block in _in_order(self.blocks):
            stream = block(stream, hears)
        answers = self.read_out(self.norm(stream))[..., 0]
        return torch.cat([answers[:, :known:2], answers[:, known:]], 1)

    def loss(
        self,
        task: Float[Tensor, "B d"],
        inputs: Float[Tensor, "B n d"],
        labels: Float[Tensor, "B n"],
        queries: Float[Tensor, "B Q d"],
    ) -> Float[Tensor, ""]:
        """Mean square error at all x and queries: of the noisy label that follows, and of w.x_q.

        A query has no label that anyone reads, so its target goes without noise: the best answer is the
        same, and the gradient has less variance.
        """
        wanted = torch.cat([labels, (queries * task[:, None]).sum(-1)], 1)
        return (self(inputs, labels, queries).float() - wanted).square().mean()


class MaskedSoftmax(nn.Module):
    """One token for each example (x, y), which hears its neighbours alone, and its own estimate of w.

    Where everyone hears everyone there are no positions: any order of the examples gives the same
    answers, in that order. Elsewhere a learned position is added, which begins at zero: there tokens
    differ in what they can hear, and nothing else would tell them apart.

    Source: A. Vaswani et al., arXiv:1706.03762, attention with a mask; THEORY.md section 8, locality.

    Example:
        >>> model = MaskedSoftmax(3, None, width=8, heads=2, layers=1, seed=0)
        >>> list(model(torch.randn(5, 4, 3), torch.randn(5, 4)).shape)
        [5, 4, 3]
    """

    def __init__(
        self, dim: int, hears: Bool[np.ndarray, "N N"] | None, width: int, heads: int, layers: int, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hears: Tensor | None
        self.register_buffer("hears", None if hears is None else torch.from_numpy(hears), persistent=False)
        self.read_in = affine(dim + 1, width, 1.0, generator)
        self.places = None if hears is None else nn.Parameter(torch.zeros(len(hears), width))
        self.blocks = nn.ModuleList(Block(width, heads, layers, generator) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.read_out = affine(width, dim, 0.1, generator)

    def forward(self, inputs: Float[Tensor, "B N d"], labels: Float[Tensor, "B N"]) -> Float[Tensor, "B N d"]:
        """Estimate of w by each token after the last layer."""
        stream = self.read_in(torch.cat([inputs, labels[..., None]], -1))
        if self.places is not None:
            stream = stream + self.places
        for block in _in_order(self.blocks):
            stream = block(stream, self.hears)
        return cast(Tensor, self.read_out(self.norm(stream)))

    def loss(
        self, task: Float[Tensor, "B d"], inputs: Float[Tensor, "B N d"], labels: Float[Tensor, "B N"]
    ) -> Float[Tensor, ""]:
        """Mean |w - w_i|^2 over tokens."""
        return (self(inputs, labels).float() - task[:, None]).square().sum(-1).mean()


def affine(inputs: int, outputs: int, scale: float, generator: torch.Generator) -> nn.Linear:
    """Affine map with zero bias and weights of standard deviation scale / sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # draws nothing by itself
    nn.init.normal_(layer.weight, std=scale / inputs**0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _waves(places: int, width: int) -> Float[Tensor, "places W"]:
    """Sines and cosines of the place, of periods from 2 pi places to 2 pi x _PLACES."""
    pairs = -(-width // 2)
    pace = torch.exp(torch.arange(pairs) * (-math.log(_PLACES) / pairs))
    phase = torch.arange(places)[:, None] * pace
    return _HEIGHT * 2**0.5 * torch.cat([phase.sin(), phase.cos()], 1)[:, :width]


def _in_order(blocks: nn.ModuleList) -> Iterable[Block]:
    """The blocks, with their type."""
    return cast(Iterable[Block], blocks)
