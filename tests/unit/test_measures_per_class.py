"""One row of numbers per label."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_corpus import SETTINGS, by_chance, layer, resampled, spans_of
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score

from otus.bootstrap import group_draws
from otus.collars import onset_offset_pairs, onset_pairs
from otus.columns import SCHEMAS
from otus.matching import Intervals
from otus.measures.correlations import Counts, drawn_correlations
from otus.measures.coverage import layer_psds
from otus.measures.per_class import per_class_rows
from otus.measures.ranked import drawn_average_precision, group_curves, ranked_events, thinned
from otus.metrics import average_precision

RATIOS = [name.removesuffix("_low") for name in SCHEMAS["metrics_per_class"] if name.endswith("_low")]
SHARES = [name for name in RATIOS if not name.startswith(("count", "false"))]


def rows_of(one, seed=1, **changed):
    return per_class_rows(one, SETTINGS.model_copy(update=changed), seed).set_index("label")


def intervals(rows):
    return Intervals(rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float))


def by_recording(one, label):
    """Calls, selected and all selections of one label in each recording."""
    for recording_id in one.recordings["recording_id"]:
        calls, found = (
            f[(f["recording_id"] == recording_id) & (f["label"] == label)] for f in (one.calls, one.selections)
        )
        yield recording_id, calls, found[found["selected"]], found


def f1(tp, n_pred, n_gt):
    return 2 * tp / (n_pred + n_gt)


def collar_hits(one, label, pairs_of):
    """The size of the largest matching, the plain way: by augmenting paths over a dictionary."""
    total = 0
    for _, calls, selected, _ in by_recording(one, label):
        pairs = pairs_of(intervals(calls), intervals(selected))
        choices = {}
        for a, s in zip(pairs.annotation.tolist(), pairs.selection.tolist(), strict=True):
            choices.setdefault(a, []).append(s)
        owner = {}

        def place(a, seen, choices=choices, owner=owner):
            for s in choices.get(a, []):
                if s not in seen:
                    seen.add(s)
                    if s not in owner or place(owner[s], seen):
                        owner[s] = a
                        return True
            return False

        total += sum(place(a, set()) for a in choices)
    return total


def units(one, label, unit_s, active):
    """Truth, result and score of every unit that counts, one by one."""
    truth, result, score = [], [], []
    for recording_id, calls, selected, found in by_recording(one, label):
        unknown = spans_of(one, recording_id)
        for k in range(round(60 / unit_s)):
            held = [any(active(*t, k) for t in zip(f["start_s"], f["end_s"], strict=True)) for f in (calls, selected)]
            if not held[0] and any(active(*t, k) for t in zip(unknown.start_s, unknown.end_s, strict=True)):
                continue
            ranks = [
                r for a, b, r in zip(found["start_s"], found["end_s"], found["rank"], strict=True) if active(a, b, k)
            ]
            truth.append(held[0])
            result.append(held[1])
            score.append(max(ranks, default=-np.inf))
    return np.array(truth), np.array(result), np.array(score)


def test_rows_are_those_of_plain_counting():
    one = by_chance(3, unknown=True)
    found = rows_of(one)
    assert found.index.tolist() == ["hum", "trill", "micro", "macro"]
    for label in one.labels:
        row, calls = found.loc[label], one.calls[one.calls["label"] == label]
        own = one.selections[(one.selections["label"] == label)]
        selected = own[own["selected"]]
        tp, n_pred, n_gt = int(selected["hit"].sum()), len(selected), len(calls)
        assert row[["n_gt", "n_pred", "tp", "fp", "fn"]].tolist() == [n_gt, n_pred, tp, n_pred - tp, n_gt - tp]
        assert row["precision"] == pytest.approx(tp / n_pred)
        assert row["recall"] == pytest.approx(tp / n_gt)
        assert row["f1"] == pytest.approx(f1(tp, n_pred, n_gt))
        assert row["false_alarms_per_hour"] == pytest.approx((n_pred - tp) / 0.2)
        hits = average_precision_score(own["hit"], own["rank"]) * own["hit"].sum() / n_gt
        assert row["average_precision"] == pytest.approx(hits)
        near = collar_hits(one, label, lambda a, s: onset_pairs(a, s, 0.2))
        both = collar_hits(one, label, lambda a, s: onset_offset_pairs(a, s, 0.2, 0.2))
        assert (row["n_onset_hits"], row["n_onset_offset_hits"]) == (near, both)
        assert 0 < both <= near
        assert row["onset_f1"] == pytest.approx(f1(near, n_pred, n_gt))
        assert row["onset_offset_f1"] == pytest.approx(f1(both, n_pred, n_gt))
        errors = one.matches[(one.matches["label"] == label) & (one.matches["outcome"] == "hit")]
        assert row["n_errors"] == len(errors) == tp
        assert row["onset_error_median_s"] == pytest.approx(errors["onset_error_s"].median())
        assert row["offset_error_p90_s"] == pytest.approx(errors["offset_error_s"].quantile(0.9))
    assert found["n_recordings"].eq(12).all()
    assert found["n_groups"].eq(6).all()
    assert found["hours"].to_numpy() == pytest.approx(0.2)


def test_segments_and_frames_are_those_of_plain_counting():
    one = by_chance(5, n_groups=2, unknown=True)
    found = rows_of(one, frame_s=0.25)
    ways = [
        ("segment", 1.0, lambda a, b, k: a < k + 1 - 1e-9 and b > k + 1e-9),
        ("frame", 0.25, lambda a, b, k: a <= (k + 0.5) * 0.25 < b),
    ]
    for label in one.labels:
        for name, unit_s, active in ways:
            truth, result, score = units(one, label, unit_s, active)
            tp = (truth & result).sum()
            assert found.loc[label, f"n_{name}s"] == len(truth)
            assert found.loc[label, f"{name}_f1"] == pytest.approx(f1(tp, result.sum(), truth.sum()))
            ranked = score > -np.inf
            share = truth[ranked].sum() / truth.sum()
            expected = average_precision_score(truth[ranked], score[ranked]) * share
            assert found.loc[label, f"{name}_average_precision"] == pytest.approx(expected)


def test_recordings_with_neither_call_nor_selection_enter_nothing_per_recording():
    calls = [("r00", 1, 2, "hum"), ("r01", 1, 2, "hum"), ("r01", 5, 6, "hum"), ("r02", 3, 4, "hum")]
    found = [("r00", 1, 2, "hum", 1), ("r01", 1, 2, "hum", 2), ("r03", 9, 10, "hum", 1), ("r03", 2, 3, "hum", 1)]
    one = layer(calls, found, ["a", "b", "c", "d", "e", "f"])
    row = rows_of(one).loc["hum"]
    assert row["n_present"] == 3
    assert row["presence_precision"] == pytest.approx(2 / 3)
    assert row["presence_recall"] == pytest.approx(2 / 3)
    assert row["presence_f1"] == pytest.approx(2 / 3)
    n_gt, n_pred = [1, 2, 1, 0], [1, 1, 0, 2]
    assert row["count_pearson"] == pytest.approx(pearsonr(n_gt, n_pred)[0])
    assert row["count_spearman"] == pytest.approx(spearmanr(n_gt, n_pred)[0])


def test_a_recording_with_something_unknown_is_not_a_false_presence():
    calls, found = [("r00", 1, 2, "hum")], [("r00", 1, 2, "hum", 1), ("r01", 20, 21, "hum", 1)]
    plain = rows_of(layer(calls, found, ["a", "b"])).loc["hum"]
    unsure = rows_of(layer(calls, found, ["a", "b"], unknown={"r01": [(50, 55)]})).loc["hum"]
    assert plain["presence_precision"] == 0.5
    assert unsure["presence_precision"] == 1.0
    assert unsure["fp"] == 1, "the selection itself is a false alarm"


def test_micro_adds_up_and_macro_is_the_mean_over_labels_with_calls():
    one = by_chance(8, labels=("hum", "trill", "silent"))
    silent = one.selections["label"] == "silent"
    one = replace(
        one,
        calls=one.calls[one.calls["label"] != "silent"],
        selections=one.selections.assign(hit=one.selections["hit"] & ~silent),
        matches=one.matches[one.matches["label"] != "silent"],
    )
    found = rows_of(one)
    labels = found.loc[["hum", "trill", "silent"]]
    assert found["n_labels"].tolist() == [1, 1, 1, 3, 2]
    micro, macro, two = found.loc["micro"], found.loc["macro"], labels.iloc[:2]
    for name in ("n_gt", "n_pred", "tp", "n_onset_hits", "n_segments", "n_frames", "n_present", "n_errors"):
        assert micro[name] == labels[name].sum()
        assert macro[name] == two[name].sum()
    assert micro["f1"] == pytest.approx(f1(micro["tp"], micro["n_pred"], micro["n_gt"]))
    assert micro["false_alarms_per_hour"] == pytest.approx(labels["false_alarms_per_hour"].sum())
    for name in RATIOS:
        assert macro[name] == pytest.approx(two[name].mean()), name
    assert math.isnan(labels.loc["silent", "recall"])
    assert math.isnan(labels.loc["silent", "average_precision"])
    assert "no annotated call" in labels.loc["silent", "note"]


def test_one_label_has_one_row():
    assert rows_of(by_chance(1, labels=("hum",))).index.tolist() == ["hum"]


def test_intervals_hold_their_values_and_depend_on_the_seed_alone():
    one = by_chance(2, n_groups=9)
    found = rows_of(one)
    for name in RATIOS:
        low, value, high = (found[name + end].to_numpy(dtype=float) for end in ("_low", "", "_high"))
        assert (low <= value + 1e-9).all(), name
        assert (value <= high + 1e-9).all(), name
        assert (low < high).all(), name
        if name in SHARES:
            assert ((low >= 0) & (high <= 1)).all(), name
    shuffled = replace(
        one,
        calls=one.calls.sample(frac=1, random_state=1),
        selections=one.selections.sample(frac=1, random_state=2),
        matches=one.matches.sample(frac=1, random_state=3),
    )
    pd.testing.assert_frame_equal(rows_of(shuffled), found)
    assert (rows_of(one, seed=2)["f1_low"] != found["f1_low"]).all()


NOTHING = {
    "nothing": ([], []),
    "no call": ([], [("r00", 1, 2, "hum", 1.0), ("r01", 1, 2, "hum", -1.0)]),
    "no selection": ([("r00", 1, 2, "hum"), ("r01", 3, 4, "hum")], []),
    "nothing selected": ([("r00", 1, 2, "hum")], [("r00", 1, 2, "hum", -1.0)]),
}


@pytest.mark.parametrize("labels", [("hum",), ("hum", "trill")])
@pytest.mark.parametrize("groups", [["a"], ["a", "a"], ["a", "b"], ["a", "b", "c", "c"]])
@pytest.mark.parametrize("case", sorted(NOTHING))
def test_where_there_is_nothing_rows_are_defined(case, groups, labels):
    calls, found = (
        [row for row in rows if row[0] in {f"r{i:02d}" for i in range(len(groups))}] for rows in NOTHING[case]
    )
    rows = rows_of(layer(calls, found, groups, labels=labels))
    assert len(rows) == (1 if len(labels) == 1 else 4)
    row = rows.loc["hum"]
    n_gt, n_pred = len(calls), sum(rank >= 0 for *_, rank in found)
    assert (row["n_gt"], row["n_pred"], row["tp"]) == (n_gt, n_pred, 0)
    defined = {"recall": n_gt > 0, "precision": n_pred > 0, "f1": n_gt + n_pred > 0}
    for name, there in defined.items():
        assert (row[name] == 0) if there else math.isnan(row[name])
    assert row["false_alarms_per_hour"] == pytest.approx(n_pred * 60 / len(groups))
    assert math.isnan(row["psds1"]) == (n_gt == 0)
    assert math.isnan(row["average_precision"]) == (n_gt == 0)
    if len(set(groups)) == 1:
        assert rows[[f"{name}_low" for name in RATIOS]].isna().all(axis=None)
        assert "no interval can be given" in row["note"]
    if len(labels) == 2:
        assert rows.loc["macro", "n_labels"] == (n_gt > 0)


def test_without_resamples_there_is_no_interval():
    found = rows_of(by_chance(4), bootstrap=0)
    assert found[["f1", "psds1", "count_spearman"]].notna().all(axis=None)
    assert found[[f"{name}_low" for name in RATIOS]].isna().all(axis=None)


def test_selections_beyond_the_tested_time_still_have_units():
    # A fold that tests a part of a recording: 10 s of it, somewhere behind its first minute.
    calls, found = [("r00", 70, 71, "hum")], [("r00", 70, 71.5, "hum", 1.0)]
    row = rows_of(layer(calls, found, ["a"], duration_s=10.0)).loc["hum"]
    assert row["segment_f1"] == pytest.approx(f1(1, 2, 1))
    assert row["frame_f1"] == pytest.approx(f1(100, 150, 100))


# Resamples are those of the resampled corpora themselves


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_resampled_average_precision_is_that_of_the_resampled_corpus(seed, weights):
    one = by_chance(seed, n_groups=4, labels=("hum",))
    copies = resampled(one, weights)
    n_gt = one.calls.merge(one.recordings)["group"].value_counts().reindex(["g00", "g01", "g02", "g03"], fill_value=0)
    drawn = drawn_average_precision(
        ranked_events(one, ["hum"]), n_gt.to_numpy(dtype=float), np.array([weights], dtype=float)
    )[1]
    expected = average_precision(ranked_events(copies, ["hum"]).curve(), len(copies.calls))
    assert drawn[0] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any))
def test_resampled_psds_is_that_of_the_resampled_corpus(seed, weights):
    one = by_chance(seed, n_groups=4, per_group=1)
    drawn = layer_psds(one, np.array([weights], dtype=float))
    exact = layer_psds(resampled(one, weights), np.zeros((0, sum(weights))))
    assert drawn.together[0].resampled[0] == pytest.approx(exact.together[0].value, nan_ok=True)
    for own, expected in zip(drawn.alone, exact.alone, strict=True):
        for k in (0, 1):
            assert own[k].resampled[0] == pytest.approx(expected[k].value, nan_ok=True)


def test_psds_of_a_label_is_that_of_the_label_alone():
    one = by_chance(6)
    both = layer_psds(one, np.zeros((0, 6)))
    for k, label in enumerate(one.labels):
        own = replace(
            one,
            labels=(label,),
            calls=one.calls[one.calls["label"] == label],
            selections=one.selections[one.selections["label"] == label],
        )
        alone = layer_psds(own, np.zeros((0, 6)))
        assert [e.value for e in both.alone[k]] == pytest.approx([e.value for e in alone.together])
        assert 0 < both.alone[k][0].value < both.alone[k][1].value <= 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2)), min_size=3, max_size=12),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_resampled_correlations_are_those_of_scipy(rows, weights):
    n_gt, n_pred, group = np.array(rows).T
    counts = Counts(n_gt.astype(float), n_pred.astype(float), group)
    (_, pearson), (_, spearman) = drawn_correlations(counts, np.array([weights], dtype=float))
    times = np.array(weights)[group]
    x, y = np.repeat(n_gt, times), np.repeat(n_pred, times)
    if len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        assert math.isnan(pearson[0])
        assert math.isnan(spearman[0])
    else:
        assert pearson[0] == pytest.approx(pearsonr(x, y)[0], abs=1e-9)
        assert spearman[0] == pytest.approx(spearmanr(x, y)[0], abs=1e-9)


def test_thinned_thresholds_change_the_spread_of_average_precision_by_little():
    one = by_chance(9, n_groups=30, per_group=6, labels=("hum",))
    rows = ranked_events(one, ["hum"])
    weights = group_draws(np.unique(one.recordings["group"]), n=300, seed=1).weights
    number = one.calls.merge(one.recordings)["group"].str[1:].astype(int)
    n_gt = np.bincount(number, minlength=30).astype(float)
    spreads = []
    for n in (64, 256, len(rows.score)):
        curves = group_curves(rows, 30, thinned(rows.score, n)).drawn(weights)
        spreads.append(float(curves.average_precision(weights @ n_gt).std()))
    assert len(rows.score) > 600
    assert spreads[:2] == pytest.approx([spreads[2]] * 2, rel=0.05)
    assert thinned(rows.score, 64)[[0, -1]].tolist() == [rows.score.max(), rows.score.min()]
