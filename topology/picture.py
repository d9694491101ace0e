"""A locality graph as text: the mask of an attention, drawn with characters for a terminal."""

import numpy as np
from jaxtyping import Bool, Float, Int

from topology.mixing import Mixing

_HALVES = " ▀▄█"
_HALF_BITS = np.array([[1], [2]])
_BRAILLE = "".join(chr(0x2800 + code) for code in range(256))
_BRAILLE_BITS = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # how Unicode numbers the eight dots
_SHADES = " ░▒▓█"


def mask(mixing: Mixing, width: int = 64) -> str:
    """Who hears whom: a row for each receiver, a column for each sender, filled where the weight is positive.

    Exact up to N = 2 `width`, in half blocks while N <= `width` / 2 and in braille above. A larger graph is
    drawn in shades: a character is blank if no weight is in its cell, and otherwise the darker the larger the
    share of positive weights, relative to the fullest cell. No line ends in blanks, and there are at most
    `width` / 2 lines, rounded up.

    Args:
        mixing: the weights.
        width: most characters in a line, at least 1.

    Raises:
        ValueError: if the width is not positive.

    Example:
        >>> from topology.families import Family, path
        >>> from topology.mixing import uniform
        >>> print(mask(uniform(path(Family(6)))))
        ██▄
         ▀██▄
           ▀██
    """
    _, across = cell(mixing.tokens, width)
    if mixing.tokens > 2 * width:
        lines = _shaded(_share_filled(mixing, (width + 1) // 2, width))
    elif across == 2:
        lines = _dotted(_filled(mixing), _BRAILLE_BITS, _BRAILLE)
    else:
        lines = _dotted(_filled(mixing), _HALF_BITS, _HALVES)
    return "\n".join(line.rstrip(" " + _BRAILLE[0]) for line in lines)


def cell(tokens: int, width: int = 64) -> tuple[float, float]:
    """Receivers and senders that one character of `mask` stands for, on average.

    Args:
        tokens: N.
        width: most characters in a line, at least 1.

    Raises:
        ValueError: if the width is not positive.

    Example:
        >>> cell(32), cell(128), cell(1600)
        ((2, 1), (4, 2), (50.0, 25.0))
    """
    if width < 1:
        raise ValueError(f"a picture needs a width of at least 1 character; got {width}")
    if tokens <= width // 2:
        return 2, 1
    if tokens <= 2 * width:
        return 4, 2
    return tokens / ((width + 1) // 2), tokens / width


def _filled(mixing: Mixing) -> Bool[np.ndarray, "N N"]:
    return np.broadcast_to(mixing.weights.toarray() > 0, (mixing.tokens, mixing.tokens))


def _dotted(
    filled: Bool[np.ndarray, "N N"], bits: Int[np.ndarray, "height breadth"], glyphs: str
) -> list[str]:
    """Lines of glyphs, whose index has one bit for each entry that a glyph covers."""
    height, breadth = bits.shape
    size = len(filled)
    padded = np.pad(filled, ((0, -size % height), (0, -size % breadth)))
    cells = padded.reshape(padded.shape[0] // height, height, padded.shape[1] // breadth, breadth)
    return ["".join(glyphs[index] for index in row) for row in np.einsum("rhcb,hb->rc", cells, bits)]


def _share_filled(mixing: Mixing, lines: int, columns: int) -> Float[np.ndarray, "lines columns"]:
    """Share of positive weights in each cell; never the whole matrix, which may not fit in memory."""
    size = mixing.tokens
    line_of, column_of = (np.arange(size) * count // size for count in (lines, columns))
    entries = mixing.weights.tocoo()
    kept = entries.data > 0
    senders = column_of[entries.col[kept]]
    heights, breadths = np.bincount(line_of), np.bincount(column_of)
    if mixing.is_shared:
        count = heights[:, None] * np.bincount(senders, minlength=columns)
    else:
        places = line_of[entries.row[kept]] * columns + senders
        count = np.bincount(places, minlength=lines * columns).reshape(lines, columns)
    return count / np.outer(heights, breadths)


def _shaded(share: Float[np.ndarray, "lines columns"]) -> list[str]:
    """Blank for none: a single weight has the lightest shade already."""
    darkest = len(_SHADES) - 1
    steps = np.ceil(darkest * share / max(float(share.max()), np.finfo(float).tiny)).astype(int)
    return ["".join(_SHADES[min(step, darkest)] for step in row) for row in steps]
