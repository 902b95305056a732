"""One annotation file, in whatever format, to rows and problems."""

from collections.abc import Callable
from pathlib import Path

from otus.annotations.alpaca_index import is_alpaca_index, read_alpaca_index
from otus.annotations.audacity import is_audacity, read_audacity
from otus.annotations.columns import is_delimited, read_columns
from otus.annotations.file_names import read_name
from otus.annotations.raven import is_raven, read_raven
from otus.annotations.rows import AnnotationFile, Extent, ExtentOf, unusable
from otus.annotations.sequences import read_sequences, sniff_sequences
from otus.annotations.text import read_text
from otus.config import AnnotationSource
from otus.config.corpus import NAME_FORMATS, SEQUENCE_FORMATS
from otus.errors import DataError, StageError


def detect_format(text: str) -> str | None:
    """Return the format of `text` by its first lines, None if it is none that can be told.

    One of raven, audacity, alpaca_index, birdsong-recognition-dataset, textgrid and csv.
    """
    tests = {"raven": is_raven, "audacity": is_audacity, "alpaca_index": is_alpaca_index}
    found = next((name for name, fits in tests.items() if fits(text)), None)
    return found or sniff_sequences(text) or ("csv" if is_delimited(text) else None)


def _nowhere(reference: str | None) -> Extent | None:
    return None


def read_annotations(
    path: Path, source: AnnotationSource, name: str | None = None, extent_of: ExtentOf = _nowhere
) -> AnnotationFile:
    """Return the rows of one annotation file and the problems of those that cannot be used.

    Times in seconds, frequencies in Hz. A file that cannot be read, or is in none of the formats, is a problem
    without a row. `name` is the path below the corpus root, which stands for the file in messages. `extent_of` finds
    the recordings for formats that count in samples or label whole recordings. Raises DataError if a column that
    `source` names is missing, StageError if rows were lost on the way, MissingPartError if crowsetta is needed and
    missing.
    """
    shown = name or str(path)
    content = _read(path, source, shown, extent_of)
    if miscounted := content.miscounted():
        raise StageError(f"{shown}: rows were lost while it was read ({miscounted}); please report this table.")
    return content


def _read(path: Path, source: AnnotationSource, shown: str, extent_of: ExtentOf) -> AnnotationFile:
    format_: str = source.format
    if format_ in NAME_FORMATS:
        return read_name(shown, source, extent_of)
    if format_ in SEQUENCE_FORMATS:
        return read_sequences(path, format_, source, extent_of)
    try:
        text = read_text(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").partition("; ")[0].rstrip(".")
        return unusable(reason, "correct or remove the file")
    if format_ == "auto":
        if not text.strip():
            return unusable(
                "is empty, which could be an Audacity track without labels or a lost table",
                "set `format: audacity` in its annotation source if it means 'no call', else save it again",
            )
        format_ = "csv" if source.columns else detect_format(text) or "auto"
    if format_ in SEQUENCE_FORMATS:
        return read_sequences(path, format_, source, extent_of)
    return _TEXT_READERS[format_](text, source, shown)


def _read_unknown(text: str, source: AnnotationSource, shown: str) -> AnnotationFile:
    return unusable(
        "is neither a Raven table nor an Audacity label track nor a table with start and end columns",
        "leave it out of the glob, or set `format` and `columns` in its annotation source",
    )


#: Format -> reader of a text; auto is what no format could be told of.
_TEXT_READERS: dict[str, Callable[[str, AnnotationSource, str], AnnotationFile]] = {
    "raven": read_raven,
    "audacity": lambda text, source, _: read_audacity(text, source),
    "csv": read_columns,
    "alpaca_index": lambda text, source, _: read_alpaca_index(text, source),
    "auto": _read_unknown,
}
