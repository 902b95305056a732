"""One model, all its folds: operating points from validation groups alone, then everything counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.columns import SCHEMAS
from otus.config import EvaluationSettings
from otus.evaluation.calibration import calibrated, fit_calibration
from otus.evaluation.folds import FoldScores
from otus.evaluation.operating import (
    JudgedRecording,
    ScoredRecording,
    choose_operating_point,
    judge_recording,
    validation_hits,
)
from otus.evaluation.points import as_table, decoding_columns, fixed_points, grid_points, threshold_name
from otus.evaluation.tally import Judged, count_per_recording, matched_pairs, settle
from otus.evaluation.thresholds import ChosenPoint
from otus.matching import Intervals
from otus.score_shapes import score_shapes
from otus.selections import DecodingPoint, Segments, decode, logit
from otus.sides import NOWHERE, Spans, rows_inside, unknown_spans
from otus.tables import table

LAYER = "cnn"


@dataclass(frozen=True)
class Evaluation:
    """Tables of one model on the val and test recordings of all folds, and the chosen points by fold and label.

    `selections` holds everything that the chosen decoding found, selected or not, except what is neither hit nor false
    alarm because it is labelled unknown (judged at the IoU threshold that decides); `probability` is that of a hit, by
    the calibration of the fold and label. `counts` is of the chosen points, `points` of all others, on the test side
    alone. `shapes` has the score curve under every selection; none of those of a detector of others.
    """

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    points: pd.DataFrame
    shapes: pd.DataFrame
    operating_points: dict[int, dict[str, ChosenPoint]]


@dataclass(frozen=True)
class JudgedSplit:
    """Rows of one fold, label and split for the tables of those names."""

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    points: pd.DataFrame


@dataclass(frozen=True)
class Scores:
    """What the network of a fold gave for one label, and the truth."""

    fold: FoldScores
    target: int
    n_classes: int
    calls: pd.DataFrame
    unknown: Mapping[str, Spans]

    def logits(self, recording_id: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return activity and onset of a recording."""
        logits = self.fold.logits[recording_id]
        return logits[self.target], logits[self.n_classes + self.target]


def evaluate_model(
    folds: Sequence[FoldScores],
    annotations: pd.DataFrame,
    *,
    classes: Sequence[str],
    settings: EvaluationSettings,
    model: str,
) -> Evaluation:
    """Choose an operating point per fold and label, and judge the val and test recordings of the fold with it.

    The point of a fold is chosen on validation recordings: its own network's and those of the other folds'
    networks, less every recording of a group that the fold tests. A handful of calls, as one fold has them, would
    leave the threshold to chance; what other networks gave is brought onto the scale of the fold's own, because
    networks differ in how sure they are. Where clips of one recording stand on several sides (leaky), every group is
    tested in every fold: the point is chosen on the validation time of the fold alone. So it is where a fold tests a
    site, a recorder or a part of the day, of which nothing must have been heard before. The calibration is fitted on
    the same recordings, on everything that the chosen decoding finds there.

    Calls and selections belong to the side in which their midpoint lies.
    """
    parts, shapes, points = [], [], []
    chosen: dict[int, dict[str, ChosenPoint]] = {}
    unknown, iou = unknown_spans(annotations), settings.iou[0]
    for target, label in enumerate(classes):
        calls = annotations[annotations["label"] == label]
        scores = [Scores(fold, target, len(classes), calls, unknown) for fold in folds]
        validation = [_judged_recordings(one, "val", iou) for one in scores]
        for number, one in enumerate(scores):
            fold = one.fold
            point = _choose(_eligible(validation, folds, number), fold, settings, label)
            chosen.setdefault(fold.fold, {})[label] = point
            keys = {"model": model, "layer": LAYER, "fold": fold.fold, "label": label, "leaky": fold.leaky}
            found, own_shapes = _decode_chosen(one, point.decoding, f"{model}_f{fold.fold}_{label}_")
            parts += [_judge_side(one, found, point, settings, keys | {"split": split}) for split in ("val", "test")]
            shapes.append(own_shapes)
            tested = grid_points(_judged_recordings(one, "test", iou), settings.thresholds)
            points.append(with_keys(tested, keys, iou, fold.recordings))
    tables = collected(parts, more_points=points)
    shape = pd.concat(shapes, ignore_index=True).set_index("selection_id")
    kept = shape.reindex(tables["selections"]["selection_id"]).reset_index()
    return Evaluation(**tables, shapes=table("score_shapes", kept), operating_points=chosen)


