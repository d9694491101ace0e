"""The loops that read a belief over atoms, and choose what to ask; see `agents.policies`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.compiler import compiled

Array = NDArray[Any]


@compiled("v f3 f2 F3")
def mean(weights: Array, atoms: Array, result: Array) -> None:
    """Posterior mean [n, d, B], the atoms [M, lanes] added in their order."""
    tokens, many, prompts = weights.shape
    total = np.empty(atoms.shape[1])
    for i in range(tokens):
        for b in range(prompts):
            for m in range(many):
                weight = weights[i, m, b]
                if m == 0:
                    for k in range(len(total)):
                        total[k] = weight * atoms[0, k]
                else:
                    for k in range(len(total)):
                        total[k] += weight * atoms[m, k]
            for k in range(result.shape[1]):
                result[i, k, b] = total[k]


@compiled("v f3 f2 F3")
def variances(weights: Array, along: Array, result: Array) -> None:
    """Posterior variance [n, C, B] along the directions, `along` holding u.a [M, C]."""
    tokens, many, prompts = weights.shape
    codes = result.shape[1]
    centre, total = np.empty(along.shape[1]), np.empty(along.shape[1])
    for i in range(tokens):
        for b in range(prompts):
            weight = weights[i, 0, b]
            for c in range(len(centre)):
                centre[c] = weight * along[0, c]
            for m in range(1, many):
                weight = weights[i, m, b]
                for c in range(len(centre)):
                    centre[c] += weight * along[m, c]
            for c in range(len(centre)):
                total[c] = 0.0
            for m in range(many):
                weight = weights[i, m, b]
                for c in range(len(centre)):
                    offset = along[m, c] - centre[c]
                    total[c] += weight * (offset * offset)
            for c in range(codes):
                result[i, c, b] = total[c]


@compiled("v f3 i1 i2 f0 f0 F3")
def favour(weights: Array, node_of: Array, codes: Array, more: float, tie: float, variances: Array) -> None:
    """Add to the variances of the codes [nodes, m] of the likeliest node, ties to the lower index.

    Args:
        weights: probability of each atom [n, M, B].
        node_of: node of each atom [M].
        codes: of each node.
        more: what is added.
        tie: nodes whose probabilities differ by no more count as equal.
        variances: of each code, written to [n, C, B].
    """
    tokens, many, prompts = weights.shape
    mass = np.empty(len(codes))
    for i in range(tokens):
        for b in range(prompts):
            for node in range(len(mass)):
                mass[node] = 0.0
            for m in range(many):
                mass[node_of[m]] += weights[i, m, b]
            best = 0
            for node in range(1, len(mass)):
                if mass[node] > mass[best] + tie:
                    best = node
            for k in range(codes.shape[1]):
                variances[i, codes[best, k], b] += more


@compiled("v f3 f0 I3")
def widest(variances: Array, tie: float, chosen: Array) -> None:
    """Codes [n, K, B] of largest variance, ties to the lower index."""
    tokens, codes, prompts = variances.shape
    remaining = np.empty(codes)
    for i in range(tokens):
        for b in range(prompts):
            for c in range(codes):
                remaining[c] = variances[i, c, b]
            for k in range(chosen.shape[1]):
                best, peak = 0, remaining[0]
                for c in range(1, codes):
                    if remaining[c] > peak + tie:
                        best, peak = c, remaining[c]
                chosen[i, k, b] = best
                remaining[best] = -np.inf
