"""Counts to numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from otus.metrics import average_precision, curve, ratio


def test_a_ratio_without_a_denominator_is_nan_not_zero():
    assert ratio(6, 8) == 0.75
    assert ratio(0, 5) == 0.0
    assert math.isnan(ratio(1, 0)) and math.isnan(ratio(0, 0))


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
