"""What determines trained weights: the task, the model, the schedule, and the version of training."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import nn

from agents.channel import Channel
from agents.prior import Prior
from agents.transformer.model import Architecture, Transformer
from runner.built import Built
from runner.errors import UsageError
from topology.mixing import Mixing

# Raised by every change after which the same job gives other weights, and by no other: trained weights are
# kept under it. A test compares the losses of short trainings with those recorded for this version.
TRAINING_VERSION = 3
REPORT_EVERY = 100  # steps between two reports of progress
_WORKSPACES = 2048  # in a step, on graphs whose tokens hear different things
_FINE_BITS = 8  # of a message that rounds to less than a 60th of its standard deviation
_ROOMY_CLIP = 4.0  # standard deviations of a message, beyond which one in some thousand is clipped

Model = TypeVar("Model", bound=nn.Module, covariant=True)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW, linear warm-up, cosine to zero, fresh prompts at every step.

    Attributes:
        steps: number of updates.
        batch: prompts in each update.
        learning_rate: at the end of the warm-up.
        warmup: steps of linear warm-up.
        betas: decay of AdamW's first and second moments.
        weight_decay: of AdamW.
        clip_norm: largest norm of a gradient.
        auxiliary: weight at first of the mean loss at the inner depths; it falls with the learning rate.
        seed: of the initial weights and of the prompts.
        sampling: "tokens" draws every token and its message; "statistics" draws the moments of a prompt,
            on the complete graph, where no message is clipped.
        patience: training stops when the risk on the validation set has not fallen by a thousandth in so
            many reports in a row, and the weights are those of its least risk; 0 goes through all steps.
    """

    steps: int = 3000
    batch: int = 512
    learning_rate: float = 1e-2
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    auxiliary: float = 0.3
    seed: int = 0
    sampling: Literal["tokens", "statistics"] = "tokens"
    patience: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, 0 <= step < steps.

        Example:
            >>> Recipe(steps=100, warmup=10, learning_rate=1.0).rate(9)
            1.0
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * self.learning_rate * (1.0 + math.cos(math.pi * share))


def recipe_for(sizes: Architecture, seed: int = 0) -> Recipe:
    """The recipe that takes a model close to its best on a tree of at most four levels.

    Without a ReLU there is less to learn, and it is learnt sooner.

    Example:
        >>> recipe_for(Architecture(dim=7, layers=3)).steps
        3750
    """
    return Recipe(steps=(1250 if sizes.feedforward else 500) * sizes.layers, seed=seed)


@runtime_checkable
class TrainingJob(Protocol[Model]):
    """Everything that determines the weights of one model, whatever kind of model it is."""

    @property
    def steps(self) -> int:
        """Number of updates, at most."""
        ...

    @property
    def label(self) -> str:
        """The model in a few words, for displays of progress."""
        ...

    @property
    def cost(self) -> float:
        """About how long training takes, in units of its own."""
        ...

    def identity(self) -> dict[str, Any]:
        """What it is, in what JSON can hold: the task as a hash, the rest by name."""
        ...

    def module(self, seed: int = 0) -> Model:
        """The model before training."""
        ...


class Job(NamedTuple):
    """Everything that determines the weights of one constrained transformer.

    Attributes:
        prior: of the task.
        label_noise: sigma.
        channel: the bound on a message.
        mixing: weights A of the locality graph, rows sum to 1; one row if all tokens hear the same.
        architecture: sizes and parts of the model.
        recipe: how it is trained.
    """

    prior: Prior
    label_noise: float
    channel: Channel
    mixing: Float[np.ndarray, "rows N"]
    architecture: Architecture
    recipe: Recipe

    @property
    def steps(self) -> int:
        """Number of updates, at most."""
        return self.recipe.steps

    @property
    def label(self) -> str:
        """Depth, and whether there is a feedforward block."""
        return f"depth {self.architecture.layers}" + ("" if self.architecture.feedforward else ", linear")

    @property
    def cost(self) -> float:
        """About how long training takes, in units of its own."""
        sizes, tokens = self.architecture, 0 if self.recipe.sampling == "statistics" else self.mixing.shape[1]
        rows = self.mixing.shape[0]
        numbers = (sizes.width + sizes.heads) * (sizes.hidden if sizes.feedforward else 4)
        layer = rows * (numbers + 2000) + tokens * sizes.heads * 25 * (sizes.dim + 4)
        return self.recipe.steps * self.recipe.batch * float(layer) * sizes.layers

    def identity(self) -> dict[str, Any]:
        """What it is: task, channel and graph as a hash, architecture and recipe by name."""
        arrays = (self.prior.atoms, self.prior.weights, self.prior.factor, self.mixing)
        return {
            "experiment": task_digest(arrays, [float(self.label_noise), self.channel]),
            "architecture": asdict(self.architecture),
            "recipe": {**asdict(self.recipe), "betas": list(self.recipe.betas)},
        }

    def module(self, seed: int = 0) -> Transformer:
        """The transformer before training."""
        return Transformer(self.architecture, seed)

    def check(self) -> None:
        """Refuse a job whose parts do not fit together.

        Raises:
            ValueError: naming what was given and what is possible.
        """
        rows, tokens = self.mixing.shape
        if rows not in (1, tokens):
            raise ValueError(f"mixing needs 1 row or as many as the {tokens} tokens, got {rows}")
        if not np.allclose(self.mixing.sum(axis=1), 1.0):
            raise ValueError("the rows of mixing must sum to 1: divide the weights by their sum")
        sizes, statistics = self.architecture, self.recipe.sampling == "statistics"
        if sizes.dim != self.prior.dim:
            raise ValueError(f"the architecture has dim {sizes.dim}, the prior {self.prior.dim}")
        if sizes.heads != self.channel.channels:
            raise ValueError(f"the architecture has {sizes.heads} heads, the channel {self.channel.channels}")
        if statistics and (rows > 1 or not np.allclose(self.mixing, 1 / tokens)):
            raise ValueError("statistics stand for tokens on the complete graph alone: sample tokens")


