"""Traces on disk: the schema of their tables, and the reader that opens them in pandas."""

from analysis.traces.reader import Run, open_run
from analysis.traces.runs import Runs, open_runs

__all__ = ["Run", "Runs", "open_run", "open_runs"]
