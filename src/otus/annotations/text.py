"""Text as field programs write it: encodings, separators, decimal commas, line numbers as a person counts them."""

import csv
import io
import math
import re
from pathlib import Path

from otus.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_SEPARATORS = ("\t", ";", ",")
_SAMPLE_LINES = 50

#: One row of cells with the number of the line that it starts on (the first line is 1).
Line = tuple[int, list[str]]


def read_text(path: Path) -> str:
    r"""Return the text of `path` with "\n" line ends: UTF-8 or UTF-16 with or without BOM, else Latin-1.

    Raises DataError if the file cannot be read or is not text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(4096)
            utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
            if b"\0" in data and not utf16:
                raise DataError(f"{path}: is not a text file; leave it out of the globs under corpus.annotations.")
            data += file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def separated(text: str, separator: str, *, quoted: bool) -> list[Line]:
    """Return the cells of every line that is not blank; `quoted` cells may hold separators and line ends."""
    if not quoted:
        rows = ((number, line.split(separator)) for number, line in enumerate(text.split("\n"), start=1))
        return [(number, [_bare(cell) for cell in cells]) for number, cells in rows if any(map(str.strip, cells))]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    lines: list[Line] = []
    start = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                lines.append((start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error:  # a cell beyond the csv module's limit: an opening quote that nothing closes
        return separated(text, separator, quoted=False)
    return lines


def sniff_separator(text: str) -> str | None:
    """Return the separator (tab, semicolon or comma) that splits the first lines evenly, or None.

    Tab and semicolon come before the comma, which may be a decimal mark.
    """
    sample = "\n".join(text.split("\n")[:_SAMPLE_LINES])
    uneven = None
    for separator in _SEPARATORS:
        widths = [len(cells) for _, cells in separated(sample, separator, quoted=True)]
        if widths and min(widths) > 1 and len(set(widths)) == 1:
            return separator
        if widths and widths[0] > 1 and uneven is None:
            uneven = separator
    return uneven


def number(text: str) -> float | None:
    """Return a finite number written with a decimal point or comma, or None."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def key(name: str) -> str:
    """Return a column name for comparing: lower case, words of letters and digits with one space between."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def _bare(cell: str) -> str:
    """A cell without blanks and without the quotes that spreadsheets put around text."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"').strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
