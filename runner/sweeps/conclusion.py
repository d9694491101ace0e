"""What a sweep shows whose file names a finding: a sentence, claims and a figure, beside its tables."""

from pathlib import Path

import pyarrow as pa

from analysis.traces.sweep import CLAIMS, VERDICT, Sweep
from runner.errors import UsageError, nearest
from runner.storage.files import write_figure, write_table, write_text


def check_finding(name: str | None) -> None:
    """Refuse a finding that there is not, before anything is played.

    Raises:
        UsageError: naming those that there are.
    """
    if name is None:
        return
    from analysis.report.findings import FINDINGS

    if name not in FINDINGS:
        raise UsageError("finding", name, ", ".join(FINDINGS), nearest(name, FINDINGS))


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
    except (KeyError, IndexError) as failure:
        possible = f"the finding of a sweep over what it speaks of; this one lacks {failure}"
        raise UsageError("finding", name, possible) from None
    folder = Path(str(sweep.folder))
    write_text(folder / VERDICT, found.sentence + "\n")
    write_table(folder / CLAIMS, pa.Table.from_pandas(found.claims, preserve_index=False))
    write_figure(panels_figure(found.panels, found.caption), folder, name)
