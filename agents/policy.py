"""What a policy is: a pure rule from what a token knows to what it says and believes.

start -> (emit -> field -> absorb) x rounds -> estimate. State is carried by the caller; a policy holds
hyperparameters and nothing else.
"""

from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Integer

from agents.prompt import TokenView

State = TypeVar("State")


class Message(NamedTuple):
    """What a token would like to say: K values, and the code each is about.

    Attributes:
        codes: index into the policy's codebook [n, K, B]; what the token will hear is about these.
        values: unbounded real values, which the channel will bound [n, K, B].
        spoken: which scalars are sent; a token that has nothing to say about a code may still ask for
            it. None if all are sent [n, K, B].
    """

    codes: Integer[np.ndarray, "n K B"]
    values: Float[np.ndarray, "n K B"]
    spoken: Bool[np.ndarray, "n K B"] | None = None


class Field(NamedTuple):
    """What a token hears on the codes it asked: the mean over the neighbours that sent the same code.

    Attributes:
        codes: the codes it asked [n, K, B].
        values: weighted means [n, K, B].
        effective: effective number of tokens averaged, (sum a)^2 / sum a^2, 0 if none [n, K, B].
        around: effective number of tokens that spoke at all, whatever about [n, B].
        relayed: variance of the channel's noise in a mean, in units of one message's share of it; None if
            nobody passed on what he had heard himself, which is 1 [n, K, B].
    """

    codes: Integer[np.ndarray, "n K B"]
    values: Float[np.ndarray, "n K B"]
    effective: Float[np.ndarray, "n K B"]
    around: Float[np.ndarray, "n B"]
    relayed: Float[np.ndarray, "n K B"] | None = None


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
