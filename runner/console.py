"""What the command line prints: tables for people, plain numbers for --json."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from runner.simulation import Simulation
from topology.mixing import Mixing
from topology.picture import mask


@contextmanager
def clean_stdout(as_json: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what prints the answer. With --json, whatever anyone else prints goes to standard error.

    Args:
        as_json: print the answer as one JSON object; otherwise the answer is not printed.
    """
    if not as_json:
        yield lambda content: None
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    answers: list[dict[str, Any]] = []
    try:
        yield answers.append
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
    for content in answers:
        print(json.dumps(content, allow_nan=False))


def finite(values: list[float]) -> list[float | None]:
    """JSON has no NaN: the standard error of a single prompt is null.

    Example:
        >>> finite([0.5, float("nan")])
        [0.5, None]
    """
    return [value if np.isfinite(value) else None for value in values]


def run_answer(result: Simulation) -> dict[str, Any]:
    """What `run --json` reports."""
    return {
        "risk": result.risk.tolist(),
        "risk_se": finite(result.risk_se.tolist()),
        "bits_per_message": result.bits_per_message,
        "messages": result.messages,
        "bits": result.bits,
        "clipped": result.clipped,
        "run": str(result.folder),
    }


def print_run(result: Simulation) -> None:
    """Risk by round, what it took, and where it is stored."""
    print_risk(result.risk.tolist(), result.risk_se.tolist(), "round")
    share = result.clipped / max(1, int(result.scalars.sum()))
    bits = f"{result.bits_per_message} bits"
    if result.bits < result.messages * result.bits_per_message:
        bits = f"at most {bits}"
    print(
        f"{result.messages:,} messages of {bits}, {result.clipped:,} scalars clipped ({100 * share:.2g} %)\n"
        f"traces: {result.folder}"
    )


def print_risk(risk: list[float], error: list[float], label: str) -> None:
    """A table of risk with its standard error."""
    table = Table(label, "risk / E|w|²", "standard error", box=SIMPLE_HEAD)
    for index, (value, spread) in enumerate(zip(risk, error, strict=True)):
        table.add_row(str(index), f"{value:.4f}", f"{spread:.4f}")
    Console().print(table)


def print_facts(facts: dict[str, Any]) -> None:
    """What `check` found."""
    table = Table("", "", show_header=False, box=None)
    for key, value in facts.items():
        if value is None:
            shown = "infinite: some token never hears some other" if key == "diameter" else "-"
        else:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(key.replace("_", " "), shown)
    Console().print(table)


def print_graph(mixing: Mixing) -> None:
    """The locality graph as the mask of an attention."""
    across = "sender" if mixing.tokens <= 128 else "sender, the darker the more links"
    print(f"\nwho hears whom: a row for each receiver, a column for each {across}\n\n{mask(mixing)}")


def print_locality(rows: pd.DataFrame) -> None:
    """Risk by graph and depth, agents beside theory."""
    depths = sorted(rows["depth"].unique())
    table = Table(box=SIMPLE_HEAD, title="risk / E|w|² ± standard error (theory)", title_justify="left")
    for heading in ("graph", "mixing time", *(f"depth {depth}" for depth in depths)):
        table.add_column(heading, no_wrap=True)
    for family, part in rows.groupby("family", sort=False):
        agents, theory = (
            part[part["source"] == source].set_index("depth") for source in ("agents", "theory")
        )
        cells = [
            f"{agents.loc[depth, 'risk']:.4f}±{agents.loc[depth, 'risk_se']:.4f} "
            f"({theory.loc[depth, 'risk']:.4f})"
            for depth in depths
        ]
        time = f"{part['mixing_time'].iloc[0]:.3g}"
        table.add_row(str(family).replace("_", " "), time, *cells)
    Console(width=max(Console().width, 40 + 26 * len(depths))).print(table)


