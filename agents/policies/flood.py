"""Flood: pass on every example that one has heard of, until all know all."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from agents.channel import Field, Message
from agents.policies.base import Ingredients, PolicyEntry
from agents.reductions import dot
from agents.task import TokenView

_NEGLIGIBLE = 1e-12  # eigenvalues below this share of the largest are rounding


class Archive(NamedTuple):
    """Workspace of a flooding token: the examples that it knows, those of itself among them.

    Attributes:
        examples: x and y of every token, 0 where unknown [n, N (d + 1), B].
        known: which of these numbers are known [n, N (d + 1), B].
        noise: variance of the channel in each number of an example, from above [n, N, B].
    """

    examples: Float[np.ndarray, "n R B"]
    known: Bool[np.ndarray, "n R B"]
    noise: Float[np.ndarray, "n N B"]


@dataclass(frozen=True, eq=False)
class Flood:
    """Exact sufficient statistics, spread over the graph: the ridge estimate from all examples within reach.

        w_i = m + F (F' X'X F + sigma^2 I)^-1 F' X' (y - X m)

    with m and F F' the mean and covariance of the prior, and after round l with X, y the examples of the
    tokens within l hops: the best estimate that is linear in the labels, ridge regression for a Gaussian
    prior. A message carries d + 1 numbers for each token that its
    sender knows of, each under a code of its own, and is silent on the others: the mean of equal integers
    is that integer, so an example arrives as it was sent. With transmitter noise it arrives with the noise
    of every hop, of variance s^2 = (l - 1) tau^2 + tau^2 / k or less after l hops, the last from k senders.
    The estimate then takes x for the mean x / (1 + s^2) that it has given what arrived, and the label for
    one with the noise sigma^2 + s^2 + s^2 E|w|^2 / (1 + s^2).

    Attributes:
        tokens: N.
        mean: m [d].
        factor: F [d, R].
        label_noise: sigma.
        noise: tau, standard deviation of the transmitter noise.

    Source: THEORY.md section 6; A. E. Hoerl and R. W. Kennard, doi:10.1080/00401706.1970.10488634.
    """

    tokens: int
    mean: Float[np.ndarray, " d"]
    factor: Float[np.ndarray, "d R"]
    label_noise: float
    noise: float = 0.0

    @property
    def codes(self) -> int:
        """One code for each number of each token's example."""
        return self.tokens * (len(self.mean) + 1)

    def start(self, tokens: TokenView) -> Archive:
        """The token's own example."""
        count, dim, prompts = tokens.inputs.shape
        width = dim + 1
        examples = np.zeros((count, self.codes, prompts))
        known = np.zeros(examples.shape, dtype=bool)
        for row, position in enumerate(tokens.positions):
            own = slice(int(position) * width, int(position) * width + width)
            examples[row, own] = np.concatenate([tokens.inputs[row], tokens.labels[row][None]])
            known[row, own] = True
        return Archive(examples, known, np.zeros((count, self.tokens, prompts)))

    def emit(self, state: Archive, tokens: TokenView, round: int) -> Message:
        """All examples known; the others are asked for."""
        codes = np.broadcast_to(np.arange(self.codes)[None, :, None], state.known.shape)
        return Message(codes.copy(), state.examples, state.known)

    def absorb(self, state: Archive, field: Field, round: int) -> Archive:
        """Take up the examples that were not known; one that is known does not change."""
        fresh = (field.effective > 0) & ~state.known
        width = len(self.mean) + 1
        senders = np.maximum(field.effective[:, ::width], 1.0)
        arrived = self.noise**2 * (round - 1.0 + 1.0 / senders)
        return Archive(
            np.where(fresh, field.values, state.examples),
            state.known | fresh,
            np.where(fresh[:, ::width], arrived, state.noise),
        )

    def estimate(self, state: Archive) -> Float[np.ndarray, "n d B"]:
        """Ridge regression on the examples known, in the coordinates of the prior's covariance."""
        width, rank = len(self.mean) + 1, self.factor.shape[1]
        count, _, prompts = state.examples.shape
        gram, moment = np.zeros((count, prompts, rank, rank)), np.zeros((count, prompts, rank, 1))
        columns = [list(column) for column in self.factor.T]
        power = float((self.mean**2).sum() + (self.factor**2).sum())
        ridge = max(self.label_noise**2, _NEGLIGIBLE) if self.noise else self.label_noise**2
        for token in range(self.tokens):
            own = [state.examples[:, token * width + k] for k in range(width)]
            weighted = own
            if self.noise:
                noise = state.noise[:, token]
                own = [*(part / (1.0 + noise) for part in own[:-1]), own[-1]]
                weight = ridge / (ridge + noise + noise * power / (1.0 + noise))
                weighted = [part * weight for part in own]
            residual = own[-1] - dot(own[:-1], list(self.mean))
            seen = [dot(own[:-1], column) for column in columns]
            heavy = seen if weighted is own else [dot(weighted[:-1], column) for column in columns]
            for r, left in enumerate(heavy):
                moment[..., r, 0] += left * residual
                for s, right in enumerate(seen[: r + 1]):
                    gram[..., r, s] += left * right
        values, vectors = np.linalg.eigh(gram)  # reads the lower triangle
        along = vectors.swapaxes(2, 3) @ moment
        significant = values > _NEGLIGIBLE * np.maximum(values[..., -1:], 1e-300)
        inverse = np.where(significant, 1.0 / np.where(significant, values + ridge, 1.0), 0.0)
        solved = (vectors @ (inverse[..., None] * along))[..., 0]
        parts = [solved[..., r] for r in range(rank)]
        return np.stack(
            [m + dot(parts, list(row)) for m, row in zip(self.mean, self.factor, strict=True)], axis=1
        )

    def atoms(self, state: Archive) -> None:
        """Ridge regression states no posterior over atoms."""
        return


def root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """F with F F' = covariance, symmetric; directions of no variance have no share in it.

    Example:
        >>> root(np.diag([4.0, 0.0])).tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def build(given: Ingredients) -> Flood:
    """The policy of an experiment."""
    prior = given.prior
    return Flood(
        given.surroundings.tokens,
        prior.mean(),
        root(prior.covariance()),
        given.label_noise,
        given.channel.noise,
    )


ENTRY = PolicyEntry(build, channels=lambda asked, tokens, dim: tokens * (dim + 1), theory="light cone")
