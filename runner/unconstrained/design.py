"""What determines an unconstrained model: its kind, its sizes, how it is trained, and on which task."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool

from agents.prior import Prior
from runner.assembly import mixing_for, prior_of
from runner.experiment import Experiment
from runner.weights import Recipe

Kind = Literal["softmax", "masked softmax", "linear self-attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Design:
    """Kind, sizes and training of an unconstrained model.

    Attributes:
        kind: "softmax" reads examples in a row and answers queries; "masked softmax" has a token for each
            example, which hears its neighbours and estimates w; "linear self-attention" has neither
            softmax nor feedforward blocks.
        layers: depth L.
        width: of the residual stream; linear self-attention has none.
        heads: that the width is split into; linear self-attention has one.
        steps: number of updates; the first quarter is a linear warm-up, then a cosine falls to zero.
        batch: prompts in each update, drawn anew.
        learning_rate: at the end of the warm-up.
        seed: of the initial weights and of the prompts.

    Raises:
        ValueError: if a size is not positive, or the width not a multiple of the heads.

    Example:
        >>> Design("softmax", layers=2, width=32, heads=4, steps=100).recipe.rate(24)
        0.003
    """

    kind: Kind
    layers: int
    width: int = 64
    heads: int = 4
    steps: int = 2000
    batch: int = 32
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r} is not possible; possible: {', '.join(KINDS)}")
        for name in ("layers", "width", "heads", "steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not possible; possible: above 0")
        if self.width % self.heads:
            raise ValueError(
                f"width = {self.width} is not possible; possible: a multiple of heads = {self.heads}"
            )

    @property
    def recipe(self) -> Recipe:
        """The schedule, in the words of the constrained transformer's training."""
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup=self.steps // 4,
            betas=(0.9, 0.98),
            auxiliary=0.0,
            seed=self.seed,
        )


def design_for(kind: Kind, layers: int, seed: int = 0) -> Design:
    """The design whose training was measured on a tree of three levels with 64 tokens.

    Example:
        >>> design_for("linear self-attention", 4).batch
        256
    """
    if kind == "linear self-attention":
        return Design(kind, layers, 1, 1, steps=3000, batch=256, learning_rate=1e-2, seed=seed)
    if kind == "masked softmax":
        return Design(kind, layers, 32, 2, steps=4000, batch=32, learning_rate=5e-3, seed=seed)
    steps = max(2000, 8000 // max(2, layers))
    return Design(kind, layers, 64, 4, steps=steps, batch=32, learning_rate=5e-3, seed=seed)


class Job(NamedTuple):
    """Everything that determines the weights of one model.

    Attributes:
        prior: of the task.
        label_noise: sigma.
        tokens: N, number of examples.
        hears: for "masked softmax", whether token i hears token j; None if everyone hears everyone.
        design: the model and its training.
    """

    prior: Prior
    label_noise: float
    tokens: int
    hears: Bool[np.ndarray, "N N"] | None
    design: Design


def job_of(experiment: Experiment, design: Design) -> Job:
    """What determines the weights of a design on the experiment's task.

    The graph counts for "masked softmax" alone, and of it who hears whom; the channel, the policy and
    run.rounds count for none.

    Raises:
        UsageErrors: if there is no such prior or graph.

    Example:
        >>> job_of(Experiment(), design_for("softmax", 2)).tokens
        32
    """
    return Job(
        prior_of(experiment),
        experiment.task.label_noise,
        experiment.task.tokens,
        hears_of(experiment) if design.kind == "masked softmax" else None,
        design,
    )


def hears_of(experiment: Experiment) -> Bool[np.ndarray, "N N"] | None:
    """Who hears whom, oneself included; None where everyone hears everyone.

    Example:
        >>> hears_of(Experiment().with_values({"graph.kind": "causal", "task.tokens": 3})).astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 1]])
    """
    mixing = mixing_for(experiment)
    if mixing.is_shared:
        return None
    heard = mixing.weights.toarray() != 0
    heard |= np.eye(len(heard), dtype=bool)
    return None if heard.all() else heard
