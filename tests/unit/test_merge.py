"""The measures of all models as one set of tables, counts per recording, differences across models."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from event_cases import precision_recall_f1
from tests.unit.stage_tables import FOLDS, LABELS, layer_tables, make_corpus

from otus.columns import SCHEMAS
from otus.measures.model import ModelMeasures
from otus.merge import merge_metrics, per_recording_rows
from otus.tables import POOLED, table, write_table

SUMS = ["n_gt", "n_pred", "tp", "fp", "fn"]
ROW = ["model", "layer", "label"]


def measures(model):
    """Of one model: two rows in every table, to be found again."""
    rows = pd.DataFrame([{"model": model, "label": label} for label in LABELS])
    columns = {f.name: [c for c in rows if c in SCHEMAS[f.name]] for f in fields(ModelMeasures)}
    return ModelMeasures(**{name: table(name, rows[own]) for name, own in columns.items()})


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def layers(corpus):
    names = [("m1", "cnn"), ("m1", "cnn+rf"), ("m2", "cnn")]
    return [layer_tables(corpus, model, layer, seed=i) for i, (model, layer) in enumerate(names)]


def merge(layers, labels=LABELS, models=("m1", "m2")):
    return merge_metrics(
        [measures(model) for model in models],
        [own.counts for own in layers],
        [own.matches for own in layers],
        labels=labels,
        bootstrap=20,
        seed=1,
    )


@pytest.fixture(scope="module")
def merged(layers):
    return merge(layers)


def test_the_measures_of_all_models_are_kept_in_their_order(merged):
    for field in fields(ModelMeasures):
        frame = getattr(merged.measures, field.name)
        if field.name != "differences":
            assert frame["model"].tolist() == ["m1", "m1", "m2", "m2"], field.name
    assert merged.measures.differences["model"].tolist()[:4] == ["m1", "m1", "m2", "m2"]


def test_differences_across_models_are_added_on_test_recordings(merged):
    across = merged.measures.differences.iloc[4:]
    pairs = {frozenset([(r.model, r.layer), (r.other_model, r.other_layer)]) for r in across.itertuples()}
    assert frozenset([("m1", "cnn"), ("m2", "cnn")]) in pairs
    rows = across[across["label"].eq("hum") & across["measure"].eq("f1")]
    row = rows[rows["model"].ne(rows["other_model"]) & rows["layer"].eq("cnn") & rows["other_layer"].eq("cnn")].iloc[0]
    pooled = merged.per_recording[merged.per_recording["fold"].eq(POOLED) & merged.per_recording["label"].eq("hum")]
    sums = pooled[pooled["layer"].eq("cnn")].groupby("model")[["tp", "n_pred", "n_gt"]].sum()
    f1 = {model: precision_recall_f1(*values)[2] for model, *values in sums.itertuples()}
    assert (row["value"], row["other_value"]) == pytest.approx((f1[row["model"]], f1[row["other_model"]]))
    assert row["n_recordings"] == 12


def test_every_recording_once_in_the_pooled_rows(merged, layers):
    rows = merged.per_recording
    assert set(rows["fold"]) == {*map(str, FOLDS), POOLED}
    pooled = rows[rows["fold"] == POOLED]
    assert not pooled.duplicated([*ROW, "iou", "recording_id"]).any()
    assert (pooled.groupby(ROW).size() == 12).all() and set(pooled["split"]) == {"test"}
    counts = pd.concat([own.counts for own in layers])
    for name in SUMS:
        expected = counts[counts["split"] == "test"].groupby(ROW)[name].sum()
        found = pooled[pooled["label"] != "micro"].groupby(ROW)[name].sum()
        pd.testing.assert_series_equal(found, expected, check_dtype=False)
    assert merged.per_recording["tp"].sum() > 0


def test_every_row_has_its_ratios(merged):
    rows = merged.per_recording
    expected = [precision_recall_f1(r.tp, r.n_pred, r.n_gt) for r in rows.itertuples()]
    np.testing.assert_allclose(rows[["precision", "recall", "f1"]], expected)


def test_micro_rows_only_with_several_labels(merged, corpus):
    rows = merged.per_recording
    assert set(rows["label"]) == {*LABELS, "micro"}
    key = ["model", "layer", "fold", "split", "iou", "recording_id"]
    micro = rows[rows["label"] == "micro"].set_index(key).sort_index()
    parts = rows[rows["label"] != "micro"].groupby(key)[SUMS].sum().sort_index()
    pd.testing.assert_frame_equal(micro[SUMS], parts, check_dtype=False)
    assert (micro["duration_s"] == 90.0).all(), "the same time, searched for several labels"
    single = per_recording_rows(layer_tables(make_corpus(["hum"]), labels=["hum"]).counts.drop(columns="part"), ["hum"])
    assert set(single["label"]) == {"hum"}


def test_thresholds_that_differ_are_left_open(layers):
    counts = layers[0].counts.drop(columns="part")
    counts["threshold"] = counts["fold"] / 10 + counts["label"].eq("hum") / 100
    rows = per_recording_rows(counts, LABELS)
    single = rows["fold"].ne(POOLED) & rows["label"].ne("micro")
    assert rows.loc[rows["label"] == "micro", "threshold"].isna().all()
    assert rows.loc[single, "threshold"].notna().all()
    same = per_recording_rows(counts.assign(threshold=0.3), LABELS)
    assert (same["threshold"] == 0.3).all()


def test_a_recording_that_several_folds_test_in_parts_is_pooled_once(layers):
    """Leaky folds: another part of every recording is tested in each fold."""
    counts = layers[0].counts.drop(columns="part")
    tested = counts[counts["split"] == "test"]
    number = tested["recording_id"].str[1:].astype(int) % 4
    parts = tested.assign(recording_id="r" + number.astype(str), group="g", leaky=True, duration_s=30.0)
    rows = per_recording_rows(parts, LABELS)
    pooled = rows[rows["fold"].eq(POOLED) & rows["label"].eq("hum")]
    assert pooled["recording_id"].tolist() == ["r0", "r1", "r2", "r3"] and pooled["leaky"].all()
    assert (pooled["duration_s"] == 90.0).all() and pooled["threshold"].isna().all(), "each fold has its own"
    others = parts.assign(threshold=parts["threshold"].where(parts["label"] == "hum", 0.3))
    micro = per_recording_rows(others, LABELS).query("fold == @POOLED and label == 'micro'")
    assert micro["threshold"].isna().all(), "one label has the same in all folds, the other has not"
    expected = parts[parts["label"] == "hum"].groupby("recording_id")[SUMS].sum()
    np.testing.assert_array_equal(pooled[SUMS], expected)
    micro = rows[rows["fold"].eq(POOLED) & rows["label"].eq("micro")]
    assert (micro["duration_s"] == 90.0).all() and len(micro) == 4


def test_matches_are_kept_once(merged, layers):
    assert len(merged.matches) == sum(len(own.matches) for own in layers)
    assert set(merged.matches["split"]) == {"val", "test"} and merged.matches["fold"].isin(FOLDS).all()


def test_models_that_found_nothing(layers):
    own = layers[0]
    counts = own.counts.assign(n_pred=0, tp=0, fp=0, fn=own.counts["n_gt"])
    nothing = merge([replace(own, counts=counts, matches=own.matches.iloc[:0])], models=["m1"])
    rows = nothing.per_recording
    assert (rows.loc[rows["n_gt"] > 0, "f1"] == 0).all() and rows["precision"].isna().all()
    assert rows.loc[rows["n_gt"] == 0, "f1"].isna().all() and len(nothing.matches) == 0


def test_merging_is_deterministic_and_fits_its_schemas(merged, layers, tmp_path):
    again = merge(layers)
    frames = {f.name: getattr(again.measures, f.name) for f in fields(ModelMeasures)}
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(frame, getattr(merged.measures, name))
        write_table(tmp_path / f"{name}.parquet", name, frame, csv=tmp_path / f"{name}.csv")
    pd.testing.assert_frame_equal(again.per_recording, merged.per_recording)
    write_table(tmp_path / "r.parquet", "metrics_per_recording", again.per_recording, csv=tmp_path / "r.csv")


def test_the_order_of_the_models_changes_no_number(layers):
    rows = [merge(order).per_recording for order in (layers, layers[::-1])]
    pd.testing.assert_frame_equal(*rows)
