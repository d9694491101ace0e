"""Measures of interventions: whose branch an answer follows, and how far it was moved."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from agents.prior import Prior
from analysis.measures.probes import nearest_atoms, relative_branches
from analysis.statistics import Estimate, columns, mean_over_prompts


def followed(
    patched: Float[np.ndarray, "layers d B"],
    unpatched: Float[np.ndarray, "d B"],
    atoms: Int[np.ndarray, " B"],
    donors: Int[np.ndarray, " B"],
    prior: Prior,
    relative: bool = True,
) -> pd.DataFrame:
    """How often the answer takes the donor's branch, by the layer that was patched and by scale.

    The answer's branch is that of the atom nearest to the last estimate. Two choices of prompts: those that
    `differ` from their donor at the scale, whatever they do elsewhere; and those that `part` there, which
    have all coarser branches in common. The control is the answer that was not patched.

    Args:
        patched: last estimate of w of one token, one for each layer that was patched, 0..L.
        unpatched: last estimate without a patch.
        atoms: true atom of each prompt.
        donors: index of each prompt's donor.
        prior: a tree.
        relative: count branches among siblings, so that chance is 1/r at every scale; otherwise as nodes,
            which differ below a coarser difference in any case.

    Returns:
        Columns layer, scale, pairs (differ or part), prompts, value, se, control, control_se; NaN where
        there is no such pair.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213; K. Meng et al.,
        arXiv:2202.05262 (causal tracing).

    Example:
        >>> from agents.prior import tree
        >>> prior, atoms, donors = tree(1, 2, 0.8, 1), np.array([0, 1]), np.array([1, 0])
        >>> own = prior.atoms.T[:, atoms]
        >>> rows = followed(own[None, :, donors], own, atoms, donors, prior)
        >>> rows[["value", "control"]].values.tolist()[0]
        [1.0, 0.0]
    """
    labels = relative_branches(prior.branches) if relative else prior.branches
    theirs, ours = labels[atoms[donors]], labels[atoms]
    nodes = prior.branches
    untouched = labels[nearest_atoms(unpatched, prior)] == theirs
    rows = []
    for layer, estimates in enumerate(patched):
        follows = labels[nearest_atoms(estimates, prior)] == theirs
        for level in range(labels.shape[1]):
            differ = theirs[:, level] != ours[:, level]
            shared = nodes[atoms[donors], level - 1] == nodes[atoms, level - 1] if level else True
            for pairs, chosen in (("differ", differ), ("part", differ & shared)):
                value, control = (_share(part[:, level], chosen) for part in (follows, untouched))
                row = {"layer": layer, "scale": level + 1, "pairs": pairs, "prompts": int(chosen.sum())}
                rows.append({**row, **columns(value=value, control=control)})
    return pd.DataFrame(rows)


class Turn(NamedTuple):
    """A change of branch at one scale.

    Attributes:
        scale: level of the tree, 1 = coarsest.
        source: branch, among siblings, of the prompts that are steered.
        target: branch that they are steered to.
    """

    scale: int
    source: int = 0
    target: int = 1


def strongest_path(influence: pd.DataFrame, sender: int, reader: int) -> pd.DataFrame:
    """The path by which most of what one token knows came to another: that whose weakest message moved most.

    From round to round it stays where it is, in a workspace, or goes over one edge.

    Args:
        influence: round, sender, receiver, moved: how far the reader was moved by silencing that message, as
            `runner.studies.intervene.edge_influence` gives it for this reader.
        sender: where the path begins.
        reader: where it ends.

    Returns:
        round, sender, receiver, moved of the messages of the path, in order; no rows if there is no path.

    Source: M. Pollack (1960), The maximum capacity through a network, doi:10.1287/opre.8.5.733.

    Example:
        >>> rows = [(1, 0, 1, 0.5), (1, 0, 2, 0.1), (2, 1, 2, 0.3)]
        >>> found = pd.DataFrame(rows, columns=["round", "sender", "receiver", "moved"])
        >>> strongest_path(found, 0, 2)[["sender", "receiver"]].values.tolist()
        [[0, 1], [1, 2]]
    """
    best: dict[int, tuple[float, list[tuple[int, int, int, float]]]] = {sender: (np.inf, [])}
    apart = influence[influence["sender"] != influence["receiver"]]
    for index, part in apart.groupby("round", sort=True):
        before = dict(best)
        for one, other, moved in part[["sender", "receiver", "moved"]].itertuples(index=False):
            if one not in before:
                continue
            width, path = before[one]
            if min(width, moved) > best.get(other, (0.0, []))[0]:
                best[other] = (
                    min(width, moved),
                    [*path, (int(str(index)), int(one), int(other), float(moved))],
                )
    columns = ["round", "sender", "receiver", "moved"]
    return pd.DataFrame(best.get(reader, (0.0, []))[1], columns=columns)


def branch_directions(
    workspaces: Float[np.ndarray, "W B"], atoms: Int[np.ndarray, " B"], prior: Prior, turn: Turn
) -> Float[np.ndarray, "M W"]:
    """Mean workspace of the target branch less that of the source branch, at the node that each atom passes.

    A prompt is steered along the direction of its own node: the directions of a scale's nodes differ, and
    their mean over the 2^(h-1) nodes of a binary tree goes only that share of each one's way.

    Args:
        workspaces: p of one token after one layer.
        atoms: true atom of each prompt.
        prior: a tree.
        turn: the two branches.

    Returns:
        One direction for each atom of the prior; equal for atoms of one node.

    Raises:
        ValueError: if no prompt takes one of the branches at some node.

    Example:
        >>> from agents.prior import tree
        >>> branch_directions(np.array([[1.0, 3.0, 8.0]]), np.array([0, 0, 1]), tree(1, 2, 1.0, 1), Turn(1))
        array([[6.],
               [6.]])
    """
    # The node at which each atom takes its branch of the scale.
    nodes = prior.branches[:, turn.scale - 2] if turn.scale > 1 else np.zeros(len(prior.atoms), dtype=int)
    taken = relative_branches(prior.branches)[:, turn.scale - 1]
    directions = np.empty((len(prior.atoms), len(workspaces)))
    for node in np.unique(nodes):
        means = []
        for branch in (turn.source, turn.target):
            there = (nodes[atoms] == node) & (taken[atoms] == branch)
            if not there.any():
                raise ValueError(
                    f"no prompt takes branch {branch} at node {node} of scale {turn.scale}: take more prompts"
                )
            means.append(workspaces[:, there].mean(axis=1))
        directions[nodes == node] = means[1] - means[0]
    return directions


def steering_curve(
    strengths: Sequence[float],
    steered: Float[np.ndarray, "strengths d B"],
    control: Float[np.ndarray, "strengths d B"],
    unsteered: Float[np.ndarray, "d B"],
    atoms: Int[np.ndarray, " B"],
    prior: Prior,
    turn: Turn,
) -> pd.DataFrame:
    """How far, and how often, the answers of the source branch were moved to the target branch.

    value is the movement along the node's axis, in units of the distance between the two branches: 1 is the
    whole way. The node is the one that the prompt's own path comes to at the scale.

    Args:
        strengths: multiples of `branch_directions` that were added.
        steered: last estimate of one token at each strength.
        control: the same, with a random direction of equal length in its place.
        unsteered: last estimate without it.
        atoms, prior, turn: as for `branch_directions`.

    Returns:
        Columns strength, scale, value, se, control, control_se, turned, turned_se, control_turned,
        control_turned_se: turned is the share of answers nearest to an atom of the target branch.

    Source: E. Todd et al., Function vectors in large language models, arXiv:2310.15213.
    """
    taken = relative_branches(prior.branches)
    chosen = taken[atoms, turn.scale - 1] == turn.source
    # Between the means of the atoms below the two branches, of equal weight as the tree has them.
    gaps = branch_directions(prior.atoms.T, np.arange(len(prior.atoms)), prior, turn)[atoms].T  # [d, B]
    rows = []
    for index, strength in enumerate(strengths):
        row: dict[str, float] = {"strength": float(strength), "scale": turn.scale}
        for far, often, moved in (
            ("value", "turned", steered[index]),
            ("control", "control_turned", control[index]),
        ):
            way = ((moved - unsteered) * gaps).sum(axis=0) / (gaps**2).sum(axis=0)
            there = taken[nearest_atoms(moved, prior), turn.scale - 1] == turn.target
            row |= columns(**{far: mean_over_prompts(way[chosen]), often: _share(there, chosen)})
        rows.append(row)
    return pd.DataFrame(rows)


def _share(true: Bool[np.ndarray, " B"], chosen: Bool[np.ndarray, " B"]) -> Estimate:
    """Share of the chosen prompts, with its standard error; NaN if there are none."""
    if not chosen.any():
        return Estimate(np.asarray(np.nan), np.asarray(np.nan))
    return mean_over_prompts(true[chosen].astype(float))
