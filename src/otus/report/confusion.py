"""Which label was taken for which: the matrix of the best layer."""

import pandas as pd

from otus.layout import Table
from otus.measures.confusion import NOTHING
from otus.report.leaderboard import at_iou, deciding_iou
from otus.report.results import Row

_MOST_LABELS = 15


def confusion_table(confusion: pd.DataFrame, metrics: pd.DataFrame, best: Row | None) -> Table | None:
    """Return annotated labels as rows and selected ones as columns, 'nothing' last; None with one label or no row.

    Of many labels those with the most annotations are shown.
    """
    if best is None:
        return None
    rows = at_iou(confusion, "iou", deciding_iou(metrics))
    rows = rows[rows["model"].eq(best["model"]) & rows["layer"].eq(best["layer"])]
    labels = _labels(rows)
    if len(labels) < 2:
        return None
    shown = [*labels[:_MOST_LABELS], NOTHING]
    counts = rows.groupby(["annotated", "selected"])["n"].sum().to_dict()
    body = []
    for annotated in shown:
        own = [
            "" if annotated == selected == NOTHING else str(counts.get((annotated, selected), 0)) for selected in shown
        ]
        total = sum(int(n) for (one, _), n in counts.items() if one == annotated)
        body.append([annotated, *own, str(total)])
    totals = [str(sum(int(n) for (_, one), n in counts.items() if one == selected)) for selected in shown]
    body.append(["all", *totals, str(sum(map(int, counts.values())))])
    return Table(["Annotated ↓, selected →", *shown, "all"], body, 1, left_out=len(labels[_MOST_LABELS:]))


def taken_for_another(confusion: pd.DataFrame, metrics: pd.DataFrame, best: Row) -> int:
    """Return how many annotated calls of the best layer were selected under another label."""
    rows = at_iou(confusion, "iou", deciding_iou(metrics))
    rows = rows[rows["model"].eq(best["model"]) & rows["layer"].eq(best["layer"])]
    named = rows["annotated"].ne(NOTHING) & rows["selected"].ne(NOTHING)
    return int(rows.loc[named & rows["annotated"].ne(rows["selected"]), "n"].sum())


def _labels(rows: pd.DataFrame) -> list[str]:
    """The labels, those with the most annotations first."""
    annotated = rows.groupby("annotated")["n"].sum().to_dict()
    labels = sorted({*rows["annotated"], *rows["selected"]} - {NOTHING})
    return sorted(labels, key=lambda label: (-int(annotated.get(label, 0)), label))
