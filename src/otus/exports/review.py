"""Hits, misses and false alarms as tables for a person with ears: Raven selection tables and Audacity label tracks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from otus.annotations import TableRow, audacity_labels, raven_table
from otus.annotations.writing import plain_number
from otus.hearing import Hearing
from otus.measures.evidence import TestedLayer
from otus.tables import FILTERED

#: Columns of the Raven tables behind Raven's own and the label, in this order.
_COLUMNS = (
    "Outcome",
    "Score",
    "Probability",
    "IoU",
    "Onset error (s)",
    "Verdict",
    "selection_id",
    "annotation_id",
    "File Offset (s)",
    "Begin Path",
)

#: Digits of a time in s: microseconds, less than a sample takes.
_DIGITS = 6


def review_files(
    layer: TestedLayer, recordings: pd.DataFrame, annotations: pd.DataFrame, *, root: Path, hearing: Hearing
) -> dict[str, str]:
    """Return the texts of the review tables of a layer by their paths: `raven/`, `audacity/` and one sheet of all.

    There is a Raven table and a label track for every recording that was tested, also where nothing was found or
    missed. Score is what the threshold of the layer is compared with, between 0 and 1; Probability that of a hit; a
    selection has the band of the detector, a miss that of its annotation, neither above half the sample rate. In the
    sheet, what was found comes first, the highest score on top; its times run on over all its recordings in the
    order of their paths, as Raven opens several files, and `File Offset (s)` counts from the beginning of the file.
    """
    rows = reviewed(layer, recordings, annotations, hearing)
    paths = {key: Path(path) for key, path in recordings.set_index("recording_id")["path"].items()}
    rows_of = dict(list(rows.groupby("recording_id")))
    files = {}
    for recording_id in sorted(layer.recordings["recording_id"]):
        path = root / paths[recording_id]
        listed = [_table_row(row, path) for row in rows_of.get(recording_id, rows.iloc[:0]).to_dict("records")]
        files[f"raven/{recording_id}.selections.txt"] = raven_table(listed, extra=_COLUMNS)
        files[f"audacity/{recording_id}.txt"] = audacity_labels(_plain_label(row) for row in listed)
    sheet = _sheet_rows(rows, paths, recordings.set_index("recording_id")["duration_s"], root)
    files["all_recordings.selections.txt"] = raven_table(sheet, extra=_COLUMNS)
    return files


def reviewed(layer: TestedLayer, recordings: pd.DataFrame, annotations: pd.DataFrame, hearing: Hearing) -> pd.DataFrame:
    """Return a row per hit, miss and false alarm of a layer, by recording and time.

    Columns: recording_id, start_s, end_s, label, outcome, selection_id, annotation_id, iou, onset_error_s (as in the
    table of matches), score (0 to 1, NaN for a miss), probability (NaN if unknown), low_hz, high_hz.
    """
    names = ["recording_id", "start_s", "end_s", "label", "outcome", "selection_id", "annotation_id", "iou"]
    found = layer.selections.drop_duplicates("selection_id").set_index("selection_id")
    rows = layer.matches[[*names, "onset_error_s"]].reset_index(drop=True)
    missed = (rows["outcome"] == "miss").to_numpy(dtype=bool)
    calls = annotations.drop_duplicates("annotation_id").set_index("annotation_id")
    half_hz = rows["recording_id"].map(recordings.set_index("recording_id")["sample_rate"]).astype(float) / 2
    bands = {}
    for name, own_hz in (("low_hz", hearing.low_hz), ("high_hz", hearing.high_hz)):
        of_call = rows["annotation_id"].map(calls[name].astype(float))
        bands[name] = np.minimum(of_call.where(missed).fillna(own_hz), half_hz)
    narrow = bands["low_hz"] >= bands["high_hz"]  # a call that is annotated above half the sample rate
    return rows.assign(
        score=rows["selection_id"].map(judgements(found)),
        probability=rows["selection_id"].map(found["probability"].astype(float)),
        low_hz=bands["low_hz"].where(~narrow, 0.0),
        high_hz=bands["high_hz"],
    ).sort_values(["recording_id", "start_s", "end_s", "label", "outcome"], kind="stable", ignore_index=True)


def judgements(selections: pd.DataFrame) -> "pd.Series[float]":
    """Return what the threshold of a layer is compared with, between 0 and 1, for rows of table selections.

    Of a network it is the probability of the peak score, behind a forest the forest's, and the network's again in folds
    that have no forest.
    """
    of_network = pd.Series(expit(selections["peak_score"].to_numpy(dtype=float)), index=selections.index)
    is_filtered = selections["layer"].str.endswith(FILTERED)
    return of_network.where(~is_filtered, selections["rf_probability"].astype(float))


def _table_row(row: dict[Any, Any], path: Path) -> TableRow:
    return TableRow(
        start_s=round(row["start_s"], _DIGITS),
        end_s=round(row["end_s"], _DIGITS),
        label=row["label"],
        low_hz=row["low_hz"],
        high_hz=row["high_hz"],
        recording=path.name,
        extra={
            "Outcome": row["outcome"],
            "Score": _rounded(row["score"], 4),
            "Probability": _rounded(row["probability"], 4),
            "IoU": _rounded(row["iou"], 3),
            "Onset error (s)": _rounded(row["onset_error_s"], 3),
            "Verdict": "",
            "selection_id": _text(row["selection_id"]),
            "annotation_id": _text(row["annotation_id"]),
            "File Offset (s)": plain_number(round(row["start_s"], _DIGITS)),
            "Begin Path": str(path),
        },
    )


def _plain_label(row: TableRow) -> TableRow:
    """The row as Audacity shows it: outcome, label and score in one text, and no frequencies."""
    score = row.extra["Score"]
    words = [row.extra["Outcome"], row.label, *([f"{float(score):.2f}"] if score else [])]
    return replace(row, label=" ".join(words), low_hz=None, high_hz=None)


def _sheet_rows(
    rows: pd.DataFrame, paths: Mapping[str, Path], duration_s: "pd.Series[float]", root: Path
) -> list[TableRow]:
    """The rows of all recordings, by falling score, misses last; their times run on from recording to recording.

    That is as if the recordings were played one after the other in the order of their paths.
    """
    played = sorted(set(rows["recording_id"]), key=lambda recording_id: str(paths[recording_id]))
    ends_s = np.cumsum([0.0, *duration_s.loc[played].astype(float)]).tolist()
    begins_s = dict(zip(played, ends_s, strict=False))
    order = rows.sort_values("score", ascending=False, kind="stable", na_position="last")
    listed = []
    for row in order.to_dict("records"):
        recording_id = row["recording_id"]
        own = _table_row(row, root / paths[recording_id])
        start_s, end_s = (round(begins_s[recording_id] + time_s, _DIGITS) for time_s in (own.start_s, own.end_s))
        listed.append(replace(own, start_s=start_s, end_s=end_s))
    return listed


def _rounded(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
