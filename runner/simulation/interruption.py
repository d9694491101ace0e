"""What is said when a run stops before its end: why, and how to resume it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shlex import quote

from runner.errors import RunError
from runner.storage.writer import TraceWriter


@contextmanager
def explained(writer: TraceWriter | None) -> Iterator[None]:
    """Where a run that is stored stops early, say why, and how to resume it.

    Raises:
        RunError: if the disk is full, memory is exhausted, or an engine failed.
        KeyboardInterrupt: with what a user is told.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how(writer)) from None
    except RunError as failure:
        raise RunError(f"{failure}. {_how(writer)}".removesuffix(" ")) from failure
    except MemoryError as failure:
        advice = "Memory is exhausted: set run.batch, the prompts that are played together, to less"
        raise RunError(f"{advice}. {_how(writer)}".removesuffix(" ")) from failure
    except OSError as failure:
        if writer is None or failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise RunError(f"{writer.folder} cannot be written: {failure.strerror}. {_how(writer)}") from failure


def _how(writer: TraceWriter | None) -> str:
    if writer is None:
        return ""
    with suppress(RunError):  # of a full disk, for example; the manifest then still says "running"
        writer.manifest("stopped")
    handed = writer.handed_in()
    if handed:  # which no command can name
        given = ", ".join(f"{name}=..." for name in handed)
        return f"What was done is kept; resume it with: runner.resume({str(writer.folder)!r}, {given})"
    return f"What was done is kept; resume it with: tokenfield resume {quote(str(writer.folder))}"
