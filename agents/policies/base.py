"""What a policy is: a pure rule from what a token knows to what it says and believes.

start -> (emit -> field -> absorb) x rounds -> estimate. State is carried by the caller; a policy holds
hyperparameters and nothing else.
"""

from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from agents.channel import Field, Message
from agents.task import TokenView

State = TypeVar("State")


@runtime_checkable
class Policy(Protocol[State]):
    """The rule of one token position. All arrays have token positions first and prompts last."""

    @property
    def codes(self) -> int:
        """Number C of different codes that messages may carry."""
        ...

    def start(self, tokens: TokenView) -> State:
        """Workspace before anything was heard."""
        ...

    def emit(self, state: State, tokens: TokenView, round: int) -> Message:
        """What to say in this round (1, 2, ...), from the workspace and the token's own data."""
        ...

    def absorb(self, state: State, field: Field, round: int) -> State:
        """Workspace after hearing the field of this round."""
        ...

    def estimate(self, state: State) -> Float[np.ndarray, "n d B"]:
        """Estimate of w."""
        ...

    def atoms(self, state: State) -> Float[np.ndarray, "n M B"] | None:
        """Posterior probability of each atom of the prior; None if the policy holds no belief."""
        ...
