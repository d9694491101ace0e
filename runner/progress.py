"""Progress: bars on a terminal or in a notebook, plain lines on standard error elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib import import_module
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from rich import progress as bars
from rich.console import Console

_PLAIN_INTERVAL = 10.0  # seconds between two lines of the same task
_NOTEBOOK_INTERVAL = 0.2  # seconds between two states of a bar in a notebook, and before the first


@runtime_checkable
class Advance(Protocol):
    """Tells how far a task is."""

    def __call__(self, done: float, note: str = "") -> None:
        """`done` of the task's total, with a short remark."""
        ...


class Progress:
    """Shows long steps, one after the other or side by side."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._quiet = quiet

    def say(self, words: str) -> None:
        """One line, above the bars if there are any."""
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Advance]:
        """A step with a known length; yields the function that reports progress."""
        if self._quiet:
            yield lambda done, note="": None
        elif in_notebook():
            yield from self._picture(label, total)
        elif self._console.is_terminal:
            yield from self._bar(label, total)
        else:
            yield from self._lines(label, total)

    def _bar(self, label: str, total: float) -> Iterator[Advance]:
        columns = (
            bars.TextColumn("{task.description:<34}"),
            bars.BarColumn(bar_width=24),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[note]}"),
        )
        with bars.Progress(*columns, console=self._console) as progress:
            handle = progress.add_task(label, total=total, note="")

            def advance(done: float, note: str = "") -> None:
                progress.update(handle, completed=done, note=note)

            yield advance
            progress.update(handle, completed=total)

    def _picture(self, label: str, total: float) -> Iterator[Advance]:
        """A bar below the cell; of what is done at once none is shown."""
        display: Any = import_module("IPython.display")
        began = last = monotonic()
        handle: Any = None

        def show(done: float, note: str) -> None:
            nonlocal handle
            words = escape(f"{label}: {monotonic() - began:.0f} s {note}".rstrip())
            bar = f'<progress max="{total:g}" value="{done:g}" aria-label="{escape(label)}"></progress>'
            html = display.HTML(f"{bar} {words}")
            if handle is None:
                handle = display.display(html, display_id=True)
            else:
                handle.update(html)

        def advance(done: float, note: str = "") -> None:
            nonlocal last
            if monotonic() - last > _NOTEBOOK_INTERVAL:
                last = monotonic()
                show(done, note)

        yield advance
        if handle is not None:
            show(total, "")

    def _lines(self, label: str, total: float) -> Iterator[Advance]:
        began = last = monotonic()
        print(f"{label} ...", file=sys.stderr, flush=True)

        def advance(done: float, note: str = "") -> None:
            nonlocal last
            if monotonic() - last > _PLAIN_INTERVAL:
                last = monotonic()
                share = f"{100 * done / total:.0f} %" if total else ""
                print(f"{label}: {share} {note}".rstrip(), file=sys.stderr, flush=True)

        yield advance
        print(f"{label}: done in {monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
