"""What it takes to get below a risk, and how that grows: with standard errors, from tables of risks."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

TARGET = 0.05  # risk / E|w|^2 that counts as solved


class Measured(NamedTuple):
    """A number and its standard error; NaN where it could not be measured."""

    value: float
    se: float

    @property
    def interval(self) -> tuple[float, float]:
        """Within 1.96 standard errors."""
        return self.value - 1.96 * self.se, self.value + 1.96 * self.se


def needed(rows: pd.DataFrame, across: str = "round", target: float = TARGET) -> Measured:
    """Where the risk first falls below a target, between two rows on a straight line of its logarithm.

    Args:
        rows: `across`, risk, risk_se; of one curve.
        across: rounds, tokens or whatever else is spent.
        target: risk.

    Returns:
        the place, with the standard error that follows from those of the two risks, NaN if these are, or if
        already the first row is below; NaN if none is.

    Example:
        >>> rows = pd.DataFrame({"round": [0, 1, 2], "risk": [1.0, 0.1, 0.01], "risk_se": [0.0, 0.01, 0.001]})
        >>> round(needed(rows, target=0.0316).value, 2)
        1.5
    """
    return _crossing(rows.sort_values(across), across, target, falling=True)


def borne(rows: pd.DataFrame, across: str, target: float = TARGET) -> Measured:
    """Where the risk first rises above a target, likewise."""
    return _crossing(rows.sort_values(across), across, target, falling=False)


def _crossing(rows: pd.DataFrame, across: str, target: float, falling: bool) -> Measured:
    place, risk, error = rows[[across, "risk", "risk_se"]].to_numpy(float).T
    risk = np.maximum(risk, target / 50)  # a straight line to nearly nothing would say little
    beyond = np.flatnonzero(risk <= target if falling else risk > target)
    if not len(beyond):
        return Measured(float("nan"), float("nan"))
    end = int(beyond[0])
    if end == 0:  # so much or less
        return Measured(float(place[0]), float("nan"))
    over, under = np.log(risk[end - 1 : end + 1] / target)
    share = over / (over - under)
    # d share / d log(risk) of the two rows, each with an error of se / risk
    relative = error[end - 1 : end + 1] / risk[end - 1 : end + 1]
    slopes = np.array([-under, over]) / (over - under) ** 2
    spread = float(np.hypot(*(slopes * np.minimum(relative, 1.0))))
    step = float(place[end] - place[end - 1])
    return Measured(float(place[end - 1] + share * step), spread * abs(step))


def slope(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> Measured:
    """Slope of a straight line by weighted least squares; scatter beyond the errors widens its error.

    Args:
        x: places.
        y: measured there.
        error: standard errors of y; those below a hundredth of the mean count as that.

    Example:
        >>> round(slope(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]), np.full(3, 0.1)).value, 6)
        2.0
    """
    known = np.isfinite(y) & np.isfinite(error)
    if known.sum() < 2:
        return Measured(float("nan"), float("nan"))
    x, y, error = x[known], y[known], error[known]
    weight = 1.0 / np.maximum(error, 0.01 * np.abs(y).mean() + 1e-12) ** 2
    mean = (weight * x).sum() / weight.sum()
    spread = (weight * (x - mean) ** 2).sum()
    found = (weight * (x - mean) * y).sum() / spread
    residual = y - (weight * y).sum() / weight.sum() - found * (x - mean)
    scatter = (weight * residual**2).sum() / max(1, len(x) - 2)
    return Measured(float(found), float(np.sqrt(max(1.0, scatter if len(x) > 2 else 1.0) / spread)))


def ratio(one: pd.Series, other: pd.Series) -> Measured:
    """Risk over risk of two independent rows, with the error of its logarithm times it.

    Example:
        >>> row = pd.Series({"risk": 0.2, "risk_se": 0.0})
        >>> ratio(row, row)
        Measured(value=1.0, se=0.0)
    """
    value = float(one["risk"]) / max(float(other["risk"]), 1e-12)
    parts = [float(row["risk_se"]) / max(float(row["risk"]), 1e-12) for row in (one, other)]
    return Measured(value, value * float(np.hypot(parts[0], parts[1])))


def each(rows: pd.DataFrame, keys: Sequence[str], across: str = "round") -> pd.DataFrame:
    """What is needed of each curve: the keys, value, se.

    Example:
        >>> rows = pd.DataFrame({"kind": "a", "round": [0, 1], "risk": [1.0, 0.01], "risk_se": 0.0})
        >>> each(rows, ["kind"])["value"].round(2).tolist()
        [0.65]
    """
    found = []
    for names, part in rows.groupby(list(keys), sort=False):
        named = names if isinstance(names, tuple) else (names,)
        found.append((*named, *needed(part, across)))
    return pd.DataFrame(found, columns=[*keys, "value", "se"])
