"""From judged selections to counts per recording and to rows of metrics; the same code for every layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.matching import Intervals, hits_in_order, match
from otus.metrics import average_precision, bootstrap_scores, curve, precision_recall_f1, ratio
from otus.seeds import derive_seed
from otus.sides import Spans, mostly_unknown
from otus.tables import table

#: What tells rows of metrics apart, apart from the operating point.
KEYS = ["model", "layer", "fold", "split", "label", "iou"]

_LEAKY_NOTE = "leaky: clips of one recording stand on both sides"


@dataclass(frozen=True)
class Judged:
    """Selections of one model, layer, fold, split and label with the score that ranks them.

    `selections` has recording_id, start_s, end_s and rank; `annotations` the calls of the same label; `recordings`
    everything that was searched (recording_id, group, duration_s; part, if the fold has one), each recording once;
    `unknown` the time of each recording that is labelled unknown.
    """

    selections: pd.DataFrame
    annotations: pd.DataFrame
    recordings: pd.DataFrame
    unknown: Mapping[str, Spans] = field(default_factory=dict)


def judge(judged: Judged, iou: float) -> NDArray[np.bool_]:
    """Return, per selection, whether it enlarges the maximum matching when added by falling rank.

    For every threshold on the rank, the number of True above it is the number of true positives there.
    """
    hits = np.zeros(len(judged.selections), dtype=bool)
    for rows, calls in _by_recording(judged):
        part = judged.selections.iloc[rows]
        order = np.argsort(-part["rank"].to_numpy(dtype=float), kind="stable")
        hits[rows] = hits_in_order(calls, _intervals(part), order, iou)
    return hits


def settle(judged: Judged, iou: float) -> tuple[Judged, NDArray[np.bool_]]:
    """Return the selections that count, and per selection whether it is a hit (as `judge` says).

    No hit that lies in time labelled unknown, with half of its length or more, is left out: it is no false alarm.
    """
    hits = judge(judged, iou)
    left_out = np.zeros(len(hits), dtype=bool)
    for recording_id, rows in judged.selections.reset_index(drop=True).groupby("recording_id").indices.items():
        if (unknown := judged.unknown.get(str(recording_id))) is not None:
            found = _intervals(judged.selections.iloc[rows])
            left_out[rows] = ~hits[rows] & mostly_unknown(unknown, found.start_s, found.end_s)
    return replace(judged, selections=judged.selections[~left_out]), hits[~left_out]


def count_per_recording(
    judged: Judged, hits: NDArray[np.bool_], thresholds: Mapping[str, float], chosen: str
) -> pd.DataFrame:
    """Return n_gt, n_pred and tp of every recording at each named threshold on the rank (`chosen` is selected)."""
    index = judged.recordings["recording_id"]
    n_gt = judged.annotations["recording_id"].value_counts().reindex(index, fill_value=0).to_numpy()
    rank = judged.selections["rank"].to_numpy(dtype=float)
    parts = []
    for name, threshold in thresholds.items():
        above = rank >= threshold
        found = judged.selections.loc[above, "recording_id"].value_counts().reindex(index, fill_value=0)
        hit = judged.selections.loc[above & hits, "recording_id"].value_counts().reindex(index, fill_value=0)
        part = judged.recordings.reindex(columns=["recording_id", "group", "part", "duration_s"])
        part["operating_point"], part["threshold"], part["selected"] = name, threshold, name == chosen
        part["n_gt"], part["n_pred"], part["tp"] = n_gt, found.to_numpy(), hit.to_numpy()
        parts.append(part)
    counts = pd.concat(parts, ignore_index=True)
    counts["fp"], counts["fn"] = counts["n_pred"] - counts["tp"], counts["n_gt"] - counts["tp"]
    values = [precision_recall_f1(*row) for row in counts[["tp", "n_pred", "n_gt"]].itertuples(index=False)]
    counts[["precision", "recall", "f1"]] = np.asarray(values, dtype=float).reshape(-1, 3)
    return counts


def matched_pairs(judged: Judged, iou: float) -> pd.DataFrame:
    """Return one row per hit, miss and false alarm of the selections given (already above the threshold)."""
    rows: list[dict[str, Any]] = []
    calls_of = dict(list(judged.annotations.groupby("recording_id")))
    for selected, calls in _by_recording(judged):
        part = judged.selections.iloc[selected]
        recording_id = part["recording_id"].iloc[0]
        pairs = match(calls, _intervals(part), iou)
        truth = calls_of.pop(recording_id, judged.annotations.iloc[:0])
        hit_of = dict(
            zip(pairs.selection.tolist(), zip(pairs.annotation.tolist(), pairs.iou, strict=True), strict=True)
        )
        for i, selection in enumerate(part.itertuples(index=False)):
            call, value = hit_of.get(i, (None, math.nan))
            rows.append(_found_row(selection, None if call is None else truth.iloc[call], value))
        missed = sorted(set(range(len(calls))) - set(pairs.annotation.tolist()))
        rows += [_missed_row(recording_id, truth.iloc[i]) for i in missed]
    for recording_id, truth in calls_of.items():
        rows += [_missed_row(recording_id, truth.iloc[i]) for i in range(len(truth))]
    columns = ["recording_id", "outcome", "selection_id", "annotation_id", "start_s", "end_s", "score", "iou"]
    frame = pd.DataFrame(rows, columns=[*columns, "onset_error_s", "offset_error_s"])
    return frame.sort_values(["recording_id", "start_s", "outcome"], ignore_index=True)


def summarise(
    counts: pd.DataFrame, ranked: pd.DataFrame, matches: pd.DataFrame, *, bootstrap: int, seed: int
) -> pd.DataFrame:
    """Return the `metrics` table: one row per key and operating point; IoU thresholds in the order of `counts`.

    `counts` is per recording; `ranked` has the KEYS, rank and hit of all selections (for average precision);
    `matches` the boundary errors of the selected operating points. Intervals resample groups.
    """
    precision_of = {key: _average_precision(rows, counts, key) for key, rows in ranked.groupby(KEYS)}
    errors = matches.rename(columns={"iou": "pair_iou", "iou_threshold": "iou"}).groupby(KEYS)
    error_of = errors[["onset_error_s", "offset_error_s"]].median()
    rows = []
    for key, part in counts.groupby([*KEYS, "operating_point"], sort=True):
        keys = dict(zip([*KEYS, "operating_point"], key, strict=True))
        row = keys | _pooled(part, bootstrap, derive_seed(seed, *map(str, key)))
        row["average_precision"] = precision_of.get(key[:-1], math.nan)
        if row["selected"] and key[:-1] in error_of.index:
            row["onset_error_median_s"], row["offset_error_median_s"] = error_of.loc[key[:-1]]
        rows.append(row)
    deciding_first = {iou: i for i, iou in enumerate(counts["iou"].unique())}
    return table("metrics", rows).sort_values(
        [*KEYS, "selected", "threshold"],
        key=lambda column: column.map(deciding_first) if column.name == "iou" else column,
        ignore_index=True,
    )


def _pooled(part: pd.DataFrame, bootstrap: int, seed: int) -> dict[str, Any]:
    """The numbers of one row: pooled counts, ratios with intervals, false alarms per hour, warnings."""
    sums = part[["n_gt", "n_pred", "tp", "fp", "fn"]].sum()
    hours = float(part["duration_s"].sum()) / 3600.0
    scores = bootstrap_scores(
        part["tp"].to_numpy(dtype=np.int64),
        part["n_pred"].to_numpy(dtype=np.int64),
        part["n_gt"].to_numpy(dtype=np.int64),
        part["group"].to_numpy(dtype=str),
        n=bootstrap,
        seed=seed,
    )
    row: dict[str, Any] = {k: int(v) for k, v in sums.items()}
    row |= {"n_recordings": part["recording_id"].nunique(), "n_groups": part["group"].nunique(), "hours": hours}
    row |= {name: bool(part[name].iloc[0]) for name in ("selected", "leaky")}
    row["false_alarms_per_hour"] = ratio(row["fp"], hours)
    thresholds = part["threshold"].unique()
    row["threshold"] = float(thresholds[0]) if len(thresholds) == 1 else math.nan
    for name in ("precision", "recall", "f1"):
        interval = getattr(scores, name)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row["note"] = _note(part, row)
    return row


def _note(part: pd.DataFrame, row: Mapping[str, Any]) -> str | None:
    """What a reader must know before trusting the row; None if there is nothing."""
    notes = [_LEAKY_NOTE] if row["leaky"] else []
    if row["n_gt"] == 0:
        notes.append("no annotated call: recall is undefined")
    elif row["n_gt"] < 10:
        notes.append(f"only {row['n_gt']} annotated calls")
    if row["n_groups"] < 10:  # a bootstrap over few groups misses the spread between groups
        notes.append(f"only {row['n_groups']} groups: the interval is too narrow to be trusted")
    if row["n_gt"] and (part["n_gt"] > 0).all():
        notes.append("no recording without calls: false alarms may be underestimated")
    return "; ".join(notes) or None


def _average_precision(rows: pd.DataFrame, counts: pd.DataFrame, key: tuple[Any, ...]) -> float:
    same = np.logical_and.reduce([counts[k] == v for k, v in zip(KEYS, key, strict=True)])
    n_gt = int(counts[same & counts["selected"]]["n_gt"].sum())
    return average_precision(curve(rows["rank"].to_numpy(dtype=float), rows["hit"].to_numpy(dtype=bool)), n_gt)


def _by_recording(judged: Judged) -> list[tuple[NDArray[np.int64], Intervals]]:
    """Row numbers of the selections of each recording that has any, with the calls of that recording."""
    calls = {k: _intervals(v) for k, v in judged.annotations.groupby("recording_id")}
    none = Intervals(np.zeros(0), np.zeros(0))
    positions = judged.selections.reset_index(drop=True).groupby("recording_id").indices
    return [(np.asarray(rows), calls.get(recording_id, none)) for recording_id, rows in sorted(positions.items())]


def _intervals(frame: pd.DataFrame) -> Intervals:
    return Intervals(frame["start_s"].to_numpy(dtype=float), frame["end_s"].to_numpy(dtype=float))


def _found_row(selection: Any, call: Any, iou: float) -> dict[str, Any]:
    row = {
        "recording_id": selection.recording_id,
        "outcome": "false_alarm" if call is None else "hit",
        "selection_id": selection.selection_id,
        "annotation_id": None if call is None else call["annotation_id"],
        "start_s": selection.start_s,
        "end_s": selection.end_s,
        "score": selection.score,
        "iou": iou,
    }
    if call is not None:
        row["onset_error_s"] = abs(selection.start_s - call["start_s"])
        row["offset_error_s"] = abs(selection.end_s - call["end_s"])
    return row


def _missed_row(recording_id: str, call: Any) -> dict[str, Any]:
    return {
        "recording_id": recording_id,
        "outcome": "miss",
        "annotation_id": call["annotation_id"],
        "start_s": call["start_s"],
        "end_s": call["end_s"],
    }


def with_micro(counts: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Return the counts with rows of the label 'micro' (all labels pooled) where there are several labels."""
    if len(labels) < 2:
        return counts
    keys = [*(k for k in KEYS if k != "label"), "operating_point", "recording_id", "group", "duration_s", "selected"]
    keys += ["leaky"]
    sums = counts.groupby(keys, as_index=False)[["n_gt", "n_pred", "tp", "fp", "fn"]].sum()
    values = [precision_recall_f1(*row) for row in sums[["tp", "n_pred", "n_gt"]].itertuples(index=False)]
    sums[["precision", "recall", "f1"]] = np.asarray(values, dtype=float).reshape(-1, 3)
    same = counts.groupby(keys)["threshold"].agg(lambda t: t.iloc[0] if t.nunique() == 1 else math.nan)
    sums["threshold"] = same.to_numpy()
    return pd.concat([counts, sums.assign(label="micro")], ignore_index=True)
