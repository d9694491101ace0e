"""Operations on workspaces: a policy whose tokens are patched or steered between two rounds.

An intervention is itself a policy, so any engine plays it, and nothing of the simulation knows of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from agents.channel import Field, Message
from agents.inference.answers import Answers
from agents.policies.base import Checked, Mistake, Policy
from agents.task import TokenView

_LARGEST = 2**62  # index that is taken: more does not fit 64 bits with a sign


@runtime_checkable
class Change(Protocol):
    """A pure map from the workspaces of some positions to other workspaces.

    One that does not fit every experiment may be `Checked`, as a policy may.
    """

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
        donors: index of the donor of each prompt, counted among those that are played together [B].
        tokens: positions that are patched; None for all [T].

    Raises:
        ValueError: if there are no donors or tokens, or they are not integers from 0; or if a donor is not
            one of the B prompts.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "donors", _indices("donors", self.donors))
        _settle_tokens(self)
        if self.donors.max() >= len(self.donors):
            possible = f"from 0 to {len(self.donors) - 1} for {len(self.donors)} prompts"
            raise _refused("donors", self.donors, possible)

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        """Another number of donors than of prompts that are played together."""
        if prompts is None or len(self.donors) == prompts:
            return []
        possible = f"{prompts:,} donors, one for each prompt that is played together"
        return [Mistake("donors", f"{len(self.donors):,} donors", possible)]

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Any:
        """The workspaces with those of the donors in them.

        Raises:
            ValueError: if a part of the workspace is not an array of tokens first and prompts last.
        """
        rows = _chosen(positions, self.tokens)

        def patched(leaf: np.ndarray) -> np.ndarray:
            if leaf.ndim < 2 or leaf.shape[:1] != positions.shape or leaf.shape[-1:] != self.donors.shape:
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

    Raises:
        ValueError: if the vector is not of finite numbers [W, B] or [W, 1]; or if there are no tokens, or
            they are not integers from 0.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.

    Example:
        >>> Steer(np.array([[0.5]]))(np.array([[[1.0, 2.0]]]), np.arange(1)).tolist()
        [[[1.5, 2.5]]]
    """

    shift: Float[np.ndarray, "W #B"]
    tokens: Int[np.ndarray, " T"] | None = None

    def __post_init__(self) -> None:
        shift = np.asarray(self.shift)
        if shift.ndim != 2 or shift.dtype.kind not in "fiu" or not np.isfinite(shift).all():
            possible = "finite numbers, a column for each prompt or one for all"
            raise _refused("shift", self.shift, possible)
        object.__setattr__(self, "shift", shift.astype(float))
        _settle_tokens(self)

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        """Another number of vectors than one, or than of prompts that are played together."""
        count = self.shift.shape[1]
        if prompts is None or count in (1, prompts):
            return []
        possible = f"one for all prompts, or {prompts:,}, one for each that is played together"
        return [Mistake("shift", f"{count:,} vectors", possible)]

    def __call__(self, state: Any, positions: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n W B"]:
        """The workspaces, moved.

        Raises:
            ValueError: if the workspace is not an array of W numbers for each token and prompt.
        """
        rows = _chosen(positions, self.tokens)
        width = len(self.shift)
        if not isinstance(state, np.ndarray) or state.shape[:2] != (len(positions), width):
            given = (
                f"shape {state.shape}" if isinstance(state, np.ndarray) else f"type {type(state).__name__}"
            )
            raise ValueError(f"a workspace of {given} cannot be moved by a vector of {width} numbers")
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

    Raises:
        ValueError: if the round or the tokens of the change are not integers from 0, or policy and change are
            something else.

    Example:
        >>> from agents.policies.flood import Flood
        >>> flood = Flood(4, np.zeros(3), np.eye(3), 0.1)
        >>> patched = Intervened(flood, 2, Patch(np.array([1, 0])))
        >>> [mistake.key for mistake in patched.mistakes(rounds=1, tokens=4, prompts=2)]
        ['round']
    """

    policy: Policy[Any]
    round: int
    change: Change

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy) or isinstance(self.policy, type):
            raise _refused("policy", self.policy, "a policy, for example runner.build(experiment).policy")
        if not callable(self.change) or isinstance(self.change, type):
            raise _refused("change", self.change, "a Patch, a Steer, or another change of workspaces")
        object.__setattr__(self, "round", int(_indices("round", [self.round])[0]))
        if self._places() is not None:
            _indices("change.tokens", self._places())

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        """A round or tokens that are not played, and what policy and change say themselves."""
        found = []
        if self.round > rounds:
            found.append(Mistake("round", self.round, f"0 to {rounds}, the rounds that are played"))
        places = self._places()
        if places is not None and np.max(places) >= tokens:
            found.append(Mistake("change.tokens", places, f"positions from 0 to {tokens - 1}"))
        for name, part in (("policy", self.policy), ("change", self.change)):
            if isinstance(part, Checked):
                said = part.mistakes(rounds, tokens, prompts)
                found += [mistake._replace(key=f"{name}.{mistake.key}") for mistake in said]
        return found

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

    def _places(self) -> Any:
        """Positions that are changed; None for all, also of a change that does not say."""
        return getattr(self.change, "tokens", None)

    def _changed(self, state: Operated, round: int) -> Operated:
        if round != self.round:
            return state
        return Operated(state.positions, self.change(state.inner, state.positions))


def _indices(key: str, given: Any) -> Int[np.ndarray, " m"]:
    """Indices that were handed in, as 64-bit integers.

    Raises:
        ValueError: if there are none, or they are not integers from 0 in a row.
    """
    indices = np.asarray(given)
    whole = indices.ndim == 1 and indices.size > 0 and indices.dtype.kind in "iu"
    if not whole or indices.min() < 0 or indices.max() > _LARGEST:
        raise _refused(key, given, "integers from 0, one or more")
    return indices.astype(np.int64)


def _settle_tokens(change: Patch | Steer) -> None:
    """Make the positions of a change an array of its own."""
    if change.tokens is not None:
        object.__setattr__(change, "tokens", _indices("tokens", change.tokens))


def _refused(key: str, given: object, possible: str) -> ValueError:
    return ValueError(f"{key} = {' '.join(repr(given).split()):.200} is not possible; possible: {possible}")


def _chosen(positions: Int[np.ndarray, " n"], tokens: Int[np.ndarray, " T"] | None) -> Bool[np.ndarray, " n"]:
    return np.ones(len(positions), dtype=bool) if tokens is None else np.isin(positions, tokens)


def _mapped(change: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """The same tuples with every array changed."""
    if isinstance(state, np.ndarray):
        return change(state)
    if isinstance(state, tuple):
        parts = [_mapped(change, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if isinstance(state, Answers):
        return state.changed(change)
    if state is None or isinstance(state, int):  # a count that all prompts share
        return state
    raise ValueError(f"a workspace holds a {type(state).__name__}: only arrays and tuples can be patched")
