"""The course of a run: its prompts batch by batch, and what is said when it stops before its end."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.policies.learned import Learned
from runner.errors import RunFailed

if TYPE_CHECKING:
    from runner.record import TraceWriter


@dataclass(frozen=True)
class Course:
    """What a run goes through, beside its experiment.

    Attributes:
        prompts: consecutive prompt indices.
        batch: how many are played together; the parts of a trace are so long.
        weights: digest of the weights that were handed in; None without any.
    """

    prompts: range
    batch: int
    weights: str | None = None

    def batches(self, done: int = 0) -> list[range]:
        """The batches after so many prompts.

        Example:
            >>> Course(range(10, 15), batch=2).batches(2)
            [range(12, 14), range(14, 15)]
        """
        first, stop = self.prompts.start + done, self.prompts.stop
        return [range(start, min(start + self.batch, stop)) for start in range(first, stop, self.batch)]


def weights_digest(learned: Learned | None) -> str | None:
    """Hash of all numbers of a learned policy."""
    if learned is None:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for layer in learned.layers:
        for affine in (layer.query, layer.emission, *layer.update):
            for part in affine:
                digest.update(part.tobytes())
    digest.update(learned.start_vector.tobytes() + learned.readout.tobytes())
    digest.update(repr((learned.channels, learned.control_variate)).encode())
    return digest.hexdigest()


@contextmanager
def going_on(writer: "TraceWriter | None") -> Iterator[None]:
    """Where a run that is stored stops early, say why, and how to go on.

    Raises:
        RunFailed: if the disk is full, memory is exhausted, or an engine failed.
        KeyboardInterrupt: with what a user is told.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how(writer)) from None
    except RunFailed as failure:
        raise RunFailed(f"{failure}. {_how(writer)}".removesuffix(" ")) from failure
    except MemoryError as failure:
        advice = "Memory is exhausted: set run.batch, the prompts that are played together, to less"
        raise RunFailed(f"{advice}. {_how(writer)}".removesuffix(" ")) from failure
    except OSError as failure:
        if writer is None or failure.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise RunFailed(f"{writer.folder} cannot be written: {failure.strerror}. {_how(writer)}") from failure


def _how(writer: "TraceWriter | None") -> str:
    if writer is None:
        return ""
    with suppress(RunFailed):  # of a full disk, for example; the manifest then still says "running"
        writer.manifest("stopped")
    return f"What was done is kept; go on with: tokenfield resume {writer.folder}"
