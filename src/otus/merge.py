"""The merge stage: the tables of all models and folds as one, with rows pooled over the folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from otus.evaluation.reliability import reliability_bins
from otus.evaluation.tally import KEYS, summarise, with_micro
from otus.metrics import curve, precision_recall_f1, ratio
from otus.tables import FILTERED, table

POOLED = "pooled"


@dataclass(frozen=True)
class MergedMetrics:
    """The final tables; per recording at the selected operating points only, matches of each fold's test and val.

    `reliability` compares the calibrated probabilities with the hits of all test selections of the layers
    without a forest.
    """

    metrics: pd.DataFrame
    per_recording: pd.DataFrame
    curves: pd.DataFrame
    matches: pd.DataFrame
    reliability: pd.DataFrame


def merge_metrics(
    counts: Sequence[pd.DataFrame],
    selections: Sequence[pd.DataFrame],
    matches: Sequence[pd.DataFrame],
    *,
    labels: Sequence[str],
    notes: pd.DataFrame,
    bootstrap: int,
    seed: int,
) -> MergedMetrics:
    """Return the metrics of every model, layer, fold and split, and pooled over the folds.

    Pooled test rows of a cross-validation are out-of-fold: every recording counts once, judged by the model that
    never saw it (leaky variants: every moment of it, by the model that never saw that moment). `notes` (model, layer,
    fold, label, note) are added to the rows that they concern, and the rows of a fold say which part of the corpus it
    tests if one of its counts does. The first IoU of `counts` is the one that decides, and that the hits in
    `selections` were judged with.
    """
    by_fold = pd.concat(counts, ignore_index=True)
    part_of = _with_text_fold(by_fold[["fold", "part"]].dropna()).drop_duplicates("fold").set_index("fold")["part"]
    by_fold = by_fold.drop(columns="part")
    all_counts = with_micro(pd.concat([_with_text_fold(by_fold), _pooled_counts(by_fold)], ignore_index=True), labels)
    found = pd.concat(selections, ignore_index=True)
    ranked = _with_pooled(_ranked(found, float(all_counts["iou"].iloc[0])))
    pairs = _with_pooled(pd.concat(matches, ignore_index=True))
    metrics = summarise(all_counts, ranked, pairs, bootstrap=bootstrap, seed=seed)
    metrics = table("metrics", metrics.assign(part=metrics["fold"].map(part_of)))
    per_recording = all_counts[all_counts["selected"]].sort_values([*KEYS, "recording_id"], ignore_index=True)
    return MergedMetrics(
        _with_notes(metrics, notes),
        table("metrics_per_recording", per_recording),
        _curves(ranked, all_counts),
        table("matches", pd.concat(matches, ignore_index=True)),
        _reliability(found, labels),
    )


def forest_notes(summaries: Sequence[Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Return a note for every forest that could not be fitted: model, layer, fold, label, note."""
    rows = [
        {
            "model": f["model"],
            "layer": f["layer"],
            "fold": f["fold"],
            "label": f["label"],
            "note": f"no forest, {f['layer'].removesuffix(FILTERED)} selections ({f['reason']})",
        }
        for summary in summaries
        for f in summary
        if f["reason"]
    ]
    return pd.DataFrame(rows, columns=["model", "layer", "fold", "label", "note"])


