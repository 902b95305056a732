"""The polyphonic sound detection score."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_cases import LABELS, corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.psds import PSDS1, PSDS2, Coverage, Events, Weighting, joined, psds, rates, roc

PUBLISHED = json.loads((Path(__file__).parent / "data" / "psds_eval.json").read_text())
HALF = Coverage(dtc=0.5, gtc=0.5, cttc=0.5)
PLAIN = Weighting(alpha_ct=0.0, alpha_st=0.0, max_rate_per_hour=10.0)


def events(*rows):
    """From (recording, label, start_s, end_s)."""
    columns = np.array(rows, dtype=float).reshape(-1, 4).T
    return Events(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2], columns[3])


def rates_of(calls, found, score=None, *, excused=None, hours=1.0, n_labels=1, coverage=HALF):
    score = np.ones(len(found)) if score is None else np.array(score, dtype=float)
    excused = np.zeros(len(found), dtype=bool) if excused is None else np.array(excused)
    return rates(calls, found, score, excused, hours=hours, n_labels=n_labels, coverage=coverage)


def of_corpus(seed):
    recordings = corpus(seed)
    calls = [(i, LABELS.index(c[2]), *c[:2]) for i, r in enumerate(recordings) for c in r[2]]
    found = [(i, LABELS.index(s[2]), *s[:2]) for i, r in enumerate(recordings) for s in r[3]]
    score = [s[3] for r in recordings for s in r[3]]
    return events(*calls), events(*found), np.array(score), sum(r[1] for r in recordings) / 3600.0


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: "-".join(map(str, row[:-1])))
def test_score_is_that_of_psds_eval(row):
    seed, dtc, gtc, cttc, alpha_ct, alpha_st, highest, value = row
    calls, found, score, hours = of_corpus(seed)
    points = rates_of(calls, found, score, hours=hours, n_labels=len(LABELS), coverage=Coverage(dtc, gtc, cttc))
    assert psds(points, Weighting(alpha_ct, alpha_st, highest)) == pytest.approx(value, abs=1e-12)


def test_the_published_settings_are_among_those_compared_and_tell_systems_apart():
    for coverage, weighting in (PSDS1, PSDS2):
        parameters = [coverage.dtc, coverage.gtc, coverage.cttc, weighting.alpha_ct, weighting.alpha_st]
        same = [row[-1] for row in PUBLISHED if row[1:7] == [*parameters, weighting.max_rate_per_hour]]
        assert len(same) == 12
    assert len({row[-1] for row in PUBLISHED}) > 60


def test_thresholds_one_by_one_give_the_same_score():
    calls, found, score, hours = of_corpus(5)
    at_once = rates_of(calls, found, score, hours=hours, n_labels=3)
    parts = []
    for threshold in np.unique(score):
        above = score >= threshold
        parts.append(rates_of(calls, found.at(above), np.zeros(above.sum()), hours=hours, n_labels=3))
    weighting = Weighting(0.5, 1.0, 3000.0)
    assert psds(joined(parts), weighting) == pytest.approx(psds(at_once, weighting), abs=1e-12)
    assert psds(at_once, weighting) > 0.1


def test_a_call_in_pieces_is_found_once_enough_of_it_is_covered():
    calls = events((0, 0, 10, 20))
    pieces = events((0, 0, 10, 13), (0, 0, 14, 15), (0, 0, 16, 20))
    points = rates_of(calls, pieces, [3, 2, 1], coverage=replace(HALF, gtc=0.7))
    assert points.recall.tolist() == [[0, 0, 0, 1]]
    assert points.false_alarms.tolist() == [[0, 0, 0, 0]]
    exactly = rates_of(calls, pieces, [3, 1, 2], coverage=replace(HALF, gtc=0.7))
    assert exactly.recall.tolist() == [[0, 0, 1, 1]], "0.7 of it is enough"


def test_one_detection_may_find_several_calls():
    points = rates_of(events((0, 0, 1, 2), (0, 0, 2.5, 3.5)), events((0, 0, 1, 3.5)))
    assert points.recall[0, -1] == 1.0


def test_what_is_too_long_is_a_false_alarm_and_finds_nothing():
    points = rates_of(events((0, 0, 1, 2)), events((0, 0, 0, 2.1)), hours=0.5)
    assert (points.recall[0, -1], points.false_alarms[0, -1]) == (0.0, 2.0)
    assert rates_of(events((0, 0, 1, 2)), events((0, 0, 0, 2.0))).recall[0, -1] == 1.0, "half of it is enough"


def test_valid_detection_that_covers_too_little_is_neither():
    points = rates_of(events((0, 0, 0, 10)), events((0, 0, 1, 2)))
    assert (points.recall[0, -1], points.false_alarms[0, -1]) == (0.0, 0.0)


def test_overlapping_intervals_cover_no_more_than_their_union():
    twice = events((0, 0, 0, 4), (0, 0, 0, 4))
    assert rates_of(events((0, 0, 0, 10)), twice).recall[0, -1] == 0.0
    assert rates_of(twice, events((0, 0, 0, 10))).false_alarms[0, -1] == 1.0
    # The parts that two of them cover count from the higher score on.
    points = rates_of(events((0, 0, 0, 10)), events((0, 0, 0, 4), (0, 0, 3, 5), (0, 0, 2, 6)), [1, 3, 2])
    assert points.recall.tolist() == [[0, 0, 0, 1]]


def test_other_recordings_and_other_labels_cover_nothing():
    calls = events((0, 0, 1, 2), (1, 1, 5, 6))
    found = events((1, 0, 1, 2), (0, 1, 1, 2))
    points = rates_of(calls, found, n_labels=2)
    assert points.recall[:, -1].tolist() == [0.0, 0.0]
    assert points.false_alarms[:, -1].tolist() == [1.0, 1.0]
    assert points.cross_triggers[:, -1].tolist() == [0.0, 3600.0], "one in the only second of calls of label 0"


def test_cross_triggers_cost_in_the_second_setting_only():
    calls = events((0, 0, 1, 2), (0, 1, 5, 6), (0, 0, 8, 9))
    found = events((0, 0, 5, 6), (0, 0, 1, 2), (0, 0, 8, 9), (0, 1, 5, 6))
    points = rates_of(calls, found, [4, 3, 2, 1], n_labels=2, coverage=PSDS2[0])
    assert points.cross_triggers[0].tolist() == [0, 3600, 3600, 3600, 3600]
    assert psds(points, replace(PSDS2[1], alpha_ct=0.0)) > psds(points, PSDS2[1])


def test_spread_over_labels_costs():
    calls = events((0, 0, 1, 2), (0, 1, 5, 6))
    found = events((0, 0, 1, 2))
    points = rates_of(calls, found, n_labels=2)
    assert psds(points, PLAIN) == 0.5
    assert psds(points, replace(PLAIN, alpha_st=0.4)) == pytest.approx(0.3)
    assert psds(points, replace(PLAIN, alpha_st=2.0)) == 0.0


def test_area_of_steps():
    calls = events((0, 0, 1, 2), (0, 0, 5, 6))
    found = events((0, 0, 20, 21), (0, 0, 1, 2), (0, 0, 30, 31), (0, 0, 5, 6), (0, 0, 40, 41))
    points = rates_of(calls, found, [5, 4, 3, 2, 1], hours=0.5)
    assert roc(points, PLAIN).rate_per_hour.tolist() == [0, 2, 4, 6]
    assert roc(points, PLAIN).recall.tolist() == [0, 0.5, 1, 1]
    assert psds(points, PLAIN) == pytest.approx((2 * 0.5 + 6 * 1) / 10)
    assert psds(points, replace(PLAIN, max_rate_per_hour=3.0)) == pytest.approx(0.5 / 3)


def test_excused_detections_are_no_false_alarms_but_may_be_hits():
    calls = events((0, 0, 1, 2), (0, 1, 5, 6))
    found = events((0, 0, 1, 2), (0, 0, 20, 21), (0, 0, 5, 6))
    points = rates_of(calls, found, excused=[True, True, True], n_labels=2)
    assert points.recall[0, -1] == 1.0
    assert points.false_alarms[0, -1] == points.cross_triggers[0, -1] == 0.0
    assert rates_of(calls, found, n_labels=2).false_alarms[0, -1] == 2.0


def test_a_label_without_annotations_does_not_count():
    calls, found = events((0, 0, 1, 2)), events((0, 0, 1, 2), (0, 1, 7, 8))
    points = rates_of(calls, found, n_labels=2)
    assert np.isnan(points.recall[1]).all()
    assert psds(points, PSDS1[1]) == 1.0


def test_nothing_there():
    call = events((0, 0, 1, 2))
    assert psds(rates_of(call, events()), PSDS1[1]) == 0.0
    assert psds(rates_of(call, call), PSDS1[1]) == 1.0
    assert math.isnan(psds(rates_of(events(), call), PSDS1[1]))
    assert math.isnan(psds(rates_of(events(), events(), hours=0.0), PSDS1[1]))
    assert math.isnan(psds(rates_of(call, call, hours=0.0), PSDS1[1]))
    assert len(roc(rates_of(events(), events()), PSDS1[1]).recall) == 0


lists = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.floats(0, 12), st.floats(0.1, 5)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(lists, lists, st.randoms(use_true_random=False))
def test_rates_never_fall_and_do_not_depend_on_the_order(calls, found, random):
    def rates_in(order):
        rows = [(*found[i][:2], found[i][2], found[i][2] + found[i][3]) for i in order]
        return rates_of(truth, events(*rows), [score[i] for i in order], n_labels=3)

    truth = events(*[(r, label, start, start + length) for r, label, start, length in calls])
    score = [random.randrange(4) for _ in found]
    order = list(range(len(found)))
    points = rates_in(order)
    random.shuffle(order)
    shuffled = rates_in(order)
    for name in ("recall", "false_alarms", "cross_triggers"):
        values = getattr(points, name)
        np.testing.assert_allclose(values, getattr(shuffled, name), atol=1e-9)
        assert (np.diff(values[~np.isnan(values).any(axis=1)], axis=1) >= -1e-9).all()
    assert not (points.recall > 1 + 1e-9).any()


def test_10000_calls_against_20000_detections_in_seconds():
    random = np.random.default_rng(3)

    def draw(n):
        start = random.uniform(0, 3000, n)
        return Events(random.integers(0, 20, n), random.integers(0, 4, n), start, start + random.uniform(0.2, 1.5, n))

    calls, found = draw(10_000), draw(20_000)
    start = time.process_time()
    points = rates_of(calls, found, random.normal(size=20_000), hours=17.0, n_labels=4, coverage=PSDS2[0])
    assert 0 < psds(points, PSDS2[1]) < 1
    assert time.process_time() - start < 10
