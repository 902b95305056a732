"""What a reader must know of the truth behind a number."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from otus.measures.notes import LEAKY_NOTE, Truth, row_notes, truth_of

PLENTY = Truth(
    n_gt=200,
    n_groups=20,
    n_groups_with_calls=15,
    n_recordings=40,
    n_without_calls=10,
    silent_hours=5.0,
    median_share=0.01,
    covered_share=0.05,
)


def calls(*rows):
    return pd.DataFrame(list(rows), columns=["recording_id", "start_s", "end_s"]).astype(
        {"start_s": float, "end_s": float}
    )


def recordings(*rows):
    return pd.DataFrame(list(rows), columns=["recording_id", "group", "duration_s"])


def test_no_note_where_there_is_plenty():
    assert row_notes(PLENTY, leaky=False) is None
    assert row_notes(PLENTY, leaky=True) == LEAKY_NOTE


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"n_gt": 0}, "no annotated call: recall is undefined"),
        ({"n_gt": 1}, "only 1 annotated call"),
        ({"n_gt": 9}, "only 9 annotated calls"),
        ({"n_groups": 9, "n_groups_with_calls": 9}, "only 9 groups, which the interval takes as typical"),
        ({"n_groups": 3, "n_groups_with_calls": 3}, "only 3 groups: the interval says next to nothing"),
        ({"n_groups": 1, "n_groups_with_calls": 1}, "only 1 group: no interval can be given"),
        ({"n_groups": 0, "n_groups_with_calls": 0}, "only 0 groups: no interval can be given"),
        ({"n_groups_with_calls": 4}, "calls in only 4 of 20 groups"),
        ({"n_without_calls": 0}, "no recording without calls: false alarms may be underestimated"),
        (
            {"n_without_calls": 0, "silent_hours": 0.5},
            "no recording without calls, and only 30 min between calls: false alarms may be underestimated",
        ),
        (
            {"median_share": 0.8},
            "labels as long as the file (the median call covers 80 % of its recording): F1 tells whether a recording "
            "holds the call, not when",
        ),
        (
            {"covered_share": 0.6},
            "calls cover 60 % of the time: a detector that reports everything does well",
        ),
    ],
)
def test_each_weakness_has_its_note(changed, expected):
    assert row_notes(replace(PLENTY, **changed), leaky=False) == expected


def test_just_enough_is_enough():
    enough = replace(PLENTY, n_gt=10, n_groups=10, n_groups_with_calls=10, n_without_calls=1, covered_share=0.5)
    assert row_notes(enough, leaky=False) is None


def test_several_weaknesses_stand_in_one_line():
    poor = replace(PLENTY, n_gt=3, n_groups=2, n_groups_with_calls=1, n_without_calls=0)
    assert row_notes(poor, leaky=True) == (
        f"{LEAKY_NOTE}; only 3 annotated calls; only 2 groups: the interval says next to nothing; calls in only 1 of 2 "
        "groups; no recording without calls: false alarms may be underestimated"
    )


def test_without_calls_nothing_is_said_of_them():
    nothing = replace(PLENTY, n_gt=0, n_groups_with_calls=0, n_without_calls=40)
    assert row_notes(nothing, leaky=False) == "no annotated call: recall is undefined"
    unknown = Truth(n_gt=20, n_groups=12, n_groups_with_calls=12, n_recordings=12, n_without_calls=0)
    assert row_notes(unknown, leaky=False) == "no recording without calls: false alarms may be underestimated"


def test_truth_of_calls_in_recordings():
    where = recordings(("a", "x", 100.0), ("b", "x", 50.0), ("c", "y", 50.0), ("d", "z", 1600.0))
    found = truth_of(calls(("a", 0, 80), ("a", 40, 90), ("b", 10, 20), ("c", 0, 50)), where)
    assert (found.n_gt, found.n_groups, found.n_groups_with_calls) == (4, 3, 2)
    assert (found.n_recordings, found.n_without_calls) == (4, 1)
    assert found.silent_hours == pytest.approx((1800 - 90 - 10 - 50) / 3600), "calls that overlap cover time once"
    assert found.median_share == pytest.approx(np.median([0.8, 0.5, 0.2, 1.0]))
    assert found.covered_share == pytest.approx(150 / 1800)


def test_truth_of_nothing():
    where = recordings(("a", "x", 100.0))
    found = truth_of(calls(), where)
    assert (found.n_gt, found.n_without_calls, found.covered_share) == (0, 1, 0.0)
    assert math.isnan(found.median_share)
    empty = truth_of(calls(), where.iloc[:0])
    assert (empty.n_groups, empty.n_recordings) == (0, 0)
    assert math.isnan(empty.covered_share)


def test_labels_as_long_as_the_file_are_told_from_the_tables():
    where = recordings(*((f"r{i:02d}", f"g{i:02d}", 3.0) for i in range(20)))
    whole = calls(*((f"r{i:02d}", 0, 2.9) for i in range(12)))
    assert "labels as long as the file (the median call covers 97 %" in str(
        row_notes(truth_of(whole, where), leaky=False)
    )
