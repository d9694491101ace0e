"""Histories of a few rounds, batched: what was asked, what was heard, and the belief after it.

All histories of a batch asked the same codes. Axes: n histories, M atoms, d dimensions, C codes,
Q possible answers to a question.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray
Index = Int[Array, " m"] | slice


class Heard(NamedTuple):
    """One field of the past, in the basis in which fields are independent under each atom.

    Attributes:
        code: code that was asked.
        offsets: expected w - v under each atom, before the round [n, M, d].
        along: the same along every code [n, M, C].
        row: its regression on the innovations before it, and last its own standard deviation [n, M, s+1].
        innovation: what it said beyond the earlier fields, in standard deviations [n, M].
        gain: covariance of w with the innovation [n, M, d]; None if the prior is discrete.
    """

    code: int
    offsets: Float[Array, "n M d"]
    along: Float[Array, "n M C"]
    row: Float[Array, "n M s"]
    innovation: Float[Array, "n M"]
    gain: Float[Array, "n M d"] | None

    def take(self, index: Index) -> "Heard":
        """The same for some of the histories."""
        offsets, along, row, innovation = (each[index] for each in self[1:5])
        return Heard(
            self.code, offsets, along, row, innovation, None if self.gain is None else self.gain[index]
        )


class Histories(NamedTuple):
    """A batch of histories and the belief after each.

    Attributes:
        reach: probability of the history if its codes are asked [n].
        weights: posterior probability of each atom [n, M].
        means: posterior mean of w under each atom [n, M, d].
        forms: posterior covariance of w under each atom [n, M, d, d]; None if the prior is discrete.
        past: the fields, oldest first.
    """

    reach: Float[Array, " n"]
    weights: Float[Array, "n M"]
    means: Float[Array, "n M d"]
    forms: Float[Array, "n M d d"] | None
    past: tuple[Heard, ...]

    def control(self) -> Float[Array, "n d"]:
        """Posterior mean of w."""
        return (self.weights[:, None] @ self.means)[:, 0]

    def risk(self) -> Float[Array, " n"]:
        """Posterior variance E|w - E w|^2."""
        centred = self.means - self.control()[:, None]
        each = (centred**2).sum(axis=2)
        if self.forms is not None:
            each = each + np.trace(self.forms, axis1=2, axis2=3)
        return (self.weights * each).sum(axis=1)

    def take(self, index: Index) -> "Histories":
        """Some of the histories."""
        forms = None if self.forms is None else self.forms[index]
        past = tuple(heard.take(index) for heard in self.past)
        return Histories(self.reach[index], self.weights[index], self.means[index], forms, past)


class Opened(NamedTuple):
    """What a round starts from: expected w - v [n, M, d] and covariance of w [n, M, d, d] under each atom."""

    offsets: Float[Array, "n M d"]
    forms: Float[Array, "n M d d"] | None

    def take(self, index: Index) -> "Opened":
        """The same for some of the histories."""
        return Opened(self.offsets[index], None if self.forms is None else self.forms[index])


class Branches(NamedTuple):
    """One question put to every history, and its possible answers.

    Attributes:
        heard: the new field, but for its innovation.
        innovation: of each answer [n, Q, M].
        joint: probability of each answer together with each atom, given the history [n, Q, M].
    """

    heard: Heard
    innovation: Float[Array, "n Q M"]
    joint: Float[Array, "n Q M"]

    def settle(self, histories: Histories, which: Int[Array, " m"], answer: Int[Array, " m"]) -> Histories:
        """Histories one field longer: history `which` after its answer `answer`."""
        joint, innovation = self.joint[which, answer], self.innovation[which, answer]
        chance = joint.sum(axis=1)
        base, heard = histories.take(which), self.heard.take(which)
        means, forms = base.means, base.forms
        if heard.gain is not None and forms is not None:
            means = means + heard.gain * innovation[..., None]
            forms = forms - heard.gain[..., :, None] * heard.gain[..., None, :]
        last = heard._replace(innovation=innovation)
        return Histories(base.reach * chance, joint / chance[:, None], means, forms, (*base.past, last))

    def outcome(self, histories: Histories) -> Float[Array, "n Q"]:
        """Probability of each answer times the posterior variance after it."""
        gain, size = self.heard.gain, self.joint.shape[2]
        flat = self.joint.reshape(-1, size)
        if gain is None or histories.forms is None:
            # All histories of a discrete prior have the same means, its atoms: one product gives all moments.
            atoms = histories.means[0]
            table = np.column_stack([np.ones(size), (atoms**2).sum(axis=1), atoms])
            moments = (flat @ table).reshape(*self.joint.shape[:2], -1)
            chance, second, first = moments[..., 0], moments[..., 1], moments[..., 2:]
        else:
            means = histories.means[:, None] + gain[:, None] * self.innovation[..., None]
            left = np.trace(histories.forms, axis1=2, axis2=3) - (gain**2).sum(axis=2)
            first = (self.joint[..., None, :] @ means)[..., 0, :]
            second = (self.joint * ((means**2).sum(axis=3) + left[:, None])).sum(axis=2)
            chance = self.joint.sum(axis=2)
        explained = np.einsum("nqd,nqd->nq", first, first)
        return np.maximum(second - explained / np.maximum(chance, np.finfo(float).tiny), 0.0)
