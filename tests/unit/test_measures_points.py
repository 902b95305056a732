"""The table metrics: every operating point in every fold."""

import math

import numpy as np
import pandas as pd
import pytest
from measured_corpus import by_chance

from otus.columns import SCHEMAS
from otus.measures.evidence import TestedLayer
from otus.measures.notes import TUNED_NOTE
from otus.measures.points import metrics_rows
from otus.metrics import average_precision, curve
from otus.tables import table

SUMS = ["n_gt", "n_pred", "tp"]
RATIOS = ["precision", "recall", "f1", "false_alarms_per_hour"]
KEYS = ["fold", "split", "label", "iou", "role", "operating_point"]


def counts_of(seed, *, labels=("hum", "trill"), ious=(0.5, 0.3), folds=2, part=None, n_groups=6):
    """Counts per recording of the chosen points; every fold tests groups of its own, and validates on one of all."""
    random = np.random.default_rng(seed)
    rows = []
    for fold in range(1, folds + 1):
        for label in labels:
            for split in ("test", "val"):
                for g in range(n_groups):
                    if split == "test" and g % folds != fold - 1:
                        continue
                    for r in range(2):
                        n_gt = random.poisson(4)
                        for iou in ious:
                            tp = random.binomial(n_gt, 0.7)
                            row = {"recording_id": f"r{g}{r}", "group": f"g{g}", "duration_s": 60.0}
                            row |= {"fold": fold, "split": split, "label": label, "iou": iou, "part": part}
                            row |= {"n_gt": n_gt, "tp": tp, "n_pred": tp + random.poisson(2)}
                            rows.append(row | {"threshold": 0.4 + 0.1 * fold})
    frame = pd.DataFrame(rows)
    frame["fp"], frame["fn"] = frame["n_pred"] - frame["tp"], frame["n_gt"] - frame["tp"]
    keys = {"model": "m", "layer": "cnn", "operating_point": "selected", "selected": True, "leaky": False}
    return table("counts", frame.assign(**keys).sort_values("iou", key=lambda c: c.map(ious.index), kind="stable"))


def points_of(counts, *, names=("0.20", "0.80"), role="fixed", seed=1):
    """Counts per group of other points, on the same calls."""
    random = np.random.default_rng(seed)
    tested = counts[counts["split"] == "test"]
    keys = ["model", "layer", "fold", "label", "iou", "group", "leaky"]
    base = tested.groupby(keys, as_index=False).agg(
        n_recordings=("recording_id", "nunique"), duration_s=("duration_s", "sum"), n_gt=("n_gt", "sum")
    )
    parts = []
    for i, name in enumerate(names):
        tp = random.binomial(base["n_gt"], 0.9 - 0.1 * i)
        own = base.assign(role=role, operating_point=name, threshold=0.2 + 0.1 * i, tp=tp, gap=float(i))
        parts.append(own.assign(n_pred=tp + random.poisson(3, len(base))))
    return table("points", pd.concat(parts))


NO_POINTS = table("points", [])


def rows_of(counts, points=NO_POINTS, layers=(), *, labels=("hum", "trill"), bootstrap=50, seed=1):
    return metrics_rows(counts, points, layers, labels=labels, bootstrap=bootstrap, seed=seed)


def test_rows_are_the_summed_counts():
    counts = counts_of(1)
    points = pd.concat([points_of(counts), points_of(counts, names=("off0.1_on0.2", "off0.1_on0.3"), role="grid")])
    found = rows_of(counts, points)
    assert found.columns.tolist() == list(SCHEMAS["metrics"])
    judged = found[found["role"] != "best"]
    assert not judged.duplicated(KEYS).any()
    every = pd.concat(
        [counts.assign(role="chosen")[[*KEYS, *SUMS]], points.assign(split="test")[[*KEYS, *SUMS]]], ignore_index=True
    ).assign(fold=lambda frame: frame["fold"].astype(str))
    every = pd.concat([every, every[every["split"] == "test"].assign(fold="pooled")])
    every = pd.concat([every, every.assign(label="micro")])
    expected = every.groupby(KEYS)[SUMS].sum()
    assert len(judged) == len(expected) == 3 * 2 * (3 + 2) + 3 * 3 * 2 * 4
    own = judged.set_index(KEYS)
    for name in SUMS:
        np.testing.assert_array_equal(own[name], expected[name].reindex(own.index))
    np.testing.assert_array_equal(judged["fp"], judged["n_pred"] - judged["tp"])
    np.testing.assert_array_equal(judged["fn"], judged["n_gt"] - judged["tp"])
    np.testing.assert_allclose(judged["precision"], judged["tp"] / judged["n_pred"])
    np.testing.assert_allclose(judged["recall"], judged["tp"] / judged["n_gt"])
    np.testing.assert_allclose(judged["f1"], 2 * judged["tp"] / (judged["n_pred"] + judged["n_gt"]))
    np.testing.assert_allclose(judged["false_alarms_per_hour"], judged["fp"] / judged["hours"])
    hours = judged.set_index(KEYS)["hours"]
    assert hours.xs("pooled", level="fold").to_numpy() == pytest.approx(12 / 60), "micro counts the time once"
    assert judged.loc[judged["split"] == "val", "n_recordings"].eq(12).all()
    assert judged.loc[judged["fold"] == "1", "n_groups"].isin([3, 6]).all()
    assert judged["selected"].eq(judged["role"] == "chosen").all()
    assert not ((judged["fold"] == "pooled") & (judged["split"] == "val")).any()


