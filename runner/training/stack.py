"""Models of one shape side by side: the same weight of all of them is one tensor."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from agents.policies.learned import NORM_FLOOR
from agents.transformer.model import Architecture, Transformer
from runner.training.prompts import Prompts

_ALIGN = 16  # single-precision numbers in 64 bytes


class WeightLayout:
    """Where each weight of a model lies in one row of numbers.

    A shallow model's row is the beginning of a deeper one's. Query and emission lie one after the other,
    and are applied as one matrix; what is applied begins at a multiple of 64 bytes.

    Example:
        >>> shallow, deep = (WeightLayout(Architecture(dim=3, layers=layers)) for layers in (1, 2))
        >>> all(deep.places[name] == place for name, place in shallow.places.items())
        True
    """

    def __init__(self, sizes: Architecture) -> None:
        shapes = {name: tuple(value.shape) for name, value in Transformer(sizes).state_dict().items()}
        updates = sorted({name.split(".")[3] for name in shapes if ".update." in name})
        self.places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.size = 0
        self._put(shapes, "start")
        self._put(shapes, "readout")
        for layer in range(sizes.distinct):
            for kind in ("weight", "bias"):
                self._put(shapes, f"layers.{layer}.query.{kind}", f"layers.{layer}.emission.{kind}")
            for part in updates:
                self._put(shapes, f"layers.{layer}.update.{part}.weight")
                self._put(shapes, f"layers.{layer}.update.{part}.bias")

    def _put(self, shapes: Mapping[str, tuple[int, ...]], *names: str) -> None:
        for name in names:
            self.places[name] = (self.size, shapes[name])
            self.size += prod(shapes[name])
        self.size = -(-self.size // _ALIGN) * _ALIGN

    def pack(self, state: Mapping[str, Float[np.ndarray, "..."]]) -> Float[np.ndarray, " P"]:
        """Weights by name as one row."""
        row = np.zeros(self.size, dtype=np.float32)
        for name, (first, shape) in self.places.items():
            row[first : first + prod(shape)] = state[name].ravel()
        return row

    def unpack(self, row: Float[np.ndarray, " P"]) -> dict[str, Float[np.ndarray, "..."]]:
        """The weights by name."""
        return {
            name: row[first : first + prod(shape)].reshape(shape).copy()
            for name, (first, shape) in self.places.items()
        }


def stackable(sizes: Architecture, batch: int) -> bool:
    """Whether a model's weights hang on nothing that is computed beside it.

    A product of matrices may be rounded by where its operands lie in memory. Where all sizes are
    multiples of 64 bytes, an operand lies in a stack as it does alone.

    Example:
        >>> stackable(Architecture(dim=7, layers=3), 512), stackable(Architecture(dim=7, layers=3), 500)
        (True, False)
    """
    return not any(size % _ALIGN for size in (sizes.width, sizes.hidden, batch))


class Views(NamedTuple):
    """Weights of a stack, or their gradients, as tensors: parts of one tensor of rows.

    Attributes:
        start, readout: of all models.
        layers: of the models that have the layer: matrix and bias of query and emission together, then
            those of the feedforward block; a single one where all layers share it.
    """

    start: Float[Tensor, "models W"]
    readout: Float[Tensor, "models d W"]
    layers: list[list[Float[Tensor, "some ..."]]]

    def all(self) -> list[Float[Tensor, "..."]]:
        """The tensors in a fixed order."""
        return [self.start, self.readout, *(part for layer in self.layers for part in layer)]

    def layer(self, index: int, some: int) -> list[Float[Tensor, "some ..."]]:
        """What the first models apply in a layer."""
        return [_first(some, part) for part in self.layers[min(index, len(self.layers) - 1)]]


def _first(some: int, part: Float[Tensor, "models ..."]) -> Float[Tensor, "some ..."]:
    """The first models' part; what is all of it is not cut, as a cut costs time in the backward pass."""
    return part if len(part) == some else part[:some]


