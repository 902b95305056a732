"""The table `metrics`: every operating point of a model, in every fold and in all folds together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import GroupDraws, effective_groups, group_draws, rate_interval, share_interval
from otus.measures.evidence import TestedLayer
from otus.measures.notes import TUNED_NOTE, Truth, row_notes, truth_of
from otus.measures.ranked import average_precision_interval, ranked_events
from otus.rates import summarise_errors
from otus.tables import MICRO, POOLED, table

Reals = NDArray[np.float64]

CHOSEN, FIXED, GRID, BEST = "chosen", "fixed", "grid", "best"

#: What tells rows of metrics apart, apart from the operating point.
_SIDE = ["model", "layer", "fold", "split", "label", "iou"]
_POINT = ["role", "operating_point"]
_SUMS = ["n_gt", "n_pred", "tp"]


@dataclass(frozen=True)
class _Side:
    """What rows of one side of a fold have in common: who was tested, on what, and how often groups are drawn."""

    key: Mapping[str, Any]
    part: str | None
    leaky: bool
    n_recordings: int
    truth: Truth
    draws: GroupDraws
    seconds: Reals
    layer: TestedLayer | None

    @property
    def hours(self) -> float:
        """Hours of sound that were searched."""
        return float(self.seconds.sum()) / 3600.0


def metrics_rows(
    counts: pd.DataFrame,
    points: pd.DataFrame,
    layers: Sequence[TestedLayer],
    *,
    labels: Sequence[str],
    bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    """Return the table `metrics` of one model: chosen points first, then fixed ones, those of the grid, and the best.

    Chosen points come from `counts` (per recording; every fold's val and test side, and the test sides of all folds
    together), fixed ones and the grid from `points` (per group, test sides). `layers` are the test sides that belong to
    them; average precision, with its interval, and boundary errors come from there and stand on chosen rows of test
    sides at the deciding IoU (the first one of `counts`). Of several labels, `micro` pools the counts of all. Per layer
    and label there is one row `best`: the highest F1 of the fixed points and the grid on all folds together. Intervals
    resample groups; the resamples are the same wherever the groups are.
    """
    per_recording = _every_row(counts.assign(role=CHOSEN), ["recording_id"], labels)
    per_group = _every_row(points.assign(split="test"), [], labels)
    iou_order = {iou: i for i, iou in enumerate(counts["iou"].unique())}
    others = dict(list(per_group.groupby(_SIDE, sort=False)))
    drawn: dict[tuple[str, ...], GroupDraws] = {}
    rows: list[dict[str, Any]] = []
    for key, own in per_recording.groupby(_SIDE, sort=True):
        side = _side(dict(zip(_SIDE, key, strict=True)), own, layers, drawn, bootstrap, seed)
        rows += _rows(own, side)
        if key in others:
            rows += _rows(others[key], side)
    rows += _best_rows(rows, next(iter(iou_order)))
    found = table("metrics", rows)
    ranks = {"role": [CHOSEN, FIXED, GRID, BEST], "iou": list(iou_order)}
    return found.sort_values(
        ["role", *_SIDE, "threshold", "operating_point"],
        key=lambda column: column.map(ranks[column.name].index) if column.name in ranks else column,
        ignore_index=True,
    )


def _every_row(rows: pd.DataFrame, names: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """The counts, those of several labels together as well, and those of test sides again as fold `pooled`."""
    side = [name for name in _SIDE if name != "label"]
    keys = [*side, "part", *_POINT, "group", "duration_s", "leaky", *names]
    rows = rows.assign(fold=rows["fold"].astype(str))[[*keys, "label", "threshold", *_SUMS]]
    if len(labels) > 1 and len(rows):
        grouped = rows.groupby(keys, dropna=False, sort=False)
        micro = grouped[_SUMS].sum().assign(threshold=_common(grouped["threshold"]), label=MICRO)
        rows = pd.concat([rows, micro.reset_index()], ignore_index=True)
    return pd.concat([rows, rows[rows["split"] == "test"].assign(fold=POOLED)], ignore_index=True)


def _common(thresholds: Any) -> "pd.Series[float]":
    """The threshold of each group of rows; NaN where it differs, also within a row."""
    lowest, highest = thresholds.min(), thresholds.max()
    return lowest.where((lowest == highest) & (thresholds.count() == thresholds.size()))


def _side(
    key: Mapping[str, Any],
    own: pd.DataFrame,
    layers: Sequence[TestedLayer],
    drawn: dict[tuple[str, ...], GroupDraws],
    bootstrap: int,
    seed: int,
) -> _Side:
    """The facts of one side, from the counts of its recordings; a recording that several folds test in parts is one."""
    recordings = own.groupby(["recording_id", "group"], as_index=False)[["duration_s", "n_gt"]].sum()
    names = np.unique(recordings["group"].to_numpy(dtype=str))
    if tuple(names) not in drawn:
        drawn[tuple(names)] = group_draws(names, n=bootstrap, seed=seed)
    draws = drawn[tuple(names)]
    found = [one for one in layers if key["split"] == "test" and (one.layer, one.fold) == (key["layer"], key["fold"])]
    parts = own["part"].dropna().unique()
    return _Side(
        key=key,
        part=str(parts[0]) if len(parts) and key["fold"] != POOLED else None,
        leaky=bool(own["leaky"].any()),
        n_recordings=len(recordings),
        truth=_truth(recordings, found[0] if found else None, str(key["label"])),
        draws=draws,
        seconds=draws.totals(recordings["duration_s"].to_numpy(dtype=float), recordings["group"].to_numpy(dtype=str)),
        layer=found[0] if found and np.isclose(found[0].iou, key["iou"]) else None,
    )


def _truth(recordings: pd.DataFrame, layer: TestedLayer | None, label: str) -> Truth:
    if layer is not None:
        return truth_of(_of_label(layer.calls, label), layer.recordings)
    return Truth(
        n_gt=int(recordings["n_gt"].sum()),
        n_groups=int(recordings["group"].nunique()),
        n_groups_with_calls=int(recordings.loc[recordings["n_gt"] > 0, "group"].nunique()),
        n_recordings=len(recordings),
        n_without_calls=int((recordings["n_gt"] == 0).sum()),
    )


def _of_label(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    return rows if label == MICRO else rows[rows["label"] == label]


def _rows(own: pd.DataFrame, side: _Side) -> list[dict[str, Any]]:
    """One row per operating point of one side; `own` are its counts, per recording or per group."""
    note = row_notes(side.truth, leaky=side.leaky)
    same: dict[str, Any] = {**side.key, "part": side.part, "leaky": side.leaky, "note": note, "hours": side.hours}
    same |= {"n_recordings": side.n_recordings, "n_groups": len(side.draws.groups)}
    points = own.groupby(_POINT, sort=True)
    thresholds = _common(points["threshold"])
    of_group = np.searchsorted(side.draws.groups, own["group"].to_numpy(dtype=str))
    cell = points.ngroup().to_numpy(dtype=np.int64) * len(side.draws.groups) + of_group
    shape = len(thresholds), len(side.draws.groups)
    size = shape[0] * shape[1]
    flat = np.stack([np.bincount(cell, weights=own[name], minlength=size) for name in _SUMS])
    sums = flat.astype(np.float64).reshape(len(_SUMS), *shape)
    rows = []
    for ((role, name), threshold), n_gt, numbers in zip(thresholds.items(), sums[0], _numbers(sums, side), strict=True):
        row = same | {"role": role, "operating_point": name, "threshold": threshold, "selected": role == CHOSEN}
        row |= numbers
        if role == CHOSEN and side.layer is not None:
            row |= _ranking(side.layer, n_gt, side)
        rows.append(row)
    return rows


def _numbers(sums: Reals, side: _Side) -> list[dict[str, Any]]:
    """Counts, ratios and intervals of every point from its sums (3, points, groups) of calls, selections and hits."""
    hours = np.broadcast_to(side.seconds / 3600.0, sums.shape[1:])
    n_gt, n_pred, _ = sums
    can_hit = n_gt.sum(axis=1, keepdims=True) > 0  # without a call precision and F1 are 0, whatever is found
    precise, of_both = (np.where(can_hit, amount, 0.0) for amount in (n_pred, n_pred + n_gt))
    telling = {"precision": precise, "recall": n_gt, "f1": of_both, "false_alarms_per_hour": hours}
    weights = side.draws.weights.T
    values = _ratios(sums.sum(axis=2), hours.sum(axis=1))
    resampled = _ratios(np.stack([part @ weights for part in sums]), hours[:1] @ weights)
    rows: list[dict[str, Any]] = [
        {"n_gt": calls, "n_pred": found, "tp": hits, "fp": found - hits, "fn": calls - hits}
        for calls, found, hits in sums.sum(axis=2).T.astype(np.int64).tolist()
    ]
    for name, groups in telling.items():
        n_groups = [effective_groups(amount) for amount in groups]
        for row, value, own, n in zip(rows, values[name].tolist(), resampled[name], n_groups, strict=True):
            if name == "false_alarms_per_hour":
                interval = rate_interval(value, own, n, side.hours)
            else:
                interval = share_interval(value, own, n)
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return rows


def _ratios(sums: Reals, hours: Reals) -> dict[str, Reals]:
    """The ratios of sums (3, ...) of calls, selections and hits; NaN where there is nothing to divide by."""
    n_gt, n_pred, tp = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "precision": tp / n_pred,
            "recall": tp / n_gt,
            "f1": 2.0 * tp / (n_pred + n_gt),
            "false_alarms_per_hour": (n_pred - tp) / hours,
        }


def _ranking(layer: TestedLayer, n_gt: Reals, side: _Side) -> dict[str, float]:
    """Average precision with its interval, and the boundary errors of the hits."""
    label = str(side.key["label"])
    ranked = ranked_events(layer, layer.labels if label == MICRO else [label])
    interval = average_precision_interval(ranked, n_gt, side.draws.weights)
    row = {
        "average_precision": interval.value,
        "average_precision_low": interval.low,
        "average_precision_high": interval.high,
    }
    hits = _of_label(layer.matches[layer.matches["outcome"] == "hit"], label)
    for name in ("onset_error", "offset_error"):
        summary = summarise_errors(hits[f"{name}_s"].to_numpy(dtype=float))
        row |= {f"{name}_median_s": summary.median, f"{name}_p90_s": summary.p90}
    return row


def _best_rows(rows: Sequence[Mapping[str, Any]], deciding_iou: float) -> list[dict[str, Any]]:
    """For each layer and label, the best of what was not chosen on validation; of equals, the first by name."""
    best: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in rows:
        if row["role"] == CHOSEN or row["fold"] != POOLED or row["iou"] != deciding_iou or np.isnan(row["f1"]):
            continue
        key = (row["model"], row["layer"], row["label"])
        if key not in best or row["f1"] > best[key]["f1"]:
            best[key] = row
    return [
        {**row, "role": BEST, "note": "; ".join(filter(None, [row["note"], TUNED_NOTE]))}
        for _, row in sorted(best.items())
    ]
