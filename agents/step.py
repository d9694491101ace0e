"""A block of token positions: one step = absorb what came, report, emit the next message.

A step is a pure function of its arguments, so a step that is repeated after a fault gives the same bits.
A token actor is a block of one position.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt

from agents.channel import Channel, Field, Message
from agents.kernels import AVAILABLE
from agents.kernels import messages as loops
from agents.policies.base import Policy
from agents.prior import Latent, Prior, draw_latent
from agents.reductions import dot, fold
from agents.rng import Purpose, normals_at
from agents.task import TokenView, draw_tokens

MOST_BELIEFS = 64  # atoms up to which an observer is shown the whole belief


@dataclass(frozen=True, eq=False)
class System:
    """Everything that is the same at all positions of a simulation.

    Attributes:
        prior: prior of the task.
        label_noise: sigma.
        seed: address of all randomness.
        channel: the bound on messages.
        policy: the rule of the tokens.
        rounds: L.
    """

    prior: Prior
    label_noise: float
    seed: int
    channel: Channel
    policy: Policy[Any]
    rounds: int


class Block(NamedTuple):
    """What a block holds throughout: its tokens, and the truth, which only the report may see."""

    tokens: TokenView
    truth: Latent
    prompts: range


class Sent(NamedTuple):
    """Messages on the wire: code and integer for each channel, and which were sent if not all [n, K, B]."""

    codes: UInt[np.ndarray, "n K B"]
    wire: UInt[np.ndarray, "n K B"]
    spoken: Bool[np.ndarray, "n K B"] | None = None

    def scalars(self) -> int:
        """Number of scalars that were sent."""
        return self.codes.size if self.spoken is None else int(self.spoken.sum())


class Aggregate(NamedTuple):
    """Exact integer sums over what was heard, code by code; one row if all receivers hear the same.

    Attributes:
        total: sum of weight times wire [rows, C, B].
        weight: sum of weights [rows, C, B].
        square: sum of squared weights [rows, C, B].
    """

    total: Int[np.ndarray, "rows C B"]
    weight: Int[np.ndarray, "rows C B"]
    square: Int[np.ndarray, "rows C B"]


class Report(NamedTuple):
    """What a block tells about one round; nothing of it flows back into the simulation.

    Attributes:
        error: |w - w_i|^2 [n, B].
        effective: effective number of tokens heard, mean over channels; no rows in round 0 [n, B].
        clipped: which emitted values did not fit the channel; no rows after the last round [n, K, B].
        scalars: number of scalars emitted, over tokens, channels and prompts.
        detail: what a trace stores of the workspace, if it was asked for.
    """

    error: Float[np.ndarray, "n B"]
    effective: Float[np.ndarray, "f B"]
    clipped: Bool[np.ndarray, "g K B"]
    scalars: int
    detail: "Detail | None"


class Detail(NamedTuple):
    """The workspaces of a block as an observer sees them, who knows the truth.

    Attributes:
        estimate: w_i [n, d, B].
        correct: whether the atom nearest to the estimate shares the true branch at each level [n, D, B].
        entropy: entropy of the belief over branches at each level, bits; NaN without a belief [n, D, B].
        claimed: E|w - w_i|^2 under the belief; NaN without one, and where atoms have a spread [n, B].
        belief: posterior probability of each atom; no atoms without a belief, and if there are more than
            MOST_BELIEFS [n, A, B].
    """

    estimate: Float[np.ndarray, "n d B"]
    correct: Bool[np.ndarray, "n D B"]
    entropy: Float[np.ndarray, "n D B"]
    claimed: Float[np.ndarray, "n B"]
    belief: Float[np.ndarray, "n A B"]


class Step(NamedTuple):
    """Result of a step: workspace to carry, messages to send (None after the last round), report."""

    state: Any
    sent: Sent | None
    report: Report


def draw_block(system: System, positions: Int[np.ndarray, " n"], prompts: range) -> Block:
    """Draw what the block's tokens know, from their addresses."""
    truth = draw_latent(system.prior, system.seed, prompts)
    tokens = draw_tokens(truth, system.label_noise, system.seed, prompts, positions)
    return Block(tokens, truth, prompts)