class Stack:
    """The forward pass of several models at once, on prompts of their own or shared ones.

    Args:
        sizes: of the deepest model; the others differ from it in depth alone.
        depths: of the models, the deepest first, so that those that have a layer are the first.
        rows: the weights, a row for each model.

    Raises:
        ValueError: if the deepest is not the first.

    Source: THEORY.md section 8, as `Transformer.forward`.
    """

    def __init__(self, sizes: Architecture, depths: Sequence[int], rows: Float[Tensor, "models P"]) -> None:
        if list(depths) != sorted(depths, reverse=True) or depths[0] != sizes.layers:
            raise ValueError(f"the deepest models come first, and the first has {sizes.layers} layers")
        self.sizes, self.rows, self.slope = sizes, rows, torch.zeros_like(rows)
        self._layout = WeightLayout(sizes)
        self.having = [sum(depth > layer for depth in depths) for layer in range(sizes.layers)]
        self.weights, self.gradient = self.views(rows), self.views(self.slope)
        for weight in self.weights.all():
            weight.requires_grad_()

    def estimates(self, prompts: Prompts) -> list[Float[Tensor, "some d columns"]]:
        """Estimates of w after 1, ..., L layers, of the models that have so many; prompts are columns."""
        task, heard = prompts
        sizes, readout, queries = self.sizes, self.weights.readout, self.sizes.heads * self.sizes.dim
        workspace = self.weights.start[:, :, None].expand(-1, -1, heard.receivers)  # in any prompt the same
        estimate = torch.bmm(readout, workspace)
        estimates = []
        for layer, some in enumerate(self.having):
            workspace, estimate, readout = (_first(some, part) for part in (workspace, estimate, readout))
            matrix, bias, *update = self.weights.layer(layer, some)
            asked = torch.baddbmm(bias[:, :, None], matrix, workspace)
            raw, said = torch.split(asked, [queries, sizes.heads], dim=1)
            raw = raw.view(some, sizes.heads, sizes.dim, -1)
            scale = torch.rsqrt(raw.square().sum(2) + NORM_FLOOR)
            field = heard.field(raw, scale, estimate if sizes.control_variate else None, said, layer)
            if not layer:
                workspace = workspace[:, :, None].expand(-1, -1, task.shape[-1], -1).flatten(2)
            hidden = torch.cat([workspace, field], dim=1)
            if sizes.feedforward:
                first, lift, *update = update
                hidden = torch.baddbmm(lift[:, :, None], first, hidden).relu_()
            matrix, bias = update
            workspace = torch.baddbmm(workspace, matrix, hidden) + bias[:, :, None]
            estimate = torch.bmm(readout, workspace)
            estimates.append(estimate)
        return estimates

    def risks(self, prompts: Prompts) -> Float[Tensor, " risks"]:
        """Mean |w - w_l|^2 after l = 1, ..., L layers, each time of the models that have so many."""
        found = torch.cat(self.estimates(prompts))
        truth = torch.cat([prompts.task[:some] for some in self.having])
        truth = truth[..., None].expand(-1, -1, -1, prompts.heard.receivers).flatten(2)
        return mse_loss(found, truth, reduction="none").sum((1, 2)) / truth.shape[2]

    def descend(self, prompts: Prompts, shares: Float[Tensor, " risks"]) -> Float[Tensor, " risks"]:
        """The risks; `slope` becomes the gradient of their sum with these shares."""
        risks = self.risks(prompts)
        slopes = torch.autograd.grad(risks, self.weights.all(), shares)
        torch._foreach_copy_(self.gradient.all(), slopes)
        self.hold()
        return risks.detach()

    def hold(self) -> None:
        """Take from the gradient what is not learnt: the matrix of a query that is a constant."""
        if not self.sizes.adaptive_queries:
            for matrix, *_ in self.gradient.layers:
                matrix[:, : self.sizes.heads * self.sizes.dim] = 0.0

    def views(self, rows: Float[Tensor, "models P"]) -> Views:
        """Rows of this stack's layout as tensors, which share their memory."""

        def view(some: int, *names: str) -> Float[Tensor, "some ..."]:
            places = [self._layout.places[name] for name in names]
            first, rest = places[0][0], places[0][1][1:]
            long = sum(shape[0] for _, shape in places)
            part = rows[:some, first : first + long * prod(rest)].view(some, long, *rest)
            return part.detach()

        layers = []
        for layer, some in enumerate(self.having[: self.sizes.distinct]):
            prefix = f"layers.{layer}."
            asked = [
                view(some, f"{prefix}query.{kind}", f"{prefix}emission.{kind}") for kind in ("weight", "bias")
            ]
            updates = [name for name in self._layout.places if name.startswith(f"{prefix}update.")]
            layers.append(asked + [view(some, name) for name in updates])
        return Views(view(len(rows), "start"), view(len(rows), "readout"), layers)
