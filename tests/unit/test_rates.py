"""Numbers for a field study."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from otus.metrics import curve
from otus.rates import count_correlation, false_alarms_per_hour, recall_at_rate, summarise_errors

#: Hit, false alarm, hit, two of one score (one a hit), false alarm.
POINTS = curve(np.array([9.0, 8, 7, 5, 5, 3]), np.array([True, False, True, True, False, False]))


def test_false_alarms_per_hour():
    assert false_alarms_per_hour(POINTS, 0.5).tolist() == [0, 2, 2, 4, 6]
    assert np.isnan(false_alarms_per_hour(POINTS, 0.0)).all()


def test_recall_at_budgets():
    at = recall_at_rate(POINTS, 4, 0.5, np.array([0.0, 1.9, 2.0, 3.9, 4.0, 100.0]))
    assert at.recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert at.threshold.tolist() == [9, 9, 7, 7, 5, 3]
    assert at.false_alarms_per_hour.tolist() == [0, 0, 2, 2, 4, 6]


def test_a_budget_that_only_silence_keeps():
    points = curve(np.array([2.0, 1.0]), np.array([False, True]))
    at = recall_at_rate(points, 1, 1.0, np.array([0.5, 1.0]))
    assert (at.recall.tolist(), at.threshold.tolist()) == ([0, 1], [math.inf, 1])
    assert at.false_alarms_per_hour.tolist() == [0, 1]


def test_a_budget_that_is_met_exactly_in_spite_of_rounding():
    hours = 652.8 / 3600
    assert 17 / hours > 93.75
    points = curve(np.arange(17.0), np.zeros(17, dtype=bool))
    assert recall_at_rate(points, 1, hours, np.array([93.75])).threshold.tolist() == [0.0]


def test_rates_without_annotations_selections_or_time():
    silence = curve(np.zeros(0), np.zeros(0, dtype=bool))
    budgets = np.array([0.0, 1.0])
    assert recall_at_rate(silence, 3, 1.0, budgets).recall.tolist() == [0, 0]
    without_calls = recall_at_rate(curve(np.array([1.0]), np.array([False])), 0, 1.0, budgets)
    assert np.isnan(without_calls.recall).all()
    assert without_calls.threshold.tolist() == [math.inf, 1.0]
    for values in vars(recall_at_rate(POINTS, 4, 0.0, budgets)).values():
        assert np.isnan(values).all()
        assert values.shape == (2,)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=20), st.floats(0, 30))
def test_recall_at_a_budget_is_that_of_the_plain_computation(rows, budget):
    score, hit = np.array([float(r[0]) for r in rows]), np.array([r[1] for r in rows], dtype=bool)
    n_gt, hours = int(hit.sum()) + 1, 0.75
    best = 0.0
    for threshold in set(score.tolist()):
        above = score >= threshold
        if (above & ~hit).sum() / hours <= budget:
            best = max(best, (above & hit).sum() / n_gt)
    assert recall_at_rate(curve(score, hit), n_gt, hours, np.array([budget])).recall.tolist() == [best]


def test_boundary_errors():
    summary = summarise_errors(np.array([0.1, -0.3, np.nan, 0.2, 0.0, 1.0]))
    assert (summary.n, summary.median) == (5, 0.2)
    assert summary.mean == pytest.approx(0.32)
    assert summary.p90 == pytest.approx(0.72)  # between 0.3 and 1.0
    assert summarise_errors(np.array([0.5])).p90 == 0.5
    for errors in (np.zeros(0), np.array([np.nan])):
        empty = summarise_errors(errors)
        assert empty.n == 0
        assert all(map(math.isnan, (empty.mean, empty.median, empty.p90)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=15))
def test_correlation_is_that_of_scipy(rows):
    n_gt, n_pred = np.array(rows, dtype=np.int64).T
    found = count_correlation(n_gt, n_pred)
    if len(set(n_gt.tolist())) < 2 or len(set(n_pred.tolist())) < 2:
        assert math.isnan(found.pearson)
        assert math.isnan(found.spearman)
    else:
        assert found.pearson == pytest.approx(pearsonr(n_gt, n_pred)[0], abs=1e-12)
        assert found.spearman == pytest.approx(spearmanr(n_gt, n_pred)[0], abs=1e-12)


@pytest.mark.parametrize("counts", [[], [3]])
def test_no_correlation_of_fewer_than_two_recordings(counts):
    values = np.array(counts, dtype=np.int64)
    found = count_correlation(values, values)
    assert found.n == len(counts)
    assert math.isnan(found.pearson)
    assert math.isnan(found.spearman)
