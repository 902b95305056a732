"""Counts to numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from otus.metrics import average_precision, bootstrap_scores, curve, precision_recall_f1, ratio


def counts(*rows):
    """Columns tp, n_pred, n_gt as integer arrays."""
    return (np.asarray(column, dtype=np.int64) for column in zip(*rows, strict=True))


def bootstrap(rows, groups, *, n=2000, seed=1):
    return bootstrap_scores(*counts(*rows), np.asarray(groups, dtype=str), n=n, seed=seed)


def test_ratios_of_counts():
    assert precision_recall_f1(6, 8, 12) == (0.75, 0.5, 0.6)
    assert precision_recall_f1(0, 5, 4) == (0.0, 0.0, 0.0)
    assert ratio(1, 0) != ratio(1, 0)


def test_undefined_ratios_are_nan_not_zero():
    precision, recall, f1 = precision_recall_f1(0, 0, 3)
    assert math.isnan(precision)
    assert (recall, f1) == (0.0, 0.0)
    precision, recall, f1 = precision_recall_f1(0, 3, 0)
    assert math.isnan(recall)
    assert (precision, f1) == (0.0, 0.0)
    assert all(map(math.isnan, precision_recall_f1(0, 0, 0)))


def test_curve_has_one_point_per_distinct_score():
    points = curve(np.array([0.2, 0.9, 0.5, 0.5, 0.9]), np.array([True, True, False, True, False]))
    assert points.threshold.tolist() == [0.9, 0.5, 0.2]
    assert points.n_pred.tolist() == [2, 4, 5]
    assert points.tp.tolist() == [1, 2, 3]
    assert points.precision().tolist() == [0.5, 0.5, 0.6]
    assert points.recall(6).tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert points.f1(6).tolist() == pytest.approx([2 / 8, 4 / 10, 6 / 11])
    assert np.isnan(points.recall(0)).all()
    assert (points.f1(0) < 1.3).all()


def test_curve_of_nothing():
    points = curve(np.zeros(0), np.zeros(0, dtype=bool))
    assert len(points.tp) == len(points.precision()) == len(points.f1(3)) == 0
    assert average_precision(points, 3) == 0.0
    assert math.isnan(average_precision(points, 0))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-8, 8), st.booleans()), min_size=1, max_size=60).filter(
        lambda v: any(h for _, h in v)
    )
)
def test_average_precision_is_that_of_scikit_learn_where_all_calls_were_found(values):
    score = np.array([s for s, _ in values], dtype=float)
    hit = np.array([h for _, h in values])
    assert average_precision(curve(score, hit), int(hit.sum())) == pytest.approx(average_precision_score(hit, score))
    missed_as_many = average_precision(curve(score, hit), 2 * int(hit.sum()))
    assert missed_as_many == pytest.approx(average_precision_score(hit, score) / 2), "missed calls cost recall"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=25
    ),
    st.integers(0, 2**62),
)
def test_intervals_are_ordered_within_zero_and_one_and_the_value_is_that_of_the_pooled_counts(rows, seed):
    rows = [(tp, tp + fp, tp + fn, group) for tp, fp, fn, group in rows]
    scores = bootstrap([row[:3] for row in rows], [row[3] for row in rows], n=50, seed=seed)
    pooled = precision_recall_f1(*(sum(row[i] for row in rows) for i in range(3)))
    for interval, value in zip((scores.precision, scores.recall, scores.f1), pooled, strict=True):
        assert interval.value == pytest.approx(value, nan_ok=True)
        if not math.isnan(interval.low):
            assert 0 <= interval.low <= interval.high <= 1


@pytest.mark.parametrize("seed", range(20))
def test_interval_contains_the_value_on_ordinary_counts(seed):
    random = np.random.default_rng(seed)
    n_gt = random.poisson(12, size=30)
    tp = random.binomial(n_gt, random.uniform(0.4, 0.9, size=30))
    rows = list(zip(tp, tp + random.poisson(3, size=30), n_gt, strict=True))
    scores = bootstrap(rows, [f"g{i % 10}" for i in range(30)], n=400, seed=seed)
    for interval in (scores.precision, scores.recall, scores.f1):
        assert interval.low < interval.value < interval.high


def test_one_group_or_no_resamples_give_no_interval():
    rows = [(5, 8, 10), (2, 2, 9)]
    for scores in (bootstrap(rows, ["a", "a"]), bootstrap(rows, ["a", "b"], n=0)):
        assert scores.f1.value == pytest.approx(14 / 29)
        assert math.isnan(scores.f1.low)
        assert math.isnan(scores.f1.high)
    nothing = bootstrap_scores(*(np.zeros(0, dtype=np.int64),) * 3, np.zeros(0, dtype=str), n=10, seed=1)
    assert math.isnan(nothing.f1.value)


def test_same_seed_same_interval_other_seed_another():
    random = np.random.default_rng(0)
    n_gt = random.poisson(9, size=12) + 1
    tp = random.binomial(n_gt, 0.7)
    rows, groups = list(zip(tp, tp + random.poisson(2, size=12), n_gt, strict=True)), [f"g{i}" for i in range(12)]
    assert bootstrap(rows, groups, seed=7) == bootstrap(rows, groups, seed=7)
    assert bootstrap(rows, groups, n=100, seed=7) != bootstrap(rows, groups, n=100, seed=8)


def test_groups_are_resampled_not_recordings():
    # Ten recordings of each of two tapes: all calls found on one, none on the other. Between tapes everything is
    # open (0 to 1); recordings, taken as independent, would pretend that recall is known within about 0.22.
    rows = [(10, 10, 10)] * 10 + [(0, 10, 10)] * 10
    by_tape = bootstrap(rows, ["a"] * 10 + ["b"] * 10)
    assert (by_tape.recall.low, by_tape.recall.high) == (0.0, 1.0)
    by_recording = bootstrap(rows, [str(i) for i in range(20)])
    assert 0.2 < by_recording.recall.low < 0.35
    assert 0.65 < by_recording.recall.high < 0.8
    # And the other way: tapes that are all alike leave nothing open, however different their recordings are.
    alike = bootstrap([(10, 10, 10), (0, 10, 10)] * 10, [f"tape{i // 2}" for i in range(20)])
    assert (alike.recall.low, alike.recall.high) == (0.5, 0.5)


def test_interval_of_a_mean_agrees_with_theory():
    # Groups with one call each: recall is a mean of independent coin tosses, standard error sqrt(p q / n).
    n, found = 400, 240
    recall = bootstrap([(1, 1, 1)] * found + [(0, 0, 1)] * (n - found), [str(i) for i in range(n)], n=4000).recall
    half = 1.96 * math.sqrt(0.6 * 0.4 / n)
    assert recall.low == pytest.approx(0.6 - half, abs=0.006)
    assert recall.high == pytest.approx(0.6 + half, abs=0.006)


def test_resamples_without_a_denominator_do_not_count():
    # A quarter of the resamples hold no selection at all: they say nothing of precision, and must not be zeros.
    scores = bootstrap([(3, 3, 3), (0, 0, 2)], ["a", "b"])
    assert (scores.precision.low, scores.precision.high) == (1.0, 1.0)
    assert scores.recall.low == 0.0
    none = bootstrap([(0, 0, 3), (0, 0, 2)], ["a", "b"])
    assert math.isnan(none.precision.value)
    assert math.isnan(none.precision.low)
