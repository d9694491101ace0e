"""Gaussian priors: the isotropic one, and the null that has the mean and covariance of any other prior."""

import numpy as np

from agents.prior.base import Prior, PriorEntry
from agents.prior.tree import TREE


def gaussian(dim: int) -> Prior:
    """Isotropic Gaussian prior w ~ N(0, I/d), with the coordinate axes as directions.

    Example:
        >>> gaussian(4).power()
        1.0
    """
    return Prior(
        atoms=np.zeros((1, dim)),
        weights=np.ones(1),
        factor=np.eye(dim) / np.sqrt(dim),
        axes=np.eye(dim),
        scales=np.ones(dim, dtype=int),
        branches=np.zeros((1, 0), dtype=int),
    )


def matched_gaussian(prior: Prior) -> Prior:
    """The null of `prior`: one Gaussian atom of the same mean and covariance.

    Its axes are those of `prior` where they are eigenvectors of the covariance: the eigenvalues of a
    level coincide, and a basis of an eigenspace must not be left to an eigensolver. Elsewhere they are
    the leading eigenvectors, the largest component of each made positive.

    Source: THEORY.md section 4.

    Example:
        >>> from agents.prior import tree
        >>> null = matched_gaussian(tree(2, 2, 0.5, 3))
        >>> bool(np.allclose(null.covariance(), tree(2, 2, 0.5, 3).covariance()))
        True
    """
    covariance = prior.covariance()
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rank = int((values > 1e-12 * values[0]).sum())
    image = prior.axes @ covariance
    rayleigh = (image * prior.axes).sum(axis=1)
    if np.abs(image - rayleigh[:, None] * prior.axes).max() < 1e-10:
        axes = prior.axes
    else:
        leading = vectors[:, : min(rank, len(prior.axes))].T
        peak = leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)]
        axes = leading * np.sign(peak)[:, None]
    return Prior(
        atoms=prior.mean()[None],
        weights=np.ones(1),
        factor=vectors[:, :rank] * np.sqrt(values[:rank]),
        axes=axes,
        scales=prior.scales[: len(axes)],
        branches=np.zeros((1, 0), dtype=int),
    )


GAUSSIAN = PriorEntry(lambda options: gaussian(options.dim))
MATCHED_GAUSSIAN = PriorEntry(
    lambda options: matched_gaussian(TREE.build(options)),
    leaves=TREE.leaves,
    least_dim=TREE.least_dim,
)
