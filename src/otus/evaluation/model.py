"""One model, all its folds: operating points from validation groups alone, then everything counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from otus.config import EvaluationSettings
from otus.evaluation.folds import FoldScores
from otus.evaluation.operating import OperatingPoint, ScoredRecording, choose_operating_point
from otus.evaluation.tally import Judged, count_per_recording, judge, matched_pairs
from otus.matching import Intervals
from otus.selections import DecodingPoint, decode, logit
from otus.tables import table

LAYER = "cnn"


@dataclass(frozen=True)
class Evaluation:
    """Tables of one model on the val and test recordings of all folds, and the chosen points by fold and label.

    `selections` holds everything that the chosen decoding found, selected or not.
    """

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    operating_points: dict[int, dict[str, Any]]


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
    leave the threshold to chance.
    """
    parts = []
    chosen: dict[int, dict[str, Any]] = {}
    for target, label in enumerate(classes):
        calls = annotations[annotations["label"] == label]
        for fold in folds:
            tested = set(fold.recordings.loc[fold.recordings["split"] == "test", "group"])
            point = choose_operating_point(_validation(folds, target, len(classes), calls, tested), iou=settings.iou[0])
            decoding = fold.grid[point.decoding]
            chosen.setdefault(fold.fold, {})[label] = asdict(point) | {"decoding": asdict(decoding)}
            for split in ("val", "test"):
                here = fold.recordings[fold.recordings["split"] == split]
                found = _decode_all(fold, here, target, len(classes), decoding)
                keys = {"model": model, "layer": LAYER, "fold": fold.fold, "split": split, "label": label}
                parts.append(_judge_split(found, calls, here, point, decoding, settings, keys))
    return Evaluation(
        table("selections", pd.concat([p[0] for p in parts], ignore_index=True)),
        table("matches", pd.concat([p[1] for p in parts], ignore_index=True)),
        pd.concat([p[2] for p in parts], ignore_index=True),
        chosen,
    )


def _validation(
    folds: Sequence[FoldScores], target: int, n_classes: int, calls: pd.DataFrame, tested: set[str]
) -> list[ScoredRecording]:
    """The validation recordings of all folds whose groups are not in `tested`."""
    found = []
    for fold in folds:
        own = fold.recordings[(fold.recordings["split"] == "val") & ~fold.recordings["group"].isin(tested)]
        for recording_id in own["recording_id"]:
            logits, rows = fold.logits[recording_id], calls[calls["recording_id"] == recording_id]
            truth = Intervals(rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float))
            found.append(
                ScoredRecording(logits[target], logits[n_classes + target], fold.frame_hop_s, fold.grid, truth)
            )
    return found


def _decode_all(
    fold: FoldScores, recordings: pd.DataFrame, target: int, n_classes: int, point: DecodingPoint
) -> pd.DataFrame:
    """All segments of one label in the recordings."""
    parts = [pd.DataFrame({c: [] for c in ("recording_id", "start_s", "end_s", "score", "peak_score")})]
    for recording_id in recordings["recording_id"]:
        logits = fold.logits[recording_id]
        found = decode(logits[target], logits[n_classes + target], fold.frame_hop_s, point)
        if len(found):
            parts.append(pd.DataFrame({"recording_id": recording_id, **asdict(found)}))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _judge_split(
    found: pd.DataFrame,
    calls: pd.DataFrame,
    recordings: pd.DataFrame,
    point: OperatingPoint,
    decoding: DecodingPoint,
    settings: EvaluationSettings,
    keys: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Judge the segments of one split and label at the chosen threshold and at the fixed ones."""
    found = found.assign(rank=found["peak_score"].astype(float))
    number = found.groupby("recording_id").cumcount().astype(str).str.zfill(5)
    prefix = f"{keys['model']}_f{keys['fold']}_{keys['label']}_"
    found["selection_id"] = prefix + found["recording_id"].astype(str) + "_s" + number
    truth = calls[calls["recording_id"].isin(recordings["recording_id"])]
    everything = Judged(found, truth, recordings)
    threshold = logit(point.threshold)
    thresholds = {"selected": threshold, **{f"{t:.2f}": logit(t) for t in settings.thresholds}}
    above = Judged(found[found["rank"] >= threshold], truth, recordings)
    counts, matches = [], []
    for iou in settings.iou:
        hits = judge(everything, iou)
        part = count_per_recording(everything, hits, thresholds, "selected").assign(**keys, iou=iou)
        counts.append(part.assign(threshold=1.0 / (1.0 + np.exp(-part["threshold"].to_numpy(dtype=float)))))
        matches.append(matched_pairs(above, iou).assign(**keys, iou_threshold=iou))
        if iou == settings.iou[0]:
            found["hit"] = hits
    rows = found.drop(columns="rank").assign(
        **keys, operating_point=decoding.name(), selected=found["rank"] >= threshold
    )
    return rows, pd.concat(matches, ignore_index=True), pd.concat(counts, ignore_index=True)
