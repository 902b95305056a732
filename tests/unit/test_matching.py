"""Truth against selections."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from event_cases import matching_case, precision_recall_f1
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from otus.annotations import read_annotations
from otus.config import AnnotationSource
from otus.matching import (
    IOU_SLACK,
    Intervals,
    Pairs,
    admissible_pairs,
    hits_among,
    hits_in_order,
    match,
    match_greedily,
    most_pairs,
    pairs_of_ranges,
)


def intervals(*pairs):
    values = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return Intervals(values[:, 0], values[:, 1])


def iou_matrix(annotations, selections):
    """All intersections over union, the plain way."""
    start, end = annotations.start_s[:, None], annotations.end_s[:, None]
    shared = np.maximum(np.minimum(end, selections.end_s) - np.maximum(start, selections.start_s), 0)
    return shared / (end - start + selections.end_s - selections.start_s - shared)


def graph(annotations, selections, iou):
    values = iou_matrix(annotations, selections)
    return (values >= iou - 1e-9) & (values > 0)


def maximum(edges):
    """Size of the maximum matching by scipy (Hopcroft-Karp)."""
    if edges.size == 0:
        return 0
    return int((maximum_bipartite_matching(csr_array(edges.astype(int)), perm_type="column") >= 0).sum())


def test_iou_of_exactly_the_threshold_counts():
    annotation = intervals((0, 10))
    assert len(match(annotation, intervals((0, 4)), 0.4)) == 1
    assert len(match(annotation, intervals((0, 3.9999)), 0.4)) == 0
    assert (0.7 - 0.3) / (1.3 - 0.3) < 0.4, "in floating point"
    assert len(match(intervals((0.3, 1.3)), intervals((0.3, 0.7)), 0.4)) == 1


def test_long_selection_is_found_wherever_it_starts():
    for start in (0.0, 5.0, 9.4):
        assert (
            len(admissible_pairs(intervals((9.5, 10.0)), intervals((2, 3), (start, start + 10), (11, 12)), 0.04)) == 1
        )


def test_touching_intervals_do_not_overlap():
    assert len(admissible_pairs(intervals((0, 1)), intervals((1, 2)), 1e-9)) == 0


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (0, 3)])
def test_nothing_to_match(n, m):
    annotations, selections = (intervals(*[(i, i + 0.5) for i in range(k)]) for k in (n, m))
    assert len(match(annotations, selections, 0.4)) == 0
    assert not hits_in_order(annotations, selections, np.arange(m), 0.4).any()


def test_one_long_selection_over_two_calls_is_one_hit_at_most():
    calls = intervals((0, 1), (1, 2))
    assert len(match(calls, intervals((0, 2)), 0.4)) == 1
    assert len(match(calls, intervals((0, 2)), 0.6)) == 0


def test_several_selections_in_one_call_are_one_hit():
    pairs = match(intervals((0, 10)), intervals((0, 4.5), (4.5, 10)), 0.4)
    assert pairs.selection.tolist() == [1]
    assert pairs.iou == pytest.approx([0.55])


def test_more_pairs_come_before_better_pairs():
    # The best pair is a0-s0 (1.0), but then a1 has nothing left: two pairs of less IoU are more.
    calls, found = intervals((0, 10), (4, 14)), intervals((0, 10), (0, 6))
    matrix = iou_matrix(calls, found)
    assert matrix[0, 0] == 1.0
    assert (matrix[1] >= 0.4).tolist() == [True, False]
    pairs = match(calls, found, 0.4)
    assert sorted(zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_among_as_many_pairs_the_largest_sum_of_iou():
    calls, found = intervals((0, 10), (1, 11)), intervals((1, 11), (0, 10))
    pairs = match(calls, found, 0.4)
    assert sorted(zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert pairs.iou == pytest.approx([1.0, 1.0])


def test_a_later_selection_makes_room_for_an_earlier_one():
    calls, found = intervals((0, 10), (4, 14)), intervals((0, 10), (0, 6))
    # s0 may take either call; s1 only a0, so s0 has to move on to a1.
    assert hits_in_order(calls, found, np.array([0, 1]), 0.4).tolist() == [True, True]
    # a selection that only repeats a taken call is no hit
    assert hits_in_order(intervals((0, 10)), intervals((0, 10), (0, 9)), np.array([1, 0]), 0.4).tolist() == [
        False,
        True,
    ]


lengths = st.floats(0.2, 3.0)
rows = st.lists(st.tuples(st.floats(0, 12), lengths), max_size=14).map(
    lambda values: intervals(*[(start, start + length) for start, length in values])
)
thresholds = st.sampled_from([0.05, 0.2, 0.3, 0.4, 0.5, 0.8])


@settings(max_examples=50, deadline=None)
@given(rows, rows, thresholds)
def test_pairs_are_those_of_the_plain_computation(annotations, selections, iou):
    pairs = admissible_pairs(annotations, selections, iou)
    found = np.zeros((len(annotations), len(selections)), dtype=bool)
    found[pairs.annotation, pairs.selection] = True
    values = iou_matrix(annotations, selections)
    clear = np.abs(values - iou) > 1e-8
    np.testing.assert_array_equal(found[clear], graph(annotations, selections, iou)[clear])
    np.testing.assert_allclose(pairs.iou, values[pairs.annotation, pairs.selection], rtol=1e-6, atol=1e-9)
    assert len(pairs) == found.sum()


@settings(max_examples=50, deadline=None)
@given(rows, rows, thresholds)
def test_matching_is_one_to_one_maximum_and_of_largest_iou(annotations, selections, iou):
    pairs = match(annotations, selections, iou)
    edges = graph(annotations, selections, iou)
    assert len(set(pairs.annotation.tolist())) == len(set(pairs.selection.tolist())) == len(pairs)
    assert edges[pairs.annotation, pairs.selection].all()
    assert len(pairs) == maximum(edges)
    weights = np.where(edges, 1000.0 + iou_matrix(annotations, selections), 0.0)
    best = weights[linear_sum_assignment(weights, maximize=True)].sum() - 1000.0 * len(pairs)
    assert pairs.iou.sum() == pytest.approx(best, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(rows, rows, thresholds, st.randoms(use_true_random=False))
def test_hits_of_every_prefix_are_a_maximum_matching(annotations, selections, iou, random):
    order = list(range(len(selections)))
    random.shuffle(order)
    hits = hits_in_order(annotations, selections, np.asarray(order, dtype=np.int64), iou)
    edges = graph(annotations, selections, iou)
    for n in range(len(order) + 1):
        assert hits[order[:n]].sum() == maximum(edges[:, order[:n]])


@settings(max_examples=50, deadline=None)
@given(rows, rows, thresholds)
def test_matching_does_not_care_which_side_is_which_nor_in_what_order(annotations, selections, iou):
    there, back = match(annotations, selections, iou), match(selections, annotations, iou)
    assert len(there) == len(back)
    flipped = match(annotations, Intervals(selections.start_s[::-1], selections.end_s[::-1]), iou)
    assert len(flipped) == len(there)
    assert flipped.iou.sum() == pytest.approx(there.iou.sum())


def test_3000_recordings_have_as_many_pairs_as_with_scipy_and_mir_eval():
    published = json.loads((Path(__file__).parent / "data" / "mir_eval.json").read_text())
    sizes, others, greedy = [], [], []
    for seed in range(3000):
        annotations, selections, iou = matching_case(seed)
        annotations, selections = intervals(*annotations), intervals(*selections)
        sizes.append(len(match(annotations, selections, iou)))
        others.append(maximum(graph(annotations, selections, iou)))
        greedy.append(len(match_greedily(annotations, selections, iou)))
    assert sizes == others == published
    assert (np.array(greedy) <= sizes).all()
    assert (np.array(greedy) < sizes).sum() > 100, "the cases tell the two ways apart"


def test_threshold_that_is_to_be_exceeded():
    call, same, more = intervals((0, 10)), intervals((0, 3)), intervals((0, 3.001))
    assert len(match(call, same, 0.3)) == 1
    assert len(match(call, same, 0.3 + 2 * IOU_SLACK)) == 0
    assert len(match(call, more, 0.3 + 2 * IOU_SLACK)) == 1


def test_one_endless_selection_costs_nothing():
    starts = np.arange(50_000.0)
    calls, found = Intervals(starts, starts + 0.5), Intervals(np.append(starts, 0.0), np.append(starts + 0.5, 50_000.0))
    assert len(match(calls, found, 0.4)) == 50_000  # and not 50,000 x 50,000 candidates


def test_pairs_of_ranges():
    row, member = pairs_of_ranges(np.array([3, 5, 0]), np.array([5, 4, 1]))
    assert (row.tolist(), member.tolist()) == ([0, 0, 2], [3, 4, 0])


def test_any_pairs_can_be_matched():
    # Without overlap at all, as collars may give them: a0 and a1 both want s0, only a0 has another choice.
    pairs = Pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), np.zeros(3))
    taken = most_pairs(pairs)
    assert list(zip(taken.annotation.tolist(), taken.selection.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert hits_among(pairs, np.array([2, 0, 1])).tolist() == [True, True, False]
    nothing = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    assert len(most_pairs(nothing)) == 0
    assert hits_among(nothing, np.array([1, 0])).tolist() == [False, False]


def old_evaluator(truth, found, threshold):
    """The loop of the old evaluator, literally: both sorted by onset, each call in turn takes the best that is free."""

    def overlap(a, b):
        inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
        union = max(a[1], b[1]) - min(a[0], b[0])
        return inter / union if union else 0.0

    def by_onset(values):
        order = sorted(range(len(values)), key=lambda i: values.start_s[i])
        return [(i, (values.start_s[i], values.end_s[i])) for i in order]

    truth, found = by_onset(truth), by_onset(found)
    free = [True] * len(found)
    pairs = []
    for call, call_times in truth:
        best_iou, best = 0.0, None
        for position, (_, times) in enumerate(found):
            if not free[position]:
                continue
            value = overlap(call_times, times)
            if value >= threshold and value > best_iou:
                best_iou, best = value, position
        if best is not None:
            free[best] = False
            pairs.append((call, found[best][0]))
    return sorted(pairs)


on_a_grid = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=14).map(
    lambda values: intervals(*[(start / 2, (start + length) / 2) for start, length in values])
)


@settings(max_examples=300, deadline=None)
@given(rows | on_a_grid, rows | on_a_grid, thresholds)
def test_greedy_is_the_old_evaluator(annotations, selections, iou):
    pairs = match_greedily(annotations, selections, iou)
    expected = old_evaluator(annotations, selections, iou)
    assert list(zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True)) == expected
    assert len(pairs) <= len(match(annotations, selections, iou))


def test_greedy_takes_what_another_call_needed():
    calls, found = intervals((4, 14), (0, 10)), intervals((0, 10), (0, 6))
    assert match_greedily(calls, found, 0.4).annotation.tolist() == [
        1
    ]  # the call that starts first, though listed last
    assert len(match(calls, found, 0.4)) == 2


def test_greedy_ties_and_limits_are_those_of_the_old_evaluator():
    call = intervals((5, 15))
    equals = intervals((7, 17), (3, 13))
    assert match_greedily(call, equals, 0.4).selection.tolist() == [1] == [old_evaluator(call, equals, 0.4)[0][1]]
    call, found = intervals((0.3, 1.3)), intervals((0.3, 0.7))  # 0.4 less a rounding error
    assert len(match_greedily(call, found, 0.4)) == len(old_evaluator(call, found, 0.4)) == 0
    assert len(match(call, found, 0.4)) == 1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (0, 3)])
def test_nothing_to_match_greedily(n, m):
    annotations, selections = (intervals(*[(i, i + 0.5) for i in range(k)]) for k in (n, m))
    assert len(match_greedily(annotations, selections, 0.4)) == 0


def test_10000_calls_against_20000_selections_in_seconds():
    random = np.random.default_rng(3)

    def draw(n, seconds):
        start = random.uniform(0, seconds, n)
        return Intervals(start, start + random.uniform(0.15, 1.0, n))

    order = random.permutation(20_000)
    for seconds in (5000, 1000):  # in the second, all calls hang together
        calls, found = draw(10_000, seconds), draw(20_000, seconds)
        start = time.process_time()
        n = len(match(calls, found, 0.4))
        assert hits_in_order(calls, found, order, 0.4).sum() == n
        assert n >= len(match_greedily(calls, found, 0.4)) > 0.9 * n
        assert time.process_time() - start < 10


#: Pooled over the nine excerpts with 245 calls, from three independent matchers: the number of selections, and at
#: IoU > 0.3, >= 0.4 and >= 0.5 the hits and F1.
PUBLISHED = {
    "deepsqueak": (211, [(201, 0.882), (189, 0.829), (180, 0.789)]),
    "mupet": (196, [(183, 0.830), (175, 0.794), (167, 0.757)]),
    "msa2": (246, [(187, 0.762), (184, 0.749), (164, 0.668)]),
    "vocalmat": (322, [(203, 0.716), (197, 0.695), (180, 0.635)]),
    "msa1": (187, [(86, 0.398), (59, 0.273), (39, 0.181)]),
}


@pytest.mark.real
@pytest.mark.parametrize("tool", PUBLISHED)
def test_published_detectors_of_mouse_calls(tool):
    if "OTUS_DATA" not in os.environ:
        pytest.skip("OTUS_DATA is not set: it names the folder of the annotated recordings")
    folder = Path(os.environ["OTUS_DATA"]) / "usv"
    source = AnnotationSource(files="**/*.csv", label="call")

    def read(name, number):
        content = read_annotations(folder / str(number) / f"{name}_{number}.csv", source)
        assert not content.problems
        return intervals(*[(row.start_s, row.end_s) for row in content.rows])

    excerpts = [(read("gt", number), read(tool, number)) for number in range(1, 10)]
    assert sum(len(truth) for truth, _ in excerpts) == 245
    n_pred, expected = PUBLISHED[tool]
    assert sum(len(found) for _, found in excerpts) == n_pred
    for iou, (hits, f1) in zip((0.3 + 2 * IOU_SLACK, 0.4, 0.5), expected, strict=True):
        tp = sum(len(match(truth, found, iou)) for truth, found in excerpts)
        assert tp == hits
        # These calls are sparse, so that the order does not matter, but two IoU are 0.5 only with some slack.
        assert tp == sum(len(match_greedily(truth, found, iou - IOU_SLACK)) for truth, found in excerpts)
        assert tp == sum(hits_in_order(t, f, np.arange(len(f)), iou).sum() for t, f in excerpts)
        assert precision_recall_f1(tp, n_pred, 245)[2] == pytest.approx(f1, abs=5.1e-4)
