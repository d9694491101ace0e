"""The loop that draws uniform numbers from their addresses; `agents.rng` says which."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.compiler import AVAILABLE, compiled

Array = NDArray[Any]
# J. K. Salmon et al. (2011), doi:10.1145/2063384.2063405: multipliers, and what a key grows by in a round.
_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ONE, _SHIFT = np.uint64(1), np.uint64(11)

if AVAILABLE:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def _upper(typing: Any, left: Any, right: Any) -> Any:
        """The upper 64 bits of a product of two 64-bit integers."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            wide = ir.IntType(128)
            product = builder.mul(*(builder.zext(part, wide) for part in arguments))
            return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

        return types.uint64(types.uint64, types.uint64), generate

    _high: Any = _upper


@compiled("v u0 u0 u0 u0 u1 F3 F3")
def pairs(
    seed: Any, purpose: Any, start: Any, round: Any, positions: Array, first: Array, second: Array
) -> None:
    """Pairs of uniform numbers [n, pairs, B] in (0, 1): Philox-4x64 of ten rounds, two pairs a counter."""
    count, prompts = first.shape[1], first.shape[2]
    blocks = (count + 1) // 2
    for i in range(len(positions)):
        for b in range(prompts):
            # numpy counts up before it draws.
            counter = (start + np.uint64(b)) * np.uint64(blocks) + _ONE
            for block in range(blocks):
                c0, c1, c2, c3 = counter + np.uint64(block), positions[i], round, np.uint64(0)
                k0, k1 = seed, purpose
                for _ in range(10):
                    high0, low0 = _high(_M0, c0), _M0 * c0
                    high1, low1 = _high(_M1, c2), _M1 * c2
                    c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
                    k0, k1 = k0 + _W0, k1 + _W1
                first[i, 2 * block, b] = (np.float64(c0 >> _SHIFT) + 0.5) * 2.0**-53
                second[i, 2 * block, b] = (np.float64(c1 >> _SHIFT) + 0.5) * 2.0**-53
                if 2 * block + 1 < count:
                    first[i, 2 * block + 1, b] = (np.float64(c2 >> _SHIFT) + 0.5) * 2.0**-53
                    second[i, 2 * block + 1, b] = (np.float64(c3 >> _SHIFT) + 0.5) * 2.0**-53
