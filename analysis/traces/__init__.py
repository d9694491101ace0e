"""Traces on disk: the schema of their tables, and the reader that opens them in pandas."""

from analysis.traces.reader import Run, open_run

__all__ = ["Run", "open_run"]
