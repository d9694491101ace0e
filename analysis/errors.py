"""The errors of tokenfield that need no runner, and how they show what was given."""

from reprlib import Repr

LONGEST = 100  # characters of a word that are told, or compared with others
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 2 * LONGEST
_SHORT.maxlevel = 3


class TokenfieldError(Exception):
    """The base of every error that tokenfield raises by a name of its own."""


class UnreadableError(TokenfieldError, ValueError):
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
    plain = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:LONGEST])
    return (plain or '""') + ("..." if len(text) > LONGEST else "")
