"""Measures: pure functions from numbers by prompt to numbers with standard errors."""

import numpy as np
from jaxtyping import Float

from runner.risk import Estimated, mean_over_prompts


def paired_difference(left: Float[np.ndarray, "*rows B"], right: Float[np.ndarray, "*rows B"]) -> Estimated:
    """Mean of left - right over the same prompts: what is common to both cancels.

    Example:
        >>> paired_difference(np.array([2.0, 4.0]), np.array([1.0, 3.0]))
        Estimated(value=array(1.), error=array(0.))
    """
    return mean_over_prompts(left - right)


def z_scores(
    left: Float[np.ndarray, "..."],
    left_error: Float[np.ndarray, "..."],
    right: Float[np.ndarray, "..."],
    right_error: Float[np.ndarray, "..."],
    floor: float = 1e-12,
) -> Float[np.ndarray, "..."]:
    """Difference of two independent estimates in units of its standard error.

    Args:
        left: first estimate.
        left_error: its standard error.
        right: second estimate.
        right_error: its standard error.
        floor: errors below this are numerical zeros; two equal certainties differ by 0.

    Example:
        >>> z_scores(np.array([1.0]), np.array([0.3]), np.array([0.5]), np.array([0.4]))
        array([1.])
    """
    return np.asarray((left - right) / np.maximum(np.hypot(left_error, right_error), floor))