def test_every_row_has_intervals_around_its_values():
    counts = counts_of(2, n_groups=10)
    found = rows_of(counts, points_of(counts))
    for name in RATIOS:
        assert (found[f"{name}_low"] < found[name]).all()
        assert (found[name] < found[f"{name}_high"]).all()
    without = rows_of(counts, points_of(counts), bootstrap=0)
    assert without[[f"{name}_low" for name in RATIOS]].isna().all(axis=None)
    pd.testing.assert_frame_equal(without[[*KEYS, *SUMS, "f1"]], found[[*KEYS, *SUMS, "f1"]])


def test_chosen_rows_come_first_and_the_deciding_iou_before_the_others():
    counts = counts_of(3)
    found = rows_of(counts, points_of(counts))
    assert found["role"].drop_duplicates().tolist() == ["chosen", "fixed", "best"]
    assert found["iou"].iloc[0] == 0.5, "the first decides, and readers take the first row's"
    assert (found.groupby(["role", "fold", "split", "label"], sort=False)["iou"].first() == 0.5).all()


def test_thresholds_that_differ_between_folds_or_labels_are_null():
    counts = counts_of(4)
    found = rows_of(counts, points_of(counts)).set_index(["role", "fold", "label"])["threshold"].sort_index()
    assert found.loc["chosen", "1"].to_numpy() == pytest.approx(0.5)
    assert found.loc["chosen", "pooled"].isna().all()
    assert set(found.loc["fixed", "pooled"].round(6)) == {0.2, 0.3}
    differ = counts.assign(threshold=counts["threshold"].where(counts["label"] == "hum", 0.9))
    chosen = rows_of(differ).set_index(["fold", "label"])["threshold"].sort_index()
    assert chosen.loc["1", "micro"].isna().all()
    unlike = (counts["label"] == "trill") & (counts["fold"] == 2)
    chosen = rows_of(counts.assign(threshold=counts["threshold"].where(~unlike, 0.9)))
    chosen = chosen.set_index(["fold", "label"])["threshold"].sort_index()
    assert chosen.loc["1", "micro"].notna().all() and chosen.loc["pooled", "micro"].isna().all(), "not that of fold 1"


def test_the_best_row_is_the_best_of_the_others_on_the_test_recordings():
    counts = counts_of(5)
    names = tuple(f"p{i}" for i in range(5))
    found = rows_of(counts, points_of(counts, names=names, role="grid"))
    best = found[found["role"] == "best"].set_index("label")
    assert sorted(best.index) == ["hum", "micro", "trill"]
    others = found[(found["role"] == "grid") & (found["fold"] == "pooled") & (found["iou"] == 0.5)]
    for label, row in best.iterrows():
        own = others[others["label"] == label]
        assert row["f1"] == own["f1"].max()
        assert row["operating_point"] == own.loc[own["f1"].idxmax(), "operating_point"]
        assert row["note"].endswith(TUNED_NOTE)
        assert not row["selected"]
    assert not found.loc[found["role"] != "best", "note"].fillna("").str.contains("tuning").any()
    assert "best" not in set(rows_of(counts)["role"]), "nothing but the chosen points: no best"


def test_one_label_has_no_micro_rows():
    counts = counts_of(6, labels=("hum",))
    assert set(rows_of(counts, points_of(counts), labels=("hum",))["label"]) == {"hum"}


def test_a_recording_that_several_folds_test_in_parts_is_one_recording():
    counts = counts_of(7, folds=1)
    halves = [counts.assign(fold=fold, duration_s=30.0, leaky=True) for fold in (1, 2)]
    found = rows_of(pd.concat(halves, ignore_index=True)).query("fold == 'pooled' and label == 'hum' and iou == 0.5")
    assert found["n_recordings"].tolist() == [12]
    assert found["hours"].tolist() == pytest.approx([0.2])
    assert found["note"].iloc[0].startswith("leaky")


