"""Transformers that lack a part: medians over seeds, and gaps to the full one."""

from collections.abc import Sequence

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
    trained, theory = (
        part.merge(part[part["policy"] == FULL], on="depth", suffixes=("", "_full"))
        for part in (found[found["source"] == source] for source in ("transformer", "theory"))
    )
    predicted = theory.assign(predicted=theory["risk"] / theory["risk_full"])
    table = trained.assign(
        ratio=trained["risk"] / trained["risk_full"],
        low=trained["low"] / trained["high_full"],
        high=trained["high"] / trained["low_full"],
    ).merge(predicted[["policy", "depth", "predicted"]], on=["policy", "depth"], how="left")
    wanted = table["policy"] != FULL if variants is None else table["policy"].isin(variants)
    columns = ["policy", "depth", "ratio", "low", "high", "predicted"]
    return table.loc[wanted, columns].reset_index(drop=True)
