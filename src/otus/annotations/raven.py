"""Raven selection tables: tab separated, one row per selection and view, over one recording or several."""

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

from otus.annotations.rows import AnnotationFile, Problem, unusable
from otus.annotations.text import Line, excerpt, first_line, key, listed, number, separated
from otus.config import AnnotationSource
from otus.errors import DataError

_START = ("begin time s", "begin time", "start time s", "start time", "start s", "begin s")
_END = ("end time s", "end time", "stop time s", "stop time", "end s")
_DURATION = ("delta time s", "delta time", "duration s", "duration")
_LOW = ("low freq hz", "low frequency hz", "low freq", "low frequency", "lowfreq", "min freq hz")
_HIGH = ("high freq hz", "high frequency hz", "high freq", "high frequency", "highfreq", "max freq hz")
_QUALITY = ("quality", "signal quality", "q", "rating")
_LABEL = (
    "annotation", "annotations", "label", "labels", "species", "sound type", "call type", "type", "call", "class",
    "tag", "common name", "species code", "scientific name", "category", "vocalization", "song type", "name",
)  # fmt: skip
_MARKS = frozenset(
    {"selection", "view", "begin path", "begin file", "low freq hz", "high freq hz", "low freq", "high freq"}
)
#: What is read of a row besides its label, and the columns that may hold it.
_FIELDS = {
    "start": _START, "end": _END, "duration": _DURATION, "low": _LOW, "high": _HIGH, "quality": _QUALITY,
    "offset": ("file offset s", "file offset"), "selection": ("selection",), "view": ("view",),
    "channel": ("channel",), "begin path": ("begin path",), "begin file": ("begin file",), "end file": ("end file",),
}  # fmt: skip

#: Two rows of one selection may differ by as much as this (s): Raven rounds the times of a view.
_SAME_S = 0.01


class _Row(NamedTuple):
    """The cells of one row; `recording` is its sound file, `end_file` the one in which the selection ends.

    `surplus` tells of cells beyond the header.
    """

    number: int
    start: str
    end: str
    duration: str
    low: str
    high: str
    quality: str
    offset: str
    selection: str
    view: str
    channel: str
    recording: str
    end_file: str
    label: str
    surplus: str


@dataclass(frozen=True)
class _Layout:
    """The columns of a header by their names, and `pick`, which takes the cells of `_FIELDS` out of a padded row."""

    columns: Mapping[str, int]
    pick: Callable[[list[str]], tuple[str, ...]]
    tells_times: bool
    has_offset: bool
    has_views: bool


def is_raven(text: str) -> bool:
    """Return whether the first line that is not blank is the header of a selection table."""
    return _is_header(first_line(text))


@lru_cache(maxsize=1024)
def _is_header(line: str) -> bool:
    columns = {key(cell) for cell in line.split("\t")}
    return _tells_times(columns) and not columns.isdisjoint(_MARKS)


def read_raven(text: str, source: AnnotationSource, name: str) -> AnnotationFile:
    """Return the selections in `text`; several views of one selection give one row, the spectrogram's.

    Where the table has `File Offset (s)`, the times count from the beginning of the row's `Begin File`.
    `Delta Time (s)` stands for an end time that is missing. A selection that ends in another file than it began in
    is a problem. So is a whole table of several files without that column whose times run on from each file to the
    next, as far as the times tell. `name` is the file's in messages. Raises DataError if `source.label_column` is not
    in the header.
    """
    lines = separated(text, "\t", quoted=False)
    if not lines:
        return unusable("is empty: not even a header", "save the table again; one without selections has a header")
    header, n_rows = lines[0][1], len(lines) - 1
    layout = _layout(tuple(header))
    if not layout.tells_times:
        found = listed(header)
        reason = f"is no Raven table: it lacks the begin or end time (columns: {found})"
        return unusable(reason, "export it again", n_rows=n_rows)
    labels = _label_column(lines, layout.columns, source, name)
    rows = _rows(lines, layout, labels)
    if labels is None and source.label is None and n_rows:
        what = f"names no label (columns: {listed(header)})"
        return _unusable_rows(rows, what, "set `label` or `label_column` in its annotation source")
    if not layout.has_offset and (several := _running_on(rows)):
        what = f"names {several} recordings but has no column File Offset (s)"
        return _unusable_rows(
            rows,
            f"{what}, and its times seem to count on over all of them",
            "in Raven add the measurement File Offset (s) and save the table again",
        )
    selections = _selections(rows) if layout.has_views else [[row] for row in rows]
    result = AnnotationFile("raven", n_rows=n_rows, n_views=sum(len(views) - 1 for views in selections))
    for row in map(_merged, selections):
        if defect := _defect(row):
            result.problems.append(Problem(row.number, *defect, row.recording or None))
            continue
        result.add(
            row.number,
            (row.start, row.end),
            row.label or source.label or "",
            frequencies=(row.low, row.high),
            quality=row.quality,
            recording=row.recording,
            offset=row.offset if row.offset or (layout.has_offset and row.recording) else None,
            duration=row.duration,
        )
    return result


