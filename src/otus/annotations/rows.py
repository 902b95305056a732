"""What every reader returns: rows that can be used, and problems with their remedy for those that cannot."""

from dataclasses import dataclass, field

from otus.annotations.text import number


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One labelled interval. `recording` is what the row names, None if it names none; frequencies may be unknown.

    `source_row` is the number of the line in the file as a person counts it: the first line, or the header, is 1.
    """

    start_s: float
    end_s: float
    low_hz: float | None
    high_hz: float | None
    label: str
    quality: str | None
    recording: str | None
    source_row: int


@dataclass(frozen=True)
class Problem:
    """Why a row (None: the whole file) cannot be used and what to do; `recording` is what the row names."""

    row: int | None
    reason: str
    remedy: str
    recording: str | None = None


@dataclass
class AnnotationFile:
    """The content of one annotation file; `format` is raven, audacity, csv or, if it is none of these, unknown."""

    format: str
    rows: list[AnnotationRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self,
        row: int,
        times: tuple[str, str],
        label: str,
        *,
        frequencies: tuple[str, str] = ("", ""),
        quality: str = "",
        recording: str = "",
        offset: str | None = None,
    ) -> None:
        """Add a row from the text of its cells, or the problem that it has.

        With `offset` the interval begins there in its recording and keeps its length (Raven's `File Offset (s)`).
        """
        named = recording or None
        start_s, end_s = number(times[0]), number(times[1])
        offset_s = number(offset) if offset is not None else start_s
        problem = None
        if start_s is None or end_s is None or offset_s is None:
            cell = next(c for c in (*times, offset or "") if number(c) is None)
            problem = (f"'{cell}' is not a time in seconds" if cell else "a time is missing", "correct the times")
        elif end_s == start_s:
            problem = (f"has zero length (at {start_s:g} s)", "draw the interval again or delete the row")
        elif end_s < start_s:
            problem = (f"ends before it starts ({start_s:g} s to {end_s:g} s)", "correct the times")
        elif not label:
            problem = ("has no label", "write a label in the row, or set `label` in its annotation source")
        if problem:
            self.problems.append(Problem(row, *problem, named))
            return
        assert start_s is not None and end_s is not None and offset_s is not None
        end_s = end_s if offset is None else offset_s + (end_s - start_s)
        low_hz, high_hz = map(number, frequencies)
        self.rows.append(AnnotationRow(offset_s, end_s, low_hz, high_hz, label, quality or None, named, row))


def unusable(reason: str, remedy: str, format_: str = "unknown") -> AnnotationFile:
    """Return a file of which nothing can be used."""
    return AnnotationFile(format_, problems=[Problem(None, reason, remedy)])
