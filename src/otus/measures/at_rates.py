"""How many calls a layer finds when only so many false alarms per hour are allowed."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import effective_groups, group_draws, share_interval
from otus.config import EvaluationSettings
from otus.measures.evidence import TestedLayer
from otus.measures.facts import groups_of, label_sets
from otus.measures.ranked import group_curves, ranked_events, thinned
from otus.rates import recall_at_rate
from otus.tables import FILTERED, table

Reals = NDArray[np.float64]


def recall_at_rates(layer: TestedLayer, settings: EvaluationSettings, seed: int) -> pd.DataFrame:
    """Return the table `recall_at_rates`: recall at every budget of the settings, per label and, of several, micro.

    The threshold is the lowest probability (of the network's peak score, or of the forest; see
    `otus.measures.evidence.ranks`) that keeps the budget on these very recordings; null if only reporting nothing does.
    In a resample it is chosen anew.
    """
    names, group_of = groups_of(layer)
    draws = group_draws(names, n=settings.bootstrap, seed=seed)
    seconds = np.bincount(group_of, weights=layer.recordings["duration_s"].to_numpy(dtype=float), minlength=len(names))
    budgets = np.asarray(settings.false_alarm_budgets_per_hour, dtype=np.float64)
    same: dict[str, Any] = {name: getattr(layer, name) for name in ("model", "layer", "fold", "iou", "leaky")}
    rows = []
    for label, labels in label_sets(layer.labels):
        found = ranked_events(layer, labels)
        calls = layer.calls[layer.calls["label"].isin(labels)]
        number = pd.Series(group_of, index=layer.recordings["recording_id"]).reindex(calls["recording_id"])
        n_gt = np.bincount(number.to_numpy(dtype=np.int64), minlength=len(names)).astype(np.float64)
        at = recall_at_rate(found.curve(), len(calls), layer.hours, budgets)
        curves = group_curves(found, len(names), thinned(found.score)).drawn(draws.weights)
        resampled = drawn_recalls(
            curves.tp, curves.n_pred, draws.weights @ n_gt, draws.weights @ seconds / 3600.0, budgets
        )
        for i, budget in enumerate(budgets.tolist()):
            recall = share_interval(float(at.recall[i]), resampled[i], effective_groups(n_gt))
            rows.append(
                same
                | {"label": label, "budget_per_hour": budget, "n_gt": len(calls), "hours": layer.hours}
                | {"n_groups": len(names), "threshold": _probability(float(at.threshold[i]), layer.layer)}
                | {"recall": recall.value, "recall_low": recall.low, "recall_high": recall.high}
                | {"false_alarms_per_hour": float(at.false_alarms_per_hour[i])}
            )
    return table("recall_at_rates", rows)


def drawn_recalls(tp: Reals, n_pred: Reals, n_gt: Reals, hours: Reals, budgets_per_hour: Reals) -> Reals:
    """Return the recall (budgets, resamples) at the lowest threshold that keeps each budget of false alarms per hour.

    `tp` and `n_pred` are counts (resamples, thresholds) from the highest threshold down; NaN in a resample without a
    call or without sound.
    """
    recalls = np.full((len(budgets_per_hour), len(n_gt)), np.nan)
    found = np.concatenate([np.zeros((len(tp), 1)), tp], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, budget in enumerate(budgets_per_hour.tolist()):
            kept = ((n_pred - tp) <= (budget * (1.0 + 1e-9) * hours)[:, None]).sum(axis=1)
            hits = np.take_along_axis(found, kept[:, None], axis=1)[:, 0]
            recalls[i] = np.where(hours > 0, hits / n_gt, np.nan)
    return recalls


def _probability(threshold: float, layer: str) -> float:
    if not np.isfinite(threshold):
        return np.nan
    return threshold if layer.endswith(FILTERED) else float(1.0 / (1.0 + np.exp(-threshold)))
