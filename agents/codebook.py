"""The directions that messages can be about."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from agents.prior import Prior


@dataclass(frozen=True, eq=False)
class Codebook:
    """Finite list of unit directions, coarse to fine; a message names one of them by its index.

    Attributes:
        directions: unit vectors [C, d].
        scales: level that each direction resolves, 1 = coarsest [C].
    """

    directions: Float[np.ndarray, "C d"]
    scales: Int[np.ndarray, " C"]

    def __len__(self) -> int:
        return len(self.directions)

    def gram(self) -> Float[np.ndarray, "C C"]:
        """Scalar products of the directions."""
        return self.directions @ self.directions.T


def principal(prior: Prior) -> Codebook:
    """One code for each axis of the prior: the principal directions of each internal node of a tree,
    the eigenvectors of a Gaussian.

    Source: THEORY.md section 5, addressed channels.

    Example:
        >>> from agents.prior import tree
        >>> principal(tree(3, 2, 0.8, 7)).scales.tolist()
        [1, 2, 2, 3, 3, 3, 3]
    """
    return Codebook(prior.axes, prior.scales)


def pooled(prior: Prior) -> Codebook:
    """One code for each level: the sum of all axes of the level, with norm 1.

    Source: THEORY.md section 6, policy `static`.

    Example:
        >>> from agents.prior import tree
        >>> pooled(tree(3, 2, 0.8, 7)).directions.shape
        (3, 7)
    """
    levels = np.unique(prior.scales)
    sums = np.stack([prior.axes[prior.scales == level].sum(axis=0) for level in levels])
    return Codebook(sums / np.linalg.norm(sums, axis=1, keepdims=True), levels)
