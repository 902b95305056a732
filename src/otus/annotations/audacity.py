r"""Audacity label tracks: `start<TAB>end<TAB>label`, after which a line `\<TAB>low<TAB>high` may give frequencies.

Format: Audacity Manual, "Importing and Exporting Labels" (standard and extended format with frequency ranges).
"""

from otus.annotations.rows import AnnotationFile, unusable
from otus.annotations.text import number
from otus.config import AnnotationSource


def is_audacity(text: str) -> bool:
    """Return whether the first line that is not blank looks like a label: two numbers, at most one text."""
    cells = next((line for line in text.split("\n") if line.strip()), "").split("\t")
    return 2 <= len(cells) <= 3 and number(cells[0]) is not None and number(cells[1]) is not None


def read_audacity(text: str, source: AnnotationSource) -> AnnotationFile:
    """Return the labels in `text`. A point label has zero length and is a problem; an empty file has no rows."""
    lines = [(i, line.split("\t")) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and not any(is_audacity("\t".join(cells[:2])) for _, cells in lines):
        return unusable("is no Audacity label track: no line begins with two times", "leave it out of the glob")
    result = AnnotationFile("audacity")
    for position, (row, cells) in enumerate(lines):
        if cells[0].strip() == "\\":
            continue
        start, end, *label = [*cells, "", ""] if len(cells) < 3 else cells
        follower = lines[position + 1][1] if position + 1 < len(lines) else [""]
        low, high = _frequencies(follower) if follower[0].strip() == "\\" else ("", "")
        text_label = " ".join(" ".join(label).split()) or (source.label or "")
        result.add(row, (start.strip(), end.strip()), text_label, frequencies=(low, high))
    return result


def _frequencies(cells: list[str]) -> tuple[str, str]:
    """Low and high frequency of a second line; Audacity writes -1 for an edge that was never drawn."""
    low, high = [*cells[1:3], "", ""][:2]
    return tuple("" if (number(c) or 0.0) < 0 else c for c in (low, high))  # type: ignore[return-value]
