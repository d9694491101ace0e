"""Reference posterior of a mixture of Gaussians, from whole covariance matrices of what was heard.

Everything is a batch of small dense matrices, one for each sample and atom, solved anew each round.
Axes: n samples, M atoms, T fields, K channels, d dimensions, R rank of the Gaussian part z.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from agents.prior import Prior

Array = np.ndarray


class Record(NamedTuple):
    """All fields so far, oldest first.

    Attributes:
        directions: u_t [n, T, d].
        offsets: expected w - v_t under each atom, as it was before round t [n, M, T, d].
        values: what was heard [n, T].
        covariance: covariance of the fields under each atom [n, M, T, T].
    """

    directions: Float[Array, "n T d"]
    offsets: Float[Array, "n M T d"]
    values: Float[Array, "n T"]
    covariance: Float[Array, "n M T T"]

    def with_round(
        self, asked: Float[Array, "n K d"], offset: Float[Array, "n M d"]
    ) -> tuple[Float[Array, "n S d"], Float[Array, "n M S d"]]:
        """Directions and offsets with those of one more round, S = T + K."""
        repeated = np.repeat(offset[:, :, None], asked.shape[1], axis=2)
        return (
            np.concatenate([self.directions, asked], axis=1),
            np.concatenate([self.offsets, repeated], axis=2),
        )

    def where(self, chosen: Bool[Array, " n"], other: "Record") -> "Record":
        """The samples of this record that are chosen, and the rest from another one of the same questions."""
        return self._replace(
            values=np.where(chosen[:, None], self.values, other.values),
            covariance=np.where(chosen[:, None, None, None], self.covariance, other.covariance),
        )


class Posterior(NamedTuple):
    """Belief about w: with weights[m], w = means[m] + factor (z - E z), Cov z = spread[m].

    Attributes:
        weights: probability of each atom [n, M].
        means: posterior mean of w under each atom [n, M, d].
        spread: posterior covariance of z under each atom [n, M, R, R].
    """

    weights: Float[Array, "n M"]
    means: Float[Array, "n M d"]
    spread: Float[Array, "n M R R"]

    def mean(self) -> Float[Array, "n d"]:
        """Posterior mean of w."""
        return (self.weights[:, None] @ self.means)[:, 0]

    def spread_of_w(self, prior: Prior) -> Float[Array, " n"]:
        """Expected squared distance of w from its posterior mean."""
        offset = self.means - self.mean()[:, None]
        within = np.trace(self.spread @ (prior.factor.T @ prior.factor), axis1=2, axis2=3)
        return (self.weights * ((offset**2).sum(axis=2) + within)).sum(axis=1)

    def forms(self, prior: Prior) -> Float[Array, "n M d d"] | None:
        """Posterior covariance of w under each atom; None if the prior is discrete."""
        if not prior.factor.shape[1]:
            return None
        return prior.factor @ self.spread @ prior.factor.T

    def variances(self, prior: Prior, directions: Float[Array, "C d"]) -> Float[Array, "n C"]:
        """Posterior variance u' Cov[w] u along each direction."""
        along = self.means @ directions.T
        centred = along - self.weights[:, None] @ along
        between = (self.weights[:, None] @ centred**2)[:, 0]
        images = directions @ prior.factor
        within = np.einsum("nm,nmrs->nrs", self.weights, self.spread)
        return between + ((images @ within) * images).sum(axis=2)


class Average(NamedTuple):
    """What stands behind the mean that is heard, as the belief takes it.

    Attributes:
        own: variance of the mean over that of one token, 1/N_eff.
        earlier: covariance with the means of earlier rounds, over that of one token: one number, or one for
            each sample and mean.
        channel: variance that the channel adds to the mean.
    """

    own: float
    earlier: float | Float[Array, "n T"]
    channel: float


class Bordered(NamedTuple):
    """A covariance matrix with one more row: how the new field follows from the earlier ones.

    Attributes:
        covariance: the larger matrix [n, M, T+1, T+1].
        coefficients: regression of the new field on the earlier ones [n, M, T].
        pivot: variance of the new field given the earlier ones [n, M].
    """

    covariance: Float[Array, "n M S S"]
    coefficients: Float[Array, "n M T"]
    pivot: Float[Array, "n M"]


def start(prior: Prior, size: int) -> Record:
    """Nothing heard."""
    atoms, dim = prior.atoms.shape
    return Record(
        np.empty((size, 0, dim)),
        np.empty((size, atoms, 0, dim)),
        np.empty((size, 0)),
        np.empty((size, atoms, 0, 0)),
    )


