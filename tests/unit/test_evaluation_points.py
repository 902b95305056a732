"""Operating points that nobody chose, what points are chosen by, and the shapes of scores."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from otus.config import ChoiceSettings, DecodingSettings, EvaluationSettings
from otus.evaluation import FoldScores, evaluate_model, read_thresholds, write_thresholds
from otus.evaluation.points import threshold_name
from otus.selections import DecodingPoint, decoding_grid, logit
from otus.sides import EVERYWHERE
from otus.tables import table, write_table

HOP_S = 0.1
N = 300
LABELS = ["hum", "cluck"]
COUNTS = ["n_gt", "n_pred", "tp"]
DECODING = DecodingSettings(
    merge=["hysteresis", "union"],
    windows_s=[None, 0.4],
    hops_s=0.2,
    off_thresholds=[0.3, 0.6],
    onset_thresholds=1.0,
    gaps=[0.0, 0.5],
    smoothing=0.0,
    min_duration=0.5,
)
SETTINGS = EvaluationSettings(thresholds=[0.3, 0.9], iou=[0.4, 0.6], decoding=DECODING, bootstrap=0)
CALL_S = {1: 1.0, 2: 1.3, 3: 0.9}


def corpus(n_parts=3, labels=LABELS, seed=0, silent=()):
    """Folds of groups of two recordings; calls of 1 s are loud, other things are fainter."""
    random = np.random.default_rng(seed)
    ids = [f"r{i:02d}" for i in range(4 * n_parts)]
    rows, planes = [], {}
    for recording_id in ids:
        logits = np.full((2 * len(labels), N), -6.0, dtype=np.float32)
        for target, label in enumerate(labels):
            for number, start in enumerate(random.permutation(np.arange(5, N - 25, 20))[:6]):
                is_call = number < 3 and recording_id not in silent
                logits[target, start : start + 10] = random.normal(3.0 if is_call else -0.3, 1.2)
                if is_call:
                    rows.append((recording_id, start * HOP_S, start * HOP_S + 1.0, label))
        planes[recording_id] = logits
    annotations = pd.DataFrame(rows, columns=["recording_id", "start_s", "end_s", "label"])
    annotations["annotation_id"] = [f"a{i}" for i in range(len(annotations))]
    folds = []
    for fold in range(n_parts):
        split = {fold: "test", (fold + 1) % n_parts: "val"}
        recordings = pd.DataFrame(
            {"recording_id": ids, "group": [f"g{i // 2:02d}" for i in range(len(ids))], "duration_s": N * HOP_S}
        ).assign(split=[split.get(i // 4, "train") for i in range(len(ids))])
        recordings = recordings[recordings["split"] != "train"].reset_index(drop=True)
        own = {i: planes[i] + np.float32(0.1 * fold) for i in recordings["recording_id"]}
        spans = {side: dict.fromkeys(rows["recording_id"], EVERYWHERE) for side, rows in recordings.groupby("split")}
        grid = decoding_grid(DECODING, median_call_s=CALL_S[fold + 1], short_call_s=0.8)
        folds.append(FoldScores(fold + 1, list(labels), recordings, own, HOP_S, grid, spans, leaky=False))
    return folds, annotations


def evaluate(folds, annotations, labels=LABELS, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return evaluate_model(folds, annotations, classes=labels, settings=settings, model="m")


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(*corpus())


def test_the_table_has_every_point_of_every_fold_label_and_group(evaluation):
    points = evaluation.points
    assert list(points) == list(table("points", []))
    grid = points[points["role"] == "grid"]
    # hysteresis: (as it is, windows) x 2 off x 2 gaps at 2 thresholds; union: as many at their own
    assert grid["operating_point"].nunique() == 8 * 2 + 8
    key = ["fold", "label", "iou", "role", "operating_point", "group"]
    assert not points.duplicated(key).any()
    per_label = grid.groupby("label")["operating_point"].agg(lambda names: tuple(sorted(set(names))))
    assert per_label.nunique() == 1, "or their sums over labels would not be of one point"
    assert (grid.groupby(["fold", "label", "operating_point"])["group"].nunique() == 2).all()
    assert set(grid["iou"]) == {0.4} and set(points.loc[points["role"] == "fixed", "iou"]) == {0.4, 0.6}
    assert set(points["role"]) == {"fixed", "grid"} and not points["leaky"].any() and points["part"].isna().all()
    for name, rows in grid.groupby("operating_point"):
        columns = rows[["merge", "window_s", "hop_s", "off_threshold", "gap", "min_duration", "threshold"]]
        assert len(columns.drop_duplicates()) == 1, f"{name} is the same in every fold"
    assert set(grid["gap"]) == {0.0, 0.5} and set(grid["min_duration"]) == {0.5}, "in the units of the config"
    assert grid["max_duration"].isna().all() and set(grid["hop_s"].dropna()) == {0.2}


def test_time_calls_and_recordings_of_the_test_side_are_in_every_point(evaluation):
    tested = evaluation.counts[(evaluation.counts["split"] == "test") & (evaluation.counts["iou"] == 0.4)]
    whole = tested.groupby(["fold", "label", "group"]).agg(
        n_recordings=("recording_id", "size"), duration_s=("duration_s", "sum"), n_gt=("n_gt", "sum")
    )
    for _, rows in evaluation.points.groupby(["iou", "role", "operating_point"]):
        found = rows.set_index(["fold", "label", "group"])[list(whole)].sort_index()
        pd.testing.assert_frame_equal(found, whole, check_dtype=False)


@pytest.mark.parametrize("number", [1, 6, 9, 14])
def test_points_of_the_grid_are_what_that_decoding_alone_would_give(evaluation, number):
    """As if validation had no other choice than this decoding: its points are then the fixed ones."""
    folds, annotations = corpus()
    alone = [replace(fold, grid=[fold.grid[number]]) for fold in folds[:2]]
    one = folds[0].grid[number]
    name = one.name_in_calls()
    key = ["fold", "label", "group"]
    if one.has_one_threshold:
        counts = evaluate(alone, annotations).counts
        expected = counts[(counts["split"] == "test") & (counts["iou"] == 0.4)].groupby(key)[COUNTS].sum()
        pairs = [(name, expected)]
    else:
        points = evaluate(alone, annotations).points
        fixed = points[(points["role"] == "fixed") & (points["iou"] == 0.4)]
        pairs = [
            (f"{name}_on{t}", fixed[fixed["operating_point"] == t].groupby(key)[COUNTS].sum()) for t in ("0.30", "0.90")
        ]
    for wanted, expected in pairs:
        rows = evaluation.points[(evaluation.points["operating_point"] == wanted) & (evaluation.points["fold"] < 3)]
        found = rows.set_index(key)[COUNTS].sort_index()
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
        assert found["n_pred"].sum() > 0


def test_fixed_thresholds_of_hysteresis_filter_the_chosen_decoding():
    folds, annotations = corpus()
    whole = [replace(fold, grid=[point for point in fold.grid if not point.has_one_threshold]) for fold in folds]
    result = evaluate(whole, annotations)
    tested = result.selections[result.selections["split"] == "test"]
    for name, threshold in {"0.30": 0.3, "0.90": 0.9}.items():
        rows = result.points[(result.points["operating_point"] == name) & (result.points["iou"] == 0.4)]
        above = tested[tested["peak_score"] >= logit(threshold)]
        for key, own in rows.groupby(["fold", "label"]):
            here = above[(above["fold"] == key[0]) & (above["label"] == key[1])]
            assert (own["n_pred"].sum(), own["tp"].sum()) == (len(here), here["hit"].sum())
            assert set(own["threshold"]) == {threshold}
            chosen = result.operating_points[key[0]][key[1]].decoding.in_calls()
            assert set(own["off_threshold"]) == {chosen.off_threshold} and set(own["merge"]) == {"hysteresis"}


@pytest.mark.parametrize("merge", ["threshold", "union"])
def test_fixed_thresholds_of_other_ways_are_decodings_of_their_own(merge):
    """Also for 0.95, which the grid does not have: as if that were the only threshold to choose from."""
    folds, annotations = corpus()
    of = {"gap_s": 0.0, "smoothing_s": 0.0, "min_duration_s": 0.2, "onset_threshold": 1.0, "merge": merge}
    folds = [replace(fold, grid=[DecodingPoint(off_threshold=t, **of) for t in (0.5, 0.3)]) for fold in folds]
    result = evaluate(folds[:1], annotations, thresholds=[0.3, 0.95])
    key = ["fold", "label", "iou", "group"]
    for t in (0.3, 0.95):
        alone = [replace(fold, grid=[replace(fold.grid[0], off_threshold=t)]) for fold in folds[:1]]
        counts = evaluate(alone, annotations, thresholds=[]).counts
        expected = counts[counts["split"] == "test"].groupby(key)[COUNTS].sum()
        rows = result.points[(result.points["operating_point"] == f"{t:.2f}")]
        pd.testing.assert_frame_equal(rows.set_index(key)[COUNTS].sort_index(), expected, check_dtype=False)
        assert rows["n_pred"].sum() > 0 and set(rows["off_threshold"]) == set(rows["threshold"]) == {t}


def test_without_fixed_thresholds_only_decodings_with_one_threshold_have_points():
    result = evaluate(*corpus(), thresholds=[])
    assert set(result.points["role"]) == {"grid"} and set(result.points["merge"]) == {"union"}


def test_names_of_thresholds_have_two_digits_or_all_that_are_needed():
    assert [threshold_name(t) for t in (0.5, 0.25, 0.301, 1.0, 0.0)] == ["0.50", "0.25", "0.301", "1.00", "0.00"]


def test_shapes_are_of_the_selections_in_their_order(evaluation, tmp_path):
    assert evaluation.shapes["selection_id"].tolist() == evaluation.selections["selection_id"].tolist()
    assert evaluation.shapes["peak_position"].between(0, 1).all()
    inside = evaluation.shapes["mean_logit"].to_numpy()
    hysteresis = ~evaluation.selections["operating_point"].str.startswith("uni").to_numpy()
    np.testing.assert_allclose(inside[hysteresis], evaluation.selections["score"][hysteresis], atol=1e-6)
    for name in ("points", "counts", "selections", "matches"):
        write_table(tmp_path / f"{name}.parquet", name, getattr(evaluation, name))
    write_table(tmp_path / "shapes.parquet", "score_shapes", evaluation.shapes)


# edges


def test_one_frame_and_nothing_but_silence_have_rows():
    folds, annotations = corpus()
    for content in (np.full((4, 1), 5.0), np.full((4, 1), -np.inf), np.full((4, N), -np.inf), np.zeros((4, 0))):
        short = [replace(f, logits=dict.fromkeys(f.logits, content.astype(np.float32))) for f in folds[:1]]
        result = evaluate(short, annotations)
        assert result.points["n_gt"].sum() > 0 and (result.points["tp"] <= result.points["n_pred"]).all()
        if not np.isfinite(content).all() or content.size == 0:
            assert result.counts["n_pred"].sum() == 0 and len(result.selections) == len(result.shapes) == 0


def test_no_truth_at_all_has_false_alarms_only():
    folds, annotations = corpus()
    result = evaluate(folds, annotations.iloc[:0])
    assert result.counts["n_gt"].sum() == result.points["n_gt"].sum() == result.points["tp"].sum() == 0
    assert result.points["n_pred"].sum() > 0
    for points in result.operating_points.values():
        for point in points.values():
            assert point.reached.note == "no annotated call on validation: nothing to choose by"
            assert point.reached.n_pred > 0 == point.reached.tp


def test_a_fold_without_test_recordings_has_no_rows_and_harms_no_other():
    folds, annotations = corpus()
    lost = folds[0].recordings[folds[0].recordings["split"] == "val"].reset_index(drop=True)
    result = evaluate([replace(folds[0], recordings=lost), *folds[1:]], annotations)
    assert set(result.points["fold"]) == {2, 3} and set(result.counts["fold"]) == {1, 2, 3}
    alone = evaluate([replace(folds[0], recordings=lost)], annotations)
    assert len(alone.points) == 0 and set(alone.counts["split"]) == {"val"}


def test_a_label_without_calls_has_the_same_points_as_the_others():
    folds, annotations = corpus()
    result = evaluate(folds, annotations[annotations["label"] == "hum"])
    names = result.points.groupby(["fold", "label", "iou", "role"])["operating_point"].agg(frozenset)
    for (_, _, iou, role), found in names.items():
        assert found == names[1, "hum", iou, role]
    assert result.points.loc[result.points["label"] == "cluck", "tp"].sum() == 0


# by what validation chooses


def test_a_budget_is_told_in_the_file_of_thresholds(tmp_path):
    folds, annotations = corpus()
    result = evaluate(folds, annotations, choice=ChoiceSettings(by="recall", false_alarms_per_hour=0.01))
    write_thresholds(tmp_path / "thresholds.yaml", "m", result.operating_points)
    assert read_thresholds(tmp_path / "thresholds.yaml") == result.operating_points
    assert "the best recall with at most 0.01 false alarms per hour" in (tmp_path / "thresholds.yaml").read_text()


def test_each_label_is_chosen_by_its_own_criterion():
    folds, annotations = corpus()
    own = {"cluck": ChoiceSettings(by="recall", false_alarms_per_hour=5.0)}
    result = evaluate(folds, annotations, choice_of=own)
    plain = evaluate(folds, annotations)
    for fold, label in itertools.product((1, 2, 3), LABELS):
        point = result.operating_points[fold][label]
        if label == "hum":
            assert point == plain.operating_points[fold][label] and point.reached.criterion == "the best F1"
        else:
            assert point.reached.criterion.startswith("the best recall")
            assert point.reached.false_alarms_per_hour <= 5.0 or point.reached.note
            assert (np.diff(point.curve.false_alarms_per_hour) >= 0).all()
