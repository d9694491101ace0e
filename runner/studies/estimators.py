"""What whole examples give without any protocol: ridge regression, one step of gradient descent, Bayes.

All estimators see the very prompts of a simulation, so that their risks can be paired with it.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from agents.prior import Prior, draw_latent, matched_gaussian
from agents.task import draw_tokens
from analysis.theory.closed_forms.linear_attention import anisotropic_layer
from runner.built import Built

Array = np.ndarray
Estimator = Callable[[Prior, Float[Array, "N d B"], Float[Array, "N B"], float], Float[Array, "d B"]]

_BATCH = 500  # prompts at a time
_CERTAIN = 1e-18  # a label predicted to within this variance, relative to E|w|^2, is a test of equality


def bayes(
    prior: Prior, inputs: Float[Array, "N d B"], labels: Float[Array, "N B"], label_noise: float
) -> Float[Array, "d B"]:
    """E[w | X, y]: each atom's ridge estimate, weighted by its evidence.

    Args:
        prior: prior over w.
        inputs: x of each token.
        labels: y of each token.
        label_noise: sigma.

    Source: THEORY.md section 7.5; J. E. Potter's square-root update, in P. S. Maybeck, Stochastic Models,
        Estimation and Control 1 (1979), section 7.3.

    Example:
        >>> from agents.prior import gaussian
        >>> x, w = np.eye(2)[:, :, None], np.array([0.5, -1.0])
        >>> bayes(gaussian(2), x, w[:, None], label_noise=0.0).ravel().round(6).tolist()
        [0.5, -1.0]
    """
    count, rank = len(prior.weights), prior.factor.shape[1]
    prompts = labels.shape[1]
    with np.errstate(divide="ignore"):
        logs = np.repeat(np.log(prior.weights)[:, None], prompts, axis=1)
    means = np.repeat(prior.atoms[:, :, None], prompts, axis=2)  # [M, d, B]
    root = np.repeat(prior.factor[:, :, None], prompts, axis=2)  # of Cov[w] under an atom [d, R, B]
    floor = _CERTAIN * prior.power()
    for x, y in zip(inputs, labels, strict=True):
        innovation = y - np.einsum("mdb,db->mb", means, x)
        form = np.einsum("drb,db->rb", root, x)
        variance = np.maximum((form**2).sum(axis=0) + label_noise**2, floor)
        logs -= 0.5 * innovation**2 / variance
        if rank:
            image = np.einsum("drb,rb->db", root, form)
            means += image * (innovation / variance)[:, None]
            root -= image[:, None] * form / (variance + label_noise * np.sqrt(variance))
    weights = np.exp(logs - logs.max(axis=0)) if count > 1 else np.ones((1, prompts))
    weights /= weights.sum(axis=0)
    return np.einsum("mb,mdb->db", weights, means)


def ridge(
    prior: Prior, inputs: Float[Array, "N d B"], labels: Float[Array, "N B"], label_noise: float
) -> Float[Array, "d B"]:
    """The best estimate that is linear in the labels: the posterior mean under the matched Gaussian.

    Source: A. E. Hoerl and R. W. Kennard, doi:10.1080/00401706.1970.10488634.
    """
    return bayes(matched_gaussian(prior), inputs, labels, label_noise)


def one_step(
    prior: Prior, inputs: Float[Array, "N d B"], labels: Float[Array, "N B"], label_noise: float
) -> Float[Array, "d B"]:
    """One step of gradient descent from zero, as long as is best on average.

        w = step X'y / n,    step = n / (n + d + 1 + d sigma^2 / E|w|^2)

    Source: J. von Oswald et al., arXiv:2212.07677; THEORY.md section 7.1.
    """
    count, dim, _ = inputs.shape
    step = count / (count + dim + 1 + dim * label_noise**2 / prior.power())
    return step / count * np.einsum("ndb,nb->db", inputs, labels)


def linear_attention(
    prior: Prior, inputs: Float[Array, "N d B"], labels: Float[Array, "N B"], label_noise: float
) -> Float[Array, "d B"]:
    """One layer of linear self-attention at its best: a step of gradient descent with a preconditioner.

        w = P X'y / n,    P = C ((1 + 1/n) C + (tr C + sigma^2) / n)^-1,    C = E[w w']

    Source: K. Ahn et al., arXiv:2306.00297.
    """
    count, dim, _ = inputs.shape
    second = prior.covariance() + np.outer(prior.mean(), prior.mean())
    layer = anisotropic_layer(np.eye(dim), second, count, label_noise)
    return np.einsum("de,neb,nb->db", layer.matrix, inputs, labels) / count


ESTIMATORS: dict[str, Estimator] = {
    "Bayes": bayes,
    "ridge": ridge,
    "linear attention": linear_attention,
    "one gradient step": one_step,
}


def estimator_risk(built: Built, prompts: range | None = None) -> dict[str, Float[Array, " B"]]:
    """|w - w_hat|^2 / E|w|^2 of each prompt, given all N examples, by the name of the estimator.

    Args:
        built: addresses the prompts.
        prompts: which; 0..B-1 by default.

    Example:
        >>> from runner import Experiment, build
        >>> few = build(Experiment().with_values({"task.prompts": 200}))
        >>> {name: float(risk.mean().round(2)) for name, risk in estimator_risk(few).items()}
        {'Bayes': 0.0, 'ridge': 0.0, 'linear attention': 0.17, 'one gradient step': 0.19}
    """
    prior, task, seed = built.prior, built.experiment.task, built.experiment.run.seed
    prompts = range(task.prompts) if prompts is None else prompts
    parts: dict[str, list[Float[Array, " B"]]] = {name: [] for name in ESTIMATORS}
    for first in range(prompts.start, prompts.stop, _BATCH):
        batch = range(first, min(first + _BATCH, prompts.stop))
        latent = draw_latent(prior, seed, batch)
        tokens = draw_tokens(latent, task.label_noise, seed, batch, np.arange(task.tokens))
        for name, estimator in ESTIMATORS.items():
            found = estimator(prior, tokens.inputs, tokens.labels, task.label_noise)
            parts[name].append(((latent.vector - found) ** 2).sum(axis=0) / prior.power())
    return {name: np.concatenate(risks) for name, risks in parts.items()}