def step(
    system: System,
    block: Block,
    state: Any,
    sent: Sent | None,
    aggregate: Aggregate | None,
    round: int,
    detail: bool = False,
    heard: Channel | None = None,
) -> Step:
    """Finish round `round` and begin the next.

    Args:
        system: what is the same everywhere.
        block: the block's tokens.
        state: workspace at the end of the round before; None in round 0.
        sent: what the block itself sent in this round; None in round 0.
        aggregate: integer sums of what the block heard in this round; None in round 0.
        round: 0 starts the workspace, 1..L absorb a field.
        detail: report the workspaces too.
        heard: channel over which the messages of this round came; None for the system's.
    """
    policy, channel = system.policy, system.channel
    effective = np.empty((0, len(block.prompts)))
    if sent is None or aggregate is None:
        state = policy.start(block.tokens)
    else:
        field = _listen(heard or channel, sent, aggregate)
        state = policy.absorb(state, field, round)
        effective = fold(field.effective) / channel.channels
    outgoing, clipped, scalars = None, np.empty((0, channel.channels, len(block.prompts)), dtype=bool), 0
    if round < system.rounds:
        message = policy.emit(state, block.tokens, round + 1)
        _check(message, (len(block.tokens.positions), channel.channels, len(block.prompts)), policy.codes)
        wire, clipped = channel.encode(message.values + _transmitter_noise(system, block, round + 1))
        code_type = np.uint8 if policy.codes <= 256 else np.uint16
        spoken = None if message.spoken is None else np.ascontiguousarray(message.spoken)
        outgoing = Sent(message.codes.astype(code_type), wire, spoken)
        scalars = outgoing.scalars()
        if message.spoken is not None:
            clipped &= message.spoken
    estimate = policy.estimate(state)
    error = _squared_distance(estimate, block.truth.vector)
    observed = _observe(system, block, state, estimate) if detail else None
    return Step(state, outgoing, Report(error, effective, clipped, scalars, observed))


def _check(message: Message, shape: tuple[int, int, int], codes: int) -> None:
    """Refuse what is no message: sums would be taken from beside the codes that there are.

    Raises:
        ValueError: if it has another shape, or names a code that does not exist.
    """
    for name in ("codes", "values", "spoken"):
        part = getattr(message, name)
        if part is not None and part.shape != shape:
            raise ValueError(f"a policy emitted {name} of shape {part.shape}, not {shape}")
    asked = message.codes
    if asked.dtype.kind not in "iu" or not _within(asked, codes):
        raise ValueError(f"a policy emitted codes that are no integers from 0 to {codes - 1}")
    if message.spoken is not None and message.spoken.dtype.kind != "b":
        raise ValueError(f"a policy emitted spoken of {message.spoken.dtype}, not of truth values")


def _within(asked: Integer[np.ndarray, "n K B"], codes: int) -> bool:
    if AVAILABLE and asked.dtype == np.int64:
        return bool(loops.within(np.ascontiguousarray(asked), codes))
    return bool(asked.min() >= 0 and asked.max() < codes)


