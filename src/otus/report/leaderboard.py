"""The leader board: the headline rows of the metrics table, as a frame and as text for the terminal."""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: The label of the rows that pool all target labels; they exist only where there are several.
MICRO = "micro"
#: The fold of the rows that pool the test recordings of all folds.
POOLED = "pooled"
#: What stands below every leader board that has a leaky row.
LEAKY = (
    "A leaky model learned from clips of the very recordings that it is tested on. Its numbers are too good for new "
    "recordings, so it stands below the others, whatever its F1."
)

_COLUMNS = 100  # of a terminal
_HEAD = ("model", "layer", "label", "F1 [95 % int.]", "prec.", "recall", "tp/fp/fn", "FA/h", "rec.")
_TEXT_COLUMNS = (0, 1, 2)
_ELASTIC = (0, 2)  # names of any length: shortened in the middle where the line would be too long
_NARROWEST = 8


def deciding_iou(metrics: pd.DataFrame) -> float | None:
    """Return the IoU threshold of the first row of the metrics table (the first in the config), None if it is empty."""
    known = metrics["iou"].dropna()
    return float(known.iloc[0]) if len(known) else None


def at_iou(frame: pd.DataFrame, column: str, iou: float | None) -> pd.DataFrame:
    """Return the rows of `frame` whose IoU threshold in `column` is `iou`; no row if `iou` is None."""
    wanted = np.nan if iou is None else iou
    return frame[np.isclose(frame[column].astype(float), wanted)]


def leaderboard(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the headline rows of table metrics: leak-free models first, best F1 first, rows without an F1 last.

    A headline row is pooled over the folds, on test recordings, at the operating point that was chosen on
    validation groups and at the first IoU threshold.
    """
    rows = at_iou(metrics, "iou", deciding_iou(metrics))
    rows = rows[rows["fold"].eq(POOLED) & rows["split"].eq("test") & rows["selected"].eq(True)]
    return rows.sort_values(
        ["leaky", "f1", "model", "layer", "label"],
        ascending=[True, False, True, True, True],
        na_position="last",
        kind="stable",
        ignore_index=True,
    )


def number(value: Any, digits: int = 2, missing: str = "-") -> str:
    """Return `value` with `digits` decimals, or `missing` for None, NaN and infinities."""
    if pd.isna(value) or not np.isfinite(float(value)):
        return missing
    return f"{float(value):.{digits}f}"


def with_interval(row: Mapping[Any, Any], name: str, missing: str = "-") -> str:
    """Return e.g. '0.78 [0.66, 0.88]' for the columns name, name_low and name_high; no brackets without bounds."""
    value, low, high = (number(row[name + end], missing=missing) for end in ("", "_low", "_high"))
    return value if missing in (value, low, high) else f"{value} [{low}, {high}]"


def noted_rows(board: pd.DataFrame) -> dict[str, list[str]]:
    """Return every note of the headline rows once, with the names of the rows that it is about."""
    about: dict[str, list[str]] = {}
    for row in board.to_dict("records"):
        if not pd.isna(row["note"]) and row["note"]:
            about.setdefault(str(row["note"]), []).append(f"{row['model']} {row['layer']} {row['label']}")
    return about


def leaderboard_text(metrics: pd.DataFrame, report_path: str | Path) -> str:
    """Return the leader board as aligned plain text of at most 100 columns, then the notes, then the report's path.

    Leaky models are marked and stand last. Only the line with the path may be longer. Missing numbers are printed
    as '-'.
    """
    board = leaderboard(metrics)
    if len(board):
        lines = _aligned([_HEAD, *(_cells(row) for row in board.to_dict("records"))])
        if board["leaky"].any():
            lines += textwrap.wrap(LEAKY, _COLUMNS)
    else:
        lines = ["No test results: the metrics table has no pooled test row at a chosen operating point."]
    for note, rows in noted_rows(board).items():
        text = _printable(f"Note: {note} ({', '.join(rows)})")
        lines += textwrap.wrap(text, _COLUMNS, subsequent_indent="      ")
    return "\n".join([*lines, f"Report: {report_path}"]) + "\n"


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (
        _printable(row["model"]),
        _printable(row["layer"]) + (", leaky" if row["leaky"] else ""),
        _printable(row["label"]),
        with_interval(row, "f1"),
        number(row["precision"]),
        number(row["recall"]),
        "/".join(number(row[name], 0) for name in ("tp", "fp", "fn")),
        number(row["false_alarms_per_hour"], 1),
        number(row["n_recordings"], 0),
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells to columns; where that is too wide, shorten the longest names until the lines fit."""
    widths = [max(_width(row[i]) for row in rows) for i in range(len(_HEAD))]
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > _COLUMNS:
        longest = max(_ELASTIC, key=lambda i: widths[i])
        if widths[longest] <= _NARROWEST:
            break
        widths[longest] -= 1
    lines = []
    for row in rows:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            text = _shortened(cell, width)
            padding = " " * (width - _width(text))
            cells.append(text + padding if i in _TEXT_COLUMNS else padding + text)
        lines.append("  ".join(cells).rstrip())
    return lines


def _shortened(text: str, width: int) -> str:
    """Cut `text` in the middle: names of models often differ only at their ends."""
    if _width(text) <= width:
        return text
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while _width(head) + 1 + _width(tail) > width:
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def _width(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _printable(value: Any) -> str:
    """Names are data: no control character of a label may reach the terminal."""
    text = "-" if pd.isna(value) else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)
