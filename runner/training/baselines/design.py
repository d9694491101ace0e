"""What determines a baseline: its kind, its sizes, how it is trained, and on which task."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool

from agents.prior import Prior
from runner.built import Built
from runner.training.baselines.linear import LinearSelfAttention
from runner.training.baselines.softmax import MaskedSoftmax, Softmax
from runner.training.job import Recipe, task_digest
from topology.mixing import Mixing

Kind = Literal["softmax", "masked softmax", "linear self-attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Baseline = Softmax | MaskedSoftmax | LinearSelfAttention


@dataclass(frozen=True)
class Design:
    """Kind, sizes and training of a model whose messages are not bounded.

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


class BaselineJob(NamedTuple):
    """Everything that determines the weights of one model whose messages are not bounded.

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

    @property
    def steps(self) -> int:
        """Number of updates."""
        return self.design.steps

    @property
    def label(self) -> str:
        """Kind and depth."""
        return f"{self.design.kind}, depth {self.design.layers}"

    @property
    def cost(self) -> float:
        """About how long training takes, in units of its own."""
        design, tokens, dim = self.design, self.tokens, self.prior.dim
        if design.kind == "linear self-attention":
            step = tokens * dim * 20.0 + design.layers * (dim + 1) ** 3 * 24.0
        else:
            length = 2 * tokens if design.kind == "softmax" else tokens
            step = design.layers * length * (12.0 * design.width**2 + length * (2.0 * design.width + 20.0))
        return design.steps * design.batch * step

    def identity(self) -> dict[str, Any]:
        """What it is: the task as a hash, the design by name.

        Example:
            >>> from agents.prior import gaussian
            >>> job = BaselineJob(gaussian(2), 0.1, 8, None, Design("softmax", layers=3))
            >>> job.identity()["design"]["layers"]
            3
        """
        hears = np.zeros((0, 0), dtype=bool) if self.hears is None else self.hears
        arrays = (self.prior.atoms, self.prior.weights, self.prior.factor, hears)
        numbers = [float(self.label_noise), self.tokens]
        return {"experiment": task_digest(arrays, numbers), "design": asdict(self.design)}

    def module(self, seed: int = 0) -> Baseline:
        """The model before training."""
        design, dim = self.design, self.prior.dim
        if design.kind == "linear self-attention":
            return LinearSelfAttention(dim, design.layers, seed)
        if design.kind == "masked softmax":
            return MaskedSoftmax(dim, self.hears, design.width, design.heads, design.layers, seed)
        return Softmax(dim, self.tokens, design.width, design.heads, design.layers, seed)


def baseline_job_of(built: Built, design: Design) -> BaselineJob:
    """What determines the weights of a design on the experiment's task.

    The graph counts for "masked softmax" alone, and of it who hears whom; the channel, the policy and
    run.rounds count for none.

    Example:
        >>> from runner.config.experiment import Experiment
        >>> from runner.built import build
        >>> baseline_job_of(build(Experiment()), design_for("softmax", 2)).tokens
        32
    """
    return BaselineJob(
        built.prior,
        built.experiment.task.label_noise,
        built.mixing.tokens,
        hears_of(built.mixing) if design.kind == "masked softmax" else None,
        design,
    )


def hears_of(mixing: Mixing) -> Bool[np.ndarray, "N N"] | None:
    """Who hears whom, oneself included; None where everyone hears everyone.

    Example:
        >>> from topology.mixing import past
        >>> hears_of(past(3)).astype(int)
        array([[1, 0, 0],
               [1, 1, 0],
               [1, 1, 1]])
    """
    if mixing.is_shared:
        return None
    heard = mixing.weights.toarray() != 0
    heard |= np.eye(len(heard), dtype=bool)
    return None if heard.all() else heard
