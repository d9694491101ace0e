"""The command line, run in this process."""

import sys

import pytest

from runner.cli import main


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of `tokenfield` with some arguments."""
    monkeypatch.setattr(sys, "argv", ["tokenfield", *arguments])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
