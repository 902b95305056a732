"""The leader board: the headline rows of the metrics table with their ranks, as a frame and as text."""

import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from otus.tables import MICRO, POOLED, table

#: What stands below every leader board that has a leaky row.
LEAKY = (
    "A leaky model learned from clips of the very recordings that it is tested on. Its numbers are too good for new "
    "recordings, so it stands below the others without a rank, whatever its F1."
)
#: What stands below every leader board with a tie.
TIES = "Rank: rows with the same number (=) cannot be told apart in F1 from the best of them (95 %, paired)."

_CERTAIN = 0.05  # a p-value below it, beside an interval of 95 %
_COLUMNS = 100  # of a terminal
_HEAD = ("rank", "model", "layer", "label", "F1 [95 % int.]", "prec.", "recall", "tp/fp/fn", "FA/h", "rec.")
_TEXT_COLUMNS = (1, 2, 3)
_ELASTIC = (1, 3)  # names of any length: shortened in the middle where the line would be too long
_NARROWEST = 8


def deciding_iou(metrics: pd.DataFrame) -> float | None:
    """Return the IoU threshold of the first row of the metrics table (the first in the config), None if it is empty."""
    known = metrics["iou"].dropna()
    return float(known.iloc[0]) if len(known) else None


def at_iou(frame: pd.DataFrame, column: str, iou: float | None) -> pd.DataFrame:
    """Return the rows of `frame` whose IoU threshold in `column` is `iou`; no row if `iou` is None."""
    wanted = np.nan if iou is None else iou
    return frame[np.isclose(frame[column].astype(float), wanted)]


def leaderboard(metrics: pd.DataFrame, differences: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the headline rows of table metrics: leak-free models first, label by label, best F1 first.

    A headline row is pooled over the folds, on test recordings, at the operating point that was chosen on
    validation groups and at the first IoU threshold. Rows over all labels come first, rows without an F1 last.

    The column `rank` is text: a number within the label, with "=" where rows share it because their F1 cannot be told
    apart from that of the best of them: their paired difference in table `differences` is not `told_apart`, or, where
    there is none, the intervals of F1 overlap. Leaky rows and rows without an F1 have no rank ("").
    """
    rows = at_iou(metrics, "iou", deciding_iou(metrics))
    rows = rows[rows["fold"].eq(POOLED) & rows["split"].eq("test") & rows["selected"].eq(True)]
    rows = rows.assign(of_one_label=rows["label"].ne(MICRO)).sort_values(
        ["leaky", "of_one_label", "label", "f1", "model", "layer"],
        ascending=[True, True, True, False, True, True],
        na_position="last",
        kind="stable",
        ignore_index=True,
    )
    known = table("differences", []) if differences is None else differences
    return rows.drop(columns="of_one_label").assign(rank=_ranks(rows, _f1_differences(known, rows)))


def told_apart(low: float, high: float, p_value: float) -> bool:
    """Return whether a difference is shown: its interval leaves out 0 and the test, where there is one, agrees."""
    return bool((low > 0 or high < 0) and not p_value >= _CERTAIN)


_Row = tuple[str, str]  # model, layer


def _f1_differences(differences: pd.DataFrame, board: pd.DataFrame) -> dict[tuple[str, _Row, _Row], bool]:
    """Whether two rows of the board are told apart in F1: label, one row, another one -> answer, if one is known."""
    of_f1 = differences[differences["measure"].eq("f1") & differences["difference_low"].notna()]
    found: dict[tuple[str, _Row, _Row], bool] = {}
    for row in at_iou(of_f1, "iou", deciding_iou(board)).itertuples(index=False):
        one, other = (row.model, row.layer), (row.other_model, row.other_layer)
        apart = told_apart(row.difference_low, row.difference_high, row.p_value)
        found[row.label, one, other] = found[row.label, other, one] = apart
    return found


def _ranks(board: pd.DataFrame, differences: Mapping[tuple[str, _Row, _Row], bool]) -> list[str]:
    """The ranks of the rows of the board, whose rows of one label stand in the order of F1."""
    ranks = [""] * len(board)
    rows = board.to_dict("records")

    def tied(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
        names = (one["model"], one["layer"]), (other["model"], other["layer"])
        if (apart := differences.get((one["label"], *names))) is not None:
            return not apart
        return bool(other["f1_high"] >= one["f1_low"])  # with NaN never

    for label in dict.fromkeys(board["label"]):
        ranked = [i for i, r in enumerate(rows) if r["label"] == label and not r["leaky"] and not pd.isna(r["f1"])]
        for place, group in _groups(ranked, lambda best, i: tied(rows[best], rows[i])):
            for i in group:
                ranks[i] = f"={place}" if len(group) > 1 else str(place)
    return ranks


def _groups(ordered: Sequence[int], tied: Callable[[int, int], bool]) -> list[tuple[int, list[int]]]:
    """Rank and members of every group of ties: the best that is left, and what is not told apart from it."""
    left, found, place = list(ordered), [], 1
    while left:
        group = [left[0], *(i for i in left[1:] if tied(left[0], i))]
        found.append((place, group))
        place += len(group)
        left = [i for i in left if i not in group]
    return found


def number(value: Any, digits: int = 2, missing: str = "-") -> str:
    """Return `value` with `digits` decimals, or `missing` for None, NaN and infinities."""
    if pd.isna(value) or not np.isfinite(float(value)):
        return missing
    return f"{float(value):.{digits}f}"


def with_interval(row: Mapping[Any, Any], name: str, missing: str = "-") -> str:
    """Return e.g. '0.78 [0.66, 0.88]' for the columns name, name_low and name_high; no brackets without bounds."""
    value, low, high = (number(row[name + end], missing=missing) for end in ("", "_low", "_high"))
    return value if missing in (value, low, high) else f"{value} [{low}, {high}]"


def noted_rows(rows: Sequence[Mapping[Any, Any]]) -> dict[str, list[str]]:
    """Return every note of the headline rows once, with the names of the rows that it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for note in notes_of(row):
            about.setdefault(note, []).append(f"{row['model']} {row['layer']} {row['label']}")
    return about


def notes_of(row: Mapping[Any, Any]) -> list[str]:
    """Return the single notes of a row of metrics."""
    return [note for note in row["note"].split("; ") if note] if isinstance(row["note"], str) else []


def leaderboard_text(metrics: pd.DataFrame, differences: pd.DataFrame | None, report_path: str | Path) -> str:
    """Return the leader board as aligned plain text of at most 100 columns, then the notes, then the report's path.

    Leaky models are marked and stand last. Only the line with the path may be longer. Missing numbers are printed
    as '-'.
    """
    board = leaderboard(metrics, differences)
    if len(board):
        lines = _aligned([_HEAD, *(_cells(row) for row in board.to_dict("records"))])
        if board["rank"].str.startswith("=").any():
            lines += textwrap.wrap(TIES, _COLUMNS)
        if board["leaky"].any():
            lines += textwrap.wrap(LEAKY, _COLUMNS)
    else:
        lines = ["No test results: the metrics table has no pooled test row at a chosen operating point."]
    for note, rows in noted_rows(board.to_dict("records")).items():
        text = _printable(f"Note: {note} ({', '.join(rows)})")
        lines += textwrap.wrap(text, _COLUMNS, subsequent_indent="      ")
    return "\n".join([*lines, f"Report: {report_path}"]) + "\n"


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (
        row["rank"] or "-",
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