def condition(prior: Prior, record: Record) -> Posterior:
    """Posterior given all fields, under each atom by one linear solve with their whole covariance.

    Exact if the fields are Gaussian under each atom with the recorded covariance.

    Source: C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, eq. A.6.

    Example:
        >>> from agents.prior import gaussian
        >>> one = np.ones((1, 1, 1))
        >>> heard = Record(one, one[None], one[0], 2.0 * one[None])
        >>> float(condition(gaussian(1), heard).mean().item())
        0.5
    """
    signals = record.directions @ prior.factor
    offset = record.values[:, None] - (record.directions @ prior.atoms.T).swapaxes(1, 2)
    atoms = record.covariance.shape[:2]
    right = np.concatenate(
        [offset[..., None], np.broadcast_to(signals[:, None], (*atoms, *signals.shape[1:]))], axis=3
    )
    solved = np.linalg.solve(record.covariance, right)
    mismatch = (offset * solved[..., 0]).sum(axis=2)
    with np.errstate(divide="ignore"):
        logs = np.log(prior.weights) - 0.5 * (mismatch + np.linalg.slogdet(record.covariance)[1])
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    projected = signals[:, None].swapaxes(2, 3) @ solved
    return Posterior(
        weights / weights.sum(axis=1, keepdims=True),
        prior.atoms + projected[..., 0] @ prior.factor.T,
        np.eye(signals.shape[2]) - projected[..., 1:],
    )


def token_covariance(
    directions: Float[Array, "n S d"],
    offsets: Float[Array, "n M S d"],
    forms: Float[Array, "#n M d d"] | None,
    channels: int,
    label_noise: float,
) -> Float[Array, "n M K S"]:
    """Covariance of one token's last K measurements with all of its S measurements.

    (u_t.u_s)(o_t.o_s + tr P_t + sigma^2) + (u_t.o_s)(u_s.o_t) + u_t' P_t u_s for t >= s, the expectation of
    (u_t.u_s)(q_t.q_s + sigma^2) + (u_t.q_s)(u_s.q_t) with q_s = w - v_s = o_s + a martingale in s.

    Args:
        directions: u_s of all measurements, the K new ones last.
        offsets: o_s, expected w - v_s before round s.
        forms: P_t, covariance of w before the new round under each atom; None if w is known.
        channels: K.
        label_noise: sigma.

    Source: THEORY.md section 5; Isserlis' theorem for the fourth moment of x.

    Example:
        >>> u, q = np.ones((1, 1, 1)), np.full((1, 1, 1, 1), 2.0)
        >>> token_covariance(u, q, None, channels=1, label_noise=1.0).item()
        9.0
    """
    asked, now = directions[:, -channels:], offsets[:, :, -1]
    shared = (offsets @ now[..., None])[..., 0] + label_noise**2
    # u_t.o_s [n, M, K, S] and u_s.o_t [n, M, 1, S].
    outward = asked[:, None] @ offsets.swapaxes(2, 3)
    inward = (now @ directions.swapaxes(1, 2))[:, :, None]
    exchanged = outward * inward
    if forms is not None:
        shared = shared + np.trace(forms, axis1=2, axis2=3)[..., None]
        exchanged = exchanged + asked[:, None] @ forms @ directions[:, None].swapaxes(2, 3)
    return (asked @ directions.swapaxes(1, 2))[:, None] * shared[:, :, None] + exchanged


def border(covariance: Float[Array, "n M T T"], row: Float[Array, "n M S"], floor: float) -> Bordered:
    """Add one row to a covariance matrix, keeping it positive definite.

    A question that is asked again has a conditional variance as small as the channel's, which rounding
    may make negative; it is held at `floor` from below.

    Args:
        covariance: of the T fields so far.
        row: covariance of the new field with them, and last its own variance, S = T + 1.
        floor: smallest conditional variance, that of the channel.

    Source: Schur complement.

    Example:
        >>> border(np.eye(1)[None, None], np.array([[[0.6, 1.0]]]), 0.0).pivot.item()
        0.64
    """
    cross, own = row[..., :-1], row[..., -1]
    coefficients = np.linalg.solve(covariance, cross[..., None])[..., 0]
    explained = (cross * coefficients).sum(axis=2)
    pivot = np.maximum(own - explained, floor)
    larger = np.empty((*row.shape[:2], row.shape[2], row.shape[2]))
    larger[..., :-1, :-1] = covariance
    larger[..., -1, :-1] = larger[..., :-1, -1] = cross
    larger[..., -1, -1] = explained + pivot
    return Bordered(larger, coefficients, pivot)
