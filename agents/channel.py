"""Messages: what a token sends, the bound on it (K integers of b bits), and the field that it hears."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt

from agents.kernels import AVAILABLE
from agents.kernels import messages as loops


class Encoded(NamedTuple):
    """What goes on the wire, and which values did not fit: wire [...], clipped [...]."""

    wire: UInt[np.ndarray, "..."]
    clipped: Bool[np.ndarray, "..."]


@dataclass(frozen=True)
class Channel:
    """Uniform quantiser: clip to [-c, c], round to one of 2^b levels, send the level's index.

    Attributes:
        channels: K, scalars in a message.
        bits: b, bits for each scalar, 1 to 48.
        clip: c, largest magnitude that can be sent.
        noise: tau, standard deviation of the noise that the transmitter adds before rounding.

    Source: THEORY.md section 5, message on the wire.

    Example:
        >>> channel = Channel(channels=1, bits=2, clip=3.0)
        >>> wire, clipped = channel.encode(np.array([-9.0, -1.2, 0.9, 3.0]))
        >>> wire.tolist(), clipped.tolist()
        ([0, 1, 2, 3], [True, False, False, False])
        >>> channel.decode(wire.astype(np.int64), np.ones(4, dtype=np.int64)).tolist()
        [-3.0, -1.0, 1.0, 3.0]
    """

    channels: int = 1
    bits: int = 24
    clip: float = 8.0
    noise: float = 0.0

    @property
    def step(self) -> float:
        """Distance between neighbouring levels."""
        return 2.0 * self.clip / (2**self.bits - 1)

    @property
    def variance(self) -> float:
        """Variance that the channel adds to one message: tau^2 + step^2 / 12."""
        return self.noise**2 + self.step**2 / 12.0

    @property
    def wire_type(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned integer type that holds a level's index."""
        size = next(width for width in (8, 16, 32, 64) if width >= self.bits)
        return np.dtype(f"uint{size}")

    def encode(self, values: Float[np.ndarray, "..."]) -> Encoded:
        """Turn values into level indices; what exceeds the clip is counted, never silent.

        Raises:
            FloatingPointError: if a value is not finite.
        """
        if AVAILABLE and values.ndim == 3:
            levels, clipped = np.empty(values.shape, dtype=np.int64), np.empty(values.shape, dtype=bool)
            finite = loops.encode(np.ascontiguousarray(values), self.clip, self.step, levels, clipped)
            if finite:
                return Encoded(levels.astype(self.wire_type), clipped)
        if not np.isfinite(values).all():
            raise FloatingPointError("a policy emitted a value that is not finite")
        held = np.clip(values, -self.clip, self.clip)
        wire = np.rint((held + self.clip) / self.step).astype(self.wire_type)
        return Encoded(wire, np.abs(values) > self.clip)

    def decode(
        self, total: Integer[np.ndarray, "..."], weight: Integer[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """Weighted mean of the values behind an exact integer sum of wires; 0 where none was heard."""
        mean = total / np.maximum(weight, 1)
        return np.where(weight > 0, mean * self.step - self.clip, 0.0)

    def bits_per_message(self, codes: int) -> int:
        """Cost of a message in bits: K (b + address bits), address bits = ceil(log2 codes).

        Example:
            >>> Channel(channels=1, bits=16).bits_per_message(codes=7)
            19
        """
        return self.channels * (self.bits + (codes - 1).bit_length())


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
