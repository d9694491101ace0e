"""The effective channel with finitely many answers, on which dynamic programming is exact.

The fields are Gaussian under each atom, with the covariance that the belief takes them to have; what is
heard next is a mixture of Gaussians, taken at the points of a lattice. Axes: n histories, M atoms,
d dimensions, C codes, Q answers.
"""

import numpy as np
from jaxtyping import Bool, Float

from analysis.theory.dynamic_programming.histories import Branches, Heard, Histories, Opened
from analysis.theory.setting import Setting

Array = np.ndarray
_CLOSE = 0.5  # atoms whose signals differ by fewer standard deviations of the noise share their nodes
_LEAST = 1e-30  # weight by which an atom of no weight says where the nodes of its group lie
_HEAVY = 1e-3  # share of a group that has a say in the spacing of the nodes
_PHASE = 0.25


class FiniteChannel:
    """The effective channel of a setting, a field being one of finitely many points of a lattice.

    Around the mean field of each group of atoms of equal signal u.mu lie 2 H + 1 points x_k = (k + 1/4) h,
    h about 2 / sqrt(H) standard deviations, and atom m gives the answer k with probability

        P(k | m) = p_m(x_k) / sum_j p_m(x_j).

    The probabilities of an atom sum to one, so this is a channel in its own right: information in it never
    hurts, whatever the number of points, and it approaches the Gaussian channel as that number grows. The
    trapezoidal rule is exact up to exp(-2 pi y / h) for what is analytic within y of the real axis. Beliefs
    switch between the atoms, like tanh, where no polynomial follows: Gauss-Hermite rules around each atom
    have at 5 to 9 points ten times the error. The shift by a quarter removes the leading error of what is
    even about zero. With a single atom one point is exact: the posterior covariance does not depend on what
    is heard.

    Source: THEORY.md section 7.3; L. N. Trefethen and J. A. C. Weideman, doi:10.1137/130932132.

    Example:
        >>> from agents.codebook import principal
        >>> from agents.prior import tree
        >>> prior = tree(1, 2, 1.0, 1)
        >>> channel = FiniteChannel(Setting(prior, principal(prior), "adaptive", 1, 1, 8.0, 0.1))
        >>> begin = channel.start()
        >>> channel.ask(begin, channel.open(begin), 0, half=2).joint.shape
        (1, 10, 2)
    """

    def __init__(self, setting: Setting) -> None:
        """Take the system; its policy is not used."""
        prior, codebook = setting.prior, setting.codebook
        self.setting, self.atoms, self.directions = setting, prior.atoms, codebook.directions
        # Covariance of the Gaussian part with every field; None if the prior is discrete.
        self.signal = prior.factor @ (prior.factor.T @ self.directions.T) if prior.factor.shape[1] else None
        spread = np.tile(prior.factor @ prior.factor.T, (1, len(prior.weights), 1, 1))
        self.forms = None if self.signal is None else spread
        self.signals, self.gram = prior.atoms @ self.directions.T, codebook.gram()
        noise = np.sqrt((setting.label_noise**2 + setting.channel_variance) / setting.effective)
        self.groups = [_groups(column, _CLOSE * noise) for column in self.signals.T]

    def start(self) -> Histories:
        """Nothing heard."""
        return Histories(np.ones(1), self.setting.prior.weights[None], self.atoms[None], self.forms, ())

    def open(self, histories: Histories) -> Opened:
        """Start a round: without control w - v is w itself, and the prior predicts it throughout."""
        if self.setting.control_variate:
            return Opened(histories.means - histories.control()[:, None], histories.forms)
        size = len(histories.reach)
        forms = None if self.forms is None else np.repeat(self.forms, size, axis=0)
        return Opened(np.repeat(self.atoms[None], size, axis=0), forms)

    def answers(self, code: int, half: int) -> int:
        """Number Q of answers to a question, with 2 half + 1 points for each group of atoms."""
        return 1 if len(self.atoms) == 1 else self.groups[code].shape[1] * (2 * half + 1)

    def ask(self, histories: Histories, opened: Opened, code: int, half: int) -> Branches:
        """The answers to one more question, each history giving its own points and probabilities."""
        along = opened.offsets @ self.directions.T
        mean, row, gain = self._law(histories, opened, along, code)
        deviation = row[..., -1]
        values, counted = self._lattice(histories.weights, mean, deviation, code, half)
        innovation = (values[..., None] - mean[:, None]) / deviation[:, None]
        logs = -0.5 * innovation**2
        # From the nearest point down: an atom far narrower than the spacing keeps its whole probability.
        joint = np.exp(logs - logs.max(axis=1, keepdims=True))
        joint *= counted[..., None]
        joint *= (histories.weights / joint.sum(axis=1))[:, None]
        return Branches(Heard(code, opened.offsets, along, row, mean, gain), innovation, joint)

    def _law(
        self, histories: Histories, opened: Opened, along: Float[Array, "n M C"], code: int
    ) -> tuple[Float[Array, "n M"], Float[Array, "n M s"], Float[Array, "n M d"] | None]:
        """Mean of the next field under each atom, its row in the basis of innovations, and its gain."""
        setting, direction = self.setting, self.directions[code]
        offsets, forms = opened
        common = setting.label_noise**2
        image = None if forms is None else forms @ direction
        trace = 0.0 if forms is None else np.trace(forms, axis1=2, axis2=3)
        mean = np.broadcast_to(self.signals[:, code], histories.weights.shape)
        row = np.empty((*mean.shape, len(histories.past) + 1))
        gain = None if self.signal is None else self.signal[:, code]
        for place, heard in enumerate(histories.past):
            cross = np.zeros_like(row[..., 0])
            if setting.joint:
                cross += heard.along[..., code] * along[..., heard.code]
                if abs(self.gram[code, heard.code]) > 1e-12:
                    shared = _inner(offsets, heard.offsets) + trace + common
                    cross += self.gram[code, heard.code] * shared
                if image is not None:
                    cross += image @ self.directions[heard.code]
                cross /= setting.effective
            if self.signal is not None:
                cross += direction @ self.signal[:, heard.code]
            for earlier in range(place):
                cross -= row[..., earlier] * heard.row[..., earlier]
            row[..., place] = cross / heard.row[..., place]
            mean = mean + row[..., place] * heard.innovation
            if gain is not None and heard.gain is not None:
                gain = gain - row[..., place, None] * heard.gain
        own = _inner(offsets, offsets) + trace + common + along[..., code] ** 2 + setting.channel_variance
        if image is not None:
            own = own + image @ direction
        own = own / setting.effective
        if self.signal is not None:
            own = own + direction @ self.signal[:, code]
        floor = setting.channel_variance / setting.effective
        row[..., -1] = np.sqrt(np.maximum(own - _inner(row[..., :-1], row[..., :-1]), floor))
        return mean, row, None if gain is None else gain / row[..., -1:]

    def _lattice(
        self,
        weights: Float[Array, "n M"],
        mean: Float[Array, "n M"],
        deviation: Float[Array, "n M"],
        code: int,
        half: int,
    ) -> tuple[Float[Array, "n Q"], Bool[Array, "n Q"]]:
        """Points, and whether each counts: those near two groups would do so twice."""
        groups = self.groups[code]
        part = (weights + _LEAST)[..., None] * groups
        share = part.sum(axis=1)
        part /= share[:, None]
        centre = (part * mean[..., None]).sum(axis=1)
        spread = deviation[..., None] ** 2 + (mean[..., None] - centre[:, None]) ** 2
        width = np.sqrt((part * spread).sum(axis=1))
        if len(self.atoms) == 1:
            return centre, np.ones(centre.shape, dtype=bool)
        heavy = share >= _HEAVY
        narrow = np.where(heavy, width, np.inf).min(axis=1)
        wide = np.where(heavy, width, 0.0).max(axis=1)
        # Close enough for the narrowest group, far enough to hold the widest.
        spacing = 2.0 / np.sqrt(half) * np.maximum(narrow, 0.8 * wide)
        # What was heard before may have changed the order of the groups.
        middle = np.sort(np.round(centre / spacing[:, None]), axis=1)
        places = middle[..., None] + np.arange(-half, half + 1)
        counted = np.ones(places.shape, dtype=bool)
        counted[:, 1:] = places[:, 1:] > middle[:, :-1, None] + half
        points = (places + _PHASE) * spacing[:, None, None]
        return points.reshape(len(weights), -1), counted.reshape(len(weights), -1)


def _inner(left: Float[Array, "n M k"], right: Float[Array, "n M k"]) -> Float[Array, "n M"]:
    """Scalar products along the last axis."""
    return np.einsum("nmk,nmk->nm", left, right)


def _groups(signals: Float[Array, " M"], least: float) -> Float[Array, "M G"]:
    """Membership of each atom in a group of nearly equal signals, lowest first."""
    order = np.argsort(signals, kind="stable")
    fresh = np.diff(signals[order], prepend=signals[order[0]]) > least + 1e-9
    index = np.empty(len(signals), dtype=np.int64)
    index[order] = np.cumsum(fresh)
    return np.eye(int(index.max()) + 1)[index]
