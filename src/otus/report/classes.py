"""Every measure of a layer, label by label."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from otus.config import EvaluationSettings
from otus.layout import Table
from otus.report.leaderboard import at_iou, deciding_iou, with_interval
from otus.report.results import DASH, MOST_ROWS, Row, amount, best_row, cell, model_name
from otus.tables import MACRO, MICRO, POOLED

_MOST_LAYERS = 12

#: What calls are counted by, and the units of the other measures: columns and their names.
_CALLS = (("n_gt", "Annotated calls"), ("n_groups", "Groups"))
_UNITS = {
    "segment_f1": ("n_segments", "Segments"),
    "frame_f1": ("n_frames", "Frames"),
    "presence_f1": ("n_present", "Recordings with the label"),
}


@dataclass(frozen=True)
class Measure:
    """A column of metrics_per_class, its name on the page and what it says."""

    column: str
    name: str
    says: str


def measures(settings: EvaluationSettings) -> list[Measure]:
    """Return the measures that the page shows, in their order: first those of calls, then those of other units."""
    collar, share = f"{1000 * settings.collar_s:g} ms", f"{100 * settings.collar_length_share:g} %"
    return [
        Measure("f1", "F1", "one to one with an overlap (IoU) that suffices, as in the headline"),
        Measure("average_precision", "AP", "average precision over all thresholds"),
        Measure("psds1", "PSDS1", "polyphonic sound detection score that asks for exact times"),
        Measure("psds2", "PSDS2", "the same, but content with rough times and strict about other labels"),
        Measure("onset_f1", "Onset F1", f"onset within {collar}"),
        Measure("onset_offset_f1", "Onset + offset F1", f"and offset within {collar} or {share} of the call"),
        Measure("segment_f1", "Segment F1", f"of segments of {settings.segment_s:g} s: is there a call or not"),
        Measure("frame_f1", "Frame F1", f"of frames of {1000 * settings.frame_s:g} ms"),
        Measure("presence_f1", "Presence F1", "of recordings: is the label there or not"),
    ]


def class_tables(
    per_class: pd.DataFrame, metrics: pd.DataFrame, board: pd.DataFrame, settings: EvaluationSettings
) -> list[list[Table]]:
    """Return the tables of every model and layer, the best first, at most twelve: the measures of every label.

    With one label it is one table, in which the measures stand below each other; with several there are two, of calls
    and of other units.
    """
    best = best_row(board)
    if best is None:
        return []
    rows = at_iou(per_class, "iou", deciding_iou(metrics))
    rows = rows[rows["fold"].eq(POOLED)]
    layers = [(best["model"], best["layer"]), *zip(board["model"], board["layer"], strict=True)]
    tables: list[list[Table]] = []
    for model, layer in dict.fromkeys(layers):
        own = rows[rows["model"].eq(model) & rows["layer"].eq(layer)].to_dict("records")
        if own and len(tables) < _MOST_LAYERS:
            name = f"{model_name(own[0])}, {layer}"
            tables.append(_by_label(own, name, settings) if len(own) > 1 else [_list(own[0], name, settings)])
    return tables


def _by_label(rows: list[dict[Any, Any]], title: str, settings: EvaluationSettings) -> list[Table]:
    """A row per label, those over all labels last."""
    over_all = (MICRO, MACRO)
    rows = sorted(rows, key=lambda row: (row["label"] in over_all, row["label"] == MACRO, row["label"]))
    left_out = max(0, len(rows) - MOST_ROWS)
    rows = [*rows[: len(rows) - left_out - len(over_all)], *rows[-len(over_all) :]]
    strong = frozenset(i for i, row in enumerate(rows) if row["label"] in over_all)
    of_calls = [one for one in measures(settings) if one.column not in _UNITS]
    of_units = [one for one in measures(settings) if one.column in _UNITS]
    tables = []
    for shown, counts in ((of_calls, _CALLS), (of_units, tuple(_UNITS.values()))):
        columns = ["Label", *(one.name for one in shown), *(name for _, name in counts)]
        body = [
            [_label(row), *(_two_lines(row, one.column) for one in shown), *(cell(row[n], 0) for n, _ in counts)]
            for row in rows
        ]
        tables.append(Table(columns, body, 1, strong=strong, left_out=left_out, rest="metrics_per_class.csv"))
    return [replace(tables[0], title=title), tables[1]]


def _list(row: Row, title: str, settings: EvaluationSettings) -> Table:
    """The measures of the only label below each other."""
    n = {
        "segment_f1": amount(row["n_segments"], "segment"),
        "frame_f1": amount(row["n_frames"], "frame"),
        "presence_f1": f"{amount(row['n_recordings'], 'recording')}, {cell(row['n_present'], 0)} with the label",
    }
    calls = amount(row["n_gt"], "annotated call")
    body = [
        [one.name, one.says, with_interval(row, one.column, DASH), n.get(one.column, calls)]
        for one in measures(settings)
    ]
    return Table(["Measure", "What it judges", "Value", "On"], body, text_columns=2, title=f"{title}, {row['label']}")


def _label(row: Row) -> str:
    return f"{MACRO}, {amount(row['n_labels'], 'label')}" if row["label"] == MACRO else str(row["label"])


def _two_lines(row: Row, column: str) -> str:
    """The value, and its interval below it."""
    return with_interval(row, column, DASH).replace(" [", "\n[")
