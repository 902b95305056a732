"""The post-filter of a model: who is fitted on, who is judged, and what becomes of the selections."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from otus.atomic import write_json
from otus.audio import inspect
from otus.config import EvaluationSettings, ForestSettings
from otus.errors import DataError
from otus.evaluation.calibration import Calibration
from otus.evaluation.tally import Judged, count_per_recording, judge
from otus.evaluation.thresholds import ChosenPoint, ThresholdCurve
from otus.forest import feature_names, selection_features, stage
from otus.forest.daytime import DAYTIME_NAMES
from otus.forest.feature_table import read_features, write_features
from otus.selections import DecodingPoint, logit
from otus.tables import table, write_table

LABELS = ["hum", "cluck"]
DURATION_S = 60.0
THRESHOLD = 1 / (1 + np.exp(-1.0))  # logit 1
FOREST = ForestSettings(trees=10, min_samples_leaf=2, features="alpaca", mfcc=1)
EVALUATION = EvaluationSettings(thresholds=[], bootstrap=0)
KEY = ["fold", "split", "label", "recording_id"]


def chosen_point(threshold, merge="hysteresis"):
    """What evaluation chose, as far as the forest looks at it."""
    decoding = DecodingPoint(0.3 if merge == "hysteresis" else threshold, 1.0, 0.0, 0.0, 0.0, merge)
    return ChosenPoint(threshold, decoding, 0.9, 0.9, 50, Calibration("none", 0, 0), ThresholdCurve())


class Corpus:
    """Recordings in groups of two, folds (or one split), calls, and what a network found of them.

    Hits last 1 s and false alarms 0.6 s, so that their length tells them apart. Every fourth recording has no call,
    and every sixth has nothing found in it.
    """

    def __init__(self, n=18, folds=3, false_alarms=4, labels=LABELS, seed=0):
        random = np.random.default_rng(seed)
        ids = [f"r{i:02d}" for i in range(n)]
        group = {r: f"g{i // 2:02d}" for i, r in enumerate(ids)}
        part = {r: (i // 2) % 3 for i, r in enumerate(ids)}
        self.recordings = pd.DataFrame({"recording_id": ids, "path": [f"{r}.wav" for r in ids]}).assign(
            duration_s=DURATION_S, n_samples=int(8000 * DURATION_S), sample_rate=8000, channels=1, subtype="PCM_16"
        )
        self.folds = list(range(1, folds + 1))
        sides = [{k: "test", (k + 1) % 3: "val"} for k in range(folds)]
        self.splits = pd.DataFrame(
            [(r, group[r], k + 1, side.get(part[r], "train")) for k, side in enumerate(sides) for r in ids],
            columns=["recording_id", "group", "fold", "split"],
        ).assign(start_sample=0, end_sample=int(8000 * DURATION_S), leaky=False)
        calls, found = [], []
        for i, r in enumerate(ids):
            for label in labels:
                slots = random.permutation(np.arange(1, 55, 3))
                n_calls = 0 if i % 4 == 3 else 3
                for slot in slots[:n_calls]:
                    calls.append((f"a{len(calls)}", r, slot, slot + 1.0, label))
                if i % 6 == 5:
                    continue
                found += [(r, label, s + 0.1, s + 1.1, random.normal(2.5, 1.5)) for s in slots[:n_calls]]
                found += [(r, label, s, s + 0.6, random.normal(1, 1.5)) for s in slots[n_calls:][:false_alarms]]
        self.annotations = pd.DataFrame(calls, columns=["annotation_id", "recording_id", "start_s", "end_s", "label"])
        rows = pd.DataFrame(found, columns=["recording_id", "label", "start_s", "end_s", "peak_score"])
        rows = rows.merge(self.splits[self.splits["split"] != "train"], on="recording_id")
        rows["hit"] = rows["end_s"] - rows["start_s"] > 0.9
        rows["selected"] = rows["peak_score"] >= logit(THRESHOLD)
        number = rows.groupby(["fold", "label", "recording_id"]).cumcount().astype(str)
        rows["selection_id"] = (
            "m_f" + rows["fold"].astype(str) + "_" + rows["label"] + "_" + rows["recording_id"] + "_s" + number
        )
        rows = rows.assign(score=rows["peak_score"] - 1, model="m", layer="cnn", operating_point="p")
        rows["probability"] = 1 / (1 + np.exp(1 - rows["peak_score"]))
        self.selections = table("selections", rows.drop(columns=["group", "start_sample", "end_sample"]))
        self.points = {fold: {label: chosen_point(THRESHOLD) for label in labels} for fold in self.folds}
        self.labels = labels
        self.shapes = table("score_shapes", [])

    def group_of(self):
        return self.splits.drop_duplicates("recording_id").set_index("recording_id")["group"]

    def filtered(self, root, *, settings=FOREST, evaluation=EVALUATION, selections=None, annotations=None, seed=5):
        return stage.filter_model(
            root,
            self.selections if selections is None else selections,
            self.searched(),
            self.shapes,
            self.recordings,
            self.annotations if annotations is None else annotations,
            self.splits,
            self.points,
            targets=self.labels,
            settings=settings,
            evaluation=evaluation,
            window_s=0.02,
            low_hz=100.0,
            high_hz=4000.0,
            seed=seed,
            progress=lambda text: None,
        )

    def searched(self):
        """The rows of the evaluation's counts, as far as the forest looks at them."""
        sides = self.splits[self.splits["split"] != "train"].merge(self.recordings[["recording_id", "duration_s"]])
        rows = [sides.assign(label=label) for label in self.labels]
        return pd.concat(rows).assign(model="m", layer="cnn", selected=True, iou=0.4)

    def cnn_counts(self):
        """What evaluation would count at the chosen threshold."""
        parts = []
        for (fold, label), rows in self.selections.groupby(["fold", "label"]):
            tested = (self.splits["fold"] == fold) & (self.splits["split"] == "test")
            searched = self.recordings[self.recordings["recording_id"].isin(self.splits.loc[tested, "recording_id"])]
            searched = searched.assign(group="g")
            calls = self.annotations[self.annotations["label"] == label]
            calls = calls[calls["recording_id"].isin(searched["recording_id"])]
            judged = Judged(rows[rows["split"] == "test"].assign(rank=rows["peak_score"]), calls, searched)
            counts = count_per_recording(judged, judge(judged, 0.4), {"selected": logit(THRESHOLD)}, "selected")
            parts.append(counts.assign(fold=fold, label=label, split="test"))
        return pd.concat(parts).set_index(KEY).sort_index()


