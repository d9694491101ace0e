"""Tables for a terminal: from a tidy frame to one of short strings."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd


class Display(NamedTuple):
    """A table as it is shown.

    Attributes:
        title: above it.
        cells: strings; the columns are the headings.
        sections: a heading for each run of rows, by the index of its first row.
    """

    title: str
    cells: pd.DataFrame
    sections: Mapping[int, str] = MappingProxyType({})


def plus_minus(row: pd.Series) -> str:
    """Risk and its standard error.

    Example:
        >>> plus_minus(pd.Series({"risk": 0.12344, "risk_se": 0.001}))
        '0.1234±0.0010'
    """
    return f"{row['risk']:.4f}" + (f"±{row['risk_se']:.4f}" if np.isfinite(row["risk_se"]) else "")


def by_depth(
    rows: pd.DataFrame,
    title: str,
    labels: Sequence[str],
    cell: Callable[[pd.DataFrame], str] = lambda part: plus_minus(part.iloc[0]),
    section: str | None = None,
    across: str = "depth",
) -> Display:
    """One line for each combination of labels, one column for each depth.

    Args:
        rows: with the columns `labels`, `section` and `across`, and what `cell` reads.
        title: above the table.
        labels: columns that tell the lines apart.
        cell: the text of a cell, from the rows that belong to it; by default `plus_minus` of the only one.
        section: column that groups the lines.
        across: column whose values are spread over the columns.

    Example:
        >>> rows = pd.DataFrame({"source": "agents", "depth": [0, 1], "risk": [1.0, 0.5], "risk_se": 0.1})
        >>> by_depth(rows, "risk", ["source"]).cells.values.tolist()
        [['agents', '1.0000±0.1000', '0.5000±0.1000']]
    """
    depths = sorted(rows[across].unique())
    lines: list[list[str]] = []
    headings: dict[int, str] = {}
    for heading, part in rows.groupby(section, sort=False) if section else [("", rows)]:
        if section:
            headings[len(lines)] = str(heading).replace("_", " ")
        for names, group in part.groupby(list(labels), sort=False):
            cells = [group[group[across] == depth] for depth in depths]
            lines.append(
                [
                    *(str(name).replace("_", " ") for name in names),
                    *(cell(found) if len(found) else "" for found in cells),
                ]
            )
    columns = [*labels, *(f"{across} {depth:g}" for depth in depths)]
    return Display(title, pd.DataFrame(lines, columns=columns), headings)


def median_over_seeds(part: pd.DataFrame) -> str:
    """Median of the risk over seeds, and from the least seed to the largest where there are several."""
    risks = part["risk"]
    spread = f" ({risks.min():.4f} to {risks.max():.4f})" if len(risks) > 1 else ""
    return f"{risks.median():.4f}{spread}"


def agents_and_theory(part: pd.DataFrame) -> str:
    """Risk of the agents with its standard error, and what theory predicts in brackets."""
    agents, theory = (part[part["source"] == source].iloc[0] for source in ("agents", "theory"))
    return f"{plus_minus(agents)} ({theory['risk']:.4f})"


def by_scale_and_layer(rows: pd.DataFrame, title: str, value: str = "value", error: str = "se") -> Display:
    """value ± error by scale (lines) and layer (columns)."""
    cells = rows.assign(
        cell=[f"{mean:.3f}±{spread:.3f}" for mean, spread in zip(rows[value], rows[error], strict=True)]
    )
    table = cells.pivot(index="scale", columns="layer", values="cell")
    table.columns = pd.Index([f"layer {layer}" for layer in table.columns])
    return Display(title, table.reset_index().astype(str))


def by_context(rows: pd.DataFrame) -> Display:
    """Risk ± standard error by tokens heard, a line for each source and policy, noise by noise."""
    told = rows.assign(noise=[f"τ = {noise:g}" for noise in rows["noise"]], heard=rows["context"])
    title = "risk / E|w|² ± standard error, by tokens heard"
    return by_depth(told, title, ["source", "policy"], section="noise", across="heard")


def by_position_and_layer(rows: pd.DataFrame, measure: str, title: str) -> Display:
    """Mean of a measure over seeds by source, tokens heard and scale (lines) and layer (columns)."""
    chosen = rows[rows["measure"] == measure]
    return by_depth(
        chosen.assign(noise=[f"τ = {noise:g}" for noise in chosen["noise"]]),
        title,
        ["source", "context", "scale"],
        lambda part: f"{part['value'].mean():.3f}",
        section="noise",
        across="layer",
    )


def claims_table(claims: pd.DataFrame) -> Display:
    """Each claim, the effect that was measured, and whether it holds."""
    cells = pd.DataFrame(
        {
            "claim": claims["claim"],
            "test": claims["test"],
            "effect": [f"{effect:.3g}" for effect in claims["effect"]],
            "interval": [
                f"{low:.3g} to {high:.3g}" for low, high in zip(claims["low"], claims["high"], strict=True)
            ],
            "needed": claims["needed"],
            "holds": ["yes" if holds else "no" for holds in claims["holds"]],
        }
    )
    return Display("claims", cells)
