"""Pairs by onset and offset."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from event_cases import LABELS, corpus, precision_recall_f1
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.collars import onset_offset_pairs, onset_pairs
from otus.matching import Intervals, hits_among, most_pairs
from otus.sides import Spans, mostly_unknown

PUBLISHED = json.loads((Path(__file__).parent / "data" / "sed_eval.json").read_text())
RULES = {
    "collar0.2_onset": lambda calls, found: onset_pairs(calls, found, 0.2),
    "collar0.2_offset0.5": lambda calls, found: onset_offset_pairs(calls, found, 0.2, 0.5),
    "collar0.2_offset0.2": lambda calls, found: onset_offset_pairs(calls, found, 0.2, 0.2),
}


def intervals(*pairs):
    values = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return Intervals(values[:, 0], values[:, 1])


def as_list(pairs):
    return sorted(zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True))


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r["kind"] in RULES], ids=lambda r: f"{r['kind']}-{r['seed']}")
def test_counts_and_f1_are_those_of_sed_eval(row):
    sums = np.zeros(3, dtype=int)
    for label in LABELS:
        counts = np.zeros(3, dtype=int)
        for _, _, calls, selections in corpus(row["seed"]):
            truth = intervals(*[(start, end) for start, end, own in calls if own == label])
            found = [s for s in selections if s[2] == label]
            result = intervals(*[s[:2] for s in found if s[3] >= row["threshold"]])
            pairs = most_pairs(RULES[row["kind"]](truth, result))
            counts += (len(pairs), len(result), len(truth))
            # The same from one pass over all thresholds.
            score = np.array([s[3] for s in found])
            pairs_of_all = RULES[row["kind"]](truth, intervals(*[s[:2] for s in found]))
            hits = hits_among(pairs_of_all, np.argsort(-score, kind="stable"))
            assert hits[score >= row["threshold"]].sum() == len(pairs)
        assert counts.tolist() == row["counts"][label]
        sums += counts
    assert precision_recall_f1(*sums.tolist())[2] == pytest.approx(row["f1"], abs=1e-12)


def test_limits_count():
    call = intervals((1.0, 2.0))
    assert 1.2 - 1.0 < 0.2 < 0.9 - 0.7, "floating point goes either way"
    for onset in (0.8, 1.2):
        assert len(onset_pairs(call, intervals((onset, 2.0)), 0.2)) == 1
    for onset in (0.799, 1.201):
        assert len(onset_pairs(call, intervals((onset, 2.0)), 0.2)) == 0
    assert len(onset_pairs(intervals((0.7, 2.0)), intervals((0.9, 2.0)), 0.2)) == 1


def test_offset_may_be_off_by_the_collar_or_by_a_share_of_the_length():
    long, short = intervals((0, 4)), intervals((0, 0.2))
    assert len(onset_offset_pairs(long, intervals((0, 6)), 0.2, 0.5)) == 1  # 2 s of 4 s
    assert len(onset_offset_pairs(long, intervals((0, 6.01)), 0.2, 0.5)) == 0
    assert len(onset_offset_pairs(long, intervals((0, 4.8)), 0.2, 0.2)) == 1
    assert len(onset_offset_pairs(long, intervals((0, 4.81)), 0.2, 0.2)) == 0
    assert len(onset_offset_pairs(short, intervals((0, 0.4)), 0.2, 0.5)) == 1  # the collar, not 0.1 s
    assert len(onset_offset_pairs(short, intervals((0, 0.41)), 0.2, 0.5)) == 0
    assert len(onset_offset_pairs(long, intervals((0.21, 4)), 0.2, 0.5)) == 0, "the onset counts as well"


def test_disjoint_intervals_may_be_a_pair_but_rather_those_that_overlap():
    calls = intervals((1.0, 1.1), (1.2, 1.3))
    found = intervals((1.15, 1.19), (1.2, 1.3))
    pairs = onset_pairs(calls, found, 0.2)
    assert as_list(pairs) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert pairs.iou[(pairs.annotation == 0)].tolist() == [0.0, 0.0]
    assert as_list(most_pairs(pairs)) == [(0, 0), (1, 1)]
    assert onset_pairs(intervals((0, 4)), intervals((0.1, 5)), 0.2).iou == pytest.approx([3.9 / 5])


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (0, 3)])
def test_nothing_to_match(n, m):
    calls, found = (intervals(*[(i, i + 0.5) for i in range(k)]) for k in (n, m))
    for rule in RULES.values():
        assert len(most_pairs(rule(calls, found))) == 0
        assert not hits_among(rule(calls, found), np.arange(m)).any()


def test_what_is_no_hit_and_mostly_unknown_is_no_false_alarm():
    calls, found = intervals((1, 2)), intervals((1.1, 2), (5, 6), (8, 9))
    hits = hits_among(onset_pairs(calls, found, 0.2), np.arange(3))
    unknown = Spans(np.array([0.5, 5.4]), np.array([2.5, 7.0]))
    counts = hits | ~mostly_unknown(unknown, found.start_s, found.end_s)
    assert hits.tolist() == [True, False, False]
    assert counts.tolist() == [True, False, True], "the hit counts although it lies in unknown time as well"


def test_calls_in_quick_succession_take_no_longer():
    # All calls hang together, and half of the selections have to find that none is left.
    start = np.arange(10_000) * 0.15
    calls, found = Intervals(start, start + 0.1), Intervals(np.repeat(start, 2), np.repeat(start, 2) + 0.1)
    begun = time.process_time()
    pairs = onset_pairs(calls, found, 0.2)
    assert len(most_pairs(pairs)) == hits_among(pairs, np.arange(20_000)).sum() == 10_000
    assert time.process_time() - begun < 5


rows = st.lists(st.tuples(st.floats(0, 6), st.floats(0.05, 3.0)), max_size=12).map(
    lambda values: intervals(*[(start, start + length) for start, length in values])
)


@settings(max_examples=100, deadline=None)
@given(rows, rows, st.sampled_from([0.05, 0.2, 1.0]), st.sampled_from([0.0, 0.2, 0.5]))
def test_pairs_are_those_of_the_plain_computation(annotations, selections, collar_s, share):
    onset, both = set(), set()
    for a in range(len(annotations)):
        for s in range(len(selections)):
            allowed = max(collar_s, share * (annotations.end_s[a] - annotations.start_s[a]))
            if abs(annotations.start_s[a] - selections.start_s[s]) <= collar_s + 1e-9:
                onset.add((a, s))
                if abs(annotations.end_s[a] - selections.end_s[s]) <= allowed + 1e-9:
                    both.add((a, s))
    assert as_list(onset_pairs(annotations, selections, collar_s)) == sorted(onset)
    assert as_list(onset_offset_pairs(annotations, selections, collar_s, share)) == sorted(both)
