"""Sums over neighbours are exact integers and agree with a loop over edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.families import Family, causal, complete
from topology.mixing import Mixing, everyone, mixing_of, past, uniform


@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_short_cuts_are_the_mixing_of_their_graphs(tokens: int) -> None:
    np.testing.assert_array_equal(
        uniform(causal(Family(tokens))).weights.toarray(), past(tokens).weights.toarray()
    )
    dense = uniform(complete(Family(tokens))).weights.toarray()
    np.testing.assert_array_equal(dense, np.repeat(everyone(tokens).weights.toarray(), tokens, axis=0))


@pytest.mark.parametrize("mixing", [everyone(6), past(6), uniform(causal(Family(6)))])
@given(st.integers(0, 2**32 - 1))
def test_tally_is_the_sum_over_edges(mixing: Mixing, seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 3, (6, 2, 4))
    wire = generator.integers(0, 2**40, (6, 2, 4))
    receivers = np.array([1, 4])
    total, weight, square = mixing.aggregate(codes, wire, 3, receivers)
    dense = np.broadcast_to(mixing.weights.toarray(), (6, 6)).astype(object)
    for row, receiver in enumerate([0] if mixing.is_shared else receivers):
        for code in range(3):
            for prompt in range(4):
                said = [
                    (int(dense[receiver, j]), int(wire[j, k, prompt]))
                    for j in range(6)
                    for k in range(2)
                    if codes[j, k, prompt] == code
                ]
                assert total[row, code, prompt] == sum(a * q for a, q in said)
                assert weight[row, code, prompt] == sum(a for a, _ in said)
                assert square[row, code, prompt] == sum(a * a for a, _ in said)


def test_effective_number_counts_what_a_token_hears() -> None:
    np.testing.assert_array_equal(past(4).effective(), [1, 2, 3, 4])
    np.testing.assert_array_equal(mixing_of("complete", Family(4)).effective(), [4, 4, 4, 4])
