"""What a page says of a run, a sweep or a study: the verdict in words, and what it is made of."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.report import page
from analysis.statistics import z_scores
from analysis.traces.location import Location, Place
from analysis.traces.reader import Run, open_run
from analysis.traces.sweep import MANIFEST as SWEEP
from analysis.traces.sweep import Sweep, open_sweep
from runner.errors import UsageError
from runner.storage.files import write_text
from runner.studies.overview import Overview, figures, overview
from runner.studies.prompt import Traced, trace_of

_MOST_EXPLORED = 20_000  # tokens of a graph that is drawn


def report(places: Sequence[Place], theory: bool = True) -> str:
    """One self-contained HTML page of runs, sweeps and studies.

    Args:
        places: their folders.
        theory: predict the risk of runs beside what agents made.

    Raises:
        UsageError: if one is neither.

    Example:
        >>> import tempfile
        >>> from runner import Experiment, simulate
        >>> small = Experiment().with_values({"task.prompts": 20, "task.tokens": 8, "run.trace": "sampled"})
        >>> with tempfile.TemporaryDirectory() as out:
        ...     text = report([simulate(small, out=out).folder])
        >>> text.startswith("<!DOCTYPE html>"), "explorer" in text
        (True, True)
    """
    sections = []
    for where in places:
        if (where / "manifest.json").is_file():
            sections += of_run(open_run(where), titled=len(places) > 1, theory=theory)
        elif (where / SWEEP).is_file():
            sections += of_sweep(open_sweep(where), titled=len(places) > 1)
        elif (where / "verdict.txt").is_file() and not isinstance(where, Location):
            sections += of_study(where, titled=len(places) > 1)
        else:
            possible = "the folder of a run, of a sweep, or of a study that came to its end"
            raise UsageError("RUN", str(where), possible)
    names = ", ".join(where.name for where in places[:3]) + (", ..." if len(places) > 3 else "")
    return page.page(f"tokenfield: {names}", sections)


def write_report(folder: Path) -> Path:
    """The page of a study, and of its first run with traced prompts, as report.html in its folder."""
    runs = sorted(path.parent for path in folder.glob("*/manifest.json"))
    traced = [run for run in runs if open_run(run).experiment.run.trace in ("sampled", "full")]
    path = folder / "report.html"
    write_text(path, report([folder, *traced[:1]], theory=False))  # the study has its own
    return path


def of_run(run: Run, titled: bool, theory: bool = True) -> list[str]:
    """The sections of a run."""
    found = overview(run, theory)
    sections = [page.heading(run.folder.name)] if titled else []
    sections.append(page.words(verdict(found), found.caption))
    sections.append(page.table("Risk by round", _beside(found.risk), opened=True))
    traces = _explored(run)
    if traces:
        sections.append(page.heading("Explorer"))
        several = [(one.prompt, one.messages, one.workspaces, one.truth) for one in traces]
        atoms = run.atoms if run.manifest["schema"] > 2 else None
        sections.append(page.explorer(run.graph, run.nodes, atoms, several, found.risk))
    sections.append(page.heading("Figures"))
    sections.append(page.figures(figures(found)))
    sections.append(page.heading("Tables"))
    sections += [page.table(name, table) for name, table in found.tables.items() if name != "belief"]
    tables = run.manifest["experiment"].items()
    keys = [(f"{name}.{key}", str(value)) for name, part in tables for key, value in part.items()]
    sections.append(page.table("Experiment", pd.DataFrame(keys, columns=["key", "value"])))
    return sections


def of_sweep(sweep: Sweep, titled: bool) -> list[str]:
    """The sections of a sweep."""
    last = sweep.last
    ends = last[last["status"] == "done"].sort_values("risk").to_dict("records")
    sentence = f"{len(ends)} of {len(last)} points are done"
    for name, row in (("lowest", ends[0]), ("highest", ends[-1])) if ends else ():
        where = ", ".join(f"{key} = {row[key]}" for key in sweep.keys)
        sentence += f"; the {name} risk is {row['risk']:.4f} ± {row['risk_se']:.4f}, at {where}"
    shown = []
    if (verdict := sweep.verdict) is not None and not isinstance(sweep.folder, Location):
        drawn = {path.stem: path.read_text("utf-8") for path in sorted(sweep.folder.glob("*.svg"))}
        shown = [page.figures(drawn), page.table("Claims", sweep.claims, opened=True)]
        sentence = verdict.removesuffix(".")
    return [
        *([page.heading(sweep.folder.name)] if titled else []),
        page.words(
            sentence + ".", f"varies {', '.join(sweep.keys)}; seeds {sweep.manifest['sweep']['seeds']}"
        ),
        *shown,
        page.table("Risk after the last round", last, opened=not shown),
        page.table("Risk by round", sweep.table),
    ]


def of_study(folder: Path, titled: bool) -> list[str]:
    """The sections of a comparison or another study: its sentence, figures and tables."""
    drawn = {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.svg"))}
    tables = {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}
    return [
        *([page.heading(folder.name)] if titled else []),
        page.words((folder / "verdict.txt").read_text("utf-8").strip()),
        *([page.figures(drawn)] if drawn else []),
        *(page.table(name, table) for name, table in tables.items()),
    ]


def verdict(found: Overview) -> str:
    """What a run shows, in words; every number in it is measured."""
    agents = found.risk[found.risk["source"] == "agents"].sort_values("round")
    first, last = agents.iloc[0], agents.iloc[-1]
    end = f"{last['risk']:.4f} ± {last['risk_se']:.4f}"
    parts = [f"The risk falls from {first['risk']:.3g} to {end} in {int(last['round'])} rounds"]
    if not last["risk"] < first["risk"]:
        parts = [f"The risk after {int(last['round'])} rounds, {end}, is not below that of the start"]
    theory = found.risk[found.risk["source"] == "theory"].sort_values("round")
    if len(theory) == len(agents) > 1:
        pairs = [part[["risk", "risk_se"]].to_numpy(float)[1:].T for part in (agents, theory)]
        z = np.abs(z_scores(pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1])).max()
        parts.append(f"theory and agents differ by at most {z:.1f} standard errors")
    levels = found.tables.get("resolved by level")
    if levels is not None:
        final = levels[levels["round"] == levels["round"].max()]
        shares = ", ".join(f"{row['value']:.2f}" for row in final.to_dict("records"))
        parts.append(f"the share of tokens on the true branch ends at {shares}, from coarse to fine")
    slope = found.tables.get("calibration slope")
    if slope is not None:
        row = slope.iloc[-1]
        parts.append(f"beliefs make {row['value']:.2f} ± {row['se']:.2f} times the error that they claim")
    error = found.tables.get("posterior error")
    if error is not None:
        parts.append(f"they end {error['value'].iloc[-1]:.3g} bits away from the exact posterior")
    return "; ".join(parts) + "."


def _beside(risk: pd.DataFrame) -> pd.DataFrame:
    """Risk of agents and theory side by side."""
    parts = {source: part.set_index("round")[["risk", "risk_se"]] for source, part in risk.groupby("source")}
    columns = {f"{source!s} {name!s}": part[name] for source, part in parts.items() for name in part}
    return pd.DataFrame(columns).reset_index()


def _explored(run: Run) -> list[Traced]:
    """The first prompts that were traced, or none where the graph is too large to draw."""
    if run.experiment.task.tokens > _MOST_EXPLORED or run.experiment.run.trace not in ("sampled", "full"):
        return []
    try:
        there = run.table("workspaces", rounds=[0], positions=[0], columns=["prompt"])["prompt"]
    except (ValueError, FileNotFoundError):
        return []
    found = []
    for prompt in there.head(page.MOST_PROMPTS):
        try:
            found.append(trace_of(run, int(prompt)))
        except UsageError:  # some of it was not kept, and it cannot be played again
            return []
    return found
