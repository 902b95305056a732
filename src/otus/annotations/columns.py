"""Delimited tables (comma, semicolon or tab) with columns that are mapped, guessed by name, or without a header."""

from collections.abc import Mapping

from otus.annotations.rows import AnnotationFile, Problem, unusable
from otus.annotations.text import Line, key, listed, number, separated, sniff_separator
from otus.config import AnnotationSource
from otus.errors import DataError

#: Usual names of columns, in the order of preference, as `otus.annotations.text.key` writes them.
_USUAL: dict[str, tuple[str, ...]] = {
    "recording": (
        "recording", "recording id", "recording name", "file", "filename", "file name", "filepath", "file path", "path",
        "audio", "audio file", "audio filename", "audio path", "wav", "wav file", "wave file", "sound file",
        "soundfile", "begin path", "begin file",
    ),
    "start": (
        "start s", "start time s", "start", "start time", "starttime", "start seconds", "start sec", "onset s", "onset",
        "onset time", "on", "begin s", "begin time s", "begin", "begin time", "begintime", "tmin", "t start", "t0",
        "min t", "time start", "from",
    ),
    "end": (
        "end s", "end time s", "end", "end time", "endtime", "end seconds", "end sec", "offset s", "offset",
        "offset time", "off", "stop s", "stop time s", "stop", "stop time", "tmax", "t end", "t1", "max t", "time end",
        "finish", "to",
    ),
    "duration": ("duration s", "duration", "dur s", "dur", "delta time s", "delta time", "length s"),
    "label": (
        "label", "labels", "species", "class", "annotation", "call type", "sound type", "type", "call", "tag",
        "common name", "species code", "scientific name", "category", "event label", "event", "vocalization", "code",
        "name",
    ),
    "low_hz": (
        "low hz", "low freq hz", "low freq", "low frequency", "low f", "lowfreq", "min freq hz", "min freq", "freq min",
        "min frequency", "min f", "fmin", "f min", "freq low", "lower freq", "low",
    ),
    "high_hz": (
        "high hz", "high freq hz", "high freq", "high frequency", "high f", "highfreq", "max freq hz", "max freq",
        "freq max", "max frequency", "max f", "fmax", "f max", "freq high", "upper freq", "high",
    ),
    "quality": ("quality", "q", "rating"),
}  # fmt: skip


def is_delimited(text: str) -> bool:
    """Return whether `text` has a header that names start and end or length, or no header and two columns of times."""
    lines = _lines(text)
    return bool(lines) and not _untold(_without_header(lines) or _guessed(lines[0][1]))


def read_columns(text: str, source: AnnotationSource, name: str) -> AnnotationFile:
    """Return the rows of a delimited table; a column that `source.columns` does not map is guessed by its name.

    A column `duration` (s) stands for an end that no column, or no cell, gives. In a table without a header columns
    are mapped by number, counted from 1. `name` is the file's in messages. Raises DataError if a mapped column is
    missing.
    """
    lines = _lines(text)
    if not lines:
        return unusable("is empty: not even a header", "save the table again, or leave the file out of the glob")
    bare = _without_header(lines)
    header = [str(i + 1) for i in range(len(lines[0][1]))] if bare else lines[0][1]
    columns = _meanings(header, bare, _mapped(header, source, name))
    rows = lines if bare else lines[1:]
    found = listed(header)
    if untold := _untold(columns):
        return unusable(
            f"no column can be told to be the {untold} (columns: {found})",
            "set `columns: {start: ..., end: ...}` in its annotation source",
            n_rows=len(rows),
        )
    if "label" not in columns and source.label is None and rows:
        return unusable(
            f"names no label (columns: {found})",
            "set `label` or `columns: {label: ...}` in its annotation source",
            "csv",
            len(rows),
        )
    result = AnnotationFile("csv", n_rows=len(rows))
    for row, cells in rows:
        named = {meaning: cells[i] if i < len(cells) else "" for meaning, i in columns.items()}
        if any(cells[len(header) :]):
            reason = f"has {len(cells)} cells, but the {'first row' if bare else 'header'} has {len(header)}"
            remedy = "put quotation marks around a text that holds the separator"
            result.problems.append(Problem(row, reason, remedy, named.get("recording") or None))
            continue
        result.add(
            row,
            (named["start"], named.get("end", "")),
            named.get("label") or source.label or "",
            frequencies=(named.get("low_hz", ""), named.get("high_hz", "")),
            quality=named.get("quality", ""),
            recording=named.get("recording", ""),
            duration=named.get("duration", ""),
        )
    return result


def _untold(columns: Mapping[str, int]) -> str | None:
    """Which of start and end no column gives; None if both are told."""
    if "start" not in columns:
        return "start"
    return None if columns.keys() & {"end", "duration"} else "end"


def _meanings(header: list[str], bare: dict[str, int], mapped: dict[str, int]) -> dict[str, int]:
    """Meaning -> column: what is mapped, and what else can be guessed. A mapped duration needs no guessed end."""
    guessed = {meaning: i for meaning, i in (bare or _guessed(header)).items() if i not in mapped.values()}
    if "duration" in mapped:
        guessed.pop("end", None)
    return guessed | mapped


def _lines(text: str) -> list[Line]:
    separator = sniff_separator(text)
    return separated(text, separator, quoted=True) if separator else []


def _guessed(header: list[str]) -> dict[str, int]:
    """Meaning -> column for every meaning of which the header has a usual name."""
    where = {key(column): i for i, column in reversed(list(enumerate(header)))}
    found = {meaning: [where[name] for name in names if name in where] for meaning, names in _USUAL.items()}
    return {meaning: columns[0] for meaning, columns in found.items() if columns}


def _mapped(header: list[str], source: AnnotationSource, name: str) -> dict[str, int]:
    """Meaning -> column for what the source maps; DataError for a column that is not there."""
    wanted: dict[str, str] = {str(meaning): column for meaning, column in source.columns.items()}
    if source.label_column is not None and "label" not in wanted:
        wanted["label"] = source.label_column
    exact = {column: i for i, column in reversed(list(enumerate(header)))}
    loose = {key(column): i for i, column in reversed(list(enumerate(header)))}
    missing = next((c for c in wanted.values() if c not in exact and key(c) not in loose), None)
    if missing is not None:
        found = listed(header)
        raise DataError(f"{name}: has no column '{missing}'; its columns are: {found}.")
    return {meaning: exact.get(column, loose.get(key(column), 0)) for meaning, column in wanted.items()}


def _without_header(lines: list[Line]) -> dict[str, int]:
    """Meaning -> column of a table that begins with numbers instead of a header; empty if it has a header.

    Known layouts: start, end[, label] and recording, start, end[, label]. A third column of decimal numbers is a
    score, not a label.
    """
    times = [number(cell) is not None for cell in lines[0][1][:3]]
    if times[:2] == [True, True]:
        columns = {"start": 0, "end": 1}
    elif times == [False, True, True] and lines[0][1][0]:
        columns = {"recording": 0, "start": 1, "end": 2}
    else:
        return {}
    after = len(columns)
    cells = [cells[after] for _, cells in lines if len(cells) > after and cells[after]]
    score = all(number(cell) is not None for cell in cells) and any("." in cell or "," in cell for cell in cells)
    return columns if score or not cells else columns | {"label": after}
