"""Tokens that do not play by the rule: silent ones, and ones that say something else than they should.

A corrupted policy is a policy, so any engine plays it. What such tokens hear and believe is left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from agents.channel import Field, Message
from agents.policies.base import Checked, Mistake, Policy
from agents.task import TokenView

Kind = Literal["silent", "constant", "flipped", "random", "adversarial"]


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A policy whose messages are other ones at some positions, in some rounds.

    `silent` sends nothing; `constant` sends the size; `flipped` the message with the other sign, times the
    size; `random` the size times a coordinate of the token's own input, which is standard normal and says
    nothing of w; `adversarial` the size with the sign that the message has not. The channel clips all of
    them. Codes are those that the policy asks.

    Attributes:
        policy: the rule of the tokens.
        tokens: positions that are corrupted [T].
        kind: how.
        size: see above.
        rounds: in which they are; None for all.

    Raises:
        ValueError: if kind, size, tokens or rounds are impossible.

    Source: L. Lamport, R. Shostak and M. Pease (1982), doi:10.1145/357172.357176.

    Example:
        >>> from agents.policies.flood import Flood
        >>> flood = Flood(4, np.zeros(3), np.eye(3), 0.1)
        >>> [mistake.key for mistake in Corrupted(flood, np.array([4]), "silent").mistakes(1, 4, 2)]
        ['tokens']
    """

    policy: Policy[Any]
    tokens: Int[np.ndarray, " T"]
    kind: Kind = "silent"
    size: float = 1.0
    rounds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.policy, Policy) or isinstance(self.policy, type):
            raise ValueError(f"policy = {self.policy!r:.100} is not possible; possible: a policy")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind = {self.kind!r} is not possible; possible: {', '.join(get_args(Kind))}")
        tokens = np.asarray(self.tokens)
        if tokens.ndim != 1 or not len(tokens) or tokens.dtype.kind not in "iu" or tokens.min() < 0:
            raise ValueError(
                f"tokens = {self.tokens!r:.100} is not possible; possible: integers from 0, one or more"
            )
        object.__setattr__(self, "tokens", tokens.astype(np.int64))
        if not np.isfinite(self.size):
            raise ValueError(f"size = {self.size} is not possible; possible: a finite number")

    def mistakes(self, rounds: int, tokens: int, prompts: int | None) -> Sequence[Mistake]:
        """Tokens or rounds that are not played, and what the policy says itself."""
        found = []
        if self.tokens.max() >= tokens:
            found.append(Mistake("tokens", self.tokens.tolist(), f"positions from 0 to {tokens - 1}"))
        if self.kind == "silent" and len(np.unique(self.tokens)) >= tokens:
            found.append(Mistake("tokens", "all", "some of the tokens: if all are silent nothing is heard"))
        if self.rounds is not None and any(not 1 <= index <= rounds for index in self.rounds):
            found.append(Mistake("rounds", self.rounds, f"1 to {rounds}, in which something is said"))
        if isinstance(self.policy, Checked):
            said = self.policy.mistakes(rounds, tokens, prompts)
            found += [mistake._replace(key=f"policy.{mistake.key}") for mistake in said]
        return found

    @property
    def codes(self) -> int:
        """Those of the policy."""
        return self.policy.codes

    def start(self, tokens: TokenView) -> Any:
        """The policy's start."""
        return self.policy.start(tokens)

    def emit(self, state: Any, tokens: TokenView, round: int) -> Message:
        """What the policy says, and at some positions something else."""
        message = self.policy.emit(state, tokens, round)
        rows = np.flatnonzero(np.isin(tokens.positions, self.tokens))
        if not len(rows) or (self.rounds is not None and round not in self.rounds):
            return message
        if self.kind == "silent":
            spoken = np.ones(message.codes.shape, bool) if message.spoken is None else message.spoken.copy()
            spoken[rows] = False
            return message._replace(spoken=spoken)
        values = message.values.copy()
        if self.kind == "constant":
            values[rows] = self.size
        elif self.kind == "flipped":
            values[rows] *= -self.size
        elif self.kind == "adversarial":
            values[rows] = np.where(values[rows] < 0, self.size, -self.size)
        else:
            coordinate = (round - 1) % tokens.inputs.shape[1]
            values[rows] = self.size * tokens.inputs[rows, coordinate][:, None]
        return message._replace(values=values)

    def absorb(self, state: Any, field: Field, round: int) -> Any:
        """The policy's workspace."""
        return self.policy.absorb(state, field, round)

    def estimate(self, state: Any) -> Float[np.ndarray, "n d B"]:
        """The policy's estimate."""
        return self.policy.estimate(state)

    def atoms(self, state: Any) -> Float[np.ndarray, "n M B"] | None:
        """The policy's belief."""
        return self.policy.atoms(state)
