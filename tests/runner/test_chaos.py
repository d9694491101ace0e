"""Kills at random, a few of the many that `make chaos` takes."""

from pathlib import Path

import pytest

from tests import chaos


@pytest.mark.ray
def test_ten_kills_change_no_bit(short: Path) -> None:
    ledger = chaos.unleash(10, 11, short)
    assert not ledger.failures, ledger.failures
    assert (ledger.kills, ledger.differing) == (10, 0) and ledger.runs


def test_bits_that_differ_are_counted() -> None:
    same, other = {"a": b"\x00\xff"}, {"a": b"\x01\xff", "b": b"\x00"}
    assert chaos.differing_bits(same, dict(same)) == 0
    assert chaos.differing_bits(same, other) == 1 + 8
