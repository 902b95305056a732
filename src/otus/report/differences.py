"""What is known about the difference of two rows of the leader board, as numbers, cells and words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, told_apart
from otus.report.results import DASH, MOST_ROWS, Row, amount, as_sentence, best_row, cell, model_name, signed
from otus.tables import MICRO


@dataclass(frozen=True)
class Difference:
    """One measure of two rows on the same recordings: `value` - `other` with its interval over groups and p-value."""

    value: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float
    n_groups: int
    note: str

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0 and the test, where there is one, agrees."""
        return told_apart(self.low, self.high, self.p_value)

    @property
    def tested(self) -> bool:
        """Whether there is an interval at all."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def with_interval(self, digits: int = 2) -> str:
        """Return e.g. '+0.04 [−0.01, +0.09]'."""
        text = signed(self.difference, digits)
        return f"{text} [{signed(self.low, digits)}, {signed(self.high, digits)}]" if self.tested else text


def difference_of(differences: pd.DataFrame, row: Row, other: Row, measure: str) -> Difference | None:
    """Return the difference in `measure` of `row` against `other` (model, layer; the label of `row`), None if unknown.

    `differences` holds one IoU threshold only; a pair may stand in it the other way round.
    """
    rows = differences[differences["measure"].eq(measure) & differences["label"].eq(row["label"])]
    for one, two, turned in ((row, other, False), (other, row, True)):
        found = rows[
            rows["model"].eq(one["model"])
            & rows["layer"].eq(one["layer"])
            & rows["other_model"].eq(two["model"])
            & rows["other_layer"].eq(two["layer"])
        ]
        if len(found):
            return _difference(found.iloc[0].to_dict(), turned)
    return None


def board_differences(
    differences: pd.DataFrame, metrics: pd.DataFrame, board: pd.DataFrame
) -> tuple[Table | None, list[str]]:
    """Return each row of the leader board against the best one of the headline's label, and what is noted to that.

    The table is None if no row was compared.
    """
    best = best_row(board)
    if best is None:
        return None, []
    rows = at_iou(differences, "iou", deciding_iou(metrics))
    body: list[list[str]] = []
    notes: list[str] = []
    for row in board[board["label"].eq(best["label"])].to_dict("records"):
        found = difference_of(rows, row, best, "f1")
        if found is not None:
            cells = [cell(found.value), cell(found.other), found.with_interval(), p_in_words(found.p_value)]
            body.append([model_name(row), cell(row["layer"]), *cells, cell(found.n_groups, 0)])
            notes += [as_sentence(part) for part in found.note.split("; ") if part]
    columns = ["Model", "Layer", "F1", "F1 of the leader", "Difference", "p", "Groups"]
    left_out = max(0, len(body) - MOST_ROWS)
    shown = Table(columns, body[:MOST_ROWS], 2, left_out=left_out, rest="differences.csv") if body else None
    return shown, list(dict.fromkeys(notes))


def p_in_words(p_value: float) -> str:
    """Return a p-value as text."""
    if pd.isna(p_value):
        return DASH
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"


def evidence_in_words(found: Difference) -> str:
    """Return what speaks for a difference, in brackets: interval, p-value and number of groups."""
    p = f", p {p_in_words(found.p_value).replace('< ', '<')}" if not pd.isna(found.p_value) else ""
    return f"({found.with_interval()}{p}, {amount(found.n_groups, 'group')})"


def labels_of(board: pd.DataFrame) -> Sequence[str]:
    """Return the labels of the leader board, all labels together first."""
    labels = list(dict.fromkeys(board["label"]))
    return sorted(labels, key=lambda label: (label != MICRO, labels.index(label)))


def _difference(row: dict[Any, Any], turned: bool) -> Difference:
    value, other = float(row["value"]), float(row["other_value"])
    difference, low, high = (float(row[f"difference{end}"]) for end in ("", "_low", "_high"))
    if turned:
        value, other, difference, low, high = other, value, -difference, -high, -low
    p_value = np.nan if pd.isna(row["p_value"]) else float(row["p_value"])
    note = row["note"] if isinstance(row["note"], str) else ""
    return Difference(value, other, difference, low, high, p_value, int(row["n_groups"]), note)