def test_rows_of_a_fold_name_the_part_that_it_tests():
    found = rows_of(counts_of(8, part="north"))
    assert found.loc[found["fold"] != "pooled", "part"].eq("north").all()
    assert found.loc[found["fold"] == "pooled", "part"].isna().all()


def test_intervals_do_not_depend_on_the_order_of_rows():
    counts = counts_of(9, ious=(0.5,))
    points = points_of(counts)
    shuffled = rows_of(counts.sample(frac=1, random_state=1), points.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(rows_of(counts, points), shuffled)
    assert (rows_of(counts, points, seed=2)["f1_low"] != rows_of(counts, points)["f1_low"]).any()


def counted(one):
    """Counts of a layer, as evaluation gives them."""
    rows = []
    for label in one.labels:
        for recording in one.recordings.itertuples():
            calls, found = (
                f[(f["recording_id"] == recording.recording_id) & (f["label"] == label)]
                for f in (one.calls, one.selections)
            )
            found = found[found["selected"]]
            row = {"recording_id": recording.recording_id, "group": recording.group, "label": label}
            row |= {"n_gt": len(calls), "n_pred": len(found), "tp": int(found["hit"].sum())}
            rows.append(row | {"duration_s": recording.duration_s})
    keys = {"model": one.model, "layer": one.layer, "fold": 1, "split": "test", "iou": one.iou, "threshold": 0.5}
    return table(
        "counts", pd.DataFrame(rows).assign(**keys, operating_point="selected", selected=True, leaky=one.leaky)
    )


def of_fold(one, fold):
    names = ("model", "layer", "leaky", "labels", "iou", "recordings", "calls", "selections", "matches", "unknown")
    return TestedLayer(fold=fold, **{name: getattr(one, name) for name in names})


def test_average_precision_and_boundary_errors_stand_on_chosen_test_rows():
    one = by_chance(1, n_groups=8)
    counts = counted(one)
    more = pd.concat([counts, counts.assign(iou=0.9), counts.assign(split="val")], ignore_index=True)
    found = rows_of(more, points_of(counts), [of_fold(one, "1"), of_fold(one, "pooled")])
    mine = found["average_precision"].notna()
    assert mine.eq((found["role"] == "chosen") & (found["split"] == "test") & (found["iou"] == 0.4)).all()
    for row in found[mine].itertuples():
        labels = one.labels if row.label == "micro" else (row.label,)
        own = one.selections[one.selections["label"].isin(labels)]
        points = curve(own["rank"].to_numpy(), own["hit"].to_numpy())
        assert row.average_precision == pytest.approx(average_precision(points, row.n_gt))
        assert row.average_precision_low < row.average_precision < row.average_precision_high
        hits = one.matches[one.matches["label"].isin(labels) & (one.matches["outcome"] == "hit")]
        assert row.onset_error_median_s == pytest.approx(hits["onset_error_s"].median())
        assert row.offset_error_p90_s == pytest.approx(hits["offset_error_s"].quantile(0.9))
    assert found.loc[~mine, "onset_error_median_s"].isna().all()


@pytest.mark.parametrize("groups", [1, 2])
def test_edges_have_defined_rows(groups):
    counts = counts_of(10, folds=1, n_groups=groups, ious=(0.5,))
    empty = counts.assign(n_gt=0, tp=0, fn=0)
    found = rows_of(empty)
    assert found[["recall", "recall_low"]].isna().all(axis=None)
    assert (found[["precision", "f1"]] == 0).all(axis=None), "by necessity, so that no interval tells anything"
    assert found[["precision_low", "precision_high", "f1_low", "f1_high"]].isna().all(axis=None)
    assert found["note"].str.contains("no annotated call").all()
    silent = rows_of(counts.assign(n_pred=0, tp=0, fp=0))
    assert silent["precision"].isna().all()
    assert (silent[["recall", "f1", "false_alarms_per_hour"]] == 0).all(axis=None)
    nothing = rows_of(counts.assign(n_gt=0, n_pred=0, tp=0, fp=0, fn=0), points_of(counts.assign(n_gt=0)))
    assert nothing.loc[nothing["role"] == "chosen", "f1"].isna().all()
    if groups == 1:
        assert found[[f"{name}_low" for name in RATIOS]].isna().all(axis=None)
        assert found["note"].str.contains("only 1 group: no interval can be given").all()
    else:
        assert math.isfinite(silent["false_alarms_per_hour_high"].iloc[0])


def test_points_without_any_rows_are_no_rows():
    counts = counts_of(11)
    assert set(rows_of(counts, table("points", []))["role"]) == {"chosen"}
