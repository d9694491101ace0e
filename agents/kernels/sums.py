"""The loops that add up what tokens hear; `topology.mixing` says what."""

from typing import Any

from numpy.typing import NDArray

from agents.kernels.compiler import compiled

Array = NDArray[Any]


@compiled("v i1 s1 i1 i1 i3 i3 b3 b0 I3 I3 I3")
def aggregate(
    starts: Array, senders: Array, weights: Array, receivers: Array, codes: Array, wire: Array,
    spoken: Array, all_spoke: bool, total: Array, weight: Array, square: Array,
) -> None:  # fmt: skip
    """Sums [rows, C, B] of weight times wire, of weights and of their squares, for some rows of a graph.

    Args:
        starts, senders, weights: rows of the graph, compressed.
        receivers: rows that are wanted.
        codes, wire: messages of all tokens [N, K, B].
        spoken: which were sent; not read where all were.
        all_spoke: whether they were.
        total, weight, square: zeros, which the sums are written to.
    """
    channels, prompts = codes.shape[1], codes.shape[2]
    for row in range(len(receivers)):
        i = receivers[row]
        for edge in range(starts[i], starts[i + 1]):
            j, a = senders[edge], weights[edge]
            for channel in range(channels):
                for b in range(prompts):
                    if all_spoke or spoken[j, channel, b]:
                        c = codes[j, channel, b]
                        total[row, c, b] += a * wire[j, channel, b]
                        weight[row, c, b] += a
                        square[row, c, b] += a * a


@compiled("v f2 F1")
def add_rows(rows: Array, total: Array) -> None:
    """Add rows [N, B] to a total [B], in their order."""
    for row in range(rows.shape[0]):
        for b in range(rows.shape[1]):
            total[b] += rows[row, b]
