"""Means over prompts and their standard errors: what every reported number is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float


class Estimate(NamedTuple):
    """A mean over prompts, and its standard error."""

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]


def mean_over_prompts(values: Float[np.ndarray, "*rows B"]) -> Estimate:
    """Mean over the last axis, with standard error std / sqrt(B); the error of one prompt is NaN.

    Example:
        >>> mean_over_prompts(np.array([1.0, 3.0]))
        Estimate(value=array(2.), error=array(1.))
    """
    return Estimate(np.asarray(values.mean(axis=-1)), standard_error(values))


def columns(**means: Estimate) -> dict[str, float]:
    """Columns of a row: means by name, and their errors as name_se, which of `value` is se.

    Example:
        >>> columns(value=mean_over_prompts(np.array([1.0, 3.0])))
        {'value': 2.0, 'se': 1.0}
    """
    found = {}
    for name, (mean, error) in means.items():
        found[name], found["se" if name == "value" else f"{name}_se"] = float(mean), float(error)
    return found


def by_prompt(frame: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Mean of a column for each value of the keys: over the rows of a prompt first, then over prompts.

    Prompts are independent, rows of one prompt are not: the standard error is that over prompts.

    Args:
        frame: with a column prompt, the keys and the column; missing values are left out.
        keys: columns.
        column: what is averaged.

    Returns:
        the keys, value, se, prompts (their number).

    Example:
        >>> frame = pd.DataFrame({"round": 1, "prompt": [0, 0, 1], "x": [1.0, 3.0, 4.0]})
        >>> by_prompt(frame, ["round"], "x").values.tolist()
        [[1.0, 3.0, 1.0, 2.0]]
    """
    known = frame.loc[frame[column].notna(), [*keys, "prompt", column]].astype({column: float})
    means = known.groupby([*keys, "prompt"], observed=True, sort=True)[column].mean()
    grouped = means.groupby(level=list(keys), observed=True)
    found = pd.DataFrame({"value": grouped.mean(), "se": grouped.sem(), "prompts": grouped.size()})
    return found.reset_index()


def standard_error(values: Float[np.ndarray, "*rows B"]) -> Float[np.ndarray, "*rows"]:
    """std / sqrt(B) over the last axis, the variance with B - 1 in its denominator; NaN for one value.

    Example:
        >>> standard_error(np.array([1.0, 3.0]))
        array(1.)
    """
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(count))


def paired_difference(left: Float[np.ndarray, "*rows B"], right: Float[np.ndarray, "*rows B"]) -> Estimate:
    """Mean of left - right over the same prompts: what is common to both cancels.

    Example:
        >>> paired_difference(np.array([2.0, 4.0]), np.array([1.0, 3.0]))
        Estimate(value=array(1.), error=array(0.))
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
