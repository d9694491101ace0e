"""Continuous queries: the best direction on the unit sphere, one round ahead, and what codes lose to it.

A code measures one node of a tree; a query may superpose the nodes of several levels in one number.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from agents.codebook import pooled, principal
from agents.prior import Prior
from analysis.statistics import standard_error
from analysis.theory.evolution.complete import Form, extend
from analysis.theory.evolution.fields import ExactLaw, GaussianLaw
from analysis.theory.evolution.posterior import Posterior, Record, condition
from analysis.theory.evolution.posterior import start as begin
from analysis.theory.queries.questions import GaussianQuestion, first_question
from analysis.theory.setting import Setting

Array = np.ndarray
_TILT = 0.05  # codes are stationary by symmetry: a search starts beside them


@runtime_checkable
class Question(Protocol):
    """What a token knows before it asks: expected risk of any unit query, and its gradient."""

    def risk_and_gradient(self, query: Float[Array, " d"]) -> tuple[float, Float[Array, " d"]]:
        """Risk E tr Cov[w | field], absolute, and its gradient along the sphere."""
        ...


class Asked(NamedTuple):
    """A query and the absolute risk E|w - estimate|^2 that it leads to: query [d], risk."""

    query: Float[Array, " d"]
    risk: float


def best_query(
    question: Question, starts: Sequence[Float[Array, " d"]], tries: int = 8, tolerance: float = 1e-7
) -> Asked:
    """The best query found from several starts by quasi-Newton descent on the sphere.

    A local search: its risk is that of a real query, thus an upper bound on the best of all.

    Args:
        question: what is known before.
        starts: directions to start beside; each is asked itself too.
        tries: how many of the best are improved.
        tolerance: largest component of the gradient at which a search stops.

    Source: THEORY.md section 8.

    Example:
        >>> from agents.prior import tree
        >>> prior = tree(3, 2, 0.8, 7)
        >>> question = first_question(prior, 32.0, 0.1, 1.0)
        >>> best, code = best_query(question, starts(prior)), best_code(question, prior)
        >>> bool(best.risk < 0.9 * code.risk)
        True
    """

    def loss(point: Float[Array, " d"]) -> tuple[float, Float[Array, " d"]]:
        norm = np.linalg.norm(point)
        risk, slope = question.risk_and_gradient(point / norm)
        return risk, slope / norm

    asked = []
    for start in starts:
        unit = start / np.linalg.norm(start)
        asked.append(Asked(unit, question.risk_and_gradient(unit)[0]))
    asked.sort(key=lambda one: one.risk)
    for near in asked[:tries]:
        beside = near.query + _TILT * np.cos(1.0 + np.arange(len(near.query)))
        found = minimize(loss, beside, jac=True, method="BFGS", options={"gtol": tolerance})
        asked.append(Asked(found.x / np.linalg.norm(found.x), float(found.fun)))
    return min(asked, key=lambda one: one.risk)


def best_code(question: Question, prior: Prior) -> Asked:
    """The best of the codes and of the pooled queries."""
    directions = [*principal(prior).directions, *pooled(prior).directions]
    return min(
        (Asked(unit, question.risk_and_gradient(unit)[0]) for unit in directions), key=lambda one: one.risk
    )


def starts(prior: Prior) -> list[Float[Array, " d"]]:
    """Where to look for queries: codes, pooled codes, and sums of pooled codes coarse to fine."""
    levels = pooled(prior).directions
    height = np.sqrt(np.maximum(((levels @ prior.covariance()) * levels).sum(axis=1), 0.0))
    sums = np.cumsum(levels * height[:, None], axis=0)
    return [*principal(prior).directions, *levels, *sums[1:]]


def code_loss(question: Question, prior: Prior) -> float:
    """How many times the risk of the best query the best code has, one round ahead; at least 1.

    Source: THEORY.md section 8.

    Example:
        >>> from agents.prior import matched_gaussian, tree
        >>> null = matched_gaussian(tree(2, 2, 0.8, 3))
        >>> round(code_loss(first_question(null, 32.0, 0.1, 1.0), null), 6)  # an eigenvector is best
        1.0
    """
    return best_code(question, prior).risk / best_query(question, starts(prior)).risk


class ContinuousPrediction(NamedTuple):
    """Relative risk of greedy continuous queries after rounds 0..L, and its standard error [L+1]."""

    risk: Float[Array, " rounds"]
    risk_se: Float[Array, " rounds"]


def evolve_queries(setting: Setting, form: Form, samples: int, seed: int) -> ContinuousPrediction:
    """State evolution of the policy that asks, each round, the best query on the sphere one round ahead.

    Each sample's own belief is searched, about 10 ms a sample and round for eight atoms. Errors are those
    of the fields' law, `exact` at any N; the search assumes fields that are Gaussian under each atom, with
    their covariance with all that was heard. Greedy, so not a bound on deeper plans.

    Args:
        setting: the system, one channel; its codes are not used.
        form: law of the fields.
        samples: number of independent prompts; a few hundred.
        seed: seed of all draws.

    Raises:
        ValueError: if the prior has a Gaussian part or there is more than one channel.

    Source: THEORY.md sections 5, 7.2 and 8.
    """
    prior = setting.prior
    if prior.factor.shape[1] or setting.channels != 1 or not setting.joint:
        raise ValueError("continuous queries are evolved for discrete priors, one channel, joint beliefs")
    generator = np.random.default_rng(seed)
    truth = prior.atoms[generator.choice(len(prior.weights), size=samples, p=prior.weights)]
    scale = (setting.effective, setting.label_noise, setting.channel_variance)
    law: ExactLaw | GaussianLaw = GaussianLaw(*scale, truth)
    if form == "exact":
        if setting.effective != int(setting.effective):
            raise ValueError(f"the exact form needs an integer number of tokens, got {setting.effective}")
        examples = generator.standard_normal((samples, prior.dim + 1, int(setting.effective)))
        law = ExactLaw(*scale, truth, examples)
    record = begin(prior, samples)
    belief = condition(prior, record)
    errors = [((belief.mean() - truth) ** 2).sum(axis=1)]
    beside = starts(prior)
    for round in range(setting.rounds):
        control = belief.mean() if setting.control_variate else np.zeros_like(truth)
        if round == 0:
            question = first_question(prior, *scale, control[0])
            asked = np.broadcast_to(best_query(question, beside).query, truth.shape)
        else:
            now = [later_question(setting, record, belief, control[i], i) for i in range(samples)]
            asked = np.stack([best_query(one, beside, tries=1, tolerance=1e-3).query for one in now])
        values = law.fields(asked[:, None], control, generator.standard_normal((samples, 1)))
        record = extend(setting, record, belief, asked[:, None], control, values)
        belief = condition(prior, record)
        errors.append(((belief.mean() - truth) ** 2).sum(axis=1))
    relative = np.stack(errors) / prior.power()
    return ContinuousPrediction(relative.mean(axis=1), standard_error(relative))


def later_question(
    setting: Setting, record: Record, belief: Posterior, control: Float[Array, " d"], sample: int
) -> GaussianQuestion:
    """The question of one sample after some rounds, for a discrete prior.

    The next field along u has covariance R u / N with what was heard, R_t = (q.q_t + sigma^2) u_t +
    (u_t.q) q_t; so its mean given what was heard is linear in u, and its variance quadratic. Atoms of
    probability below 1e-9 are left out.

    Source: THEORY.md section 5; Schur complement.
    """
    alive = belief.weights[sample] > 1e-9
    means, weights = setting.prior.atoms[alive], belief.weights[sample][alive]
    q, past = means - control, record.offsets[sample][alive]  # [m, d], [m, T, d]
    u = record.directions[sample]  # [T, d]
    common = (past @ q[..., None])[..., 0] + setting.label_noise**2
    cross = common[..., None] * u + (q @ u.T)[..., None] * past
    cross /= setting.effective
    heard = record.values[sample] - means @ u.T
    solved = np.linalg.solve(record.covariance[sample][alive], np.concatenate([cross, heard[..., None]], 2))
    explained = cross.swapaxes(1, 2) @ solved
    own = (q**2).sum(axis=1) + setting.label_noise**2 + setting.channel_variance
    forms = own[:, None, None] * np.eye(setting.prior.dim) + q[:, :, None] * q[:, None]
    none = np.zeros((setting.prior.dim, setting.prior.dim))
    forms = forms / setting.effective - explained[..., :-1]
    slopes = means + explained[..., -1]
    return GaussianQuestion(weights / weights.sum(), means, none, slopes, (forms + forms.swapaxes(1, 2)) / 2)
