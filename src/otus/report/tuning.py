"""What the test recordings would have allowed: shown beside the result, so that nobody takes it for the result."""

import pandas as pd

from otus.layout import Table
from otus.report.leaderboard import with_interval
from otus.report.results import DASH, MOST_ROWS, Row, best_row, cell, label_name, model_name, rows_of, signed, title
from otus.report.thresholds import point_cells, pooled_points

_MOST_POINTS = 20


def tuning_table(metrics: pd.DataFrame, board: pd.DataFrame) -> Table | None:
    """Return the test F1 of each chosen point beside the best that the test recordings allow; None without any best."""
    best_points, fixed = pooled_points(metrics, "best"), _fixed_names(metrics)
    body = []
    for row in board.to_dict("records"):
        found = rows_of(best_points, row).to_dict("records")
        if found:
            best = found[0]
            names = [model_name(row), cell(row["layer"]), label_name(row["label"]), _point_name(best, fixed)]
            body.append([*names, with_interval(row, "f1", DASH), cell(best["f1"]), signed(best["f1"] - row["f1"])])
    columns = ["Model", "Layer", "Label", "Tuned point", "F1, chosen (the result)", "F1, tuned (no result)", "Gap"]
    left_out = max(0, len(body) - MOST_ROWS)
    return Table(columns, body[:MOST_ROWS], 4, left_out=left_out, rest="metrics.csv") if body else None


def tuned_points(metrics: pd.DataFrame, board: pd.DataFrame) -> Table | None:
    """Return the points of the grid with the best F1 on the test recordings, for the best row of the leader board."""
    best = best_row(board)
    if best is None:
        return None
    points = rows_of(pd.concat([pooled_points(metrics, role) for role in ("fixed", "grid")]), best)
    points = points.dropna(subset=["f1"])
    points = points.sort_values(["f1", "role", "operating_point"], ascending=[False, True, True], kind="stable")
    fixed = _fixed_names(metrics)
    body = [[_point_name(one, fixed), *point_cells(one)] for one in points.head(_MOST_POINTS).to_dict("records")]
    columns = ["Point", "Selections", "Hits", "False alarms", "Misses", "Precision", "Recall", "F1", "False alarms/h"]
    left_out = len(points) - len(body)
    return Table(columns, body, 1, title=title(best), left_out=left_out, rest="metrics.csv") if body else None


def _fixed_names(metrics: pd.DataFrame) -> frozenset[str]:
    """The points that are the chosen decoding at another threshold; they are named after it."""
    return frozenset(pooled_points(metrics, "fixed")["operating_point"].dropna())


def _point_name(row: Row, fixed: frozenset[str]) -> str:
    name = cell(row["operating_point"])
    return f"chosen decoding at {name}" if name in fixed else name
