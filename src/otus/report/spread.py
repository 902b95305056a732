"""How much the result differs between folds: what a test on other groups, or at another site, may give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, with_interval
from otus.report.results import DASH, Row, best_first, cell, fold_order, rows_of, title
from otus.tables import POOLED

Reals = NDArray[np.float64]

_MOST_OPEN = 12  # folds in a table that is shown without a click


@dataclass(frozen=True)
class Spread:
    """The folds of one model, layer and label: their spread in words, their table, and whether that is to be folded."""

    title: str
    sentence: str
    table: Table
    collapsed: bool


def spreads(metrics: pd.DataFrame, board: pd.DataFrame, by: str) -> list[Spread]:
    """Return the spread over the folds for every row of the leader board, the best one first; none without folds.

    Counted are test recordings at the selected operating point and the first IoU threshold. `by` is what a fold tests
    everything of, such as `site`, or `group`. F1 is compared between folds that have annotated calls only.
    """
    chosen = at_iou(metrics, "iou", deciding_iou(metrics))
    chosen = chosen[chosen["selected"].eq(True) & chosen["split"].eq("test") & chosen["fold"].ne(POOLED)]
    found = []
    for row in best_first(board):
        folds = sorted(rows_of(chosen, row).to_dict("records"), key=lambda fold: fold_order(fold["fold"]))
        if len(folds) > 1:
            found.append(Spread(title(row), _sentence(folds), _table(folds, by), collapsed=len(folds) > _MOST_OPEN))
    return found


def _table(folds: Sequence[Row], by: str) -> Table:
    """A row per fold, and three about all of them."""
    named = by != "group"
    body = [
        [
            fold["fold"],
            *([cell(fold["part"])] if named else []),
            *(cell(fold[name], 0) for name in ("n_groups", "n_gt")),
            with_interval(fold, "f1", DASH) if fold["n_gt"] else DASH,
            cell(fold["false_alarms_per_hour"], 1),
        ]
        for fold in folds
    ]
    f1 = _known([fold["f1"] for fold in folds if fold["n_gt"]])
    alarms = _known([fold["false_alarms_per_hour"] for fold in folds])
    empty = [""] * (3 if named else 2)
    for name, of in (("Lowest", _lowest), ("Highest", _highest), ("Standard deviation", _deviation)):
        body.append([name, *empty, cell(of(f1)), cell(of(alarms), 1)])
    columns = ["Fold", *([by.capitalize()] if named else []), "Groups", "Annotated calls", "F1", "False alarms/h"]
    strong = frozenset(range(len(folds), len(body)))
    return Table(columns, body, text_columns=2 if named else 1, strong=strong)


def _sentence(folds: Sequence[Row]) -> str:
    """The spread of F1, with the folds at its ends."""
    judged = [fold for fold in folds if fold["n_gt"] and not pd.isna(fold["f1"])]
    if len(judged) < 2:
        return "Only one fold has annotated calls." if judged else "No fold has annotated calls."
    worst, best = (of(judged, key=lambda fold: fold["f1"]) for of in (min, max))
    spread = cell(_deviation(_known([fold["f1"] for fold in judged])))
    without = len(folds) - len(judged)
    left_out = f"; {without} without annotated calls left out" if without else ""
    return (
        f"F1 lies between {cell(worst['f1'])} ({_name(worst)}) and {cell(best['f1'])} ({_name(best)}); its standard "
        f"deviation over {len(judged)} folds is {spread}{left_out}."
    )


def _name(fold: Row) -> str:
    return f"fold {fold['fold']}" if pd.isna(fold["part"]) else str(fold["part"])


def _known(values: Sequence[float]) -> Reals:
    return np.array([value for value in values if np.isfinite(value)], dtype=float)


def _lowest(values: Reals) -> float:
    return float(values.min()) if len(values) else np.nan


def _highest(values: Reals) -> float:
    return float(values.max()) if len(values) else np.nan


def _deviation(values: Reals) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan
