"""What a policy needs of a belief: a prior, one update rule, and what can be read from it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int

from agents.channel import Field
from agents.codebook import Codebook
from agents.prior import Prior
from agents.reductions import fold

LEAST_LABEL_NOISE = 1e-6  # a label without noise is taken to have this much, so that it has a likelihood

Array = np.ndarray
Belief = TypeVar("Belief")


@dataclass(frozen=True, eq=False)
class Inference(ABC, Generic[Belief]):
    """An update rule for beliefs about w; the belief itself is carried by the caller.

    Attributes:
        prior: prior over w.
        codebook: directions that measurements are about.
        label_noise: sigma.
        channel_variance: variance that the channel adds to each message.

    Source: THEORY.md sections 4 and 5.
    """

    prior: Prior
    codebook: Codebook
    label_noise: float
    channel_variance: float

    @abstractmethod
    def start(self, tokens: int, prompts: int, positions: Int[Array, " n"] | None = None) -> Belief:
        """The prior, before anything was heard.

        Args:
            tokens: n.
            prompts: B.
            positions: of the tokens, for constants of their place; 0, 1, ... by default.
        """

    @abstractmethod
    def hear(self, belief: Belief, field: Field, control: Float[Array, "n d B"] | None, round: int) -> Belief:
        """Update on the K means of one round.

        Args:
            belief: belief at the start of the round.
            field: what was heard.
            control: control variate in this round's messages, the listener's own; None without it.
            round: 1, 2, ...
        """

    @abstractmethod
    def told(self, belief: Belief, inputs: Float[Array, "n d B"], labels: Float[Array, "n B"]) -> Belief:
        """The belief with one whole example, whose label noise no field shares; only to be read."""

    @abstractmethod
    def atoms(self, belief: Belief) -> Float[Array, "n M B"]:
        """Posterior probability of each atom."""

    @abstractmethod
    def estimate(self, belief: Belief) -> Float[Array, "n d B"]:
        """Posterior mean of w."""

    @abstractmethod
    def variances(self, belief: Belief) -> Float[Array, "n C B"]:
        """Posterior variance u' Cov[w] u along each direction u of the codebook."""

    @abstractmethod
    def spread(self, belief: Belief) -> Float[Array, "n B"]:
        """Expected squared distance E|w - E w|^2 of w from its posterior mean."""

    @abstractmethod
    def asked(self, belief: Belief) -> Int[Array, "n C B"]:
        """How often each code was asked."""


def normalised(log_weights: Float[Array, "n M B"]) -> Float[Array, "n M B"]:
    """Probabilities from their logarithms up to a constant.

    Example:
        >>> normalised(np.log(np.array([[[1.0], [3.0]]]))).ravel().tolist()
        [0.25, 0.75]
    """
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return np.asarray(weights / fold(weights)[:, None])


def log_prior(prior: Prior, tokens: int, prompts: int) -> Float[Array, "n M B"]:
    """Log probability of each atom before anything was heard, nats."""
    with np.errstate(divide="ignore"):
        logs = np.log(prior.weights)
    return np.broadcast_to(logs[None, :, None], (tokens, len(logs), prompts)).copy()
