"""Measures of function vectors: what workspaces know of the branches, and what queries ask about.

Every function takes arrays with prompts last and gives a tidy frame: layer, scale, value, se, control,
control_se. Errors are over prompts.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Integer

from agents.prior import Prior
from analysis.statistics import columns, mean_over_prompts

_CONSTANT = 1e-9  # a coordinate that varies less, relative to its size, is a constant
_SHUFFLES = 16  # probes of the control


@dataclass(frozen=True, eq=False)
class FunctionVectors:
    """What was measured, in tidy frames.

    Attributes:
        probes: of `probe_accuracy`.
        alignment: of `alignment`, with a column path: true, or believed before the layer.
        spread: of `query_spread`.
        patching: of `followed`, with a column tokens: all, or the one that answers.
        steering: of `steering_curve`, with a column layer.
    """

    probes: pd.DataFrame
    alignment: pd.DataFrame
    spread: pd.DataFrame
    patching: pd.DataFrame
    steering: pd.DataFrame


def relative_branches(branches: Int[np.ndarray, "M D"]) -> Int[np.ndarray, "M D"]:
    """The branch that each atom takes at each level, counted among the siblings: 0, ..., r - 1.

    Args:
        branches: node that each atom passes at each level, as `Prior.branches` has them.

    Example:
        >>> from agents.prior import tree
        >>> relative_branches(tree(2, 2, 0.8, 3).branches).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    relative = branches.copy()
    for level in range(1, branches.shape[1]):
        for parent in np.unique(branches[:, level - 1]):
            below = branches[:, level - 1] == parent
            relative[below, level] -= branches[below, level].min()
    return relative


def nearest_atoms(estimates: Float[np.ndarray, "*rows d B"], prior: Prior) -> Int[np.ndarray, "*rows B"]:
    """The atom nearest to each estimate: what a token believes, as far as its estimate says it.

    Example:
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> nearest_atoms(1.1 * prior.atoms.T, prior).tolist()
        [0, 1, 2, 3]
    """
    distances = [((estimates - atom[:, None]) ** 2).sum(axis=-2) for atom in prior.atoms]
    return np.asarray(np.argmin(distances, axis=0))


def probe_accuracy(
    workspaces: Float[np.ndarray, "depths W B"],
    labels: Int[np.ndarray, "B D"],
    fitted: int,
    ridge: float = 1e-3,
) -> pd.DataFrame:
    """How often a linear probe reads each scale's branch from the workspace after each layer.

    Least squares from the standardised workspace to indicators of the branches, with a penalty
    ridge x prompts on squared weights, fitted on the first `fitted` prompts; the branch whose indicator
    comes out largest is compared with the true one on all others. The control is the mean of 16 such probes,
    each fitted to the branches of the prompts some places before: it can know how frequent they are, and
    nothing else; its error is over these probes.

    Args:
        workspaces: p of one token after layers 0..L.
        labels: branch at each level: `relative_branches(prior.branches)[atom]`, or the node itself.
        fitted: prompts that the probe is fitted on.
        ridge: penalty, as a share of a coordinate's own sum of squares.

    Returns:
        Columns layer, scale, value, se, control, control_se, chance: accuracies, and that of always saying
        the branch that is commonest among the fitted prompts.

    Raises:
        ValueError: if fewer than two prompts are left to score or to fit.

    Source: G. Alain and Y. Bengio, Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644; J. Hewitt and P. Liang, arXiv:1909.03368 (control tasks).

    Example:
        >>> signs = np.random.default_rng(0).integers(0, 2, size=(200, 1))
        >>> blind, seeing = np.zeros((1, 200)), signs.T.astype(float)
        >>> probe_accuracy(np.stack([blind, seeing]), signs, fitted=100)["value"].tolist()[1]
        1.0
    """
    if not 2 <= fitted <= len(labels) - 2:
        raise ValueError(f"fitted must leave prompts to score: from 2 to {len(labels) - 2}, got {fitted}")
    rows = []
    for layer, points in enumerate(workspaces):
        for level in range(labels.shape[1]):
            own = labels[:, level]
            told = own[:fitted]
            shuffles = [np.roll(told, places) for places in range(1, _SHUFFLES + 1)]
            right = _probe(points, np.stack([told, *shuffles]), ridge)[:, fitted:] == own[fitted:]
            value = mean_over_prompts(right[0].astype(float))
            control = mean_over_prompts(right[1:].mean(axis=1))
            commonest = np.bincount(told).argmax()
            row = {"layer": layer, "scale": level + 1, **columns(value=value, control=control)}
            rows.append({**row, "chance": float((own[fitted:] == commonest).mean())})
    return pd.DataFrame(rows)


