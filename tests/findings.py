"""Play the presets of sweeps at full size, and write their tables, figures and sentences into FINDINGS.md.

    python -m tests.findings [NAME ...]

Tables lie beside the figures, so that tests can recompute every number of the text from them.
"""

import re
import sys
import tempfile
from pathlib import Path

import pandas as pd

from analysis.plots.panels import panels_figure
from analysis.report.findings import FINDINGS, Finding
from runner.config.sweep import read_sweep
from runner.progress import Progress
from runner.storage.files import write_figure
from runner.sweeps.sweep import play_sweep

ROOT = Path(__file__).parents[1]
TEXT, FOLDER = ROOT / "FINDINGS.md", ROOT / ".assets" / "findings"


def stored(name: str) -> pd.DataFrame:
    """The table of a preset at full size."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def block(name: str, found: Finding) -> str:
    """What stands in FINDINGS.md of a preset."""
    rows = [
        f"| {claim['claim']} | {claim['test']} | {claim['effect']:.3g} | {claim['low']:.3g} to "
        f"{claim['high']:.3g} | {claim['needed']} | {'yes' if claim['holds'] else 'no'} |"
        for claim in found.claims.to_dict("records")
    ]
    head = "| claim | measured | effect | interval (95 %) | needed | holds |\n|---|---|---|---|---|---|\n"
    picture = f"![{found.caption}](.assets/findings/{name}.png)"
    return f"{found.sentence}\n\n{picture}\n\n{head}" + "\n".join(rows)


def between(name: str) -> re.Pattern[str]:
    """The part of FINDINGS.md that is written here."""
    return re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main(names: list[str]) -> None:
    """Play, draw, write."""
    for name in names or list(FINDINGS):
        content, base = read_sweep(Path(name))
        with tempfile.TemporaryDirectory() as folder:
            done = play_sweep(content, base, folder, name, resume=False, progress=Progress())
            table = done.table
        assert table["status"].eq("done").all(), table["error"].dropna().tolist()
        FOLDER.mkdir(parents=True, exist_ok=True)
        table.drop(columns=["error"]).to_csv(FOLDER / f"{name}.csv", index=False, float_format="%.6g")
        write(name)


def write(name: str) -> None:
    """Draw, and write the text, from the stored table."""
    found = FINDINGS[name](stored(name))
    write_figure(panels_figure(found.panels, found.caption), FOLDER, name)
    (FOLDER / f"{name}.svg").unlink()  # the picture of the text is enough
    text = TEXT.read_text()
    assert between(name).search(text), f"FINDINGS.md has no place for {name}"
    TEXT.write_text(between(name).sub(lambda match: match[1] + block(name, found) + match[2], text))
    print(f"{name}: {found.sentence}")


if __name__ == "__main__":
    main(sys.argv[1:])
