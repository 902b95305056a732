"""What a recording's path says: its id, its group, and when it began."""

import datetime
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from otus.errors import DataError
from otus.fingerprint import is_audio

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


def group_of(path: str, recording_id: str, rule: str) -> str:
    """Return the group of a recording under `corpus.group`: its id, its folder, or what a regular expression finds.

    Raises DataError if `rule` is no regular expression with a group named `group`, or finds nothing in `path`.
    """
    if rule == "recording":
        return recording_id
    if rule == "folder":
        return str(PurePosixPath(path).parent)
    try:
        expression = re.compile(rule)
    except re.error as error:
        raise DataError(f"corpus.group: '{rule}' is no valid regular expression ({error}); correct it.") from error
    if "group" not in expression.groupindex:
        raise DataError(
            f"corpus.group: '{rule}' is neither 'recording' nor 'folder' nor a regular expression with (?P<group>...)."
        )
    match = expression.search(path)
    if match is None or not match["group"]:
        raise DataError(
            f"{path}: corpus.group '{rule}' finds no group in this path; widen the expression or name the group in "
            "the recordings sheet."
        )
    return match["group"]


def start_time(path: str) -> str | None:
    """Return when the recording began, as ISO text with the zone if the file name gives one; None if it gives no time.

    A date without a time of day is not enough, and 2021-02-30 is no date.
    """
    name = PurePosixPath(path).name
    stem = name.rpartition(".")[0] if is_audio(name) else name
    for clock in _CLOCKS:
        for match in clock.finditer(stem):
            try:
                moment = datetime.datetime(*map(int, match.groups()))  # type: ignore[arg-type]
            except ValueError:
                continue
            return moment.isoformat() + _zone(stem[match.end(match.lastindex or 0) :], stem[match.start() :])
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
