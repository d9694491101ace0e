"""All errors of tokenfield, by name; every one of them is a `TokenfieldError`.

    TokenfieldError
    ├── UsageError                          input that cannot be run: what was given, what is possible
    ├── RunError                            a run that was possible and did not come to its end
    ├── UnreadableError (ValueError)        a file that tokenfield did not write, or that was damaged
    │   ├── CheckpointError                 a checkpoint of something else, or damaged
    │   └── WeightsError                    trained weights of something else, or damaged
    └── DivergenceError (FloatingPointError)  a training loss that is not finite or exploded

What lies below them, in `agents`, `topology` and `analysis.theory`, raises Python's own ValueError and
FloatingPointError.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path

from analysis.errors import LONGEST, TokenfieldError, UnreadableError, printable, shown

__all__ = [
    "CheckpointError",
    "DivergenceError",
    "RunError",
    "TokenfieldError",
    "UnreadableError",
    "UsageError",
    "WeightsError",
]

_MOST_SHOWN = 20  # mistakes in one input that are told


class UsageError(TokenfieldError):
    """Input that cannot be run: names the key, what was given, what is possible, what to do.

    Attributes:
        key: what is wrong, as the user wrote it.
        errors: all that is wrong with the input; the error itself where it is the only one.

    Example:
        >>> print(UsageError("channel.bits", 0, "an integer from 1 to 48"))
        channel.bits = 0 is not possible; possible: an integer from 1 to 48
    """

    def __init__(self, key: str, given: object, possible: str, advice: str = "") -> None:
        self.key, self.given, self.possible, self.advice = key, given, possible, advice
        self.errors: Sequence[UsageError] = [self]
        text = f"{printable(key)} = {shown(given)} is not possible; possible: {possible}"
        super().__init__(text + (f". {advice}" if advice else ""))

    @classmethod
    def of(cls, errors: "Sequence[UsageError]") -> "UsageError":
        """All that is wrong with one input, as one error that says it line by line."""
        if len(errors) == 1:
            return errors[0]
        first = errors[0]
        whole = cls(first.key, first.given, first.possible, first.advice)
        whole.errors = list(errors)
        whole.args = ("\n".join(whole.lines()),)
        return whole

    def lines(self) -> list[str]:
        """The mistakes, up to a number that can be read."""
        told = [error.args[0] for error in self.errors[:_MOST_SHOWN]]
        left = len(self.errors) - len(told)
        return told + ([f"... and {left:,} more"] if left else [])


class RunError(TokenfieldError):
    """A run that was possible but did not come to its end; says why, and what to do."""


class CheckpointError(UnreadableError):
    """A checkpoint that belongs to something else; says what it is of, what was expected, what to do."""


class WeightsError(UnreadableError):
    """A file of weights that is damaged or of something else; says what it is of and what to do."""


class DivergenceError(TokenfieldError, FloatingPointError):
    """The loss of a model is not finite or exploded.

    Attributes:
        step: the report at which it was seen; the loss was good one report before.
        checkpoint: the last good one; None if none was kept.
        checkpoint_step: the step of it.
    """

    def __init__(
        self, message: str, step: int = 0, checkpoint: Path | None = None, checkpoint_step: int | None = None
    ) -> None:
        super().__init__(message)
        self.step, self.checkpoint, self.checkpoint_step = step, checkpoint, checkpoint_step


def expect(key: str, given: object, kind: type | tuple[type, ...], possible: str, advice: str = "") -> None:
    """Refuse what is of another kind, or a class in place of one of its objects.

    Args:
        key: the argument, as the user wrote it.
        given: what was handed in.
        kind: what it must be an instance of; a protocol counts by its methods.
        possible: what it may be, in words.
        advice: what to do.

    Raises:
        UsageError: with what was given and what is possible.

    Example:
        >>> expect("out", "runs", (str, Path), "a path")
    """
    if not isinstance(given, kind) or isinstance(given, type):
        raise UsageError(key, given, possible, advice)


def expect_count(key: str, given: object, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no integer, less than the least, or more than the most.

    Args:
        key: the argument, as the user wrote it.
        given: what was handed in.
        least: the smallest that is possible.
        most: the largest; None without one.

    Raises:
        UsageError: with what was given and what is possible.

    Example:
        >>> expect_count("samples", 20_000, least=2)
    """
    whole = isinstance(given, Integral) and not isinstance(given, bool)
    if not whole or given < least or (most is not None and given > most):  # type: ignore[operator]
        raise UsageError(key, given, f"an integer from {least}" + ("" if most is None else f" to {most}"))


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that proposes the known word closest to `word`; empty if none is close.

    Example:
        >>> nearest("bit", ["bits", "clip"])
        'Did you mean bits?'
    """
    close = get_close_matches(word[:LONGEST], list(known), n=1)
    return f"Did you mean {close[0]}?" if close else ""
