"""Workspaces and queries of message-passing tokens, round by round, and what they answer when changed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Integer

from agents.codebook import Codebook
from agents.policies.intervened import Change, Intervened
from agents.policies.learned import NORM_FLOOR, Learned
from agents.reductions import affine, dot
from agents.step import System, step, take_place
from runner.engine import Engine, tally_blocks
from runner.local import LocalEngine
from topology.mixing import Mixing


class Activations(NamedTuple):
    """What goes on inside a transformer, on given prompts; one row if all tokens hear the same.

    Attributes:
        workspaces: p after 0, 1, ..., L layers: the function vector [L + 1, rows, W, B].
        queries: u with which each layer asks, norm 1 [L, rows, K, d, B].
        estimates: R p [L + 1, rows, d, B].
    """

    workspaces: Float[np.ndarray, "depths rows W B"]
    queries: Float[np.ndarray, "layers rows K d B"]
    estimates: Float[np.ndarray, "depths rows d B"]


def play_states(system: System, mixing: Mixing, prompts: range) -> Iterator[Any]:
    """The workspaces of all tokens after rounds 0..L, whatever the policy holds in them.

    Args:
        system: what is the same at all positions.
        mixing: who hears whom.
        prompts: consecutive prompt indices, played together.
    """
    positions = np.arange(mixing.tokens)
    place = take_place(system, positions, prompts)
    now = step(system, place, None, None, None, 0)
    yield now.state
    for round in range(1, system.rounds + 1):
        assert now.sent is not None  # a message follows every round but the last
        (tally,) = tally_blocks(mixing, now.sent, system.policy.codes, [positions])
        now = step(system, place, now.state, now.sent, tally, round)
        yield now.state


def agents_activations(system: System, mixing: Mixing, prompts: range) -> Activations:
    """Workspaces, queries and estimates of tokens that run trained weights.

    Args:
        system: whose policy is `Learned`.
        mixing: who hears whom.
        prompts: consecutive prompt indices.

    Raises:
        TypeError: if the policy has no trained weights.

    Source: THEORY.md section 8.
    """
    policy = system.policy
    if not isinstance(policy, Learned):
        raise TypeError(f"{type(policy).__name__} has no workspace vector: the policy must be Learned")
    states = list(play_states(system, mixing, prompts))
    return Activations(
        np.stack(states),
        np.stack([query_of(policy, state, index + 1) for index, state in enumerate(states[:-1])]),
        np.stack([policy.estimate(state) for state in states]),
    )


def query_of(policy: Learned, state: Float[np.ndarray, "n W B"], round: int) -> Float[np.ndarray, "n K d B"]:
    """The query with which a token asks in a round: normalise(Q p)."""
    raw = affine(*policy.layers[round - 1].query, state)
    raw = raw.reshape(len(raw), policy.channels, -1, raw.shape[2])
    parts = list(np.moveaxis(raw, 2, 0))
    return np.asarray(raw / np.sqrt(dot(parts, parts) + NORM_FLOOR)[:, :, None])


def asked_codes(
    system: System, mixing: Mixing, prompts: range, engine: Engine | None = None
) -> Integer[np.ndarray, "layers N K B"]:
    """The code that each token asks about on each channel, round by round."""
    outcomes = (engine or LocalEngine()).play(system, mixing, prompts, messages=True)
    return np.stack([outcome.sent.codes for outcome in outcomes if outcome.sent is not None])


def directions_of(
    codes: Integer[np.ndarray, "layers N K B"], codebook: Codebook
) -> Float[np.ndarray, "layers N K d B"]:
    """The queries of a policy that asks by codes: the directions that its codes stand for.

    Example:
        >>> book = Codebook(np.eye(2), np.array([1, 2]))
        >>> directions_of(np.array([[[[0, 1]]]]), book)[0, 0, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return np.moveaxis(codebook.directions[codes], -1, -2)


def agents_estimates(
    system: System,
    mixing: Mixing,
    prompts: range,
    layer: int | None = None,
    change: Change | None = None,
    engine: Engine | None = None,
) -> Float[np.ndarray, "depths N d B"]:
    """Estimates of w after rounds 0..L, if workspaces are changed at the end of one round.

    Args:
        system: what is the same at all positions; any policy whose workspace the change understands.
        mixing: who hears whom.
        prompts: consecutive prompt indices, played together: a patch counts its donors among them.
        layer: round after which the workspace is changed.
        change: what is done to it; None leaves it alone.
        engine: where the tokens live; in this process by default.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.
    """
    if change is not None and layer is not None:
        system = replace(system, policy=Intervened(system.policy, layer, change))
    outcomes = (engine or LocalEngine()).play(system, mixing, prompts, detail=True)
    details = [outcome.report.detail for outcome in outcomes]
    return np.stack([detail.estimate for detail in details if detail is not None])
