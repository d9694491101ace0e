"""Training of baselines: fresh prompts at every step, on one thread."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from agents.channel import Channel
from agents.rng import Purpose, uniforms
from runner.errors import DivergenceError
from runner.training.baselines.design import Baseline, BaselineJob
from runner.training.baselines.linear import LinearSelfAttention
from runner.training.baselines.softmax import MaskedSoftmax
from runner.training.job import REPORT_EVERY
from runner.training.pool import Part, train_parts
from runner.training.prompts import PromptSource, Stream
from runner.training.store import Tell, Trained, save

QUERIES = 8  # of each prompt in training, beside its examples
_EXPLODED = 10.0  # times the loss of a model that always answers 0
_SHORTEST = 8  # examples of a prompt at first
_GROWING = 0.8  # share of the steps in which prompts grow to N examples


def train_baseline(
    job: BaselineJob,
    device: str | torch.device | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> Trained[Baseline]:
    """Train one model; on a CPU, same arguments, same weights, bit for bit.

    AdamW on the loss that the model states, with a linear warm-up, a cosine to zero and clipped gradients.
    Prompts come from generators at an address of their own, so that none of them is among the prompts of
    a simulation. Those of "softmax" grow from 8 examples to N over the first four fifths of the steps, a
    curriculum: what short prompts teach carries over, and costs less. On CUDA softmax models compute in
    bfloat16; linear self-attention, whose layers multiply errors, in single precision.

    Args:
        job: what to train.
        device: where; by default on CUDA where there is one.
        on_progress: told (steps done, mean loss since the last call) from time to time.

    Raises:
        DivergenceError: if the loss is not finite or explodes.

    Source: S. Garg et al., arXiv:2208.01066, appendix A, training and curriculum.

    Example:
        >>> from agents.prior import gaussian
        >>> from runner.training.baselines.design import Design
        >>> short = Design("linear self-attention", layers=1, steps=20, batch=16)
        >>> train_baseline(BaselineJob(gaussian(2), 0.1, 8, None, short)).losses[0][0]
        20
    """
    began = time.perf_counter()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    design, recipe = job.design, job.design.recipe
    seed = int(2**53 * uniforms(design.seed, Purpose.TRAINING, range(1), 1)[0, 0])
    losses: list[tuple[int, float]] = []
    with _one_thread():
        model = job.module(seed).to(place)
        weights = list(model.parameters())
        optimiser = torch.optim.AdamW(
            weights, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        stream = _stream(job, place)
        total = torch.zeros((), device=place)
        for step in range(design.steps):
            optimiser.param_groups[0]["lr"] = recipe.rate(step)
            loss = _loss(model, stream, job, step, place)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, recipe.clip_norm)
            optimiser.step()
            total += loss.detach()
            done = step + 1
            if done % REPORT_EVERY == 0 or done == design.steps:
                mean = float(total) / (done - (losses[-1][0] if losses else 0))
                _refuse(job, mean, done, weights)
                losses.append((done, mean))
                total.zero_()
                if on_progress is not None:
                    on_progress(done, mean)
    state = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    return Trained(job, state, losses, time.perf_counter() - began)


def train_baselines(
    jobs: Sequence[BaselineJob],
    workers: int = 1,
    on_progress: Tell | None = None,
    folder: Path | None = None,
) -> list[Trained[Baseline]]:
    """Train several models, the longest first, in at most so many processes of one thread each.

    The weights of a model depend neither on the number of processes nor on the other jobs. On CUDA there
    is one process.

    Args:
        jobs: what to train.
        workers: number of processes; 1 trains in this one.
        on_progress: told (index of the job, steps done, mean loss since the last call).
        folder: where weights are put as soon as a model is trained.

    Raises:
        DivergenceError: if a loss is not finite or explodes; the other jobs are ended.
    """
    parts = [[index] for index in sorted(range(len(jobs)), key=lambda index: -jobs[index].cost)]
    train = partial(_train_part, jobs=jobs, folder=folder)
    return train_parts(parts, train, workers, on_progress or _ignore)


def _train_part(
    part: Part, tell: Tell, *, jobs: Sequence[BaselineJob], folder: Path | None
) -> Iterator[tuple[int, Trained[Baseline]]]:
    for index in part:
        trained = train_baseline(jobs[index], on_progress=partial(tell, index))
        if folder is not None:
            save(folder, trained)
        yield index, trained


def _ignore(index: int, step: int, loss: float) -> None: ...


def examples_at(step: int, steps: int, tokens: int) -> int:
    """Examples of a prompt of "softmax" in a step: more and more, in eights.

    Example:
        >>> [examples_at(step, 100, 64) for step in (0, 40, 79, 80)]
        [8, 32, 56, 64]
    """
    share = step / (_GROWING * steps)
    if share >= 1.0 or tokens <= _SHORTEST:
        return tokens
    return max(_SHORTEST, int(_SHORTEST + (tokens - _SHORTEST) * share) // 8 * 8)


def _stream(job: BaselineJob, place: torch.device) -> Stream:
    """Prompts without end, of N examples and as many more as there are queries; nothing is transmitted."""
    parts = (job.prior.atoms, job.prior.weights, job.prior.factor)
    atoms, weights, factor = (torch.as_tensor(part, dtype=torch.float32, device=place) for part in parts)
    drawn = job.tokens + (QUERIES if job.design.kind == "softmax" else 0)
    material = PromptSource(
        atoms, weights, factor, torch.ones(1, drawn, device=place), job.label_noise, Channel(), False
    )
    return Stream(material, job.design.seed, layers=0)


def _loss(
    model: Baseline, stream: Stream, job: BaselineJob, step: int, place: torch.device
) -> Float[Tensor, ""]:
    """The loss on fresh prompts."""
    drawn = stream.draw(job.design.batch)
    task, inputs, labels = drawn.task.T, drawn.first.movedim(0, -1).contiguous(), drawn.second
    if isinstance(model, LinearSelfAttention):
        return model.loss(task, inputs, labels)
    with torch.autocast(place.type, torch.bfloat16, enabled=place.type == "cuda"):
        if isinstance(model, MaskedSoftmax):
            return model.loss(task, inputs, labels)
        known = examples_at(step, job.design.steps, job.tokens)
        return model.loss(task, inputs[:, :known], labels[:, :known], inputs[:, job.tokens :])


def _refuse(job: BaselineJob, mean: float, step: int, weights: list[torch.nn.Parameter]) -> None:
    """Stop where a loss or a weight is not finite, or the loss has exploded."""
    sound = all(bool(weight.isfinite().all()) for weight in weights)
    if sound and math.isfinite(mean) and mean <= _EXPLODED * (job.prior.power() + job.label_noise**2):
        return
    raise DivergenceError(
        f"the loss of {job.design.kind} with {job.design.layers} layers is {mean:.3g} by step {step} of "
        f"{job.design.steps}; try a learning rate below {job.design.learning_rate}",
        step,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, which adds in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
