"""Peak scores of several networks on the scale of one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.evaluation.scales import on_scale_of


def hits_and_false_alarms(n_hits, shift):
    """Hits between 4 and 6 and as many false alarms between -3 and -1, all moved by `shift`."""
    peak = np.concatenate([np.linspace(4, 6, n_hits), np.linspace(-3, -1, n_hits)]) + shift
    return peak, np.repeat([True, False], n_hits)


def test_one_network_keeps_its_scores():
    peak, hit = hits_and_false_alarms(5, 0.0)
    assert on_scale_of(2, peak, hit, np.full(10, 2)) is peak


def test_without_a_hit_nothing_is_moved():
    peak = np.array([1.0, 3.0])
    assert on_scale_of(1, peak, np.zeros(2, dtype=bool), np.array([1, 2])) is peak


def test_with_many_hits_the_networks_agree():
    one, hit = hits_and_false_alarms(1000, 0.0)
    other, _ = hits_and_false_alarms(1000, -3.0)
    peak, network = np.concatenate([one, other]), np.repeat([1, 2], 2000)
    moved = on_scale_of(1, peak, np.concatenate([hit, hit]), network)
    np.testing.assert_array_equal(moved[:2000], one)
    np.testing.assert_allclose(moved[2000:], one, atol=0.05)
    back = on_scale_of(2, peak, np.concatenate([hit, hit]), network)
    np.testing.assert_allclose(back[:2000], other, atol=0.05)


def test_ten_hits_move_half_way_to_their_own_mean():
    # Common median 0: the mean of network 1 is 4 with ten hits, drawn to 2; that of network 2 is -4, drawn to -2.
    peak, network = np.repeat([4.0, -4.0], 10), np.repeat([1, 2], 10)
    moved = on_scale_of(1, peak, np.ones(20, dtype=bool), network)
    np.testing.assert_allclose(moved, np.repeat([4.0, 0.0], 10))


def test_a_network_without_hits_stands_at_the_common_scale():
    peak, hit, network = np.array([2.0, 2.0, -1.0]), np.array([True, True, False]), np.array([1, 1, 2])
    np.testing.assert_allclose(on_scale_of(2, peak, hit, network), peak)


@given(st.lists(st.tuples(st.floats(-20, 20), st.booleans(), st.integers(1, 3)), min_size=1, max_size=40))
def test_order_within_a_network_stays_and_order_of_rows_does_not_matter(rows):
    peak, hit, network = (np.array(column) for column in zip(*rows, strict=True))
    moved = on_scale_of(1, peak, hit, network)
    for n in set(network):
        assert np.ptp(moved[network == n] - peak[network == n]) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(on_scale_of(1, peak[::-1], hit[::-1], network[::-1])[::-1], moved)
