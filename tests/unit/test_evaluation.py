"""Operating points, judging, counting."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from evaluation_scenes import GRID, HOP_S, N_FRAMES, bumps, one_threshold, validation_hits

from otus.atomic import write_json
from otus.config import DecodingSettings, EvaluationSettings
from otus.errors import StageError
from otus.evaluation import (
    FoldScores,
    Judged,
    count_per_recording,
    evaluate_model,
    judge,
    matched_pairs,
    read_fold,
    read_thresholds,
    write_thresholds,
)
from otus.evaluation.calibration import calibrated
from otus.evaluation.operating import ScoredRecording
from otus.evaluation.tally import settle
from otus.matching import Intervals
from otus.scores import ScoreWriter
from otus.selections import DecodingPoint, logit
from otus.sides import EVERYWHERE, Spans, recordings_by_side, side_spans
from otus.tables import table, write_table

SETTINGS = EvaluationSettings(thresholds=[0.3, 0.9], bootstrap=50)
LABELS = ["hum", "cluck"]


# judge, count_per_recording, matched_pairs


def spans(recording_id, *rows):
    columns = ["recording_id", "start_s", "end_s", "rank"]
    return pd.DataFrame([(recording_id, *row) for row in rows], columns=columns)


def calls_in(recording_id, *rows):
    frame = pd.DataFrame([(recording_id, *row) for row in rows], columns=["recording_id", "start_s", "end_s"])
    return frame.assign(annotation_id=[f"{recording_id}_a{i}" for i in range(len(frame))])


@pytest.fixture
def judged():
    """Recording a: a hit, its double, a miss; b: only a false alarm; c: only a miss; d: nothing."""
    selections = pd.concat(
        [spans("b", (0.0, 1.0, 3.0)), spans("a", (0.1, 1.0, 1.0), (0.0, 1.0, 2.0), (7.0, 8.5, 0.0))], ignore_index=True
    )
    selections["selection_id"] = [f"s{i}" for i in range(len(selections))]
    selections["score"] = selections["rank"] / 2
    annotations = pd.concat([calls_in("c", (1.0, 2.0)), calls_in("a", (0.0, 1.0), (7.0, 8.0), (20.0, 21.0))])
    recordings = pd.DataFrame({"recording_id": list("abcd"), "group": list("xxyy"), "duration_s": [30.0] * 4})
    return Judged(selections.set_axis([9, 4, 7, 1]), annotations, recordings)  # an index as filtering leaves it


def test_hits_by_falling_rank(judged):
    assert judge(judged, 0.4).tolist() == [False, False, True, True]
    assert judge(judged, 0.8).tolist() == [False, False, True, False]


def test_counts_of_every_recording_also_of_those_without_anything(judged):
    counts = count_per_recording(judged, judge(judged, 0.4), {"selected": 0.5, "low": -1.0}, "selected")
    assert len(counts) == 8
    chosen = counts[counts["selected"]].set_index("recording_id")
    assert chosen["n_gt"].tolist() == [3, 0, 1, 0]
    assert chosen["n_pred"].tolist() == [2, 1, 0, 0]
    assert chosen["tp"].tolist() == [1, 0, 0, 0]
    assert chosen["fp"].tolist() == [1, 1, 0, 0]
    assert chosen["fn"].tolist() == [2, 0, 1, 0]
    assert chosen.loc["a", ["precision", "recall", "f1"]].tolist() == pytest.approx([1 / 2, 1 / 3, 2 / 5])
    assert math.isnan(chosen.loc["b", "recall"])
    assert math.isnan(chosen.loc["c", "precision"])
    assert chosen.loc["d", ["precision", "recall", "f1"]].isna().all(), "nothing there and nothing found is no number"
    low = counts[~counts["selected"]].set_index("recording_id")
    assert low["tp"].tolist() == [2, 0, 0, 0]
    assert set(low["operating_point"]) == {"low"}


def test_outcomes_are_hits_false_alarms_and_misses(judged):
    pairs = matched_pairs(judged, 0.4)
    outcomes = pairs.groupby(["recording_id", "outcome"]).size().to_dict()
    assert outcomes == {
        ("a", "hit"): 2,
        ("a", "false_alarm"): 1,
        ("a", "miss"): 1,
        ("b", "false_alarm"): 1,
        ("c", "miss"): 1,
    }
    hits = pairs[pairs["outcome"] == "hit"].set_index("selection_id")
    assert hits.loc["s2", ["annotation_id", "iou", "onset_error_s"]].tolist() == ["a_a0", 1.0, 0.0]
    assert hits.loc["s3", "iou"] == pytest.approx(1 / 1.5)
    assert hits.loc["s3", "offset_error_s"] == pytest.approx(0.5)
    assert hits["score"].tolist() == [1.0, 0.0]
    missed = pairs[pairs["outcome"] == "miss"]
    assert missed["annotation_id"].tolist() == ["a_a2", "c_a0"]
    assert missed["selection_id"].isna().all()
    assert missed["onset_error_s"].isna().all()


# evaluate_model


def scene(random, n_calls):
    """Annotated intervals (frames) and the detections of a network that is good, not perfect."""
    slots = random.permutation(np.arange(5, N_FRAMES - 25, 20))
    heights = np.concatenate([random.normal(3, 1.5, n_calls), random.normal(-0.5, 1.5, 3)])
    starts = slots[: n_calls + 3]
    lengths = np.where(random.random(len(starts)) < 0.7, 10, 5)  # half as long is a hit at IoU 0.4, not at 0.6
    return starts, lengths, heights


def corpus(seed=0, n_parts=3, labels=LABELS):
    """Folds of a grouped cross-validation and the annotations: two recordings per group, two groups per part."""
    random = np.random.default_rng(seed)
    rows, logits, ids = [], {}, [f"r{i:02d}" for i in range(4 * n_parts)]
    for number, recording_id in enumerate(ids):
        planes = []
        for label in labels:
            n_calls = 0 if number % 4 == 3 else int(random.integers(1, 5))
            starts, lengths, heights = scene(random, n_calls)
            planes.append(bumps(starts, lengths, heights))
            rows += [(recording_id, start * HOP_S, start * HOP_S + 1.0, label) for start in starts[:n_calls]]
        logits[recording_id] = np.concatenate([np.stack(planes), np.full((len(labels), N_FRAMES), -9.0)])
    annotations = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s", "label"])
    annotations["annotation_id"] = [f"a{i}" for i in range(len(annotations))]
    folds = []
    for fold in range(n_parts):
        split = {fold: "test", (fold + 1) % n_parts: "val"}
        recordings = pd.DataFrame(
            {"recording_id": ids, "group": [f"g{i // 2:02d}" for i in range(len(ids))], "duration_s": N_FRAMES * HOP_S}
        ).assign(split=[split.get(i // 4, "train") for i in range(len(ids))])
        recordings = recordings[recordings["split"] != "train"].reset_index(drop=True)
        noise = {i: logits[i] + random.normal(0, 0.2, size=logits[i].shape) for i in recordings["recording_id"]}
        whole = {side: dict.fromkeys(rows["recording_id"], EVERYWHERE) for side, rows in recordings.groupby("split")}
        folds.append(FoldScores(fold + 1, list(labels), recordings, noise, HOP_S, GRID, whole, leaky=False))
    return folds, annotations


def evaluate(folds, annotations, labels=LABELS, **changes):
    return evaluate_model(
        folds, annotations, classes=labels, settings=SETTINGS.model_copy(update=changes), model="grouped-dense"
    )


@pytest.fixture(scope="module")
def evaluation():
    """The judgement of that corpus at two IoU thresholds."""
    return evaluate(*corpus(), iou=[0.4, 0.6])


def test_counts_add_up(evaluation):
    counts = evaluation.counts
    assert (counts["tp"] + counts["fn"] == counts["n_gt"]).all()
    assert (counts["tp"] + counts["fp"] == counts["n_pred"]).all()
    assert (counts[["tp", "fp", "fn"]] >= 0).all(axis=None)
    # 3 folds x 8 recordings (val and test) x 2 labels x 2 iou
    assert len(counts) == 3 * 8 * 2 * 2
    assert counts["selected"].all() and set(counts["operating_point"]) == {"selected"}
    assert not counts.duplicated(["fold", "split", "label", "iou", "operating_point", "recording_id"]).any()
    assert set(table("counts", counts)) == set(counts.columns)


def test_every_recording_is_tested_once_and_all_its_calls_count(evaluation):
    _, annotations = corpus()
    counts = evaluation.counts
    tested = counts[(counts["split"] == "test") & counts["selected"] & (counts["iou"] == 0.4)]
    for label, rows in tested.groupby("label"):
        assert rows["recording_id"].is_unique
        assert len(rows) == 12
        truth = annotations.loc[annotations["label"] == label, "recording_id"].value_counts()
        np.testing.assert_array_equal(rows.set_index("recording_id")["n_gt"].reindex(truth.index), truth)
        assert rows["n_gt"].sum() == truth.sum() > 0


@pytest.mark.parametrize("iou", [0.4, 0.6])
def test_counts_and_matches_say_the_same(evaluation, iou):
    key = ["fold", "split", "label", "recording_id"]
    counts = evaluation.counts[evaluation.counts["selected"] & (evaluation.counts["iou"] == iou)].set_index(key)
    matches = evaluation.matches[evaluation.matches["iou_threshold"] == iou]
    outcomes = matches.groupby([*key, "outcome"]).size().unstack(fill_value=0).reindex(counts.index, fill_value=0)
    for outcome, column in {"hit": "tp", "false_alarm": "fp", "miss": "fn"}.items():
        np.testing.assert_array_equal(outcomes[outcome], counts[column])
    assert (matches.loc[matches["outcome"] == "hit", "iou"] >= iou - 1e-9).all()
    assert set(matches.set_index(key).index) <= set(counts.index), "nothing of other recordings"


def test_a_stricter_iou_finds_less(evaluation):
    tp = evaluation.counts[evaluation.counts["selected"]].groupby("iou")["tp"].sum()
    assert 0 < tp[0.6] < tp[0.4]


def test_selections_and_counts_say_the_same(evaluation):
    selections = evaluation.selections
    key = ["fold", "split", "label", "recording_id"]
    counts = evaluation.counts[evaluation.counts["selected"] & (evaluation.counts["iou"] == 0.4)].set_index(key)
    selected = selections[selections["selected"]].groupby(key)["hit"].agg(["size", "sum"])
    selected = selected.reindex(counts.index, fill_value=0)
    np.testing.assert_array_equal(selected["size"], counts["n_pred"])
    np.testing.assert_array_equal(selected["sum"], counts["tp"])
    assert selections["selection_id"].is_unique
    assert not selections["selected"].all(), "what was not selected is kept for the forest and for the curves"
    assert (selections["end_s"] > selections["start_s"]).all()
    assert selections["rf_probability"].isna().all()


def test_counts_have_the_threshold_of_their_fold_and_label(evaluation):
    for (fold, label), rows in evaluation.counts.groupby(["fold", "label"]):
        assert set(rows["threshold"]) == {evaluation.operating_points[fold][label].threshold}


def test_operating_points_survive_their_file_exactly(evaluation, tmp_path):
    write_thresholds(tmp_path / "thresholds.yaml", "grouped-dense", evaluation.operating_points)
    again = read_thresholds(tmp_path / "thresholds.yaml")
    assert again == evaluation.operating_points
    selections = evaluation.selections
    for (fold, label), rows in selections.groupby(["fold", "label"]):
        threshold = logit(again[fold][label].threshold)
        np.testing.assert_array_equal(rows["peak_score"] >= threshold, rows["selected"])


def test_evaluation_is_deterministic():
    folds, annotations = corpus()
    first, second = (evaluate(folds[:1], annotations, thresholds=[]) for _ in range(2))
    assert first.operating_points == second.operating_points
    for name in ("selections", "matches", "counts"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def tampered(folds, annotations, groups, seed):
    """Other scores, in every fold, and other labels for the recordings of `groups`."""
    random = np.random.default_rng(seed)
    of_groups = set().union(*(set(f.recordings.loc[f.recordings["group"].isin(groups), "recording_id"]) for f in folds))
    changed = [
        replace(f, logits={i: random.normal(0, 5, v.shape) if i in of_groups else v for i, v in f.logits.items()})
        for f in folds
    ]
    kept = annotations[~annotations["recording_id"].isin(of_groups)]
    rows = []
    for number, recording_id in enumerate(sorted(of_groups)):
        for start in random.uniform(0, N_FRAMES * HOP_S - 3, size=int(random.integers(0, 9))):
            rows.append((recording_id, start, start + random.uniform(0.2, 3), LABELS[number % 2], f"t{len(rows)}"))
    made = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s", "label", "annotation_id"])
    return changed, pd.concat([made, kept], ignore_index=True)


@pytest.mark.parametrize("number", range(3))
def test_operating_point_never_depends_on_the_groups_that_the_fold_tests(evaluation, number):
    folds, annotations = corpus()
    recordings = folds[number].recordings
    fold = folds[number].fold
    tested = set(recordings.loc[recordings["split"] == "test", "group"])
    changed = evaluate(*tampered(folds, annotations, tested, seed=number), thresholds=[])
    assert changed.operating_points[fold] == evaluation.operating_points[fold]
    others = {k: v for k, v in changed.operating_points.items() if k != fold}
    assert others != {k: v for k, v in evaluation.operating_points.items() if k != fold}, "the test could not fail"


def test_validation_of_a_fold_is_every_other_group_once(evaluation):
    folds, annotations = corpus()
    groups = (annotations["recording_id"].str[1:].astype(int) // 2).map("g{:02d}".format)
    for fold in folds:
        others = annotations[~groups.isin(fold.recordings.loc[fold.recordings["split"] == "test", "group"])]
        for label in LABELS:
            assert evaluation.operating_points[fold.fold][label].n_calls == (others["label"] == label).sum()


def test_where_a_fold_tests_a_site_its_own_validation_recordings_choose_alone():
    folds, annotations = corpus()
    of_sites = [replace(fold, recordings=fold.recordings.assign(part=f"site_{fold.fold}")) for fold in folds]
    result = evaluate(of_sites, annotations)
    for fold in of_sites:
        val = fold.recordings[fold.recordings["split"] == "val"]
        own = annotations[annotations["recording_id"].isin(val["recording_id"])]
        for label in LABELS:
            assert result.operating_points[fold.fold][label].n_calls == (own["label"] == label).sum()


def test_single_split_uses_its_own_validation_recordings():
    folds, annotations = corpus()
    result = evaluate(folds[:1], annotations)
    val = folds[0].recordings.query("split == 'val'")["recording_id"]
    for label in LABELS:
        calls = annotations[(annotations["label"] == label) & annotations["recording_id"].isin(val)]
        assert result.operating_points[1][label].n_calls == len(calls)
    assert set(result.counts["split"]) == {"val", "test"}


def test_each_label_is_split_at_its_own_onsets():
    folds, _ = corpus()
    fold = folds[0]
    two_calls = np.full((4, N_FRAMES), -9.0)
    two_calls[:2, 50:90] = 4.0  # both labels are active
    two_calls[2, [50, 70]] = 4.0  # but only hum begins again in the middle
    grid = [DecodingPoint(0.5, 0.5, 0.0, 0.0, 0.2)]
    touching = replace(fold, logits=dict.fromkeys(fold.logits, two_calls), grid=grid)
    rows = [(r, start, end, "hum") for r in fold.logits for start, end in ((5.0, 7.0), (7.0, 9.0))]
    annotations = pd.DataFrame([*rows, *((r, 5.0, 9.0, "cluck") for r in fold.logits)])
    annotations.columns = ["recording_id", "start_s", "end_s", "label"]
    annotations["annotation_id"] = [f"a{i}" for i in range(len(annotations))]
    result = evaluate([touching], annotations)
    counts = result.counts[result.counts["selected"]]
    assert (counts["n_pred"] == counts["label"].map({"hum": 2, "cluck": 1})).all()
    assert (counts["f1"] == 1.0).all()


# decodings with one threshold, calibration


@pytest.fixture(scope="module", params=["threshold", "union"])
def one_each(request):
    """The judgement of the corpus with one threshold, and the folds."""
    folds, annotations = corpus()
    grid = one_threshold(0.5, 0.3, 0.7, merge=request.param, window=3 if request.param == "union" else 1)
    folds = [replace(fold, grid=grid) for fold in folds]
    return evaluate(folds, annotations, thresholds=[0.3, 0.6, 0.95], iou=[0.4, 0.6]), folds, annotations


def test_with_one_threshold_everything_decoded_is_selected(one_each):
    result, _, _ = one_each
    assert len(result.selections) and result.selections["selected"].all()
    assert set(result.selections["operating_point"].str[:3]) <= {"thr", "uni"}
    agree(result)
    for points in result.operating_points.values():
        for point in points.values():
            assert point.threshold == point.decoding.off_threshold


def test_every_selection_has_the_probability_of_its_folds_calibration(evaluation):
    assert evaluation.selections["probability"].between(0, 1).all()
    for (fold, label), rows in evaluation.selections.groupby(["fold", "label"]):
        calibration = evaluation.operating_points[fold][label].calibration
        assert calibration.method == "platt" and calibration.n_hits >= 5
        expected = calibrated(calibration, rows["peak_score"].to_numpy(dtype=float))
        np.testing.assert_array_equal(rows["probability"], expected)
        assert rows.loc[rows["hit"], "probability"].mean() > rows.loc[~rows["hit"], "probability"].mean()


def test_calibration_is_fitted_on_what_chose_the_operating_point(evaluation):
    """All candidates of the validation recordings above the off-threshold, and no other."""
    folds, annotations = corpus()
    fold, label = folds[0], LABELS[0]
    tested = set(fold.recordings.loc[fold.recordings["split"] == "test", "group"])
    n = 0
    for other in folds:
        own = other.recordings[(other.recordings["split"] == "val") & ~other.recordings["group"].isin(tested)]
        grid = evaluation.operating_points[1][label].decoding
        for recording_id in own["recording_id"]:
            activity = other.logits[recording_id][0]
            calls = annotations[(annotations["recording_id"] == recording_id) & (annotations["label"] == label)]
            truth = Intervals(calls["start_s"].to_numpy(), calls["end_s"].to_numpy())
            scored = ScoredRecording(activity, np.full(N_FRAMES, -9.0), HOP_S, [grid], truth, 30.0)
            n += len(validation_hits([scored], 0, iou=0.4)[0])
    assert evaluation.operating_points[1][label].calibration.n == n > 0


def test_without_calibration_there_is_no_probability():
    folds, annotations = corpus()
    result = evaluate(folds[:1], annotations, calibration="none")
    assert result.selections["probability"].isna().all()
    few = evaluate(folds[:1], annotations[annotations["label"] == "hum"])
    cluck = few.operating_points[1]["cluck"].calibration
    assert (cluck.method, cluck.reason) == ("none", "only 0 hits on validation, 5 are needed")
    assert few.selections.loc[few.selections["label"] == "cluck", "probability"].isna().all()


def test_label_without_validation_calls_and_network_that_finds_nothing(tmp_path):
    folds, annotations = corpus()
    silent = [replace(f, logits={i: np.full_like(v, -9) for i, v in f.logits.items()}) for f in folds]
    result = evaluate(silent, annotations[annotations["label"] == "hum"])
    write_thresholds(tmp_path / "thresholds.yaml", "m", result.operating_points)
    assert read_thresholds(tmp_path / "thresholds.yaml") == result.operating_points
    assert len(result.selections) == 0
    assert (result.counts["n_pred"] == 0).all()
    assert result.counts.loc[result.counts["label"] == "hum", "fn"].sum() > 0
    assert result.counts.loc[result.counts["label"] == "cluck", "n_gt"].sum() == 0
    assert set(result.matches["outcome"]) == {"miss"}
    for name, frame in {"selections": result.selections, "matches": result.matches, "counts": result.counts}.items():
        write_table(tmp_path / f"{name}.parquet", name, frame)


# Sides that are parts of recordings, and what is unknown

LENGTH_S = N_FRAMES * HOP_S
MIDDLE_S = 15.2  # in nobody's call: they begin at 0.5, 2.5, ... s and last 1 s


def from_tables(folds, rows_of):
    """The folds with the sides that a table of splits gives; `rows_of` makes its rows from a row of recordings."""
    rates = pd.Series(1000, index=[f"r{i:02d}" for i in range(12)])
    made = []
    for fold in folds:
        rows = [{**one, **part} for one in fold.recordings.to_dict("records") for part in rows_of(one)]
        splits = pd.DataFrame(rows).assign(
            start_sample=lambda r: (r["start"] * 1000).astype(int), end_sample=lambda r: (r["end"] * 1000).astype(int)
        )
        spans = {side: side_spans(splits, rates, side) for side in ("val", "test")}
        leaky = splits.groupby("recording_id")["split"].nunique().max() > 1
        recordings = recordings_by_side(splits, rates)
        made.append(replace(fold, recordings=recordings[recordings["split"] != "train"], spans=spans, leaky=leaky))
    return made


def halves(one):
    """Every recording is validated on in its first half and tested on in its second."""
    return {"split": "val", "start": 0.0, "end": MIDDLE_S}, {"split": "test", "start": MIDDLE_S, "end": LENGTH_S}


@pytest.fixture(scope="module")
def leaky():
    """The judgement of two folds of halves."""
    folds, annotations = corpus()
    return evaluate(from_tables(folds[:2], halves), annotations, iou=[0.4, 0.6])


def test_whole_recordings_from_the_table_of_splits_change_no_number(evaluation):
    folds, annotations = corpus()
    whole = from_tables(folds, lambda one: [{"start": 0.0, "end": LENGTH_S}])
    assert not any(f.leaky for f in whole)
    again = evaluate(whole, annotations, iou=[0.4, 0.6])
    for name in ("selections", "matches", "counts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(evaluation, name), check_exact=True)
        assert not getattr(again, name)["leaky"].any()
    assert again.operating_points == evaluation.operating_points


def test_each_side_of_a_recording_has_its_own_calls_selections_and_time(leaky):
    _, annotations = corpus()
    counts = leaky.counts[leaky.counts["selected"] & (leaky.counts["iou"] == 0.4)]
    assert not counts.duplicated(["fold", "split", "label", "recording_id"]).any()
    assert set(counts.groupby(["fold", "label", "recording_id"]).size()) == {2}
    for split, length_s in {"val": MIDDLE_S, "test": LENGTH_S - MIDDLE_S}.items():
        rows = counts[counts["split"] == split]
        np.testing.assert_allclose(rows["duration_s"], length_s)
        for (label, recording_id), own in rows.groupby(["label", "recording_id"]):
            calls = annotations[(annotations["label"] == label) & (annotations["recording_id"] == recording_id)]
            here = (calls["start_s"] < MIDDLE_S) == (split == "val")
            assert (own["n_gt"] == here.sum()).all()
    middle = (leaky.selections["start_s"] + leaky.selections["end_s"]) / 2
    np.testing.assert_array_equal(np.where(middle < MIDDLE_S, "val", "test"), leaky.selections["split"])
    assert leaky.selections["selection_id"].is_unique, "also where a recording stands on both sides"
    for frame in (leaky.selections, leaky.matches, leaky.counts):
        assert frame["leaky"].all()


def test_counts_selections_and_matches_of_parts_say_the_same(leaky):
    agree(leaky)


def test_leaky_operating_point_is_chosen_on_the_validation_time_of_the_fold_alone(leaky):
    folds, annotations = corpus()
    here = annotations[annotations["start_s"] < MIDDLE_S]
    for fold in folds[:2]:
        own = here[here["recording_id"].isin(fold.recordings["recording_id"])]
        for label in LABELS:
            assert leaky.operating_points[fold.fold][label].n_calls == (own["label"] == label).sum() > 0


def agree(result):
    """Counts, selections (at the first IoU) and matches (at every IoU) tell the same story."""
    key = ["fold", "split", "label", "recording_id"]
    for iou in (0.4, 0.6):
        counts = result.counts[result.counts["selected"] & (result.counts["iou"] == iou)].set_index(key)
        matches = result.matches[result.matches["iou_threshold"] == iou]
        outcomes = matches.groupby([*key, "outcome"]).size().unstack(fill_value=0).reindex(counts.index, fill_value=0)
        for outcome, column in {"hit": "tp", "false_alarm": "fp", "miss": "fn"}.items():
            np.testing.assert_array_equal(outcomes.get(outcome, 0 * counts[column]), counts[column])
        if iou == 0.4:
            chosen = result.selections[result.selections["selected"]].groupby(key)["hit"].agg(["size", "sum"])
            np.testing.assert_array_equal(chosen["size"].reindex(counts.index, fill_value=0), counts["n_pred"])
            np.testing.assert_array_equal(chosen["sum"].reindex(counts.index, fill_value=0), counts["tp"])


def with_unknown(annotations, rows):
    """More annotations, which are labelled unknown: (recording_id, start_s, end_s)."""
    more = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s"]).assign(label="unknown")
    more["annotation_id"] = [f"u{i}" for i in range(len(more))]
    return pd.concat([annotations, more], ignore_index=True)


def test_selections_in_unknown_time_are_neither_hits_nor_false_alarms(evaluation):
    folds, annotations = corpus()
    strict = evaluation.selections[~evaluation.selections["hit"]]
    unknown = strict[["recording_id", "start_s", "end_s"]].drop_duplicates().itertuples(index=False)
    result = evaluate(folds, with_unknown(annotations, list(unknown)), iou=[0.4, 0.6])
    agree(result)
    counts = result.counts
    assert counts.loc[counts["iou"] == 0.4, "fp"].sum() == 0 < evaluation.counts["fp"].sum()
    assert result.selections["hit"].all()
    at_first = result.matches[result.matches["iou_threshold"] == 0.4]
    assert "false_alarm" not in set(at_first["outcome"])
    assert set(result.matches["label"]) == set(LABELS), "what is unknown is no miss either"


def test_a_hit_counts_also_where_somebody_wrote_unknown(evaluation):
    folds, annotations = corpus()
    everywhere = [(recording_id, 0.0, LENGTH_S) for recording_id in sorted(set(annotations["recording_id"]))]
    result = evaluate(folds, with_unknown(annotations, everywhere), iou=[0.4, 0.6])
    agree(result)
    chosen = result.counts[result.counts["selected"] & (result.counts["iou"] == 0.4)]
    truth = annotations.groupby("label").size()
    assert chosen[chosen["split"] == "test"].groupby("label")["n_gt"].sum().to_dict() == truth.to_dict()
    assert chosen["tp"].sum() >= 0.9 * evaluation.counts.query("selected and iou == 0.4")["tp"].sum()


def test_a_selection_that_is_unknown_at_less_than_half_is_a_false_alarm():
    selections = spans("a", (0.0, 1.0, 2.0), (4.0, 5.0, 1.0)).assign(selection_id=["s0", "s1"], score=0.0)
    recordings = pd.DataFrame({"recording_id": ["a"], "group": ["g"], "duration_s": [9.0]})
    unknown = {"a": Spans(np.array([0.5, 4.6]), np.array([0.9, 5.0]))}
    one, hits = settle(Judged(selections, calls_in("a", (8.0, 9.0)), recordings, unknown), 0.4)
    assert len(one.selections) == len(hits) == 2
    unknown = {"a": Spans(np.array([0.5, 4.6]), np.array([1.0, 5.0]))}
    one, hits = settle(Judged(selections, calls_in("a", (8.0, 9.0)), recordings, unknown), 0.4)
    assert one.selections["selection_id"].tolist() == ["s1"] and hits.tolist() == [False]


# read_fold


def stored_fold(tmp_path, statuses, splits):
    """A fold's files: one chunk of ten frames per status of each recording."""
    items, path = [], tmp_path / "scores.parquet"
    with ScoreWriter(path, ["hum"], HOP_S) as writer:
        for recording_id, states in statuses.items():
            for chunk, status in enumerate(states):
                items.append({"chunk_id": f"{recording_id}_{chunk}", "recording_id": recording_id, "status": status})
                if status == "ok":
                    writer.write(recording_id, 10 * chunk, np.zeros((2, 10), dtype=np.float32))
    write_table(tmp_path / "items.parquet", "items", table("items", items))
    write_json(tmp_path / "card.json", {"median_call_s": 1.0, "short_call_s": 0.5, "window_frames": 7})
    return read_fold(
        3,
        card_path=tmp_path / "card.json",
        scores_paths=[path],
        items_paths=[tmp_path / "items.parquet"],
        recordings=pd.DataFrame({"recording_id": list(splits), "sample_rate": 1000, "group": "not this one"}),
        splits=pd.DataFrame(
            {"recording_id": list(splits), "group": [f"g{i}" for i in splits], "split": list(splits.values())}
        ).assign(start_sample=0, end_sample=2000, leaky=False, part=None),
        decoding=DecodingSettings(merge="union", off_thresholds=[0.5], onset_thresholds=[1.0], gaps=[0.5]),
    )


