"""The result tables of the report and its headline, as text: from the metrics table to cells and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from otus.report.leaderboard import MICRO, POOLED, at_iou, deciding_iou, noted_rows, number, with_interval
from otus.tables import FILTERED

DASH = "–"

#: What the two layers of a model are called side by side.
_PAIR = ("alone", "with forest")

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class Table:
    """A table of the page: the first `text_columns` are text, the others numbers; `strong` rows stand out.

    `path_column` holds file names, which may be broken anywhere; `left_out` counts rows that are not shown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int
    strong: frozenset[int] = frozenset()
    path_column: int | None = None
    left_out: int = 0
    title: str = ""


def cell(value: Any, digits: int = 2) -> str:
    """Return `value` as text: names as they are, numbers with `digits` decimals, a dash for what is missing."""
    if isinstance(value, str):
        return value
    return number(value, digits, DASH)


def amount(n: Any, noun: str) -> str:
    """Return e.g. '1 call' or '3 calls'; an unknown count is a dash."""
    return f"{cell(n, 0)} {noun}{'' if cell(n, 0) == '1' else 's'}"


def model_name(row: Row) -> str:
    """Return the model of a row of metrics, marked if it is leaky."""
    return f"{row['model']} (leaky)" if row["leaky"] else str(row["model"])


def best_row(board: pd.DataFrame) -> dict[str, Any] | None:
    """Return the first row of the leader board, of the rows over all labels where there are several labels.

    It is leaky only if all models are.
    """
    over_all = board[board["label"].eq(MICRO)]
    rows = (over_all if len(over_all) else board).to_dict("records")
    return {str(key): value for key, value in rows[0].items()} if rows else None


def headline(row: Row, metrics: pd.DataFrame, by: str) -> dict[str, str]:
    """Return the result in words: `figure`, `scope` (what it was measured on) and `detail` (what that means).

    `by` is what a fold tests everything of, such as `site`; or `group` for a share of the groups.
    """
    figure: str = "F1 could not be computed" if pd.isna(row["f1"]) else f"F1 {with_interval(row, 'f1', DASH)}"
    calls = "annotated call" if row["label"] == MICRO else f"annotated {row['label']} call"
    labels = metrics.loc[metrics["label"].ne(MICRO), "label"].nunique()
    of_labels = f" of {labels} labels" if row["label"] == MICRO else ""
    network = str(row["layer"]).startswith("cnn")
    blind = "each scored by a model that never saw it."
    if not network:
        blind = "searched by a detector of others (Otus cannot tell what it was trained on)."
    elif row["leaky"]:
        blind = "scored by a model that learned from other clips of the same recordings (leaky)."
    scope = (
        f"on {amount(row['n_gt'], calls)}{of_labels} in {amount(row['n_recordings'], 'recording')} "
        f"({cell(row['hours'])} h, {amount(row['n_groups'], 'group')}), {blind}"
    )
    folds = metrics.loc[metrics["split"].eq("test") & metrics["fold"].ne(POOLED), "fold"].nunique()
    held_out = "clips" if row["leaky"] else "groups"
    one_each = "" if by == "group" else f" that test one {by} each"
    how = f"cross-validated over {folds} folds{one_each}" if folds > 1 else f"tested on {held_out} that were held out"
    layer = _layer_in_words(str(row["layer"]))
    found = f"found {cell(row['tp'], 0)} of {cell(row['n_gt'], 0)} calls (recall {with_interval(row, 'recall', DASH)})"
    detail = (
        f"Model {model_name(row)} ({row['layer']}: {layer}), {how}, {found}. "
        f"Of its {amount(row['n_pred'], 'selection')}, {cell(row['fp'], 0)} matched no annotation "
        f"(precision {with_interval(row, 'precision', DASH)}): "
        f"{cell(row['false_alarms_per_hour'], 1)} false alarms per hour."
    )
    return {"figure": figure, "scope": scope, "detail": detail}


def notes(board: pd.DataFrame) -> list[str]:
    """Return the warnings in the headline rows as sentences, each once, with the rows that it is about."""
    return [f"{', '.join(rows)}: {note}" for note, rows in noted_rows(board).items()]


def board_table(board: pd.DataFrame) -> Table | None:
    """Return the leader board, the best row strong; None if it is empty."""
    body = [
        [
            *(with_interval(row, name, DASH) for name in ("f1", "precision", "recall")),
            *(cell(row[name], 0) for name in ("tp", "fp", "fn")),
            cell(row["false_alarms_per_hour"], 1),
        ]
        for row in board.to_dict("records")
    ]
    return _by_model(board, ["F1", "Precision", "Recall", "Hits", "False alarms", "Misses", "False alarms/h"], body)


def timing_table(board: pd.DataFrame) -> Table | None:
    """Return what else the headline rows tell: average precision, errors at the edges of hits, the amount of data."""
    body = [
        [
            cell(row["average_precision"]),
            *(_milliseconds(row[f"{edge}_error_median_s"]) for edge in ("onset", "offset")),
            *(cell(row[name], 0) for name in ("n_gt", "n_recordings", "n_groups")),
            cell(row["hours"]),
        ]
        for row in board.to_dict("records")
    ]
    columns = ["AP", "Onset error (ms)", "Offset error (ms)", "Annotated calls", "Recordings", "Groups", "Hours"]
    return _by_model(board, columns, body)


def _by_model(board: pd.DataFrame, columns: Sequence[str], body: Sequence[Sequence[str]]) -> Table | None:
    """A table with a row per row of the leader board."""
    best = best_row(board)
    if best is None:
        return None
    key = ("model", "layer", "label")
    names = board.to_dict("records")
    rows = [
        [model_name(row), cell(row["layer"]), cell(row["label"]), *cells]
        for row, cells in zip(names, body, strict=True)
    ]
    strong = frozenset(i for i, row in enumerate(names) if all(row[name] == best[name] for name in key))
    return Table(["Model", "Layer", "Label", *columns], rows, text_columns=3, strong=strong)


