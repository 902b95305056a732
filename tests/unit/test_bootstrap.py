"""Intervals by resampling groups."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

from otus.bootstrap import (
    GroupDraws,
    correlation_interval,
    difference_interval,
    effective_groups,
    group_draws,
    rate_interval,
    share_interval,
)

MEASURES = ("f1", "recall", "precision", "false alarms")


def names(n):
    return np.array([f"g{i:03d}" for i in range(n)])


def drawn_ratio(part, whole, n_groups, *, n=1000, seed=1):
    """Value and resamples of a ratio of sums over groups."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    weights = group_draws(names(n_groups), n=n, seed=seed).weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return part.sum() / whole.sum(), (weights @ part) / (weights @ whole)


def share(part, whole, **options):
    return share_interval(
        *drawn_ratio(part, whole, len(part), **options), effective_groups(np.asarray(whole, dtype=float))
    )


def corpus(random, n_groups):
    """Counts by group, which differ more than chance alone would have it; and what they are drawn from."""
    n_gt = random.poisson(random.gamma(1.5, 20.0, n_groups))
    tp = random.binomial(n_gt, random.beta(6.0, 2.0, n_groups))
    hours = random.uniform(0.2, 1.0, n_groups)
    alarms = random.poisson(random.gamma(1.0, 15.0, n_groups) * hours)
    n_pred = tp + alarms
    calls, hits, false_alarms = 30.0, 22.5, 15.0 * 0.6
    truths = 2 * hits / (hits + false_alarms + calls), hits / calls, hits / (hits + false_alarms), 15.0
    return ((2 * tp, n_pred + n_gt), (tp, n_gt), (tp, n_pred), (alarms, hours)), truths


def held(n_groups, corpora):
    """Whether our interval, and the plain quantiles, hold the truth: (corpora, measures) each."""
    ours, quantiles = np.zeros((corpora, 4), dtype=bool), np.zeros((corpora, 4), dtype=bool)
    for k in range(corpora):
        ratios, truths = corpus(np.random.default_rng([n_groups, k]), n_groups)
        for i, ((part, whole), truth) in enumerate(zip(ratios, truths, strict=True)):
            value, resampled = drawn_ratio(part, whole, n_groups, n=250, seed=k)
            if MEASURES[i] == "false alarms":
                interval = rate_interval(value, resampled, effective_groups(whole), float(whole.sum()))
            else:
                interval = share_interval(value, resampled, effective_groups(whole))
            ours[k, i] = interval.low <= truth <= interval.high
            low, high = np.nanquantile(resampled, [0.025, 0.975])
            quantiles[k, i] = low <= truth <= high
    return ours, quantiles


def test_intervals_hold_the_truth_in_93_to_97_of_100_simulated_corpora():
    shares = {n_groups: held(n_groups, 600) for n_groups in (4, 12, 20, 40)}
    found = {n_groups: np.round(ours.mean(axis=0), 3).tolist() for n_groups, (ours, _) in shares.items()}
    over_sizes = np.mean([ours.mean(axis=0) for ours, _ in shares.values()], axis=0)
    assert ((over_sizes > 0.93) & (over_sizes < 0.97)).all(), found
    for n_groups, of_measures in found.items():  # 600 corpora tell a share to 0.9 % (standard error)
        assert min(of_measures) > 0.92, (n_groups, of_measures)
        assert max(of_measures) < 0.98, (n_groups, of_measures)
    plain = shares[12][1].mean(axis=0)
    assert plain[0] < 0.93, "quantiles of the resamples would be too narrow"
    assert plain[3] < 0.90, "and much too narrow for rates"


def test_a_share_that_few_groups_tell_of_is_not_held_for_certain():
    # 40 groups, but calls in 4 of them: recall is as uncertain as with 4 groups.
    n_gt, tp = np.zeros(40), np.zeros(40)
    n_gt[:4], tp[:4] = 10, (9, 5, 7, 8)
    alone, among = share(tp[:4], n_gt[:4]), share(tp, n_gt)
    assert among.high - among.low == pytest.approx(alone.high - alone.low, rel=0.35)
    assert among.high - among.low > 1.2 * (share(np.tile(tp[:4], 10), np.full(40, 10.0)).high - 0.6)