def print_comparison(rows: pd.DataFrame) -> None:
    """One table: risk ± standard error, by prior, source and depth."""
    depths = sorted(rows["depth"].unique())
    table = Table(box=SIMPLE_HEAD, title="risk / E|w|² ± standard error", title_justify="left")
    for heading in ("source", "policy", *(f"depth {depth}" for depth in depths)):
        table.add_column(heading, no_wrap=True)
    for prior, part in rows.groupby("prior", sort=False):
        table.add_section()
        table.add_row(f"[bold]{str(prior).replace('_', ' ')}[/bold]")
        for (source, policy), group in part.groupby(["source", "policy"], sort=False):
            cells = {
                int(depth): f"{risk:.4f}±{error:.4f}"
                for depth, risk, error in zip(group["depth"], group["risk"], group["risk_se"], strict=True)
            }
            table.add_row(str(source), str(policy), *(cells.get(depth, "") for depth in depths))
    width = 50 + 17 * len(depths)  # a narrower terminal breaks lines, but cuts no number
    Console(width=max(Console().width, width)).print(table)


def print_table(title: str, rows: pd.DataFrame) -> None:
    """A small frame as it is, its index on the left."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for heading in (str(rows.index.name or ""), *map(str, rows.columns)):
        table.add_column(heading, no_wrap=True)
    for index, row in rows.iterrows():
        table.add_row(str(index), *map(str, row))
    Console().print(table)


def print_curves(rows: list[tuple[str, list[float], list[float] | None]]) -> None:
    """One line for each prediction, a column for each round."""
    table = Table(box=SIMPLE_HEAD, title="risk / E|w|² ± standard error", title_justify="left")
    for heading in ("prediction", *(f"round {index}" for index in range(len(rows[0][1])))):
        table.add_column(heading, no_wrap=True)
    for name, curve, errors in rows:
        cells = [f"{value:.4f}" for value in curve]
        if errors is not None:
            cells = [f"{cell}±{error:.4f}" for cell, error in zip(cells, errors, strict=True)]
        table.add_row(name, *cells)
    Console(width=max(Console().width, 30 + 17 * len(rows[0][1]))).print(table)


def print_seeds(rows: pd.DataFrame) -> None:
    """Risk by depth: the median over seeds, and from the least seed to the largest."""
    depths = sorted(rows["depth"].unique())
    table = Table(box=SIMPLE_HEAD, title="risk / E|w|², median (least to largest seed)", title_justify="left")
    for heading in ("source", "policy", *(f"depth {depth}" for depth in depths)):
        table.add_column(heading, no_wrap=True)
    for prior, part in rows.groupby("prior", sort=False):
        table.add_section()
        table.add_row(f"[bold]{str(prior).replace('_', ' ')}[/bold]")
        for (source, policy), group in part.groupby(["source", "policy"], sort=False):
            cells = []
            for depth in depths:
                risks = group[group["depth"] == depth]["risk"]
                spread = f" ({risks.min():.4f} to {risks.max():.4f})" if len(risks) > 1 else ""
                cells.append(f"{risks.median():.4f}{spread}" if len(risks) else "")
            table.add_row(str(source), str(policy), *cells)
    Console(width=max(Console().width, 50 + 28 * len(depths))).print(table)


def print_claims(claims: pd.DataFrame) -> None:
    """Each claim, the effect that was measured, and whether it holds."""
    table = Table(box=SIMPLE_HEAD, title="claims", title_justify="left")
    for heading in ("claim", "test", "effect", "interval", "needed", "holds"):
        table.add_column(heading, no_wrap=heading in ("effect", "interval", "holds"))
    for _, row in claims.iterrows():
        table.add_row(
            row["claim"], row["test"], f"{row['effect']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}",
            row["needed"], "[green]yes[/green]" if row["holds"] else "[bold red]no[/bold red]",
        )  # fmt: skip
    Console(width=max(Console().width, 150)).print(table)
