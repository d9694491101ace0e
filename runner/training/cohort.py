"""Models that stand at the same step, and take the next ones together."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from runner.training.backward import Backward
from runner.training.checkpoint import Checkpoint, Standing
from runner.training.prompts import Material, Prompts, Stream, Use, side_by_side
from runner.training.stack import Layout, Stack
from runner.weights import Job

REPORT_EVERY = 100  # steps between two reports of progress
_EXPLODED = 10.0  # times E|w|^2, which is the loss of a model that always answers 0
_IMPROVED = 1e-3  # share by which the risk on the validation set must fall
_VALIDATION = 4  # batches of the validation set

Tell = Callable[[int, int, float], None]


class Diverged(FloatingPointError):
    """The loss of a model is not finite or exploded.

    Attributes:
        step: the report at which it was seen; the loss was good one report before.
        checkpoint: the last good one; None if none was kept.
        checkpoint_step: the step of it.
    """

    def __init__(
        self, message: str, step: int = 0, checkpoint: Path | None = None, checkpoint_step: int | None = None
    ) -> None:
        super().__init__(message)
        self.step, self.checkpoint, self.checkpoint_step = step, checkpoint, checkpoint_step


@dataclass
class Member:
    """One of the models: its job, where it stands, where that is kept."""

    index: int
    job: Job
    checkpoint: Checkpoint
    standing: Standing

    @property
    def depth(self) -> int:
        """Number of layers."""
        return self.job.architecture.layers


class Cohort:
    """Models that stand at the same step, the deepest first."""

    def __init__(self, members: Sequence[Member], place: torch.device, tell: Tell) -> None:
        self.members = sorted(members, key=lambda member: -member.depth)
        self.place, self.tell = place, tell
        deepest = self.members[0].job
        self.step = self.members[0].standing.step
        self.material = Material.of(deepest, place)
        self.sizes = [Layout(member.job.architecture).size for member in self.members]
        self.weights, self.mean, self.square = (
            self._rows([getattr(member.standing, name) for member in self.members])
            for name in ("weights", "mean", "square")
        )
        depths = [member.depth for member in self.members]
        self.stack = Stack(deepest.architecture, depths, self.weights)
        written = self.material.statistics
        self.descend = Backward(self.stack, deepest.recipe.batch) if written else self.stack.descend
        self.rows = [self.weights[row, :size] for row, size in enumerate(self.sizes)]
        self.optimiser = self._optimiser()
        self.totals = torch.tensor([member.standing.total for member in self.members], device=place)
        self.seeds = list(dict.fromkeys(member.job.recipe.seed for member in self.members))
        self.streams = [self._stream(seed) for seed in self.seeds]
        having = [sum(depth > layer for depth in depths) for layer in range(max(depths))]
        at = [sum(having[: depth - 1]) + row for row, depth in enumerate(depths)]
        self.last = torch.tensor(at, device=place)  # where among all risks the last of each model is
        self.validation = self._validation() if any(m.job.recipe.patience for m in self.members) else None
        self.before = [member.standing.seconds for member in self.members]
        self.began = time.perf_counter()

    def run(self, until: int | None) -> None:
        """Go on until one of the models has ended, or all stand at a step."""
        while not any(member.standing.ended for member in self.members) and self.step != until:
            self._update()
            due = [
                m for m in self.members if self.step % REPORT_EVERY == 0 or self.step == m.job.recipe.steps
            ]
            if due:
                self._report(due)
        self._note(self.members)

    def _update(self) -> None:
        """One step of every model."""
        prompts = side_by_side(
            self.material,
            [stream.draw(self.members[0].job.recipe.batch) for stream in self.streams],
            [self.seeds.index(member.job.recipe.seed) for member in self.members],
        )
        risks = self.descend(prompts, torch.tensor(self._shares(), device=self.place))
        for row, (member, size) in enumerate(zip(self.members, self.sizes, strict=True)):
            gradient = self.stack.slope[row, :size]
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((member.job.recipe.clip_norm / (norm + 1e-6)).clamp_max(1.0))
            self.optimiser.param_groups[row]["lr"] = member.job.recipe.rate(self.step)
        self.optimiser.step()
        self.totals += risks[self.last]
        self.step += 1

    def _shares(self) -> list[float]:
        """Weights of all risks in the loss: 1 at a model's last depth, and what fades out before it."""
        shares = []
        for layer in range(1, self.members[0].depth + 1):
            for member in self.members:
                if member.depth == layer:
                    shares.append(1.0)
                elif member.depth > layer:
                    recipe = member.job.recipe
                    faded = recipe.rate(self.step) / recipe.learning_rate
                    shares.append(recipe.auxiliary * faded / (member.depth - 1))
        return shares

    def _report(self, due: Sequence[Member]) -> None:
        validated = self._validate()
        for member in due:
            row, standing, recipe = self.members.index(member), member.standing, member.job.recipe
            last = standing.losses[-1][0] if standing.losses else 0
            mean = float(self.totals[row]) / (self.step - last)
            self._refuse(member, mean)
            standing.losses.append((self.step, mean))
            self.totals[row] = 0.0
            standing.ended = self.step == recipe.steps
            if recipe.patience and validated is not None:
                _watch(standing, self.step, validated[row], self.rows[row], recipe.patience)
            if standing.ended or member.checkpoint.due():
                self._note([member])
                member.checkpoint.save(standing)
            self.tell(member.index, self.step, mean)

    def _refuse(self, member: Member, mean: float) -> None:
        """Stop where a loss or a weight is not finite, or the loss has exploded."""
        recipe, kept = member.job.recipe, member.checkpoint
        sound = bool(self.rows[self.members.index(member)].isfinite().all())
        if sound and math.isfinite(mean) and mean <= _EXPLODED * member.job.prior.power():
            return
        good = f"; the last good checkpoint is {kept.path}, of step {kept.saved}" if kept.saved else ""
        raise Diverged(
            f"the training loss is {mean:.3g} by step {self.step} of {recipe.steps}; "
            f"try a learning rate below {recipe.learning_rate}{good}",
            self.step,
            kept.path if kept.saved else None,
            kept.saved,
        )

    def _note(self, members: Sequence[Member]) -> None:
        """Write down where models stand."""
        now = time.perf_counter()
        for member in members:
            standing, row = member.standing, self.members.index(member)
            size = self.sizes[row]
            standing.step = self.step
            for name in ("weights", "mean", "square"):
                setattr(standing, name, getattr(self, name)[row, :size].cpu().numpy().copy())
            stream = self.streams[self.seeds.index(member.job.recipe.seed)]
            standing.generators = stream.state(member.depth)
            standing.total = float(self.totals[row])
            standing.seconds = self.before[row] + now - self.began

    def _validate(self) -> list[float] | None:
        """Risk of each model on the validation set."""
        if self.validation is None:
            return None
        with torch.no_grad():
            return self.stack.risks(self.validation)[self.last].tolist()

    def _validation(self) -> Prompts:
        """The same prompts at every report, from an address of their own."""
        depth, size = self.members[0].depth, _VALIDATION * self.members[0].job.recipe.batch
        streams = [Stream(self.material, seed, depth, Use.VALIDATION) for seed in self.seeds]
        which = [self.seeds.index(member.job.recipe.seed) for member in self.members]
        return side_by_side(self.material, [stream.draw(size) for stream in streams], which)

    def _stream(self, seed: int) -> Stream:
        """The prompts of one seed, which go on where its models stand."""
        deepest = next(member for member in self.members if member.job.recipe.seed == seed)
        stream = Stream(self.material, seed, self.members[0].depth)
        stream.restore(deepest.standing.generators)  # nobody hears what layers beyond it draw
        return stream

    def _rows(self, parts: Sequence[Float[np.ndarray, " _"]]) -> Float[Tensor, "models P"]:
        """One row for each model; what shallower ones lack is zero."""
        rows = torch.zeros(len(parts), max(self.sizes), device=self.place)
        for row, part in zip(rows, parts, strict=True):
            row[: len(part)] = torch.from_numpy(part)
        return rows

    def _optimiser(self) -> torch.optim.AdamW:
        """A group for each model, with its own schedule; moments and weights are rows of this cohort."""
        groups = []
        for row, member in enumerate(self.members):
            recipe, size = member.job.recipe, self.sizes[row]
            self.rows[row].grad = self.stack.slope[row, :size]
            groups.append(
                {"params": [self.rows[row]], "betas": recipe.betas, "weight_decay": recipe.weight_decay}
            )
        optimiser = torch.optim.AdamW(groups, fused=True)
        for row, weights in enumerate(self.rows):
            size = self.sizes[row]
            optimiser.state[weights] = {
                "step": torch.tensor(float(self.step), device=self.place),
                "exp_avg": self.mean[row, :size],
                "exp_avg_sq": self.square[row, :size],
            }
        return optimiser


def _watch(standing: Standing, step: int, risk: float, weights: Float[Tensor, " P"], patience: int) -> None:
    """Note the risk on the validation set; end where it has not fallen for too long."""
    if all(risk < earlier for _, earlier in standing.validation):
        standing.best = weights.cpu().numpy().copy()
    standing.validation.append((step, risk))
    least, since = math.inf, 0
    for _, seen in standing.validation:
        since = 0 if seen < least * (1.0 - _IMPROVED) else since + 1
        least = min(least, seen) if since == 0 else least
    standing.ended |= since >= patience
