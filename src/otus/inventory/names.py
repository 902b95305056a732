"""What a recording's path says: its id, its group, where and by what it was made, and when it began."""

import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otus.config import NamePattern
from otus.errors import DataError
from otus.fingerprint import is_audio

#: Flags of a recording whose path does not say what corpus.names is to read from it.
NO_DATE, NO_PATTERN = "no date in the name can be read", "fits no name pattern"

_LONGEST_ID = 120
_YEAR, _TWO = r"(?P<year>(?:19|20)\d\d)", r"(\d\d)"
_CLOCKS = (
    # 20201222_180530, 20201222T180530Z, 20201222T180530+1000, 20201222180530
    re.compile(rf"(?<!\d)(?={_YEAR}{_TWO}{_TWO}[T_ -]?{_TWO}{_TWO}{_TWO}(?!\d))"),
    # 2020-12-22_18-05-30, 2020-12-22T18:05:30Z, 2020_12_22_18_05_30
    re.compile(rf"(?<!\d)(?={_YEAR}[-_.]{_TWO}[-_.]{_TWO}[T_ -]{_TWO}[-_.:h]{_TWO}[-_.:m]{_TWO}(?!\d))"),
)


def recording_ids(paths: Iterable[str]) -> dict[str, str]:
    """Return the id of the recording at each posix path below the root.

    An id consists of A-Z, a-z, 0-9, dot, underscore and hyphen, has at most 120 characters, and is unique whatever
    the case. Where the path does not survive that, the first eight digits of its SHA-1 are added.
    """
    plain = {path: _plain_id(path) for path in paths}
    uses = Counter(name.lower() for name, _ in plain.values())
    return {
        path: name if exact and uses[name.lower()] == 1 and len(name) <= _LONGEST_ID else _with_digest(name, path)
        for path, (name, exact) in plain.items()
    }


def safe_id(name: str) -> str:
    """Return the name of something that is no file of the corpus as an id: with a digest if it had to be changed."""
    plain, exact = _plain_id(name)
    return plain if exact and len(plain) <= _LONGEST_ID else _with_digest(plain, name)


def absent_id(path: str) -> str:
    """Return an id for a recording that would lie at `path` but is not there: it is that of no recording."""
    return _with_digest(_plain_id(path)[0], path)


def group_of(path: str, recording_id: str, rule: str) -> str:
    """Return the group of a recording under `corpus.group`: its id, its folder, or what a regular expression finds.

    Raises DataError if the expression finds nothing in `path`.
    """
    if rule == "recording":
        return recording_id
    if rule == "folder":
        return path.rpartition("/")[0] or "."
    match = re.search(rule, path)
    if match is None or not match["group"]:
        raise DataError(
            f"{path}: corpus.group '{rule}' finds no group in this path; widen the expression or name the group in "
            "the recordings sheet."
        )
    return match["group"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where, by what and when a recording was made, as far as its path says; `flag` is what is odd about the path."""

    site: str | None
    recorder: str | None
    start_time: str | None
    flag: str | None = None


def origin_of(path: str, patterns: Sequence[NamePattern]) -> Origin:
    """Return what `path` says under the first of `patterns` that fits it.

    Without patterns, or where none fits or the one that does has no group `time`, the usual time in the file name
    counts; see start_time.
    """
    if not patterns:
        return Origin(None, None, *_usual_time(path))
    for layout in patterns:
        match = re.search(layout.pattern, path)
        if match is None:
            continue
        found = match.groupdict()
        site, recorder = found.get("site") or None, found.get("recorder") or None
        if "time" not in found:
            return Origin(site, recorder, *_usual_time(path))
        began = _moment(found["time"] or "", layout.time_format)
        return Origin(site, recorder, began, None if began else NO_DATE)
    return Origin(None, None, start_time(path), NO_PATTERN)


def start_time(path: str) -> str | None:
    """Return when the recording began, as ISO text with the zone if the file name gives one; None if it gives no time.

    A date without a time of day is not enough, and 2021-02-30 is no date.
    """
    return _usual_moment(_bare_name(path))


def _usual_time(path: str) -> tuple[str | None, str | None]:
    """When the recording began, and the flag of a file name with something like a time that is none."""
    name = _bare_name(path)
    began = _usual_moment(name)
    return began, NO_DATE if began is None and any(clock.search(name) for clock in _CLOCKS) else None


def _bare_name(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] if is_audio(name) else name


def later(moment: str, seconds: float) -> str | None:
    """Return the moment (ISO text) so many seconds later, to the millisecond; None if the calendar ends before."""
    try:
        began = datetime.datetime.fromisoformat(moment) + datetime.timedelta(milliseconds=round(1000 * seconds))
    except OverflowError:
        return None
    text = began.isoformat(timespec="milliseconds" if began.microsecond else "seconds")
    return f"{text.removesuffix('+00:00')}Z" if moment.endswith("Z") else text


def _moment(text: str, time_format: str | None) -> str | None:
    """The moment that `text` names, as ISO text, in a format of strptime or in a usual form."""
    if time_format is None:
        return _usual_moment(text)
    try:
        return datetime.datetime.strptime(text, time_format).isoformat()
    except ValueError:
        return None


def _usual_moment(text: str) -> str | None:
    for clock in _CLOCKS:
        for match in clock.finditer(text):
            try:
                moment = datetime.datetime(*map(int, match.groups()))  # type: ignore[arg-type]
            except ValueError:
                continue
            return moment.isoformat() + _zone(text[match.end(match.lastindex or 0) :], text[match.start() :])
    return None


def _zone(after: str, written: str) -> str:
    """`Z` or an offset that follows a time written with T; a bare hyphen and number may be a counter."""
    if re.match(r"[Zz](?![A-Za-z0-9])", after):
        return "Z"
    offset = re.match(r"([+-]\d\d):?(\d\d)(?!\d)", after)
    return f"{offset[1]}:{offset[2]}" if offset and "T" in written[:11].upper() else ""


def _plain_id(path: str) -> tuple[str, bool]:
    """The readable part of an id, and whether nothing of the path was lost in it."""
    bare = path.rpartition(".")[0] if is_audio(path) else path
    name = re.sub(r"[^A-Za-z0-9._-]", "_", bare.replace("/", "__"))
    safe = f"_{name[1:]}" if name[:1] in (".", "-") else name
    return safe, safe == bare.replace("/", "__")


def _with_digest(name: str, path: str) -> str:
    digest = hashlib.sha1(path.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:8]
    return f"{name[: _LONGEST_ID - 9]}-{digest}"
