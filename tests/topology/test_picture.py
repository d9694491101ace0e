"""The picture of a mask is the mask: read back from its characters, dot by dot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from topology.families import FAMILIES, Family
from topology.mixing import Mixing, everyone, mixing_of, weigh
from topology.picture import cell, mask

# Where the eight dots of a braille character are, by the number that Unicode gives them.
DOTS = ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1))
SHADES = " ░▒▓█"


def decoded(text: str, tokens: int) -> np.ndarray:
    """The matrix that a picture shows, and that nothing is drawn outside it."""
    braille = any(0x2800 <= ord(glyph) < 0x2900 for glyph in text)
    height, breadth = (4, 2) if braille else (2, 1)
    matrix = np.zeros((tokens + height, tokens + breadth), dtype=bool)
    for line, glyphs in enumerate(text.split("\n")):
        for column, glyph in enumerate(glyphs):
            if braille:
                code = ord(glyph) - 0x2800
                dots = [place for bit, place in enumerate(DOTS) if code >> bit & 1]
            else:
                dots = {" ": [], "▀": [(0, 0)], "▄": [(1, 0)], "█": [(0, 0), (1, 0)]}[glyph]
            for down, across in dots:
                matrix[line * height + down, column * breadth + across] = True
    assert not matrix[tokens:].any()
    assert not matrix[:, tokens:].any()
    return matrix[:tokens, :tokens]


@given(st.integers(1, 140), st.integers(70, 100), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_mask_that_fits_is_read_back_exactly(tokens: int, width: int, share: float, seed: int) -> None:
    weights = np.random.default_rng(seed).random((tokens, tokens)) < share
    text = mask(Mixing(csr_array(weights.astype(np.int64))), width)
    np.testing.assert_array_equal(decoded(text, tokens), weights)
    assert all(len(line) <= width for line in text.split("\n"))
    assert not any(line.endswith((" ", chr(0x2800))) for line in text.split("\n"))


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("tokens", [8, 32, 64, 128])
@pytest.mark.parametrize("weights", ["uniform", "metropolis"])
def test_every_family_is_read_back_exactly(kind: str, tokens: int, weights: str) -> None:
    mixing = weigh(FAMILIES[kind](Family(tokens)), weights)
    text = mask(mixing)
    np.testing.assert_array_equal(decoded(text, tokens), mixing.weights.toarray() > 0)
    assert text.count("\n") + 1 == -(-tokens // (2 if tokens <= 32 else 4))


def test_shared_weights_are_those_of_everyone() -> None:
    for tokens in (7, 50, 300):
        assert mask(everyone(tokens)) == mask(weigh(FAMILIES["complete"](Family(tokens)), "uniform"))


def test_a_weight_of_zero_that_is_stored_is_not_drawn() -> None:
    weights = csr_array((np.array([0, 1]), (np.array([0, 1]), np.array([1, 0]))), shape=(2, 2))
    assert weights.nnz == 2
    assert mask(Mixing(weights)) == "▄"


@given(st.integers(2, 40), st.integers(0, 60), st.floats(0, 0.3), st.integers(0, 2**32 - 1))
def test_shades_of_a_large_mask_tell_how_full_a_cell_is(
    width: int, more: int, share: float, seed: int
) -> None:
    tokens = 2 * width + 1 + more
    weights = np.random.default_rng(seed).random((tokens, tokens)) < share
    lines = mask(Mixing(csr_array(weights.astype(np.int64))), width).split("\n")
    rows = (width + 1) // 2
    assert len(lines) == rows
    receivers, senders = (np.arange(tokens) * count // tokens for count in (rows, width))
    fullness = np.array(
        [
            [weights[np.ix_(receivers == line, senders == column)].mean() for column in range(width)]
            for line in range(rows)
        ]
    )
    for line, row in zip(lines, fullness, strict=True):
        for glyph, filled in zip(line.ljust(width), row, strict=True):
            step = SHADES.index(glyph)
            assert (step == 0) == (filled == 0)
            if filled:
                assert (step - 1) / 4 - 1e-9 <= filled / fullness.max() <= step / 4 + 1e-9


def test_a_very_large_graph_needs_no_matrix() -> None:
    assert mask(everyone(10**6), width=6) == "██████\n" * 2 + "██████"
    ring = mask(mixing_of("ring", Family(20_000)), width=20)
    assert [line.index("█") for line in ring.split("\n")] == [2 * line for line in range(10)]


def test_a_character_stands_for_as_many_tokens_as_is_said() -> None:
    assert (cell(32), cell(33), cell(128)) == ((2, 1), (4, 2), (4, 2))
    assert cell(129) == (129 / 32, 129 / 64)
    with pytest.raises(ValueError, match="width of at least 1"):
        mask(everyone(3), width=0)
