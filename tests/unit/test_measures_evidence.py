"""What ranks the selections of a layer, and which time a model was tested on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from tests.unit.stage_tables import FOLDS, layer_tables, make_corpus

from otus.errors import StageError
from otus.measures import evidence
from otus.measures.curves import curve_rows
from otus.measures.evidence import ranks, ranks_of_all
from otus.tables import POOLED


@pytest.fixture(scope="module")
def corpus():
    return make_corpus()


@pytest.fixture(scope="module")
def forest(corpus):
    """A layer behind forests; in fold 2 the label cluck has none, and the network's scores stand in its place."""
    layer = layer_tables(corpus, layer="cnn+rf")
    rows = layer.selections
    without = rows["label"].eq("cluck") & rows["fold"].eq(2)
    own = np.where(without, expit(rows["peak_score"]), rows["rf_probability"])
    calibrated = np.where(without, 0.1 * own, rows["probability"])
    return replace(layer, selections=rows.assign(rf_probability=own, probability=calibrated))


def layers_of(corpus, tables, labels=("hum", "cluck")):
    return evidence.tested_layers(
        tables.selections,
        tables.matches,
        tables.counts,
        corpus.annotations,
        corpus.recordings,
        corpus.splits,
        labels=labels,
    )


def test_the_network_ranks_by_its_peak_score(corpus):
    rows = layer_tables(corpus).selections
    np.testing.assert_array_equal(ranks(rows), rows["peak_score"])


def test_a_label_with_a_forest_in_some_folds_is_ranked_by_the_calibrated_probability(forest):
    rows = forest.selections
    cluck = rows["label"].eq("cluck")
    found = pd.Series(ranks(rows))
    np.testing.assert_array_equal(found[cluck], rows.loc[cluck, "probability"])
    np.testing.assert_array_equal(found[~cluck], rows.loc[~cluck, "rf_probability"])
    np.testing.assert_array_equal(ranks(rows[cluck]), found[cluck]), "as if there were no other label"
    unknown = rows.assign(probability=np.nan)
    np.testing.assert_array_equal(ranks(unknown), rows["rf_probability"])


def test_all_labels_together_are_ranked_on_one_scale(corpus, forest):
    rows = forest.selections
    np.testing.assert_array_equal(ranks_of_all(rows), rows["probability"])
    everywhere = layer_tables(corpus, layer="cnn+rf").selections
    np.testing.assert_array_equal(ranks_of_all(everywhere), everywhere["rf_probability"])
    network = layer_tables(corpus).selections
    np.testing.assert_array_equal(ranks_of_all(network), network["peak_score"])


def test_layers_and_curves_rank_alike(corpus, forest):
    curves = curve_rows(forest.selections, forest.counts)
    curves = curves[curves["split"] == "test"]
    for layer in layers_of(corpus, forest):
        for label in ("hum", "cluck"):
            curve = curves[curves["label"].eq(label) & curves["fold"].eq(layer.fold)]
            own = layer.selections[layer.selections["label"] == label]
            np.testing.assert_allclose(curve["threshold"], np.unique(own["rank"])[::-1])
            if layer.fold != POOLED:
                np.testing.assert_array_equal(own["rank"], own["rf_probability"], err_msg="the scale of its threshold")


def test_every_recording_is_tested_once(corpus, forest):
    *folds, pooled = layers_of(corpus, forest)
    assert [one.fold for one in folds] == [str(fold) for fold in FOLDS]
    assert pooled.recordings["recording_id"].tolist() == sorted(corpus.recordings["recording_id"])
    assert pooled.hours == pytest.approx(sum(one.hours for one in folds))
    assert len(pooled.calls) == len(corpus.annotations)
    assert pooled.calls["annotation_id"].is_unique


def test_a_model_that_searched_no_test_recording_is_refused(corpus, forest):
    validated = replace(forest, counts=forest.counts[forest.counts["split"] == "val"])
    with pytest.raises(StageError, match="no test recording was searched"):
        layers_of(corpus, validated)