def task_digest(arrays: Sequence[Shaped[np.ndarray, "..."]], numbers: object) -> str:
    """Hash of arrays and numbers, exact to the last bit."""
    digest = hashlib.sha256()
    for array in arrays:
        exact = np.ascontiguousarray(array, dtype=np.float64)
        digest.update(repr(exact.shape).encode() + exact.tobytes())
    digest.update(repr(numbers).encode())
    return digest.hexdigest()[:16]


def cache_key(job: TrainingJob[Any]) -> str:
    """Hash of what determines the weights: the job, the version of training, torch and its device.

    Example:
        >>> from agents.prior import gaussian
        >>> ring = np.full((1, 4), 0.25)
        >>> sizes = Architecture(dim=2, layers=1)
        >>> len(cache_key(Job(gaussian(2), 0.1, Channel(), ring, sizes, Recipe())))
        32
    """
    return _digest(job.identity(), code_version())


def address(job: TrainingJob[Any]) -> str:
    """Names what is trained, by any version of the code."""
    return _digest(job.identity())


def code_version() -> str:
    """What else the weights depend on: the version of training, torch, and whether there is CUDA."""
    return f"training {TRAINING_VERSION}, torch {torch.__version__}, cuda {torch.cuda.is_available()}"


_WORDS = {
    "experiment": "another experiment (prior, label noise, channel, number of tokens or graph)",
    "architecture": "another architecture",
    "design": "another design",
    "recipe": "another recipe",
    "code": "another version of the code, of torch or of its device",
}


def difference(found: Mapping[str, Any], job: TrainingJob[Any]) -> str | None:
    """How the content of a file differs from a job and this version of the code; None if it does not.

    Args:
        found: identity and version that the file states.
        job: what was expected.
    """
    for key, expected in {**job.identity(), "code": code_version()}.items():
        given = found.get(key)
        if given == expected:
            continue
        if isinstance(expected, dict) and isinstance(given, dict):
            names = [name for name in expected if expected[name] != given.get(name)]
            expected, given = ({name: part.get(name) for name in names} for part in (expected, given))
        return f"{_WORDS[key]}: it is of {given}, expected was {expected}"
    return None


def job_of(built: Built) -> Job:
    """What determines the weights of the experiment's transformer: its depth is run.rounds.

    Raises:
        UsageError: if there is no layer to train, or if the moments of a prompt would be sampled where they
            do not say what is heard.
    """
    experiment, prior, mixing = built.experiment, built.prior, built.mixing
    if not experiment.run.rounds:
        raise UsageError("run.rounds", 0, "1 or more, the layers of the transformer that is trained")
    section = experiment.transformer
    architecture = Architecture(
        dim=prior.dim,
        layers=experiment.run.rounds,
        heads=experiment.channel.channels,
        width=section.width,
        hidden=section.hidden,
        feedforward=section.feedforward,
        adaptive_queries=section.adaptive_queries,
        control_variate=experiment.policy.control_variate,
        looped=section.looped,
    )
    # Where tokens hear different things each has a workspace of its own: a step then takes fewer prompts.
    batch = section.batch or (512 if mixing.is_shared else max(32, _WORKSPACES // mixing.tokens))
    recipe = replace(recipe_for(architecture, section.seed), batch=batch, learning_rate=section.learning_rate)
    sampling = _sampling(built)
    recipe = replace(recipe, sampling=sampling, patience=section.patience)
    steps = section.steps or max(1, round(section.effort * recipe.steps))
    recipe = replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 2))
    return Job(
        prior,
        experiment.task.label_noise,
        built.channel,
        attention(mixing),
        architecture,
        recipe,
    )


def attention(mixing: Mixing) -> Float[np.ndarray, "rows N"]:
    """The weights A of the graph, rows summing to 1, as the transformer takes them."""
    weights = mixing.weights.toarray().astype(float)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _sampling(built: Built) -> Literal["tokens", "statistics"]:
    """How prompts are drawn in training; evaluation is on tokens and their messages in any case.

    Moments say what is heard on the complete graph, as long as messages are rounded finely and hardly
    ever clipped: where the clip is 4 standard deviations of a message of a token that knows nothing,
    var m = |w|^2 + (u.w)^2 + sigma^2 + tau^2 at the most.

    Raises:
        UsageError: if "statistics" was asked for elsewhere.
    """
    experiment, channel = built.experiment, built.channel
    asked = experiment.transformer.sampling
    spread = (2 * built.prior.power() + experiment.task.label_noise**2 + channel.noise**2) ** 0.5
    if built.mixing.is_shared and channel.bits >= _FINE_BITS and channel.clip >= _ROOMY_CLIP * spread:
        return "tokens" if asked == "tokens" else "statistics"
    if asked == "statistics":
        needed = f"channel.bits from {_FINE_BITS} and channel.clip from {_ROOMY_CLIP * spread:.2f}"
        raise UsageError(
            "transformer.sampling",
            asked,
            f'"tokens", or "auto"; "statistics" with graph.kind = "complete", {needed}',
        )
    return "tokens"


def _digest(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]
