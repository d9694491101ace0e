"""The direction of imports holds, and modules stay small and say what they are about."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from agents.reductions import fold

ROOT = Path(__file__).parents[1]
PACKAGES = ("agents", "topology", "runner", "analysis")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_LINES = 500  # a longer module needs a reason, here
SAYS_NOTHING = {"utils", "util", "helpers", "core", "manager", "common", "misc"}

# The importer of each violation, what it would import, and how the name of its contract ends.
VIOLATIONS = [
    ("agents/step.py", "topology.mixing", "above agents and topology"),
    ("topology/mixing.py", "agents.prior", "above agents and topology"),
    ("agents/step.py", "analysis.guard", "above agents and topology"),
    ("analysis/statistics.py", "runner.errors", "above agents and topology"),
    ("agents/channel.py", "agents.policies.base", "within each package in one direction"),
    ("analysis/measures/probes.py", "analysis.plots.style", "within each package in one direction"),
    ("analysis/theory/setting.py", "analysis.measures.probes", "within each package in one direction"),
    ("runner/storage/files.py", "runner.simulation.simulate", "within each package in one direction"),
    ("runner/built.py", "runner.studies.comparison", "within each package in one direction"),
    ("runner/errors.py", "runner.config.experiment", "within each package in one direction"),
    ("runner/simulation/simulate.py", "ray", "by its engine alone"),
    ("runner/built.py", "torch", "training and studies alone"),
    ("agents/policies/learned.py", "torch.nn", "training and studies alone"),
    ("analysis/theory/violation.py", "agents.inference.gaussian", "never an agent"),
    ("analysis/theory/violation.py", "agents.policies.static", "never an agent"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_direction_of_imports_holds() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("importer", "imported", "contract"), VIOLATIONS)
def test_a_violation_breaks_its_contract(importer: str, imported: str, contract: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / importer).open("a") as file:
        file.write(f"\nimport {imported}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in " ".join(done.stdout.split()), done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_is_small_and_its_name_says_what_it_is_about(path: Path) -> None:
    assert path.stem not in SAYS_NOTHING
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_shapes_in_annotations_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeCheckError, match="n m B"):
        fold(np.zeros(3))


def test_a_work_is_cited_under_one_doi() -> None:
    """Bartlett's decomposition was once cited under two."""
    text = "\n".join(path.read_text() for path in MODULES)
    cited = re.findall(r"M\. S\. Bartlett[^;]*?doi:(\S+?)[.;]?\s", text)
    assert len(cited) >= 2 and set(cited) == {"10.1017/S0370164600015637"}
