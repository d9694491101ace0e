"""Bayes limit: the risk of the exact posterior mean given whole examples, which no depth can beat."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.random import Generator, Philox, SeedSequence

from agents.prior import Prior
from analysis.statistics import standard_error

Array = np.ndarray
_BLOCK = 256  # samples that share a generator
_CERTAIN = 1e-18  # an example predicted to within this variance, relative to E|w|^2, is a test of equality


class BayesLimit(NamedTuple):
    """Bayes risk E tr Cov[w | X, y] / E|w|^2 given the first n = 0..N examples.

    Attributes:
        risk: mean over samples [N+1].
        risk_se: its standard error [N+1].
        draws: tr Cov[w | X, y] / E|w|^2 of each sample, for paired comparisons [N+1, samples].
    """

    risk: Float[Array, " lengths"]
    risk_se: Float[Array, " lengths"]
    draws: Float[Array, "lengths samples"]


class ExactPosterior:
    """P(atom | X, y) given whole examples, of many prompts at once.

    log P(a | X, y) = log P(a) - (r'r - q'(s^2 I + Q)^-1 q) / 2 s^2 + const, with r = y - X a, q = F'X'r,
    Q = F'X'X F, F the factor of the spread around atoms, s the label noise. Examples are added in blocks.

    Args:
        prior: over w.
        label_noise: sigma; below a part in 10^9 of |w| an example is a test of equality.
        prompts: B.

    Source: THEORY.md section 7.5.

    Example:
        >>> from agents.prior.tree import tree
        >>> posterior = ExactPosterior(tree(1, 2, 0.8, 1), 0.5, prompts=1)
        >>> posterior.add(np.array([[[1.0]]]), np.array([[0.0]]))
        >>> posterior.probabilities().round(2).tolist()
        [[0.5], [0.5]]
    """

    def __init__(self, prior: Prior, label_noise: float, prompts: int) -> None:
        self._prior, rank, atoms = prior, prior.factor.shape[1], len(prior.atoms)
        self._variance = max(label_noise**2, _CERTAIN * prior.power())
        self._squares = np.zeros((atoms, prompts))
        self._images = np.zeros((atoms, prompts, rank))
        self._forms = np.zeros((prompts, rank, rank))

    def add(self, inputs: Float[Array, "n d B"], labels: Float[Array, "n B"]) -> None:
        """Examples (x, y) of some tokens."""
        spread = np.einsum("ndb,dr->nbr", inputs, self._prior.factor)
        self._forms += np.einsum("nbr,nbs->brs", spread, spread)
        for index, atom in enumerate(self._prior.atoms):
            rest = labels - np.einsum("ndb,d->nb", inputs, atom)
            self._squares[index] += (rest**2).sum(axis=0)
            self._images[index] += np.einsum("nb,nbr->br", rest, spread)

    def probabilities(self) -> Float[Array, "M B"]:
        """The posterior over atoms given all that was added."""
        rank = self._forms.shape[1]
        explained: Float[Array, "M B"] | float = 0.0
        if rank:
            solved = np.linalg.solve(
                self._forms + self._variance * np.eye(rank), np.moveaxis(self._images, 0, 2)
            )
            explained = np.einsum("abr,bra->ab", self._images, solved)
        with np.errstate(divide="ignore"):
            logs = np.log(self._prior.weights)[:, None] - (self._squares - explained) / (2 * self._variance)
        weights = np.exp(logs - logs.max(axis=0))
        return np.asarray(weights / weights.sum(axis=0))


def bayes_limit(prior: Prior, tokens: int, label_noise: float, samples: int, seed: int) -> BayesLimit:
    """Relative risk of E[w | (x_1, y_1), ..., (x_n, y_n)] for n = 0..N, y = w.x + sigma e.

    Each atom carries the posterior of a linear Gaussian model, ridge regression around the atom, and is
    weighted by its evidence. An atom's posterior covariance does not depend on the labels, so one
    square root serves all. The mean of the posterior variance is taken, which has the same expectation
    as the squared error and a smaller variance. For one atom it is the risk of ridge regression; for
    a discrete prior, that of enumeration. Unbiased at every N and sigma >= 0; position n of a causal graph
    is bounded by entry n, all positions of the complete graph by entry N. Sample i of a seed has the
    same inputs, labels' noise and atom at every n and sigma. Where a discrete prior has all but told its
    atom, rare draws carry the mean: a value far below 1 / samples and its error are then too small.

    Args:
        prior: prior over w.
        tokens: N.
        label_noise: sigma.
        samples: number of independent prompts.
        seed: seed of all draws.

    Source: THEORY.md section 7.5; J. E. Potter's square-root update, in P. S. Maybeck, Stochastic Models,
        Estimation and Control 1 (1979), section 7.3.

    Example:
        >>> from agents.prior import gaussian
        >>> limit = bayes_limit(gaussian(4), tokens=4, label_noise=0.0, samples=300, seed=0)
        >>> limit.risk.round(2).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if tokens < 0 or samples < 2 or label_noise < 0:
        raise ValueError(f"tokens={tokens}, samples={samples}, label_noise={label_noise} make no limit")
    blocks = [_block(prior, tokens, label_noise, seed, index) for index in range(-(-samples // _BLOCK))]
    draws = np.concatenate(blocks, axis=1)[:, :samples] / prior.power()
    return BayesLimit(draws.mean(axis=1), standard_error(draws), draws)


def _block(prior: Prior, tokens: int, label_noise: float, seed: int, index: int) -> Float[Array, "lengths n"]:
    """Posterior variance after each example, for the samples of one block."""
    latent, examples = (Generator(Philox(child)) for child in SeedSequence([seed, index]).spawn(2))
    rank, weights = prior.factor.shape[1], prior.weights
    atom = latent.choice(len(weights), size=_BLOCK, p=weights)
    truth = prior.atoms[atom] + latent.standard_normal((_BLOCK, rank)) @ prior.factor.T
    with np.errstate(divide="ignore"):
        logs = np.broadcast_to(np.log(weights), (_BLOCK, len(weights))).copy()
    means = np.broadcast_to(prior.atoms, (_BLOCK, *prior.atoms.shape)).copy()
    root = np.broadcast_to(prior.factor, (_BLOCK, *prior.factor.shape)).copy()  # of Cov[w] under an atom
    floor = _CERTAIN * prior.power()
    result = np.empty((tokens + 1, _BLOCK))
    result[0] = _variance(logs, means, root)
    for length in range(1, tokens + 1):
        draws = examples.standard_normal((_BLOCK, prior.dim + 1))
        x, e = draws[:, :-1], draws[:, -1]
        innovation = ((x * truth).sum(axis=1) + label_noise * e)[:, None] - (means @ x[..., None])[..., 0]
        form = (x[:, None] @ root)[:, 0]
        variance = np.maximum((form**2).sum(axis=1) + label_noise**2, floor)
        logs -= 0.5 * innovation**2 / variance[:, None]
        if rank:
            image = (root @ form[..., None])[..., 0]
            means += (innovation / variance[:, None])[..., None] * image[:, None]
            share = variance + label_noise * np.sqrt(variance)
            root -= image[..., None] * (form / share[:, None])[:, None]
        result[length] = _variance(logs, means, root)
    return result


def _variance(
    logs: Float[Array, "n M"], means: Float[Array, "n M d"], root: Float[Array, "n d R"]
) -> Float[Array, " n"]:
    """Posterior variance tr Cov[w]: within an atom and between them."""
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    # Around the likeliest atom, so that a variance far below |w|^2 keeps its digits.
    likeliest = np.take_along_axis(means, logs.argmax(axis=1)[:, None, None], axis=1)
    centred = means - likeliest
    mean = (weights[:, None] @ centred)[:, 0]
    between = (weights * (centred**2).sum(axis=2)).sum(axis=1) - (mean**2).sum(axis=1)
    return np.maximum(between, 0.0) + (root**2).sum(axis=(1, 2))
