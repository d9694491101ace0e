"""Gradient: every layer is a step of gradient descent on the least-squares loss."""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from jaxtyping import Float

from agents.channel import Field, Message
from agents.policies.base import Ingredients, PolicyEntry
from agents.reductions import dot
from agents.task import TokenView

_UNSTABLE = 1e-4  # chance that a token's input is too long for the default step


@dataclass(frozen=True, eq=False)
class Gradient:
    """Decentralised gradient descent: say one's estimate after a step on one's own example, hear the mean.

        m_j = w_j + step_j (y_j - w_j.x_j) x_j,    w_i <- sum_j A_ij m_j

    A message is d numbers, a code for each dimension: the message of the other policies along every axis
    at once, with a step below 1. On the complete graph a round is a step of gradient descent on
    (1 / 2N) sum_j (y_j - w.x_j)^2, from w = 0.

    Attributes:
        dim: d.
        steps: length of a step at each position [N].

    Source: J. von Oswald et al., Transformers learn in-context by gradient descent, arXiv:2212.07677;
        A. H. Sayed, Adaptation, learning, and optimization over networks, doi:10.1561/2200000051
        (adapt, then combine).

    Example:
        >>> tokens = TokenView(np.arange(2), np.array([[[1.0]], [[2.0]]]), np.array([[1.0], [4.0]]))
        >>> gradient = Gradient(dim=1, steps=np.array([0.5, 0.5]))
        >>> gradient.emit(gradient.start(tokens), tokens, 1).values.ravel().tolist()
        [0.5, 4.0]
    """

    dim: int
    steps: Float[np.ndarray, " N"]

    @property
    def codes(self) -> int:
        """One code for each dimension."""
        return self.dim

    def start(self, tokens: TokenView) -> Float[np.ndarray, "n d B"]:
        """Zero."""
        return np.zeros_like(tokens.inputs)

    def emit(self, state: Float[np.ndarray, "n d B"], tokens: TokenView, round: int) -> Message:
        """The estimate after a step on the token's own example."""
        inputs = list(np.moveaxis(tokens.inputs, 1, 0))
        residual = tokens.labels - dot(list(np.moveaxis(state, 1, 0)), inputs)
        axes = np.arange(self.dim)[None, :, None]
        step = self.steps[tokens.positions][:, None, None]
        values = state + step * residual[:, None] * tokens.inputs
        return Message(np.broadcast_to(axes, values.shape).copy(), values)

    def absorb(
        self, state: Float[np.ndarray, "n d B"], field: Field, round: int
    ) -> Float[np.ndarray, "n d B"]:
        """The neighbours' mean; without neighbours, what is known stays."""
        return np.where(field.effective > 0, field.values, state)

    def estimate(self, state: Float[np.ndarray, "n d B"]) -> Float[np.ndarray, "n d B"]:
        """The estimate itself."""
        return state

    def atoms(self, state: Float[np.ndarray, "n d B"]) -> None:
        """Gradient descent states no posterior."""
        return


def step_length(tokens: Float[np.ndarray, " N"], dim: int, label_noise: float) -> Float[np.ndarray, " N"]:
    """The step that is best for one round from zero, for |w| = 1 and x ~ N(0, I); shorter where it must be.

        step = min(n / (n + d + 1 + d sigma^2), 2 n / (n + q))

    The first is also close to the best constant step of many rounds: the inverse of the middle of the
    spectrum of X'X / n is n / (n + d). The second keeps a token stable whose own |x|^2, with weight 1/n
    in what it hears, is as large as q: one token in ten thousand has a larger one.

    Args:
        tokens: n, effective number of tokens in the means that each position's message is part of; the
            smallest, where there are several.
        dim: d.
        label_noise: sigma.

    Source: THEORY.md section 7.1; V. A. Marchenko and L. A. Pastur, doi:10.1070/SM1967v001n04ABEH001994;
        q from B. Laurent and P. Massart, doi:10.1214/aos/1015957395, lemma 1.

    Example:
        >>> step_length(np.array([32.0, 2.0]), 7, 0.0).round(3).tolist()
        [0.8, 0.092]
    """
    tail = -log(_UNSTABLE)
    largest = dim + 2.0 * sqrt(dim * tail) + 2.0 * tail
    best = tokens / (tokens + dim + 1 + dim * label_noise**2)
    return np.minimum(best, 2.0 * tokens / (tokens + largest))


def build(given: Ingredients) -> Gradient:
    """The policy of an experiment."""
    around, dim, step = given.surroundings, given.prior.dim, given.options.step
    if step is not None:
        return Gradient(dim, np.full(around.tokens, step))
    return Gradient(dim, step_length(around.fewest_beside(), dim, given.label_noise))


ENTRY = PolicyEntry(build, channels=lambda asked, tokens, dim: dim)
