"""What the policies that hold an exact belief share: they differ only in what they ask."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from agents.channel import Field, Message
from agents.codebook import Codebook, principal
from agents.inference.answers import NODES
from agents.inference.base import Inference
from agents.inference.exact import ExactInference
from agents.inference.gaussian import GaussianInference
from agents.kernels import AVAILABLE
from agents.kernels import messages as loops
from agents.policies.base import Ingredients, PolicyOptions, Sizes
from agents.prior import Prior
from agents.reductions import components, dot
from agents.task import TokenView


class Workspace(NamedTuple):
    """Workspace of a Bayesian token: its belief, and the function vector read from it.

    Attributes:
        belief: posterior given everything heard.
        vector: posterior mean of w [n, d, B].
        example: inputs and labels that the estimate uses beside it; None if it does not.
    """

    belief: Any
    vector: Float[np.ndarray, "n d B"]
    example: tuple[Float[np.ndarray, "n d B"], Float[np.ndarray, "n B"]] | None = None


@dataclass(frozen=True, eq=False)
class Bayesian(ABC):
    """A token that says m = (u.x)(y - v.x) + u.v along the directions u that `choose` names.

    v is the control variate: the token's own estimate of w, or zero without it. E[m] = u.w for any v.

    With `own_example` the token's estimate takes its own example for what it is, beside the fields; what it
    asks and says does not, or messages would no longer be unbiased.

    Attributes:
        inference: the update rule.
        channels: K, directions asked in a round.
        control_variate: use the token's own estimate as v.
        own_example: use the own example in the estimate.

    Source: THEORY.md sections 5 and 6.
    """

    inference: Inference[Any]
    channels: int
    control_variate: bool
    own_example: bool = field(default=False, kw_only=True)

    @abstractmethod
    def choose(self, belief: Any, round: int) -> Integer[np.ndarray, "n K B"]:
        """Codes to ask in this round."""

    @property
    def codes(self) -> int:
        """Number of codes in the codebook."""
        return len(self.inference.codebook)

    def start(self, tokens: TokenView) -> Workspace:
        """The prior and its mean."""
        count, prompts = tokens.labels.shape
        belief = self.inference.start(count, prompts, tokens.positions)
        example = (tokens.inputs, tokens.labels) if self.own_example else None
        return Workspace(belief, self.inference.estimate(belief), example)

    def emit(self, state: Workspace, tokens: TokenView, round: int) -> Message:
        """An unbiased estimate of u.w from the token's own example, for each direction asked."""
        codes = self.choose(state.belief, round)
        if AVAILABLE:
            return Message(codes, self._say(state, tokens, codes))
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

    def _say(
        self, state: Workspace, tokens: TokenView, codes: Integer[np.ndarray, "n K B"]
    ) -> Float[np.ndarray, "n K B"]:
        """What `emit` says, by a compiled loop."""
        codes = np.ascontiguousarray(codes, dtype=np.int64)
        if not loops.within(codes, self.codes):  # which the next loop would not see
            raise IndexError(f"codes are to be from 0 to {self.codes - 1}")
        values = np.empty(codes.shape)
        parts = (codes, tokens.inputs, tokens.labels, state.vector)
        loops.say(
            *(np.ascontiguousarray(part) for part in parts),
            self.control_variate,
            np.ascontiguousarray(self.inference.codebook.directions),
            values,
        )
        return values

    def absorb(self, state: Workspace, field: Field, round: int) -> Workspace:
        """Bayes' rule on the fields heard."""
        control = state.vector if self.control_variate else None
        belief = self.inference.hear(state.belief, field, control, round)
        return Workspace(belief, self.inference.estimate(belief), state.example)

    def estimate(self, state: Workspace) -> Float[np.ndarray, "n d B"]:
        """The posterior mean."""
        return state.vector if state.example is None else self.inference.estimate(self._read(state))

    def atoms(self, state: Workspace) -> Float[np.ndarray, "n M B"]:
        """The posterior over atoms."""
        return self.inference.atoms(self._read(state))

    def _read(self, state: Workspace) -> Any:
        """The belief with the own example, where it is used."""
        return state.belief if state.example is None else self.inference.told(state.belief, *state.example)


def inference_of(given: Ingredients) -> Inference[Any]:
    """The update rule of a policy that holds a belief; a Gaussian one if the prior is not discrete."""
    if given.codebook is None:
        raise ValueError("a policy that holds a belief needs a codebook, and its entry names none")
    options = given.options
    rule = (given.prior, given.codebook, given.label_noise, given.channel.variance)
    if options.belief == "exact" and not given.prior.factor.shape[1]:
        law = (options.grouped, options.disagreement, options.repeats)
        if AVAILABLE:  # who holds no such belief loads no compiler
            from agents.inference.fast import FastExactInference

            return FastExactInference(*rule, *law, fields=given.rounds * given.channel.channels)
        return ExactInference(*rule, *law)
    return GaussianInference(*rule, options.belief != "independent")


def principal_codes(prior: Prior, options: PolicyOptions) -> Codebook:
    """One code for each axis of the prior."""
    return principal(prior)


def numbers_of_a_belief(sizes: Sizes) -> int:
    """Numbers that a belief keeps of one token and prompt.

    Of the Gaussian law for each atom a triangle of whitened measurements. Of the exact law what the fields
    said, and where answers are grouped the same triangle at each node, but for the first answer to a code.
    Beside it the inputs, the estimates that served as control, and temporaries of a few rows. A question that
    is averaged for T rounds is one measurement.
    """
    heard = -(-sizes.rounds // sizes.turn) * sizes.channels
    if sizes.law == "exact":
        return sizes.atoms * 8 + 2 * heard
    if sizes.law == "grouped":
        again = max(heard - 1, 0)
        whitened = NODES * (3 * again + heard * again // 2)
        return sizes.atoms * (whitened + 8) + heard * (sizes.dim + 6)
    row = heard * (heard + 5) // 2 + (heard + 2) * sizes.rank + 12
    return sizes.atoms * row + heard * sizes.dim
