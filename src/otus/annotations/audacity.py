r"""Audacity label tracks: `start<TAB>end<TAB>label`, after which a line `\<TAB>low<TAB>high` may give frequencies.

Format: Audacity Manual, "Importing and Exporting Labels" (standard and extended format with frequency ranges).
"""

from otus.annotations.rows import AnnotationFile, Problem, unusable
from otus.annotations.text import first_line, number
from otus.config import AnnotationSource


def is_audacity(text: str) -> bool:
    """Return whether the first line that is not blank looks like a label: two numbers, at most one text."""
    return _is_label(first_line(text).split("\t"))


def read_audacity(text: str, source: AnnotationSource) -> AnnotationFile:
    """Return the labels in `text`. A point label has zero length and is a problem; an empty file has no rows."""
    lines = [(i, line.split("\t")) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and not any(_is_label(cells[:2]) for _, cells in lines):
        return unusable("is no Audacity label track: no line begins with two times", "leave it out of the glob")
    result = AnnotationFile("audacity")
    is_followed = False
    for position, (row, cells) in enumerate(lines):
        if cells[0].strip() == "\\":
            if not is_followed:
                result.n_rows += 1
                reason = "is a line of frequencies without a label before it"
                result.problems.append(Problem(row, reason, "delete the line, or write its label above it"))
            is_followed = False
            continue
        start, end, *label = [*cells, "", ""] if len(cells) < 3 else cells
        follower = lines[position + 1][1] if position + 1 < len(lines) else [""]
        is_followed = follower[0].strip() == "\\"
        result.n_rows += 1
        result.add(
            row,
            (start.strip(), end.strip()),
            " ".join(label).strip() or source.label or "",
            frequencies=_frequencies(follower) if is_followed else ("", ""),
        )
    return result


def _is_label(cells: list[str]) -> bool:
    return 2 <= len(cells) <= 3 and number(cells[0]) is not None and number(cells[1]) is not None


def _frequencies(cells: list[str]) -> tuple[str, str]:
    """Low and high frequency of a second line; Audacity writes -1 for an edge that was never drawn."""
    low, high = ("" if (number(cell) or 0.0) < 0 else cell for cell in [*cells[1:3], "", ""][:2])
    return low, high
