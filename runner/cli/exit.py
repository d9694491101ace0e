"""How a command ends: its exit code, and what it says when it did not do what was asked."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import RunError, UnreadableError, UsageError


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted; a message, never a traceback.

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
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what cannot be written is known here, not after the end
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
        _say(f"interrupted. {stop}".removesuffix(". "))
        sys.exit(130)


def _say(*lines: str) -> None:
    for line in lines:
        print(f"tokenfield: {line}", file=sys.stderr)
