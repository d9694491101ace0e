"""Training of constrained transformers: those of one shape take their steps together."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adamw import adamw

from agents.rng import Purpose, uniforms
from agents.transformer.model import Transformer
from runner.errors import DivergenceError
from runner.training.checkpoint import SAVE_SECONDS, Checkpoint, TrainingState
from runner.training.job import REPORT_EVERY, Job, Recipe, address
from runner.training.pool import shared_out, train_parts
from runner.training.prompts import Prompts, PromptSource, Stream, Use, side_by_side
from runner.training.stack import Stack, WeightLayout, stackable
from runner.training.store import Tell, Trained, save

_EXPLODED = 10.0  # times E|w|^2, which is the loss of a model that always answers 0
_IMPROVED = 1e-3  # share by which the risk on the validation set must fall
_VALIDATION = 4  # batches of the validation set
_MOST = 16  # models side by side: beyond, a processor gains nothing and its cache overflows


@dataclass
class Member:
    """One of the models: its job, its state of training, where that is kept."""

    index: int
    job: Job
    checkpoint: Checkpoint
    training: TrainingState

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
        self.step = self.members[0].training.step
        self.material = PromptSource.of(deepest, place)
        self.sizes = [WeightLayout(member.job.architecture).size for member in self.members]
        self.weights, self.mean, self.square = (
            self._rows([getattr(member.training, name) for member in self.members])
            for name in ("weights", "mean", "square")
        )
        depths = [member.depth for member in self.members]
        self.stack = Stack(deepest.architecture, depths, self.weights)
        self.rows = [self.weights[row, :size] for row, size in enumerate(self.sizes)]
        self.counts = [torch.tensor(float(self.step), device=place) for _ in self.members]  # of AdamW
        self.totals = torch.tensor([member.training.total for member in self.members], device=place)
        self.seeds = list(dict.fromkeys(member.job.recipe.seed for member in self.members))
        self.streams = [self._stream(seed) for seed in self.seeds]
        having = [sum(depth > layer for depth in depths) for layer in range(max(depths))]
        at = [sum(having[: depth - 1]) + row for row, depth in enumerate(depths)]
        self.last = torch.tensor(at, device=place)  # where among all risks the last of each model is
        self.validation = self._validation() if any(m.job.recipe.patience for m in self.members) else None
        self.before = [member.training.seconds for member in self.members]
        self.began = time.perf_counter()

    def run(self, until: int | None) -> None:
        """Train until one of the models has ended, or all stand at a step."""
        while not any(member.training.ended for member in self.members) and self.step != until:
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
        risks = self.stack.descend(prompts, torch.tensor(self._shares(), device=self.place))
        for row, member in enumerate(self.members):
            self._move(row, member.job.recipe)
        self.totals += risks[self.last]
        self.step += 1

    def _move(self, row: int, recipe: Recipe) -> None:
        """AdamW, along the gradient of at most the norm of the recipe."""
        weights, slope, mean, square = (
            part[row, : self.sizes[row]] for part in (self.weights, self.stack.slope, self.mean, self.square)
        )
        excess = ((torch.linalg.vector_norm(slope) + 1e-6) / recipe.clip_norm).clamp_min(1.0)
        adamw(
            [weights], [slope], [mean], [square], [], [self.counts[row]],
            lr=recipe.rate(self.step), beta1=recipe.betas[0], beta2=recipe.betas[1], eps=1e-8,
            weight_decay=recipe.weight_decay, grad_scale=excess, fused=True, amsgrad=False, maximize=False,
        )  # fmt: skip

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
            row, training, recipe = self.members.index(member), member.training, member.job.recipe
            last = training.losses[-1][0] if training.losses else 0
            mean = float(self.totals[row]) / (self.step - last)
            self._refuse(member, mean)
            training.losses.append((self.step, mean))
            self.totals[row] = 0.0
            training.ended = self.step == recipe.steps
            if recipe.patience and validated is not None:
                _watch(training, self.step, validated[row], self.rows[row], recipe.patience)
            if training.ended or member.checkpoint.due():
                self._note([member])
                member.checkpoint.save(training)
            self.tell(member.index, self.step, mean)

    def _refuse(self, member: Member, mean: float) -> None:
        """Stop where a loss or a weight is not finite, or the loss has exploded."""
        recipe, kept = member.job.recipe, member.checkpoint
        sound = bool(self.rows[self.members.index(member)].isfinite().all())
        if sound and math.isfinite(mean) and mean <= _EXPLODED * member.job.prior.power():
            return
        good = f"; the last good checkpoint is {kept.path}, of step {kept.saved}" if kept.saved else ""
        raise DivergenceError(
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
            training, row = member.training, self.members.index(member)
            size = self.sizes[row]
            training.step = self.step
            for name in ("weights", "mean", "square"):
                setattr(training, name, getattr(self, name)[row, :size].cpu().numpy().copy())
            stream = self.streams[self.seeds.index(member.job.recipe.seed)]
            training.generators = stream.state(member.depth)
            training.total = float(self.totals[row])
            training.seconds = self.before[row] + now - self.began

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
        """The prompts of one seed, which continue from the step of its models."""
        deepest = next(member for member in self.members if member.job.recipe.seed == seed)
        stream = Stream(self.material, seed, self.members[0].depth)
        stream.restore(deepest.training.generators)  # nobody hears what layers beyond it draw
        return stream

    def _rows(self, parts: Sequence[Float[np.ndarray, " _"]]) -> Float[Tensor, "models P"]:
        """One row for each model; what shallower ones lack is zero."""
        rows = torch.zeros(len(parts), max(self.sizes), device=self.place)
        for row, part in zip(rows, parts, strict=True):
            row[: len(part)] = torch.from_numpy(part)
        return rows


def train_all(
    jobs: Sequence[Job],
    workers: int = 1,
    on_progress: Tell | None = None,
    folder: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> list[Trained[Transformer]]:
    """Train several models: those of one shape side by side, in so many processes of one thread each.

        loss = E|w - w_L|^2 + auxiliary * (rate / learning_rate) * mean over 0 < l < L of E|w - w_l|^2

    Prompts come from generators of their own, at an address of their own, so that none of them is among
    the prompts of a simulation.
    The weights of a model depend neither on the number of processes nor on what is trained beside it.
    On CUDA there is one process.

    Args:
        jobs: what to train.
        workers: number of processes; 1 trains in this one.
        on_progress: told (index of the job, steps done, mean loss since the last call).
        folder: of the cache. Weights are put there as soon as a model is trained; until then checkpoints
            are kept there, from which an interrupted call resumes.
        save_seconds: between two checkpoints of a model, at least.

    Raises:
        ValueError: if the parts of a job do not fit together.
        DivergenceError: if a loss is not finite or explodes; the other jobs are ended.
        CheckpointError: if a checkpoint belongs to something else.

    Source: THEORY.md section 8.
    """
    for job in jobs:
        job.check()
    one = workers <= 1 or torch.cuda.is_available()
    parts = shared_out([job.cost for job in jobs], 1 if one else workers)
    train = partial(_train_part, jobs=jobs, folder=folder, save_seconds=save_seconds)
    return train_parts(parts, train, workers, on_progress or _ignore)


def groups(jobs: Sequence[Job]) -> list[list[int]]:
    """Which jobs are trained side by side: those that differ in depth, seed and schedule alone."""
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for index, job in enumerate(jobs):
        sizes, recipe = job.architecture, job.recipe
        bare = Recipe(batch=recipe.batch, sampling=recipe.sampling)
        name = address(job._replace(architecture=replace(sizes, layers=1), recipe=bare))
        alike[name if stackable(sizes, recipe.batch) else f"{name}, alone: {index}"].append(index)
    return [group[first : first + _MOST] for group in alike.values() for first in range(0, len(group), _MOST)]


def _train_part(
    indices: Sequence[int], tell: Tell, *, jobs: Sequence[Job], folder: Path | None, save_seconds: float
) -> Iterator[tuple[int, Trained[Transformer]]]:
    """Train some of the jobs in this process."""
    for group in groups([jobs[index] for index in indices]):
        members = [indices[place] for place in group]
        checkpoints = [Checkpoint(folder, jobs[index], save_seconds) for index in members]

        def named(place: int, step: int, loss: float, members: list[int] = members) -> None:
            tell(members[place], step, loss)

        for place, trained in train_together(
            [jobs[index] for index in members], tell=named, checkpoints=checkpoints
        ):
            if folder is not None:
                save(folder, trained)
                checkpoints[place].remove()
            yield members[place], trained


def train_together(
    jobs: Sequence[Job],
    device: str | torch.device | None = None,
    tell: Tell | None = None,
    checkpoints: Sequence[Checkpoint] | None = None,
) -> Iterator[tuple[int, Trained[Transformer]]]:
    """Train models of one shape side by side; yields each with its index as soon as it is trained.

    Args:
        jobs: that differ in depth, seed and schedule alone.
        device: where; by default on CUDA where there is one.
        tell: told (index of the job, steps done, mean loss since the last call) from time to time.
        checkpoints: one for each job, from which interrupted training resumes.

    Raises:
        DivergenceError: if a loss is not finite or explodes.
        CheckpointError: if a checkpoint belongs to something else.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kept = checkpoints or [Checkpoint(None, None) for _ in jobs]
    members = []
    for index, (job, checkpoint) in enumerate(zip(jobs, kept, strict=True)):
        members.append(Member(index, job, checkpoint, checkpoint.load() or _beginning(job, place)))
    while members:
        first = min(member.training.step for member in members)
        cohort = [member for member in members if member.training.step == first]
        later = [member.training.step for member in members if member.training.step > first]
        with _arithmetic(place):
            Cohort(cohort, place, tell or _ignore).run(min(later, default=None))
        for member in [member for member in cohort if member.training.ended]:
            members.remove(member)
            yield member.index, _trained(member)


