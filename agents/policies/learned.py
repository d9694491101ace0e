"""Learned: the weights of a trained transformer, run by message-passing tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from agents.channel import Field, Message
from agents.policies.base import PolicyEntry
from agents.reductions import affine, dot
from agents.task import TokenView

NORM_FLOOR = 1e-12  # added to |v|^2 when a query is normalised, here and in the torch module


class Affine(NamedTuple):
    """weight x + bias: weight [out, in], bias [out]."""

    weight: Float[np.ndarray, "out in"]
    bias: Float[np.ndarray, " out"]


class Layer(NamedTuple):
    """Weights of one layer.

    Attributes:
        query: from the workspace to K queries, rows channel by channel [K d, W].
        emission: what a message carries of the workspace itself [K, W].
        update: affine maps of the feedforward block, a ReLU between each two.
    """

    query: Affine
    emission: Affine
    update: tuple[Affine, ...]


@dataclass(frozen=True, eq=False)
class Learned:
    """A constrained linear attention transformer as a policy: a layer is a round.

    u = normalise(Q p); m = (u.x)(y - (R p).x) + u.(R p) + E p; p <- p + MLP([p, s]); w = R p.

    Attributes:
        start_vector: workspace before the first round [W].
        layers: one for each round.
        readout: R [d, W].
        channels: K.
        control_variate: with it, R p enters the message; without it, m = (u.x) y + E p.

    Source: THEORY.md section 8.
    """

    start_vector: Float[np.ndarray, " W"]
    layers: tuple[Layer, ...]
    readout: Float[np.ndarray, "d W"]
    channels: int
    control_variate: bool

    @property
    def codes(self) -> int:
        """One code for each head, so that heads are not mixed."""
        return self.channels

    def start(self, tokens: TokenView) -> Float[np.ndarray, "n W B"]:
        """The same learned vector at every token."""
        count, prompts = tokens.labels.shape
        shape = (count, len(self.start_vector), prompts)
        return np.broadcast_to(self.start_vector[None, :, None], shape).copy()

    def emit(self, state: Float[np.ndarray, "n W B"], tokens: TokenView, round: int) -> Message:
        """One number for each head, along the query that the workspace asks for."""
        layer = self.layers[round - 1]
        dim = self.readout.shape[0]
        inputs = list(np.moveaxis(tokens.inputs, 1, 0))
        raw = affine(*layer.query, state)
        values = affine(*layer.emission, state)
        vector = list(np.moveaxis(self.estimate(state), 1, 0)) if self.control_variate else None
        residual = tokens.labels if vector is None else tokens.labels - dot(vector, inputs)
        for channel in range(self.channels):
            parts = [raw[:, channel * dim + k] for k in range(dim)]
            norm = np.sqrt(dot(parts, parts) + NORM_FLOOR)
            query = [part / norm for part in parts]
            values[:, channel] += dot(query, inputs) * residual
            if vector is not None:
                values[:, channel] += dot(query, vector)
        heads = np.arange(self.channels)[None, :, None]
        return Message(np.broadcast_to(heads, values.shape).copy(), values)

    def absorb(
        self, state: Float[np.ndarray, "n W B"], field: Field, round: int
    ) -> Float[np.ndarray, "n W B"]:
        """The feedforward block on the workspace and the heads' means."""
        hidden = np.concatenate([state, field.values], axis=1)
        first, *others = self.layers[round - 1].update
        hidden = affine(*first, hidden)
        for later in others:
            hidden = affine(*later, np.maximum(hidden, 0.0))
        return state + hidden

    def estimate(self, state: Float[np.ndarray, "n W B"]) -> Float[np.ndarray, "n d B"]:
        """R p."""
        return affine(self.readout, np.zeros(self.readout.shape[0]), state)

    def atoms(self, state: Float[np.ndarray, "n W B"]) -> None:
        """A trained network states no posterior."""
        return


ENTRY = PolicyEntry(build=None, numbers=lambda sizes: 4 * sizes.width, controls=True)
