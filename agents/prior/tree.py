"""Tree prior: w is a sum of offsets along a path from the root to a leaf."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from agents.prior.base import Prior, PriorEntry, PriorOptions
from agents.rng import Purpose, normals

Directions = Literal["orthonormal", "random"]


def amplitudes(levels: int, decay: float, jitter: float = 0.0) -> Float[np.ndarray, " D"]:
    """Amplitude of each level: a_h proportional to decay**(h - 1), sum a_h^2 = 1 - jitter.

    Example:
        >>> amplitudes(3, 0.8).round(4)
        array([0.6985, 0.5588, 0.447 ])
    """
    raw = decay ** np.arange(levels, dtype=float)
    return np.asarray(raw * np.sqrt((1.0 - jitter) / (raw**2).sum()))


def axes_needed(levels: int, branching: int) -> int:
    """Dimensions that mutually orthogonal node subspaces take: branching**levels - 1.

    Example:
        >>> axes_needed(3, 2), axes_needed(2, 3)
        (7, 8)
    """
    return int(branching**levels - 1)


def tree(
    levels: int,
    branching: int,
    decay: float,
    dim: int,
    directions: Directions = "orthonormal",
    jitter: float = 0.0,
    seed: int = 0,
) -> Prior:
    """Hierarchical prior: w = sum_h a_h g(node_h) + jitter, one atom for each leaf, E|w|^2 = 1.

    The offsets g of siblings sum to zero and have mean squared norm 1: +e and -e for two children,
    the vertices of a simplex for more (`orthonormal`), centred Gaussian vectors (`random`).

    Args:
        levels: depth D of the tree.
        branching: children r of each internal node, at least 2.
        decay: ratio rho of the amplitudes of consecutive levels.
        dim: input dimension d.
        directions: `orthonormal` (all node subspaces orthogonal, rotated at random) or `random`.
        jitter: share of E|w|^2 in an isotropic Gaussian around the leaves, 0 <= jitter < 1.
        seed: address of the random rotation or of the random directions.

    Raises:
        ValueError: if `orthonormal` directions need more than `dim` dimensions.

    Source: THEORY.md section 4.

    Example:
        >>> prior = tree(levels=3, branching=2, decay=0.8, dim=7)
        >>> prior.atoms.shape, round(prior.power(), 12)
        ((8, 7), 1.0)
    """
    inner = [(level, node) for level in range(levels) for node in range(branching**level)]
    offsets, axes = _node_offsets(len(inner), branching, dim, directions, levels, seed)
    heights = amplitudes(levels, decay, jitter)
    leaves = branching**levels
    atoms = np.zeros((leaves, dim))
    for index, (level, node) in enumerate(inner):
        width = branching ** (levels - level - 1)
        for child in range(branching):
            first = (node * branching + child) * width
            atoms[first : first + width] += heights[level] * offsets[index, child]
    branches = np.array(
        [[leaf // branching ** (levels - level - 1) for level in range(levels)] for leaf in range(leaves)]
    )
    return Prior(
        atoms=atoms,
        weights=np.full(leaves, 1.0 / leaves),
        factor=np.sqrt(jitter / dim) * np.eye(dim) if jitter > 0 else np.zeros((dim, 0)),
        axes=axes.reshape(-1, dim),
        scales=np.repeat([level + 1 for level, _ in inner], axes.shape[1]),
        branches=branches,
    )


def _node_offsets(
    nodes: int, branching: int, dim: int, directions: Directions, levels: int, seed: int
) -> tuple[Float[np.ndarray, "nodes r d"], Float[np.ndarray, "nodes q d"]]:
    """Offsets of each internal node's children, and the orthonormal axes that span them."""
    if directions == "orthonormal":
        span = branching - 1
        needed = axes_needed(levels, branching)
        if dim < needed:
            raise ValueError(
                f"orthonormal directions of a tree with {levels} levels and branching {branching} need "
                f"dim >= {needed}, got {dim}"
            )
        axes = _rotation(dim, seed)[: nodes * span].reshape(nodes, span, dim)
        return np.einsum("sr,nsd->nrd", _simplex(branching), axes), axes
    span = min(branching - 1, dim)
    raw = normals(seed, Purpose.PRIOR, range(nodes), branching * dim).T.reshape(nodes, branching, dim)
    centred = raw - raw.mean(axis=1, keepdims=True)
    offsets = centred / np.sqrt((centred**2).sum(axis=2).mean(axis=1))[:, None, None]
    axes = np.linalg.svd(offsets)[2][:, :span]
    peak = np.take_along_axis(axes, np.abs(axes).argmax(axis=2)[..., None], axis=2)
    return offsets, axes * np.sign(peak)


def _simplex(branching: int) -> Float[np.ndarray, "span r"]:
    """Vertices of a centred simplex with unit norm, as columns, in the Helmert basis."""
    rows = np.zeros((branching - 1, branching))
    for k in range(1, branching):
        rows[k - 1, :k] = 1.0
        rows[k - 1, k] = -k
        rows[k - 1] /= np.sqrt(k * (k + 1))
    return rows * np.sqrt(branching / (branching - 1))


def _rotation(dim: int, seed: int) -> Float[np.ndarray, "d d"]:
    """A rotation drawn from the Haar measure, its rows orthonormal."""
    gaussian_matrix = normals(seed, Purpose.PRIOR, range(dim), dim)
    q, r = np.linalg.qr(gaussian_matrix)
    return np.ascontiguousarray((q * np.sign(np.diag(r))).T)


def from_options(options: PriorOptions) -> Prior:
    """The tree that an experiment file describes."""
    return tree(
        options.levels, options.branching, options.decay, options.dim, options.directions, options.jitter,
        options.seed,
    )  # fmt: skip


def leaves(options: PriorOptions) -> int:
    """Number of leaves, r^D."""
    return int(options.branching**options.levels)


def least_dim(options: PriorOptions) -> int:
    """Smallest input dimension d that holds the tree's directions."""
    return axes_needed(options.levels, options.branching) if options.directions == "orthonormal" else 1


TREE = PriorEntry(
    from_options,
    atoms=leaves,
    leaves=leaves,
    rank=lambda options: options.dim if options.jitter else 0,
    least_dim=least_dim,
    null="matched_gaussian",
)
