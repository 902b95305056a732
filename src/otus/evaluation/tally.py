"""From judged selections to counts per recording and to hits, misses and false alarms; one code for every layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.matching import Intervals, hits_in_order, match
from otus.sides import Spans, mostly_unknown

Indices = NDArray[np.int64]


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
    found, calls = Intervals.of(judged.selections), Intervals.of(judged.annotations)
    rank = judged.selections["rank"].to_numpy(dtype=float)
    for rows, of_calls in _by_recording(judged):
        order = np.argsort(-rank[rows], kind="stable")
        hits[rows] = hits_in_order(calls.at(of_calls), found.at(rows), order, iou)
    return hits


def settle(judged: Judged, iou: float) -> tuple[Judged, NDArray[np.bool_]]:
    """Return the selections that count, and per selection whether it is a hit (as `judge` says).

    No hit that lies in time labelled unknown, with half of its length or more, is left out: it is no false alarm.
    """
    hits = judge(judged, iou)
    left_out = np.zeros(len(hits), dtype=bool)
    found = Intervals.of(judged.selections)
    for recording_id, rows in _rows_of(judged.selections).items():
        if (unknown := judged.unknown.get(recording_id)) is not None:
            left_out[rows] = ~hits[rows] & mostly_unknown(unknown, found.start_s[rows], found.end_s[rows])
    return replace(judged, selections=judged.selections[~left_out]), hits[~left_out]


def count_per_recording(
    judged: Judged, hits: NDArray[np.bool_], thresholds: Mapping[str, float], chosen: str
) -> pd.DataFrame:
    """Return n_gt, n_pred and tp of every recording at each named threshold on the rank (`chosen` is selected)."""
    index = pd.Index(judged.recordings["recording_id"])
    of_call = index.get_indexer(judged.annotations["recording_id"])
    of_selection = index.get_indexer(judged.selections["recording_id"])
    rank = judged.selections["rank"].to_numpy(dtype=float)
    base = judged.recordings.reindex(columns=["recording_id", "group", "part", "duration_s"])
    parts = []
    for name, threshold in thresholds.items():
        above = rank >= threshold
        counts = {
            "n_gt": np.bincount(of_call, minlength=len(index)),
            "n_pred": np.bincount(of_selection[above], minlength=len(index)),
            "tp": np.bincount(of_selection[above & hits], minlength=len(index)),
        }
        parts.append(base.assign(operating_point=name, threshold=threshold, selected=name == chosen, **counts))
    found = pd.concat(parts, ignore_index=True)
    found["fp"], found["fn"] = found["n_pred"] - found["tp"], found["n_gt"] - found["tp"]
    of = {"precision": found["n_pred"], "recall": found["n_gt"], "f1": (found["n_pred"] + found["n_gt"]) / 2}
    for name, number in of.items():
        found[name] = found["tp"] / number.where(number > 0)  # nothing there and nothing found is no number
    return found


def matched_pairs(judged: Judged, iou: float) -> pd.DataFrame:
    """Return one row per hit, miss and false alarm of the selections given (already above the threshold)."""
    selections, truth = judged.selections.reset_index(drop=True), judged.annotations.reset_index(drop=True)
    found, calls = Intervals.of(selections), Intervals.of(truth)
    partner, value = np.full(len(selections), -1), np.full(len(selections), np.nan)
    missed = np.ones(len(truth), dtype=bool)
    for rows, of_calls in _by_recording(judged):
        pairs = match(calls.at(of_calls), found.at(rows), iou)
        hit = rows[pairs.selection]
        partner[hit], value[hit] = of_calls[pairs.annotation], pairs.iou
        missed[partner[hit]] = False
    is_hit = partner >= 0
    call = truth.reindex(np.where(is_hit, partner, -1))  # a row of nulls for a false alarm
    columns = selections[["recording_id", "selection_id", "start_s", "end_s", "score"]].assign(
        outcome=np.where(is_hit, "hit", "false_alarm"), annotation_id=call["annotation_id"].to_numpy(), iou=value
    )
    for name, own, theirs in (("onset", found.start_s, "start_s"), ("offset", found.end_s, "end_s")):
        columns[f"{name}_error_s"] = np.abs(own - call[theirs].to_numpy(dtype=float))
    misses = truth.loc[missed, ["recording_id", "annotation_id", "start_s", "end_s"]].assign(outcome="miss")
    rows = pd.concat([columns, misses], ignore_index=True) if len(columns) else misses
    names = ["recording_id", "outcome", "selection_id", "annotation_id", "start_s", "end_s", "score", "iou"]
    ordered = rows.reindex(columns=[*names, "onset_error_s", "offset_error_s"])
    return ordered.sort_values(["recording_id", "start_s", "outcome"], ignore_index=True)


def _by_recording(judged: Judged) -> list[tuple[Indices, Indices]]:
    """Row numbers of the selections of each recording that has any, and those of its calls."""
    calls, none = _rows_of(judged.annotations), np.zeros(0, dtype=np.int64)
    return [(rows, calls.get(recording_id, none)) for recording_id, rows in sorted(_rows_of(judged.selections).items())]


def _rows_of(frame: pd.DataFrame) -> dict[str, Indices]:
    """Row numbers by recording, in the order of the rows."""
    codes, names = pd.factorize(frame["recording_id"])
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {str(name): order[borders[i] : borders[i + 1]] for i, name in enumerate(names)}
