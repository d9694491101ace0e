"""Gradient: every layer is a step of gradient descent on the least-squares loss."""

from dataclasses import dataclass
from math import log, sqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.channel import Field, Message
from agents.policies.base import Ingredients, PolicyEntry
from agents.reductions import dot
from agents.task import TokenView

_UNSTABLE = 1e-4  # chance that a token's input is too long for the default step


class Descent(NamedTuple):
    """Workspace of a token that descends.

    Attributes:
        vector: its estimate [n, d, B].
        positions: where it stands [n, B].
    """

    vector: Float[np.ndarray, "n d B"]
    positions: Int[np.ndarray, "n B"]


@dataclass(frozen=True, eq=False)
class Gradient:
    """Decentralised gradient descent: say one's estimate after a step on one's own example, hear the mean.

        m_j = w_j + step_j (y_j - w_j.x_j) x_j,    w_i <- sum_j A_ij m_j

    A message is d numbers, a code for each dimension: the message of the other policies along every axis
    at once, with a step below 1. On the complete graph a round is a step of gradient descent on
    (1 / 2N) sum_j (y_j - w.x_j)^2, from w = 0.

    With transmitter noise a token goes only part of the way, w_i <- w_i + gain (mean - w_i), or the noise of
    all rounds would add up.

    Attributes:
        dim: d.
        steps: length of a step at each position [N].
        gains: part of the way in each round at each position; None for all of it [L, N].

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
    gains: Float[np.ndarray, "L N"] | None = None

    @property
    def codes(self) -> int:
        """One code for each dimension."""
        return self.dim

    def start(self, tokens: TokenView) -> Descent:
        """Zero."""
        places = np.broadcast_to(tokens.positions[:, None], tokens.labels.shape)
        return Descent(np.zeros_like(tokens.inputs), places)

    def emit(self, state: Descent, tokens: TokenView, round: int) -> Message:
        """The estimate after a step on the token's own example."""
        inputs = list(np.moveaxis(tokens.inputs, 1, 0))
        residual = tokens.labels - dot(list(np.moveaxis(state.vector, 1, 0)), inputs)
        axes = np.arange(self.dim)[None, :, None]
        step = self.steps[tokens.positions][:, None, None]
        values = state.vector + step * residual[:, None] * tokens.inputs
        return Message(np.broadcast_to(axes, values.shape).copy(), values)

    def absorb(self, state: Descent, field: Field, round: int) -> Descent:
        """The neighbours' mean, or part of the way to it; without neighbours, what is known stays."""
        after = field.values
        if self.gains is not None:
            gain = self.gains[round - 1][state.positions][:, None]
            after = state.vector + gain * (field.values - state.vector)
        return state._replace(vector=np.where(field.effective > 0, after, state.vector))

    def estimate(self, state: Descent) -> Float[np.ndarray, "n d B"]:
        """The estimate itself."""
        return state.vector

    def atoms(self, state: Descent) -> None:
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


def gains_of(
    steps: Float[np.ndarray, " N"],
    heard: Float[np.ndarray, " N"],
    dim: int,
    label_noise: float,
    noise: float,
    rounds: int,
) -> Float[np.ndarray, "rounds N"]:
    """Part of the way to the neighbours' mean that leaves the least squared error, one round ahead.

    A round turns the squared error e into (1 - 2 b h + b^2 h^2 k) e + b^2 v for a gain b and a step h, with
    k = (n + d + 1 + d sigma^2) / n and v = d tau^2 / n the noise of a mean of n tokens. The best gain is
    h e / (h^2 k e + v), at most 1, and with it the error never grows.

    Args:
        steps: h at each position.
        heard: n, effective number of tokens in the means that a position hears.
        dim: d.
        label_noise: sigma.
        noise: tau, standard deviation of the transmitter noise.
        rounds: L.

    Source: H. Robbins and S. Monro (1951), doi:10.1214/aoms/1177729586; THEORY.md section 7.1.

    Example:
        >>> gains_of(np.array([0.5]), np.array([8.0]), 3, 0.0, 1.0, rounds=3).round(2).ravel().tolist()
        [0.67, 0.53, 0.44]
    """
    spread = (heard + dim + 1 + dim * label_noise**2) / heard
    variance = dim * noise**2 / heard
    error, gains = np.ones_like(steps), np.empty((rounds, len(steps)))
    for round in range(rounds):
        gain = np.minimum(steps * error / (steps**2 * spread * error + variance), 1.0)
        gains[round] = gain
        error = (1 - 2 * gain * steps + (gain * steps) ** 2 * spread) * error + gain**2 * variance
    return gains


def build(given: Ingredients) -> Gradient:
    """The policy of an experiment."""
    around, dim, step = given.surroundings, given.prior.dim, given.options.step
    if step is not None:
        steps = np.full(around.tokens, step)
    else:
        steps = step_length(around.fewest_beside(), dim, given.label_noise)
    noise, gains = given.channel.noise, None
    if noise:
        gains = gains_of(steps, around.effective(), dim, given.label_noise, noise, given.rounds)
    return Gradient(dim, steps, gains)


ENTRY = PolicyEntry(build, channels=lambda asked, tokens, dim: dim)