def _beginning(job: Job, place: torch.device) -> TrainingState:
    """A model whose training has not begun."""
    seed = int(2**53 * uniforms(job.recipe.seed, Purpose.TRAINING, range(1), 1)[0, 0])
    state = job.module(seed).state_dict()
    row = WeightLayout(job.architecture).pack({name: value.numpy() for name, value in state.items()})
    stream = Stream(PromptSource.of(job, place), job.recipe.seed, job.architecture.layers)
    return TrainingState(
        0, row, np.zeros_like(row), np.zeros_like(row), stream.state(job.architecture.layers)
    )


def _trained(member: Member) -> Trained[Transformer]:
    training, job = member.training, member.job
    row = training.weights if training.best is None else training.best
    state = WeightLayout(job.architecture).unpack(row)
    return Trained(job, state, training.losses, training.seconds, training.validation)


def _ignore(index: int, step: int, loss: float) -> None: ...


@contextmanager
def _arithmetic(place: torch.device) -> Iterator[None]:
    """One thread, which adds in one order; on CUDA products of matrices in TF32.

    TF32 rounds factors to 11 bits and adds in single precision: far below the noise of a gradient.
    bfloat16, with 8 bits, would reach the differences y - v.x that a control variate lives on; it is
    not used.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    if place.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _watch(
    training: TrainingState, step: int, risk: float, weights: Float[Tensor, " P"], patience: int
) -> None:
    """Note the risk on the validation set; end where it has not fallen for too long."""
    if all(risk < earlier for _, earlier in training.validation):
        training.best = weights.cpu().numpy().copy()
    training.validation.append((step, risk))
    least, since = math.inf, 0
    for _, seen in training.validation:
        since = 0 if seen < least * (1.0 - _IMPROVED) else since + 1
        least = min(least, seen) if since == 0 else least
    training.ended |= since >= patience
