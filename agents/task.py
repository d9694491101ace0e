"""In-context regression prompts: what each token position is given to know."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from agents.prior import Latent
from agents.reductions import dot
from agents.rng import Purpose, normals_at


class TokenView(NamedTuple):
    """What the token positions of a block know from the start: their own data, nothing else.

    Attributes:
        positions: token positions [n].
        inputs: x_i ~ N(0, I_d) [n, d, B].
        labels: y_i = w.x_i + sigma e_i [n, B].
    """

    positions: Int[np.ndarray, " n"]
    inputs: Float[np.ndarray, "n d B"]
    labels: Float[np.ndarray, "n B"]


def draw_tokens(
    latent: Latent, label_noise: float, seed: int, prompts: range, positions: Int[np.ndarray, " n"]
) -> TokenView:
    """Draw the examples of some token positions of some prompts.

    Args:
        latent: the true task of each prompt.
        label_noise: sigma, standard deviation of the label noise.
        seed: the experiment's seed.
        prompts: consecutive prompt indices, as in `latent`.
        positions: token positions of this block.

    Source: THEORY.md section 3.

    Example:
        >>> from agents.prior import draw_latent, gaussian
        >>> latent = draw_latent(gaussian(2), 0, range(10))
        >>> block = draw_tokens(latent, 0.1, 0, range(10), np.arange(3))
        >>> alone = draw_tokens(latent, 0.1, 0, range(10), np.array([2]))
        >>> bool((block.labels[2] == alone.labels[0]).all())
        True
    """
    dim = latent.vector.shape[0]
    draws = normals_at(seed, Purpose.TOKEN, prompts, dim + 1, positions)
    inputs = np.ascontiguousarray(draws[:, :dim])
    labels = dot(list(latent.vector), list(np.moveaxis(inputs, 1, 0))) + label_noise * draws[:, dim]
    return TokenView(positions, inputs, labels)
