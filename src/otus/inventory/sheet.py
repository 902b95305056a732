"""The recordings sheet: a CSV that gives recordings their group, site and split."""

from dataclasses import dataclass
from pathlib import Path

from otus.annotations.pairing import RecordingIndex, recording_named
from otus.annotations.text import excerpt, key, listed, read_text, separated, sniff_separator
from otus.errors import DataError
from otus.inventory.recordings import Quarantined

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SheetEntry:
    """What the sheet says of one recording, and in which row."""

    row: int
    group: str | None
    site: str | None
    split: str | None


def read_sheet(root: Path, path: str, index: RecordingIndex) -> tuple[dict[str, SheetEntry], list[Quarantined]]:
    """Return what the sheet at `path` below `root` says of each kept recording, and its rows that name none.

    Raises DataError if the column `recording` is missing, a split is none of train, val and test, or two rows give
    one recording, or copies of it, different groups, sites or splits.
    """
    text = read_text(root / path)
    separator = sniff_separator(text)
    lines = separated(text, separator or ",", quoted=True)
    header = [key(cell) for cell in lines[0][1]] if lines else []
    if "recording" not in header:
        found = listed(lines[0][1]) if lines else "none"
        raise DataError(f"{path}: the recordings sheet has no column 'recording' (columns: {found}); add it.")
    entries: dict[str, SheetEntry] = {}
    unknown: list[Quarantined] = []
    for row, cells in lines[1:]:
        named = {name: cells[i] if i < len(cells) else "" for i, name in reversed(list(enumerate(header)))}
        split = named.get("split", "").lower() or None
        if split is not None and split not in _SPLITS:
            raise DataError(
                f"{path}, row {row}: the split '{excerpt(named['split'])}' is none of train, val and test; correct it."
            )
        found_recording = recording_named(index, named["recording"], path)
        if found_recording.recording is None:
            unknown.append(Quarantined("sheet", path, row, found_recording.reason, found_recording.remedy))
            continue
        entry = SheetEntry(row, named.get("group") or None, named.get("site") or None, split)
        first = entries.setdefault(found_recording.recording, entry)
        if (first.group, first.site, first.split) != (entry.group, entry.site, entry.split):
            raise DataError(
                f"{path}, row {row}: '{named['recording']}' is the same recording as in row {first.row} (the same file "
                "or a copy of it) but has another group, site or split; make the two rows agree."
            )
    return entries, unknown
