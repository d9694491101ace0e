"""What training costs: models x steps a second, side by side and on statistics, against a plain loop.

The plain loop is what anyone would write, and what the first version of this project did: one model after
the other, tokens drawn one by one, autograd, the optimiser over all tensors. All are measured in turn, in
one process of one thread, several times in one run; the table gives medians and ratios of medians.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from agents.channel import Channel
from agents.prior import tree
from agents.transformer.model import Architecture, Transformer
from runner.training.job import Job, recipe_for
from runner.training.trainer import train_all

_TOKENS = 32


def demo_jobs(share: float, seeds: Sequence[int] = (0,)) -> list[Job]:
    """The models of the demo, depth 1 to 4 with feedforward blocks and linear; `share` of their steps."""
    jobs = []
    for feedforward in (True, False):
        for layers in (1, 2, 3, 4):
            sizes = Architecture(dim=7, layers=layers, feedforward=feedforward)
            for seed in seeds:
                recipe = recipe_for(sizes, seed)
                recipe = replace(recipe, steps=max(4, round(share * recipe.steps)), sampling="statistics")
                mixing = np.full((1, _TOKENS), 1 / _TOKENS)
                jobs.append(Job(tree(3, 2, 0.8, 7), 0.1, Channel(1, 16, 8.0, 1.0), mixing, sizes, recipe))
    return jobs


def plain_loop(job: Job, compiled: bool = False) -> None:
    """Train one model as the first version did, on CUDA where there is one; `compiled` by torch.compile."""
    sizes, recipe = job.architecture, job.recipe
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Transformer(sizes).to(place)
    learnt = [weight for weight in model.parameters() if weight.requires_grad]
    forward = torch.compile(model, dynamic=False) if compiled else model
    optimiser = torch.optim.AdamW(learnt, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)
    atoms, weights, mixing = (
        torch.as_tensor(part, dtype=torch.float32, device=place)
        for part in (job.prior.atoms, job.prior.weights, job.mixing)
    )
    generator = torch.Generator(place).manual_seed(recipe.seed)
    shapes = [
        (recipe.batch, sizes.dim, _TOKENS), (recipe.batch, _TOKENS),
        (sizes.layers, recipe.batch, _TOKENS, sizes.heads),
    ]  # fmt: skip
    counts = [int(np.prod(shape)) for shape in shapes]
    for step in range(recipe.steps):
        flat = torch.randn(sum(counts), generator=generator, device=place)
        parts = zip(torch.split(flat, counts), shapes, strict=True)
        inputs, errors, noise = (part.view(shape) for part, shape in parts)
        task = atoms[torch.multinomial(weights, recipe.batch, replacement=True, generator=generator)]
        labels = (task[:, :, None] * inputs).sum(1) + job.label_noise * errors
        estimates = forward(inputs.mT, labels, mixing, job.channel, noise)
        risks = (estimates - task[:, None]).square().sum(-1).mean((1, 2))
        inner = recipe.auxiliary * recipe.rate(step) / recipe.learning_rate
        loss = risks[-1] + inner * risks[1:-1].sum() / max(1, sizes.layers - 1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, recipe.clip_norm)
        optimiser.param_groups[0]["lr"] = recipe.rate(step)
        optimiser.step()


def measure(share: float = 0.02, repeats: int = 5) -> dict[str, Any]:
    """Seconds and models x steps a second of the demo's models, by way of training.

    The ratio is to the plain loop over the same models. Compiling a model takes far longer than it trains,
    so a single one is compiled, before the clock starts.

    Args:
        share: of the steps of the demo.
        repeats: how often each way is measured; the ways alternate.
    """
    jobs, many = demo_jobs(share), demo_jobs(share, seeds=(0, 1))
    deep = jobs[3:4]
    tokens = [job._replace(recipe=replace(job.recipe, sampling="tokens")) for job in jobs]

    def alone(several: Sequence[Job]) -> None:
        for job in several:
            train_all([job])

    plain, single = "plain loop, one after the other", "depth 4 alone, plain loop"
    ways: dict[str, tuple[Callable[[], object], Sequence[Job]]] = {
        plain: (lambda: [plain_loop(job) for job in jobs], jobs),
        "tokens, side by side": (lambda: train_all(tokens), jobs),
        "statistics, one after the other": (lambda: alone(jobs), jobs),
        "statistics, side by side": (lambda: train_all(jobs), jobs),
        "statistics, side by side, two seeds": (lambda: train_all(many), many),
        single: (lambda: plain_loop(deep[0]), deep),
        "depth 4 alone, compiled": (lambda: plain_loop(deep[0], compiled=True), deep),
        "depth 4 alone, statistics": (lambda: alone(deep), deep),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, (work, _) in ways.items():
            began = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - began)
    torch.set_num_threads(before)
    rates = {name: sum(job.recipe.steps for job in ways[name][1]) / median(t) for name, t in seconds.items()}
    return {
        name: {
            "seconds": median(seconds[name]),
            "model_steps_per_second": rate,
            "ratio_to_plain": rate / rates[single if ways[name][1] is deep else plain],
        }
        for name, rate in rates.items()
    }


def show(share: float = 0.02, repeats: int = 5) -> None:
    """Print the table."""
    table = Table("training, the demo's models", "model-steps / s", "of the plain loop")
    for name, row in measure(share, repeats).items():
        table.add_row(name, f"{row['model_steps_per_second']:,.0f}", f"{row['ratio_to_plain']:.2f} x")
    Console().print(table)


if __name__ == "__main__":
    show()
