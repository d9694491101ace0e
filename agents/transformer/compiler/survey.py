"""What a Bayesian agent would make of a history: its question, its belief, its estimate, field by field."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.channel import Field
from agents.policies.bayesian import Bayesian, Workspace

GRID = 801  # points of a line
EDGE = 3**0.5  # ends of a uniform interval, in its standard deviations
SETTLED = 1e-9  # posterior variances below this count as equal, as for the agent itself
_REACH = 5.5  # a line extends so many standard deviations beyond what is predicted
_LIKELY = 1e-9  # atoms of smaller posterior probability do not make a line longer
_SILENT = 1e-4  # a field that is predicted more precisely than this carries no information


class History(NamedTuple):
    """A bundle of similar histories of l rounds, around one of them.

    Field t is fields[t] + sum_i tilt[t, i] offset[i]: offset i is what field i was more than at the centre,
    as far as the earlier offsets did not predict it.

    Attributes:
        codes: what was asked [l].
        fields: what was heard at the centre of the bundle [l].
        tilt: how far each field moves with each offset, unit lower triangular [l, l].
        spread: standard deviation of each offset within the bundle [l].
        probability: of the bundle.
        ranks: the codes that would be asked in the rounds that are left, first choice first; those that
            are settled are counted on from the size of the codebook [R].
        asks: the code asked next.
    """

    codes: Int[np.ndarray, " l"]
    fields: Float[np.ndarray, " l"]
    tilt: Float[np.ndarray, "l l"]
    spread: Float[np.ndarray, " l"]
    probability: float
    ranks: Int[np.ndarray, " R"]
    asks: int


class Outlook(NamedTuple):
    """What the agent expects of the next field, at the centre of a bundle and at the ends of its offsets.

    Attributes:
        state: its workspace, one prompt for each line.
        weights: posterior of the atoms [lines, M].
        predicted: mean of the field under each atom [lines, M].
        deviation: its standard deviation under each atom [lines, M].
        offsets: where the lines are: line 0 at zero, 1 + 2 i and 2 + 2 i at offset i = +- EDGE spreads.
    """

    state: Workspace
    weights: Float[np.ndarray, "lines M"]
    predicted: Float[np.ndarray, "lines M"]
    deviation: Float[np.ndarray, "lines M"]
    offsets: Float[np.ndarray, "lines l"]

    def slope(self) -> Float[np.ndarray, " l"]:
        """How far the predicted field moves with each offset, averaged over the atoms."""
        moved = (self.predicted[1::2] - self.predicted[2::2]) @ self.weights[0]
        return np.asarray(moved / (2 * self.offsets.max(axis=0)))


class Survey(NamedTuple):
    """What the agent would believe after the next field s = z + slope.offset, along lines of z.

    Attributes:
        z: the field without what the offsets predict [G].
        slope: how far the field moves with each offset [l].
        offsets: where the lines are [lines, l].
        share: weight of each line in the bundle [lines].
        densities: of z on each line, each sums to 1 [lines, G].
        atoms: posterior of the atoms at the centre [G, M].
        estimates: posterior mean of w [lines, G, d].
        ranks: the codes that would be asked then, as in `History` [lines, G, R].
        silent: the field is known beforehand, so that nothing depends on it.
        noise: standard deviation of the field under the likely atoms.
    """

    z: Float[np.ndarray, " G"]
    slope: Float[np.ndarray, " l"]
    offsets: Float[np.ndarray, "lines l"]
    share: Float[np.ndarray, " lines"]
    densities: Float[np.ndarray, "lines G"]
    atoms: Float[np.ndarray, "G M"]
    estimates: Float[np.ndarray, "lines G d"]
    ranks: Int[np.ndarray, "lines G R"]
    silent: bool
    noise: float

    def density(self) -> Float[np.ndarray, " G"]:
        """Of z in the whole bundle, sums to 1."""
        return self.share @ self.densities


def beginning(policy: Bayesian, rounds: int) -> History:
    """The one history in which nothing was heard, with `rounds` questions to come.

    Example:
        >>> from agents.inference.gaussian import GaussianInference
        >>> from agents.codebook import principal
        >>> from agents.policies.adaptive import Adaptive
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> agent = Adaptive(GaussianInference(prior, principal(prior), 0.1, 0.0), 1, True)
        >>> beginning(agent, rounds=2).asks
        0
    """
    state = _replay(policy, np.zeros(0, dtype=int), np.zeros((1, 0)), 1.0)
    ranks = _ranks(policy, state, 1, min(rounds, policy.codes))[0]
    none = np.zeros(0)
    asks = int(ranks[0]) % policy.codes
    return History(np.zeros(0, dtype=int), none, np.zeros((0, 0)), none, 1.0, ranks, asks)


def outlook(policy: Bayesian, history: History, tokens: float) -> Outlook:
    """Read the agent's expectations from how a field of zero, the mean of `tokens` messages, surprises it."""
    rounds = len(history.codes)
    offsets = np.zeros((1 + 2 * rounds, rounds))
    for index, spread in enumerate(history.spread):
        offsets[1 + 2 * index, index], offsets[2 + 2 * index, index] = EDGE * spread, -EDGE * spread
    state = _replay(policy, history.codes, history.fields + offsets @ history.tilt.T, tokens)
    nothing = _field(np.full(len(offsets), history.asks), np.zeros(len(offsets)), tokens)
    surprise = policy.absorb(state, nothing, rounds + 1).belief.heard[-1]
    deviation = 1.0 / surprise.scale[0].T
    predicted = -surprise.innovation[0].T * deviation
    return Outlook(state, policy.inference.atoms(state.belief)[0].T, predicted, deviation, offsets)


