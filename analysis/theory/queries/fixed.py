"""Fixed queries: the best L constant directions on the sphere, and the risk they have.

What a transformer can do whose queries are learned constants; its decoder is Bayes, and with a control
variate its messages still depend on what was heard.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, islice
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import ndtri
from scipy.stats import qmc

from agents.codebook import Codebook, pooled, principal
from agents.prior import Prior
from analysis.theory.evolution.complete import Prediction, evolve
from analysis.theory.setting import Setting

Array = np.ndarray
_COARSE, _FINE, _CHECK = 9, 12, 14  # log2 of the paths of a first descent, of a second, and of the choice
_TILT = 0.1  # codes are stationary by symmetry: a descent starts beside them
_MOST_ORDERS = 200
_AT_ONCE = 8192  # paths times atoms that are computed together: what a cache holds


class FixedQueries(NamedTuple):
    """The best queries that were found, in the order they are asked [L, d], and what they lead to."""

    queries: Float[Array, "L d"]
    prediction: Prediction


def best_fixed_queries(
    setting: Setting,
    samples: int,
    seed: int,
    starts: Sequence[Float[Array, "L d"]] = (),
    random_starts: int = 24,
    tries: int = 6,
) -> FixedQueries:
    """Search for the L unit queries, fixed beforehand, that leave the least risk after the last round.

        min over |u_1| = ... = |u_L| = 1 of E tr Cov[w | fields of rounds 1..L]

    A local search by quasi-Newton descent from orders of codes and of pooled codes, from random
    superpositions, and from what is given. It minimises a sample average under the Gaussian law of the
    fields, controls included, which is O(1/N) off and takes quantisation for noise of variance step^2/12.
    The risk that is returned is that of the exact law, with clipping and rounding, on samples that the
    search has not seen: the risk of real queries, hence an upper bound on the best.

    Args:
        setting: the system, one channel; its policy, codes and schedule are not used.
        samples: number of independent prompts of the prediction.
        seed: seed of all draws.
        starts: queries to start from as well.
        random_starts: how many random superpositions to start from.
        tries: how many of the queries found with few paths are improved with many.

    Raises:
        ValueError: if the prior is not discrete, there is not one channel, no round, an N that is not an
            integer, a belief that takes rounds as independent, or a start that does not fit.

    Source: THEORY.md sections 5, 7.2 and 8; sample average approximation, A. J. Kleywegt, A. Shapiro and
        T. Homem-de-Mello (2002), doi:10.1137/S1052623499363220.

    Example:
        >>> from agents.prior import tree
        >>> prior = tree(2, 2, 0.8, 3)
        >>> setting = Setting(prior, principal(prior), "adaptive", 2, 1, 32.0, 0.1, 1.0)
        >>> found = best_fixed_queries(setting, 2000, seed=0, random_starts=4, tries=1)
        >>> found.queries.shape, bool(found.prediction.risk[2] < 0.14)
        ((2, 3), True)
    """
    _refuse(setting, starts)
    prior, rounds = setting.prior, setting.rounds
    generator = np.random.default_rng(seed)
    coarse, fine, check = (sample_average(setting, 2**log, generator) for log in (_COARSE, _FINE, _CHECK))
    orders = sorted(_orders(prior, rounds), key=coarse.risk)[: max(tries, 1)]
    first = [order + _TILT * _superposition(prior, rounds, generator) for order in orders]
    first += [_superposition(prior, rounds, generator) for _ in range(random_starts)]
    given = [_units(start) for start in starts]
    found = sorted((coarse.descend(start) for start in [*first, *given]), key=fine.risk)
    improved = [fine.descend(queries) for queries in found[:tries]]
    queries = min([*improved, *found[:1], *orders, *given], key=check.risk)
    return FixedQueries(queries, evolve(asking(setting, queries), "exact", samples, seed))


def asking(setting: Setting, queries: Float[Array, "L d"]) -> Setting:
    """The same system, with these queries as the codes of its static policy, one a round."""
    count = len(queries)
    schedule = tuple((round,) for round in range(count))
    codebook = Codebook(queries, np.arange(1, count + 1))
    return replace(setting, codebook=codebook, policy="static", rounds=count, schedule=schedule)


@dataclass(frozen=True, eq=False)
class SampleAverage:
    """Risk of any L queries, averaged over the same paths: an atom, and the noise of each round.

    Attributes:
        setting: the system, one channel, a discrete prior.
        truth: true atom of each path [P].
        noise: standard normal numbers, one for the innovation of each field [L, P].
        shares: probability that each path stands for, over E|w|^2 [P].
    """

    setting: Setting
    truth: Int[Array, " P"]
    noise: Float[Array, "L P"]
    shares: Float[Array, " P"]

    def risk(self, queries: Float[Array, "L d"]) -> float:
        """Relative risk after the last round."""
        return 1.0 - sum(paths.seen for paths in self._run(queries))

    def risk_and_gradient(self, queries: Float[Array, "L d"]) -> tuple[float, Float[Array, "L d"]]:
        """Relative risk 1 - E|E[w | fields]|^2 / E|w|^2, and its gradient along the spheres.

        Fields are Gaussian under each atom with the covariance of one token over N, and each control is
        the posterior mean on its own path. The gradient is that of the value: the chain rule, backwards.

        Source: THEORY.md section 5.
        """
        risk, slope = 1.0, np.zeros_like(queries)
        for paths in self._run(queries):
            risk -= paths.seen
            slope -= paths.slope()
        return risk, slope - (slope * queries).sum(axis=1, keepdims=True) * queries

    def descend(self, queries: Float[Array, "L d"]) -> Float[Array, "L d"]:
        """Queries of a local minimum near these."""

        def loss(point: Float[Array, " p"]) -> tuple[float, Float[Array, " p"]]:
            rows = point.reshape(queries.shape)
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            risk, slope = self.risk_and_gradient(rows / norms)
            return risk, (slope / norms).ravel()

        found = minimize(loss, queries.ravel(), jac=True, method="L-BFGS-B", options={"ftol": 1e-8})
        return _units(found.x.reshape(queries.shape))

    def _run(self, queries: Float[Array, "L d"]) -> Iterator["_Paths"]:
        size = max(_AT_ONCE // len(self.setting.prior.weights), 1)
        for first in range(0, len(self.truth), size):
            yield _Paths(self, slice(first, first + size), queries)


def sample_average(setting: Setting, paths: int, generator: np.random.Generator) -> SampleAverage:
    """About so many paths, as many for each atom, their noise from a scrambled Sobol sequence.

    Source: A. B. Owen, Randomly permuted (t,m,s)-nets and (t,s)-sequences (1995),
        doi:10.1007/978-1-4612-2552-2_19.
    """
    atoms = len(setting.prior.weights)
    each = 2 ** max(round(np.log2(paths / atoms)), 0)
    sequence = qmc.Sobol(setting.rounds, rng=generator)
    # Every run of so many points is a net of its own.
    noise = np.concatenate([ndtri(sequence.random(each)) for _ in range(atoms)])
    truth = np.repeat(np.arange(atoms), each)
    shares = setting.prior.weights[truth] / (each * setting.prior.power())
    return SampleAverage(setting, truth, noise.T, shares)


class _Paths:
    """Some paths of a sample average, run forward; axes: S or L rounds, M atoms, d dimensions, P paths."""

    def __init__(self, average: SampleAverage, some: slice, queries: Float[Array, "L d"]) -> None:
        setting, prior, count = average.setting, average.setting.prior, len(queries)
        self.setting, self.queries, self.atoms = setting, queries, prior.atoms
        self.truth, self.noise = average.truth[some], average.noise[:, some]
        self.shares, self.everyone = average.shares[some], np.arange(len(self.truth))
        self.signals, self.gram = queries @ self.atoms.T, queries @ queries.T
        shape, self.channel = (len(self.atoms), len(self.truth)), setting.channel_variance / setting.effective
        self.means = np.zeros((count + 1, prior.dim, shape[1]))  # v_t; the estimate comes last
        # w.v_t and u_s.v_t; innovations over their deviation; posterior; rows of the covariance's factor.
        self.along, self.answers = np.zeros((count, *shape)), np.zeros((count, count, shape[1]))
        self.errors, self.weights = np.zeros((count, *shape)), np.zeros((count, *shape))
        self.rows: list[Float[Array, "_ M P"]] = []
        self.means[0] = setting.control_variate * prior.mean()[:, None]
        logs = np.log(np.maximum(prior.weights, 1e-300))[:, None]
        for t in range(count):
            self.along[t], self.answers[t] = self.atoms @ self.means[t], queries @ self.means[t]
            row = self._row(t)
            field = (row[:, self.truth, self.everyone] * self.noise[: t + 1]).sum(axis=0)
            field += self.signals[t, self.truth]
            heard = field - self.signals[t][:, None] - (row[:t] * self.errors[:t]).sum(axis=0)
            self.errors[t] = heard / row[t]
            logs = logs - 0.5 * self.errors[t] ** 2 - np.log(row[t])
            weights = np.exp(logs - logs.max(axis=0))
            self.weights[t] = weights / weights.sum(axis=0)
            if setting.control_variate or t == count - 1:
                self.means[t + 1] = self.atoms.T @ self.weights[t]
        self.seen = float((self.means[-1] ** 2).sum(axis=0) @ self.shares)  # E|E[w | fields]|^2 / E|w|^2

    def slope(self) -> Float[Array, "L d"]:
        """Gradient of `seen` in all components of the queries; `by_x` is its derivative in x."""
        by_means, by_errors = np.zeros_like(self.means), np.zeros_like(self.errors)
        by_along, by_answers = np.zeros_like(self.along), np.zeros_like(self.answers)
        by_rows = [np.zeros_like(row) for row in self.rows]
        by_signals, by_gram = np.zeros_like(self.signals), np.zeros_like(self.gram)
        by_queries, by_logs = np.zeros_like(self.queries), np.zeros_like(self.errors[0])
        by_means[-1] = 2 * self.means[-1] * self.shares
        for t in reversed(range(len(self.rows))):
            now, row, by_row = slice(t + 1), self.rows[t], by_rows[t]
            pull = self.atoms @ by_means[t + 1]
            by_logs += self.weights[t] * (pull - (self.weights[t] * pull).sum(axis=0))
            by_heard = (by_errors[t] - by_logs * self.errors[t]) / row[t]
            by_row[t] -= by_logs / row[t] + by_heard * self.errors[t]
            by_row[:t] -= by_heard * self.errors[:t]
            by_errors[:t] -= by_heard * row[:t]
            by_field = by_heard.sum(axis=0)
            by_row[:, self.truth, self.everyone] += by_field * self.noise[now]
            by_signals[t] += np.bincount(self.truth, by_field, len(self.atoms)) - by_heard.sum(axis=1)
            by_covariance = self._by_covariance(t, by_rows)
            size, outward, inward = self._products(t)
            by_outward, by_inward = by_covariance * inward, by_covariance * outward
            by_gram[t, now] += (by_covariance * size).sum(axis=(1, 2))
            by_signals[t] += by_outward.sum(axis=(0, 2))
            by_signals[now] += by_inward.sum(axis=2)
            if self.setting.control_variate:
                by_size = by_covariance * self.gram[t, now, None, None]
                by_along[now] -= by_size
                by_along[t] -= by_size.sum(axis=0)
                by_answers[now, t] -= by_outward.sum(axis=1)
                by_answers[t, now] -= by_inward.sum(axis=1)
                by_inner = by_size.sum(axis=1)[:, None]
                by_means[now] += by_inner * self.means[t]
                by_means[t] += (by_inner * self.means[now]).sum(axis=0)
                by_means[t] += self.atoms.T @ by_along[t] + self.queries.T @ by_answers[t]
                by_queries += by_answers[t] @ self.means[t].T
        return by_queries + by_signals @ self.atoms + (by_gram + by_gram.T) @ self.queries

    def _products(self, t: int) -> tuple[Float[Array, "S M P"], Float[Array, "S M P"], Float[Array, "S M P"]]:
        """o_t.o_s + sigma^2, u_t.o_s and u_s.o_t for s <= t, with o_s = w - v_s."""
        now = slice(t + 1)
        power = (self.atoms**2).sum(axis=1)[:, None] + self.setting.label_noise**2
        inner = (self.means[now] * self.means[t]).sum(axis=1)[:, None]
        size = power - self.along[now] - self.along[t] + inner
        outward = self.signals[t][:, None] - self.answers[now, t][:, None]
        return size, outward, self.signals[now, :, None] - self.answers[t, now][:, None]

    def _row(self, t: int) -> Float[Array, "S M P"]:
        """One more row of the Cholesky factor; its pivot holds the channel's noise, far above rounding."""
        size, outward, inward = self._products(t)
        row = (self.gram[t, : t + 1, None, None] * size + outward * inward) / self.setting.effective
        row[t] += self.channel
        for s, earlier in enumerate(self.rows):
            row[s] = (row[s] - (row[:s] * earlier[:s]).sum(axis=0)) / earlier[s]
        row[t] = np.sqrt(row[t] - (row[:t] ** 2).sum(axis=0))
        self.rows.append(row)
        return row

    def _by_covariance(self, t: int, by_rows: list[Float[Array, "_ M P"]]) -> Float[Array, "S M P"]:
        """The derivative in a row of N times the covariance; earlier rows get their share of `by_rows`."""
        row, by_row = self.rows[t], by_rows[t]
        result = np.empty_like(row)
        result[t] = by_row[t] / (2 * row[t])
        by_row[:t] -= 2 * result[t] * row[:t]
        for s in reversed(range(t)):
            earlier, by_earlier = self.rows[s], by_rows[s]
            result[s] = by_row[s] / earlier[s]
            by_earlier[s] -= result[s] * row[s]
            by_earlier[:s] -= result[s] * row[:s]
            by_row[:s] -= result[s] * earlier[:s]
        return result / self.setting.effective


