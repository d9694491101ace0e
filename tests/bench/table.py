"""What is measured, and how: ways of one piece of work in turn, several times in one run."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

import agents.channel
import agents.policies.adaptive
import agents.policies.bayesian
import agents.rng
import agents.step
import runner.engines.base
import runner.simulation.accumulator
from analysis.resources import available_cores, machine

SEAMS = (
    agents.channel, agents.policies.adaptive, agents.policies.bayesian, agents.rng, agents.step,
    runner.engines.base, runner.simulation.accumulator,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One comparison: how many times faster `ours` is than `beside`, or which share of it.

    Attributes:
        work: what is done.
        ours, beside: names of the two ways.
        milliseconds, milliseconds_beside: medians.
        ratio: of their times, beside over ours.
        goal: what is aimed at; None without one.
        remark: what a reader should know.
    """

    work: str
    ours: str
    beside: str
    milliseconds: float
    milliseconds_beside: float
    ratio: float
    goal: float | None = None
    remark: str = ""


def medians(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each way, the median of `repeats`; the ways alternate, and a first turn warms up."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, work in ways.items():
            began = perf_counter()
            work()
            if turn or not repeats:
                taken[name].append(perf_counter() - began)
    return {name: median(times) for name, times in taken.items()}


def compared(
    work: str, seconds: Mapping[str, float], ours: str, beside: str, goal: float | None = None,
    remark: str = "", per: int = 1,
) -> Row:  # fmt: skip
    """Two of the ways as a row, their times divided by `per`."""
    mine, theirs = seconds[ours], seconds[beside]
    return Row(work, ours, beside, 1e3 * mine / per, 1e3 * theirs / per, theirs / mine, goal, remark)


@contextmanager
def in_numpy() -> Any:
    """numpy's code in place of compiled loops."""
    before = [module.AVAILABLE for module in SEAMS]  # type: ignore[attr-defined]
    for module in SEAMS:
        module.AVAILABLE = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, value in zip(SEAMS, before, strict=True):
            module.AVAILABLE = value  # type: ignore[attr-defined]


def facts() -> dict[str, object]:
    """The machine, and what was measured on it."""
    cores, memory = machine()
    return {
        "processor": _processor(),
        "cores": cores,
        "cores_used": available_cores(),
        "memory_gib": round(memory / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        **{name: version(name) for name in ("tokenfield", "numpy", "numba", "ray", "torch")},
        "python": platform.python_version(),
    }


def show(rows: list[Row], file: Path | None) -> None:
    """Print one table with the machine, and store it if a file is named."""
    known = facts()
    title = ", ".join(f"{name} {value}" for name, value in known.items())
    table = Table("work", "ours", "ms", "beside", "ms", "ratio", "goal", title=title)
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}"
        work = f"{row.work}; {row.remark}" if row.remark else row.work
        table.add_row(
            work, row.ours, f"{row.milliseconds:.3g}", row.beside, f"{row.milliseconds_beside:.3g}",
            f"{row.ratio:.2f}", goal,
        )  # fmt: skip
    Console(width=160).print(table)
    if file is not None:
        file.write_text(
            json.dumps({"machine": known, "rows": [asdict(row) for row in rows]}, indent=2) + "\n"
        )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