def _listen(channel: Channel, sent: Sent, aggregate: Aggregate) -> Field:
    """Read the aggregate on the codes that the token itself asked: K numbers a round."""
    codes = sent.codes.astype(np.int64)
    if AVAILABLE:
        values, effective = np.empty(codes.shape), np.empty(codes.shape)
        around = np.empty((codes.shape[0], codes.shape[2]))
        loops.listen(codes, *aggregate, channel.step, channel.clip, values, effective, around)
        return Field(codes, values, effective, around)
    # Every token that speaks does so on all channels, each a code of its own.
    voices, squares = aggregate.weight.sum(axis=1), aggregate.square.sum(axis=1)
    around = voices.astype(float) ** 2 / np.maximum(squares * channel.channels, 1)
    shape = (codes.shape[0], aggregate.total.shape[1], aggregate.total.shape[2])
    total, weight, square = (
        np.take_along_axis(np.broadcast_to(part, shape), codes, axis=1)
        for part in (aggregate.total, aggregate.weight, aggregate.square)
    )
    effective = weight.astype(float) ** 2 / np.maximum(square, 1)
    return Field(
        codes, channel.decode(total, weight), effective, np.broadcast_to(around, (shape[0], shape[2]))
    )


def _transmitter_noise(system: System, block: Block, round: int) -> Float[np.ndarray, "n K B"]:
    channel = system.channel
    positions, prompts = block.tokens.positions, block.prompts
    if not channel.noise:
        return np.zeros((len(positions), channel.channels, len(prompts)))
    return channel.noise * normals_at(
        system.seed, Purpose.CHANNEL, prompts, channel.channels, positions, round
    )


def _observe(system: System, block: Block, state: Any, estimate: Float[np.ndarray, "n d B"]) -> Detail:
    branches = system.prior.branches
    tokens, _, prompts = estimate.shape
    nearest = _nearest_atom(system.prior.atoms, estimate)
    correct = branches.T[:, nearest] == branches.T[:, block.truth.atom][:, None]
    belief = system.policy.atoms(state)
    entropy = np.full((tokens, branches.shape[1], prompts), np.nan)
    if belief is not None:
        for level in range(branches.shape[1]):
            entropy[:, level] = _branch_entropy(belief, branches[:, level])
    claimed = np.full((tokens, prompts), np.nan)
    if belief is not None and not system.prior.factor.shape[1]:
        claimed[:] = 0.0
        for index, atom in enumerate(system.prior.atoms):
            claimed += belief[:, index] * _squared_distance(estimate, atom[:, None])
    if belief is None or belief.shape[1] > MOST_BELIEFS:
        belief = np.empty((tokens, 0, prompts))
    return Detail(estimate, np.ascontiguousarray(np.moveaxis(correct, 0, 1)), entropy, claimed, belief)


def _squared_distance(
    estimate: Float[np.ndarray, "n d B"], point: Float[np.ndarray, "d #B"]
) -> Float[np.ndarray, "n B"]:
    if AVAILABLE and estimate.shape[1:] == point.shape and estimate.dtype == point.dtype == float:
        result = np.empty((estimate.shape[0], estimate.shape[2]))
        loops.squared_distance(np.ascontiguousarray(estimate), point, result)
        return result
    offsets = [estimate[:, k] - component for k, component in enumerate(point)]
    return dot(offsets, offsets)


def _nearest_atom(
    atoms: Float[np.ndarray, "M d"], estimate: Float[np.ndarray, "n d B"]
) -> Integer[np.ndarray, "n B"]:
    nearest = np.zeros((estimate.shape[0], estimate.shape[2]), dtype=np.int64)
    smallest = np.full(nearest.shape, np.inf)
    for index, atom in enumerate(atoms):
        distance = _squared_distance(estimate, atom[:, None])
        closer = distance < smallest
        nearest[closer] = index
        smallest = np.where(closer, distance, smallest)
    return nearest


def _branch_entropy(
    belief: Float[np.ndarray, "n M B"], branch: Int[np.ndarray, " M"]
) -> Float[np.ndarray, "n B"]:
    """Entropy in bits of the belief summed over the atoms that share a branch."""
    entropy = np.zeros((belief.shape[0], belief.shape[2]))
    for node in range(int(branch.max()) + 1):
        mass = np.zeros_like(entropy)
        for atom in np.flatnonzero(branch == node):
            mass += belief[:, atom]
        entropy -= mass * np.log2(np.maximum(mass, 1e-300))
    return entropy