def collected(parts: Sequence[JudgedSplit], more_points: Sequence[pd.DataFrame] = ()) -> dict[str, pd.DataFrame]:
    """Return the tables selections, matches, counts and points of all parts together."""
    return {
        "selections": table("selections", pd.concat([part.selections for part in parts], ignore_index=True)),
        "matches": table("matches", pd.concat([part.matches for part in parts], ignore_index=True)),
        "counts": pd.concat([part.counts for part in parts], ignore_index=True),
        "points": as_table([*(part.points for part in parts), *more_points]),
    }


def with_keys(points: pd.DataFrame, keys: Mapping[str, Any], iou: float, recordings: pd.DataFrame) -> pd.DataFrame:
    """Return rows of table points with the keys of a fold whose `recordings` tell which part it tests."""
    part = recordings["part"].iloc[0] if "part" in recordings and len(recordings) else None
    return points.assign(**{name: value for name, value in keys.items() if name != "split"}, iou=iou, part=part)


def _judged_recordings(scores: Scores, split: str, iou: float) -> list[JudgedRecording]:
    """One side of a fold, with all that the grid finds there."""
    fold, spans = scores.fold, scores.fold.spans[split]
    calls_of = _intervals_by_recording(scores.calls[rows_inside(scores.calls, spans)])
    nothing = Intervals(np.zeros(0), np.zeros(0))
    own = fold.recordings[fold.recordings["split"] == split]
    found = []
    for recording_id, group, duration_s in own[["recording_id", "group", "duration_s"]].itertuples(index=False):
        scored = ScoredRecording(
            *scores.logits(recording_id),
            fold.frame_hop_s,
            fold.grid,
            calls_of.get(recording_id, nothing),
            float(duration_s),
            side=spans[recording_id],
            unknown=scores.unknown.get(recording_id, NOWHERE),
            network=fold.fold,
            group=str(group),
        )
        found.append(judge_recording(scored, iou))
    return found


def _eligible(
    validation: Sequence[Sequence[JudgedRecording]], folds: Sequence[FoldScores], number: int
) -> list[JudgedRecording]:
    """The validation recordings that the point of a fold is chosen on."""
    fold = folds[number]
    if fold.leaky or fold.by_part:
        return list(validation[number])
    tested = set(fold.recordings.loc[fold.recordings["split"] == "test", "group"].astype(str))
    return [recording for of_fold in validation for recording in of_fold if recording.group not in tested]


def _choose(
    validation: Sequence[JudgedRecording], fold: FoldScores, settings: EvaluationSettings, label: str
) -> ChosenPoint:
    """The operating point of a fold by the validation recordings, and the calibration of what it finds there."""
    choice = settings.choice_of.get(label, settings.choice)
    point = choose_operating_point(validation, choice=choice, network=fold.fold)
    peak, hit = validation_hits(validation, point.decoding, network=fold.fold)
    return ChosenPoint(
        threshold=point.threshold,
        decoding=fold.grid[point.decoding],
        val_f1=point.val_f1,
        val_average_precision=point.val_average_precision,
        n_calls=point.n_calls,
        calibration=fit_calibration(peak, hit, settings.calibration),
        curve=point.curve,
        reached=point.reached,
    )


