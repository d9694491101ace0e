"""Reductions over short axes in one fixed order.

BLAS, einsum and numpy's pairwise sums may round differently for different block shapes. Here every
sum over dimensions, atoms or codes adds whole prompt vectors one index after the other, so a token's
numbers do not depend on how many tokens or prompts are computed beside it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer


def dot(
    left: Sequence[Float[np.ndarray, "..."] | float], right: Sequence[Float[np.ndarray, "..."] | float]
) -> Float[np.ndarray, "..."]:
    """Sum of left[k] * right[k], added in the order k = 0, 1, ...

    Example:
        >>> dot([np.array([1.0, 2.0]), np.array([3.0, 4.0])], [np.ones(2), np.ones(2)])
        array([4., 6.])
    """
    total = np.asarray(left[0] * right[0])
    for a, b in zip(left[1:], right[1:], strict=True):
        total = total + a * b
    return total


def fold(terms: Float[np.ndarray, "n m B"]) -> Float[np.ndarray, "n B"]:
    """Sum over the middle axis, added in index order."""
    total = terms[:, 0].copy()
    for index in range(1, terms.shape[1]):
        total += terms[:, index]
    return total


def components(
    table: Float[np.ndarray, "C d"], codes: Integer[np.ndarray, "..."]
) -> list[Float[np.ndarray, "..."]]:
    """The rows `table[codes]`, one array of the shape of `codes` for each of the d columns.

    Example:
        >>> components(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 0, 1]))
        [array([3., 1., 3.]), array([4., 2., 4.])]
    """
    return [np.ascontiguousarray(column)[codes] for column in table.T]


def affine(
    weight: Float[np.ndarray, "out m"], bias: Float[np.ndarray, " out"], x: Float[np.ndarray, "n m B"]
) -> Float[np.ndarray, "n out B"]:
    """weight x + bias over the middle axis, the products added in index order.

    Example:
        >>> affine(np.array([[1.0, 2.0]]), np.array([0.5]), np.ones((1, 2, 3)))
        array([[[3.5, 3.5, 3.5]]])
    """
    total = np.broadcast_to(bias[None, :, None], (x.shape[0], len(bias), x.shape[2])).copy()
    for column in range(weight.shape[1]):
        total += weight[:, column][None, :, None] * x[:, column][:, None]
    return total
