"""On which node of a cluster an actor is started: by their cores, blocks that follow each other together."""

from collections.abc import Sequence


def homes(more: int, cores: Sequence[float], held: Sequence[int]) -> list[int]:
    """The node of each new actor, so that all nodes hold about as many for each of their cores.

    Blocks that follow each other are those between which edges run: they are put on one node, one after the
    other, until it has its share.

    Args:
        more: actors that are started.
        cores: of each node; those without any get actors only where no node has any.
        held: actors that each node has already.

    Returns:
        Index of a node for each new actor.

    Example:
        >>> homes(6, [2, 1], [0, 0])
        [0, 0, 0, 0, 1, 1]
        >>> homes(3, [1, 1, 1], [2, 0, 1])
        [1, 1, 2]
    """
    weights = list(cores) if sum(cores) else [1.0] * len(cores)
    counts, total = list(held), sum(weights)
    for _ in range(more):  # the node that is furthest behind its share
        wanted = (sum(counts) + 1) / total
        node = max(range(len(counts)), key=lambda index: (weights[index] * wanted - counts[index], -index))
        counts[node] += 1
    return [node for node, count in enumerate(counts) for _ in range(count - held[node])]
