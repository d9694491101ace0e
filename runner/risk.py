"""Mean over prompts, and its standard error: what every reported risk is made of."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Estimated(NamedTuple):
    """A mean and its standard error over prompts."""

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]


def mean_over_prompts(values: Float[np.ndarray, "*rows B"]) -> Estimated:
    """Mean over the last axis, with standard error std / sqrt(B); the error of one prompt is NaN.

    Example:
        >>> mean_over_prompts(np.array([1.0, 3.0]))
        Estimated(value=array(2.), error=array(1.))
    """
    count = values.shape[-1]
    mean = np.asarray(values.mean(axis=-1))
    if count < 2:
        return Estimated(mean, np.full_like(mean, np.nan))
    return Estimated(mean, np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(count)))
