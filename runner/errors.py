"""What is said to a user whose input cannot be run."""

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr

_MOST_SHOWN = 20  # mistakes in one input that are told
_LONGEST = 100  # characters of a word that are told, or compared with others
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 2 * _LONGEST
_SHORT.maxlevel = 3


class UsageError(Exception):
    """Input that cannot be run: names the key, what was given, what is possible, what to do.

    Example:
        >>> print(UsageError("channel.bits", 0, "an integer from 1 to 48"))
        channel.bits = 0 is not possible; possible: an integer from 1 to 48
    """

    def __init__(self, key: str, given: object, possible: str, advice: str = "") -> None:
        self.key, self.given, self.possible, self.advice = key, given, possible, advice
        text = f"{printable(key)} = {shown(given)} is not possible; possible: {possible}"
        super().__init__(text + (f". {advice}" if advice else ""))


class UsageErrors(Exception):
    """All that is wrong with one input, a line each."""

    def __init__(self, errors: list[UsageError]) -> None:
        self.errors = errors
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """The mistakes, up to a number that can be read."""
        told = [str(error) for error in self.errors[:_MOST_SHOWN]]
        left = len(self.errors) - len(told)
        return told + ([f"... and {left:,} more"] if left else [])


class RunFailed(Exception):
    """A run that was possible but did not come to its end; says why, and what to do."""


class Unreadable(ValueError):
    """A file that tokenfield did not write, or that was damaged since."""


def shown(value: object) -> str:
    """A value as a message tells it: in one line, whatever its size.

    Example:
        >>> shown("clever"), shown(10**5000), shown([0] * 100)
        ("'clever'", 'an integer of 16,610 bits', '[0, 0, 0, 0, 0, 0, ...]')
    """
    try:
        text = _SHORT.repr(value)
        return " ".join(text.split()) if "\n" in text else text
    except ValueError:  # Python does not write integers of more than 4,300 digits
        return f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else "a huge value"


def printable(text: str) -> str:
    """Text that a terminal prints and does not obey, cut where it is very long.

    Example:
        >>> printable("run.\\x1b[31m")
        'run.\\\\x1b[31m'
    """
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:_LONGEST])
    return (plain or '""') + ("..." if len(text) > _LONGEST else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that proposes the known word closest to `word`; empty if none is close.

    Example:
        >>> nearest("bit", ["bits", "clip"])
        'Did you mean bits?'
    """
    close = get_close_matches(word[:_LONGEST], list(known), n=1)
    return f"Did you mean {close[0]}?" if close else ""
