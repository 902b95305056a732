"""The layer behind a forest, judged like the one before it: selections, matches, counts, fixed thresholds."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from otus.config import EvaluationSettings
from otus.config.forest import Candidate
from otus.evaluation.calibration import Calibration, calibrated
from otus.evaluation.points import as_table, fixed_points, threshold_name
from otus.evaluation.tally import Judged, count_per_recording, matched_pairs, settle
from otus.forest.material import Side
from otus.selections import logit

if TYPE_CHECKING:
    from otus.forest.estimators import Estimator

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Probabilities of 0 and 1, which a forest gives, count as this far from there when they are calibrated.
_NEAREST = 1e-3


@dataclass(frozen=True)
class FittedForest:
    """The forest of one fold and label, with everything that applying it needs.

    Candidates from `candidate_step` on (see otus.forest.material) are kept if their probability reaches `threshold`;
    `calibration` turns the logit of a probability into a calibrated one. Where no forest is used, `forest` and
    `candidate` are None, `reason` says why, and `threshold` is that of the layer before, whose peak scores take the
    place of probabilities. `alone` and `filtered` are the merit by `chosen_by` (otus.criterion; of a broken budget the
    rate in budgets, negative) on the fitting side without and with it, None where there was nothing to compare.
    """

    model: str
    layer: str
    fold: int
    label: str
    kind: str
    forest: "Estimator | None"
    candidate: Candidate | None
    reason: str
    threshold: float
    candidate_step: float
    chosen_by: str
    alone: float | None
    filtered: float | None
    calibration: Calibration | None
    n_rows: int
    n_hits: int
    n_groups: int
    n_calls: int


@dataclass(frozen=True)
class JudgedLayer:
    """Tables of one fold, label and split of the layer; `points` is empty on validation."""

    selections: pd.DataFrame
    matches: pd.DataFrame
    counts: pd.DataFrame
    points: pd.DataFrame


def judge_layer(
    fitted: FittedForest, side: Side, probability: Reals, evaluation: EvaluationSettings, split: str
) -> JudgedLayer:
    """Return the layer on one side, at every IoU; `probability` is the forest's, of every candidate there.

    Without a forest the layer is the one before it: the same selections, ranks and probabilities.
    """
    rows = _filtered(fitted, side, probability) if fitted.forest is not None else _as_before(fitted, side)
    own = {"model": fitted.model, "layer": fitted.layer, "fold": fitted.fold, "split": split, "label": fitted.label}
    keys: dict[str, Any] = own | {"leaky": side.leaky}
    everything = Judged(rows, side.calls, side.recordings, side.unknown)
    fixed = {f"rf{threshold_name(t)}": (t, t) for t in evaluation.thresholds} if split == "test" else {}
    part = side.recordings["part"].iloc[0] if len(side.recordings) else None
    counts, matches, points, selections = [], [], [], []
    for iou in evaluation.iou:
        settled, hits = settle(everything, iou)
        selected = (settled.selections["rank"] >= fitted.threshold).to_numpy(dtype=bool)
        chosen = count_per_recording(settled, hits, {"selected": fitted.threshold}, "selected")
        counts.append(chosen.assign(**keys, iou=iou))
        rows_of_groups = fixed_points(settled, hits, fixed)
        points.append(rows_of_groups.assign(**{k: v for k, v in keys.items() if k != "split"}, iou=iou, part=part))
        above = replace(settled, selections=settled.selections[selected])
        matches.append(matched_pairs(above, iou).assign(**keys, iou_threshold=iou))
        judged = settled.selections.assign(rf_probability=settled.selections["rank"]).drop(columns="rank")
        selections.append(judged.assign(**keys, selected=selected, hit=hits))
    return JudgedLayer(
        selections[0],
        pd.concat(matches, ignore_index=True),
        pd.concat(counts, ignore_index=True),
        as_table(points),
    )


def forest_logit(probability: Reals) -> Reals:
    """Return the logits of a forest's probabilities, which are finite also at 0 and 1."""
    near = np.clip(probability, _NEAREST, 1.0 - _NEAREST)
    return np.asarray(np.log(near / (1.0 - near)))


def network_threshold(threshold: float) -> float:
    """Return the threshold of the layer before on the ranks that stand for it where no forest is used."""
    return float(expit(logit(threshold)))


def _filtered(fitted: FittedForest, side: Side, probability: Reals) -> pd.DataFrame:
    among = side.candidates["step"].to_numpy(dtype=float) >= fitted.candidate_step
    found = _without_notes(side.candidates[among]).assign(rank=probability[among])
    if fitted.calibration is None:
        raise ValueError("a forest without a calibration")
    return found.assign(probability=calibrated(fitted.calibration, forest_logit(probability[among])))


def _as_before(fitted: FittedForest, side: Side) -> pd.DataFrame:
    """What the layer before found; what other folds found is put on the scale of the threshold of this one."""
    peak, own = (side.found[name].to_numpy(dtype=float) for name in ("peak_score", "own_logit"))
    with np.errstate(invalid="ignore"):
        way = logit(fitted.threshold) - own
    moved = np.where((side.found["fold"] != fitted.fold) & np.isfinite(way), way, 0.0)
    return _without_notes(side.found).assign(rank=expit(peak + moved))


def _without_notes(found: pd.DataFrame) -> pd.DataFrame:
    return found.drop(columns=["step", "own_logit", "group"]).reset_index(drop=True)
