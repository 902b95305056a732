"""All models and folds in one table."""

import numpy as np
import pandas as pd
import pytest

from otus.evaluation.tally import Judged, count_per_recording, judge, matched_pairs
from otus.merge import POOLED, forest_notes, merge_metrics
from otus.metrics import precision_recall_f1
from otus.selections import logit
from otus.tables import table, write_table

LABELS = ["hum", "cluck"]
SUMS = ["n_gt", "n_pred", "tp", "fp", "fn"]
NO_NOTES = forest_notes([])


def one_fold(model, layer, fold, random, labels, iou):
    """Counts, selections and matches of one fold as the stages write them: four recordings tested, four validated."""
    parts = []
    for split, ids in {"test": range(4 * fold, 4 * fold + 4), "val": range(4 * fold + 4, 4 * fold + 8)}.items():
        names = [f"r{i % 12:02d}" for i in ids]
        recordings = pd.DataFrame(
            {"recording_id": names, "group": [f"g{i % 12 // 2}" for i in ids], "duration_s": 90.0}
        )
        for label in labels:
            calls, found = [], []
            for name in names:
                for slot in range(0, 90, 9):
                    if random.random() < 0.4:
                        calls.append((f"a{slot}", name, float(slot), slot + 1.0))
                    if random.random() < 0.5:
                        found.append((f"s{slot}", name, slot + 0.2, slot + 1.2, random.normal(0.5, 1)))
            calls = pd.DataFrame(calls, columns=["annotation_id", "recording_id", "start_s", "end_s"])
            found = pd.DataFrame(found, columns=["selection_id", "recording_id", "start_s", "end_s", "rank"])
            found["score"] = found["peak_score"] = found["rank"]
            if layer != "cnn":
                found["rank"] = found["rf_probability"] = 1 / (1 + np.exp(-3 * found["rank"]))
            keys = {"model": model, "layer": layer, "fold": fold + 1, "split": split, "label": label, "leaky": False}
            parts.append(judged_tables(Judged(found, calls, recordings), keys, iou, fold))
    return [pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True)]


def judged_tables(judged, keys, iou, fold):
    chosen = (0.3 + 0.1 * fold) if keys["layer"] != "cnn" else logit(0.3 + 0.1 * fold)
    thresholds = {"selected": chosen, "0.50": 0.5 if keys["layer"] != "cnn" else 0.0}
    above = Judged(judged.selections[judged.selections["rank"] >= chosen], judged.annotations, judged.recordings)
    counts, matches = [], []
    for value in iou:
        hits = judge(judged, value)
        counts.append(count_per_recording(judged, hits, thresholds, "selected").assign(**keys, iou=value))
        matches.append(matched_pairs(above, value).assign(**keys, iou_threshold=value))
    selected = judged.selections["rank"] >= chosen
    rows = judged.selections.drop(columns="rank").assign(**keys, selected=selected, hit=judge(judged, iou[0]))
    return pd.concat(counts), table("selections", rows), table("matches", pd.concat(matches))


LAYERS = [("m1", "cnn"), ("m2", "cnn+rf")]


def stage_tables(labels=LABELS, iou=(0.4,), layers=LAYERS, seed=0):
    """The tables of models and layers, one set per model and layer as the stages leave them."""
    random = np.random.default_rng(seed)
    sets = []
    for model, layer in layers:
        folds = [one_fold(model, layer, fold, random, labels, list(iou)) for fold in range(3)]
        sets.append([pd.concat(frames, ignore_index=True) for frames in zip(*folds, strict=True)])
    return [list(frames) for frames in zip(*sets, strict=True)]


def merge(counts, selections, matches, labels=LABELS, notes=NO_NOTES, bootstrap=20):
    return merge_metrics(counts, selections, matches, labels=labels, notes=notes, bootstrap=bootstrap, seed=1)


@pytest.fixture(scope="module")
def tables():
    return stage_tables()


@pytest.fixture(scope="module")
def merged(tables):
    return merge(*tables)


def headline(merged):
    metrics = merged.metrics
    return metrics[(metrics["fold"] == POOLED) & metrics["selected"]].set_index(["model", "layer", "label"])


