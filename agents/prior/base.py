"""Priors over the latent task vector: mixtures of Gaussians with a shared covariance.

The family is closed under linear measurements with Gaussian noise, so that the belief has one update
rule. One atom is a Gaussian prior; a zero covariance is a discrete prior; a tree is in between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.rng import Purpose, normals, uniforms


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
            # All is computed in double precision, whatever precision a prior was written in.
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
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

    def digest(self) -> str:
        """Hash of its numbers: the same for equal priors, and for no others."""
        parts = (self.atoms, self.weights, self.factor, self.axes, self.scales, self.branches)
        digest = blake2b(digest_size=8)
        for part in parts:
            digest.update(repr(part.shape).encode() + np.ascontiguousarray(part, dtype=float).tobytes())
        return digest.hexdigest()

    def power(self) -> float:
        """E|w|^2, the scale of every relative risk."""
        return float(self.weights @ (self.atoms**2).sum(axis=1) + (self.factor**2).sum())


class Latent(NamedTuple):
    """The true task of each prompt: atom [B] and vector [d, B]."""

    atom: Int[np.ndarray, " B"]
    vector: Float[np.ndarray, "d B"]


def draw_latent(prior: Prior, seed: int, prompts: range) -> Latent:
    """Draw the true w of each prompt.

    Example:
        >>> from agents.prior.tree import tree
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


class PriorOptions(NamedTuple):
    """What an experiment file says of its prior; each kind reads what it needs.

    Attributes:
        levels: depth D of a tree.
        branching: children r of each internal node.
        decay: ratio rho of the amplitudes of consecutive levels.
        dim: input dimension d.
        directions: `orthonormal` or `random`.
        jitter: share of E|w|^2 in a Gaussian around the leaves.
        seed: address of the random directions.
    """

    levels: int = 3
    branching: int = 2
    decay: float = 0.8
    dim: int = 7
    directions: Literal["orthonormal", "random"] = "orthonormal"
    jitter: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class PriorEntry:
    """One kind of prior: how it is made, and how large it will be.

    Attributes:
        build: from what the experiment file says.
        atoms: number M of mixture components, known before the prior is made.
        leaves: components of the tree that it is made from, which take time and memory too.
        rank: columns R of the factor of the shared covariance.
        least_dim: smallest input dimension d in which it exists.
        null: kind that has the same mean and covariance and no structure; None for a kind that is its own.
    """

    build: Callable[[PriorOptions], Prior]
    atoms: Callable[[PriorOptions], int] = lambda options: 1
    leaves: Callable[[PriorOptions], int] = lambda options: 1
    rank: Callable[[PriorOptions], int] = lambda options: options.dim
    least_dim: Callable[[PriorOptions], int] = lambda options: 1
    null: str | None = None
