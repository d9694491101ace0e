"""Transformers that lack a part: medians over seeds, and gaps to the full one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

FULL = "full"  # the variant that lacks nothing


def medians(rows: pd.DataFrame) -> pd.DataFrame:
    """Median over seeds, with an interval: from the least to the largest, and two standard errors beyond.

    Of five seeds least and largest enclose the median of all seeds with probability 1 - 2/32 = .94; the
    standard errors are those over prompts.

    Args:
        rows: columns source, prior, policy, depth, seed, risk, risk_se.

    Returns:
        columns source, prior, policy, depth, risk, low, high, seeds.

    Example:
        >>> rows = pd.DataFrame({"source": "transformer", "prior": "tree", "policy": "full", "depth": 1,
        ...                      "seed": [0, 1, 2], "risk": [0.2, 0.3, 0.5], "risk_se": 0.01})
        >>> medians(rows)[["risk", "low", "high", "seeds"]].round(2).values.tolist()
        [[0.3, 0.18, 0.52, 3.0]]
    """
    keys = ["source", "prior", "policy", "depth"]
    ends = rows.assign(low=rows["risk"] - 2 * rows["risk_se"], high=rows["risk"] + 2 * rows["risk_se"])
    grouped = ends.groupby(keys, sort=False)
    found = grouped.agg(
        risk=("risk", "median"), low=("low", "min"), high=("high", "max"), seeds=("seed", "size")
    )
    return found.reset_index()


def gaps(rows: pd.DataFrame, prior: str, variants: Sequence[str] | None = None) -> pd.DataFrame:
    """Risk of each variant over that of the full transformer, by depth, and what theory says of the ratio.

    Args:
        rows: as for `medians`; sources transformer and theory.
        prior: on which.
        variants: which; all but the full one by default.

    Returns:
        columns policy, depth, ratio, low, high, predicted (NaN without theory). The interval holds all
        ratios of two values in the intervals of the two medians.
    """
    found = medians(rows[rows["prior"] == prior])
    trained: Any
    theory: Any
    trained, theory = (
        found[found["source"] == source].set_index(["policy", "depth"])
        for source in ("transformer", "theory")
    )
    names = [name for name in dict.fromkeys(trained.index.get_level_values(0)) if name != FULL]
    table = []
    for name in names if variants is None else variants:
        for depth in trained.loc[name].index:
            own: Any = trained.loc[(name, depth)]
            full: Any = trained.loc[(FULL, depth)]
            told = all((which, depth) in theory.index for which in (name, FULL))
            table.append(
                {
                    "policy": name,
                    "depth": int(depth),
                    "ratio": own["risk"] / full["risk"],
                    "low": own["low"] / full["high"],
                    "high": own["high"] / full["low"],
                    "predicted": theory.loc[(name, depth), "risk"] / theory.loc[(FULL, depth), "risk"]
                    if told
                    else np.nan,
                }
            )
    return pd.DataFrame(table, columns=["policy", "depth", "ratio", "low", "high", "predicted"])
