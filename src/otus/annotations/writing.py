"""Selections as Raven tables and Audacity label tracks, which read back as the very same numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from otus.annotations.text import one_line

_SPECTROGRAM = "Spectrogram 1"
_CHANNEL = "1"
#: What Audacity writes for an edge of the frequency range that was never drawn.
_UNDRAWN_HZ = -1.0


@dataclass(frozen=True, slots=True)
class TableRow:
    """One interval to be written; `recording` becomes Raven's `Begin File`, `extra` further columns of its table."""

    start_s: float
    end_s: float
    label: str
    low_hz: float | None = None
    high_hz: float | None = None
    quality: str | None = None
    recording: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def raven_table(rows: Iterable[TableRow], *, extra: Iterable[str] = ()) -> str:
    """Return a Raven selection table with one row per selection, in the order of `rows`, numbered from 1.

    Times (s) and frequencies (Hz) are written with all their digits. Columns that no row fills are left out, but not
    those named in `extra`, which come first among the further columns; where a frequency is unknown in some rows only,
    its cell stays blank. Raven refuses a frequency beyond half the sample rate. Tabs and line ends within a text become
    one blank. Raises ValueError if an extra column has the name of another one.
    """
    listed = list(rows)
    columns: dict[str, list[str]] = {
        "Selection": [str(number) for number in range(1, len(listed) + 1)],
        "View": [_SPECTROGRAM] * len(listed),
        "Channel": [_CHANNEL] * len(listed),
        "Begin Time (s)": [plain_number(row.start_s) for row in listed],
        "End Time (s)": [plain_number(row.end_s) for row in listed],
    }
    if any(row.low_hz is not None or row.high_hz is not None for row in listed):
        columns["Low Freq (Hz)"] = ["" if row.low_hz is None else plain_number(row.low_hz) for row in listed]
        columns["High Freq (Hz)"] = ["" if row.high_hz is None else plain_number(row.high_hz) for row in listed]
    if any(row.recording for row in listed):
        columns["Begin File"] = [_cell(row.recording or "") for row in listed]
    columns["Annotation"] = [_cell(row.label) for row in listed]
    if any(row.quality for row in listed):
        columns["Quality"] = [_cell(row.quality or "") for row in listed]
    for name in dict.fromkeys([*extra, *(name for row in listed for name in row.extra)]):
        if one_line(name) in columns:
            raise ValueError(f"the table has a column '{one_line(name)}' already")
        columns[one_line(name)] = [_cell(row.extra.get(name, "")) for row in listed]
    lines = ["\t".join(columns), *map("\t".join, zip(*columns.values(), strict=True))]
    return "\n".join(lines) + "\n"


def audacity_labels(rows: Iterable[TableRow]) -> str:
    """Return an Audacity label track: one line per row, and one with its frequencies (Hz) where any is known.

    Times (s) and frequencies are written with all their digits; tabs and line ends within a label become one blank.
    A track has no place for quality, recording and further columns.
    """
    lines = []
    for row in rows:
        lines.append(f"{plain_number(row.start_s)}\t{plain_number(row.end_s)}\t{one_line(row.label)}\n")
        if row.low_hz is not None or row.high_hz is not None:
            low, high = (plain_number(_UNDRAWN_HZ if hz is None else hz) for hz in (row.low_hz, row.high_hz))
            lines.append(f"\\\t{low}\t{high}\n")
    return "".join(lines)


def plain_number(value: float) -> str:
    """Return the shortest decimal number that reads back as `value`, without an exponent: some programs know none."""
    return format(Decimal(repr(float(value))), "f")


def _cell(text: str) -> str:
    """A text without tabs and line ends; one within quotes gets another pair, as readers take the outer one away."""
    text = one_line(text)
    is_quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return '"' + text.replace('"', '""') + '"' if is_quoted else text
