"""Forward and backward pass on statistics, written out: a step of small models without its overhead.

Autograd builds a graph of small operations and fresh arrays at every step, which for models of this size
takes longer than the numbers themselves.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.learned import NORM_FLOOR
from runner.training.prompts import Prompts, Statistics
from runner.training.stack import Stack


class _Layer(NamedTuple):
    """What the backward pass needs of a layer's forward pass.

    Attributes:
        workspace: p before the layer.
        asked: raw queries, then emissions.
        scale: 1 / |raw query|.
        answer: h = X'y / N + v - (X'X / N) v; a query u hears u.h.
        along: raw query . h
        heard: [p, s].
    """

    workspace: Float[Tensor, "some B W"]
    asked: Float[Tensor, "some B asked"]
    scale: Float[Tensor, "some B K"]
    answer: Float[Tensor, "some B d"]
    along: Float[Tensor, "some B K"]
    heard: Float[Tensor, "some B heard"]


class Backward:
    """`Stack.descend` on statistics, with arrays that are made once.

    Args:
        stack: of the models.
        batch: prompts in a step.

    Source: THEORY.md section 8; D. E. Rumelhart et al., Learning representations by back-propagating
        errors (1986), doi:10.1038/323533a0.
    """

    def __init__(self, stack: Stack, batch: int) -> None:
        self._stack = stack
        sizes, place = stack.sizes, stack.rows.device
        self._asked = sizes.heads * sizes.dim
        # One model after the other where products are large: what one needs stays in the processor's cache.
        # On an accelerator all at once.
        self._parts = [
            [slice(row, row + 1) for row in range(some)] if place.type == "cpu" else [slice(0, some)]
            for some in stack.having
        ]
        wide = sizes.hidden if sizes.feedforward else 0
        self._hidden = [stack.rows.new_empty(some, batch, wide) for some in stack.having]
        most = 1 if place.type == "cpu" else stack.having[0]
        width, heard = sizes.width, sizes.width + sizes.heads
        self._start, self._along = stack.rows.new_empty(2, stack.having[0], batch, width)
        self._after = [stack.rows.new_empty(some, batch, width) for some in stack.having]
        self._heard = [stack.rows.new_empty(some, batch, heard) for some in stack.having]
        # Where layers share weights each one's gradient is set down here, and added up.
        self._looped = stack.sizes.looped
        self._gradient = stack.views(torch.zeros_like(stack.slope)) if self._looped else stack.gradient
        self._slope, self._open = stack.rows.new_empty(2, most, batch, wide)

    @torch.no_grad()
    def __call__(self, prompts: Prompts, shares: Float[Tensor, " risks"]) -> Float[Tensor, " risks"]:
        """The risks; the stack's `slope` becomes the gradient of their sum with these shares."""
        task, heard = prompts
        if not isinstance(heard, Statistics):
            raise TypeError("tokens were given: what is written out here holds for statistics")
        stack, size, models = self._stack, task.shape[1], task.shape[0]
        readout, slope = stack.weights.readout, stack.gradient
        start = self._start.copy_(stack.weights.start[:, None])
        workspace, estimate = start, torch.bmm(start, readout.mT)
        layers, misses, after = [], [], []
        for index, some in enumerate(stack.having):
            layers.append(self._forward(index, workspace[:some], estimate[:some], heard))
            workspace = self._feedforward(index, layers[-1])
            estimate = torch.bmm(workspace, readout[:some].mT)
            misses.append(estimate - task[:some])
            after.append(workspace)
        risks = torch.cat([miss.square().sum(-1).mean(1) for miss in misses])
        weights = torch.split(shares * (2.0 / size), stack.having)
        slope.readout.zero_()
        for part in slope.layers[0] if self._looped else ():
            part.zero_()
        along = self._along.zero_()  # gradient of the workspaces
        towards = task.new_zeros(models, size, stack.sizes.dim)  # gradient of the estimates
        for index in range(len(layers) - 1, -1, -1):
            some = stack.having[index]
            towards[:some] += misses[index] * weights[index][:, None, None]
            slope.readout[:some].add_(torch.bmm(towards[:some].mT, after[index]))
            along[:some].baddbmm_(towards[:some], readout[:some])
            towards[:some] = self._backward(index, layers[index], along[:some], heard)
            self._add_up(some)
        slope.readout.add_(torch.bmm(towards.mT, start))
        along.baddbmm_(towards, readout)
        torch.sum(along, 1, out=slope.start)
        stack.hold()
        return risks

    def _add_up(self, some: int) -> None:
        """Add a layer's gradient to that of the layer that all are."""
        if self._looped:
            for total, part in zip(
                self._stack.gradient.layer(0, some), self._gradient.layer(0, some), strict=True
            ):
                total += part

    def _forward(
        self,
        index: int,
        workspace: Float[Tensor, "some B W"],
        estimate: Float[Tensor, "some B d"],
        heard: Statistics,
    ) -> _Layer:
        stack, (some, size, dim) = self._stack, estimate.shape
        heads = stack.sizes.heads
        matrix, bias, *_ = stack.weights.layer(index, some)
        asked = torch.baddbmm(bias[:, None], workspace, matrix.mT)
        raw = asked[..., : self._asked].view(some, size, heads, dim)
        scale = torch.rsqrt(raw.square().sum(-1) + NORM_FLOOR)
        answer = heard.answer[:some]
        if stack.sizes.control_variate:
            answer = answer + heard.missed(estimate)
        along = (raw * answer[:, :, None]).sum(-1)
        field = along * scale + asked[..., self._asked :] + heard.noise[index][:some]
        both = torch.cat([workspace, field], dim=-1, out=self._heard[index])
        return _Layer(workspace, asked, scale, answer, along, both)

    def _feedforward(self, index: int, kept: _Layer) -> Float[Tensor, "some B W"]:
        """The workspace after the feedforward block."""
        *_, matrix, bias = weights = self._stack.weights.layer(index, len(kept.workspace))
        after = self._after[index]
        for part in self._parts[index]:
            hidden = kept.heard[part]
            if self._stack.sizes.feedforward:
                wide = self._hidden[index][part]
                torch.baddbmm(weights[3][part, None], hidden, weights[2][part].mT, out=wide)
                hidden = wide.clamp_min_(0.0)
            torch.baddbmm(kept.workspace[part], hidden, matrix[part].mT, out=after[part])
        return after.add_(bias[:, None])

    def _backward(
        self, index: int, kept: _Layer, along: Float[Tensor, "some B W"], heard: Statistics
    ) -> Float[Tensor, "some B d"]:
        """From the gradient of the workspaces after a layer, which becomes that before it.

        Returns: the gradient of the estimates before the layer.
        """
        stack, (some, size, _) = self._stack, along.shape
        heads, dim = stack.sizes.heads, stack.sizes.dim
        weights, slopes = stack.weights.layer(index, some), self._gradient.layer(index, some)
        slopes[-1].copy_(along.sum(1))
        field = along.new_empty(some, size, heads)
        for part in self._parts[index]:
            self._feedforward_backward(index, part, kept.heard[part], along[part], field[part])
        raw = kept.asked[..., : self._asked].view(some, size, heads, dim)
        scaled = (field * kept.scale)[..., None]
        bent = (kept.along * kept.scale.square())[..., None]  # the unit query turns, it does not grow
        asking = torch.empty_like(kept.asked)
        asking[..., : self._asked] = (scaled * (kept.answer[:, :, None] - bent * raw)).flatten(-2)
        asking[..., self._asked :] = field
        slopes[0].copy_(torch.bmm(asking.mT, kept.workspace))
        slopes[1].copy_(asking.sum(1))
        along.baddbmm_(asking, weights[0])
        if not stack.sizes.control_variate:
            return torch.zeros_like(kept.answer)
        return heard.missed((scaled * raw).sum(2))

    def _feedforward_backward(
        self,
        index: int,
        part: slice,
        heard: Float[Tensor, "part B heard"],
        along: Float[Tensor, "part B W"],
        field: Float[Tensor, "part B K"],
    ) -> None:
        """Back through the feedforward block of some models: `along` goes on, `field` is written."""
        some = self._stack.having[index]
        weights, slopes = self._stack.weights.layer(index, some), self._gradient.layer(index, some)
        width, inner = along.shape[2], along
        if self._stack.sizes.feedforward:
            hidden = self._hidden[index][part]
            slopes[4][part] = torch.bmm(along.mT, hidden)
            inner, active = self._slope[: len(along)], self._open[: len(along)]
            torch.bmm(along, weights[4][part], out=inner)
            inner.mul_(torch.sign(hidden, out=active))
            slopes[3][part] = inner.sum(1)
        slopes[2][part] = torch.bmm(heard.mT, inner).mT  # faster than the product of the transposes
        matrix = weights[2][part]
        torch.bmm(inner, matrix[..., width:], out=field)
        along += torch.bmm(inner, matrix[..., :width])  # where there is no hidden layer inner is along