def alignment(
    queries: Float[np.ndarray, "layers K d B"], paths: Integer[np.ndarray, "layers B"], prior: Prior
) -> pd.DataFrame:
    """How far queries point along the node that a path comes to at each scale.

        value = E |P u|^2,   P the projector on the node's directions, u of norm 1

    For two children the node has one direction, and this is the squared cosine. The control takes the
    query of the next prompt: what is left of the alignment when a query cannot know the path. Queries that
    do not adapt have value = control; those of an adaptive system on a binary tree have 1 and 2^(1-h).

    Args:
        queries: u of one token in layers 1..L, norm 1; heads are averaged.
        paths: atom whose path is meant, before each layer: the true one, or `nearest_atoms` of estimates.
        prior: a tree.

    Returns:
        Columns layer, scale, value, se, control, control_se, gain, gain_se: gain = value - control, with
        the error of pairs.

    Source: THEORY.md sections 6 and 8.

    Example:
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 0.8, 2)
        >>> along = np.broadcast_to(prior.axes[0][None, None, :, None], (1, 1, 2, 4))
        >>> rows = alignment(along, np.zeros((1, 4), dtype=int), prior)
        >>> rows[["value", "control"]].round(9).values.tolist()
        [[1.0, 1.0]]
    """
    rows = []
    for layer, (asked, path) in enumerate(zip(queries, paths, strict=True)):
        for level, axes in enumerate(node_axes(prior)):
            nodes = prior.branches[path, level - 1] if level else np.zeros(len(path), dtype=int)
            along = axes[nodes]  # [B, span, d]
            own, other = (
                (np.einsum("bsd,kdb->ksb", along, u) ** 2).sum(axis=1).mean(axis=0)
                for u in (asked, np.roll(asked, -1, axis=-1))
            )
            value, control, gain = (mean_over_prompts(part) for part in (own, other, own - other))
            means = columns(value=value, control=control, gain=gain)
            rows.append({"layer": layer + 1, "scale": level + 1, **means})
    return pd.DataFrame(rows)


def level_shares(queries: Float[np.ndarray, "layers K d B"], prior: Prior) -> pd.DataFrame:
    """How much of a query lies in the directions of each level of a tree, whatever the node.

        value = E |P_h u|^2,   P_h the projector on all directions of level h, u of norm 1

    Args:
        queries: u of one token in layers 1..L, norm 1; heads are averaged.
        prior: a tree.

    Returns:
        Columns layer, scale, value, se. For orthonormal directions the values of a layer sum to what the
        query has in the span of the tree.

    Example:
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> asked = np.broadcast_to(prior.axes[2][None, None, :, None], (1, 1, 3, 4))
        >>> level_shares(asked, prior)["value"].round(9).tolist()
        [0.0, 1.0]
    """
    rows = []
    for layer, asked in enumerate(queries):
        for scale in np.unique(prior.scales):
            spanned = np.linalg.qr(prior.axes[prior.scales == scale].T)[0]
            share = (np.einsum("ds,kdb->ksb", spanned, asked) ** 2).sum(axis=1).mean(axis=0)
            row = {"layer": layer + 1, "scale": int(scale)}
            rows.append({**row, **columns(value=mean_over_prompts(share))})
    return pd.DataFrame(rows)


def node_axes(prior: Prior) -> list[Float[np.ndarray, "nodes span d"]]:
    """The directions of each internal node, level by level.

    Raises:
        ValueError: if the prior is no tree.

    Example:
        >>> from agents.prior import tree
        >>> [axes.shape for axes in node_axes(tree(3, 2, 0.8, 7))]
        [(1, 1, 7), (2, 1, 7), (4, 1, 7)]
    """
    levels = prior.branches.shape[1]
    if not levels:
        raise ValueError("the prior has no branches: function vectors are measured along those of a tree")
    counts = [1] + [int(prior.branches[:, level].max()) + 1 for level in range(levels - 1)]
    return [
        prior.axes[prior.scales == level + 1].reshape(count, -1, prior.dim)
        for level, count in enumerate(counts)
    ]


def query_spread(queries: Float[np.ndarray, "layers K d B"]) -> pd.DataFrame:
    """How much queries differ between prompts, whatever their sign.

        value = 1 - largest eigenvalue of E[u u'],   mean over heads

    It is 0 if all prompts ask along one line, 1 - 1/d if queries are isotropic, and 1 - 2^(1-h) if each of
    the 2^(h-1) orthogonal nodes of a scale is asked by its share of the prompts. A sample of B prompts
    finds the eigenvalue too large by the order of d / B.

    Args:
        queries: u of one token in layers 1..L, norm 1.

    Returns:
        Columns layer, value, se.

    Example:
        >>> asked = np.stack([np.eye(2), -np.eye(2)[:1].repeat(2, axis=0).T])[:, None]
        >>> query_spread(asked)["value"].tolist()
        [0.5, 0.0]
    """
    rows = []
    for layer, asked in enumerate(queries):
        along = []
        for u in asked:
            leading = np.linalg.eigh(u @ u.T / u.shape[1])[1][:, -1]
            along.append((leading @ u) ** 2)
        spread = mean_over_prompts(1.0 - np.mean(along, axis=0))
        rows.append({"layer": layer + 1, **columns(value=spread)})
    return pd.DataFrame(rows)


def _probe(
    points: Float[np.ndarray, "W B"], told: Integer[np.ndarray, "targets F"], ridge: float
) -> Integer[np.ndarray, "targets B"]:
    """The branch that a ridge regression on the first F prompts reads at every prompt, for each target."""
    fitted = told.shape[1]
    known = points[:, :fitted]
    centre, spread = known.mean(axis=1, keepdims=True), known.std(axis=1, keepdims=True)
    steady = spread <= _CONSTANT * np.maximum(np.abs(centre), 1.0)
    scaled = np.where(steady, 0.0, (points - centre) / np.where(steady, 1.0, spread))
    known = scaled[:, :fitted]
    classes = np.eye(int(told.max()) + 1)[told]  # [targets, F, r]
    shares = classes.mean(axis=1, keepdims=True)
    gram = known @ known.T + ridge * fitted * np.eye(len(known))
    weights = np.linalg.solve(gram, known @ (classes - shares))  # [targets, W, r]
    return np.asarray(np.argmax(scaled.T @ weights + shares, axis=2))
