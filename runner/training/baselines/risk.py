"""Unconstrained models on the very prompts that the agents get."""

import numpy as np
import torch
from jaxtyping import Float

from agents.prior import draw_latent
from agents.rng import Purpose, normals_at
from agents.task import draw_tokens
from runner.built import Built
from runner.training.baselines.design import Baseline, BaselineJob, hears_of
from runner.training.baselines.softmax import Softmax
from runner.training.store import Trained

_BATCH = 100  # prompts at a time
_FRESH = 1  # the round of TOKEN at which queries are addressed; examples are at round 0


def risk_on_prompts(
    trained: Trained[Baseline],
    built: Built,
    prompts: range,
    queries: int = 32,
    dtype: torch.dtype = torch.float64,
) -> Float[np.ndarray, " B"]:
    """Excess risk of each prompt relative to E|w|^2, comparable with a simulation's prompt by prompt.

        masked softmax           mean over positions of |w - w_i|^2
        linear self-attention    |w - w_L|^2, as its answer is w_L.x_q for every x_q
        softmax                  mean over Q fresh x_q ~ N(0, I) of (f(x_q) - w.x_q)^2

    The last is an unbiased estimate of E_x (f(x) - w.x)^2, which is |w - w_L|^2 for an answer w_L.x; its
    queries are addressed by prompt and number, the same for every model and every N.

    Args:
        trained: the model.
        built: addresses the prompts; its graph is the mask.
        prompts: consecutive prompt indices.
        queries: Q, of each prompt; for "softmax" alone.
        dtype: precision of the forward pass; the weights are converted to it.

    Raises:
        ValueError: if the model is of another dimension, number of tokens or graph than the experiment.

    Source: THEORY.md section 3.
    """
    experiment, prior = built.experiment, built.prior
    seed, count = experiment.run.seed, experiment.task.tokens
    _refuse_other(trained, built)
    model, parts = trained.model().to(dtype), []
    for first in range(prompts.start, prompts.stop, _BATCH):
        batch = range(first, min(first + _BATCH, prompts.stop))
        latent = draw_latent(prior, seed, batch)
        tokens = draw_tokens(latent, experiment.task.label_noise, seed, batch, np.arange(count))
        task = torch.as_tensor(latent.vector.T, dtype=dtype)
        inputs = torch.as_tensor(np.moveaxis(tokens.inputs, 2, 0), dtype=dtype).contiguous()
        labels = torch.as_tensor(tokens.labels.T, dtype=dtype).contiguous()
        with torch.no_grad():
            if isinstance(model, Softmax):
                asked = torch.as_tensor(draw_queries(seed, batch, queries, prior.dim), dtype=dtype)
                answers = model(inputs, labels, asked)[:, count:]
                errors = (answers - (asked * task[:, None]).sum(-1)).square()  # [B, Q]
            else:
                found = model(inputs, labels).reshape(len(batch), -1, prior.dim)
                errors = (found - task[:, None]).square().sum(-1)  # [B, N] or [B, 1]
        parts.append(errors.mean(1).double().numpy() / prior.power())
    return np.concatenate(parts)


def draw_queries(seed: int, prompts: range, count: int, dim: int) -> Float[np.ndarray, "B Q d"]:
    """Query inputs x_q ~ N(0, I) of some prompts, independent of their examples.

    Example:
        >>> few, many = draw_queries(0, range(5), 2, 3), draw_queries(0, range(9), 4, 3)
        >>> bool((few == many[:5, :2]).all())
        True
    """
    drawn = normals_at(seed, Purpose.TOKEN, prompts, dim, np.arange(count), _FRESH)
    return np.ascontiguousarray(drawn.transpose(2, 0, 1))


def _refuse_other(trained: Trained[Baseline], built: Built) -> None:
    job = trained.job
    assert isinstance(job, BaselineJob)
    for name, given, possible in (
        ("prior.dim", built.prior.dim, job.prior.dim),
        ("task.tokens", built.mixing.tokens, job.tokens),
    ):
        if given != possible:
            raise ValueError(
                f"{name} = {given} is not possible; possible: {possible}, which the model was trained for"
            )
    if job.design.kind != "masked softmax":
        return
    hears = hears_of(built.mixing)
    if hears is None and job.hears is None:
        return
    if hears is None or job.hears is None or not np.array_equal(hears, job.hears):
        raise ValueError(
            f"graph.kind = {built.experiment.graph.kind!r} is not possible; possible: the graph that the "
            "model was trained on, which is another"
        )