def _orders(prior: Prior, rounds: int) -> list[Float[Array, "L d"]]:
    """Codes in turn, pooled codes in turn, and coarse to fine each level as often in a row as one likes."""
    codes, levels = principal(prior).directions, pooled(prior).directions
    turns = [directions[np.arange(rounds) % len(directions)] for directions in (codes, levels)]
    repeated = combinations_with_replacement(range(len(levels)), rounds)
    stride = -(-comb(len(levels) + rounds - 1, rounds) // _MOST_ORDERS)
    return [*turns, *(levels[list(order)] for order in islice(repeated, 0, None, stride))]


def _superposition(prior: Prior, rounds: int, generator: np.random.Generator) -> Float[Array, "L d"]:
    """Directions of normal vectors with the covariance of the prior: all levels at once."""
    centred = np.sqrt(prior.weights)[:, None] * (prior.atoms - prior.mean())
    return _units(generator.standard_normal((rounds, len(centred))) @ centred)


def _units(vectors: Float[Array, "L d"]) -> Float[Array, "L d"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _refuse(setting: Setting, starts: Sequence[Float[Array, "L d"]]) -> None:
    if setting.prior.factor.shape[1]:
        raise ValueError("fixed queries are searched for discrete priors; this one has a Gaussian part")
    if setting.channels != 1 or setting.rounds < 1 or not setting.joint:
        raise ValueError("fixed queries are searched for one channel, one round or more, and joint beliefs")
    if setting.effective != int(setting.effective):
        raise ValueError(f"the exact form needs an integer number of tokens, got {setting.effective}")
    shape = (setting.rounds, setting.prior.dim)
    if any(start.shape != shape or not start.any(axis=1).all() for start in starts):
        raise ValueError(f"a start needs {shape[0]} queries of {shape[1]} numbers, none of them zero")