def _decode_chosen(scores: Scores, point: DecodingPoint, prefix: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All segments of one label in the recordings of a fold, each recording once, and their shapes."""
    ids = scores.fold.recordings["recording_id"].unique()
    frame_s, shapes, found = scores.fold.frame_hop_s, [], []
    for recording_id in ids:
        activity, onset = scores.logits(recording_id)
        found.append(decode(activity, onset, frame_s, point))
        shapes.append(score_shapes(activity, onset, frame_s, found[-1]))
    rows = _as_rows(ids, found, prefix)
    names = [name for name in SCHEMAS["score_shapes"] if name != "selection_id"]
    columns = {name: np.concatenate([np.zeros(0), *(shape[name] for shape in shapes)]) for name in names}
    return rows, pd.DataFrame({"selection_id": rows["selection_id"], **columns})


def _as_rows(ids: Sequence[str], found: Sequence[Segments], prefix: str) -> pd.DataFrame:
    """The segments of recordings one below the other, with their ids."""
    counts = [len(one) for one in found]
    rows = {
        field.name: np.concatenate([np.zeros(0), *(getattr(one, field.name) for one in found)])
        for field in fields(Segments)
    }
    recording = np.repeat(np.asarray(ids, dtype=object), counts)
    number = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(n) for n in counts)])
    names = [f"{prefix}{recording_id}_s{n:05d}" for recording_id, n in zip(recording, number.tolist(), strict=True)]
    frame = pd.DataFrame({"recording_id": recording, **rows})
    return frame.assign(rank=frame["peak_score"], selection_id=np.asarray(names, dtype=object))


def _judge_side(
    scores: Scores, found: pd.DataFrame, point: ChosenPoint, settings: EvaluationSettings, keys: Mapping[str, Any]
) -> JudgedSplit:
    """Judge the segments of one side of a fold; fixed thresholds of the test side with decodings of their own."""
    fold, split = scores.fold, keys["split"]
    place = (scores.calls, fold.recordings, fold.spans, split, scores.unknown)
    others = {}
    if point.decoding.has_one_threshold and split == "test":
        ids = fold.recordings.loc[fold.recordings["split"] == "test", "recording_id"].tolist()
        for threshold in settings.thresholds:
            own = replace(point.decoding, off_threshold=threshold)
            segments = [decode(*scores.logits(recording_id), fold.frame_hop_s, own) for recording_id in ids]
            others[threshold] = on_side(_as_rows(ids, segments, ""), *place)
    judged = judge_split(on_side(found, *place), others, point, settings, keys)
    points = judged.points.assign(**decoding_columns(point.decoding)) if len(judged.points) else judged.points
    if len(points) and point.decoding.has_one_threshold:
        points["off_threshold"] = points["threshold"]
    return replace(judged, points=points)


def on_side(
    found: pd.DataFrame,
    calls: pd.DataFrame,
    recordings: pd.DataFrame,
    spans: Mapping[str, Mapping[str, Spans]],
    split: str,
    unknown: Mapping[str, Spans],
) -> Judged:
    """Return what of the segments and calls lies on one side, and the recordings there.

    `recordings`, of both sides, and `spans` are those of a fold (otus.evaluation.folds.FoldScores).
    """
    here = recordings[recordings["split"] == split]
    own_spans = {recording_id: spans[split][recording_id] for recording_id in here["recording_id"]}
    own = found[rows_inside(found, own_spans)].reset_index(drop=True)
    return Judged(own, calls[rows_inside(calls, own_spans)], here, unknown)


def judge_split(
    everything: Judged,
    others: Mapping[float, Judged],
    point: ChosenPoint,
    settings: EvaluationSettings,
    keys: Mapping[str, Any],
) -> JudgedSplit:
    """Judge the segments of one split and label at the chosen threshold, and on the test side at the fixed ones.

    Their rows have the columns `keys`. `others` holds the segments at fixed thresholds that another decoding found;
    the rest are of `everything`.
    """
    threshold = logit(point.threshold)
    counts, matches, rows, points = [], [], [], []
    for iou in settings.iou:
        settled, hits = settle(everything, iou)
        found = settled.selections
        selected = found["rank"] >= threshold
        part = count_per_recording(settled, hits, {"selected": threshold}, "selected")
        counts.append(part.assign(**keys, iou=iou, threshold=point.threshold))
        above = replace(settled, selections=found[selected])
        matches.append(matched_pairs(above, iou).assign(**keys, iou_threshold=iou))
        rows.append(found.drop(columns="rank").assign(**keys, selected=selected, hit=hits))
        if keys["split"] == "test":
            fixed = _at_fixed_thresholds(settled, hits, others, iou, settings.thresholds)
            points += [with_keys(part, keys, iou, everything.recordings) for part in fixed if len(part)]
    probability = calibrated(point.calibration, rows[0]["peak_score"].to_numpy(dtype=float))
    named = rows[0].assign(operating_point=point.decoding.name(), probability=probability)
    match_rows, count_rows, point_rows = (
        pd.concat(part, ignore_index=True) for part in (matches, counts, points or [pd.DataFrame()])
    )
    return JudgedSplit(named, match_rows, count_rows, point_rows)


def _at_fixed_thresholds(
    settled: Judged, hits: NDArray[np.bool_], others: Mapping[float, Judged], iou: float, thresholds: Sequence[float]
) -> list[pd.DataFrame]:
    """The rows of the fixed thresholds: of another decoding where there is one, else of the selections at hand."""
    named = {t: {threshold_name(t): (logit(t), t)} for t in thresholds}
    at_hand = {name: pair for t in thresholds if t not in others for name, pair in named[t].items()}
    return [
        fixed_points(settled, hits, at_hand),
        *(fixed_points(*settle(others[t], iou), named[t]) for t in thresholds if t in others),
    ]


def _intervals_by_recording(rows: pd.DataFrame) -> dict[str, Intervals]:
    start_s, end_s = rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)
    groups = rows.reset_index(drop=True).groupby("recording_id").indices
    return {str(recording_id): Intervals(start_s[own], end_s[own]) for recording_id, own in groups.items()}
