"""The proof of the grouped protocol: a feature that names the recording must not improve what is measured.

Hits are concentrated in some recordings, so within the recordings that a forest was fitted on, the recording's number
tells hits from false alarms. Of recordings that it never saw it tells nothing. A protocol that deals single selections
would be taken in; the last test shows by how much.
"""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold

from otus.config import EvaluationSettings, ForestSettings
from otus.evaluation.calibration import Calibration
from otus.evaluation.thresholds import ChosenPoint, ThresholdCurve
from otus.forest import fit_estimator, fit_fold, hit_probability, stage
from otus.metrics import average_precision, curve
from otus.selections import DecodingPoint
from otus.tables import table

KINDS = {
    "forest": ForestSettings(trees=30, min_samples_leaf=2),
    "boosting": ForestSettings(kind="boosting", trees=40, min_samples_leaf=2),
}
N_FOLDS, N_RECORDINGS, N_ROWS = 3, 36, 14
RATE = 1000


def candidates(seed=0):
    """Selections of recordings of which half hold nearly all hits; recordings are groups."""
    random = np.random.default_rng(seed)
    rich = random.permutation(np.arange(N_RECORDINGS) % 2 == 0)
    number = np.repeat(np.arange(N_RECORDINGS), N_ROWS)
    hit = random.random(len(number)) < np.where(rich[number], 0.95, 0.05)
    rows = pd.DataFrame({"number": number, "hit": hit, "peak_score": 1.0 + 0.8 * hit + random.normal(0, 1, len(hit))})
    rows["recording_id"] = [f"r{k:02d}" for k in number]
    rows["start_s"] = 3.0 * rows.groupby("number").cumcount()
    return rows.assign(end_s=rows["start_s"] + 1.0, score=rows["peak_score"] - 0.5)


def described(rows, *, leak):
    """The score with noise, and the number of the recording or nothing."""
    noise = np.random.default_rng(1).normal(size=len(rows))
    number = rows["recording_id"].str[1:].astype(float)
    return pd.DataFrame(
        {"score": rows["score"].to_numpy() + 0.1 * noise, "recording": number if leak else 0.0}, index=rows.index
    )


def quality(probability, hit):
    return average_precision(curve(np.asarray(probability, dtype=float), np.asarray(hit)), int(np.sum(hit)))


def layer(monkeypatch, tmp_path, settings, *, leak):
    """The filtered layer of a network that judged every recording in the fold that tests it."""
    rows = candidates()
    monkeypatch.setattr(
        stage, "candidate_features", lambda root, wanted, *tables, **options: described(wanted, leak=leak)
    )
    fold = rows["number"] % N_FOLDS + 1
    length_s = 3.0 * N_ROWS
    ids = sorted(rows["recording_id"].unique())
    recordings = pd.DataFrame({"recording_id": ids, "sample_rate": RATE, "n_samples": int(RATE * length_s)})
    splits = pd.DataFrame(
        [(r, k, "test" if int(r[1:]) % N_FOLDS + 1 == k else "train") for k in (1, 2, 3) for r in ids],
        columns=["recording_id", "fold", "split"],
    ).assign(start_sample=0, end_sample=int(RATE * length_s))
    names = {"model": "m", "label": "hum", "layer": "cnn", "leaky": False}
    counts = splits[splits["split"] == "test"].assign(
        group=lambda s: s["recording_id"], duration_s=length_s, selected=True, iou=0.4, part=None, **names
    )
    selections = rows.assign(fold=fold, split="test", selected=True, operating_point="p", probability=0.5, **names)
    selections["selection_id"] = [f"m_{i:04d}" for i in range(len(rows))]
    calls = rows[rows["hit"]][["recording_id", "start_s", "end_s"]].assign(label="hum")
    calls["annotation_id"] = [f"a{i}" for i in range(len(calls))]
    before = DecodingPoint(0.3, 1.0, 0.0, 0.0, 0.0)
    point = ChosenPoint(0.5, before, 0.9, 0.9, 50, Calibration("none", 0, 0), ThresholdCurve())
    return stage.filter_model(
        tmp_path,
        table("selections", selections.drop(columns="number")),
        counts,
        table("score_shapes", []),
        recordings,
        calls,
        splits,
        {k: {"hum": point} for k in (1, 2, 3)},
        targets=["hum"],
        settings=settings,
        evaluation=EvaluationSettings(thresholds=[], bootstrap=0),
        window_s=0.02,
        low_hz=0.0,
        high_hz=400.0,
        seed=3,
        progress=lambda text: None,
    )


def f1_of(counts):
    own = counts[counts["split"] == "test"]
    return 2 * own["tp"].sum() / (own["n_pred"].sum() + own["n_gt"].sum())


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_the_layer_does_not_gain_from_the_recordings_name(monkeypatch, tmp_path, settings):
    plain, leaky = (layer(monkeypatch, tmp_path, settings, leak=leak) for leak in (False, True))
    f1 = {name: f1_of(one.counts) for name, one in {"plain": plain, "leaky": leaky}.items()}
    rows = candidates()
    selected = rows["peak_score"] >= 0  # a probability of 0.5
    f1["network"] = 2 * (rows["hit"] & selected).sum() / (selected.sum() + rows["hit"].sum())
    assert f1["leaky"] <= max(f1["plain"], f1["network"]) + 0.01, f1
    ranked = {}
    for name, one in {"plain": plain, "leaky": leaky}.items():
        own = one.selections[one.selections["split"] == "test"]
        ranked[name] = np.mean([quality(part["rf_probability"], part["hit"]) for _, part in own.groupby("fold")])
    assert ranked["leaky"] <= ranked["plain"] + 0.02, ranked


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_neither_the_judged_nor_the_inner_probabilities_gain(settings):
    rows = candidates()
    judged = (rows["number"] % N_FOLDS == 0).to_numpy()
    found = {}
    for leak in (False, True):
        features = described(rows, leak=leak).to_numpy()
        found[leak] = fit_fold(
            features[~judged],
            rows["hit"][~judged],
            rows["number"][~judged],
            features[judged],
            settings=settings,
            seed=2,
        )
    for name, hit in {"probability": rows["hit"][judged], "inner_probability": rows["hit"][~judged]}.items():
        plain, leaky = (quality(getattr(found[leak], name), hit) for leak in (False, True))
        assert leaky <= plain + 0.02, (name, plain, leaky)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_protocol_that_deals_single_selections_would_gain(settings):
    rows = candidates()
    hit = rows["hit"].to_numpy()
    reached = {}
    for leak in (False, True):
        features, probability = described(rows, leak=leak).to_numpy(), np.empty(len(rows))
        for fitted, left in StratifiedKFold(5, shuffle=True, random_state=0).split(features, hit):
            own = fit_estimator(settings.kind, settings.candidates()[0], features[fitted], hit[fitted], 1)
            probability[left] = hit_probability(own, features[left])
        reached[leak] = quality(probability, hit)
    assert reached[True] > reached[False] + 0.1 and reached[True] > 0.85, "else the tests above could not fail"
