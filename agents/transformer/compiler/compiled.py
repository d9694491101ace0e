"""An explicit agent, written into the weights of a transformer: by construction, nothing is trained.

A token's workspace says in which bundle of similar histories it is, how far its fields are from those at
the bundle's centre, and what it estimates. A layer is a table over the bundles: which code to ask, and for
the field that is heard, which bundle comes next and what to estimate then. The agent itself fills the
table: each entry is its own belief after such a history.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.inference.gaussian import GaussianInference
from agents.policies.adaptive import Adaptive
from agents.policies.learned import Learned
from agents.transformer.compiler.bundles import bundled, common_slopes
from agents.transformer.compiler.cells import Cells, cut
from agents.transformer.compiler.relu import WorkspaceLayout
from agents.transformer.compiler.splines import curvature, interpolation_error, knots_for, spline
from agents.transformer.compiler.survey import EDGE, History, beginning, outlook, survey
from agents.transformer.compiler.wiring import CLAMP, Transition, wire


class Precision(NamedTuple):
    """How closely to compile.

    Attributes:
        error: mean squared error of the interpolation in each layer; knots grow as error^(-1/4).
        arc: how far the belief may move within a cell, in units of `cells.distance`.
        merge: how far beliefs that share a bundle may be apart.
        least: probability of a history below which it has no cell of its own.
        ramp: width of a decision; what falls into it is lost. Rounding is amplified by its inverse.
        states: most bundles.
    """

    error: float = 5e-6
    arc: float = 0.2
    merge: float = 0.05
    least: float = 1e-8
    ramp: float = 1e-7
    states: int = 1000


@dataclass(frozen=True, eq=False)
class Compiled:
    """The weights of a compiled agent, and how to read them.

    Attributes:
        learned: the weights, a policy.
        layout: of its workspace.
        histories: the bundles before each round; number k is coordinate k of the workspace.
        errors: predicted mean squared distance from the agent's estimate after each layer: by interpolation
            between knots, and because it is not linear within a bundle. Wrong decisions are not in it [L, 2].
    """

    learned: Learned
    layout: WorkspaceLayout
    histories: tuple[tuple[History, ...], ...]
    errors: Float[np.ndarray, "L 2"]

    def asks(self, workspace: Float[np.ndarray, "n W B"], round: int) -> Int[np.ndarray, "n B"]:
        """The code that each token asks in a round, read from its workspace before it."""
        codes = np.array([history.asks for history in self.histories[round - 1]])
        return codes[workspace[:, : len(codes)].argmax(axis=1)]


def compile_policy(
    policy: Adaptive,
    tokens: float,
    rounds: int,
    precision: Precision | None = None,
    largest: float = 8.0,
) -> Compiled:
    """The weights with which a constrained linear attention transformer does what an adaptive agent does.

    They hold on the complete graph, where all tokens ask the same, so that every field is the mean of N
    messages. K = 1; each layer has one hidden layer of ReLUs. Only float64 resolves its decisions.

    Args:
        policy: the agent, with one channel and a belief in Gaussian fields; its prior a binary orthonormal
            tree without jitter.
        tokens: N.
        rounds: L.
        precision: how closely.
        largest: largest magnitude of a field: the channel's clip.

    Raises:
        ValueError: if the agent has another prior or belief or more channels, or takes more bundles than
            allowed.

    Source: THEORY.md section 8, two systems, one computation.

    Example:
        >>> from agents.inference.gaussian import GaussianInference
        >>> from agents.codebook import principal
        >>> from agents.policies.adaptive import Adaptive
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> agent = Adaptive(GaussianInference(prior, principal(prior), 0.1, channel_variance=1.0), 1, True)
        >>> compiled = compile_policy(agent, tokens=32, rounds=2)
        >>> compiled.histories[1][0].codes.tolist(), compiled.learned.readout.shape[0]
        ([0], 3)
    """
    precision = precision or Precision()
    _check(policy, tokens, rounds)
    bundles = [beginning(policy, rounds)]
    plan: list[list[Transition]] = []
    extents = [np.zeros((1, 0))]
    errors = np.zeros((rounds, 2))
    for round in range(1, rounds + 1):
        left = rounds - round
        views = [outlook(policy, history, tokens) for history in bundles]
        slopes = common_slopes(bundles, views)
        surveys = [
            survey(policy, history, view, slope, tokens, left)
            for history, view, slope in zip(bundles, views, slopes, strict=True)
        ]
        chance = np.array([history.probability for history in bundles])
        integrals = chance * np.array([curvature(seen)[1] for seen in surveys])
        knots = knots_for(integrals, precision.error)
        splines = [spline(*parts) for parts in zip(surveys, bundles, knots, strict=True)]
        errors[round - 1, 0] = sum(map(interpolation_error, integrals.tolist(), knots))
        errors[round - 1, 1] = chance @ [part.bent for part in splines]
        if not left:
            plan.append(
                [Transition(*parts, None, []) for parts in zip(bundles, slopes, splines, strict=True)]
            )
            break
        cells = [
            cut(seen, history, precision.arc, precision.least)
            for seen, history in zip(surveys, bundles, strict=True)
        ]
        following, entries = bundled(bundles, surveys, cells, precision.merge, policy.codes)
        if len(following) > precision.states:
            raise ValueError(
                f"round {round} takes {len(following)} bundles of histories, more than {precision.states}: "
                "raise states, arc or merge of the precision, or compile fewer rounds or levels"
            )
        plan.append(
            [Transition(*parts) for parts in zip(bundles, slopes, splines, cells, entries, strict=True)]
        )
        extents.append(_extent(plan[-1], cells, extents[-1], len(following)))
        bundles = following
    layout = WorkspaceLayout(max(map(len, plan)), rounds, policy.inference.prior.dim)
    farthest = [max(float(extent[:, i].max()) for extent in extents[i + 1 :]) for i in range(rounds - 1)]
    size = float(np.abs(policy.inference.prior.atoms).max())
    bounds = np.concatenate(
        [np.ones(layout.states), farthest, farthest, np.full(layout.dim, size), [largest]]
    )
    codebook = policy.inference.codebook
    layers = tuple(wire(steps, layout, bounds, codebook, precision.error, precision.ramp) for steps in plan)
    readout = np.zeros((layout.dim, layout.width))
    readout[:, layout.estimate] = np.eye(layout.dim)
    start = readout.T @ policy.inference.prior.mean()
    start[0] = 1.0
    learned = Learned(start, layers, readout, 1, policy.control_variate)
    histories = tuple(tuple(step.history for step in steps) for steps in plan)
    return Compiled(learned, layout, histories, errors)


def _extent(
    steps: list[Transition], cells: list[Cells], before: Float[np.ndarray, "S l"], count: int
) -> Float[np.ndarray, "T offsets"]:
    """How large each offset can be in each bundle of the next round."""
    extent = np.zeros((count, before.shape[1] + 1))
    for step, part, old in zip(steps, cells, before, strict=True):
        for entry, spread in zip(step.entries, part.spread[:, -1], strict=True):
            reach = np.append(old, max(CLAMP, EDGE) * spread) + np.abs(entry.shift)
            extent[entry.target] = np.maximum(extent[entry.target], reach)
    return extent


def _check(policy: Adaptive, tokens: float, rounds: int) -> None:
    """Refuse what the construction does not cover, and say what it covers.

    Raises:
        ValueError: naming it.
    """
    prior, book = policy.inference.prior, policy.inference.codebook
    if not isinstance(policy.inference, GaussianInference):
        raise ValueError("only agents that take fields for Gaussian can be compiled, those of a joint belief")
    if policy.channels != 1:
        raise ValueError(f"only agents with 1 channel can be compiled, this one has {policy.channels}")
    if prior.factor.shape[1] or prior.branches.shape[1] == 0:
        raise ValueError("only trees without jitter can be compiled, not priors with a Gaussian part")
    levels = prior.branches.shape[1]
    orthonormal = len(book) == 2**levels - 1 and np.abs(book.gram() - np.eye(len(book))).max() < 1e-9
    if len(prior.atoms) != 2**levels or not orthonormal:
        raise ValueError("only trees with branching 2 and orthonormal directions can be compiled")
    if tokens < 1 or rounds < 1:
        raise ValueError(f"compiling takes 1 token and 1 round at least, got {tokens} and {rounds}")
