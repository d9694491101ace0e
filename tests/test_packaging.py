"""What is installed is exactly the four packages, they import lightly, and a stranger is named."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from agents import __tokenfield__ as VERSION

ROOT = Path(__file__).parents[1]
PACKAGES = {"agents", "topology", "runner", "analysis"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, as a user's pip would get it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(folder)
    return folder


def outside(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a folder outside the repository, with `path` first on its sys.path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == PACKAGES | {f"tokenfield-{VERSION}.dist-info"}


def test_the_wheel_holds_every_module_and_preset_and_no_test(wheel: zipfile.ZipFile) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("*.py", "*.toml")
        for path in (ROOT / package).rglob(pattern)
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert wanted <= held
    assert any(name.startswith("runner/config/presets/") for name in held)
    assert not [name for name in held if any(part.startswith("test") for part in name.split("/"))]


def test_the_wheel_runs_outside_the_repository(unpacked: Path, tmp_path: Path) -> None:
    version = outside(tmp_path, "-m", "runner", "--version", path=unpacked)
    assert (version.returncode, version.stdout.strip()) == (0, f"tokenfield {VERSION}"), version.stderr


def test_the_wheel_imports_its_own_packages(unpacked: Path, tmp_path: Path) -> None:
    program = "import agents, topology, runner, analysis as a; print(agents.__file__, a.__file__)"
    done = outside(tmp_path, "-c", program, path=unpacked)
    assert done.stdout.split() == [str(unpacked / name / "__init__.py") for name in ("agents", "analysis")]


def test_importing_agents_loads_neither_torch_nor_ray_nor_networkx(tmp_path: Path) -> None:
    program = """
import importlib, pkgutil, sys, agents
for module in pkgutil.walk_packages(agents.__path__, "agents."):
    if module.name not in (
        "agents.transformer.model", "agents.transformer.export",
        # Who updates beliefs loads the compiler, and numba parts of scipy.
        "agents.inference.fast", "agents.kernels.elementary", "agents.kernels.exact", "agents.kernels.draws",
    ):
        importlib.import_module(module.name)
assert "agents.step" in sys.modules
print([name for name in ("torch", "ray", "networkx", "pandas", "scipy") if name in sys.modules])
"""
    done = outside(tmp_path, "-c", program, path=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def stranger(folder: Path, name: str, content: str) -> Path:
    """The __init__ of a package of another distribution that bears one of our names."""
    path = folder / "foreign" / name / "__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    return path


def last_words(folder: Path, entry: str) -> str:
    """Last line on stderr when `entry` is imported with the stranger first on sys.path."""
    program = f"import sys; sys.path[:0] = [{str(folder / 'foreign')!r}, {str(ROOT)!r}]; import {entry}"
    return outside(folder, "-c", program).stderr.strip().split("\n")[-1]


@pytest.mark.parametrize("content", ["", "raise RuntimeError", "\0", '__tokenfield__ = "0.0.9"\n'])
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("runner", "agents"),
        ("runner", "topology"),
        ("runner", "analysis"),
        ("analysis", "agents"),
        ("analysis", "topology"),
    ],
)
def test_the_guard_names_the_path_of_a_stranger(entry: str, name: str, content: str, tmp_path: Path) -> None:
    path = stranger(tmp_path, name, content)
    words = last_words(tmp_path, entry)
    assert words.startswith("ImportError: tokenfield")
    assert str(path) in words


def test_analysis_names_the_path_of_a_stranger_called_runner(tmp_path: Path) -> None:
    path = stranger(tmp_path, "runner", "")
    words = last_words(tmp_path, "analysis")
    assert words.startswith("ImportError: tokenfield")
    assert str(path) in words


def test_every_third_party_import_is_declared() -> None:
    imported = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.split(".")[0])
    readers = PROJECT["optional-dependencies"]["xarray"]  # imported where it is asked for
    declared = {_name(requirement) for requirement in [*PROJECT["dependencies"], *readers]}
    strangers = imported - PACKAGES - sys.stdlib_module_names
    assert {{"PIL": "pillow"}.get(name, name.replace("_", "-")) for name in strangers} <= declared


def _name(requirement: str) -> str:
    """What is required, without its extras and versions."""
    return re.split(r"[\[>=]", requirement)[0]


def test_every_declared_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {line.split("==")[0] for line in lines if not line.startswith("#")}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"], "hatchling", "editables"]
    assert {_name(requirement) for requirement in wanted} <= pins
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)