def survey(
    policy: Bayesian,
    history: History,
    view: Outlook,
    slope: Float[np.ndarray, " l"],
    tokens: float,
    left: int,
) -> Survey:
    """Lay lines through a bundle of histories and let the agent itself judge each point.

    Args:
        policy: the agent.
        history: the bundle.
        view: the agent's outlook from there.
        slope: of the lines.
        tokens: N, how many messages a field is the mean of.
        left: rounds after the next field: as many choices matter.
    """
    rounds, lines = len(history.codes), len(view.offsets)
    weights, predicted, deviation = view.weights[0], view.predicted[0], view.deviation[0]
    likely = weights > _LIKELY
    low = float((predicted - _REACH * deviation)[likely].min())
    high = float((predicted + _REACH * deviation)[likely].max())
    silent = high - low < 2 * _REACH * _SILENT
    z = np.linspace(low, high, GRID)
    expected = view.predicted - (view.offsets @ slope)[:, None]
    scaled = (z[:, None] - expected[:, None]) / view.deviation[:, None]
    peaks = (view.weights / view.deviation)[:, None]
    densities = (peaks * np.exp(-0.5 * scaled**2)).sum(axis=2) + 1e-300
    densities /= densities.sum(axis=1, keepdims=True)
    share = np.full(lines, 0.5 / max(lines - 1, 1))
    share[0] = 1.0 if lines == 1 else 0.5
    heard = np.full_like(z, weights @ predicted) if silent else z
    values = (view.offsets @ slope)[:, None] + heard
    field = _field(np.full(lines * GRID, history.asks), values.ravel(), tokens)
    state = policy.absorb(_repeated(view.state, GRID), field, rounds + 1)
    choices = min(left, policy.codes)
    ranks = _ranks(policy, state, rounds + 2, choices).reshape(lines, GRID, choices)
    estimates = np.moveaxis(state.vector[0], 0, 1).reshape(lines, GRID, -1)
    atoms = policy.inference.atoms(state.belief)[0].T[:GRID]
    noise = float(weights @ deviation)
    return Survey(z, slope, view.offsets, share, densities, atoms, estimates, ranks, silent, noise)


def _replay(
    policy: Bayesian, codes: Int[np.ndarray, " l"], fields: Float[np.ndarray, "S l"], tokens: float
) -> Workspace:
    """The agent's workspace after each of S lists of fields that it heard on the same questions."""
    belief = policy.inference.start(1, len(fields))
    state = Workspace(belief, policy.inference.estimate(belief))
    for index, code in enumerate(codes):
        asked = np.full(len(fields), code)
        state = policy.absorb(state, _field(asked, fields[:, index], tokens), index + 1)
    return state


def _ranks(policy: Bayesian, state: Workspace, round: int, count: int) -> Int[np.ndarray, "S R"]:
    """The first choices of the agent if it could ask more than one code, and which are settled."""
    ranks = replace(policy, channels=count).choose(state.belief, round)[0].T
    variances = policy.inference.variances(state.belief)[0].T
    return ranks + policy.codes * (np.take_along_axis(variances, ranks, axis=1) < SETTLED)


def _field(codes: Int[np.ndarray, " S"], values: Float[np.ndarray, " S"], tokens: float) -> Field:
    everyone = np.full((1, len(codes)), float(tokens))
    return Field(codes[None, None], values[None, None], everyone[None], everyone)


def _repeated(tree: Any, times: int) -> Any:
    """Every array of a nest of tuples, each prompt `times` in a row."""
    if tree is None:
        return None
    if isinstance(tree, np.ndarray):
        return np.repeat(tree, times, axis=-1)
    parts = [_repeated(part, times) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
