"""How a command ends: its exit code, and what it says when it did not do what was asked."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

from runner.errors import RunError, UnreadableError, UsageError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 128 + n ended by signal n; a message, never a traceback.

    Example:
        >>> try:
        ...     with exit_codes():
        ...         raise RunError("the disk is full")
        ... except SystemExit as end:
        ...     end.code
        1
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # where a terminal lacks a letter, its code stands for it
        sys.stdout.reconfigure(errors="backslashreplace")
    signals = _Signals()
    try:
        with signals:
            try:
                yield
            finally:
                sys.stdout.flush()  # what cannot be written is known here, not after the end
    except SystemExit:
        if signals.came:  # while Typer was parsing, which ends without a word
            _end(signals, "")
        raise
    except UsageError as failure:
        _say(*failure.lines())
        sys.exit(2)
    except (RunError, UnreadableError) as failure:
        _say(str(failure))
        sys.exit(1)
    except MemoryError as failure:
        _say(f"out of memory ({failure}): take fewer tokens, prompts, rounds or samples")
        sys.exit(1)
    except OSError as failure:  # a reader of standard output that went away, a full disk behind it
        if failure.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        _say(f"failed: {failure}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try again to write there
        sys.exit(1)
    except KeyboardInterrupt as stop:
        _end(signals, str(stop))


def _end(signals: "_Signals", words: str) -> NoReturn:
    _say(f"ended by {signals.first.name}. {words}".removesuffix(" "))
    sys.exit(128 + signals.first)


class _Signals:
    """The first signal that asks for the end is raised as a KeyboardInterrupt; a second one ends at once.

    What this process started ends with it. A signal that is ignored, as SIGHUP is below nohup, stays so.

    Attributes:
        first: the signal that came; SIGINT before any came, or where KeyboardInterrupt was raised by hand.
        came: whether one came.
    """

    def __init__(self) -> None:
        self.first, self.came = signal.SIGINT, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self.came:  # the interpreter takes its time to end: a second one still ends at once
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            os._exit(128 + number)
        self.first, self.came = signal.Signals(number), True
        raise KeyboardInterrupt


def _say(*lines: str) -> None:
    for line in lines:
        print(f"tokenfield: {line}", file=sys.stderr)
