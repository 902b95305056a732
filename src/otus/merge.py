"""The merge stage: the measures of all models together, counts per recording, and how the models differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from otus.measures.differences import count_differences
from otus.measures.model import ModelMeasures, rows_of_all, table_names
from otus.tables import MICRO, POOLED, table

_KEYS = ["model", "layer", "fold", "split", "label", "iou"]
_SUMS = ["n_gt", "n_pred", "tp", "fp", "fn"]


@dataclass(frozen=True)
class MergedMetrics:
    """The final tables; per recording at the chosen operating points, matches of each fold's test and val."""

    measures: ModelMeasures
    per_recording: pd.DataFrame
    matches: pd.DataFrame


def merge_metrics(
    measures: Sequence[ModelMeasures],
    counts: Sequence[pd.DataFrame],
    matches: Sequence[pd.DataFrame],
    *,
    labels: Sequence[str],
    bootstrap: int,
    seed: int,
) -> MergedMetrics:
    """Return the measures of all models together, with the differences between them on the recordings that they share.

    `counts` and `matches` are those of every model and layer. Pooled rows per recording are out-of-fold: every
    recording counts once, judged by the model that never saw it (leaky variants: every moment of it, by the model that
    never saw that moment).
    """
    together = ModelMeasures(
        **{name: rows_of_all(name, [getattr(one, name) for one in measures]) for name in table_names(ModelMeasures)}
    )
    by_fold = rows_of_all("counts", counts).drop(columns="part")
    tested = by_fold[by_fold["split"] == "test"]
    across = count_differences(tested, labels=labels, bootstrap=bootstrap, seed=seed)
    return MergedMetrics(
        replace(together, differences=rows_of_all("differences", [together.differences, across])),
        per_recording_rows(by_fold, labels),
        rows_of_all("matches", matches),
    )


def per_recording_rows(by_fold: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the table metrics_per_recording: every fold and all of them together, every label and micro.

    `by_fold` holds counts at the chosen operating points. A threshold that is not the same in all that a row adds up
    is null.
    """
    single = by_fold.assign(fold=by_fold["fold"].astype(str))
    rows = pd.concat([single, _added_up(single[single["split"] == "test"].assign(fold=POOLED))], ignore_index=True)
    if len(labels) > 1:
        rows = pd.concat([rows, _added_up(rows.assign(label=MICRO), time="first")], ignore_index=True)
    hits, found, calls = (rows[name].to_numpy(dtype=float) for name in ("tp", "n_pred", "n_gt"))
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = rows.assign(precision=hits / found, recall=hits / calls, f1=2 * hits / (found + calls))
    return table("metrics_per_recording", rows.sort_values([*_KEYS, "recording_id"], ignore_index=True))


def _added_up(rows: pd.DataFrame, time: str = "sum") -> pd.DataFrame:
    """One row for all that have the same keys: folds that test parts of a recording, or labels in the same time.

    `time` says what becomes of their durations: "sum", or the "first" one where all are about the same time.
    """
    keys = [*_KEYS, "operating_point", "selected", "leaky", "recording_id", "group"]
    sums = rows.groupby(keys, sort=False, as_index=False).agg(
        **{name: (name, "sum") for name in _SUMS},
        duration_s=("duration_s", time),
        threshold=("threshold", "min"),
        highest=("threshold", "max"),
        known=("threshold", "count"),
        rows=("threshold", "size"),
    )
    same = (sums["threshold"] == sums["highest"]) & (sums["known"] == sums["rows"])
    return sums.assign(threshold=sums["threshold"].where(same)).drop(columns=["highest", "known", "rows"])