def features_without_sound(root, candidates, shapes, recordings, *, n_mfcc, **settings):
    """Score, number of the recording, and length."""
    values = pd.DataFrame(0.0, index=candidates.index, columns=list(feature_names(n_mfcc)))
    values.iloc[:, 0] = candidates["score"]
    values.iloc[:, 1] = candidates["recording_id"].str[1:].astype(float)
    values.iloc[:, 2] = candidates["end_s"] - candidates["start_s"]
    return values


@pytest.fixture
def silent(monkeypatch):
    """No audio is read."""
    monkeypatch.setattr(stage, "candidate_features", features_without_sound)


@pytest.fixture(scope="module")
def corpus():
    return Corpus()


@pytest.fixture(scope="module")
def filtered(corpus):
    """The layer of that corpus at two IoU thresholds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "candidate_features", features_without_sound)
        return corpus.filtered(Path("nowhere"), evaluation=EvaluationSettings(iou=[0.4, 0.9], thresholds=[0.5]))


def chosen(counts, split="test"):
    wanted = counts["selected"] & (counts["split"] == split) & (counts.get("iou", 0.4) == 0.4)
    return counts[wanted].set_index(KEY).sort_index()


@pytest.mark.parametrize("folds", [3, 1], ids=["cross-validation", "single split"])
def test_no_group_is_judged_by_a_forest_that_saw_it(silent, monkeypatch, tmp_path, folds):
    corpus, seen = Corpus(n=12, folds=folds, labels=LABELS if folds == 1 else LABELS[:1]), []
    fit = stage.fit_fold

    def spy(features, hits, groups, judged, **options):
        seen.append((features[:, 1].astype(int), np.asarray(groups), judged[:, 1].astype(int)))
        return fit(features, hits, groups, judged, **options)

    monkeypatch.setattr(stage, "fit_fold", spy)
    corpus.filtered(tmp_path)
    group_of = corpus.group_of()
    assert len(seen) == len(corpus.folds) * len(corpus.labels)
    for number, (fitted, groups, judged) in enumerate(seen):
        fitted_ids, judged_ids = ([f"r{i:02d}" for i in rows] for rows in (fitted, judged))
        assert groups.tolist() == group_of[fitted_ids].tolist(), "inner folds are by group, too"
        assert not set(group_of[fitted_ids]) & set(group_of[judged_ids])
        fold = corpus.folds[number // len(corpus.labels)]
        side = corpus.splits[corpus.splits["fold"] == fold].set_index("recording_id")["split"]
        assert set(side[judged_ids]) == {"test"}
        if folds == 1:
            assert set(side[fitted_ids]) == {"val"}
        else:
            assert set(side[fitted_ids]) == {"train", "val"}, "all other folds' test recordings"


def test_forest_of_a_fold_does_not_depend_on_what_it_judges(silent, tmp_path):
    corpus = Corpus(labels=["hum"])
    before = corpus.filtered(tmp_path).forests
    ids = set(corpus.splits.query("fold == 2 and split == 'test'")["recording_id"])
    own = (corpus.selections["fold"] == 2) & (corpus.selections["split"] == "test")
    selections = corpus.selections.assign(
        hit=corpus.selections["hit"] & ~own, score=corpus.selections["score"] + 3.0 * own
    )
    more = corpus.annotations[corpus.annotations["recording_id"].isin(ids)]
    annotations = pd.concat([corpus.annotations, more.assign(start_s=57.0, end_s=59.0)], ignore_index=True)
    after = corpus.filtered(tmp_path, selections=selections, annotations=annotations).forests
    for old, new in zip(before, after, strict=True):
        same = (old.threshold, old.candidate_step, old.n_hits) == (new.threshold, new.candidate_step, new.n_hits)
        same &= (old.alone, old.filtered, old.calibration) == (new.alone, new.filtered, new.calibration)
        if old.fold == 2:
            rows = np.random.default_rng(0).normal(1, 1, size=(50, len(feature_names(1))))
            np.testing.assert_array_equal(old.forest.predict_proba(rows), new.forest.predict_proba(rows))
        assert same == (old.fold == 2)


class Halves(Corpus):
    """A leaky variant: every recording is validated on in its first half and tested on in its second, in one fold.

    With `folds`, one fold tests the first third of every recording, another the second, and so on.
    """

    def __init__(self, folds=1, groups=None, **options):
        super().__init__(folds=folds, **options)
        samples = int(8000 * DURATION_S)
        pieces = 2 if folds == 1 else 3
        rows = []
        for fold, (recording_id, group) in itertools.product(self.folds, self.group_of().items()):
            for piece in range(pieces):
                side = ("val", "test")[piece] if folds == 1 else {fold - 1: "test", fold % 3: "val"}.get(piece, "train")
                rows.append(
                    (recording_id, group, fold, side, piece * samples // pieces, (piece + 1) * samples // pieces)
                )
        columns = ["recording_id", "group", "fold", "split", "start_sample", "end_sample"]
        self.splits = pd.DataFrame(rows, columns=columns).assign(leaky=True)
        if groups is not None:
            self.splits = groups(self.splits)
        found = self.selections.drop(columns=["fold", "split"]).drop_duplicates(["recording_id", "start_s", "label"])
        both = found.merge(self.splits, on="recording_id", suffixes=("", "_of_side"))
        middle = (both["start_s"] + both["end_s"]) / 2 * 8000
        inside = (both["start_sample"] <= middle) & (middle < both["end_sample"]) & (both["split"] != "train")
        both = both[inside].assign(selection_id=lambda r: r["selection_id"] + "_" + r["fold"].astype(str))
        self.selections = table("selections", both[list(found.columns.union(["fold", "split"]))])

    def searched(self):
        counts = super().searched()
        return counts.assign(duration_s=(counts["end_sample"] - counts["start_sample"]) / 8000)


@pytest.fixture
def fits(monkeypatch):
    """The sides of every fit, as pairs of what is fitted on and what is judged."""
    seen, sides = [], stage.sides
    monkeypatch.setattr(stage, "sides", lambda *args: seen.append(sides(*args)) or seen[-1])
    return seen


def test_leaky_single_split_fits_on_validation_time_and_judges_test_time(silent, fits, tmp_path):
    corpus = Halves()
    filtered = corpus.filtered(tmp_path)
    half = DURATION_S / 2
    for number, (fitting, judged) in enumerate(fits):
        label = LABELS[number]
        calls = corpus.annotations[corpus.annotations["label"] == label]
        first = (calls["start_s"] + calls["end_s"]) / 2 < half
        for side, wanted, own in ((fitting, "val", calls[first]), (judged, "test", calls[~first])):
            assert set(side.candidates["split"]) == {wanted} and len(side.candidates) > 20
            assert side.calls["annotation_id"].tolist() == own["annotation_id"].tolist()
            assert side.recordings["recording_id"].is_unique and (side.recordings["duration_s"] == half).all()
    counts = chosen(filtered.counts)
    assert counts["n_gt"].sum() == sum(len(judged.calls) for _, judged in fits)
    for frame in (filtered.selections, filtered.matches, filtered.counts):
        assert frame["leaky"].all()


def test_leaky_folds_that_all_test_every_group_fit_on_their_own_validation_time(silent, fits, tmp_path):
    corpus = Halves(folds=3, labels=["hum"])
    corpus.filtered(tmp_path)
    assert len(fits) == 3
    for fold, (fitting, judged) in enumerate(fits, start=1):
        for side, split in ((fitting, "val"), (judged, "test")):
            assert set(side.candidates["split"]) == {split} and set(side.candidates["fold"]) == {fold}
            assert (side.recordings["duration_s"] == DURATION_S / 3).all()


def test_leaky_folds_fit_across_groups_where_that_is_possible(silent, fits, tmp_path):
    def each_group_tested_in_two_folds(splits):
        out_of = splits["group"].str[1:].astype(int) % 3 + 1
        left_out = (splits["fold"] == out_of) & (splits["split"] == "test")
        return splits.assign(split=splits["split"].mask(left_out, "train"))

    corpus = Halves(folds=3, groups=each_group_tested_in_two_folds, labels=["hum"])
    corpus.filtered(tmp_path)
    for fold, (fitting, judged) in enumerate(fits, start=1):
        assert set(fitting.candidates["split"]) == {"test"} and fold not in set(fitting.candidates["fold"])
        assert not set(fitting.recordings["group"]) & set(judged.recordings["group"])
        assert fitting.recordings["recording_id"].is_unique
        assert (fitting.recordings["duration_s"] == 2 * DURATION_S / 3).all(), "tested by both other folds"
        calls = corpus.annotations[corpus.annotations["recording_id"].isin(fitting.recordings["recording_id"])]
        hits = fitting.candidates["hit"].sum()
        assert hits <= len(fitting.calls) < len(calls)


class ByPart(Corpus):
    """Every fold tests all of one site."""

    def searched(self):
        counts = super().searched()
        return counts.assign(part="site " + counts["fold"].astype(str))


def test_networks_that_know_the_tested_part_have_no_say_in_its_filter(silent, fits, tmp_path):
    ByPart(labels=["hum"]).filtered(tmp_path)
    assert len(fits) == 3
    for fold, (fitting, judged) in enumerate(fits, start=1):
        assert set(fitting.candidates["split"]) == {"val"} and set(fitting.candidates["fold"]) == {fold}
        assert set(judged.candidates["split"]) == {"test"} and set(judged.candidates["fold"]) == {fold}


def test_the_time_of_day_is_a_feature_where_it_is_asked_for(silent, tmp_path):
    corpus = Corpus(labels=["hum"])
    corpus.recordings["start_time"] = "2024-05-12T06:00:00"
    asked = corpus.filtered(tmp_path, settings=FOREST.model_copy(update={"time_of_day": True}))
    assert asked.feature_names[-2:] == list(DAYTIME_NAMES)
    assert asked.features["time_of_day_sin"].min() > 0.999, "six in the morning is a quarter of the turn"
    assert not set(DAYTIME_NAMES) & set(corpus.filtered(tmp_path).feature_names)


def test_candidates_in_unknown_time_are_no_false_alarms_of_the_filter(silent, tmp_path):
    corpus = Corpus(labels=["hum"])
    plain = corpus.filtered(tmp_path)
    everywhere = corpus.recordings[["recording_id"]].assign(start_s=0.0, end_s=DURATION_S, label="unknown")
    annotations = pd.concat([corpus.annotations, everywhere.assign(annotation_id="u")], ignore_index=True)
    filtered = corpus.filtered(tmp_path, annotations=annotations)
    assert plain.counts["fp"].sum() > 0 == filtered.counts["fp"].sum()
    assert filtered.selections["hit"].all() and "false_alarm" not in set(filtered.matches["outcome"])
    assert chosen(filtered.counts)["tp"].sum() == chosen(plain.counts)["tp"].sum()


def test_forest_that_knows_the_answer_removes_false_alarms(corpus, filtered):
    assert {(f.fold, f.label) for f in filtered.forests} == {(k, label) for k in corpus.folds for label in LABELS}
    assert all(f.forest is not None and f.reason == "" for f in filtered.forests)
    with_forest, without = chosen(filtered.counts), corpus.cnn_counts()
    assert with_forest["fp"].sum() < 0.2 * without["fp"].sum()
    assert with_forest["tp"].sum() >= without["tp"].sum()
    assert set(filtered.selections["layer"]) == {"cnn+rf"}
    assert filtered.selections["rf_probability"].between(0, 1).all()


def test_candidates_reach_below_the_networks_threshold_but_not_to_the_bottom(corpus, filtered):
    assert any(f.candidate_step < 1 for f in filtered.forests)
    for (fold, label), rows in filtered.selections.groupby(["fold", "label"]):
        own = corpus.selections[(corpus.selections["fold"] == fold) & (corpus.selections["label"] == label)]
        val_hits = own.loc[(own["split"] == "val") & own["hit"], "peak_score"]
        lowest = min(np.quantile(val_hits, 0.05), 1.0)
        assert rows.loc[rows["split"] == "test", "peak_score"].min() >= lowest - 1e-9


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_with_one_threshold_every_selection_is_a_candidate(silent, tmp_path, threshold):
    corpus = Corpus(n=12, labels=LABELS[:1])
    corpus.points = {fold: {"hum": chosen_point(threshold, "union")} for fold in corpus.folds}
    found = corpus.selections[corpus.selections["peak_score"] >= logit(threshold)].assign(selected=True)
    filtered = corpus.filtered(tmp_path, selections=found)
    tested = found[found["split"] == "test"]
    assert {f.n_rows for f in filtered.forests} == {(tested["fold"] != fold).sum() for fold in corpus.folds}, (
        "all out-of-fold selections are fitted on"
    )
    assert {f.candidate_step for f in filtered.forests} == {1.0}
    judged = filtered.selections[filtered.selections["split"] == "test"]
    assert sorted(judged["selection_id"]) == sorted(tested["selection_id"])


def test_probability_is_calibrated_and_the_raw_one_stays(filtered):
    for forest in filtered.forests:
        own = filtered.selections
        own = own[(own["fold"] == forest.fold) & (own["label"] == forest.label)]
        raw, calibrated = own["rf_probability"].to_numpy(), own["probability"].to_numpy()
        assert ((raw >= forest.threshold) == own["selected"]).all()
        assert forest.calibration.method == "platt" and forest.calibration.slope > 0
        assert (np.diff(calibrated[np.argsort(raw)]) >= -1e-12).all() and not np.allclose(raw, calibrated)
    judged = filtered.selections[filtered.selections["split"] == "test"]
    assert abs(judged["probability"].mean() - judged["hit"].mean()) < 0.1
    brier = ((judged["probability"] - judged["hit"]) ** 2).mean()
    assert brier <= ((judged["rf_probability"] - judged["hit"]) ** 2).mean() + 0.005


@pytest.mark.parametrize("folds", [3, 1])
def test_without_a_forest_the_layer_is_the_networks_own(silent, tmp_path, folds):
    corpus = Corpus(n=12, folds=folds, false_alarms=0)
    filtered = corpus.filtered(tmp_path)
    assert all(f.forest is None and "0 false alarms" in f.reason for f in filtered.forests)
    columns = ["n_gt", "n_pred", "tp", "fp", "fn", "duration_s"]
    pd.testing.assert_frame_equal(chosen(filtered.counts)[columns], corpus.cnn_counts()[columns], check_dtype=False)
    own = corpus.selections.query("split == 'test'").sort_values("selection_id", ignore_index=True)
    kept = filtered.selections.query("split == 'test'").sort_values("selection_id", ignore_index=True)
    same = ["selection_id", "recording_id", "start_s", "end_s", "label", "score", "peak_score", "model", "fold", "hit"]
    same += ["probability", "selected"]
    pd.testing.assert_frame_equal(kept[same], own[same])
    np.testing.assert_allclose(kept["rf_probability"], 1 / (1 + np.exp(-kept["peak_score"])))
    assert all(f.threshold == pytest.approx(THRESHOLD) for f in filtered.forests)
    assert len(filtered.importances) == len(filtered.dependence) == 0


def test_what_other_folds_found_is_put_on_the_scale_of_this_one(silent, tmp_path):
    corpus = Corpus(n=12, labels=["hum"], false_alarms=0)
    corpus.points = {fold: {"hum": chosen_point(threshold)} for fold, threshold in {1: 0.3, 2: 0.5, 3: 0.8}.items()}
    own = corpus.selections["fold"].map({1: 0.3, 2: 0.5, 3: 0.8}).map(logit)
    before = corpus.selections.assign(selected=corpus.selections["peak_score"] >= own).set_index("selection_id")
    filtered = corpus.filtered(tmp_path)
    assert all(f.forest is None for f in filtered.forests)
    for forest in filtered.forests:
        rows = filtered.selections[filtered.selections["fold"] == forest.fold].set_index("selection_id")
        assert {"val", "test"} == set(rows["split"])
        assert (rows["selected"] == before["selected"].reindex(rows.index)).all(), "also those of the other folds"


def test_every_recording_is_counted_also_without_candidates(corpus, filtered):
    counts = chosen(filtered.counts)
    assert len(counts) == 18 * len(LABELS)
    assert counts.index.is_unique
    empty = counts[counts["n_pred"] == 0].reset_index()
    assert {"r05", "r17"} <= set(empty["recording_id"])
    assert (
        empty.set_index("recording_id").loc["r05", "fn"].sum() == corpus.annotations["recording_id"].eq("r05").sum() > 0
    )
    assert counts["n_gt"].sum() == len(corpus.annotations)
    assert (counts["tp"] + counts["fn"] == counts["n_gt"]).all()
    assert (counts["tp"] + counts["fp"] == counts["n_pred"]).all()


def test_nothing_found_at_test_time(silent, tmp_path):
    corpus = Corpus()
    only_val = corpus.selections[corpus.selections["split"] == "val"]
    filtered = corpus.filtered(tmp_path, selections=only_val)
    assert all(f.forest is None for f in filtered.forests)
    counts = chosen(filtered.counts)
    assert counts["n_pred"].sum() == 0
    assert counts["n_gt"].sum() == len(corpus.annotations)
    assert len(filtered.selections) == 0


def test_network_that_finds_nothing_at_all(silent, tmp_path):
    corpus = Corpus(labels=["hum"])
    filtered = corpus.filtered(tmp_path, selections=corpus.selections.iloc[:0])
    assert chosen(filtered.counts)["fn"].sum() == len(corpus.annotations)
    assert set(filtered.counts["model"]) == {"m"}
    assert len(filtered.selections) == 0


def test_recordings_that_could_not_be_scored_are_left_out_as_in_the_evaluation(silent, monkeypatch, tmp_path):
    corpus = Corpus(labels=["hum"])
    searched = corpus.searched()
    monkeypatch.setattr(corpus, "searched", lambda: searched[searched["recording_id"] != "r00"])
    monkeypatch.setattr(corpus, "selections", corpus.selections[corpus.selections["recording_id"] != "r00"])
    counts = chosen(corpus.filtered(tmp_path).counts)
    assert "r00" not in counts.index.get_level_values("recording_id")
    assert counts["n_gt"].sum() == (corpus.annotations["recording_id"] != "r00").sum() < len(corpus.annotations)


def test_matches_and_counts_say_the_same_at_every_iou(filtered, tmp_path):
    for iou in (0.4, 0.9):
        counts = filtered.counts[filtered.counts["selected"] & (filtered.counts["iou"] == iou)].set_index(KEY)
        matches = filtered.matches[filtered.matches["iou_threshold"] == iou]
        outcomes = matches.groupby([*KEY, "outcome"]).size().unstack(fill_value=0).reindex(counts.index, fill_value=0)
        for outcome, column in {"hit": "tp", "false_alarm": "fp", "miss": "fn"}.items():
            np.testing.assert_array_equal(outcomes.get(outcome, 0 * counts[column]), counts[column])
    strict = filtered.counts[filtered.counts["iou"] == 0.9]
    assert strict["tp"].sum() == 0, "hits are shifted by a tenth: 0.82"
    assert filtered.selections["hit"].any(), "hits are told at the deciding threshold"
    for name, frame in {
        "selections": filtered.selections,
        "matches": filtered.matches,
        "counts": filtered.counts,
    }.items():
        write_table(tmp_path / f"{name}.parquet", name, frame)


def test_same_seed_same_tables(silent, tmp_path):
    corpus = Corpus(folds=1, labels=["hum"])
    first, second, other = (corpus.filtered(tmp_path, seed=seed) for seed in (5, 5, 6))
    pd.testing.assert_frame_equal(first.selections, second.selections)
    pd.testing.assert_frame_equal(first.counts, second.counts)
    assert not first.selections["rf_probability"].equals(other.selections["rf_probability"])


def test_forest_without_use_is_not_used(monkeypatch, tmp_path):
    def blind(root, candidates, shapes, recordings, *, n_mfcc, **settings):
        return pd.DataFrame(0.0, index=candidates.index, columns=list(feature_names(n_mfcc)))

    monkeypatch.setattr(stage, "candidate_features", blind)
    corpus = Corpus(labels=["hum"], false_alarms=12)
    corpus.points = {fold: {"hum": chosen_point(1 / (1 + np.exp(-2.5)))} for fold in corpus.folds}  # near the best
    filtered = corpus.filtered(tmp_path)
    assert all(f.forest is None and "gains no more than chance might" in f.reason for f in filtered.forests)
    assert all(f.filtered is not None and f.filtered <= f.alone + 0.05 for f in filtered.forests)
    own = corpus.selections.query("split == 'test'").set_index("selection_id")["peak_score"]
    kept = filtered.selections.query("split == 'test'").set_index("selection_id")["selected"]
    assert sorted(own.index) == sorted(kept.index) and (kept == (own >= 2.5).reindex(kept.index)).all()


def test_fixed_thresholds_stand_in_points_by_group(filtered):
    counts, points = filtered.counts, filtered.points
    assert counts["selected"].all() and set(counts["operating_point"]) == {"selected"}
    assert set(points["role"]) == {"fixed"} and set(points["operating_point"]) == {"rf0.50"}
    assert points["off_threshold"].isna().all() and set(points["threshold"]) == {0.5}
    rows = filtered.selections
    rows = rows[(rows["split"] == "test") & (rows["rf_probability"] >= 0.5)]
    deciding = points[points["iou"] == 0.4]
    assert deciding["n_pred"].sum() == len(rows) and deciding["tp"].sum() == rows["hit"].sum()
    tested = counts[(counts["split"] == "test") & (counts["iou"] == 0.4)]
    for column in ("n_gt", "duration_s"):
        by_group = tested.groupby(["fold", "label", "group"])[column].sum()
        found = deciding.set_index(["fold", "label", "group"])[column]
        np.testing.assert_allclose(found.reindex(by_group.index), by_group)


def test_criterion_of_the_label_decides(silent, tmp_path):
    budget = {"by": "recall", "false_alarms_per_hour": 12.0}
    evaluation = EvaluationSettings(thresholds=[], bootstrap=0, choice_of={"cluck": budget})
    filtered = Corpus().filtered(tmp_path, evaluation=evaluation)
    words = {f.label: f.chosen_by for f in filtered.forests}
    assert words == {"hum": "the best F1", "cluck": "the best recall with at most 12 false alarms per hour"}
    assert all(f.alone < f.filtered > 0 for f in filtered.forests if f.label == "cluck"), "it keeps the budget"
    assert all(0 < f.alone < f.filtered for f in filtered.forests if f.label == "hum")


def test_importances_and_dependence_of_all_folds(filtered):
    names = list(feature_names(1))
    told = filtered.importances
    assert told.groupby(["label", "fold"]).size().to_dict() == {
        (label, fold): len(names) for label in LABELS for fold in ("1", "2", "3", "pooled")
    }
    pooled = told[told["fold"] == "pooled"].set_index(["label", "feature"])
    for label in LABELS:
        own = pooled.loc[label]
        assert own["drop"].idxmax() == names[2] and own.loc[names[2], "helps"], "the length tells"
        assert not own["helps"].drop([names[0], names[1], names[2]]).any(), "zeros never help"
        assert own["n_groups"].eq(9).all()
    curve = filtered.dependence.query("label == 'hum' and rank == 1").sort_values("value")
    assert set(curve["feature"]) == {names[2]} and curve["probability"].iloc[-1] > curve["probability"].iloc[0] + 0.5
    for name, frame in {"importances": told, "dependence": filtered.dependence, "points": filtered.points}.items():
        pd.testing.assert_frame_equal(frame, table(name, frame))


def test_features_are_written_by_name(corpus, filtered, tmp_path):
    path = tmp_path / "features.parquet"
    write_features(path, filtered.features)
    found = read_features(path)
    pd.testing.assert_frame_equal(found, filtered.features)
    assert list(found) == ["selection_id", "hit", "group", *feature_names(1)] and filtered.feature_names == list(
        feature_names(1)
    )
    assert found["selection_id"].is_unique and set(found["selection_id"]) <= set(corpus.selections["selection_id"])
    first = path.read_bytes()
    write_features(path, filtered.features)
    assert path.read_bytes() == first
    write_table(path, "importances", filtered.importances)
    with pytest.raises(DataError, match="expected table 'features' version"):
        read_features(path)
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_features(path)


def test_forests_are_saved_with_what_applying_them_needs(filtered, monkeypatch, tmp_path):
    saved = {}
    monkeypatch.setattr(stage, "save_forest", lambda path, forest, facts: saved.update({path: (forest, facts)}))
    gone = replace(filtered.forests[-1], forest=None, candidate=None, calibration=None, reason="There are only 2 hits.")
    summary = stage.save_forests(tmp_path / "forests", [*filtered.forests, gone], filtered.feature_names)
    write_json(tmp_path / "forests.json", summary)
    assert [path.name for path in saved] == [s["file"] for s in summary[:-1]]
    assert "file" not in summary[-1] and summary[-1]["reason"] == "There are only 2 hits."
    for fitted, facts, (forest, card) in zip(filtered.forests, summary[:-1], saved.values(), strict=True):
        assert forest is fitted.forest
        assert card["feature_names"] == list(feature_names(1))
        wanted = ("model", "layer", "fold", "label", "kind", "threshold", "candidate_step", "alone", "filtered")
        assert [card[k] for k in wanted] == [facts[k] for k in wanted] == [getattr(fitted, k) for k in wanted]
        assert card["candidate"]["min_samples_leaf"] == 2 and card["calibration"]["method"] == "platt"


def test_features_go_to_the_selection_that_they_describe(tmp_path, monkeypatch):
    random = np.random.default_rng(3)
    corpus = Corpus(n=12, labels=["hum"])
    rate, n = 2000, int(2000 * DURATION_S) - 700
    corpus.recordings = corpus.recordings.assign(n_samples=n, sample_rate=rate, duration_s=n / rate)
    for path in corpus.recordings["path"]:
        soundfile.write(tmp_path / path, random.normal(0, 0.1, n), rate, subtype="PCM_16")
    last = corpus.selections["selection_id"] == corpus.selections.query("split == 'test'")["selection_id"].iloc[0]
    over = corpus.selections.assign(
        start_s=corpus.selections["start_s"].mask(last, n / rate - 0.5),
        end_s=corpus.selections["end_s"].mask(last, n / rate + 0.002),  # the last frame reaches beyond the end
    )
    filtered = corpus.filtered(tmp_path, selections=over)
    features = filtered.features.set_index("selection_id")
    candidates = over[over["selection_id"].isin(features.index)]
    assert len(candidates) == len(features) > 20
    assert (candidates["end_s"] > n / rate).sum() == 1
    for row in random.choice(len(candidates), 10, replace=False):
        one = candidates.iloc[[row]]
        path = tmp_path / f"{one['recording_id'].iloc[0]}.wav"
        band = {"window_s": 0.02, "low_hz": 100.0, "high_hz": 1000.0, "n_mfcc": 1}
        expected = selection_features(path, inspect(path), one["start_s"], one["end_s"], one["score"], **band)
        found = features.loc[one["selection_id"].iloc[0], list(feature_names(1))]
        np.testing.assert_allclose(found.to_numpy(dtype=float), expected[0], rtol=1e-4, atol=1e-5)
