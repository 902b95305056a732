"""A detector of others judged on the splits of a dataset variant: thresholds from validation groups, then all counted.

It was not trained here, so its selections are the same in every fold. What it was trained on is its makers' secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from otus.config import EvaluationSettings
from otus.errors import StageError
from otus.evaluation.calibration import Mask, Reals, fit_calibration
from otus.evaluation.model import Evaluation, collected, judge_split, on_side
from otus.evaluation.operating import Ground, plateau, reached, selecting_threshold, thinned_curve
from otus.evaluation.thresholds import ChosenPoint, ThresholdCurve
from otus.matching import Intervals
from otus.metrics import average_precision, curve
from otus.selections import DecodingPoint, Segments, logit
from otus.sides import NOWHERE, Spans, judge_on_side, recordings_by_side, rows_inside, side_spans, unknown_spans
from otus.tables import table

LAYER = "external"

#: Below the lowest score (in logits) nothing more is known; a threshold there may lie lower by half of this.
_BELOW = 1.0


@dataclass(frozen=True)
class FoldSides:
    """Which recordings, and which time of them, a fold validates and tests on; as in otus.evaluation.folds.FoldScores.

    `alone`: the thresholds of the fold are chosen on its own validation time, not on that of the other folds as well.
    """

    fold: int
    recordings: pd.DataFrame
    spans: Mapping[str, Mapping[str, Spans]]
    leaky: bool
    alone: bool


def fold_sides(
    items: pd.DataFrame, chunks: pd.DataFrame, recordings: pd.DataFrame, splits: pd.DataFrame
) -> list[FoldSides]:
    """Return the sides of every fold of `splits`; a recording with a failed chunk is left out.

    Raises StageError if the items do not account for every chunk, or a val or test recording has none.
    """
    lost = sorted(set(chunks["chunk_id"]) ^ set(items["chunk_id"]))
    if lost:
        raise StageError(
            f"evaluate: chunk {lost[0]} is not among what the detector searched, or no longer a chunk ({len(lost)} "
            "such chunks); run external again."
        )
    whole = items["status"].eq("ok").groupby(items["recording_id"]).all()
    sample_rates = recordings.set_index("recording_id")["sample_rate"]
    found = []
    for fold, rows in splits.groupby("fold"):
        sides = recordings_by_side(rows, sample_rates)
        wanted = sides[sides["split"] != "train"]
        unsearched = sorted(set(wanted["recording_id"]) - set(whole.index))
        if unsearched:
            raise StageError(f"evaluate: the detector never searched {unsearched[0]}; run external again.")
        part, leaky = rows["part"].iloc[0], bool(rows["leaky"].any())
        searched = wanted[wanted["recording_id"].map(whole)].assign(part=part).reset_index(drop=True)
        spans = {split: side_spans(rows, sample_rates, split) for split in ("val", "test")}
        found.append(FoldSides(int(fold), searched, spans, leaky, leaky or not pd.isna(part)))
    return found


def evaluate_external(
    selections: pd.DataFrame,
    folds: Sequence[FoldSides],
    annotations: pd.DataFrame,
    *,
    classes: Sequence[str],
    settings: EvaluationSettings,
    gap_s: float | None,
    model: str,
) -> Evaluation:
    """Choose a threshold per fold and label on validation recordings, and judge the fold's val and test recordings.

    `selections` are those of otus.external.join_chunks. As for networks (otus.evaluation.model), the threshold of a
    fold comes from the validation recordings of all folds, each once, less every recording of a group that the fold
    tests; from its own alone where the dataset variant is leaky or a fold tests all of a site. It is the middle of the
    plateau of merit, by the choice of the label. Raises StageError if no validation recording was searched.
    """
    unknown = unknown_spans(annotations)
    decoding = DecodingPoint(0.0, 1.0, gap_s or 0.0, 0.0, 0.0)  # everything that the detector reports
    parts = []
    chosen: dict[int, dict[str, ChosenPoint]] = {}
    for label in classes:
        calls = annotations[annotations["label"] == label]
        found = selections[selections["label"] == label]
        for fold in folds:
            peak, hit, n_calls, hours = _validation(fold, folds, found, calls, unknown, settings.iou[0])
            ground = Ground(settings.choice_of.get(label, settings.choice), n_calls, hours)
            point = chosen.setdefault(fold.fold, {})[label] = _choose(peak, hit, ground, decoding, settings)
            own = _with_ids(found, f"{model}_f{fold.fold}_{label}_")
            for split in ("val", "test"):
                keys = {"model": model, "layer": LAYER, "fold": fold.fold, "split": split, "label": label}
                judged = on_side(own, calls, fold.recordings, fold.spans, split, unknown)
                parts.append(judge_split(judged, {}, point, settings, keys | {"leaky": fold.leaky}))
    return Evaluation(**collected(parts), shapes=table("score_shapes", []), operating_points=chosen)


def _validation(
    fold: FoldSides,
    folds: Sequence[FoldSides],
    found: pd.DataFrame,
    calls: pd.DataFrame,
    unknown: Mapping[str, Spans],
    iou: float,
) -> tuple[Reals, Mask, int, float]:
    """Peak and hit of every selection that counts on validation, the number of calls and the hours there."""
    tested = set(fold.recordings.loc[fold.recordings["split"] == "test", "group"])
    spans: dict[str, Spans] = {}
    duration_s: dict[str, float] = {}
    for one in [fold] if fold.alone else folds:
        own = one.recordings[one.recordings["split"] == "val"]
        if not fold.alone:
            own = own[~own["group"].isin(tested)]
        spans |= {str(recording_id): one.spans["val"][recording_id] for recording_id in own["recording_id"]}
        duration_s |= dict(zip(own["recording_id"].astype(str), own["duration_s"].astype(float), strict=True))
    if not spans:
        raise StageError("evaluate: no validation recording was searched; see the failed items of external.")
    calls = calls[rows_inside(calls, spans)]
    rows_of, calls_of = (dict(rows.groupby("recording_id").indices) for rows in (found, calls))
    segments, truth, none = _segments(found), Intervals.of(calls), np.zeros(0, dtype=np.int64)
    peaks, hits, n_calls = [np.zeros(0)], [np.zeros(0, dtype=bool)], 0
    for recording_id, side in sorted(spans.items()):
        rows, of_calls = rows_of.get(recording_id, none), calls_of.get(recording_id, none)
        own_calls = truth.at(of_calls)
        reported = Segments(*(getattr(segments, field.name)[rows] for field in fields(Segments)))
        peak, hit = judge_on_side(reported, own_calls, side, unknown.get(recording_id, NOWHERE), iou)
        peaks.append(peak)
        hits.append(hit)
        n_calls += len(own_calls)
    return np.concatenate(peaks), np.concatenate(hits), n_calls, sum(duration_s.values()) / 3600.0


def _choose(
    peak: Reals, hit: Mask, ground: Ground, decoding: DecodingPoint, settings: EvaluationSettings
) -> ChosenPoint:
    """The threshold with its curve, and the calibration; 0.5 where no call or no selection is there to choose by."""
    points = curve(peak, hit)
    threshold, f1, precision, shown = 0.5, 0.0, 0.0, ThresholdCurve()
    if ground.n_calls and len(peak):
        merits = ground.merit(points)
        first, last = plateau(merits, int(np.argmax(merits)), ground.n_calls)
        below = points.threshold[last + 1] if last + 1 < len(merits) else points.threshold[last] - _BELOW
        middle = float((points.threshold[first] + below) / 2)
        threshold, f1 = selecting_threshold(middle), float(points.f1(ground.n_calls).max())
        precision, shown = average_precision(points, ground.n_calls), thinned_curve(points, ground, middle)
    return ChosenPoint(
        threshold=threshold,
        decoding=decoding,
        val_f1=f1,
        val_average_precision=precision,
        n_calls=ground.n_calls,
        calibration=fit_calibration(peak, hit, settings.calibration),
        curve=shown,
        reached=reached(peak, hit, logit(threshold), ground),
    )


def _with_ids(found: pd.DataFrame, prefix: str) -> pd.DataFrame:
    number = found.groupby("recording_id").cumcount().astype(str).str.zfill(5)
    names = prefix + found["recording_id"].astype(str) + "_s" + number
    return found.drop(columns="label").assign(rank=found["peak_score"].astype(float), selection_id=names)


def _segments(rows: pd.DataFrame) -> Segments:
    return Segments(*(rows[name].to_numpy(dtype=float) for name in ("start_s", "end_s", "score", "peak_score")))
