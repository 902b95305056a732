"""Test recording by test recording: counts of the best model and layer."""

import pandas as pd

from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou
from otus.report.results import Row, cell
from otus.tables import MICRO, POOLED

_FIRST_RECORDINGS = 200


def best_recordings(per_recording: pd.DataFrame, metrics: pd.DataFrame, best: Row | None) -> pd.DataFrame:
    """Return the rows of metrics_per_recording of the best model and layer, one per test recording and label."""
    rows = at_iou(per_recording, "iou", deciding_iou(metrics))
    if best is None:
        return rows.iloc[:0]
    rows = rows[rows["model"].eq(best["model"]) & rows["layer"].eq(best["layer"]) & rows["selected"].eq(True)]
    return rows[rows["split"].eq("test") & rows["fold"].eq(POOLED) & rows["label"].ne(MICRO)]


def recordings_table(rows: pd.DataFrame, recordings: pd.DataFrame) -> Table | None:
    """Return the rows of best_recordings as text, those with the most errors first; None without a row."""
    if rows.empty:
        return None
    rows = rows.assign(errors=rows["fp"] + rows["fn"])
    rows = rows.sort_values(["errors", "fn", "recording_id", "label"], ascending=[False, False, True, True])
    paths = dict(zip(recordings["recording_id"], recordings["path"], strict=True))
    several = rows["label"].nunique() > 1
    body = []
    for row in rows.head(_FIRST_RECORDINGS).to_dict("records"):
        names = [str(paths.get(row["recording_id"], row["recording_id"])), cell(row["group"])]
        counts = [cell(row[name], 0) for name in ("n_gt", "n_pred", "tp", "fp", "fn")]
        label = [cell(row["label"])] if several else []
        body.append([*names, *label, cell(row["duration_s"], 0), *counts, cell(row["f1"])])
    columns = ["Recording", "Group", *(["Label"] if several else []), "Length (s)"]
    columns += ["Annotated", "Selections", "Hits", "False alarms", "Misses", "F1"]
    left_out = len(rows) - len(body)
    rest = "metrics_per_recording.csv"
    return Table(columns, body, text_columns=3 if several else 2, path_column=0, left_out=left_out, rest=rest)
