"""Which token positions an actor holds."""

import numpy as np
from jaxtyping import Int


def blocks(tokens: int, per_block: int) -> list[Int[np.ndarray, " n"]]:
    """Consecutive positions, `per_block` in each block but the last.

    Example:
        >>> [block.tolist() for block in blocks(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [np.arange(first, min(first + per_block, tokens)) for first in range(0, tokens, per_block)]
