"""Recall when only so many false alarms per hour are allowed."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_corpus import SETTINGS, by_chance, layer, resampled

from otus.measures.at_rates import drawn_recalls, recall_at_rates
from otus.measures.ranked import group_curves, ranked_events, thinned
from otus.tables import FILTERED


def rows_of(one, seed=1, **changed):
    return recall_at_rates(one, SETTINGS.model_copy(update=changed), seed)


def best_recall(one, labels, budget):
    """The most recall within the budget, trying every threshold; and the rate and threshold there."""
    own = one.selections[one.selections["label"].isin(labels)]
    n_gt = one.calls["label"].isin(labels).sum()
    best = (0.0, 0.0, math.nan)
    for threshold in sorted(own["rank"].unique(), reverse=True):
        above = own[own["rank"] >= threshold]
        rate = (~above["hit"]).sum() / one.hours
        if rate <= budget + 1e-9:
            best = (above["hit"].sum() / n_gt, rate, threshold)
    return best


def test_recall_is_the_best_that_the_budget_allows():
    one = by_chance(1)
    found = rows_of(one)
    assert found["label"].tolist() == ["hum"] * 3 + ["trill"] * 3 + ["micro"] * 3
    assert found["budget_per_hour"].tolist() == [10.0, 60.0, 1000.0] * 3
    for row in found.itertuples():
        labels = one.labels if row.label == "micro" else (row.label,)
        recall, rate, threshold = best_recall(one, labels, row.budget_per_hour)
        assert row.recall == pytest.approx(recall)
        assert row.false_alarms_per_hour == pytest.approx(rate)
        assert row.threshold == pytest.approx(1 / (1 + np.exp(-threshold)), nan_ok=True)
        assert row.n_gt == one.calls["label"].isin(labels).sum()
        assert row.recall_low <= row.recall <= row.recall_high
    assert (found["n_groups"] == 6).all()
    assert found["hours"].to_numpy() == pytest.approx(0.2)
    per_label = found.groupby("label")["recall"]
    assert (per_label.apply(lambda r: r.is_monotonic_increasing)).all()


def test_thresholds_behind_a_forest_are_its_probabilities():
    one = by_chance(1, labels=("hum",))
    share = one.selections["rank"].rank(pct=True)
    filtered = replace(one, layer="cnn" + FILTERED, selections=one.selections.assign(rank=share, rank_of_all=share))
    expected = best_recall(filtered, ["hum"], 60.0)[2]
    assert rows_of(filtered)["threshold"].iloc[1] == pytest.approx(expected)


def test_a_budget_that_only_silence_keeps_has_no_threshold():
    one = layer([("r00", 1, 2, "hum")], [("r00", 5, 6, "hum", 2.0), ("r00", 1, 2, "hum", 1.0)], ["a", "b"])
    row = rows_of(one, false_alarm_budgets_per_hour=[1.0]).iloc[0]
    assert (row["recall"], row["false_alarms_per_hour"]) == (0.0, 0.0)
    assert math.isnan(row["threshold"])


@pytest.mark.parametrize("groups", [["a"], ["a", "b"]])
def test_empty_truth_and_empty_selections(groups):
    call, selection = ("r00", 1, 2, "hum"), ("r00", 1, 2, "hum", 1.0)
    silent = rows_of(layer([call], [], groups))
    assert silent["recall"].tolist() == [0.0] * 3
    assert silent["threshold"].isna().all()
    assert silent["recall_low"].isna().all(), "calls in one group only: no interval"
    untold = rows_of(layer([], [selection], groups))
    assert untold["recall"].isna().all()
    assert (untold["n_gt"] == 0).all()
    assert len(rows_of(layer([], [], groups, labels=("hum", "trill")))) == 9


def test_rows_do_not_depend_on_the_order_of_the_tables():
    one = by_chance(4)
    shuffled = replace(one, selections=one.selections.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(rows_of(one), rows_of(shuffled))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_resampled_recall_is_that_of_the_resampled_corpus(seed, weights):
    one = by_chance(seed, n_groups=4, labels=("hum",))
    rows, copies = ranked_events(one, ["hum"]), resampled(one, weights)
    curves = group_curves(rows, 4, thinned(rows.score)).drawn(np.array([weights], dtype=float))
    budgets = np.array([10.0, 100.0, 1000.0])
    n_gt = np.array([float(len(copies.calls))])
    drawn = drawn_recalls(curves.tp, curves.n_pred, n_gt, np.array([copies.hours]), budgets)[:, 0]
    if len(copies.calls):
        assert drawn.tolist() == pytest.approx([best_recall(copies, ["hum"], budget)[0] for budget in budgets])
    else:
        assert np.isnan(drawn).all()
