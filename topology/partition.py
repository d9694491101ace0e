"""Which token positions an actor holds."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

_SPARSE = 64  # tokens that a token hears, mean, up to which the order of positions is looked for


def blocks(tokens: int, per_block: int) -> list[Int[np.ndarray, " _"]]:
    """Consecutive positions, `per_block` in each block but the last.

    Example:
        >>> [block.tolist() for block in blocks(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [np.arange(first, min(first + per_block, tokens)) for first in range(0, tokens, per_block)]


def few_cuts(weights: csr_array, per_block: int) -> list[Int[np.ndarray, " _"]]:
    """Blocks of positions between which few edges run: consecutive ones in the order that cuts fewer.

    Tried are the order of positions and that of Cuthill and McKee, which brings neighbours close together. Of
    dense graphs, and of one row that all hear, every partition cuts about as many.

    Args:
        weights: with which each token hears each other [N, N], or one row for all [1, N].
        per_block: positions in each block but the last.

    Source: E. Cuthill and J. McKee (1969), doi:10.1145/800195.805928.

    Example:
        >>> import networkx as nx
        >>> from topology.mixing import uniform
        >>> path = nx.relabel_nodes(nx.path_graph(6), dict(enumerate([0, 3, 1, 4, 2, 5])))
        >>> mixing = uniform(nx.DiGraph(path))
        >>> [block.tolist() for block in few_cuts(mixing.weights, 3)]
        [[2, 4, 5], [0, 1, 3]]
    """
    tokens = int(weights.shape[1])
    plain = blocks(tokens, per_block)
    if weights.shape[0] == 1 or len(plain) == 1 or weights.nnz > _SPARSE * tokens:
        return plain
    order = reverse_cuthill_mckee(csr_array(weights), symmetric_mode=False)
    other = [np.sort(order[block]).astype(np.int64) for block in plain]
    return min((plain, other), key=lambda parts: _cut(weights, parts))


def _cut(weights: csr_array, parts: list[Int[np.ndarray, " _"]]) -> int:
    """Edges between different parts."""
    part_of = np.empty(weights.shape[1], dtype=np.int64)
    for index, part in enumerate(parts):
        part_of[part] = index
    edges = weights.tocoo()
    return int((part_of[edges.row] != part_of[edges.col]).sum())
