"""Raven selection tables: tab separated, one row per selection and view, over one recording or several."""

from collections.abc import Iterable
from dataclasses import dataclass

from otus.annotations.rows import AnnotationFile, unusable
from otus.annotations.text import Line, key, number, separated
from otus.config import AnnotationSource
from otus.errors import DataError

_START = ("begin time s", "begin time", "start time s", "start time", "start s", "begin s")
_END = ("end time s", "end time", "stop time s", "stop time", "end s")
_LOW = ("low freq hz", "low frequency hz", "low freq", "low frequency", "lowfreq", "min freq hz")
_HIGH = ("high freq hz", "high frequency hz", "high freq", "high frequency", "highfreq", "max freq hz")
_QUALITY = ("quality", "signal quality", "q", "rating")
_LABEL = (
    "annotation", "annotations", "label", "labels", "species", "sound type", "call type", "type", "call", "class",
    "tag", "common name", "species code", "scientific name", "category", "vocalization", "song type", "name",
)  # fmt: skip

#: Two rows of one selection may differ by as much as this (s): Raven rounds the times of a view.
_SAME_S = 0.01


@dataclass(frozen=True)
class _Row:
    number: int
    cells: dict[str, str]
    label: str

    @property
    def is_spectrogram(self) -> bool:
        return "spectrogram" in self.cells.get("view", "").casefold()


def is_raven(text: str) -> bool:
    """Return whether the first line that is not blank is the header of a selection table."""
    header = {key(cell) for cell in next((line for line in text.split("\n") if line.strip()), "").split("\t")}
    marks = {"selection", "view", "begin path", "begin file", "low freq hz", "high freq hz", "low freq", "high freq"}
    return bool(header & set(_START) and header & set(_END) and header & marks)


def read_raven(text: str, source: AnnotationSource, name: str) -> AnnotationFile:
    """Return the selections in `text`; several views of one selection give one row, the spectrogram's.

    Where the table has `File Offset (s)`, the times count from the beginning of the row's `Begin File`.
    `name` is the file's in messages. Raises DataError if `source.label_column` is not in the header.
    """
    lines = separated(text, "\t", quoted=False)
    if not lines:
        return unusable("is empty: not even a header", "save the table again; one without selections has a header")
    header = lines[0][1]
    columns = {key(column): i for i, column in reversed(list(enumerate(header)))}
    start, end = _first(columns, _START), _first(columns, _END)
    if start is None or end is None:
        found = ", ".join(filter(None, header))
        return unusable(f"is no Raven table: it lacks the begin or end time (columns: {found})", "export it again")
    labels = _label_column(lines, columns, source, name)
    if labels is None and source.label is None and len(lines) > 1:
        return unusable(
            f"names no label (columns: {', '.join(filter(None, header))})",
            "set `label` or `label_column` in its annotation source",
            "raven",
        )
    offset = columns.get("file offset s", columns.get("file offset"))
    low, high, quality = (_first(columns, names) for names in (_LOW, _HIGH, _QUALITY))
    picked = {"start": start, "end": end, "low": low, "high": high, "quality": quality, "offset": offset}
    picked |= {name: columns.get(name) for name in ("view", "channel", "selection", "begin path", "begin file")}
    rows = [_row(line, picked, labels) for line in lines[1:]]
    result = AnnotationFile("raven")
    for row in _once(rows) if columns.keys() >= {"selection", "view"} else rows:
        cells = row.cells
        result.add(
            row.number,
            (cells["start"], cells["end"]),
            row.label or source.label or "",
            frequencies=(cells["low"], cells["high"]),
            quality=cells["quality"],
            recording=cells["recording"],
            offset=cells["offset"] if cells["offset"] or (offset is not None and cells["recording"]) else None,
        )
    return result


def _first(columns: dict[str, int], names: Iterable[str]) -> int | None:
    return next((columns[name] for name in names if name in columns), None)


def _label_column(lines: list[Line], columns: dict[str, int], source: AnnotationSource, name: str) -> int | None:
    """The column that holds the labels: the one that was asked for, else the first usual one that is not empty."""
    if source.label_column is not None:
        if key(source.label_column) in columns:
            return columns[key(source.label_column)]
        found = ", ".join(filter(None, lines[0][1]))
        raise DataError(f"{name}: has no column '{source.label_column}' for the label; its columns are: {found}.")
    usual = [columns[column] for column in _LABEL if column in columns]
    filled = (i for i in usual if any(i < len(cells) and cells[i] for _, cells in lines[1:]))
    return next(filled, usual[0] if usual else None)


def _row(line: Line, picked: dict[str, int | None], labels: int | None) -> _Row:
    row, cells = line

    def cell(i: int | None) -> str:
        return cells[i] if i is not None and i < len(cells) else ""

    named = {name: cell(i) for name, i in picked.items()}
    path, file = named["begin path"], named["begin file"]
    is_folder = bool(path and file) and not path.casefold().endswith(file.casefold())
    named["recording"] = f"{path}/{file}" if is_folder else path or file
    return _Row(row, named, cell(labels))


def _once(rows: list[_Row]) -> list[_Row]:
    """One row per selection, in the order of the table.

    The views of a selection share its number, recording and times. A view that comes a second time is another
    selection: the numbers start again where tables were put one after the other.
    """
    groups: list[list[_Row]] = []
    latest: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        selection = (row.cells["selection"], row.cells["recording"])
        group = latest.get(selection)
        if selection[0] and group and not _has_view(group, row) and _same_times(group[0], row):
            group.append(row)
        else:
            latest[selection] = [row]
            groups.append(latest[selection])
    return [_merged(group) for group in groups]


def _has_view(group: list[_Row], row: _Row) -> bool:
    return any(all(row.cells[c] == other.cells[c] for c in ("view", "channel")) for other in group)


def _same_times(one: _Row, other: _Row) -> bool:
    pairs = [(number(one.cells[edge]), number(other.cells[edge])) for edge in ("start", "end")]
    return all(a == b or (a is not None and b is not None and abs(a - b) <= _SAME_S) for a, b in pairs)


def _merged(group: list[_Row]) -> _Row:
    best = next((row for row in group if row.is_spectrogram), group[0])
    return _Row(best.number, best.cells, best.label or next((row.label for row in group if row.label), ""))