def test_pooled_test_rows_are_the_sums_over_the_folds(merged):
    metrics = merged.metrics
    key = ["model", "layer", "label", "iou", "operating_point"]
    tested = metrics[metrics["split"] == "test"]
    sums = tested[tested["fold"] != POOLED].groupby(key)[[*SUMS, "hours", "n_recordings"]].sum()
    pooled = tested[tested["fold"] == POOLED].set_index(key)
    assert len(pooled) == len(sums) == len(LAYERS) * 3 * 2
    for name in sums:
        np.testing.assert_allclose(pooled[name], sums[name].reindex(pooled.index))
    for row in pooled.itertuples():
        expected = precision_recall_f1(row.tp, row.n_pred, row.n_gt)
        assert (row.precision, row.recall, row.f1) == pytest.approx(expected)
        assert row.precision_low <= row.precision <= row.precision_high
    assert set(metrics.loc[metrics["fold"] == POOLED, "split"]) == {"test"}, "validation rows are never pooled"


def test_every_recording_once_in_the_pooled_rows(merged, tables):
    rows = merged.per_recording
    pooled = rows[rows["fold"] == POOLED]
    key = ["model", "layer", "label", "iou"]
    assert not pooled.duplicated([*key, "recording_id"]).any()
    assert (pooled.groupby(key).size() == 12).all()
    assert rows["selected"].all()
    counts = pd.concat(tables[0])
    chosen = counts[counts["selected"] & (counts["split"] == "test")]
    assert pooled.loc[pooled["label"] != "micro", "tp"].sum() == chosen["tp"].sum() > 0
    assert headline(merged)["n_recordings"].eq(12).all()
    assert headline(merged)["n_groups"].eq(6).all()
    assert headline(merged)["hours"].to_numpy() == pytest.approx(12 * 90 / 3600)


def test_thresholds_that_differ_from_fold_to_fold_are_left_open(merged):
    assert headline(merged)["threshold"].isna().all()
    fixed = merged.metrics[(merged.metrics["fold"] == POOLED) & ~merged.metrics["selected"]]
    assert set(fixed["threshold"]) == {0.0, 0.5}, "as the stages wrote them"


def test_micro_rows_only_with_several_labels(merged):
    assert set(merged.metrics["label"]) == {*LABELS, "micro"}
    rows = headline(merged)
    for name in SUMS:
        parts = rows[name].drop("micro", level="label").groupby(level=["model", "layer"]).sum()
        np.testing.assert_array_equal(rows.xs("micro", level="label")[name], parts)
    single = merge(*stage_tables(["hum"], layers=LAYERS[:1]), ["hum"], bootstrap=0)
    assert set(single.metrics["label"]) == set(single.per_recording["label"]) == {"hum"}


def test_curves_end_in_everything_that_was_found(merged, tables):
    curves = merged.curves
    selections = pd.concat(tables[1])
    key = ["model", "layer", "label"]
    pooled = curves[curves["fold"] == POOLED]
    last = pooled.groupby(key).last()
    tested = selections[selections["split"] == "test"].groupby(key)
    np.testing.assert_array_equal(last["n_pred"], tested.size())
    np.testing.assert_array_equal(last["tp"], tested["hit"].sum())
    assert curves["threshold"].between(0, 1).all(), "probabilities, also of the network"
    for _, points in curves.groupby([*key, "fold", "split"]):
        assert (np.diff(points["threshold"]) < 0).all()
        assert (np.diff(points["n_pred"]) > 0).all()
        np.testing.assert_allclose(points["recall"], points["tp"] / points["n_gt"])
        np.testing.assert_allclose(points["precision"], points["tp"] / points["n_pred"])
    area = pooled.groupby(key).apply(
        lambda points: (points["precision"] * points["recall"].diff().fillna(points["recall"])).sum()
    )
    np.testing.assert_allclose(headline(merged)["average_precision"].drop("micro", level="label"), area)
    assert set(curves["iou"]) == {0.4}


def test_curve_passes_through_the_chosen_point_of_a_fold(merged):
    metrics = merged.metrics
    chosen = metrics[metrics["selected"] & (metrics["fold"] == "2") & (metrics["split"] == "test")]
    chosen = chosen[chosen["label"] != "micro"]
    key = ["model", "layer", "fold", "split", "label"]
    both = merged.curves.merge(chosen, on=[*key, "n_pred", "tp"])
    assert len(both) == len(chosen) == len(LAYERS) * 2


