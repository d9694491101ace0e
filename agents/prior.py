"""Priors over the latent task vector: mixtures of Gaussians with a shared covariance.

The family is closed under linear measurements with Gaussian noise, so that the belief has one update
rule. One atom is a Gaussian prior; a zero covariance is a discrete prior; a tree is in between.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.draws import Purpose, normals, uniforms

Directions = Literal["orthonormal", "random"]


@dataclass(frozen=True, eq=False)
class Prior:
    """Mixture of Gaussians: w = atoms[m] + factor z, with P(m) = weights[m] and z ~ N(0, I_R).

    Attributes:
        atoms: component means [M, d].
        weights: component probabilities [M].
        factor: square root of the shared covariance, S = factor factor' [d, R]; R = 0 is discrete.
        axes: unit directions that matter, coarse to fine [C, d].
        scales: level of each axis, 1 = coarsest [C].
        branches: node that each atom passes at each level [M, D]; D = 0 without a tree.

    Raises:
        ValueError: if a number is not finite, or the weights are no probabilities.

    Source: THEORY.md section 4.
    """

    atoms: Float[np.ndarray, "M d"]
    weights: Float[np.ndarray, " M"]
    factor: Float[np.ndarray, "d R"]
    axes: Float[np.ndarray, "C d"]
    scales: Int[np.ndarray, " C"]
    branches: Int[np.ndarray, "M D"]

    def __post_init__(self) -> None:
        for name in ("atoms", "weights", "factor", "axes"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} of a prior must be finite numbers, some are not")
        if (self.weights < 0).any() or abs(self.weights.sum() - 1) > 1e-9:
            raise ValueError(
                f"weights of a prior must be probabilities, theirs sum to {self.weights.sum():g}"
            )

    @property
    def dim(self) -> int:
        """Input dimension d."""
        return self.atoms.shape[1]

    def mean(self) -> Float[np.ndarray, " d"]:
        """E[w]."""
        return self.weights @ self.atoms

    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Cov[w] = sum_m weights[m] (atoms[m] - E w)(atoms[m] - E w)' + S."""
        centred = self.atoms - self.mean()
        return (centred.T * self.weights) @ centred + self.factor @ self.factor.T

    def power(self) -> float:
        """E|w|^2, the scale of every relative risk."""
        return float(self.weights @ (self.atoms**2).sum(axis=1) + (self.factor**2).sum())


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


class Latent(NamedTuple):
    """The true task of each prompt: atom [B] and vector [d, B]."""

    atom: Int[np.ndarray, " B"]
    vector: Float[np.ndarray, "d B"]


def draw_latent(prior: Prior, seed: int, prompts: range) -> Latent:
    """Draw the true w of each prompt.

    Example:
        >>> latent = draw_latent(tree(2, 2, 0.8, 3), seed=0, prompts=range(5))
        >>> latent.vector.shape
        (3, 5)
    """
    cumulative = np.cumsum(prior.weights)
    draw = uniforms(seed, Purpose.LATENT, prompts, 1)[0]
    atom = np.minimum(np.searchsorted(cumulative, draw, side="right"), len(cumulative) - 1)
    vector = prior.atoms.T[:, atom]
    rank = prior.factor.shape[1]
    if rank:
        jitter = normals(seed, Purpose.LATENT, prompts, rank, round=1)
        for column in range(rank):
            vector = vector + prior.factor[:, column, None] * jitter[column]
    return Latent(atom, np.ascontiguousarray(vector))


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