def test_reading_a_fold(tmp_path):
    splits = {"a": "train", "b": "val", "c": "test", "d": "test"}
    statuses = {"a": ["skipped", "skipped"], "b": ["ok", "ok"], "c": ["ok", "failed"], "d": ["ok", "ok"]}
    fold = stored_fold(tmp_path, statuses, splits)
    assert fold.fold == 3
    assert fold.classes == ["hum"]
    assert fold.frame_hop_s == HOP_S
    assert set(fold.logits) == set(fold.recordings["recording_id"]) == {"b", "d"}, "c has a failed chunk"
    assert fold.recordings.set_index("recording_id")["group"].to_dict() == {"b": "gb", "d": "gd"}
    assert fold.logits["b"].shape == (2, 20)
    assert [p.gap_s for p in fold.grid] == [0.5]
    assert [p.window_frames for p in fold.grid] == [7]


def test_a_fold_of_parts_has_a_row_for_every_recording_and_split(tmp_path):
    rows = pd.DataFrame(
        [("b", "val", 0, 500), ("b", "train", 500, 800), ("b", "val", 800, 2000), ("c", "train", 0, 700)],
        columns=["recording_id", "split", "start_sample", "end_sample"],
    )
    parts = pd.concat([rows, rows.tail(1).assign(split="test", start_sample=700, end_sample=2000)]).assign(
        group="g", part=None
    )
    stored_fold(tmp_path, {"b": ["ok"], "c": ["ok"]}, {"b": "val", "c": "test"})
    fold = read_fold(
        1,
        card_path=tmp_path / "card.json",
        scores_paths=[tmp_path / "scores.parquet"],
        items_paths=[tmp_path / "items.parquet"],
        recordings=pd.DataFrame({"recording_id": ["b", "c"], "sample_rate": 1000}),
        splits=parts.assign(leaky=True),
        decoding=DecodingSettings(),
    )
    assert fold.leaky and set(fold.logits) == {"b", "c"}
    assert fold.recordings[["recording_id", "split", "duration_s"]].to_numpy().tolist() == [
        ["b", "val", 1.7],
        ["c", "test", 1.3],
    ]
    assert fold.spans["val"]["b"].hold(np.array([0.4, 0.6, 0.9, 2.5])).tolist() == [True, False, True, True]


def test_fold_with_recordings_that_no_item_mentions_is_refused(tmp_path):
    with pytest.raises(StageError, match="fold 3 do not mention c"):
        stored_fold(tmp_path, {"b": ["ok"]}, {"b": "val", "c": "test"})
