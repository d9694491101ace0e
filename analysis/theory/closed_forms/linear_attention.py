"""One linear-attention layer: the best that a single gradient step on the prompt can do, at any n and d.

The layer answers x_q with x_q . P h, where h = (1/n) sum_i y_i x_i is the field of queries along all axes
and P a preconditioner. Its law involves no more than the second and fourth moments of Gaussian inputs.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Array = np.ndarray


def linear_attention_step(context: int, dim: int, label_noise: float) -> float:
    """Best step size of one linear-attention layer, w = step / n sum_i y_i x_i.

        step = n / (n + d + 1 + sigma^2)

    Exact at every n and d for w ~ N(0, I_d), x ~ N(0, I_d).

    Args:
        context: n, number of examples.
        dim: d.
        label_noise: sigma.

    Source: THEORY.md section 7.1; from E[G] = I and E[G^2] = (1 + (d + 1) / n) I for G = X'X / n.

    Example:
        >>> linear_attention_step(20, 5, 0.0) == 20 / 26
        True
    """
    return context / (context + dim + 1 + label_noise**2)


def linear_attention_risk(context: int, dim: int, label_noise: float) -> float:
    """Risk E|w - estimate|^2 of one linear-attention layer at its best step size, absolute.

        risk = d (d + 1 + sigma^2) / (n + d + 1 + sigma^2)

    Exact at every n and d for w ~ N(0, I_d), x ~ N(0, I_d); divide by d for the relative risk.

    Source: THEORY.md section 7.1.

    Example:
        >>> round(linear_attention_risk(20, 5, 0.0), 4)
        1.1538
    """
    return dim * (1.0 - linear_attention_step(context, dim, label_noise))


class LinearLayer(NamedTuple):
    """The best linear-attention layer of a kind: w = matrix h.

    Attributes:
        matrix: the preconditioner, step times the identity if it is a scalar [d, d].
        prediction_risk: E (x_q.(w - estimate))^2 for a fresh x_q ~ N(0, Lambda), excess over sigma^2.
        estimation_risk: E |w - estimate|^2; both are absolute.
    """

    matrix: Float[Array, "d d"]
    prediction_risk: float
    estimation_risk: float


def anisotropic_layer(
    inputs: Float[Array, "d d"],
    task: Float[Array, "d d"],
    context: int,
    label_noise: float,
    scalar: bool = False,
) -> LinearLayer:
    """Best preconditioner, or best scalar step, for x ~ N(0, Lambda) and w ~ N(0, C).

        M = E[h h'] = (1 + 1/n) Lambda C Lambda + (tr(Lambda C) + sigma^2) / n Lambda
        matrix:  P = C Lambda M^-1,   E[(w - P h)(w - P h)'] = C - C Lambda M^-1 Lambda C
        scalar:  step = tr(Lambda C Lambda) / tr(Lambda M), of least prediction risk

    The matrix is best for prediction and for estimation alike, the step for prediction. Exact at every n
    and d; of w only the second moment E[w w'] = C counts, so that it holds for any prior. With
    Lambda = C = I both are n / (n + d + 1 + sigma^2).

    Args:
        inputs: Lambda, covariance of x, positive definite.
        task: C, second moment of w, positive semidefinite.
        context: n.
        label_noise: sigma.
        scalar: allow a step alone.

    Raises:
        ValueError: if n < 1.

    Source: THEORY.md section 7.1; from E[G C G] = Lambda C Lambda + (Lambda C Lambda + tr(Lambda C)
        Lambda) / n for G = X'X / n. R. Zhang, S. Frei and P. L. Bartlett, arXiv:2306.09927, for C = I;
        K. Ahn et al., arXiv:2306.00297, for the preconditioner.

    Example:
        >>> layer = anisotropic_layer(np.eye(5), np.eye(5), context=20, label_noise=0.0)
        >>> round(layer.prediction_risk, 4), round(float(layer.matrix[0, 0]), 12) == round(20 / 26, 12)
        (1.1538, True)
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    # h = L k with Lambda = L L': k is what whitened inputs would give, and its moment is never singular.
    root = np.linalg.cholesky(inputs)
    seen = root.T @ task @ root
    scatter = np.trace(seen) + label_noise**2
    moment = (1 + 1 / context) * seen + scatter / context * np.eye(len(inputs))
    cross = task @ root  # E[w k']
    if scalar:
        step = np.trace(inputs @ task @ inputs) / np.trace(root.T @ root @ moment @ root.T @ root)
        matrix = step * np.eye(len(inputs))
        whole = matrix @ root
    else:
        whole = np.linalg.solve(moment, cross.T).T if scatter else np.zeros_like(task)
        matrix = np.linalg.solve(root.T, whole.T).T
    error = task - whole @ cross.T - cross @ whole.T + whole @ moment @ whole.T
    return LinearLayer(matrix, float(np.trace(inputs @ error)), float(np.trace(error)))
