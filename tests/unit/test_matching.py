"""Truth against selections."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from otus.annotations import read_annotations
from otus.config import AnnotationSource
from otus.matching import Intervals, admissible_pairs, hits_in_order, match
from otus.metrics import precision_recall_f1


def intervals(*pairs):
    values = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return Intervals(values[:, 0], values[:, 1])


def iou_matrix(annotations, selections):
    """All intersections over union, the plain way."""
    values = np.zeros((len(annotations), len(selections)))
    for i in range(len(annotations)):
        for j in range(len(selections)):
            shared = min(annotations.end_s[i], selections.end_s[j]) - max(annotations.start_s[i], selections.start_s[j])
            total = annotations.end_s[i] - annotations.start_s[i] + selections.end_s[j] - selections.start_s[j]
            values[i, j] = max(shared, 0) / (total - max(shared, 0))
    return values


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


#: tp, selections and F1 at IoU >= 0.4, pooled over the nine excerpts with 245 calls, from three independent matchers.
PUBLISHED = {
    "deepsqueak": (189, 211, 0.829),
    "mupet": (175, 196, 0.794),
    "msa2": (184, 246, 0.749),
    "vocalmat": (197, 322, 0.695),
    "msa1": (59, 187, 0.273),
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

    counts = np.zeros(3, dtype=int)
    for number in range(1, 10):
        truth, found = read("gt", number), read(tool, number)
        pairs = match(truth, found, 0.4)
        assert hits_in_order(truth, found, np.arange(len(found)), 0.4).sum() == len(pairs)
        counts += (len(pairs), len(found), len(truth))
    tp, n_pred, f1 = PUBLISHED[tool]
    assert counts.tolist() == [tp, n_pred, 245]
    assert precision_recall_f1(*counts.tolist())[2] == pytest.approx(f1, abs=5e-4)
