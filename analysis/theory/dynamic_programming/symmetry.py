"""Symmetries of a tree prior with a codebook: which questions are worth the same."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.codebook import Codebook
from agents.prior import Prior

_EQUAL = 1e-9


class Symmetry(NamedTuple):
    """An isometry that maps the prior to itself and every code to a code or to its opposite.

    Attributes:
        codes: image of each code [C].
        signs: +1, or -1 where the image is the opposite of a code [C].
    """

    codes: Int[np.ndarray, " C"]
    signs: Int[np.ndarray, " C"]

    def keeps(self, code: int) -> bool:
        """Whether what was heard about a code stays as it is."""
        return bool(self.codes[code] == code and self.signs[code] == 1)


def exchanges(prior: Prior, codebook: Codebook) -> list[Symmetry]:
    """Symmetries of prior and codebook: exchanges of sibling subtrees, or of equal codes of a Gaussian.

    Each candidate is checked, so the list may lack symmetries but holds none that is false: an isometry
    exists if the scalar products of atoms and codes with each other are kept. Empty for several atoms
    without a tree, or with a Gaussian part that is not isotropic. For two children a node, those that
    keep a code generate all that do. For a single atom they are the reflections along u_i - u_j where
    both codes are eigenvectors of the same eigenvalue.

    Args:
        prior: a tree, or a single Gaussian.
        codebook: codes that may be asked.

    Source: THEORY.md section 4; automorphisms of a rooted tree.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> [found.codes.tolist() for found in exchanges(prior, principal(prior))]
        [[0, 2, 1], [0, 1, 2], [0, 1, 2]]
        >>> [found.signs.tolist() for found in exchanges(prior, principal(prior))]
        [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
    """
    if len(prior.weights) == 1:
        return _reflections(prior, codebook)
    spread = prior.factor @ prior.factor.T
    if np.abs(spread - spread[0, 0] * np.eye(prior.dim)).max() > _EQUAL:
        return []
    leaves, depth = prior.branches.shape
    found = []
    for level in range(depth):
        parents = prior.branches[:, level - 1] if level else np.zeros(leaves, dtype=int)
        for parent in np.unique(parents):
            children = np.unique(prior.branches[parents == parent, level])
            for one, other in combinations(children, 2):
                left, right = (np.flatnonzero(prior.branches[:, level] == child) for child in (one, other))
                if len(left) != len(right):
                    continue
                atoms = np.arange(leaves)
                atoms[left], atoms[right] = right, left
                symmetry = _on_codes(prior, codebook, atoms)
                if symmetry is not None:
                    found.append(symmetry)
    return found


def _reflections(prior: Prior, codebook: Codebook) -> list[Symmetry]:
    """Exchanges of two codes by a reflection that keeps the Gaussian and every other code."""
    found, size = [], len(codebook)
    for one, other in combinations(range(size), 2):
        along = codebook.directions[one] - codebook.directions[other]
        image = prior.factor @ (prior.factor.T @ along)
        rest = np.delete(codebook.directions, [one, other], axis=0)
        kept = np.vstack([rest, prior.atoms]) @ along
        square = along @ along
        if square < _EQUAL or np.abs(image - along * (along @ image) / square).max() > _EQUAL:
            continue
        if not (np.abs(kept) > _EQUAL).any():
            codes = np.arange(size)
            codes[[one, other]] = other, one
            found.append(Symmetry(codes, np.ones(size, dtype=np.int64)))
    return found


def _on_codes(prior: Prior, codebook: Codebook, atoms: Int[np.ndarray, " M"]) -> Symmetry | None:
    """What a permutation of the atoms does to the codes, None if it is no symmetry."""

    def differ(left: Float[np.ndarray, "..."], right: Float[np.ndarray, "..."]) -> bool:
        return bool(np.abs(left - right).max() > _EQUAL)

    inner = prior.atoms @ prior.atoms.T
    if differ(prior.weights[atoms], prior.weights) or differ(inner[np.ix_(atoms, atoms)], inner):
        return None
    signals = codebook.directions @ prior.atoms.T
    codes = np.full(len(codebook), -1)
    signs = np.ones(len(codebook), dtype=np.int64)
    for code, image in enumerate(signals[:, np.argsort(atoms)]):
        for sign in (1, -1):
            equal = np.abs(signals - sign * image).max(axis=1) < _EQUAL
            free = np.flatnonzero(equal & ~np.isin(np.arange(len(codebook)), codes))
            if codes[code] < 0 and len(free):
                codes[code], signs[code] = free[0], sign
    if (codes < 0).any():
        return None
    gram = codebook.gram()
    if differ(gram[np.ix_(codes, codes)] * np.outer(signs, signs), gram):
        return None
    return Symmetry(codes, signs)


def orbits(size: int, maps: list[Int[np.ndarray, " A"]]) -> list[dict[int, Int[np.ndarray, " A"]]]:
    """Orbits of the group generated by `maps`, each as {member: an element that maps it to the first}.

    Args:
        size: number A of things that are permuted.
        maps: permutations of them.

    Example:
        >>> [sorted(orbit) for orbit in orbits(4, [np.array([1, 0, 2, 3])])]
        [[0, 1], [2], [3]]
    """
    found: list[dict[int, Int[np.ndarray, " A"]]] = []
    seen: set[int] = set()
    for first in range(size):
        if first in seen:
            continue
        orbit, fresh = {first: np.arange(size)}, [first]
        while fresh:
            member = fresh.pop()
            for permutation in maps:
                image = int(permutation[member])
                if image not in orbit:
                    orbit[image] = orbit[member][np.argsort(permutation)]
                    fresh.append(image)
        found.append(orbit)
        seen |= set(orbit)
    return found