def test_average_precision_and_curves_belong_to_the_first_iou_of_the_config():
    both = merge(*stage_tables(["hum"], (0.7, 0.4), LAYERS[:1]), ["hum"], bootstrap=0)
    assert set(both.metrics["iou"]) == {0.7, 0.4}
    assert set(both.curves["iou"]) == {0.7}
    assert set(both.metrics.loc[both.metrics["average_precision"].notna(), "iou"]) == {0.7}
    assert both.metrics["iou"].iloc[0] == 0.7, "readers take the first row's for the one that decides"


def test_notes_stand_at_the_rows_that_they_concern(tables):
    fitted = {"model": "m2", "layer": "cnn+rf", "fold": 1, "label": "hum", "reason": ""}
    summaries = [[], [fitted, {**fitted, "fold": 2, "reason": "There are only 3 hits."}], [{**fitted, "model": "m1"}]]
    notes = forest_notes(summaries)
    assert len(notes) == 1
    metrics = merge(*([t[1]] for t in tables), notes=notes, bootstrap=0).metrics
    noted = metrics[metrics["note"].str.contains("There are only 3 hits.", regex=False, na=False)]
    assert set(noted["model"]) == {"m2"}
    assert set(noted["layer"]) == {"cnn+rf"}
    assert set(noted["fold"]) == {"2", POOLED}
    assert set(noted["label"]) == {"hum", "micro"}, "the other label has its forest"
    concerned = metrics["label"].isin(["hum", "micro"]) & metrics["fold"].isin(["2", POOLED])
    assert len(noted) == concerned.sum()
    note = noted.loc[noted["fold"] == "2", "note"].iloc[0]
    assert "fold 2 hum: no forest, cnn selections (There are only 3 hits.)" in note
    assert note.startswith("only 2 groups"), "what was there before stays"
    assert note.count("There are only") == 1


def test_no_notes_leave_null(merged):
    notes = headline(merged)["note"]
    assert not notes.fillna("").str.contains("no forest").any()
    assert not (notes == "").any()


def test_matches_are_kept_once(merged, tables):
    assert len(merged.matches) == sum(len(m) for m in tables[2])
    assert merged.matches["fold"].isin([1, 2, 3]).all()
    hits = merged.matches.query("outcome == 'hit' and split == 'test'")
    tp = headline(merged)["tp"].drop("micro", level="label")
    np.testing.assert_array_equal(hits.groupby(["model", "layer", "label"]).size(), tp)
    assert headline(merged).drop("micro", level="label")["onset_error_median_s"].to_numpy() == pytest.approx(0.2)


def test_merging_is_deterministic_and_fits_its_schemas(merged, tables, tmp_path):
    again = merge(*tables)
    frames = {"metrics": "metrics", "per_recording": "metrics_per_recording", "curves": "curves", "matches": "matches"}
    for name, schema in frames.items():
        pd.testing.assert_frame_equal(getattr(again, name), getattr(merged, name))
        write_table(tmp_path / f"{name}.parquet", schema, getattr(merged, name), csv=tmp_path / f"{name}.csv")


def test_models_that_found_nothing(tables):
    counts = tables[0][0].assign(n_pred=0, tp=0, fp=0, fn=tables[0][0]["n_gt"])
    nothing = merge([counts], [tables[1][0].iloc[:0]], [tables[2][0].iloc[:0]], bootstrap=0)
    rows = headline(nothing)
    assert (rows["f1"] == 0).all()
    assert rows["precision"].isna().all()
    assert len(nothing.curves) == len(nothing.matches) == 0


def test_leaky_models_are_marked_in_every_table_and_their_notes_say_it_first(tables):
    marked = [[frame.assign(leaky=frame["model"].eq("m1")) for frame in frames] for frames in tables]
    merged = merge(*marked)
    for frame in (merged.metrics, merged.per_recording, merged.curves, merged.matches):
        np.testing.assert_array_equal(frame["leaky"], frame["model"] == "m1")
        assert frame["leaky"].nunique() == 2
    leaky = merged.metrics["note"].str.startswith("leaky: clips of one recording stand on both sides", na=False)
    np.testing.assert_array_equal(leaky, merged.metrics["model"] == "m1")
    assert merged.metrics.loc[leaky, "note"].str.contains("; only 2 groups").any(), "other warnings stay"


