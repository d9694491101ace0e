"""Training of the constrained linear attention transformer, one model or several at a time."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents.channel import Channel
from agents.draws import Purpose, uniforms
from agents.prior import Prior
from agents.transformer import Architecture, Transformer
from runner.weights import Job, Recipe, Trained

__all__ = ["Job", "Recipe", "Trained", "train", "train_all"]

_REPORT_EVERY = 100  # steps between two reports of progress
_POLL_SECONDS = 0.1


class Batch(NamedTuple):
    """Prompts of one step: the true task, what the tokens know, the noise of their transmitters."""

    task: Float[Tensor, "B d"]
    inputs: Float[Tensor, "B N d"]
    labels: Float[Tensor, "B N"]
    noise: Float[Tensor, "layers B N K"]


def train(
    prior: Prior,
    label_noise: float,
    channel: Channel,
    mixing: Float[np.ndarray, "rows N"],
    architecture: Architecture,
    recipe: Recipe,
    device: str | torch.device | None = None,
    on_progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train one transformer to estimate w after its last layer; on a CPU, same arguments, same weights.

    loss = E|w - w_L|^2 + auxiliary * (rate / learning_rate) * mean over 0 < l < L of E|w - w_l|^2

    Prompts come from a generator of their own, at an address of their own, so that none of them is among
    the prompts of a simulation.

    Args:
        prior: prior of the task.
        label_noise: sigma.
        channel: the bound on a message.
        mixing: weights A of the locality graph, rows sum to 1; one row if all tokens hear the same.
        architecture: sizes and parts of the model.
        recipe: how to train it.
        device: where; by default on CUDA where there is one.
        on_progress: told (steps done, mean loss since the last call) from time to time.

    Raises:
        ValueError: if the parts do not fit together.
        FloatingPointError: if the loss is not finite.

    Source: THEORY.md section 8.
    """
    _check(prior, channel, mixing, architecture)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    began = time.perf_counter()
    losses: list[tuple[int, float]] = []
    with _one_thread():
        address = uniforms(recipe.seed, Purpose.TRAINING, range(1), 2)[:, 0]
        weight_seed, prompt_seed = (int(2**53 * number) for number in address)
        model = Transformer(architecture, weight_seed).to(place)
        job = Job(prior, label_noise, channel, mixing, architecture, recipe)
        batches = _batches(job, prompt_seed, place)
        weights = torch.as_tensor(mixing, dtype=torch.float32, device=place)
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(
            learnt, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        total, reported = torch.zeros((), device=place), 0  # summed there, read only for reports
        for step, batch in enumerate(batches):
            estimates = model(batch.inputs, batch.labels, weights, channel, batch.noise)
            risks = (estimates - batch.task[:, None]).square().sum(-1).mean((1, 2))  # [layers + 1]
            rate = recipe.rate(step)
            inner = recipe.auxiliary * rate / recipe.learning_rate  # fades out: the end is the goal alone
            loss = risks[-1] + inner * risks[1:-1].sum() / max(1, architecture.layers - 1)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, recipe.clip_norm)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            total += risks[-1].detach()
            if (step + 1) % _REPORT_EVERY == 0 or step + 1 == recipe.steps:
                mean = float(total) / (step + 1 - reported)
                if not math.isfinite(mean):
                    raise FloatingPointError(
                        f"the training loss is {mean} by step {step + 1} of {recipe.steps}; "
                        f"try a learning rate below {recipe.learning_rate}"
                    )
                losses.append((step + 1, mean))
                reported = step + 1
                total.zero_()
                if on_progress is not None:
                    on_progress(step + 1, mean)
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    return Trained(architecture, state, losses, time.perf_counter() - began)


