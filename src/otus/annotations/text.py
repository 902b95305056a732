"""Text as field programs write it: encodings, separators, decimal commas, line numbers as a person counts them."""

import csv
import io
import math
import re
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from otus.errors import DataError

_SEPARATORS = ("\t", ";", ",")
_SAMPLE_LINES = 50
_PROBE_BYTES = 4096
#: So many of many names are shown in messages.
_LISTED_NAMES = 20

#: One row of cells with the number of the line that it starts on (the first line is 1).
Line = tuple[int, list[str]]


def read_text(path: Path) -> str:
    r"""Return the text of `path` with "\n" line ends: UTF-8 or UTF-16 with or without BOM, else Latin-1.

    Raises DataError if the file cannot be read or is not text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_PROBE_BYTES)
            utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
            if b"\0" not in data or utf16:
                data += file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    not_text = f"{path}: is not a text file, or a damaged one; save it again as text."
    if b"\0" in data and not utf16:
        raise DataError(not_text)
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if utf16:
            raise DataError(not_text) from error
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def separated(text: str, separator: str, *, quoted: bool) -> list[Line]:
    """Return the cells of every line that is not blank; `quoted` cells may hold separators and line ends.

    Where a quotation mark is not closed, or text follows one that is, every line is a row of its own.
    """
    if not quoted:
        rows = ((i, line, [*map(str.strip, line.split(separator))]) for i, line in enumerate(text.split("\n"), start=1))
        return [(i, [*map(_bare, cells)] if '"' in line else cells) for i, line, cells in rows if any(cells)]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    lines: list[Line] = []
    start = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                lines.append((start, [cell.strip() for cell in cells]))
            start = reader.line_num + 1
    except csv.Error:  # a cell beyond the csv module's limit: an opening quote that nothing closes
        return _with_stray_quotes(text, separator)
    is_suspicious = '"' in text and any("\n" in cell for _, cells in lines for cell in cells)
    return _with_stray_quotes(text, separator) if is_suspicious and not _well_quoted(text, separator) else lines


def _well_quoted(text: str, separator: str) -> bool:
    """Whether every quotation mark that opens a cell is closed at its end."""
    try:
        deque(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True), 0)
    except csv.Error:
        return False
    return True


def _with_stray_quotes(text: str, separator: str) -> list[Line]:
    """The cells of every line, without the quotation marks that open a cell and are never closed."""
    lines = separated(text, separator, quoted=False)
    return [
        (i, [cell[1:] if cell[:1] == '"' and cell.count('"') == 1 else cell for cell in cells]) for i, cells in lines
    ]


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


def first_line(text: str) -> str:
    """Return the first line that is not blank, or an empty text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            return text[start:end]
        start = end + 1
    return ""


def one_line(text: str) -> str:
    """Return `text` with one blank for every run of blanks, tabs and line ends, and none at its ends."""
    return " ".join(text.split())


def excerpt(text: str, characters: int = 80) -> str:
    """Return the beginning of `text` for a message: on one line, "?" for characters that cannot be printed."""
    shown = one_line(text[:characters]) + "..." * (len(text) > characters)
    return "".join(character if character.isprintable() else "?" for character in shown)


def listed(names: Iterable[str]) -> str:
    """Return `names` for a message: those that are not blank, the first ones if they are many."""
    found = [excerpt(name) for name in names if name]
    more = [f"and {len(found) - _LISTED_NAMES} more"] if len(found) > _LISTED_NAMES else []
    return ", ".join([*found[:_LISTED_NAMES], *more])


def number(text: str) -> float | None:
    """Return a finite number written with a decimal point or comma, or None."""
    if not text or "_" in text:  # Python takes 1_000 for a number
        return None
    if "," in text:
        if "." in text or text.count(",") > 1:
            return None
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@lru_cache(maxsize=4096)
def key(name: str) -> str:
    """Return a column name for comparing: lower case, words of letters and digits with one space between."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def _bare(cell: str) -> str:
    """A cell without blanks and without the quotes that spreadsheets put around text."""
    cell = cell.strip()
    return cell[1:-1].replace('""', '"').strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
