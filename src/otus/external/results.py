"""What a detector of others wrote about one sound file, in its format: intervals with a label and a score.

A file that is not there is a failure, whatever the exit code. "Processed, nothing found" must be written down: a table
with a header and no row (csv, raven), an empty list (json), a file without a byte (audacity, which has no header), or
for HawkEars' CSV, whose header alone may also stand there after a failure, a header and the account that a sound run
leaves beside it.
"""

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otus.annotations.audacity import read_audacity
from otus.annotations.columns import read_columns
from otus.annotations.raven import read_raven
from otus.annotations.rows import AnnotationFile
from otus.annotations.text import excerpt, first_line, key, number, read_text, separated, sniff_separator
from otus.config import AnnotationSource, ExternalSettings
from otus.errors import DataError
from otus.external.programs import ProgramError

#: Usual names of the column with the score, in the order of preference, as `otus.annotations.text.key` writes them.
_SCORE_NAMES = ("score", "confidence", "probability", "species confidence", "prob", "likelihood")

#: Keys of a JSON object that may hold the list of selections.
_LIST_KEYS = ("detections", "selections", "annotations", "results")

#: The columns of HawkEars' tables.
_HAWKEARS = {
    "hawkears1": {"start": "start_time", "end": "end_time", "label": "class_code", "score": "score"},
    "hawkears2": {"start": "start_time", "end": "end_time", "label": "name", "score": "score"},
}
#: What HawkEars leaves beside its table if its networks could be loaded (1) or it came to its end (2).
_ACCOUNTS = {"hawkears1": "HawkEars_summary.txt", "hawkears2": "manifest.yaml"}

#: Standard name of the output file by format.
OUTPUT_NAMES = {"csv": "found.csv", "raven": "found.selections.txt", "audacity": "found.txt", "json": "found.json"}

_SCORE_IN_LABEL = re.compile(r"(.+);([^;]*)")


@dataclass(frozen=True)
class Found:
    """One interval in s from the start of a sound file; `score` as the detector gives it, None if it gives none."""

    start_s: float
    end_s: float
    label: str
    score: float | None


def result_file(folder: Path, name: str) -> Path:
    """Return the one file in `folder` that fits `name`, which may hold *; ProgramError if there is none, or several."""
    fits = re.compile(r"(?!\.)" * name.startswith("*") + ".*".join(map(re.escape, name.split("*"))), re.DOTALL)
    there = folder.iterdir() if folder.is_dir() else ()  # the program may have deleted it
    found = sorted(path for path in there if fits.fullmatch(path.name) and path.is_file())
    if not found:
        raise ProgramError(f"it wrote no {name}, although it ended without an error")
    if len(found) > 1:
        raise ProgramError(f"it wrote {len(found)} files that fit {name}; make output more exact")
    return found[0]


def read_result(path: Path, settings: ExternalSettings, only_label: str | None) -> list[Found]:
    """Return what the file at `path` tells; `only_label` is the label of rows that name none.

    Raises ProgramError if it is not in the format of `settings`, or has a row that cannot be used.
    """
    try:
        text = read_text(path)
        if settings.format == "json":
            text = _json_as_table(text)
            if not text:
                return []
        rows, scored = _read(text, path, settings, only_label)
    except DataError as error:
        raise ProgramError(f"its output cannot be read ({str(error).removeprefix(f'{path}: ').rstrip('.')})") from error
    if rows.problems:
        problem = rows.problems[0]
        if problem.row is None:
            raise ProgramError(f"its output cannot be used ({problem.reason})")
        raise ProgramError(f"row {problem.row} of its output {problem.reason}")
    account = _ACCOUNTS.get(settings.format)
    if account and not rows.rows and not (path.parent / account).exists():
        raise ProgramError(f"its output has no row, and {account}, which a sound run leaves beside it, is missing")
    return [
        Found(row.start_s, row.end_s, row.label, _score(row.quality, row.source_row) if scored else None)
        for row in rows.rows
    ]


def _read(text: str, path: Path, settings: ExternalSettings, only_label: str | None) -> tuple[AnnotationFile, bool]:
    """The rows of a result, and whether each has a score, which is its `quality` then."""
    columns = _HAWKEARS.get(settings.format) or {str(meaning): name for meaning, name in settings.columns.items()}
    columns = dict(columns)
    score = columns.pop("score", None)
    if settings.format == "audacity":
        found = read_audacity(text, AnnotationSource(files="*", label=only_label))
        found = _scores_out_of_labels(found)
        return found, any(row.quality for row in found.rows)
    if settings.format == "raven":
        source = AnnotationSource(files="*", format="raven", label=only_label, label_column=columns.get("label"))
        text, scored = _score_as_quality(text, score)
        return read_raven(text, source, str(path)), scored
    score = score or _score_column(text)
    if score is not None:
        columns["quality"] = score
    source = AnnotationSource.model_validate(
        {"files": "*", "format": "csv", "label": only_label, "columns": columns or {}}
    )
    return read_columns(text, source, str(path)), score is not None


def _score(cell: str | None, row: int) -> float:
    value = number(cell or "")
    if value is None:
        what = f"has the score '{excerpt(cell)}', which is no number" if cell else "has no score"
        raise ProgramError(f"row {row} of its output {what}")
    return value


def _score_column(text: str) -> str | None:
    """The first usual name of a score in the header."""
    separator = sniff_separator(text)
    header = separated(first_line(text), separator, quoted=True)[0][1] if separator else []
    names = {key(column): column for column in reversed(header)}
    return next((names[name] for name in _SCORE_NAMES if name in names), None)


def _score_as_quality(text: str, score: str | None) -> tuple[str, bool]:
    """A Raven table whose column of scores, if there is one, is called Quality, which its reader keeps."""
    header = first_line(text)
    cells = header.split("\t")
    wanted = [key(score)] if score is not None else list(_SCORE_NAMES)
    keys = [key(cell) for cell in cells]
    place = next((keys.index(name) for name in wanted if name in keys), None)
    if place is None and score is not None and cells != [""]:
        raise DataError(f"it has no column '{score}'")
    renamed = [cell if key(cell) not in ("quality", "signal quality", "q", "rating") else "Other" for cell in cells]
    if place is not None:
        renamed[place] = "Quality"
    return text.replace(header, "\t".join(renamed), 1) if header else text, place is not None


def _scores_out_of_labels(found: AnnotationFile) -> AnnotationFile:
    """The rows of a label track with `label;score` taken apart, as HawkEars writes it."""
    rows = []
    for row in found.rows:
        parts = _SCORE_IN_LABEL.fullmatch(row.label)
        label, score = (parts[1], parts[2]) if parts and number(parts[2]) is not None else (row.label, None)
        rows.append(type(row)(row.start_s, row.end_s, None, None, label, score, None, row.source_row))
    return AnnotationFile(found.format, rows=rows, problems=found.problems, n_rows=found.n_rows)


def _json_as_table(text: str) -> str:
    """The list of objects in a JSON text as CSV; empty text for an empty list."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"it is no JSON: {error}") from error
    if isinstance(value, dict):
        value = next((value[name] for name in _LIST_KEYS if name in value), None)
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError(f"it is neither a list of objects nor an object with one under {', '.join(_LIST_KEYS)}")
    if not value:
        return ""
    names = list(dict.fromkeys(str(name) for row in value for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([["" if row.get(name) is None else row[name] for name in names] for row in value])
    return out.getvalue()
