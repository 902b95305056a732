import numpy as np
import pandas as pd
import pytest
from measured_layers import layer

from otus.columns import SCHEMAS
from otus.config import EvaluationSettings
from otus.measures.strata import NOT_GIVEN, NOT_MEASURED, stratum_rows

SETTINGS = EvaluationSettings(bootstrap=300)
GROUPS = ("a", "a", "b", "b", "c")


def call(number, recording, duration_s, *, label="owl", quality=None, snr_db=np.nan):
    return {
        "annotation_id": f"a{number:03d}",
        "recording_id": f"r{recording:02d}",
        "start_s": 10.0,
        "end_s": 10.0 + duration_s,
        "label": label,
        "quality": quality,
        "snr_db": snr_db,
    }


def hit(one, onset_error_s=0.1, offset_error_s=0.2):
    names = ("annotation_id", "recording_id", "label")
    errors = {"onset_error_s": onset_error_s, "offset_error_s": offset_error_s}
    times = {"start_s": 0.0, "end_s": 99.0}  # the length of a hit's selection is of no account
    return {name: one[name] for name in names} | {"outcome": "hit", "fold": 1} | errors | times


def miss(one):
    return {name: one[name] for name in ("annotation_id", "recording_id", "label")} | {"outcome": "miss", "fold": 1}


def alarm(recording, duration_s, label="owl"):
    times = {"start_s": 30.0, "end_s": 30.0 + duration_s}
    return {"recording_id": f"r{recording:02d}", "label": label, "outcome": "false_alarm", "fold": 1} | times


def rows_of(calls, found, alarms=(), settings=SETTINGS, **kwargs):
    matches = [hit(one) if one["annotation_id"] in found else miss(one) for one in calls]
    made = layer(GROUPS, calls=calls, matches=[*matches, *alarms], **kwargs)
    return stratum_rows(made, settings, 5)


def only(rows, stratum, label="owl"):
    return rows[(rows["stratum"] == stratum) & (rows["label"] == label)].set_index("bin")


def with_strata(**strata):
    return EvaluationSettings(bootstrap=300, strata=strata)


def test_quality_numbers_come_in_their_order_then_words_then_none():
    qualities = ["10", "2", "good", None, "2", "9.5"]
    calls = [call(i, i % 5, 1.0, quality=quality) for i, quality in enumerate(qualities)]
    rows = rows_of(calls, {"a001", "a003"})
    assert list(rows.columns) == list(SCHEMAS["strata"])
    quality = only(rows, "quality")
    assert quality.index.tolist() == ["2", "9.5", "10", "good", NOT_GIVEN]
    assert quality["n_gt"].tolist() == [2, 1, 1, 1, 1]
    assert quality["recall"].tolist() == [0.5, 0.0, 0.0, 0.0, 1.0]
    assert quality["n_pred"].isna().all() and quality["fp"].isna().all() and quality["precision"].isna().all()
    assert quality[["bin_low", "bin_high"]].isna().all(axis=None)


def test_what_no_call_tells_has_no_rows():
    rows = rows_of([call(i, i, 1.0 + i) for i in range(5)], {"a001"})
    assert set(rows["stratum"]) == {"duration"}


def test_thirds_of_the_durations():
    calls = [call(i, i % 5, 0.1 * (i + 1)) for i in range(9)]
    alarms = [alarm(0, 0.05), alarm(1, 0.15), alarm(2, 5.0)]
    duration = only(rows_of(calls, {"a000", "a003", "a004", "a008"}, alarms), "duration")
    assert duration["n_gt"].tolist() == [3, 3, 3]
    assert duration["tp"].tolist() == [1, 2, 1]
    assert duration["fn"].tolist() == [2, 1, 2]
    assert duration["fp"].tolist() == [2, 0, 1]
    assert duration["n_pred"].tolist() == [3, 2, 2]
    assert duration["precision"].tolist() == pytest.approx([1 / 3, 1.0, 0.5])
    assert duration.index.tolist() == ["below 0.367 s", "0.367 to 0.633 s", "0.633 s and more"]
    assert np.isnan(duration["bin_low"].iloc[0]) and np.isnan(duration["bin_high"].iloc[-1])
    assert duration["bin_high"].iloc[0] == duration["bin_low"].iloc[1] == 0.367


def test_calls_of_one_length_are_one_bin():
    duration = only(rows_of([call(i, i, 0.5) for i in range(5)], {"a000"}), "duration")
    assert duration["n_gt"].to_dict() == {"0.5 s and more": 5}


def test_an_edge_belongs_to_the_bin_above_and_only_inner_empty_bins_stay():
    settings = with_strata(duration_edges_s=[2.0, 0.5, 1.0, 4.0, 8.0])
    calls = [call(0, 0, 0.5), call(1, 2, 2.0), call(2, 4, 2.5)]
    duration = only(rows_of(calls, {"a000"}, [alarm(0, 5.0)], settings), "duration")
    assert duration.index.tolist() == ["0.5 to 1 s", "1 to 2 s", "2 to 4 s", "4 to 8 s"]
    assert duration["n_gt"].tolist() == [1, 0, 2, 0]
    assert duration["fp"].tolist() == [0, 0, 0, 1]
    empty = duration.loc["1 to 2 s"]
    assert empty[["tp", "fn", "n_pred", "n_groups"]].eq(0).all()
    assert empty[["recall", "recall_low", "precision", "onset_error_median_s"]].isna().all()


