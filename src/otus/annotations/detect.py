"""One annotation file, in whatever format, to rows and problems."""

from pathlib import Path

from otus.annotations.audacity import is_audacity, read_audacity
from otus.annotations.columns import is_delimited, read_columns
from otus.annotations.raven import is_raven, read_raven
from otus.annotations.rows import AnnotationFile, unusable
from otus.annotations.text import read_text
from otus.config import AnnotationSource
from otus.errors import DataError


def detect_format(text: str) -> str | None:
    """Return raven, audacity or csv by the first lines of `text`; None if it is none of them."""
    tests = {"raven": is_raven, "audacity": is_audacity, "csv": is_delimited}
    return next((name for name, fits in tests.items() if fits(text)), None)


def read_annotations(path: Path, source: AnnotationSource, name: str | None = None) -> AnnotationFile:
    """Return the rows of one annotation file and the problems of those that cannot be used.

    Times in seconds, frequencies in Hz. A file that cannot be read, or is in none of the formats, is a problem
    without a row. `name` stands for the file in messages. Raises DataError if a column that `source` names is
    missing.
    """
    shown = name or str(path)
    try:
        text = read_text(path)
    except DataError as error:
        return unusable(str(error).removeprefix(f"{path}: ").rstrip("."), "correct or remove the file")
    format_: str = source.format
    if format_ == "auto":
        if not text.strip():
            return unusable(
                "is empty, which could be an Audacity track without labels or a lost table",
                "set `format: audacity` in its annotation source if it means 'no call', else save it again",
            )
        format_ = "csv" if source.columns else detect_format(text) or "auto"
    if format_ == "raven":
        return read_raven(text, source, shown)
    if format_ == "audacity":
        return read_audacity(text, source)
    if format_ == "csv":
        return read_columns(text, source, shown)
    return unusable(
        "is neither a Raven table nor an Audacity label track nor a table with start and end columns",
        "leave it out of the glob, or set `format` and `columns` in its annotation source",
    )
