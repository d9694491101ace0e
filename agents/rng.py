"""Randomness that is addressed, never streamed.

Every number is a function of (seed, purpose, prompt, position, round) through the counter-based
generator Philox, so that no result depends on batch size, worker count, order or restart.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Philox

from agents.kernels import AVAILABLE

_WORDS = 4  # a Philox counter yields four 64-bit words


class Purpose(IntEnum):
    """What a draw is for; each purpose is an independent stream of counters."""

    PRIOR = 1
    LATENT = 2
    TOKEN = 3
    CHANNEL = 4
    TRAINING = 5
    THEORY = 6


def uniforms(
    seed: int, purpose: Purpose, prompts: range, count: int, position: int = 0, round: int = 0
) -> Float[np.ndarray, "count B"]:
    """Uniform numbers on the open interval (0, 1), `count` for each prompt.

    Args:
        seed: the experiment's seed, 0 <= seed < 2**64.
        purpose: what the numbers are for.
        prompts: consecutive prompt indices; column b belongs to `prompts[b]`.
        count: numbers for each prompt.
        position: token position the numbers belong to.
        round: round the numbers belong to.

    Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011),
        doi:10.1145/2063384.2063405.

    Example:
        >>> batch = uniforms(0, Purpose.TOKEN, range(0, 100), 3, position=5)
        >>> alone = uniforms(0, Purpose.TOKEN, range(42, 43), 3, position=5)
        >>> bool((batch[:, 42] == alone[:, 0]).all())
        True
    """
    if prompts.step != 1:
        raise ValueError(f"prompts must be consecutive, got {prompts!r}")
    counters = -(-count // _WORDS)
    generator = Philox(
        key=np.array([seed, purpose], dtype=np.uint64),
        counter=np.array([prompts.start * counters, position, round, 0], dtype=np.uint64),
    )
    raw = generator.random_raw(len(prompts) * counters * _WORDS)
    words = np.asarray(raw, dtype=np.uint64).reshape(len(prompts), counters * _WORDS)
    return ((words[:, :count].T >> np.uint64(11)) + 0.5) * 2.0**-53


def normals(
    seed: int, purpose: Purpose, prompts: range, count: int, position: int = 0, round: int = 0
) -> Float[np.ndarray, "count B"]:
    """Standard normal numbers, `count` for each prompt, addressed like `uniforms`.

    Source: G. E. P. Box and M. E. Muller (1958), doi:10.1214/aoms/1177706645.

    Example:
        >>> draws = normals(7, Purpose.LATENT, range(100_000), 2)
        >>> bool(abs(draws.mean()) < 0.01 and abs(draws.var() - 1) < 0.01)
        True
    """
    return normals_at(seed, purpose, prompts, count, np.array([position]), round)[0]


def normals_at(
    seed: int,
    purpose: Purpose,
    prompts: range,
    count: int,
    positions: Int[np.ndarray, " n"],
    round: int = 0,
) -> Float[np.ndarray, "n count B"]:
    """The numbers of `normals` at some positions, faster than one by one.

    Example:
        >>> block = normals_at(7, Purpose.TOKEN, range(5), 3, np.array([2, 9]))
        >>> bool((block[1] == normals(7, Purpose.TOKEN, range(5), 3, position=9)).all())
        True
    """
    first, second = _pairs(seed, purpose, prompts, -(-count // 2), positions, round)
    radius = np.sqrt(-2.0 * np.log(first))
    angle = 2.0 * np.pi * second
    result = np.empty((len(positions), count, len(prompts)))
    result[:, 0::2] = radius * np.cos(angle)
    if count > 1:
        angle = angle if count % 2 == 0 else np.ascontiguousarray(angle[:, :-1])
        result[:, 1::2] = radius[:, : count // 2] * np.sin(angle)
    return result


def _pairs(
    seed: int, purpose: Purpose, prompts: range, pairs: int, positions: Int[np.ndarray, " n"], round: int
) -> tuple[Float[np.ndarray, "n pairs B"], Float[np.ndarray, "n pairs B"]]:
    """The uniform numbers of each position in pairs; contiguous: strided operands may round otherwise."""
    shape = (len(positions), pairs, len(prompts))
    if AVAILABLE:
        from agents.kernels import draws as loops  # and with it the compiler

        first, second = np.empty(shape), np.empty(shape)
        words = (np.uint64(number) for number in (seed, purpose, prompts.start, round))
        loops.pairs(*words, positions.astype(np.uint64), first, second)
        return first, second
    flat = np.empty((len(positions), 2 * pairs, len(prompts)))
    for row, position in enumerate(positions):
        flat[row] = uniforms(seed, purpose, prompts, 2 * pairs, int(position), round)
    return np.ascontiguousarray(flat[:, 0::2]), np.ascontiguousarray(flat[:, 1::2])