def test_snr_bins_and_calls_whose_snr_is_unknown():
    calls = [call(0, 0, 1.0, snr_db=-3.0), call(1, 2, 1.0, snr_db=10.0), call(2, 4, 1.0), call(3, 4, 1.0, snr_db=99.0)]
    snr = only(rows_of(calls, {"a001", "a002"}), "snr")
    assert snr.index.tolist() == ["below 0 dB", "0 to 10 dB", "10 to 20 dB", "20 dB and more", NOT_MEASURED]
    assert snr["n_gt"].tolist() == [1, 0, 1, 1, 1]
    assert snr["recall"].iloc[[0, 2, 3, 4]].tolist() == [0.0, 1.0, 0.0, 1.0]


def test_no_edges_no_rows():
    settings = with_strata(duration_edges_s=[], snr_edges_db=[])
    assert len(rows_of([call(0, 0, 1.0, snr_db=3.0)], set(), settings=settings)) == 0


def test_intervals_are_over_groups_and_need_two():
    calls = [call(i, i % 5, 1.0, quality="1") for i in range(40)]
    calls += [call(40 + i, i % 2, 1.0, quality="2") for i in range(10)]  # r00 and r01 are one group
    rows = only(rows_of(calls, {f"a{i:03d}" for i in range(50) if i % 3}), "quality")
    assert rows["n_groups"].tolist() == [3, 1]
    one = rows.loc["1"]
    assert 0.0 <= one["recall_low"] < one["recall"] < one["recall_high"] <= 1.0
    assert np.isnan(rows.loc["2", "recall_low"]) and rows.loc["2", "recall"] == pytest.approx(0.6, abs=0.1)


def test_without_resamples_there_are_no_intervals():
    rows = rows_of([call(i, i, 1.0) for i in range(5)], {"a001"}, settings=EvaluationSettings(bootstrap=0))
    assert rows["recall"].notna().all() and rows["recall_low"].isna().all()


def test_boundary_errors_are_those_of_the_calls_found():
    calls = [call(i, i, 1.0, quality="1") for i in range(4)]
    matches = [hit(calls[0], 0.1, 0.5), hit(calls[1], -0.3, 0.1), hit(calls[2], 0.2, 0.3), miss(calls[3])]
    rows = only(stratum_rows(layer(GROUPS, calls=calls, matches=matches), SETTINGS, 5), "quality")
    assert rows.loc["1", ["onset_error_median_s", "offset_error_median_s"]].tolist() == pytest.approx([0.2, 0.3])


def test_labels_and_all_of_them_together():
    calls = [call(0, 0, 0.1), call(1, 2, 0.2), call(2, 4, 3.0, label="frog"), call(3, 0, 4.0, label="frog")]
    alarms = [alarm(1, 0.15), alarm(3, 3.5, label="frog")]
    rows = rows_of(calls, {"a000", "a002"}, alarms, labels=("owl", "frog", "wren"))
    assert rows["label"].unique().tolist() == ["owl", "frog", "micro"]
    for label, n_gt, fp in (("owl", 2, 1), ("frog", 2, 1), ("micro", 4, 2)):
        own = only(rows, "duration", label)
        assert (own["n_gt"].sum(), own["fp"].sum()) == (n_gt, fp)
    assert "micro" not in set(rows_of(calls[:2], set())["label"])


def test_no_calls_no_rows():
    assert len(rows_of([], set())) == 0
    assert len(rows_of([], set(), [alarm(0, 1.0)])) == 0


def test_bins_add_up_and_the_order_of_the_tables_does_not_matter():
    rng = np.random.default_rng(3)
    calls = [
        call(i, i % 5, float(rng.uniform(0.1, 2.0)), quality=str(rng.integers(1, 4)), snr_db=float(rng.normal(8, 9)))
        for i in range(60)
    ]
    matches = [hit(one) if rng.random() < 0.6 else miss(one) for one in calls]
    matches += [alarm(int(rng.integers(5)), float(rng.uniform(0.1, 3.0))) for _ in range(30)]
    made = layer(GROUPS, calls=calls, matches=matches)
    rows = stratum_rows(made, SETTINGS, 5)
    for stratum in ("quality", "duration", "snr"):
        own = only(rows, stratum)
        assert own["n_gt"].sum() == 60
        assert own["tp"].sum() == sum(row["outcome"] == "hit" for row in matches)
    assert only(rows, "duration")["fp"].sum() == 30
    shuffled = {name: getattr(made, name).sample(frac=1.0, random_state=2) for name in ("calls", "matches")}
    pd.testing.assert_frame_equal(stratum_rows(type(made)(**{**vars(made), **shuffled}), SETTINGS, 5), rows)
