"""What a user imports is there, light, documented, and changes only on purpose."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

import analysis
import runner
import runner.errors

NAMES = {
    "runner": {
        "Built", "Experiment", "LocalEngine", "RayEngine", "Simulation", "build", "compare", "predict",
        "resume", "simulate", "sweep", "train",
    },
    "analysis": {
        "Run", "Runs", "Sweep", "measures", "open_run", "open_runs", "open_sweep", "plots", "theory",
    },
}  # fmt: skip
HOMES: dict[str, Any] = {"runner": runner, "analysis": analysis}


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package: str) -> None:
    assert set(HOMES[package].__all__) == NAMES[package]


@pytest.mark.parametrize(("package", "name"), [(p, n) for p, names in NAMES.items() for n in sorted(names)])
def test_a_public_name_is_there_and_documented(package: str, name: str) -> None:
    found = getattr(HOMES[package], name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        words = inspect.getdoc(found) or ""
        assert ("Args:" in words and "Raises:" in words and "Example:" in words) or name == "compare", name


def test_a_name_is_what_is_meant_whatever_was_imported_before() -> None:
    """No module of the package has the name of what it exports: it would take its place."""
    for package, names in NAMES.items():
        for name in names - {"measures", "plots", "theory"}:
            assert not inspect.ismodule(getattr(HOMES[package], name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulatte'"):
        _ = runner.simulatte


def test_importing_what_is_lazy_loads_nothing_heavy() -> None:
    program = (
        "import runner, analysis, sys; print([m for m in ('ray', 'torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tree_of_errors_is_the_one_in_its_docstring() -> None:
    words = runner.errors.__doc__ or ""
    for name in runner.errors.__all__:
        error = getattr(runner.errors, name)
        assert issubclass(error, runner.errors.TokenfieldError)
        assert name in words
    assert issubclass(runner.errors.CheckpointError, runner.errors.UnreadableError)
    assert issubclass(runner.errors.DivergenceError, FloatingPointError)