def _with_text_fold(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(fold=frame["fold"].astype(str))


def _with_pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with fold as text, and those of split test again as fold `pooled`.

    Pooled validation rows of the post-filter would count recordings more than once (each fold's forest is fitted
    on all other folds), so no layer has any.
    """
    frame = _with_text_fold(frame)
    pooled = frame[frame["split"] == "test"].assign(fold=POOLED)
    return pd.concat([frame, pooled], ignore_index=True)


def _pooled_counts(by_fold: pd.DataFrame) -> pd.DataFrame:
    """The counts of split test as fold `pooled`, each recording once also if several folds test parts of it."""
    tested = by_fold[by_fold["split"] == "test"].assign(fold=POOLED)
    keys = [*KEYS, "operating_point", "selected", "leaky", "recording_id", "group"]
    counts = ["n_gt", "n_pred", "tp", "fp", "fn"]
    pooled = tested.groupby(keys, sort=False, as_index=False).agg(
        **{name: (name, "sum") for name in ("duration_s", *counts)},
        threshold=("threshold", "first"),
        highest=("threshold", "max"),
        lowest=("threshold", "min"),
    )
    pooled["threshold"] = pooled["threshold"].where(pooled["highest"] == pooled["lowest"])
    values = [precision_recall_f1(*row) for row in pooled[["tp", "n_pred", "n_gt"]].itertuples(index=False)]
    pooled[["precision", "recall", "f1"]] = np.asarray(values, dtype=float).reshape(-1, 3)
    return pooled.drop(columns=["highest", "lowest"])


def _ranked(selections: pd.DataFrame, deciding_iou: float) -> pd.DataFrame:
    """The selections with the score that ranks them: peak score, or the forest's probability."""
    forest = selections["layer"].str.endswith(FILTERED)
    rank = np.where(forest, selections["rf_probability"], selections["peak_score"])
    return selections.assign(rank=rank, iou=deciding_iou)


def _curves(ranked: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall at every distinct score."""
    searched = counts[counts["selected"]].groupby(KEYS).agg(n_gt=("n_gt", "sum"), duration_s=("duration_s", "sum"))
    parts = []
    for key, rows in ranked.groupby(KEYS):
        points = curve(rows["rank"].to_numpy(dtype=float), rows["hit"].to_numpy(dtype=bool))
        n_gt, hours = int(searched.loc[key, "n_gt"]), float(searched.loc[key, "duration_s"]) / 3600.0
        logits = not rows["layer"].iloc[0].endswith(FILTERED)
        part = pd.DataFrame(
            {
                "threshold": 1.0 / (1.0 + np.exp(-points.threshold)) if logits else points.threshold,
                "n_pred": points.n_pred,
                "tp": points.tp,
                "precision": points.precision(),
                "recall": points.recall(n_gt),
                "false_alarms_per_hour": [ratio(n - t, hours) for n, t in zip(points.n_pred, points.tp, strict=True)],
            }
        )
        parts.append(part.assign(**dict(zip(KEYS, key, strict=True)), n_gt=n_gt, leaky=bool(rows["leaky"].iloc[0])))
    return table("curves", pd.concat(parts, ignore_index=True) if parts else [])


def _reliability(selections: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The bins of every model and label, and of the label 'micro' where there are several; all folds together."""
    alone = selections[~selections["layer"].str.endswith(FILTERED)]
    tested = alone[alone["split"].eq("test") & alone["probability"].notna()]
    if len(labels) > 1:
        tested = pd.concat([tested, tested.assign(label="micro")], ignore_index=True)
    parts = [
        reliability_bins(rows["probability"].to_numpy(dtype=float), rows["hit"].to_numpy(dtype=bool)).assign(
            model=model, label=label, leaky=bool(rows["leaky"].iloc[0])
        )
        for (model, label), rows in tested.groupby(["model", "label"])
    ]
    return table("reliability", pd.concat(parts, ignore_index=True) if parts else [])


def _with_notes(metrics: pd.DataFrame, notes: pd.DataFrame) -> pd.DataFrame:
    """Add notes to the rows of their model, layer, label (and micro) and fold, and to the pooled rows of these."""
    text = metrics["note"].fillna("").tolist()
    for note in notes.itertuples(index=False):
        mine = (metrics["model"] == note.model) & (metrics["layer"] == note.layer)
        mine &= metrics["label"].isin([note.label, "micro"])
        for row in np.flatnonzero(mine & metrics["fold"].isin([str(note.fold), POOLED])):
            text[row] = "; ".join(filter(None, [text[row], f"fold {note.fold} {note.label}: {note.note}"]))
    return metrics.assign(note=[t or None for t in text])
