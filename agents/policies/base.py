"""What a policy is: a pure rule from what a token knows to what it says and believes.

start -> (emit -> field -> absorb) x rounds -> estimate. State is carried by the caller; a policy holds
hyperparameters and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from agents.channel import Channel, Field, Message
from agents.codebook import Codebook
from agents.prior import Prior
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


class Mistake(NamedTuple):
    """What does not fit an experiment.

    Attributes:
        key: of the policy, as its user wrote it.
        given: what it is.
        possible: what it may be there.
    """

    key: str
    given: object
    possible: str


@runtime_checkable
class Checked(Protocol):
    """A policy that does not fit every experiment, and says where; others have no such method."""

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        """What does not fit; asked before anything starts.

        Args:
            rounds: L.
            tokens: N.
            prompts: B that are played together; None where that is not known yet.
        """
        ...


@runtime_checkable
class Surroundings(Protocol):
    """What a graph says about each position: constants of its place, which a policy may be built with."""

    @property
    def tokens(self) -> int:
        """Number N of token positions."""
        ...

    def effective(self, rounds: int = 1) -> Float[np.ndarray, " N"]:
        """Effective number of tokens in a mean after some rounds of averaging."""
        ...

    def reach(self, rounds: int) -> Float[np.ndarray, "rounds N"]:
        """The same after 1..T rounds."""
        ...

    def fewest_beside(self) -> Float[np.ndarray, " N"]:
        """Smallest effective number of tokens in a mean that each token's message is part of."""
        ...


@dataclass(frozen=True)
class PolicyOptions:
    """What an experiment file says of its policy; each kind reads what it needs.

    Attributes:
        control_variate: messages carry the token's own estimate as control variate.
        order: of fixed queries `codes` or `pooled`, of adaptive ones `widest` or `level`.
        belief: law of a field, `exact`, or Gaussian with rounds taken `joint` or `independent`.
        own_example: the estimate uses the token's own example.
        grouped: the exact law takes answers to one code jointly: tokens share their controls.
        disagreement: mean squared distance of the controls heard from one's own [L, N]; None for zero.
        repeats: weight of a repeated answer in each round; None for 1 [L].
        turns: rounds of averaging for each question in turn.
        step: length of a gradient step; None for the one that follows from the graph.
        options: the keys of a policy that is not part of tokenfield.
    """

    control_variate: bool = True
    order: str = "auto"
    belief: Literal["exact", "joint", "independent"] = "exact"
    own_example: bool = False
    grouped: bool = False
    disagreement: Float[np.ndarray, "L N"] | None = None
    repeats: tuple[float, ...] | None = None
    turns: tuple[int, ...] = (1,)
    step: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Ingredients(NamedTuple):
    """What a policy is built from.

    Attributes:
        prior: prior over w.
        codebook: directions that may be asked; None for a policy with a code for each channel.
        label_noise: sigma.
        channel: the bound on a message.
        rounds: L.
        surroundings: constants of each position on the graph.
        options: what the experiment file says.
    """

    prior: Prior
    codebook: Codebook | None
    label_noise: float
    channel: Channel
    rounds: int
    surroundings: Surroundings
    options: PolicyOptions


class Sizes(NamedTuple):
    """What the memory of a token depends on.

    Attributes:
        law: of a field in the belief: `gaussian`, `exact`, or `grouped`, which keeps answers node by node.
        atoms: M, mixture components of the prior.
        rank: R, columns of its factor.
        dim: d.
        rounds: L.
        channels: scalars of a message.
        turn: rounds of averaging for each question.
        width: numbers in the workspace and the hidden layer of a trained transformer.
    """

    law: Literal["gaussian", "exact", "grouped"]
    atoms: int
    rank: int
    dim: int
    rounds: int
    channels: int
    turn: int
    width: int


# What theory knows of a policy: state evolution of one belief, the same with rounds of averaging for each
# question, or the best linear estimate from the examples within reach.
Theory = Literal["state evolution", "averaging", "light cone"]


@dataclass(frozen=True)
class PolicyEntry:
    """One kind of policy: how it is built, and what is known of it before.

    Attributes:
        build: makes the policy; None for one whose trained weights are handed in.
        codebook: the directions that it asks about; None for one with a code for each channel.
        channels: scalars of a message, from (K of the file, N, d).
        numbers: floating-point numbers that one token of one prompt keeps at the end of a run, from above.
        theory: how its risk is predicted; None where no theory is written.
        adapts: whether it may ask what depends on what was heard, so that tokens can ask different codes.
        orders: values of `order` that it knows, for tables that name policies.
        controls: whether it knows a control variate.
    """

    build: Callable[[Ingredients], Policy[Any]] | None
    codebook: Callable[[Prior, PolicyOptions], Codebook] | None = None
    channels: Callable[[int, int, int], int] = lambda asked, tokens, dim: asked
    numbers: Callable[[Sizes], int] = lambda sizes: 14 * sizes.channels
    theory: Theory | None = None
    adapts: bool = False
    orders: tuple[str, ...] = ()
    controls: bool = False

    @property
    def believes(self) -> bool:
        """Whether it holds a belief that theory evolves."""
        return self.theory in ("state evolution", "averaging")

    @property
    def is_trained(self) -> bool:
        """Whether weights are handed in."""
        return self.build is None
