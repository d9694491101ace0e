"""Training of several models side by side in one process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from agents.rng import Purpose, uniforms
from agents.transformer.model import Transformer
from runner.training.checkpoint import Checkpoint, Standing
from runner.training.cohort import Cohort, Member, Tell
from runner.training.prompts import Material, Stream
from runner.training.stack import Layout
from runner.weights import Job, Trained


def train_together(
    jobs: Sequence[Job],
    device: str | torch.device | None = None,
    tell: Tell | None = None,
    checkpoints: Sequence[Checkpoint] | None = None,
) -> Iterator[tuple[int, Trained]]:
    """Train models of one shape side by side; yields each with its index as soon as it is trained.

    Args:
        jobs: that differ in depth, seed and schedule alone.
        device: where; by default on CUDA where there is one.
        tell: told (index of the job, steps done, mean loss since the last call) from time to time.
        checkpoints: one for each job, from which interrupted training goes on.

    Raises:
        Diverged: if a loss is not finite or explodes.
        CheckpointRefused: if a checkpoint belongs to something else.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kept = checkpoints or [Checkpoint(None, None) for _ in jobs]
    members = []
    for index, (job, checkpoint) in enumerate(zip(jobs, kept, strict=True)):
        members.append(Member(index, job, checkpoint, checkpoint.load() or _beginning(job, place)))
    while members:
        first = min(member.standing.step for member in members)
        cohort = [member for member in members if member.standing.step == first]
        later = [member.standing.step for member in members if member.standing.step > first]
        with _arithmetic(place):
            Cohort(cohort, place, tell or _ignore).run(min(later, default=None))
        for member in [member for member in cohort if member.standing.ended]:
            members.remove(member)
            yield member.index, _trained(member)


def _beginning(job: Job, place: torch.device) -> Standing:
    """A model whose training has not begun."""
    seed = int(2**53 * uniforms(job.recipe.seed, Purpose.TRAINING, range(1), 1)[0, 0])
    state = Transformer(job.architecture, seed).state_dict()
    row = Layout(job.architecture).pack({name: value.numpy() for name, value in state.items()})
    stream = Stream(Material.of(job, place), job.recipe.seed, job.architecture.layers)
    return Standing(0, row, np.zeros_like(row), np.zeros_like(row), stream.state(job.architecture.layers))


def _trained(member: Member) -> Trained:
    standing, sizes = member.standing, member.job.architecture
    row = standing.weights if standing.best is None else standing.best
    state = Layout(sizes).unpack(row)
    return Trained(sizes, state, standing.losses, standing.seconds, standing.validation)


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
