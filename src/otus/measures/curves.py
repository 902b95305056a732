"""Precision and recall at every distinct score, to draw or to look a threshold up in."""

import numpy as np
import pandas as pd

from otus.measures.evidence import ranks
from otus.metrics import curve
from otus.rates import false_alarms_per_hour
from otus.tables import FILTERED, POOLED, table

_KEYS = ["model", "layer", "fold", "split", "label", "iou"]


def curve_rows(selections: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """Return the table `curves` of one layer: every fold's test and val side, and the test sides of all folds together.

    `selections` is everything that the layer decoded, `counts` says how many calls and how much sound that was
    searched for; the first IoU of `counts` is the one that the hits were judged with. Thresholds are probabilities: of
    the network's peak score, or of the forest (see `otus.measures.evidence.ranks`).
    """
    iou = float(counts["iou"].iloc[0])
    decided = _with_pooled(counts[np.isclose(counts["iou"], iou) & counts["selected"]])
    searched = decided.groupby(_KEYS).agg(n_gt=("n_gt", "sum"), duration_s=("duration_s", "sum"))
    parts = []
    for key, rows in _with_pooled(selections.assign(iou=iou, own_fold=selections["fold"])).groupby(_KEYS):
        filtered = rows["layer"].iloc[0].endswith(FILTERED)
        points = curve(ranks(rows.assign(fold=rows["own_fold"])), rows["hit"].to_numpy(dtype=bool))
        n_gt, hours = int(searched.loc[key, "n_gt"]), float(searched.loc[key, "duration_s"]) / 3600.0
        part = pd.DataFrame(
            {
                "threshold": points.threshold if filtered else 1.0 / (1.0 + np.exp(-points.threshold)),
                "n_pred": points.n_pred,
                "tp": points.tp,
                "precision": points.precision(),
                "recall": points.recall(n_gt),
                "false_alarms_per_hour": false_alarms_per_hour(points, hours),
            }
        )
        parts.append(part.assign(**dict(zip(_KEYS, key, strict=True)), n_gt=n_gt, leaky=bool(rows["leaky"].iloc[0])))
    return table("curves", pd.concat(parts, ignore_index=True) if parts else [])


def _with_pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the fold as text, and those of split test again as fold `pooled`.

    Pooled validation rows of the post-filter would count recordings more than once (each fold's forest is fitted
    on all other folds), so no layer has any.
    """
    frame = frame.assign(fold=frame["fold"].astype(str))
    return pd.concat([frame, frame[frame["split"] == "test"].assign(fold=POOLED)], ignore_index=True)
