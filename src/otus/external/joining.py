"""Selections of all chunks of a recording as one list: what two chunks report across their border counts once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_COLUMNS = ["recording_id", "start_s", "end_s", "label", "score", "peak_score"]


def join_chunks(selections: pd.DataFrame, gap_s: float | None) -> pd.DataFrame:
    """Return recording_id, start_s, end_s, label, score and peak_score of every selection, by recording and time.

    `selections` are those of all shards of a detector. Per recording and label:

    - What different chunks own (its midpoint lies in the chunk) and overlaps is one selection.
    - What lies across a border and is owned by no chunk counts only where no owned one of that label overlaps it, and
      of several that overlap each other only the one with the highest score: on windows that begin elsewhere, two
      chunks may each see the call in the other's half.
    - With `gap_s`, selections that overlap, touch or are at most so many seconds apart are one.

    A joined selection has the highest score of its parts. The order of the rows does not matter.
    """
    chunk = selections["selection_id"].astype(str).str.replace(r"_s\d+$", "", regex=True)
    frame = selections[[*_COLUMNS, "selected"]].assign(chunk=chunk)
    frame = frame.sort_values(["recording_id", "label", "start_s", "end_s", "peak_score", "chunk"])
    joined: list[dict[str, Any]] = []
    for (recording_id, label), rows in frame.groupby(["recording_id", "label"], sort=True):
        found = rows.to_dict("records")
        kept = _across_borders([row for row in found if row["selected"]])
        kept = _with_unowned(kept, [row for row in found if not row["selected"]])
        for row in kept if gap_s is None else _without_gaps(kept, gap_s):
            joined.append({**{name: row[name] for name in _COLUMNS}, "recording_id": recording_id, "label": label})
    return pd.DataFrame(joined, columns=_COLUMNS).sort_values(["recording_id", "start_s", "label"], ignore_index=True)


def _across_borders(rows: Sequence[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """Owned rows in order of time, those of different chunks that overlap as one."""
    kept: list[dict[Any, Any]] = []
    lasting: list[int] = []  # places in kept of what has not ended yet
    for row in rows:
        lasting = [place for place in lasting if kept[place]["end_s"] > row["start_s"]]
        other = next((place for place in lasting if kept[place]["chunk"] != row["chunk"]), None)
        if other is None:
            lasting.append(len(kept))
            kept.append(row)
        else:
            kept[other] = _united(kept[other], row) | {"chunk": row["chunk"]}
    return kept


def _with_unowned(kept: list[dict[Any, Any]], rows: Sequence[dict[Any, Any]]) -> list[dict[Any, Any]]:
    """The owned rows, and the best of those that nobody owns where nothing else is."""
    taken = list(kept)
    start_s, end_s = (np.array([row[name] for row in kept], dtype=float) for name in ("start_s", "end_s"))
    for row in sorted(rows, key=lambda row: (-row["peak_score"], row["start_s"], row["end_s"])):
        if not np.any((start_s < row["end_s"]) & (end_s > row["start_s"])):
            taken.append(row)
            start_s, end_s = np.append(start_s, row["start_s"]), np.append(end_s, row["end_s"])
    return sorted(taken, key=lambda row: (row["start_s"], row["end_s"]))


def _without_gaps(rows: Sequence[dict[Any, Any]], gap_s: float) -> list[dict[Any, Any]]:
    kept: list[dict[Any, Any]] = []
    for row in rows:
        if kept and row["start_s"] - kept[-1]["end_s"] <= gap_s:
            kept[-1] = _united(kept[-1], row)
        else:
            kept.append(row)
    return kept


def _united(one: dict[Any, Any], other: dict[Any, Any]) -> dict[Any, Any]:
    """Both as one: from the first start to the last end, with the higher score."""
    best = max(one, other, key=lambda row: row["peak_score"])
    span = {
        "start_s": min(one["start_s"], other["start_s"]),
        "end_s": max(one["end_s"], other["end_s"]),
    }
    return best | span
