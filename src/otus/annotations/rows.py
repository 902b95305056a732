"""What every reader returns: rows that can be used, and problems with their remedy for those that cannot."""

from collections.abc import Callable
from dataclasses import dataclass, field

from otus.annotations.text import excerpt, number, one_line

#: What is longer is no label but a text that ended up in its place.
_LONGEST_LABEL = 500


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One labelled interval. `recording` is what the row names, None if it names none; frequencies may be unknown.

    `source_row` is the number of the line in the file as a person counts it: the first line, or the header, is 1.
    In a file that does not go by lines (XML, JSON, MATLAB) it is the number of the interval, beginning with 1.
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
    """Why a row (None: the whole file) cannot be used and what to do; `recording` is what the row names.

    `n_rows` is the number of rows that cannot be used for this reason.
    """

    row: int | None
    reason: str
    remedy: str
    recording: str | None = None
    n_rows: int = 1


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a recording is, and how many samples a second of it has."""

    duration_s: float
    sample_rate: int


#: Finds a recording by what a row names (None: the one that the file belongs to); None if there is none to be read.
ExtentOf = Callable[[str | None], Extent | None]


@dataclass
class AnnotationFile:
    """The content of one annotation file; `format` is one of `AnnotationSource.format`, or unknown.

    `n_rows` counts the rows of data in the file, `n_views` those that only show a selection once more. `unplaced`
    holds the recording and the number of the rows whose times cannot be told without a recording that is missing.
    Every row is in one of the lists or a view: `miscounted` says where that is not so.
    """

    format: str
    rows: list[AnnotationRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unplaced: list[tuple[str | None, int]] = field(default_factory=list)
    n_rows: int = 0
    n_views: int = 0

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
        duration: str = "",
    ) -> None:
        """Add a row from the text of its cells, or the problem that it has.

        With `offset` the interval begins there in its recording and keeps its length (Raven's `File Offset (s)`).
        `duration` (s) stands for the end where that is blank. Blanks, tabs and line ends in a row within the label
        become one blank.
        """
        named = recording or None
        start_s, end_s = number(times[0]), number(times[1])
        if duration and not times[1]:
            length_s = number(duration)
            end_s = None if start_s is None or length_s is None else start_s + length_s
        offset_s = start_s if offset is None else number(offset)
        label = one_line(label)
        if start_s is None or end_s is None or offset_s is None:
            cells = (times[0], times[1] or duration, "0" if offset is None else offset)
            self._reject(row, named, next((cell for cell in cells if number(cell) is None), ""))
        elif end_s <= start_s or not 0 < len(label) <= _LONGEST_LABEL:
            self.problems.append(Problem(row, *_defect(start_s, end_s, label), named))
        else:
            if offset_s != start_s:
                start_s, end_s = offset_s, offset_s + (end_s - start_s)
            low_hz, high_hz = number(frequencies[0]), number(frequencies[1])
            self.rows.append(AnnotationRow(start_s, end_s, low_hz, high_hz, label, quality or None, named, row))

    def _reject(self, row: int, recording: str | None, cell: str) -> None:
        reason = f"'{excerpt(cell)}' is not a time in seconds" if cell else "a time is missing"
        self.problems.append(Problem(row, reason, "write the times in seconds, such as 83.5", recording))

    def miscounted(self) -> str | None:
        """Return how the rows of the file do not add up, None if they do."""
        problems = sum(problem.n_rows for problem in self.problems)
        parts = (len(self.rows), problems, len(self.unplaced), self.n_views)
        if sum(parts) == self.n_rows:
            return None
        return "{} rows, but {} usable, {} with problems, {} without a recording, {} further views".format(
            self.n_rows, *parts
        )


def unusable(reason: str, remedy: str, format_: str = "unknown", n_rows: int = 0) -> AnnotationFile:
    """Return a file of which nothing can be used; `n_rows` is the number of rows in it, as far as they can be told."""
    return AnnotationFile(format_, problems=[Problem(None, reason, remedy, n_rows=n_rows)], n_rows=n_rows)


def _defect(start_s: float, end_s: float, label: str) -> tuple[str, str]:
    """Why a row with these times, or with no label or a whole text in its place, is no annotation, and what to do."""
    if end_s == start_s:
        return f"has zero length (at {start_s:g} s)", "draw the interval again or delete the row"
    if end_s < start_s:
        return f"ends before it starts ({start_s:g} s to {end_s:g} s)", "correct the times"
    if label:
        return f"has a label of {len(label)} characters", "shorten it, or tell which column holds the label"
    return "has no label", "write a label in the row, or set `label` in its annotation source"
