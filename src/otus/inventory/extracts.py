"""Recordings that were cut from raw recordings, as their names say, and the groups that keep them together."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from otus.annotations.pairing import RecordingIndex, recording_named
from otus.annotations.text import number
from otus.config import ExtractSettings
from otus.errors import DataError
from otus.fingerprint import is_audio
from otus.inventory.names import absent_id, group_of, safe_id
from otus.inventory.recordings import AudioFile
from otus.inventory.sheet import SheetEntry

#: How far the times in a name may lie from the length of the file: this share of it and this much (s).
_TOLERANCE, _TOLERANCE_S = 0.02, 1.0
_UNIT_S = {"seconds": 1.0, "minutes": 60.0}

DISAGREES = "start and end in the name do not agree with its length"
BEYOND = "reaches beyond the end of its raw recording"


@dataclass(frozen=True, slots=True)
class Extract:
    """What the name of an extract says: the path at which its raw recording lies or would lie, the same if it is in
    the corpus (else None), where in it the extract begins (None if that cannot be told), and what is odd about it.
    """

    place: str
    raw: str | None
    start_s: float | None
    flag: str | None


def find_extracts(
    files: Sequence[AudioFile], kept: Mapping[str, str], index: RecordingIndex, settings: ExtractSettings | None
) -> dict[str, Extract]:
    """Return, by path, which of the kept recordings are extracts; none without `settings`.

    A recording is an extract if its own name or that of a copy of it says so. An extract of an extract counts as one
    of the raw recording at the beginning. Raises DataError if several recordings could be the raw one.
    """
    if settings is None:
        return {}
    names = _Names(settings, index, Counter(map(_stem, set(kept.values()))))
    durations_s = {file.path: file.info.duration_s for file in files if file.info}
    found: dict[str, Extract] = {}
    for path in sorted(kept, key=lambda path: (kept[path] != path, path)):
        original = kept[path]
        extract = None if original in found else names.read(path, durations_s.get(original))
        if extract is not None and extract.raw != original:
            found[original] = extract
    return {path: _within_raw(path, names.first_raw(path, found), durations_s) for path in sorted(found)}


@dataclass(frozen=True)
class _Names:
    """Reads the names of extracts."""

    settings: ExtractSettings
    index: RecordingIndex
    stems: Mapping[str, int]

    def read(self, path: str, duration_s: float | None) -> Extract | None:
        """What a path says, or None if it is not that of an extract."""
        match = re.search(self.settings.pattern, path)
        if match is None or not match["parent"]:
            return None
        name = match["parent"]
        raw = recording_named(self.index, name, path).recording
        if raw is None and self.stems.get(_stem(name), 0) > 1:
            raise DataError(
                f"{path}: there are several recordings '{name}' that it may be an extract of; move it beside the right "
                "one or rename them, or set corpus.extracts: null if no recording is an extract."
            )
        start_s = _start_s(match["start"], match["end"], self.settings.unit, duration_s)
        flag = DISAGREES if start_s is None and duration_s is not None else None
        return Extract(raw or _beside(path, name), raw, start_s, flag)

    def first_raw(self, path: str, found: Mapping[str, Extract]) -> Extract:
        """The extract at `path` as one of the recording at the beginning of the chain, be that one there or not."""
        extract, seen = found[path], {path}
        while True:
            above = found.get(extract.raw) if extract.raw else self.read(extract.place, None)
            if above is None or extract.place in seen:
                return extract
            seen.add(extract.place)
            known = extract.start_s is not None and above.start_s is not None
            start_s = (extract.start_s or 0.0) + (above.start_s or 0.0) if known else None
            extract = Extract(above.place, above.raw, start_s, extract.flag)


def raw_keys(extracts: Mapping[str, Extract], ids: Mapping[str, str]) -> dict[str, str]:
    """Return, by path of an extract, the key that all extracts of its raw recording share.

    It is the recording_id (from `ids`, by path) of the raw recording. Where that is not in the corpus, the place
    beside its extract counts: two tapes of one name in two folders are two.
    """
    return {path: ids[extract.raw] if extract.raw else absent_id(extract.place) for path, extract in extracts.items()}


def groups_of(
    paths: Sequence[str],
    ids: Mapping[str, str],
    rule: str,
    extracts: Mapping[str, Extract],
    sheet: Mapping[str, SheetEntry],
    progress: Callable[[str], None],
) -> dict[str, str]:
    """Return the group of each kept recording: that of the sheet, else that of `corpus.group`.

    An extract has the group of its raw recording, and so have all extracts of it. The rule is applied to the path of
    the raw recording, beside the extract if it is not in the corpus; under the rule `recording` its name is the group
    then. Raises DataError if the rule finds nothing, or the sheet gives two groups to what is of one raw recording.
    """
    family = {path: extracts[path].place if path in extracts else path for path in paths}
    by_sheet = _groups_in_sheet(family, sheet)
    groups = {}
    for path in paths:
        extract = extracts.get(path)
        if family[path] in by_sheet:
            groups[path] = by_sheet[family[path]]
        elif extract is not None and extract.raw is None and rule == "recording":
            groups[path] = safe_id(_name(extract.place))
        else:
            groups[path] = group_of(family[path], ids.get(family[path], ""), rule)
    _say_same_names(extracts, groups, progress)
    return groups


def _groups_in_sheet(family: Mapping[str, str], sheet: Mapping[str, SheetEntry]) -> dict[str, str]:
    """The group that the sheet gives to each raw recording or its extracts."""
    groups: dict[str, str] = {}
    first: dict[str, str] = {}
    for path, raw in family.items():
        entry = sheet.get(path)
        if entry is None or entry.group is None:
            continue
        if groups.setdefault(raw, entry.group) != entry.group:
            raise DataError(
                f"corpus.sheet, row {entry.row}: {path} has another group than {first[raw]} in row "
                f"{sheet[first[raw]].row}, but both are of the raw recording {raw}; make the two rows agree."
            )
        first.setdefault(raw, path)
    return groups


def _say_same_names(
    extracts: Mapping[str, Extract], groups: Mapping[str, str], progress: Callable[[str], None]
) -> None:
    """Tell where extracts of raw recordings of one name, which are not there, are in several groups."""
    by_name: dict[str, set[str]] = {}
    for path, extract in extracts.items():
        if extract.raw is None:
            by_name.setdefault(_name(extract.place), set()).add(groups[path])
    several = sorted(name for name, found in by_name.items() if len(found) > 1)
    if several:
        progress(
            f"extracts of {len(several)} raw recordings, such as {several[0]}, are in several groups by their folders; "
            "if each is one recording, give its extracts one group in the recordings sheet"
        )


def _start_s(start: str | None, end: str | None, unit: str, duration_s: float | None) -> float | None:
    """Where an extract begins in its raw recording, if the times in its name agree with its length."""
    first, last = number(start or ""), number(end or "")
    if first is None or last is None:
        return None
    if duration_s is None:
        return None if unit == "auto" else first * _UNIT_S[unit]
    units = _UNIT_S.values() if unit == "auto" else [_UNIT_S[unit]]
    error_s, unit_s = min((abs((last - first) * unit_s - duration_s), unit_s) for unit_s in units)
    return first * unit_s if error_s <= _TOLERANCE * duration_s + _TOLERANCE_S else None


def _within_raw(path: str, extract: Extract, durations_s: Mapping[str, float]) -> Extract:
    """The extract without its place, if that is not inside the raw recording."""
    raw_s = durations_s.get(extract.raw or "")
    if raw_s is None or extract.start_s is None:
        return extract
    over_s = extract.start_s + durations_s.get(path, 0.0) - raw_s
    return extract if over_s <= _TOLERANCE * raw_s + _TOLERANCE_S else replace(extract, start_s=None, flag=BEYOND)


def _beside(path: str, name: str) -> str:
    folder = path.rpartition("/")[0]
    return f"{folder}/{name}" if folder else name


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    """A file name for comparing, without its audio suffix."""
    name = unicodedata.normalize("NFC", _name(path)).casefold()
    return name.rpartition(".")[0] if is_audio(name) else name
