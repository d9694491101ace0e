"""Operations on workspaces: a policy whose tokens are patched or steered between two rounds.

An intervention is itself a policy, so any engine plays it, and nothing of the simulation knows of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from agents.channel import Field, Message
from agents.policies.base import Policy
from agents.task import TokenView


@runtime_checkable
class Change(Protocol):
    """A pure map from the workspaces of some positions to other workspaces."""

    @property
    def tokens(self) -> Int[np.ndarray, " T"] | None:
        """Positions whose workspace is changed; None for all."""
        ...

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Any:
        """The workspaces after the change; prompts are those of the whole batch."""
        ...


@dataclass(frozen=True, eq=False)
class Patch:
    """Put the workspace of prompt donors[b] into prompt b, at the same position.

    Attributes:
        donors: index of the donor of each prompt, counted in the batch [B].
        tokens: positions that are patched; None for all [T].

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.

    Example:
        >>> Patch(np.array([1, 0]))(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.arange(2)).tolist()
        [[[2.0, 1.0]], [[4.0, 3.0]]]
        >>> one = Patch(np.array([1, 0]), tokens=np.array([1]))
        >>> one(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.arange(2)).tolist()
        [[[1.0, 2.0]], [[4.0, 3.0]]]
    """

    donors: Int[np.ndarray, " B"]
    tokens: Int[np.ndarray, " T"] | None = None

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Any:
        """The workspaces with those of the donors in them.

        Raises:
            ValueError: if a part of the workspace is not an array of tokens first and prompts last.
        """
        rows = _chosen(positions, self.tokens)

        def patched(leaf: np.ndarray) -> np.ndarray:
            if leaf.shape[:1] != positions.shape or leaf.shape[-1:] != self.donors.shape:
                raise ValueError(
                    f"a part of the workspace has shape {leaf.shape}, which is not {len(positions)} tokens "
                    f"first and the {len(self.donors)} prompts of the patch last: it cannot be patched"
                )
            result = leaf.copy()
            result[rows] = leaf[rows][..., self.donors]
            return result

        return _mapped(patched, state)


@dataclass(frozen=True, eq=False)
class Steer:
    """Add a vector to the workspace.

    Attributes:
        shift: what is added, the same for all prompts or one for each [W, B] or [W, 1].
        tokens: positions that are steered; None for all [T].

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.

    Example:
        >>> Steer(np.array([[0.5]]))(np.array([[[1.0, 2.0]]]), np.arange(1)).tolist()
        [[[1.5, 2.5]]]
    """

    shift: Float[np.ndarray, "W #B"]
    tokens: Int[np.ndarray, " T"] | None = None

    def __call__(
        self, state: Float[np.ndarray, "n W B"], positions: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n W B"]:
        """The workspaces, moved."""
        rows = _chosen(positions, self.tokens)
        result = state.copy()
        result[rows] += self.shift
        return result


class Operated(NamedTuple):
    """Workspace of a token that is operated on: where it is, and the policy's own workspace."""

    positions: Int[np.ndarray, " n"]
    inner: Any


@dataclass(frozen=True, eq=False)
class Intervened:
    """A policy that is left as it is, but for one change of the workspace at the end of one round.

    What a token says in the next round already follows from the changed workspace, and from its own data.

    Attributes:
        policy: the rule of the tokens.
        round: after which the workspace is changed; 0 is the start.
        change: what is done to it.
    """

    policy: Policy[Any]
    round: int
    change: Change

    @property
    def codes(self) -> int:
        """Those of the policy."""
        return self.policy.codes

    def start(self, tokens: TokenView) -> Operated:
        """The policy's start, changed if the change is due at once."""
        return self._changed(Operated(tokens.positions, self.policy.start(tokens)), 0)

    def emit(self, state: Operated, tokens: TokenView, round: int) -> Message:
        """What the policy says from the workspace as it is now."""
        return self.policy.emit(state.inner, tokens, round)

    def absorb(self, state: Operated, field: Field, round: int) -> Operated:
        """The policy's workspace, changed if the change is due."""
        heard = self.policy.absorb(state.inner, field, round)
        return self._changed(Operated(state.positions, heard), round)

    def estimate(self, state: Operated) -> Float[np.ndarray, "n d B"]:
        """The policy's estimate."""
        return self.policy.estimate(state.inner)

    def atoms(self, state: Operated) -> Float[np.ndarray, "n M B"] | None:
        """The policy's belief."""
        return self.policy.atoms(state.inner)

    def _changed(self, state: Operated, round: int) -> Operated:
        if round != self.round:
            return state
        return Operated(state.positions, self.change(state.inner, state.positions))


def _chosen(positions: Int[np.ndarray, " n"], tokens: Int[np.ndarray, " T"] | None) -> Bool[np.ndarray, " n"]:
    return np.ones(len(positions), dtype=bool) if tokens is None else np.isin(positions, tokens)


def _mapped(change: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """The same tuples with every array changed."""
    if isinstance(state, np.ndarray):
        return change(state)
    if isinstance(state, tuple):
        parts = [_mapped(change, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if state is None:
        return None
    raise ValueError(f"a workspace holds a {type(state).__name__}: only arrays and tuples can be patched")