def train_all(
    jobs: Sequence[Job], workers: int = 1, on_progress: Callable[[int, int, float], None] | None = None
) -> list[Trained]:
    """Train several models, each in one thread of one process; on CUDA one after the other.

    The longest jobs start first. The weights do not depend on the number of processes.

    Args:
        jobs: what to train.
        workers: number of processes; 1 trains in this one.
        on_progress: told (index of the job, steps done, mean loss since the last call).

    Raises:
        ValueError: if the parts of a job do not fit together.
        FloatingPointError: if a loss is not finite; the other jobs are ended.
    """
    for job in jobs:
        _check(job.prior, job.channel, job.mixing, job.architecture)
    tell = on_progress or _ignore
    if workers <= 1 or len(jobs) <= 1 or torch.cuda.is_available():
        return [train(*job, on_progress=partial(tell, index)) for index, job in enumerate(jobs)]
    order = sorted(range(len(jobs)), key=lambda index: -_cost(jobs[index]))
    context = get_context("spawn")
    queue: SimpleQueue[tuple[int, int, float]] = context.SimpleQueue()
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _join_pool, (queue, stop)) as pool:
        try:
            running = {index: pool.submit(_train_in_pool, index, jobs[index]) for index in order}
            waiting: set[Future[Trained]] = set(running.values())
            while waiting:
                done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                while not queue.empty():
                    tell(*queue.get())
                for future in done:
                    future.result()  # raises what the job raised
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [running[index].result() for index in range(len(jobs))]


def _batches(job: Job, seed: int, place: torch.device) -> Iterator[Batch]:
    """Fresh prompts for every step, drawn on the device."""
    (_, tokens), sizes, size = job.mixing.shape, job.architecture, job.recipe.batch
    atoms, weights, factor = (
        torch.as_tensor(part, dtype=torch.float32, device=place)
        for part in (job.prior.atoms, job.prior.weights, job.prior.factor)
    )
    generator = torch.Generator(place).manual_seed(seed)
    rounds = sizes.layers if job.channel.noise else 0
    shapes = [(size, sizes.dim, tokens), (size, tokens), (rounds, size, tokens, sizes.heads)]
    shapes.append((size, factor.shape[1]))
    counts = [math.prod(shape) for shape in shapes]
    for _ in range(job.recipe.steps):
        flat = torch.randn(sum(counts), generator=generator, device=place)  # one call is faster than four
        parts = zip(torch.split(flat, counts), shapes, strict=True)
        inputs, errors, noise, jitter = (part.view(shape) for part, shape in parts)
        atom = torch.multinomial(weights, size, replacement=True, generator=generator)
        task = atoms[atom] + jitter @ factor.T
        labels = (task[:, :, None] * inputs).sum(1) + job.label_noise * errors
        yield Batch(task, inputs.mT, labels, noise)  # tokens contiguous: sums over d run along them


_link: tuple["SimpleQueue[tuple[int, int, float]]", Event] | None = None  # of a process in a pool


def _join_pool(queue: "SimpleQueue[tuple[int, int, float]]", stop: Event) -> None:
    global _link
    _link = queue, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop


def _train_in_pool(index: int, job: Job) -> Trained:
    if _link is None:
        raise RuntimeError("this process did not join a pool")
    queue, stop = _link

    def tell(step: int, loss: float) -> None:
        if stop.is_set():
            raise InterruptedError("training was stopped")
        queue.put((index, step, loss))

    return train(*job, on_progress=tell)


def _ignore(job: int, step: int, loss: float) -> None: ...


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread adds in one order, and arrays this small gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cost(job: Job) -> int:
    return job.recipe.steps * job.recipe.batch * job.architecture.layers


def _check(
    prior: Prior, channel: Channel, mixing: Float[np.ndarray, "rows N"], architecture: Architecture
) -> None:
    rows, tokens = mixing.shape
    if rows not in (1, tokens):
        raise ValueError(f"mixing needs 1 row or as many as the {tokens} tokens, got {rows}")
    if not np.allclose(mixing.sum(axis=1), 1.0):
        raise ValueError("the rows of mixing must sum to 1: divide the weights by their sum")
    if architecture.dim != prior.dim:
        raise ValueError(f"the architecture has dim {architecture.dim}, the prior {prior.dim}")
    if architecture.heads != channel.channels:
        raise ValueError(f"the architecture has {architecture.heads} heads, the channel {channel.channels}")
