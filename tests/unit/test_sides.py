"""Which time belongs to which side of a fold, and what is unknown."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.matching import Intervals
from otus.selections import Segments
from otus.sides import (
    EVERYWHERE,
    NOWHERE,
    Spans,
    centre_inside,
    judge_on_side,
    mostly_unknown,
    recordings_by_side,
    rows_inside,
    side_spans,
    union,
    union_by_recording,
    unknown_spans,
)

SIDES = ("train", "val", "test")
RATES = pd.Series({"a": 1000, "b": 3000})


def spans(*pairs):
    times = np.array(pairs, dtype=float).reshape(-1, 2)
    return Spans(times[:, 0], times[:, 1])


def split_rows(recording_id, borders, sides):
    """Consecutive stretches of a recording, in samples."""
    pieces = list(itertools.pairwise(borders))
    return pd.DataFrame(
        [(recording_id, "g", 1, side, a, b, True) for (a, b), side in zip(pieces, sides, strict=True)],
        columns=["recording_id", "group", "fold", "split", "start_sample", "end_sample", "leaky"],
    )


@st.composite
def divided(draw):
    """The rows of one recording, divided at random borders among the sides."""
    borders = sorted(draw(st.sets(st.integers(0, 5000), min_size=2, max_size=9)))
    borders[0] = 0
    sides = draw(st.lists(st.sampled_from(SIDES), min_size=len(borders) - 1, max_size=len(borders) - 1))
    return split_rows("a", borders, sides)


def test_a_stretch_holds_its_start_and_not_its_end():
    two = spans((1.0, 2.0), (2.5, 3.0))
    assert two.hold(np.array([0.99, 1.0, 1.5, 2.0, 2.4, 2.5, 2.99, 3.0])).tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    assert EVERYWHERE.hold(np.array([-1e9, 0.0, 1e9])).all()
    assert not NOWHERE.hold(np.array([0.0, 1.0])).any()
    assert len(two.hold(np.zeros(0))) == 0


@given(divided(), st.lists(st.tuples(st.floats(-0.1, 6.0), st.floats(1e-3, 2.0)), min_size=1, max_size=30))
def test_every_interval_belongs_to_exactly_one_side(rows, intervals):
    start = np.array([a for a, _ in intervals])
    end = start + np.array([length for _, length in intervals])
    held = [centre_inside(side_spans(rows, RATES, side).get("a", NOWHERE), start, end) for side in SIDES]
    assert (np.sum(held, axis=0) == 1).all(), "also what lies before the beginning or beyond the end"


@given(divided(), st.randoms(use_true_random=False))
def test_sides_share_out_the_time_and_do_not_depend_on_the_order_of_rows(rows, random):
    sides = recordings_by_side(rows, RATES)
    assert sides["duration_s"].sum() == pytest.approx(rows["end_sample"].max() / 1000)
    assert not sides.duplicated(["recording_id", "split"]).any()
    order = list(range(len(rows)))
    random.shuffle(order)
    for side in SIDES:
        one, other = (side_spans(r, RATES, side) for r in (rows, rows.iloc[order]))
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value.start_s, other[key].start_s)
            np.testing.assert_array_equal(value.end_s, other[key].end_s)


def test_a_whole_recording_holds_everything_and_lasts_as_long_as_its_header_says():
    rows = pd.concat([split_rows("b", [0, 10_001], ["test"]), split_rows("a", [0, 777], ["train"])])
    assert set(side_spans(rows, RATES, "test")) == {"b"}
    assert side_spans(rows, RATES, "test")["b"].hold(np.array([-1.0, 10_001 / 3000, 99.0])).all()
    assert side_spans(rows, RATES, "val") == {}
    sides = recordings_by_side(rows, RATES)
    assert sides[["recording_id", "group", "split"]].to_numpy().tolist() == [["b", "g", "test"], ["a", "g", "train"]]
    assert sides["duration_s"].tolist() == [10_001 / 3000, 777 / 1000], "the very same float"


def test_stretches_count_in_the_rate_of_their_own_recording():
    rows = pd.concat([split_rows(r, [0, 3000, 6000], ["train", "val"]) for r in ("a", "b")])
    val = side_spans(rows, RATES, "val")
    assert (val["a"].start_s[0], val["b"].start_s[0]) == (3.0, 1.0)
    found = pd.DataFrame([("b", 0.9, 1.1), ("a", 0.9, 1.1), ("b", 0.8, 1.1), ("c", 0.0, 9.0)])
    found.columns = ["recording_id", "start_s", "end_s"]
    assert rows_inside(found.set_index(pd.Index([7, 7, 3, 1])), val).tolist() == [True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=12), st.integers(0, 45), st.integers(1, 12))
def test_shares_of_a_union_are_those_of_counting_by_hand(pairs, start, length):
    first, last = np.array([a for a, _ in pairs], dtype=float), np.array([a + n for a, n in pairs], dtype=float)
    whole = union(first, last)
    assert (whole.start_s[1:] > whole.end_s[:-1]).all()
    cells = {cell for a, n in pairs for cell in range(a, a + n)}
    inside = sum(cell in cells for cell in range(start, start + length))
    found = mostly_unknown(whole, np.array([start], dtype=float), np.array([start + length], dtype=float))
    assert found.tolist() == [inside >= length / 2]


def test_exactly_half_is_mostly_and_intervals_are_judged_one_by_one():
    unknown = spans((1.0, 2.0), (3.0, 3.1))
    start, end = np.array([0.7, 1.9, 0.0, 2.9, 1.2]), np.array([1.3, 2.1, 0.9, 3.2, 1.4])
    assert mostly_unknown(unknown, start, end).tolist() == [True, True, False, False, True]
    assert mostly_unknown(EVERYWHERE, start, end).all()
    assert not mostly_unknown(NOWHERE, start, end).any()
    assert len(mostly_unknown(unknown, np.zeros(0), np.zeros(0))) == 0


def test_only_the_label_unknown_is_unknown():
    rows = pd.DataFrame(
        [("a", 0.0, 2.0, "unknown"), ("a", 1.0, 3.0, "unknown"), ("a", 8.0, 9.0, "owl"), ("b", 0.0, 1.0, "Unknown")],
        columns=["recording_id", "start_s", "end_s", "label"],
    )
    found = unknown_spans(rows)
    assert {key: list(zip(s.start_s, s.end_s, strict=True)) for key, s in found.items()} == {"a": [(0.0, 3.0)]}
    assert set(union_by_recording(rows)) == {"a", "b"} and union_by_recording(rows.iloc[:0]) == {}


def test_judging_on_a_side_keeps_hits_and_leaves_out_what_is_unknown_or_elsewhere():
    found = Segments(
        np.array([0.0, 2.0, 4.0, 6.0]), np.array([1.0, 3.0, 5.0, 7.0]), np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0])
    )
    calls = Intervals(np.array([2.0]), np.array([3.0]))
    peak, hit = judge_on_side(found, calls, spans((-np.inf, 5.5)), spans((2.0, 4.5)), 0.4)
    assert peak.tolist() == [1.0, 2.0] and hit.tolist() == [False, True], "3 is half unknown, 4 on another side"
    everything, _ = judge_on_side(found, calls, EVERYWHERE, NOWHERE, 0.4)
    assert everything.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_sides_need_no_torch():
    code = "import sys, otus.sides; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
