from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measured_layers import layer, simulated

from otus.columns import SCHEMAS
from otus.config import EvaluationSettings
from otus.measures import densities
from otus.measures.densities import density_rows

SETTINGS = EvaluationSettings(bootstrap=400)
LABELLED = {"label": "owl"}


def selection(recording, probability, hit, *, label="owl", selected=True):
    return {
        "recording_id": f"r{recording:02d}",
        "label": label,
        "probability": probability,
        "hit": hit,
        "selected": selected,
    }


def calls(*numbers, label="owl"):
    """So many calls in each recording."""
    return [{"recording_id": f"r{i:02d}", "label": label} for i, n in enumerate(numbers) for _ in range(n)]


def covered(rows):
    known = rows.dropna(subset=["calls_low"])
    return known["n_gt"].ge(known["calls_low"]) & known["n_gt"].le(known["calls_high"])


@pytest.mark.parametrize(
    ("n_groups", "kinds"),
    [
        (5, {}),
        (12, {"spread": 0.5}),
        (12, {"spread": 1.0}),
        (12, {"recall": 0.5, "spread": 0.5}),
        (12, {"probabilities": False, "spread": 0.5}),
        (12, {"calls": 0.5, "spread": 0.5}),
        (6, {"calls": 20.0, "false_alarms": 20.0, "spread": 0.3}),
    ],
)
def test_the_interval_holds_the_number_of_calls_in_95_of_100_recordings(n_groups, kinds):
    rng = np.random.default_rng(17)
    made = [density_rows([simulated(rng, n_groups, **kinds)], SETTINGS, seed) for seed in range(240 // n_groups)]
    rows = pd.concat(made, ignore_index=True)
    assert 0.90 <= covered(rows).mean() <= 0.99
    assert (rows["calls_high"] - rows["calls_low"]).mean() > 0.5
    assert abs(rows["calls"].sum() / rows["n_gt"].sum() - 1.0) < 0.15


def test_it_tells_more_than_the_number_of_selections():
    rng = np.random.default_rng(3)
    rows = density_rows([simulated(rng, 60, recall=0.9, false_alarms=20.0)], SETTINGS, 1)
    assert rows["calls"].sum() == pytest.approx(rows["n_gt"].sum(), rel=0.05)
    assert rows["n_pred"].sum() > 1.2 * rows["n_gt"].sum()
    assert (rows["calls"] - rows["n_gt"]).abs().mean() < 0.8 * (rows["n_pred"] - rows["n_gt"]).abs().mean()
    assert rows["calls"].corr(rows["n_gt"]) > 0.7


def test_the_truth_of_a_group_does_not_change_its_own_numbers():
    made = simulated(np.random.default_rng(5), 8)
    rows = density_rows([made], SETTINGS, 1)
    own = made.recordings.loc[made.recordings["group"] == "g003", "recording_id"]
    there = made.selections["recording_id"].isin(own)
    lie = replace(
        made,
        calls=made.calls[~made.calls["recording_id"].isin(own)],
        selections=made.selections.assign(hit=made.selections["hit"] & ~there),
    )
    changed = density_rows([lie], SETTINGS, 1)
    mine = rows["group"] == "g003"
    columns = ["calls", "calls_low", "calls_high", "calls_per_hour"]
    pd.testing.assert_frame_equal(changed.loc[mine, columns], rows.loc[mine, columns])
    assert changed.loc[mine, "n_gt"].eq(0).all()
    assert (changed.loc[~mine, "calls"] != rows.loc[~mine, "calls"]).all()


def test_many_groups_are_left_out_in_lots_of_which_none_tells_of_itself(monkeypatch):
    made = simulated(np.random.default_rng(5), 9)
    one_by_one = density_rows([made], SETTINGS, 1)
    monkeypatch.setattr(densities, "_MOST_LOTS", 4)
    in_lots = density_rows([made], SETTINGS, 1)
    lot = made.recordings.loc[made.recordings["group"].isin(["g003", "g007"]), "recording_id"]
    there = made.selections["recording_id"].isin(lot)
    lie = replace(
        made,
        calls=made.calls[~made.calls["recording_id"].isin(lot)],
        selections=made.selections.assign(hit=made.selections["hit"] & ~there),
    )
    mine, columns = in_lots["recording_id"].isin(lot), ["calls", "calls_low", "calls_high"]
    told = density_rows([lie], SETTINGS, 1)
    pd.testing.assert_frame_equal(told.loc[mine, columns], in_lots.loc[mine, columns])
    assert (in_lots["calls"] != one_by_one["calls"]).all()


def test_the_work_does_not_grow_with_the_square_of_the_groups(monkeypatch):
    spread, looks = densities._spread, []
    monkeypatch.setattr(densities, "_spread", lambda *args: looks.append(1) or spread(*args))
    made = simulated(np.random.default_rng(6), 500, per_group=1, calls=1.0, false_alarms=1.0)
    rows = density_rows([made], EvaluationSettings(bootstrap=20), 1)
    assert len(looks) == 200, "every look goes over all recordings"
    assert abs(rows["calls"].sum() / rows["n_gt"].sum() - 1.0) < 0.1


def test_numbers_by_hand():
    # others of r00: ten selections near 0.5, of which five are hits, and five calls more that none finds
    found = [selection(i, 0.5, k == 0) for i in range(1, 6) for k in range(2)]
    made = layer("abcdef", calls=calls(3, 2, 2, 2, 2, 2), selections=[selection(0, 0.5, True)] * 2 + found, fold="4")
    row = density_rows([made], SETTINGS, 1).iloc[0]
    share = (5 + 0.5) / (10 + 1)
    assert row["calls"] == pytest.approx(2 * share * (1 + 5 / 5))
    assert (row["fold"], row["group"], row["n_gt"], row["n_pred"]) == (4, "a", 3, 2)
    assert row["hours"] == pytest.approx(1 / 60)
    assert row["calls_per_hour"] == pytest.approx(60 * row["calls"])
    assert row["calls_per_hour_low"] == pytest.approx(60 * row["calls_low"])
    assert row["calls_low"] <= row["calls"] <= row["calls_high"]


def test_a_recording_in_which_nothing_is_found_has_the_misses_of_others_like_it():
    found = [selection(i, 0.9, True) for i in range(4)]
    made = layer("abcdefgh", calls=calls(1, 1, 1, 1, 0, 2, 2, 2), selections=found, fold="1")
    rows = density_rows([made], SETTINGS, 1).set_index("recording_id")
    assert rows.loc["r04", "calls"] == pytest.approx(2.0)
    assert rows.loc["r05", "calls"] == pytest.approx(4 / 3)
    assert rows.loc["r04", "calls_low"] == 0.0 and 3.0 <= rows.loc["r04", "calls_high"] <= 9.0


def test_selections_without_probability_count_by_whether_they_are_selected():
    found = [selection(i, np.nan, True) for i in range(6)]
    found += [selection(i, np.nan, False, selected=False) for i in range(6) for _ in range(10)]
    rows = density_rows([layer("abcdef", calls=calls(*[1] * 6), selections=found, fold="1")], SETTINGS, 1)
    assert rows["calls"].between(0.8, 1.3).all()
    assert rows["n_pred"].eq(1).all()


def test_what_tells_hits_from_false_alarms_makes_the_counts_better():
    rng = np.random.default_rng(2)
    made = simulated(rng, 12, probabilities=False)
    sure = made.selections.assign(probability=np.where(made.selections["hit"], 0.95, 0.05))
    plain = density_rows([made], SETTINGS, 1)
    told = density_rows([replace(made, selections=sure)], SETTINGS, 1)
    assert (told["calls"] - told["n_gt"]).abs().mean() < (plain["calls"] - plain["n_gt"]).abs().mean()
    assert (told["calls_high"] - told["calls_low"]).mean() < (plain["calls_high"] - plain["calls_low"]).mean()


@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_too_few_other_groups_tell_no_interval(n_groups):
    rows = density_rows([simulated(np.random.default_rng(1), n_groups, per_group=3)], SETTINGS, 1)
    assert rows[["calls_low", "calls_high", "calls_per_hour_low"]].isna().all(axis=None)
    assert rows["calls"].notna().all() == (n_groups > 1)
    said = "the other groups have no hit" if n_groups == 1 else f"only {n_groups - 1} other group"
    assert rows["note"].str.startswith(said).all()


def test_without_a_hit_nothing_is_told():
    found = [selection(i, 0.5, False) for i in range(6)]
    for n_gt in (0, 2):
        rows = density_rows([layer("abcdef", calls=calls(*[n_gt] * 6), selections=found, fold="1")], SETTINGS, 1)
        assert rows[["calls", "calls_low", "calls_high"]].isna().all(axis=None)
        assert rows["note"].str.contains("no hit").all()
        assert rows["n_gt"].eq(n_gt).all()


def test_nothing_found_and_nothing_there():
    rows = density_rows([layer("abcdef", fold="1")], SETTINGS, 1)
    assert len(rows) == 6 and rows["calls"].isna().all()
    assert list(rows.columns) == list(SCHEMAS["densities"])
    assert len(density_rows([], SETTINGS, 1)) == 0


def test_without_resamples_there_are_no_intervals():
    rows = density_rows([simulated(np.random.default_rng(1), 8)], EvaluationSettings(bootstrap=0), 1)
    assert rows["calls"].notna().all() and rows["calls_low"].isna().all()


def test_folds_learn_from_each_other_and_labels_do_not():
    one = simulated(np.random.default_rng(8), 3)
    other = simulated(np.random.default_rng(9), 3)
    renamed = {name: getattr(other, name).copy() for name in ("recordings", "calls", "selections")}
    for frame in renamed.values():
        frame["recording_id"] = "x" + frame["recording_id"].astype(str)
    renamed["recordings"]["group"] = "x" + renamed["recordings"]["group"]
    both = density_rows([one, replace(other, fold="2", **renamed)], SETTINGS, 1)
    assert both["fold"].tolist() == [1] * 6 + [2] * 6
    assert both["calls_low"].notna().all()
    assert density_rows([one], SETTINGS, 1)["calls_low"].isna().all()

    twice = replace(
        one,
        labels=("frog", "owl"),
        calls=pd.concat([one.calls, one.calls.head(1).assign(label="frog")]),
        selections=pd.concat([one.selections, one.selections.assign(label="frog", hit=False)]),
    )
    rows = density_rows([twice], SETTINGS, 1)
    assert rows.loc[rows["label"] == "frog", "calls"].isna().all()
    pd.testing.assert_frame_equal(rows[rows["label"] == "owl"].reset_index(drop=True), density_rows([one], SETTINGS, 1))


def test_a_group_that_several_folds_test_is_left_out_of_all():
    made = simulated(np.random.default_rng(5), 6)
    leaky = [replace(made, leaky=True), replace(made, leaky=True, fold="2")]
    own = made.recordings["group"] == "g000"
    wrong = made.selections["recording_id"].isin(made.recordings.loc[own, "recording_id"])
    lie = replace(leaky[1], selections=made.selections.assign(hit=made.selections["hit"] & ~wrong))
    rows, changed = (density_rows([leaky[0], second], SETTINGS, 1) for second in (leaky[1], lie))
    mine = rows["group"] == "g000"
    pd.testing.assert_series_equal(rows.loc[mine, "calls"], changed.loc[mine, "calls"])
    assert rows["leaky"].all()


def test_the_seed_and_the_order_of_the_rows():
    made = simulated(np.random.default_rng(5), 8, spread=0.5)
    rows = density_rows([made], SETTINGS, 1)
    mixed = replace(
        made, selections=made.selections.sample(frac=1.0, random_state=1), calls=made.calls.sample(frac=1.0)
    )
    pd.testing.assert_frame_equal(density_rows([mixed], SETTINGS, 1), rows)
    assert not density_rows([made], SETTINGS, 2)["calls_high"].equals(rows["calls_high"])