def _layer_in_words(layer: str) -> str:
    what = "the network" if layer.startswith("cnn") else "the detector of others"
    return f"{what} and the forest behind it" if layer.endswith(FILTERED) else f"{what} alone"


def forest_table(board: pd.DataFrame) -> Table | None:
    """Return each model alone and with its forest side by side, a row per label; None if no model has a forest."""
    if not board["layer"].str.contains("+", regex=False).any():
        return None
    rows = {(row["model"], row["label"], str(row["layer"]).endswith(FILTERED)): row for row in board.to_dict("records")}
    body = []
    for model, label in dict.fromkeys((model, label) for model, label, _ in rows):
        pair = [rows.get((model, label, filtered)) for filtered in (False, True)]
        f1 = [with_interval(row, "f1", DASH) if row else DASH for row in pair]
        counts = [
            cell(row[name], 0) if row else DASH for name in ("tp", "fp") for row in pair
        ]  # hits before and after, false alarms before and after
        named = next(row for row in pair if row)
        body.append([model_name(named), cell(label), *f1, *counts])
    columns = ["Model", "Label", *(f"{name}, {how}" for name in ("F1", "Hits", "False alarms") for how in _PAIR)]
    return Table(columns, body, text_columns=2)


def fold_tables(metrics: pd.DataFrame, board: pd.DataFrame) -> list[Table]:
    """Return validation beside test per fold, one table per row of the leader board, the best one first."""
    chosen = at_iou(metrics, "iou", deciding_iou(metrics))
    chosen = chosen[chosen["selected"].eq(True)]
    tables = []
    for row in best_first(board):
        rows = rows_of(chosen, row)
        tested = rows["split"].eq("test")
        splits = {
            name: {fold["fold"]: fold for fold in rows[which].to_dict("records")}
            for name, which in (("val", rows["split"].eq("val")), ("test", tested))
        }
        folds = sorted(dict.fromkeys(rows["fold"]), key=fold_order)
        body = [_fold_cells(fold, splits["val"].get(fold), splits["test"].get(fold)) for fold in folds]
        columns = ["Fold", "Operating point", "Threshold", "F1, validation", "Calls", "F1, test", "Calls", "Difference"]
        strong = frozenset(i for i, fold in enumerate(folds) if fold == POOLED)
        tables.append(Table(columns, body, text_columns=2, strong=strong, title=title(row)))
    return tables


def threshold_tables(metrics: pd.DataFrame, board: pd.DataFrame) -> list[Table]:
    """Return the fixed thresholds on the pooled test recordings, one table per row of the leader board."""
    fixed = at_iou(metrics, "iou", deciding_iou(metrics))
    fixed = fixed[fixed["selected"].eq(False) & fixed["fold"].eq(POOLED) & fixed["split"].eq("test")]
    tables = []
    for row in best_first(board):
        rows = rows_of(fixed, row).sort_values("threshold", kind="stable").to_dict("records")
        body = [
            [
                f"{one['threshold']:g}" if not pd.isna(one["threshold"]) else DASH,
                *(cell(one[name], 0) for name in ("n_pred", "tp", "fp", "fn")),
                cell(one["precision"]),
                cell(one["recall"]),
                with_interval(one, "f1", DASH),
                cell(one["false_alarms_per_hour"], 1),
            ]
            for one in rows
        ]
        columns = ["Threshold", "Selections", "Hits", "False alarms", "Misses", "Precision", "Recall", "F1"]
        if body:
            tables.append(Table([*columns, "False alarms/h"], body, text_columns=0, title=title(row)))
    return tables


def best_first(board: pd.DataFrame) -> list[Row]:
    """Return the rows of the leader board in their order, but the best one first."""
    best = best_row(board)
    key = ("model", "layer", "label")
    rows: list[Row] = list(board.to_dict("records"))
    return sorted(rows, key=lambda row: best is None or any(row[name] != best[name] for name in key))


def rows_of(metrics: pd.DataFrame, row: Row) -> pd.DataFrame:
    """Return the rows of `metrics` of the model, layer and label of `row`."""
    same = [metrics[name].eq(row[name]) for name in ("model", "layer", "label")]
    return metrics[same[0] & same[1] & same[2]]


def title(row: Row) -> str:
    """Return model, layer and label of a row in words."""
    return f"{model_name(row)}, {row['layer']}, {'all labels (micro)' if row['label'] == MICRO else row['label']}"


def fold_order(fold: str) -> tuple[bool, int, str]:
    """Return the key that sorts folds by number, the pooled row last."""
    return fold == POOLED, int(fold) if fold.isdigit() else 0, fold


def _fold_cells(fold: str, val: Row | None, test: Row | None) -> list[str]:
    known = test if test is not None else val
    point, threshold = (known["operating_point"], known["threshold"]) if known is not None else (np.nan, np.nan)
    difference = test["f1"] - val["f1"] if test is not None and val is not None else np.nan
    sides = [
        text
        for row in (val, test)
        for text in ((with_interval(row, "f1", DASH), cell(row["n_gt"], 0)) if row is not None else (DASH, DASH))
    ]
    signed = DASH if pd.isna(difference) else f"{difference:+.2f}".replace("-", "−")
    return [fold, cell(point), f"{threshold:g}" if not pd.isna(threshold) else DASH, *sides, signed]


def _milliseconds(seconds: Any) -> str:
    return DASH if pd.isna(seconds) else f"{float(seconds) * 1000:.0f}".replace("-", "−")
