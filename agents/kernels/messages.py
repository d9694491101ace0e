"""The loops around the belief: what is said, put on the wire, heard, and reported; see `agents.step`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.compiler import compiled

Array = NDArray[Any]


@compiled("v i3 f3 f2 f3 b0 f2 F3")
def say(
    codes: Array, inputs: Array, labels: Array, vector: Array, control: bool, directions: Array, values: Array
) -> None:
    """(u.x)(y - v.x) + u.v for each code asked [n, K, B]; without control v is zero."""
    tokens, channels, prompts = codes.shape
    dim = inputs.shape[1]
    for i in range(tokens):
        for b in range(prompts):
            residual = labels[i, b]
            if control:
                seen = vector[i, 0, b] * inputs[i, 0, b]
                for k in range(1, dim):
                    seen += vector[i, k, b] * inputs[i, k, b]
                residual = residual - seen
            for channel in range(channels):
                c = codes[i, channel, b]
                along = directions[c, 0] * inputs[i, 0, b]
                for k in range(1, dim):
                    along += directions[c, k] * inputs[i, k, b]
                value = along * residual
                if control:
                    own = directions[c, 0] * vector[i, 0, b]
                    for k in range(1, dim):
                        own += directions[c, k] * vector[i, k, b]
                    value += own
                values[i, channel, b] = value


@compiled("b0 i3 i0")
def within(codes: Array, count: int) -> bool:
    """Whether all codes [n, K, B] are from 0 to below a count."""
    tokens, channels, prompts = codes.shape
    for i in range(tokens):
        for channel in range(channels):
            for b in range(prompts):
                if codes[i, channel, b] < 0 or codes[i, channel, b] >= count:
                    return False
    return True


@compiled("b0 f3 f0 f0 I3 B3")
def encode(values: Array, clip: float, step: float, wire: Array, clipped: Array) -> bool:
    """Indices of the levels [n, K, B], and what did not fit; false if a value is not finite."""
    tokens, channels, prompts = values.shape
    finite = True
    for i in range(tokens):
        for channel in range(channels):
            for b in range(prompts):
                value = values[i, channel, b]
                finite = finite and np.isfinite(value)
                held = min(max(value, -clip), clip)
                wire[i, channel, b] = np.int64(np.rint((held + clip) / step))
                clipped[i, channel, b] = abs(value) > clip
    return finite


@compiled("v i3 i3 i3 i3 f0 f0 F3 F3 F2")
def listen(
    codes: Array, total: Array, weight: Array, square: Array, step: float, clip: float, values: Array,
    effective: Array, around: Array,
) -> None:  # fmt: skip
    """Means and effective numbers of the codes asked [n, K, B], from sums [rows, C, B] of one row or n."""
    tokens, channels, prompts = codes.shape
    rows, count = total.shape[0], total.shape[1]
    for i in range(tokens):
        row = i if rows > 1 else 0
        for b in range(prompts):
            voices, squares = weight[row, 0, b], square[row, 0, b]
            for c in range(1, count):
                voices += weight[row, c, b]
                squares += square[row, c, b]
            around[i, b] = np.float64(voices) * np.float64(voices) / max(squares * channels, 1)
            for channel in range(channels):
                c = codes[i, channel, b]
                heard = weight[row, c, b]
                effective[i, channel, b] = np.float64(heard) * np.float64(heard) / max(square[row, c, b], 1)
                mean = total[row, c, b] / max(heard, 1)
                values[i, channel, b] = mean * step - clip if heard > 0 else 0.0


@compiled("v f3 f2 F2")
def squared_distance(estimate: Array, point: Array, result: Array) -> None:
    """|w - w_i|^2 of each token and prompt [n, B]."""
    tokens, dim, prompts = estimate.shape
    for i in range(tokens):
        for b in range(prompts):
            offset = estimate[i, 0, b] - point[0, b]
            total = offset * offset
            for k in range(1, dim):
                offset = estimate[i, k, b] - point[k, b]
                total += offset * offset
            result[i, b] = total
