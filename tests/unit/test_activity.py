"""Hits and misses by frame, segment and recording."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from event_cases import LABELS, corpus, precision_recall_f1
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from otus.activity import (
    centred,
    highest_by_segment,
    highest_centred,
    highest_touching,
    n_segments,
    touched,
    unit_average_precision,
    unit_counts,
)
from otus.matching import Intervals

PUBLISHED = json.loads((Path(__file__).parent / "data" / "sed_eval.json").read_text())
NONE = Intervals(np.zeros(0), np.zeros(0))


def intervals(*pairs):
    values = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return Intervals(values[:, 0], values[:, 1])


def mask(text):
    return np.array([letter == "x" for letter in text])


def which(units):
    return np.flatnonzero(units).tolist()


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r["kind"] == "segment1"], ids=lambda r: f"seed{r['seed']}")
def test_segments_of_a_second_are_those_of_sed_eval(row):
    sums = np.zeros(3, dtype=int)
    for label in LABELS:
        counts = np.zeros(3, dtype=int)
        for _, duration_s, calls, found in corpus(row["seed"]):
            n = n_segments(duration_s, 1.0)
            truth = touched(intervals(*[c[:2] for c in calls if c[2] == label]), n, 1.0)
            above = [s[:2] for s in found if s[2] == label and s[3] >= row["threshold"]]
            units = unit_counts(truth, touched(intervals(*above), n, 1.0), np.zeros(n, dtype=bool))
            assert units.n == n
            counts += (units.tp, units.n_pred, units.n_gt)
        assert counts.tolist() == row["counts"][label]
        sums += counts
    assert precision_recall_f1(*sums.tolist())[2] == pytest.approx(row["f1"], abs=1e-12)


def test_number_of_segments():
    assert [n_segments(d, 1.0) for d in (0.0, 0.2, 1.0, 1.0001, 30.0)] == [0, 1, 1, 2, 30]
    assert n_segments(0.1 * 3, 0.1) == 3, "3.0000000000000004 in floating point"


def test_segments_that_an_interval_touches():
    assert which(touched(intervals((0.95, 1.05)), 4, 1.0)) == [0, 1]
    assert which(touched(intervals((1.0, 2.0)), 4, 1.0)) == [1], "its borders touch no other segment"
    assert 0.1 * 3 / 0.1 > 3, "in floating point"
    assert which(touched(intervals((0.1, 0.1 * 3)), 10, 0.1)) == [1, 2]
    assert which(touched(intervals((3.5, 9.0), (1.2, 1.3), (1.1, 1.4)), 4, 1.0)) == [1, 3], "what is beyond is cut"
    assert which(touched(NONE, 4, 1.0)) == []
    assert len(touched(NONE, 0, 1.0)) == 0


def test_frames_whose_centre_an_interval_holds():
    assert which(centred(intervals((1.0, 3.0)), 5, 1.0)) == [1, 2]
    assert which(centred(intervals((0.6, 2.5)), 5, 1.0)) == [1], "the end does not belong to it"
    assert which(centred(intervals((0.5, 2.51)), 5, 1.0)) == [0, 1, 2]
    assert which(centred(intervals((1.6, 1.7)), 5, 1.0)) == [2], "a short one has one frame"
    assert which(centred(intervals((4.9, 7.0)), 5, 1.0)) == []
    assert which(centred(NONE, 5, 1.0)) == []


def test_highest_score_of_the_selections_in_a_unit():
    found, score = intervals((0.0, 2.2), (2.0, 3.0), (1.0, 1.1)), np.array([0.5, 0.7, -1.0])
    assert highest_touching(found, score, 5, 1.0).tolist() == [0.5, 0.5, 0.7, -math.inf, -math.inf]
    assert highest_centred(found, score, 5, 1.0).tolist() == [0.5, 0.5, 0.7, -math.inf, -math.inf]
    assert highest_centred(intervals((0.0, 2.6), (2.6, 4.0)), np.array([0.9, 0.1]), 5, 1.0).tolist() == [
        *[0.9] * 3,
        0.1,
        -math.inf,
    ]
    assert highest_touching(NONE, np.zeros(0), 2, 1.0).tolist() == [-math.inf] * 2


def test_highest_frame_of_a_segment():
    score = np.array([[1.0, 5, 2, 0, 3, -1, 9], [0, 0, 0, 0, 0, 0, 1]])
    assert highest_by_segment(score, 0.4, 1.0).tolist() == [[5, 3, 9], [0, 0, 1]]  # centres .2 .6 1.0 1.4 1.8 2.2 2.6
    assert highest_by_segment(score[0], 1.0, 1.0).tolist() == score[0].tolist()
    assert highest_by_segment(np.zeros((2, 0)), 1.0, 1.0).shape == (2, 0)
    assert highest_by_segment(np.array([1.0, 2.0]), 2.0, 1.0).tolist() == [-math.inf, 1.0, -math.inf, 2.0]


def test_counts_of_several_labels_at_once():
    truth = np.stack([mask("xx--"), mask("----")])
    result = np.stack([mask("x-x-"), mask("---x")])
    counts = unit_counts(truth, result, mask("----"))
    assert (counts.n.tolist(), counts.n_gt.tolist()) == ([4, 4], [2, 0])
    assert (counts.n_pred.tolist(), counts.tp.tolist()) == ([2, 1], [1, 0])


def test_unknown_units_are_neither_hit_nor_false_alarm():
    truth, result, unknown = mask("xx----"), mask("x-xx--"), mask("x--xx-")
    counts = unit_counts(truth, result, unknown)
    assert (counts.n, counts.n_gt, counts.n_pred, counts.tp) == (4, 2, 2, 1), "a call in unknown time is a call"
    score = np.array([5.0, 1, 3, 9, 8, 0])
    assert unit_average_precision(truth, score, unknown) == pytest.approx((1 + 2 / 3) / 2)


def test_recordings_as_units():
    n_gt, n_pred, n_unknown = np.array([3, 0, 0, 0, 1]), np.array([1, 2, 0, 4, 0]), np.array([0, 0, 0, 1, 1])
    counts = unit_counts(n_gt > 0, n_pred > 0, n_unknown > 0)
    assert (counts.n, counts.n_gt, counts.n_pred, counts.tp) == (4, 2, 2, 1)


def test_nothing_there():
    nothing = np.zeros(0, dtype=bool)
    counts = unit_counts(nothing, nothing, nothing)
    assert (counts.n, counts.n_gt, counts.n_pred, counts.tp) == (0, 0, 0, 0)
    assert unit_counts(np.zeros((3, 0), bool), np.zeros((3, 0), bool), nothing).tp.tolist() == [0, 0, 0]
    assert math.isnan(unit_average_precision(nothing, np.zeros(0), nothing))
    assert math.isnan(unit_average_precision(mask("--"), np.array([1.0, 2.0]), mask("--")))
    assert unit_average_precision(mask("x-"), np.full(2, -np.inf), mask("--")) == 0.0


def test_what_is_never_reported_lowers_the_recall():
    assert unit_average_precision(mask("xx"), np.array([1.0, -np.inf]), mask("--")) == 0.5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=30))
def test_average_precision_is_that_of_scikit_learn(rows):
    truth, score = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    if truth.any():
        ours = unit_average_precision(truth, score, np.zeros(len(rows), dtype=bool))
        assert ours == pytest.approx(average_precision_score(truth, score))


quarters = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(quarters)
def test_activity_is_that_of_the_plain_computation(rows):
    pairs = [(start / 4 + 0.11, (start + length) / 4 + 0.11) for start, length in rows]
    found, score = intervals(*pairs), np.array([float((7 * i) % 5) for i in range(len(pairs))])
    for n, unit_s in ((10, 1.0), (25, 0.4)):
        touching = [[i for i, (a, b) in enumerate(pairs) if a < (u + 1) * unit_s and b > u * unit_s] for u in range(n)]
        assert touched(found, n, unit_s).tolist() == [bool(own) for own in touching]
        assert highest_touching(found, score, n, unit_s).tolist() == [
            max((score[i] for i in own), default=-math.inf) for own in touching
        ]
    n, unit_s = 100, 0.125  # so that every interval holds a centre
    holding = [any(a <= (u + 0.5) * unit_s < b for a, b in pairs) for u in range(n)]
    assert centred(found, n, unit_s).tolist() == holding
    assert np.isfinite(highest_centred(found, score, n, unit_s)).tolist() == holding


def test_a_million_frames_of_four_labels_in_seconds():
    random = np.random.default_rng(1)
    start = np.sort(random.uniform(0, 10_000, (4, 10_000)), axis=1)
    scores = random.normal(size=(4, 1_000_000)).astype(np.float32).astype(np.float64)
    begun = time.process_time()
    truth = np.stack([centred(Intervals(s, s + 0.3), 1_000_000, 0.01) for s in start])
    unknown = np.zeros(1_000_000, dtype=bool)
    counts = unit_counts(truth, scores > 1.0, unknown)
    precision = [unit_average_precision(t, s, unknown) for t, s in zip(truth, scores, strict=True)]
    segments = highest_by_segment(scores, 0.01, 1.0)
    assert segments.shape == (4, 10_000)
    assert time.process_time() - begun < 10
    share = counts.n_gt / counts.n
    np.testing.assert_allclose(counts.tp / counts.n_pred, share, atol=0.01)
    np.testing.assert_allclose(precision, share, atol=0.01)