@lru_cache(maxsize=1024)
def _layout(header: tuple[str, ...]) -> _Layout:
    """The layout of tables with this header; thousands of tables share one."""
    columns = {key(column): i for i, column in reversed(list(enumerate(header)))}
    places = (next((columns[name] for name in names if name in columns), len(header)) for names in _FIELDS.values())
    return _Layout(
        columns,
        itemgetter(*places),
        _tells_times(columns.keys()),
        not columns.keys().isdisjoint(_FIELDS["offset"]),
        columns.keys() >= {"selection", "view"},
    )


def _tells_times(columns: Set[str]) -> bool:
    """Whether there are a begin and an end, or a length."""
    return not (columns.isdisjoint(_START) or (columns.isdisjoint(_END) and columns.isdisjoint(_DURATION)))


def _label_column(lines: list[Line], columns: Mapping[str, int], source: AnnotationSource, name: str) -> int | None:
    """The column that holds the labels: the one that was asked for, else the first usual one that is not empty."""
    if source.label_column is not None:
        if key(source.label_column) in columns:
            return columns[key(source.label_column)]
        found = listed(lines[0][1])
        raise DataError(f"{name}: has no column '{source.label_column}' for the label; its columns are: {found}.")
    usual = [columns[column] for column in _LABEL if column in columns]
    filled = (i for i in usual if any(i < len(cells) and cells[i] for _, cells in lines[1:]))
    return next(filled, usual[0] if usual else None)


def _rows(lines: list[Line], layout: _Layout, labels: int | None) -> list[_Row]:
    """The rows of the table; a cell that is missing is empty."""
    width = len(lines[0][1])
    label_place = width if labels is None else labels
    rows = []
    for line, cells in lines[1:]:
        padded = [*cells, ""] if len(cells) == width else [*cells[:width], *[""] * (width + 1 - min(width, len(cells)))]
        *values, path, file, end_file = layout.pick(padded)
        is_folder = path and file and not path.casefold().endswith(file.casefold())
        recording = f"{path}/{file}" if is_folder else path or file
        elsewhere = end_file if file and end_file.casefold() != file.casefold() else ""
        surplus = f"has {len(cells)} cells, but the header has {width}" if any(cells[width:]) else ""
        rows.append(_Row._make((line, *values, recording, elsewhere, padded[label_place], surplus)))
    return rows


def _unusable_rows(rows: list[_Row], reason: str, remedy: str) -> AnnotationFile:
    """A table of which nothing can be used: the same problem for every recording that its rows name."""
    counts = Counter(row.recording or None for row in rows)
    problems = [Problem(None, reason, remedy, recording, n_rows) for recording, n_rows in counts.items()]
    return AnnotationFile("raven", problems=problems, n_rows=len(rows))


def _running_on(rows: list[_Row]) -> int:
    """The number of recordings if there are several and each begins later than all rows of those before it, else 0.

    The recordings count in the order of the table. Two that begin at the same time do not run on: no moment of a
    whole is in two of its parts.
    """
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for row in rows:
        start_s = number(row.start)
        if row.recording and start_s is not None:
            file = row.recording.casefold()
            first[file] = min(first.get(file, start_s), start_s)
            last[file] = max(last.get(file, start_s), start_s)
    files = list(first)
    runs_on = all(first[after] > last[before] for before, after in pairwise(files))
    return len(files) if runs_on and len(files) > 1 else 0


def _defect(row: _Row) -> tuple[str, str] | None:
    """Why a row can be read but not be trusted, and what to do; None if it can be."""
    if row.surplus:
        return row.surplus, "take the tab out of the cell that holds one, or name every column in the header"
    if row.end_file:
        return (
            f"runs over from {excerpt(row.recording)} into {excerpt(row.end_file)}",
            "split the selection where the file ends",
        )
    return None


def _selections(rows: list[_Row]) -> list[list[_Row]]:
    """The rows of each selection, in the order of the table.

    The views of a selection share its number, recording and times. A view that comes a second time is another
    selection: the numbers start again where tables were put one after the other.
    """
    groups: list[list[_Row]] = []
    latest: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        selection = (row.selection, row.recording)
        group = latest.get(selection)
        if group and selection[0] and not _has_view(group, row) and _same_times(group[0], row):
            group.append(row)
        else:
            latest[selection] = [row]
            groups.append(latest[selection])
    return groups


def _has_view(group: list[_Row], row: _Row) -> bool:
    return any(row.view == other.view and row.channel == other.channel for other in group)


def _same_times(one: _Row, other: _Row) -> bool:
    return _same(one.start, other.start) and _same(one.end, other.end) and _same(one.duration, other.duration)


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    a, b = number(one), number(other)
    return a == b or (a is not None and b is not None and abs(a - b) <= _SAME_S)


def _merged(group: list[_Row]) -> _Row:
    """The spectrogram's row of a selection, with the label that only another view may have."""
    if len(group) == 1:
        return group[0]
    best = next((row for row in group if "spectrogram" in row.view.casefold()), group[0])
    return best if best.label else best._replace(label=next((row.label for row in group if row.label), ""))