def test_a_recording_that_several_folds_test_in_parts_is_pooled_once(tables):
    """Leaky folds: another part of every recording is tested in each fold."""
    counts, selections, matches = (frames[0].assign(leaky=True) for frames in tables)
    parts = (counts, selections, matches)
    same = [
        part.assign(recording_id="r" + (part["recording_id"].str[1:].astype(int) % 4).astype(str)) for part in parts
    ]
    same[0]["group"] = same[0]["recording_id"]
    keys = ["model", "layer", "fold", "split", "label", "iou", "operating_point", "selected", "leaky"]
    sums = [*SUMS, "duration_s"]
    per_fold = (
        same[0]
        .groupby([*keys, "recording_id", "group"], as_index=False)[[*sums, "threshold"]]
        .agg({**dict.fromkeys(sums, "sum"), "threshold": "first"})
    )
    merged = merge([per_fold.assign(part=None)], [same[1]], [same[2]])
    rows = merged.per_recording
    pooled = rows[rows["fold"] == POOLED]
    assert not pooled.duplicated(["label", "recording_id"]).any()
    assert pooled["threshold"].isna().all(), "each fold has its own"
    tested = (
        per_fold[(per_fold["split"] == "test") & per_fold["selected"]].groupby(["label", "recording_id"])[sums].sum()
    )
    own = pooled[pooled["label"] != "micro"].set_index(["label", "recording_id"])
    for name in sums:
        np.testing.assert_allclose(own[name], tested[name].reindex(own.index))
    expected = [precision_recall_f1(r.tp, r.n_pred, r.n_gt) for r in own.itertuples()]
    np.testing.assert_allclose(own[["precision", "recall", "f1"]], expected)
    board = headline(merged)
    assert board["n_recordings"].eq(tested.index.get_level_values(1).nunique()).all()
    hits = same[1][same[1]["hit"] & (same[1]["split"] == "test")].groupby("label").size()
    ends = merged.curves[merged.curves["fold"] == POOLED].groupby("label").last()
    np.testing.assert_array_equal(ends["tp"], hits)
    recall_at_the_end = ends["tp"] / tested["n_gt"].groupby("label").sum()
    np.testing.assert_allclose(ends["recall"], recall_at_the_end)
    found = board["average_precision"].droplevel(["model", "layer"]).drop("micro")
    assert (found <= ends["recall"]).all() and (found > 0).all(), "all calls of all folds count"


def test_rows_of_single_folds_say_what_the_fold_tests(tables):
    """The counts of the network name it; those of the forest need not."""
    sites = {1: "bush", 2: "dam", 3: "ridge"}
    cnn, forest = tables[0]
    named = [cnn.assign(part=cnn["fold"].map(sites)), forest]
    metrics = merge(named, *tables[1:]).metrics
    expected = metrics["fold"].map({str(fold): site for fold, site in sites.items()})
    assert set(metrics["layer"]) == {"cnn", "cnn+rf"} and set(metrics["split"]) == {"test", "val"}
    assert metrics["part"].isna().eq(metrics["fold"] == POOLED).all()
    assert (metrics["part"].fillna("") == expected.fillna("")).all()
    pd.testing.assert_frame_equal(metrics.drop(columns="part"), merge(*tables).metrics.drop(columns="part"))


def test_folds_of_groups_have_no_part(merged):
    assert merged.metrics["part"].isna().all()


def test_counts_carry_the_part_of_the_recordings():
    recordings = pd.DataFrame({"recording_id": ["a"], "group": ["a"], "duration_s": [9.0], "part": ["night"]})
    calls = pd.DataFrame({"annotation_id": ["n"], "recording_id": ["a"], "start_s": [1.0], "end_s": [2.0]})
    found = calls.rename(columns={"annotation_id": "selection_id"}).assign(rank=1.0)
    for searched, part in ((recordings, "night"), (recordings.drop(columns="part"), "")):
        judged = Judged(found, calls, searched)
        counts = count_per_recording(judged, judge(judged, 0.4), {"selected": 0.0}, "selected")
        counts["fold"], counts["model"] = 1, "m"
        assert table("counts", counts)["part"].fillna("").tolist() == [part]