def test_groups_are_resampled_not_recordings():
    # Ten recordings of each of two tapes: all calls found on one, none on the other. Between tapes everything is open;
    # recordings, taken as independent, would pretend that recall is known within about 0.25.
    by_tape = share([100, 0], [100, 100])
    assert by_tape.low < 0.01
    assert by_tape.high > 0.99
    by_recording = share([10] * 10 + [0] * 10, [10] * 20)
    assert 0.2 < by_recording.low < 0.35
    assert 0.65 < by_recording.high < 0.8
    # And the other way: recordings differ, tapes hardly do.
    alike = share([5] * 9 + [6], [10] * 10)
    assert alike.high - alike.low < 0.06


def test_interval_of_a_mean_agrees_with_theory():
    # Groups with one call each: recall is a mean of independent coin tosses, standard error sqrt(p q / n).
    n, found = 400, 240
    recall = share([1] * found + [0] * (n - found), [1] * n, n=4000)
    half = 1.96 * math.sqrt(0.6 * 0.4 / n)
    assert recall.low == pytest.approx(0.6 - half, abs=0.006)
    assert recall.high == pytest.approx(0.6 + half, abs=0.006)


def test_what_is_perfect_everywhere_is_no_certainty():
    perfect, nothing = share([10] * 8, [10] * 8), share([0] * 8, [10] * 8)
    assert (perfect.low, perfect.high) == pytest.approx((0.025 ** (1 / 8), 1.0))
    assert (nothing.low, nothing.high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 8)))
    silence = rate_interval(0.0, np.zeros(100), 8, 2.0)
    assert (silence.low, silence.high) == pytest.approx((0.0, 3.689 / 2), abs=1e-3)


def test_what_is_the_same_everywhere_is_no_certainty():
    # Two tapes with one of two calls found on each, or one of three: rounding must make no difference.
    for n_gt in (2, 3):
        same = share([1, 1], [n_gt, n_gt])
        assert same.low < 0.05
        assert same.high > 0.8
    half = share([5] * 10, [10] * 10)
    by_trials = binomtest(5, 10).proportion_ci(method="exact")
    assert (half.low, half.high) == pytest.approx((by_trials.low, by_trials.high))
    value, resampled = drawn_ratio([6] * 3, [0.6] * 3, 3)
    rate = rate_interval(value, resampled, 3, 1.8)
    assert (rate.low, rate.high) == pytest.approx((chi2.ppf(0.025, 36) / 3.6, chi2.ppf(0.975, 38) / 3.6))
    assert difference_interval(0.0, np.zeros(100), 3).high == 0.0, "two results that are the same do not differ"


def test_undefined_resamples_do_not_count():
    # A quarter of the resamples hold no selection at all: they say nothing of precision, and must not be zeros.
    value, resampled = drawn_ratio([3, 0], [4, 0], 2)
    assert np.isnan(resampled).any()
    interval = share_interval(value, resampled, 2)
    assert interval == share_interval(value, resampled[np.isfinite(resampled)], 2)
    assert math.isfinite(interval.low)


