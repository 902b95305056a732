from collections import Counter
from itertools import permutations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_layers import layer

from otus.columns import SCHEMAS
from otus.evaluation.tally import Judged, matched_pairs
from otus.measures.confusion import NOTHING, confusion_rows

LABELS = ("frog", "owl", "wren")


def layer_of(calls, selections, *, groups=("a", "b"), folds=(1,), iou=0.5):
    """The layer whose matches are those of the calls and selections (recording_id, label, start_s, end_s), by fold."""
    calls = pd.DataFrame(calls, columns=["fold", "recording_id", "label", "start_s", "end_s"])
    found = pd.DataFrame(selections, columns=["fold", "recording_id", "label", "start_s", "end_s"])
    calls["annotation_id"] = [f"a{i}" for i in range(len(calls))]
    found["selection_id"] = [f"s{i}" for i in range(len(found))]
    found[["rank", "score"]] = 0.0
    parts = []
    for fold in folds:
        for label in LABELS:
            judged = Judged(
                found[(found["label"] == label) & (found["fold"] == fold)].reset_index(drop=True),
                calls[(calls["label"] == label) & (calls["fold"] == fold)].reset_index(drop=True),
                pd.DataFrame(),
            )
            parts.append(matched_pairs(judged, iou).assign(label=label, fold=fold))
    made = layer(groups, labels=LABELS)
    return type(made)(**{**vars(made), "matches": pd.concat(parts, ignore_index=True), "iou": iou})


def cells(rows):
    return {(row.annotated, row.selected): row.n for row in rows.itertuples()}


def test_hits_mix_ups_misses_and_false_alarms():
    rows = confusion_rows(
        layer_of(
            [
                (1, "r00", "owl", 0, 1),
                (1, "r00", "owl", 5, 6),
                (1, "r00", "frog", 10, 11),
                (1, "r01", "wren", 20, 21),
            ],
            [
                (1, "r00", "owl", 0, 1),
                (1, "r00", "wren", 5.1, 6),
                (1, "r00", "frog", 10.6, 12),  # too little in common
                (1, "r00", "wren", 20, 21),  # in another recording
            ],
        )
    )
    assert list(rows.columns) == list(SCHEMAS["confusion"])
    assert cells(rows) == {
        ("owl", "owl"): 1,
        ("owl", "wren"): 1,
        ("frog", NOTHING): 1,
        ("wren", NOTHING): 1,
        (NOTHING, "frog"): 1,
        (NOTHING, "wren"): 1,
    }
    assert rows[["annotated", "selected"]].to_records(index=False).tolist() == sorted(cells(rows))
    assert rows["iou"].eq(0.5).all() and rows["model"].eq("m").all() and not rows["leaky"].any()


def test_a_hit_is_never_given_up_for_a_mix_up():
    rows = confusion_rows(
        layer_of(
            [(1, "r00", "owl", 0, 1), (1, "r00", "frog", 0, 1)],
            [(1, "r00", "owl", 0.2, 1.2), (1, "r00", "owl", 0, 1)],
        )
    )
    assert cells(rows) == {("owl", "owl"): 1, ("frog", "owl"): 1}


def test_mix_ups_are_as_many_as_possible():
    # the first owl fits both wrens, the second only the one that the first fits better
    rows = confusion_rows(
        layer_of(
            [(1, "r00", "owl", 0, 10), (1, "r00", "owl", 3, 13)],
            [(1, "r00", "wren", 1, 11), (1, "r00", "wren", -3, 7)],
        )
    )
    assert cells(rows) == {("owl", "wren"): 2}


def test_networks_of_different_folds_are_kept_apart():
    rows = confusion_rows(layer_of([(1, "r00", "owl", 0, 1)], [(2, "r00", "wren", 0, 1)], folds=(1, 2)))
    assert cells(rows) == {("owl", NOTHING): 1, (NOTHING, "wren"): 1}


def test_nothing_annotated_or_nothing_selected():
    assert len(confusion_rows(layer_of([], []))) == 0
    assert cells(confusion_rows(layer_of([(1, "r00", "owl", 0, 1)], []))) == {("owl", NOTHING): 1}
    assert cells(confusion_rows(layer_of([], [(1, "r00", "owl", 0, 1)]))) == {(NOTHING, "owl"): 1}


ROWS = st.lists(
    st.tuples(
        st.just(1), st.sampled_from(["r00", "r01"]), st.sampled_from(LABELS), st.integers(0, 12), st.integers(1, 5)
    ),
    max_size=7,
)


def as_intervals(rows):
    return [(fold, recording, label, start, start + length) for fold, recording, label, start, length in rows]


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_every_annotation_and_every_selection_counts_once(calls, selections):
    rows = confusion_rows(layer_of(as_intervals(calls), as_intervals(selections)))
    assert rows["n"].gt(0).all()
    assert not rows.duplicated(["annotated", "selected"]).any()
    for column, given_rows in (("annotated", calls), ("selected", selections)):
        counted = rows[rows[column] != NOTHING].groupby(column)["n"].sum().to_dict()
        assert counted == Counter(label for _, _, label, _, _ in given_rows)


def most_mix_ups(misses, alarms, iou):
    """By trying every assignment."""
    few, many = sorted((misses, alarms), key=len)

    def fits(a, b):
        shared = min(a[4], b[4]) - max(a[3], b[3])
        return a[1] == b[1] and a[2] != b[2] and shared / (max(a[4], b[4]) - min(a[3], b[3])) >= iou - 1e-9

    best = (sum(fits(a, b) for a, b in zip(few, order, strict=False)) for order in permutations(many, len(few)))
    return max(best, default=0)


@settings(max_examples=60, deadline=None)
@given(ROWS.map(lambda rows: rows[:4]), ROWS.map(lambda rows: rows[:4]))
def test_mix_ups_are_as_many_as_exhaustive_search_finds(calls, selections):
    made = layer_of(as_intervals(calls), as_intervals(selections), iou=0.4)
    left = {
        outcome: [
            (row.fold, row.recording_id, row.label, row.start_s, row.end_s)
            for row in made.matches[made.matches["outcome"] == outcome].itertuples()
        ]
        for outcome in ("miss", "false_alarm")
    }
    rows = confusion_rows(made)
    across = rows[(rows["annotated"] != rows["selected"]) & ~rows[["annotated", "selected"]].eq(NOTHING).any(axis=1)]
    assert int(across["n"].sum()) == most_mix_ups(left["miss"], left["false_alarm"], 0.4)


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(4)
    times = rng.integers(0, 12, (2, 12))
    rows = [
        [(1, f"r0{i % 2}", LABELS[i % 3], int(start), int(start) + 3) for i, start in enumerate(side)] for side in times
    ]
    made = layer_of(*rows)
    mixed = type(made)(**{**vars(made), "matches": made.matches.sample(frac=1.0, random_state=1)})
    pd.testing.assert_frame_equal(confusion_rows(mixed), confusion_rows(made))
