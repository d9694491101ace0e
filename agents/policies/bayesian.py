"""What the policies that hold an exact belief share: they differ only in what they ask."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from agents.channel import Field, Message
from agents.inference.posterior import Belief, Inference
from agents.reductions import components, dot
from agents.task import TokenView


class Workspace(NamedTuple):
    """Workspace of a Bayesian token: its belief, and the function vector read from it.

    Attributes:
        belief: posterior given everything heard.
        vector: posterior mean of w [n, d, B].
    """

    belief: Belief
    vector: Float[np.ndarray, "n d B"]


@dataclass(frozen=True, eq=False)
class Bayesian(ABC):
    """A token that says m = (u.x)(y - v.x) + u.v along the directions u that `choose` names.

    v is the control variate: the token's own estimate of w, or zero without it. E[m] = u.w for any v.

    Attributes:
        inference: the update rule.
        channels: K, directions asked in a round.
        control_variate: use the token's own estimate as v.

    Source: THEORY.md sections 5 and 6.
    """

    inference: Inference
    channels: int
    control_variate: bool

    @abstractmethod
    def choose(self, belief: Belief, round: int) -> Integer[np.ndarray, "n K B"]:
        """Codes to ask in this round."""

    @property
    def codes(self) -> int:
        """Number of codes in the codebook."""
        return len(self.inference.codebook)

    def start(self, tokens: TokenView) -> Workspace:
        """The prior and its mean."""
        belief = self.inference.start(*tokens.labels.shape)
        return Workspace(belief, self.inference.estimate(belief))

    def emit(self, state: Workspace, tokens: TokenView, round: int) -> Message:
        """An unbiased estimate of u.w from the token's own example, for each direction asked."""
        codes = self.choose(state.belief, round)
        inputs = list(np.moveaxis(tokens.inputs, 1, 0))
        vector = list(np.moveaxis(state.vector, 1, 0)) if self.control_variate else None
        residual = tokens.labels if vector is None else tokens.labels - dot(vector, inputs)
        values = np.empty(codes.shape)
        for channel in range(self.channels):
            query = components(self.inference.codebook.directions, codes[:, channel])
            values[:, channel] = dot(query, inputs) * residual
            if vector is not None:
                values[:, channel] += dot(query, vector)
        return Message(codes, values)

    def absorb(self, state: Workspace, field: Field, round: int) -> Workspace:
        """Bayes' rule on the fields heard."""
        control = state.vector if self.control_variate else None
        belief = self.inference.hear(state.belief, field, control)
        return Workspace(belief, self.inference.estimate(belief))

    def estimate(self, state: Workspace) -> Float[np.ndarray, "n d B"]:
        """The posterior mean."""
        return state.vector

    def atoms(self, state: Workspace) -> Float[np.ndarray, "n M B"]:
        """The posterior over atoms."""
        return state.belief.atoms()
