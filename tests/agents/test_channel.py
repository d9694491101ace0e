"""A message is an integer of b bits; what does not fit is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.channel import Channel

channels = st.builds(Channel, bits=st.integers(1, 48), clip=st.floats(1e-3, 1e3))
values = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20).map(np.array)


@given(channels, values)
def test_error_is_at_most_half_a_step_inside_the_clip(channel: Channel, value: np.ndarray) -> None:
    wire, _ = channel.encode(value)
    back = channel.decode(wire.astype(np.int64), np.ones(len(value), dtype=np.int64))
    inside = np.clip(value, -channel.clip, channel.clip)
    assert (np.abs(back - inside) <= channel.step / 2 + 1e-12 * channel.clip).all()


@given(channels, values)
def test_wire_fits_its_bits_and_its_type(channel: Channel, value: np.ndarray) -> None:
    wire, clipped = channel.encode(value)
    assert int(wire.max()) < 2**channel.bits
    assert wire.dtype == channel.wire_type
    assert wire.dtype.itemsize * 8 >= channel.bits
    np.testing.assert_array_equal(clipped, np.abs(value) > channel.clip)


@given(st.permutations(list(range(12))), st.integers(1, 40))
def test_mean_of_a_field_does_not_depend_on_the_order_of_arrival(order: list[int], bits: int) -> None:
    channel = Channel(bits=bits, clip=4.0)
    wire = channel.encode(np.random.default_rng(0).normal(size=12)).wire.astype(np.int64)
    weight = np.array(12)
    total = np.array(sum(int(wire[i]) for i in order))
    np.testing.assert_array_equal(channel.decode(total, weight), channel.decode(np.array(wire.sum()), weight))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(FloatingPointError):
        Channel().encode(np.array([0.0, bad]))


def test_a_field_that_nobody_spoke_on_is_zero() -> None:
    assert Channel().decode(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("bits", "codes", "channels", "cost"), [(16, 7, 1, 19), (24, 8, 2, 54), (8, 1, 3, 24)]
)
def test_cost_of_a_message_is_value_and_address(bits: int, codes: int, channels: int, cost: int) -> None:
    assert Channel(channels, bits).bits_per_message(codes) == cost
