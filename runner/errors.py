"""What is said to a user whose input cannot be run."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(Exception):
    """Input that cannot be run: names the key, what was given, what is possible, what to do.

    Example:
        >>> print(UsageError("channel.bits", 0, "an integer from 1 to 48"))
        channel.bits = 0 is not possible; possible: an integer from 1 to 48
    """

    def __init__(self, key: str, given: object, possible: str, advice: str = "") -> None:
        self.key, self.given, self.possible, self.advice = key, given, possible, advice
        text = f"{key} = {given!r} is not possible; possible: {possible}"
        super().__init__(text + (f". {advice}" if advice else ""))


class UsageErrors(Exception):
    """All that is wrong with one input, a line each."""

    def __init__(self, errors: list[UsageError]) -> None:
        self.errors = errors
        super().__init__("\n".join(str(error) for error in errors))


class RunFailed(Exception):
    """A run that was possible but did not come to its end; says why, and what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that proposes the known word closest to `word`; empty if none is close.

    Example:
        >>> nearest("bit", ["bits", "clip"])
        'Did you mean bits?'
    """
    close = get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]}?" if close else ""
