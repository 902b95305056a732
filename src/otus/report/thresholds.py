"""Thresholds that nobody chose: the fixed ones, and those that reach a rate of false alarms."""

import pandas as pd

from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, with_interval
from otus.report.results import DASH, MOST_ROWS, Row, best_first, cell, label_name, model_name, rows_of, title
from otus.tables import POOLED

_COUNTS = ("n_pred", "tp", "fp", "fn")


def threshold_tables(metrics: pd.DataFrame, board: pd.DataFrame) -> list[Table]:
    """Return the fixed thresholds on the pooled test recordings, one table per row of the leader board."""
    fixed = pooled_points(metrics, "fixed")
    tables = []
    for row in best_first(board):
        rows = rows_of(fixed, row).sort_values("threshold", kind="stable").to_dict("records")
        columns = ["Threshold", "Selections", "Hits", "False alarms", "Misses", "Precision", "Recall", "F1"]
        body = [[threshold_cell(one), *point_cells(one)] for one in rows]
        if body:
            tables.append(Table([*columns, "False alarms/h"], body, text_columns=0, title=title(row)))
    return tables


def rates_table(rates: pd.DataFrame, metrics: pd.DataFrame, board: pd.DataFrame) -> Table | None:
    """Return the recall at every budget of false alarms per hour, a row per row of the leader board; None without."""
    pooled = at_iou(rates, "iou", deciding_iou(metrics))
    pooled = pooled[pooled["fold"].eq(POOLED)]
    budgets = sorted(pooled["budget_per_hour"].dropna().unique())
    body = []
    for row in board.to_dict("records"):
        own = {one["budget_per_hour"]: one for one in rows_of(pooled, row).to_dict("records")}
        if own:
            first = next(iter(own.values()))
            recalls = [with_interval(own[b], "recall", DASH) if b in own else DASH for b in budgets]
            names = [model_name(row), cell(row["layer"]), label_name(row["label"])]
            facts = [cell(first["n_gt"], 0), cell(first["hours"]), cell(first["n_groups"], 0)]
            body.append([*names, *recalls, *facts])
    columns = ["Model", "Layer", "Label", *(f"Recall at {budget:g}/h" for budget in budgets)]
    columns += ["Annotated calls", "Hours", "Groups"]
    left_out = max(0, len(body) - MOST_ROWS)
    return Table(columns, body[:MOST_ROWS], 3, left_out=left_out, rest="recall_at_rates.csv") if body else None


def pooled_points(metrics: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return the rows of that role on the pooled test recordings, at the IoU that decides."""
    rows = at_iou(metrics, "iou", deciding_iou(metrics))
    return rows[rows["role"].eq(role) & rows["fold"].eq(POOLED) & rows["split"].eq("test")]


def point_cells(row: Row) -> list[str]:
    """Return counts and measures of a point as text."""
    ratios = [cell(row["precision"]), cell(row["recall"]), with_interval(row, "f1", DASH)]
    return [*(cell(row[name], 0) for name in _COUNTS), *ratios, cell(row["false_alarms_per_hour"], 1)]


def threshold_cell(row: Row) -> str:
    """Return the threshold of a point as text, a dash if it has no single one."""
    return DASH if pd.isna(row["threshold"]) else f"{row['threshold']:g}"
