"""What the command line prints: tables for people, plain numbers for --json."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from analysis.report import replay
from analysis.report.tables import Display, by_depth, claims_table
from analysis.traces.sweep import Sweep
from runner.simulation.simulate import Simulation
from runner.studies.base import Findings
from topology.mixing import Mixing
from topology.picture import mask

if TYPE_CHECKING:
    from runner.prediction import Forecast

_WIDEST = 60  # characters of a cell; what is longer is broken


Answer = Callable[[dict[str, Any], Callable[[], None]], None]  # content, what prints it for people


@contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Yield what gives the answer. With --json, whatever anyone else prints goes to standard error.

    Args:
        as_json: print the answer as one JSON object; otherwise as it is printed for people.
    """
    if not as_json:
        yield lambda content, show: show()
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    answers: list[dict[str, Any]] = []
    try:
        yield lambda content, show: answers.append(content)
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


def print_risk(risk: Sequence[float], error: Sequence[float], label: str) -> None:
    """A table of risk with its standard error."""
    cells = {
        label: [str(index) for index in range(len(risk))],
        "risk / E|w|²": [f"{value:.4f}" for value in risk],
        "standard error": [f"{spread:.4f}" for spread in error],
    }
    print_table(Display("", pd.DataFrame(cells)))


def print_trained(content: dict[str, Any], error: Sequence[float]) -> None:
    """Risk by depth of a transformer that was trained, and where its weights are."""
    print_risk(content["risk"], error, "depth read out")
    print(
        f"trained {content['steps']:,} steps in {content['seconds']:.1f} s; weights are kept in "
        f"{content['weights']}"
    )


def print_forecast(found: "Forecast", figures: Sequence[Path]) -> None:
    """What theory says, but for the Gaussian channel, which is another system."""
    curves = found.curves[~found.curves["source"].str.startswith("channel")]
    title = f"risk / E|w|² ± standard error, {found.facts['law']}"
    print_table(by_depth(curves, title, ["source"], across="round"))
    print("\n".join([*found.remarks(), *(f"figure: {path}" for path in figures)]))


def print_check(facts: dict[str, Any], mixing: Mixing, figure: str | None) -> None:
    """What `check` found, the locality graph as the mask of an attention, and where its figure is."""
    table = Table("", "", show_header=False, box=None)
    for key, value in facts.items():
        if key == "not_given":
            continue
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        if value is None:
            shown = facts["not_given"].get(key, "-")
        table.add_row(key.replace("_", " "), shown)
    Console().print(table)
    across = "sender" if mixing.tokens <= 128 else "sender, the darker the more links"
    print(f"\nwho hears whom: a row for each receiver, a column for each {across}\n\n{mask(mixing)}")
    if figure:
        print(f"figure: {figure}")


def print_replay(
    rounds: dict[int, pd.DataFrame], prompt: int, truth: int | None, levels: int, again: bool
) -> None:
    """A prompt round by round."""
    known = "" if truth is None else f", whose true atom is {truth}"
    print(f"prompt {prompt}{known}{'; it was not traced, and is played again' if again else ''}\n")
    for index, table in rounds.items():
        print_table(replay.display(index, table, levels))


def print_edges(found: pd.DataFrame, reader: int) -> None:
    """The messages that moved a reader most."""
    most = found.head(15)
    cells = {name: most[name].astype(str).tolist() for name in ("round", "sender", "receiver")}
    cells["estimate moved by"] = [
        f"{row['moved']:.4f}±{row['moved_se']:.4f}" for row in most.to_dict("records")
    ]
    print_table(
        Display(f"messages without which token {reader} believes something else", pd.DataFrame(cells))
    )


def print_interventions(found: pd.DataFrame, tokens: list[int], what: str) -> None:
    """Risk of the others by round, and how far their estimates moved; then the readers that moved most."""
    others = found[~found["position"].isin(tokens)]
    means = others.groupby("round")[["risk", "value", "moved"]].mean()
    cells = {"round": [str(index) for index in means.index]}
    for name, heading in (("risk", "risk"), ("value", "change of risk"), ("moved", "estimates moved by")):
        cells[heading] = [f"{value:+.4f}" if name == "value" else f"{value:.4f}" for value in means[name]]
    print_table(Display(f"{what}: mean over all{' others' if tokens else ' tokens'}", pd.DataFrame(cells)))
    last = others[others["round"] == others["round"].max()].nlargest(8, "moved")
    rows = {
        "token": last["position"].astype(str).tolist(),
        "change of risk": [f"{row['value']:+.4f}±{row['se']:.4f}" for row in last.to_dict("records")],
        "estimate moved by": [f"{row['moved']:.4f}±{row['moved_se']:.4f}" for row in last.to_dict("records")],
    }
    print_table(Display("who moved most, after the last round", pd.DataFrame(rows)))


def print_sweep(found: Sweep, points: list[dict[str, Any]]) -> None:
    """Risk of the last round at each point, and where the tables are."""
    cells: dict[str, list[str]] = {key: [str(point[key]) for point in points] for key in found.keys}
    cells["risk / E|w|²"] = ["" if point["risk"] is None else f"{point['risk']:.4f}" for point in points]
    cells["standard error"] = [
        "" if point["risk_se"] is None else f"{point['risk_se']:.4f}" for point in points
    ]
    if any(point.get("theory") is not None for point in points):
        cells["theory"] = ["" if point["theory"] is None else f"{point['theory']:.4f}" for point in points]
    cells["seeds"] = [str(point["seeds"] or "") for point in points]
    cells["status"] = [
        point["status"] if not point["error"] else f"failed: {point['error']}" for point in points
    ]
    verdict = found.verdict
    if verdict is None:
        print_table(Display("risk after the last round", pd.DataFrame(cells)))
        print(f"tables: {found.folder}")
        return
    print_table(claims_table(found.claims))
    for path in sorted(Path(str(found.folder)).glob("*.png")):
        print(f"figure: {path}")
    print(f"tables: {found.folder}\n\n{verdict}")


def print_findings(findings: Findings, page: Path | None = None) -> None:
    """The tables of a study, where it is stored, and what was seen."""
    for display in findings.displays:
        print_table(display)
    figures = "".join(f"figure: {path}\n" for path in findings.figures)
    figures += f"report: {page}\n" if page else ""
    print(f"\n{figures}tables: {findings.folder}\n\n{findings.sentence}")


def print_table(display: Display) -> None:
    """A table of short strings; a terminal that is too narrow breaks lines, but cuts no number."""
    table = Table(box=SIMPLE_HEAD, title=display.title or None, title_justify="left")
    for heading, column in display.cells.items():
        long = max([len(str(heading)), *map(len, column)]) > _WIDEST
        table.add_column(str(heading), no_wrap=not long, max_width=_WIDEST if long else None)
    for index, row in enumerate(display.cells.itertuples(index=False)):
        if index in display.sections:
            table.add_section()
            table.add_row(f"[bold]{display.sections[index]}[/bold]")
        table.add_row(*row)
    endless = Console(width=10_000)
    width = Measurement.get(endless, endless.options, table).maximum
    Console(width=max(Console().width, width)).print(table)