@pytest.mark.parametrize("n_groups", [0, 1])
def test_no_interval_with_fewer_than_two_groups_or_without_resamples_or_value(n_groups):
    some = np.array([0.4, 0.6, 0.5])
    found = [
        share_interval(0.5, some, n_groups),
        rate_interval(0.5, some, n_groups, 1.0),
        correlation_interval(0.5, some, n_groups),
        difference_interval(0.5, some, n_groups),
        share_interval(0.5, np.zeros(0), 9),
        share_interval(0.5, np.full(3, np.nan), 9),
        rate_interval(0.5, np.zeros(0), 9, 1.0),
        difference_interval(0.5, np.zeros(0), 9),
    ]
    for interval in found:
        assert interval.value == 0.5
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    undefined = [
        share_interval(math.nan, some, 9),
        rate_interval(math.nan, some, 9, 1.0),
        correlation_interval(math.nan, some, 9),
        difference_interval(math.nan, some, 9),
        correlation_interval(1.0, some, 9),
    ]
    assert all(math.isnan(interval.low) and math.isnan(interval.high) for interval in undefined)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=25),
    st.integers(0, 2**62),
)
def test_intervals_hold_their_value_and_stay_in_range(rows, seed):
    part = np.array([hits for hits, _ in rows], dtype=float)
    whole = part + [misses for _, misses in rows]
    interval = share(part, whole, n=50, seed=seed)
    if math.isfinite(interval.low):
        assert 0 <= interval.low <= interval.value + 1e-12
        assert interval.value - 1e-12 <= interval.high <= 1
    else:
        assert np.count_nonzero(whole) < 2
    value, resampled = drawn_ratio(part, np.full(len(part), 0.5), len(part), n=50, seed=seed)
    rate = rate_interval(value, resampled, len(part), 0.5 * len(part))
    assert 0 <= rate.low <= value + 1e-9
    assert value - 1e-9 <= rate.high


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.999, 0.999), st.integers(4, 30), st.integers(0, 99))
def test_intervals_of_correlations_and_differences(value, n_groups, seed):
    resampled = np.clip(value + np.random.default_rng(seed).normal(0, 0.2, 200), -1, 1)
    correlation = correlation_interval(value, resampled, n_groups)
    assert -1 <= correlation.low < value < correlation.high <= 1
    difference = difference_interval(value, resampled, n_groups)
    assert difference.high - value == pytest.approx(value - difference.low)
    assert difference_interval(value, resampled, n_groups + 1).high < difference.high


def test_effective_number_of_groups():
    assert effective_groups(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_groups(np.array([3.0, 0.0, 3.0, 3.0])) == pytest.approx(3)
    assert 2 < effective_groups(np.array([8.0, 1.0, 1.0, 2.0, 8.0])) < 4
    assert effective_groups(np.array([900.0, 1.0, 1.0])) == 2.0
    assert effective_groups(np.array([900.0, 0.0])) == 1.0
    assert effective_groups(np.zeros(4)) == effective_groups(np.zeros(0)) == 0.0


def test_draws_are_whole_groups_and_add_up():
    groups = np.array(["b", "a", "b", "c"])
    draws = group_draws(groups, n=50, seed=3)
    assert draws.groups.tolist() == ["a", "b", "c"]
    assert draws.weights.shape == (50, 3)
    assert (draws.weights.sum(axis=1) == 3).all()
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    np.testing.assert_array_equal(draws.totals(values, groups), [[2, 20], [4, 40], [4, 40]])
    np.testing.assert_array_equal(draws.sums(values, groups), draws.weights @ [[2, 20], [4, 40], [4, 40]])
    assert draws.sums(values[:, 0], groups).shape == (50,)
    assert draws.totals(np.zeros((0, 2)), groups[:0]).tolist() == [[0, 0]] * 3


def test_draws_do_not_depend_on_the_order_of_rows_but_on_the_seed():
    one, other = group_draws(names(9), n=20, seed=1), group_draws(names(9)[::-1], n=20, seed=1)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert (one.weights != group_draws(names(9), n=20, seed=2).weights).any()


def test_groups_that_are_not_drawn_from_are_refused():
    draws = GroupDraws(np.array(["a", "c"]), np.ones((1, 2)))
    for group in ("b", "d"):
        with pytest.raises(KeyError, match="not drawn from"):
            draws.sums(np.ones(1), np.array([group]))


@pytest.mark.parametrize(("n_groups", "n"), [(0, 10), (1, 10), (5, 0)])
def test_no_draws_of_a_single_group_or_none(n_groups, n):
    assert group_draws(names(n_groups), n=n, seed=1).weights.shape == (0, n_groups)


def test_resamples_of_many_groups_take_the_memory_of_their_weights_alone():
    names = np.array([f"g{i:05d}" for i in range(20_000)])
    tracemalloc.start()
    try:
        weights = group_draws(names, n=100, seed=1).weights
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (weights.sum(axis=1) == len(names)).all()
    assert peak < 1.4 * weights.nbytes
