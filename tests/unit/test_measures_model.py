"""All measures of one model: which rows there are, that they agree with each other, notes, seeds, curves."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from tests.unit.stage_tables import FOLDS, LABELS, layer_tables, make_corpus

from otus.config import EvaluationSettings
from otus.measures.curves import curve_rows
from otus.measures.model import LayerTables, ModelMeasures, forest_notes, measure_model, table_names
from otus.tables import POOLED, table, write_table

SETTINGS = EvaluationSettings(bootstrap=20)
NO_NOTES = forest_notes([])
ROW = ["layer", "label"]


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def layers(corpus):
    return [layer_tables(corpus, layer=layer, seed=i) for i, layer in enumerate(("cnn", "cnn+rf"))]


@pytest.fixture(scope="module")
def small():
    """One label only: a corpus and its layers."""
    corpus = make_corpus(["hum"])
    return corpus, [
        layer_tables(corpus, layer=name, labels=["hum"], seed=i) for i, name in enumerate(("cnn", "cnn+rf"))
    ]


def measure(corpus, layers, labels=LABELS, notes=NO_NOTES, settings=SETTINGS, seed=1):
    return measure_model(
        layers,
        corpus.annotations,
        corpus.recordings,
        corpus.splits,
        labels=labels,
        notes=notes,
        settings=settings,
        seed=seed,
    )


@pytest.fixture(scope="module")
def measures(corpus, layers):
    return measure(corpus, layers)


def headline(measures):
    rows = measures.metrics
    rows = rows[rows["fold"].eq(POOLED) & rows["split"].eq("test") & rows["selected"]]
    return rows.set_index(ROW).sort_index()


def test_every_table_has_the_rows_of_both_layers(measures):
    folds = {*map(str, FOLDS), POOLED}
    for name in ("metrics", "metrics_per_class", "recall_at_rates", "curves"):
        frame = getattr(measures, name)
        assert set(frame["layer"]) == {"cnn", "cnn+rf"} and set(frame["fold"]) == folds, name
    for name in ("strata", "confusion", "densities"):
        assert set(getattr(measures, name)["layer"]) == {"cnn", "cnn+rf"}, name
    for name in table_names(ModelMeasures):
        assert set(getattr(measures, name)["model"]) == {"m1"}, name


def test_the_gain_of_the_forest_is_the_layer_behind_it_against_the_one_before(measures):
    rows = measures.differences
    names = rows[["model", "layer", "other_model", "other_layer"]].drop_duplicates().to_numpy().tolist()
    assert names == [["m1", "cnn+rf", "m1", "cnn"]]
    board = headline(measures)
    f1 = rows[rows["measure"] == "f1"].set_index("label").sort_index()
    assert set(f1.index) == {*LABELS, "micro"}
    np.testing.assert_allclose(f1["value"], board.loc["cnn+rf", "f1"])
    np.testing.assert_allclose(f1["other_value"], board.loc["cnn", "f1"])


def test_the_tables_tell_the_same_counts(measures, layers, corpus):
    board = headline(measures)
    calls = corpus.annotations.groupby("label").size()
    for layer in ("cnn", "cnn+rf"):
        assert board.loc[layer, "n_gt"].to_dict() == {**calls, "micro": calls.sum()}
    pooled = measures.metrics_per_class
    pooled = pooled[pooled["fold"].eq(POOLED) & pooled["label"].ne("macro")].set_index(ROW).sort_index()
    ratios = [f"{n}{end}" for n in ("f1", "precision", "recall", "average_precision") for end in ("", "_low", "_high")]
    for name in ("n_gt", "n_pred", "tp", "fp", "fn", *ratios):
        np.testing.assert_allclose(pooled[name].astype(float), board[name].astype(float), err_msg=name)
    confusion = measures.confusion[measures.confusion["layer"] == "cnn"]
    for label in LABELS:
        assert confusion.loc[confusion["annotated"] == label, "n"].sum() == calls[label]
        both = confusion["annotated"].eq(label) & confusion["selected"].eq(label)
        assert confusion.loc[both, "n"].sum() == board.loc[("cnn", label), "tp"]
    density = measures.densities.groupby(["layer", "label"])[["n_gt", "n_pred"]].sum()
    for key in density.index:
        assert density.loc[key].tolist() == board.loc[key, ["n_gt", "n_pred"]].tolist()
    strata = measures.strata[measures.strata["stratum"] == "quality"].groupby(ROW)[["n_gt", "tp"]].sum()
    for key in strata.index:
        assert strata.loc[key].tolist() == board.loc[key, ["n_gt", "tp"]].tolist()


def test_no_table_tells_of_tested_recordings_by_a_model_that_saw_them(measures):
    tested = measures.metrics[measures.metrics["fold"].eq(POOLED)]
    assert set(tested["split"]) == {"test"}, "validation rows are never pooled"
    assert (headline(measures)["n_recordings"] == 12).all() and (headline(measures)["n_groups"] == 6).all()


def test_curves_end_in_everything_that_was_found(measures, layers):
    curves, selections = measures.curves, pd.concat([own.selections for own in layers])
    last = curves[curves["fold"] == POOLED].groupby(ROW).last()
    tested = selections[selections["split"] == "test"].groupby(ROW)
    np.testing.assert_array_equal(last["n_pred"], tested.size())
    np.testing.assert_array_equal(last["tp"], tested["hit"].sum())
    assert curves["threshold"].between(0, 1).all(), "probabilities, also of the network"
    for _, points in curves.groupby([*ROW, "fold", "split"]):
        assert (np.diff(points["threshold"]) < 0).all() and (np.diff(points["n_pred"]) > 0).all()
        np.testing.assert_allclose(points["recall"], points["tp"] / points["n_gt"])
        np.testing.assert_allclose(points["precision"], points["tp"] / points["n_pred"])
    area = curves[curves["fold"] == POOLED].groupby(ROW)[["precision", "recall"]].apply(
        lambda points: (points["precision"] * points["recall"].diff().fillna(points["recall"])).sum()
    )  # fmt: skip
    np.testing.assert_allclose(headline(measures)["average_precision"].drop("micro", level="label"), area)
    assert set(curves["iou"]) == {0.4} and set(curves["split"]) == {"test", "val"}


def test_a_curve_passes_through_the_chosen_point_of_a_fold(measures):
    metrics = measures.metrics
    chosen = metrics[metrics["selected"] & metrics["fold"].eq("2") & metrics["split"].eq("test")]
    chosen = chosen[chosen["label"].ne("micro")]
    both = measures.curves.merge(chosen, on=[*ROW, "fold", "split", "n_pred", "tp"])
    assert len(both) == len(chosen) == 4
    np.testing.assert_allclose(both["false_alarms_per_hour_x"], both["false_alarms_per_hour_y"])


def test_what_ranks_belongs_to_the_first_iou_of_the_config(small):
    found = measure(small[0], [layer_tables(small[0], labels=["hum"], iou=(0.7, 0.4))], ["hum"])
    assert set(found.metrics["iou"]) == {0.7, 0.4}
    assert found.metrics["iou"].iloc[0] == 0.7, "readers take the first row's for the one that decides"
    assert set(found.metrics.loc[found.metrics["average_precision"].notna(), "iou"]) == {0.7}
    for name in ("curves", "metrics_per_class", "recall_at_rates", "strata", "confusion"):
        assert set(getattr(found, name)["iou"]) == {0.7}, name
    assert found.differences.empty, "one layer has gained nothing"


def test_notes_stand_at_the_rows_that_they_concern(corpus, layers):
    fitted = {"model": "m1", "layer": "cnn+rf", "fold": 1, "label": "hum", "reason": ""}
    notes = forest_notes([fitted, {**fitted, "fold": 2, "reason": "There are only 3 hits."}])
    assert len(notes) == 1
    metrics = measure(corpus, layers, notes=notes).metrics
    told = {"2": "There are only 3 hits", POOLED: "1 forest is not used (forests.json says why)"}
    for fold, words in told.items():
        noted = metrics[metrics["note"].str.contains(words, regex=False, na=False)]
        assert set(noted["layer"]) == {"cnn+rf"} and set(noted["fold"]) == {fold}
        assert set(noted["label"]) == {"hum", "micro"}, "the other label has its forest"
        concerned = metrics["label"].isin(["hum", "micro"]) & metrics["fold"].eq(fold)
        assert len(noted) == (concerned & metrics["layer"].eq("cnn+rf")).sum()
    note = metrics.loc[metrics["note"].str.contains(told["2"], na=False), "note"].iloc[0]
    assert "fold 2 hum: no forest, cnn selections (There are only 3 hits)" in note
    assert note.startswith("only 2 groups"), "what was there before stays"


def test_no_notes_leave_no_word_of_a_forest(measures):
    notes = measures.metrics["note"]
    assert not notes.fillna("").str.contains("no forest").any() and not (notes == "").any()


def test_rows_of_single_folds_say_what_the_fold_tests(small, measures):
    """The counts of the network name it; those of the forest need not."""
    corpus, layers = small
    sites = {1: "bush", 2: "dam", 3: "ridge"}
    named = replace(layers[0], counts=layers[0].counts.assign(part=layers[0].counts["fold"].map(sites)))
    metrics = measure(corpus, [named, layers[1]], ["hum"]).metrics
    expected = metrics["fold"].map({str(fold): site for fold, site in sites.items()})
    assert metrics["part"].isna().eq(metrics["fold"] == POOLED).all()
    assert (metrics["part"].fillna("") == expected.fillna("")).all()
    assert measures.metrics["part"].isna().all(), "folds of groups have no part"


def test_leaky_models_are_marked_in_every_table(small):
    corpus, layers = small
    marked = [LayerTables(*(getattr(own, f.name).assign(leaky=True) for f in fields(LayerTables))) for own in layers]
    found = measure(corpus, marked, ["hum"])
    for name in table_names(ModelMeasures):
        assert getattr(found, name)["leaky"].all(), name
    assert found.metrics["note"].str.startswith("leaky: clips of one recording stand on both sides").all()


def test_a_model_that_found_nothing(small):
    corpus, layers = small

    def silent(own):
        counts = own.counts.assign(n_pred=0, tp=0, fp=0, fn=own.counts["n_gt"])
        points = own.points.assign(n_pred=0, tp=0)
        misses = corpus.annotations.rename(columns={"snr_db": "x"})[["annotation_id", "recording_id", "label"]]
        names = {"model": "m1", "layer": own.counts["layer"].iloc[0], "split": "test", "iou_threshold": 0.4}
        parts = [
            misses[misses["recording_id"].isin(corpus.side(fold, "test")["recording_id"])].assign(fold=fold)
            for fold in FOLDS
        ]
        missed = pd.concat(parts).assign(**names, outcome="miss", leaky=False)
        return LayerTables(own.selections.iloc[:0], table("matches", missed), counts, points)

    found = measure(corpus, [silent(own) for own in layers], ["hum"])
    rows = headline(found)
    assert (rows["f1"] == 0).all() and rows["precision"].isna().all()
    assert found.curves.empty and found.reliability.empty
    assert (found.confusion["selected"] == "nothing").all()


def test_a_corpus_without_any_call(corpus):
    empty = replace(corpus, annotations=corpus.annotations.iloc[:0])
    found = measure(empty, [layer_tables(empty, layer=layer, labels=["hum"]) for layer in ("cnn", "cnn+rf")], ["hum"])
    rows = headline(found)
    assert (rows["n_gt"] == 0).all() and rows["recall"].isna().all() and (rows["fp"] > 0).all()
    assert rows["note"].str.contains("no annotated call").all()


def test_a_model_is_measured_the_same_whatever_its_seed_but_for_the_intervals(small):
    first, again, other = (measure(*small, ["hum"], seed=seed) for seed in (1, 1, 2))
    for name in table_names(ModelMeasures):
        one, same, another = (getattr(found, name) for found in (first, again, other))
        pd.testing.assert_frame_equal(one, same)
        drawn = [c for c in one if c.endswith(("_low", "_high")) or c == "p_value" or c.startswith("calls")]
        pd.testing.assert_frame_equal(one.drop(columns=drawn), another.drop(columns=drawn))
    assert not other.metrics["f1_low"].equals(first.metrics["f1_low"])


def test_the_tables_fit_their_schemas(measures, tmp_path):
    for name in table_names(ModelMeasures):
        write_table(tmp_path / f"{name}.parquet", name, getattr(measures, name), csv=tmp_path / f"{name}.csv")


def test_curves_of_nothing():
    counts = layer_tables(make_corpus(["hum"]), labels=["hum"]).counts
    assert curve_rows(table("selections", []), counts).empty
