"""What a sweep shows whose file names a finding: a sentence, claims and a figure, beside its tables."""

from pathlib import Path

import pyarrow as pa

from analysis.traces.sweep import CLAIMS, VERDICT, Sweep
from runner.config.experiment import Experiment
from runner.config.sweep import SweepFile, read_sweep
from runner.errors import UsageError, nearest
from runner.storage.files import write_figure, write_table, write_text

_FREE = ("task.prompts", "transformer.effort")  # which change how well a finding is known, not what it says


def check_finding(content: SweepFile, base: Experiment) -> None:
    """Refuse a finding that there is not, or that speaks of another sweep, before anything is played.

    Raises:
        UsageError: naming those that there are, or what it speaks of.
    """
    name = content.finding
    if name is None:
        return
    from analysis.report.findings import FINDINGS

    if name not in FINDINGS:
        raise UsageError("finding", name, ", ".join(FINDINGS), nearest(name, FINDINGS))
    preset, start = read_sweep(Path(name))
    given, spoken = (
        ({key: value for key, value in file.set.items() if key not in _FREE}, from_)
        for file, from_ in ((content, base), (preset, start))
    )
    if given != spoken:
        possible = f"left out, where [set] and base are not those of the preset {name}: it speaks of them"
        raise UsageError("finding", name, possible)
    varied = [{*file.grid, *(key for entry in file.list for key in entry)} for file in (content, preset)]
    if varied[0] != varied[1]:
        possible = f"left out, where a sweep varies other keys than {', '.join(sorted(varied[1]))}"
        raise UsageError("finding", name, possible)


def forget(folder: Path, name: str | None) -> None:
    """Take away what an earlier sweep in this folder showed."""
    figures = [f"{name}.png", f"{name}.svg"] if name is not None else []
    for old in (VERDICT, CLAIMS, *figures):
        (folder / old).unlink(missing_ok=True)


def conclude(sweep: Sweep, name: str) -> None:
    """Decide the claims, and write verdict.txt, claims.parquet and the figure into the sweep's folder.

    Args:
        sweep: whose points are all done.
        name: of the finding.

    Raises:
        UsageError: if the sweep lacks keys or points that the finding speaks of.
    """
    from analysis.plots.panels import panels_figure
    from analysis.report.findings import FINDINGS

    try:
        found = FINDINGS[name](sweep.table)
    except (KeyError, IndexError, ValueError) as failure:
        possible = f"the finding of a sweep over what it speaks of; this one lacks {failure}"
        raise UsageError("finding", name, possible) from None
    folder = Path(str(sweep.folder))
    write_text(folder / VERDICT, found.sentence + "\n")
    write_table(folder / CLAIMS, pa.Table.from_pandas(found.claims, preserve_index=False))
    write_figure(panels_figure(found.panels, found.caption), folder, name)
