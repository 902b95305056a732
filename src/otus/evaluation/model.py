"""One model, all its folds: operating points from validation groups alone, then everything counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from otus.config import EvaluationSettings
from otus.evaluation.calibration import calibrated, fit_calibration
from otus.evaluation.folds import FoldScores
from otus.evaluation.operating import ScoredRecording, choose_operating_point, validation_hits
from otus.evaluation.tally import Judged, count_per_recording, matched_pairs, settle
from otus.evaluation.thresholds import ChosenPoint
from otus.matching import Intervals
from otus.selections import DecodingPoint, decode, logit
from otus.sides import NOWHERE, Spans, rows_inside, unknown_spans
from otus.tables import table

LAYER = "cnn"


@dataclass(frozen=True)
class Evaluation:
    """Tables of one model on the val and test recordings of all folds, and the chosen points by fold and label.

    `selections` holds everything that the chosen decoding found, selected or not, except what is neither hit nor false
    alarm because it is labelled unknown (judged at the IoU threshold that decides); `probability` is that of a hit, by
    the calibration of the fold and label.
    """

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    operating_points: dict[int, dict[str, ChosenPoint]]


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
    parts = []
    chosen: dict[int, dict[str, ChosenPoint]] = {}
    unknown = unknown_spans(annotations)
    for target, label in enumerate(classes):
        calls = annotations[annotations["label"] == label]
        for fold in folds:
            tested = set(fold.recordings.loc[fold.recordings["split"] == "test", "group"])
            alone = fold.leaky or fold.by_part
            eligible = ([fold], set()) if alone else (folds, tested)
            validation = _validation(*eligible, target, len(classes), calls, unknown)
            point = chosen.setdefault(fold.fold, {})[label] = _choose(validation, fold, settings)
            keys = {"model": model, "layer": LAYER, "fold": fold.fold, "label": label, "leaky": fold.leaky}
            found = _decode_all(fold, target, len(classes), point.decoding, f"{model}_f{fold.fold}_{label}_")
            fixed = _decode_at_fixed(fold, target, len(classes), point.decoding, settings.thresholds)
            for split in ("val", "test"):
                everything = on_side(found, calls, fold.recordings, fold.spans, split, unknown)
                others = {
                    t: on_side(rows, calls, fold.recordings, fold.spans, split, unknown) for t, rows in fixed.items()
                }
                parts.append(judge_split(everything, others, point, settings, keys | {"split": split}))
    return Evaluation(
        table("selections", pd.concat([p[0] for p in parts], ignore_index=True)),
        table("matches", pd.concat([p[1] for p in parts], ignore_index=True)),
        pd.concat([p[2] for p in parts], ignore_index=True),
        chosen,
    )


def _choose(validation: Sequence[ScoredRecording], fold: FoldScores, settings: EvaluationSettings) -> ChosenPoint:
    """The operating point of a fold by the validation recordings, and the calibration of what it finds there."""
    point = choose_operating_point(validation, iou=settings.iou[0], network=fold.fold)
    peak, hit = validation_hits(validation, point.decoding, iou=settings.iou[0], network=fold.fold)
    return ChosenPoint(
        threshold=point.threshold,
        decoding=fold.grid[point.decoding],
        val_f1=point.val_f1,
        val_average_precision=point.val_average_precision,
        n_calls=point.n_calls,
        calibration=fit_calibration(peak, hit, settings.calibration),
        curve=point.curve,
    )


def _validation(
    folds: Sequence[FoldScores],
    tested: set[str],
    target: int,
    n_classes: int,
    calls: pd.DataFrame,
    unknown: Mapping[str, Spans],
) -> list[ScoredRecording]:
    """The validation recordings of the folds whose groups are not in `tested`."""
    found = []
    for fold in folds:
        own = fold.recordings[(fold.recordings["split"] == "val") & ~fold.recordings["group"].isin(tested)]
        spans = fold.spans["val"]
        calls_of = dict(list(calls[rows_inside(calls, spans)].groupby("recording_id")))
        for recording_id in own["recording_id"]:
            logits, rows = fold.logits[recording_id], calls_of.get(recording_id, calls.iloc[:0])
            found.append(
                ScoredRecording(
                    logits[target],
                    logits[n_classes + target],
                    fold.frame_hop_s,
                    fold.grid,
                    Intervals(rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)),
                    side=spans[recording_id],
                    unknown=unknown.get(recording_id, NOWHERE),
                    network=fold.fold,
                )
            )
    return found


def _decode_all(fold: FoldScores, target: int, n_classes: int, point: DecodingPoint, prefix: str) -> pd.DataFrame:
    """All segments of one label in the recordings of a fold, each recording once."""
    parts = [pd.DataFrame({c: [] for c in ("recording_id", "start_s", "end_s", "score", "peak_score")})]
    for recording_id in fold.recordings["recording_id"].unique():
        logits = fold.logits[recording_id]
        found = decode(logits[target], logits[n_classes + target], fold.frame_hop_s, point)
        if len(found):
            parts.append(pd.DataFrame({"recording_id": recording_id, **asdict(found)}))
    frame = pd.concat(parts[1:] or parts, ignore_index=True)
    number = frame.groupby("recording_id").cumcount().astype(str).str.zfill(5)
    names = prefix + frame["recording_id"].astype(str) + "_s" + number
    return frame.assign(rank=frame["peak_score"].astype(float), selection_id=names)


def _decode_at_fixed(
    fold: FoldScores, target: int, n_classes: int, point: DecodingPoint, thresholds: Sequence[float]
) -> dict[float, pd.DataFrame]:
    """All segments at each of the thresholds, where each needs a decoding of its own; nothing otherwise."""
    if not point.has_one_threshold:
        return {}
    return {t: _decode_all(fold, target, n_classes, replace(point, off_threshold=t), "") for t in thresholds}


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
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Judge the segments of one split and label at the chosen threshold and at the fixed ones.

    Returns their selections, matches and counts, with the columns `keys`. `others` holds the segments at fixed
    thresholds that another decoding found; the rest are of `everything`.
    """
    threshold = logit(point.threshold)
    thresholds = {"selected": threshold, **{_name(t): logit(t) for t in settings.thresholds if t not in others}}
    counts, matches, rows = [], [], []
    for iou in settings.iou:
        settled, hits = settle(everything, iou)
        found = settled.selections
        selected = found["rank"] >= threshold
        parts = [count_per_recording(settled, hits, thresholds, "selected")]
        parts += [
            count_per_recording(*settle(judged, iou), {_name(t): logit(t)}, "selected") for t, judged in others.items()
        ]
        part = pd.concat(parts, ignore_index=True).assign(**keys, iou=iou)
        counts.append(part.assign(threshold=1.0 / (1.0 + np.exp(-part["threshold"].to_numpy(dtype=float)))))
        above = replace(settled, selections=found[selected])
        matches.append(matched_pairs(above, iou).assign(**keys, iou_threshold=iou))
        rows.append(found.drop(columns="rank").assign(**keys, selected=selected, hit=hits))
    probability = calibrated(point.calibration, rows[0]["peak_score"].to_numpy(dtype=float))
    named = rows[0].assign(operating_point=point.decoding.name(), probability=probability)
    return named, pd.concat(matches, ignore_index=True), pd.concat(counts, ignore_index=True)


def _name(threshold: float) -> str:
    return f"{threshold:.2f}"
