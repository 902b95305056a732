"""The result tables of the report and its headline, as text: from the metrics table to cells and sentences."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from otus import criterion
from otus.config import EvaluationSettings
from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, noted_rows, notes_of, number, with_interval
from otus.tables import FILTERED, MICRO, POOLED

DASH = "–"

#: Rows of a table that is not cut for other reasons; the rest is in its CSV file.
MOST_ROWS = 60
_MOST_NAMES = 6  # of rows that one note is about

#: Tables of one kind, one per model, layer and label.
MOST_TABLES = 12

Row = Mapping[Any, Any]


def cell(value: Any, digits: int = 2) -> str:
    """Return `value` as text: names as they are, numbers with `digits` decimals, a dash for what is missing."""
    if isinstance(value, str):
        return value
    return number(value, digits, DASH)


def amount(n: Any, noun: str) -> str:
    """Return e.g. '1 call' or '3 calls'; an unknown count is a dash."""
    return f"{cell(n, 0)} {noun}{'' if cell(n, 0) == '1' else 's'}"


def signed(value: Any, digits: int = 2) -> str:
    """Return e.g. '+0.04' or '−0.10', zero without a sign; a dash for what is missing."""
    text = cell(value, digits)
    if text == DASH:
        return DASH
    return f"{float(text):+.{digits}f}".replace("-", "−") if float(text) else text.lstrip("-")


def model_name(row: Row) -> str:
    """Return the model of a row of metrics, marked if it is leaky."""
    return f"{row['model']} (leaky)" if row["leaky"] else str(row["model"])


def label_name(label: str) -> str:
    """Return a label as it is, and the rows over all labels in words."""
    return "all labels (micro)" if label == MICRO else label


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


def chosen_by(evaluation: EvaluationSettings, labels: Sequence[str]) -> str:
    """Return the sentence that says by what the operating point was chosen, and for which labels by something else."""
    others = {label: evaluation.choice_of[label] for label in labels if label in evaluation.choice_of}
    sentence = f"The operating point was chosen on validation groups by {criterion.in_words(evaluation.choice)}"
    for label, choice in others.items():
        sentence += f"; for {label} by {criterion.in_words(choice)}"
    if aims_at_f1(evaluation):
        return f"{sentence}."
    return f"{sentence}. Ranks, differences and the gap between validation and test compare F1 all the same."


def aims_at_f1(evaluation: EvaluationSettings) -> bool:
    """Return whether all operating points are chosen by F1."""
    return all(choice.by == "f1" for choice in (evaluation.choice, *evaluation.choice_of.values()))


def as_sentence(note: str) -> str:
    """Return a note with a capital letter and a full stop."""
    return f"{note[0].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"


def own_notes(row: Row, elsewhere: Collection[str]) -> list[str]:
    """Return the warnings about one row as sentences, but none that holds one of the texts said `elsewhere`."""
    return [as_sentence(note) for note in notes_of(row) if not any(text in note for text in elsewhere)]


def other_notes(board: pd.DataFrame, best: Row, elsewhere: Collection[str]) -> list[str]:
    """Return the warnings about the other rows of the leader board, each once, with the rows that it is about.

    What is said of `best` already is not repeated, nor what holds one of the texts said `elsewhere`.
    """
    said = set(notes_of(best))
    about = noted_rows([{**row, "model": model_name(row)} for row in board.to_dict("records")])
    return [
        f"{_some(names)}: {note}"
        for note, names in about.items()
        if note not in said and not any(text in note for text in elsewhere)
    ]


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
    columns = ["F1", "Precision", "Recall", "Hits", "False alarms", "Misses", "False alarms/h"]
    found = _by_model(board, columns, body)
    if found is None:
        return None
    ranks = [str(rank) or DASH for rank in board["rank"]]
    ranked = [[rank, *row] for rank, row in zip(ranks, found.rows, strict=False)]
    return Table(["Rank", *found.columns], ranked, 4, found.strong, left_out=found.left_out, rest=found.rest)


def timing_table(board: pd.DataFrame) -> Table | None:
    """Return what else the headline rows tell: average precision, errors at the edges of hits, the amount of data."""
    body = [
        [
            with_interval(row, "average_precision", DASH),
            *(milliseconds(row[f"{edge}_error_median_s"]) for edge in ("onset", "offset")),
            *(cell(row[name], 0) for name in ("n_gt", "n_recordings", "n_groups")),
            cell(row["hours"]),
        ]
        for row in board.to_dict("records")
    ]
    columns = ["AP", "Onset error (ms)", "Offset error (ms)", "Annotated calls", "Recordings", "Groups", "Hours"]
    return _by_model(board, columns, body)


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


def best_first(board: pd.DataFrame) -> list[Row]:
    """Return the rows of the leader board in their order, but the best one first; at most twelve."""
    best = best_row(board)
    key = ("model", "layer", "label")
    rows: list[Row] = list(board.to_dict("records"))
    return sorted(rows, key=lambda row: best is None or any(row[name] != best[name] for name in key))[:MOST_TABLES]


def rows_of(metrics: pd.DataFrame, row: Row) -> pd.DataFrame:
    """Return the rows of `metrics` of the model, layer and label of `row`."""
    same = [metrics[name].eq(row[name]) for name in ("model", "layer", "label")]
    return metrics[same[0] & same[1] & same[2]]


def title(row: Row) -> str:
    """Return model, layer and label of a row in words."""
    return f"{model_name(row)}, {row['layer']}, {label_name(row['label'])}"


def fold_order(fold: str) -> tuple[bool, int, str]:
    """Return the key that sorts folds by number, the pooled row last."""
    return fold == POOLED, int(fold) if fold.isdigit() else 0, fold


def milliseconds(seconds: Any) -> str:
    """Return a time in ms as text, a dash if it is not known."""
    return DASH if pd.isna(seconds) else f"{float(seconds) * 1000:.0f}".replace("-", "−")


def _by_model(board: pd.DataFrame, columns: Sequence[str], body: Sequence[Sequence[str]]) -> Table | None:
    """A table with a row per row of the leader board."""
    best = best_row(board)
    if best is None:
        return None
    key = ("model", "layer", "label")
    names = board.to_dict("records")[:MOST_ROWS]
    rows = [
        [model_name(row), cell(row["layer"]), cell(row["label"]), *cells]
        for row, cells in zip(names, body, strict=False)
    ]
    strong = frozenset(i for i, row in enumerate(names) if all(row[name] == best[name] for name in key))
    left_out = len(board) - len(rows)
    heads = ["Model", "Layer", "Label", *columns]
    return Table(heads, rows, text_columns=3, strong=strong, left_out=left_out, rest="metrics.csv")


def _layer_in_words(layer: str) -> str:
    what = "the network" if layer.startswith("cnn") else "the detector of others"
    return f"{what} and the forest behind it" if layer.endswith(FILTERED) else f"{what} alone"


def _fold_cells(fold: str, val: Row | None, test: Row | None) -> list[str]:
    known = test if test is not None else val
    point, threshold = (known["operating_point"], known["threshold"]) if known is not None else (np.nan, np.nan)
    both = all(row is not None and row["n_gt"] != 0 for row in (val, test))
    difference = test["f1"] - val["f1"] if both and test is not None and val is not None else np.nan
    sides = [text for row in (val, test) for text in _f1_and_calls(row)]
    return [fold, cell(point), f"{threshold:.3g}" if not pd.isna(threshold) else DASH, *sides, signed(difference)]


def _f1_and_calls(row: Row | None) -> tuple[str, str]:
    """F1 and the number of calls of one side of a fold; without a call F1 is 0 however good the detector, so a dash."""
    if row is None:
        return DASH, DASH
    return with_interval(row, "f1", DASH) if row["n_gt"] != 0 else DASH, cell(row["n_gt"], 0)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more} more"
