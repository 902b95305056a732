"""What a forest looks at: importance on groups that it never saw, with intervals, and partial dependence."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.config import ForestSettings
from otus.forest import fit_fold
from otus.forest.explain import Unseen, average_precisions, explain
from otus.metrics import average_precision, curve
from otus.tables import table

NAMES = ["tells", "twin", "noise", "constant", "unknown"]
KEYS = {"model": "m", "layer": "cnn+rf", "label": "hum", "leaky": False}
KINDS = {
    "forest": ForestSettings(trees=60, min_samples_leaf=2),
    "boosting": ForestSettings(kind="boosting", trees=40, min_samples_leaf=2),
    "logistic": ForestSettings(kind="logistic", penalty=1.0),
}


def rows(n, seed, twin=False):
    random = np.random.default_rng(seed)
    hit = random.random(n) < 0.5
    features = random.normal(size=(n, len(NAMES)))
    features[:, 0] += 2.5 * hit
    if twin:
        features[:, 1] = features[:, 0]
    features[:, 3], features[:, 4] = 7.0, np.nan
    return features, hit, np.array([f"s{seed}_g{k % 8}" for k in range(n)])


def unseen(fold, settings, twin=False, n=160):
    features, hit, groups = rows(n, fold, twin)
    judged, judged_hit, judged_groups = rows(80, 100 + fold, twin)
    found = fit_fold(features, hit, groups, judged, settings=settings, seed=fold)
    kept = found.fitted_rows
    return Unseen(fold, found.forest, judged, judged_hit, judged_groups, features[kept], hit[kept])


@pytest.fixture(scope="module", params=KINDS)
def explained(request):
    settings = KINDS[request.param]
    return request.param, explain([unseen(1, settings), unseen(2, settings)], NAMES, KEYS, 5)


def test_only_what_tells_helps(explained):
    _, found = explained
    told = found.importances
    pd.testing.assert_frame_equal(told, table("importances", told))
    assert told.groupby("fold").size().to_dict() == {"1": 5, "2": 5, "pooled": 5}
    pooled = told[told["fold"] == "pooled"].set_index("feature")
    assert pooled.loc["tells", "helps"] and pooled.loc["tells", "drop"] > 0.1
    assert pooled.loc["tells", "drop_low"] > 0 and pooled.loc["tells", "drop_high"] < 0.8
    others = told[told["feature"] != "tells"]
    assert (others["drop"].abs() < 0.08).all() and not others.loc[others["fold"] == "pooled", "helps"].any()
    silent = told[told["feature"].isin(["constant", "unknown"])]
    assert (silent["drop"].abs() < 1e-9).all() and not silent["helps"].any()
    mean = told[told["fold"] != "pooled"].groupby("feature")["drop"].mean()
    np.testing.assert_allclose(pooled["drop"], mean[pooled.index])
    assert pooled["n_groups"].eq(16).all() and told.loc[told["fold"] == "1", "n_groups"].eq(8).all()
    assert (pooled["n_hits"] + pooled["n_false_alarms"]).eq(160).all()


def test_hints_are_of_forests_alone(explained):
    kind, found = explained
    pooled = found.importances.query("fold == 'pooled'").set_index("feature")
    if kind != "forest":
        assert pooled[["out_of_bag", "impurity"]].isna().all(axis=None)
        return
    assert pooled["impurity"].sum() == pytest.approx(1) and pooled["impurity"].idxmax() == "tells"
    assert pooled["out_of_bag"].idxmax() == "tells" and pooled.loc["tells", "out_of_bag"] > 0.1
    assert pooled.loc["constant", "out_of_bag"] == 0 == pooled.loc["constant", "impurity"]


def test_dependence_rises_with_what_tells(explained):
    _, found = explained
    told = found.dependence
    pd.testing.assert_frame_equal(told, table("dependence", told))
    assert told["feature"].iloc[0] == "tells" and "unknown" not in set(told["feature"]), (
        "NaN has no values to go through"
    )
    first = told[told["feature"] == "tells"]
    assert first["rank"].eq(1).all() and first["n_folds"].eq(2).all() and len(first) == 10
    assert (np.diff(first["value"]) > 0).all() and (np.diff(first["share_below"]) > 0).all()
    assert first["probability"].iloc[-1] > first["probability"].iloc[0] + 0.4
    assert (first["probability_low"] <= first["probability"]).all()
    assert (first["probability"] <= first["probability_high"]).all()
    assert len(told[told["feature"] == "constant"]) == 1, "one value, one point"


def test_twins_share_their_importance():
    settings = KINDS["forest"]
    alone = explain([unseen(1, settings)], NAMES, KEYS, 5).importances.query("fold == 'pooled'").set_index("feature")
    twins = explain([unseen(1, settings, twin=True)], NAMES, KEYS, 5).importances
    twins = twins.query("fold == 'pooled'").set_index("feature")
    assert twins.loc["tells", "drop"] < 0.7 * alone.loc["tells", "drop"]


def test_same_seed_same_tables_whatever_else_is_asked():
    folds = [unseen(1, KINDS["forest"])]
    first, second, other = (explain(folds, NAMES, KEYS, seed) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(first.importances, second.importances)
    pd.testing.assert_frame_equal(first.dependence, second.dependence)
    assert not first.importances["drop"].equals(other.importances["drop"])


def test_what_cannot_be_told_has_no_rows():
    one = unseen(1, KINDS["logistic"])
    keep = one.hit
    only_hits = Unseen(
        1, one.estimator, one.rows[keep], one.hit[keep], one.group[keep], one.fitted_rows, one.fitted_hit
    )
    for folds in ([], [only_hits]):
        found = explain(folds, NAMES, KEYS, 5)
        assert len(found.importances) == len(found.dependence) == 0
        pd.testing.assert_frame_equal(found.importances, table("importances", []))
    assert set(explain([only_hits, unseen(2, KINDS["logistic"])], NAMES, KEYS, 5).importances["fold"]) == {
        "2",
        "pooled",
    }


def test_one_group_has_no_interval():
    one = unseen(1, KINDS["logistic"])
    alone = Unseen(1, one.estimator, one.rows, one.hit, np.full(80, "g"), one.fitted_rows, one.fitted_hit)
    told = explain([alone], NAMES, KEYS, 5).importances
    assert told["drop"].notna().all() and told["drop_low"].isna().all() and not told["helps"].any()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30))
def test_weighted_average_precision_is_that_of_repeated_rows(events):
    probability, hit, weight = (np.array(values) for values in zip(*events, strict=True))
    found = average_precisions(probability / 5, hit, np.stack([np.ones(len(hit)), weight.astype(float)]))
    for value, times in zip(found, (np.ones(len(hit), dtype=int), weight), strict=True):
        many, hits = np.repeat(probability / 5, times), np.repeat(hit, times)
        expected = average_precision(curve(many, hits), int(hits.sum()))
        np.testing.assert_allclose(value, expected)


def test_explaining_takes_no_longer_than_fitting():
    random = np.random.default_rng(0)
    features, hit = random.normal(size=(300, 60)), random.random(300) < 0.4
    features[:, :5] += hit[:, None]
    groups = np.array([f"g{k % 20}" for k in range(300)])
    begin = time.process_time()
    settings = ForestSettings(trees=60)
    found = fit_fold(features[:200], hit[:200], groups[:200], features[200:], settings=settings, seed=1)
    fitting = time.process_time() - begin
    one = Unseen(1, found.forest, features[200:], hit[200:], groups[200:], features[:200], hit[:200])
    begin = time.process_time()
    explain([one], [f"f{k}" for k in range(60)], KEYS, 1)
    assert time.process_time() - begin < 2.5 * fitting
