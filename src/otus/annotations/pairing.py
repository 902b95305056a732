"""Which recording a table, or a row of a table, belongs to: by relative path, file name, or the table's own name."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from otus.annotations.text import excerpt
from otus.fingerprint import is_audio

#: Leading words that tell a truth file and its recording apart, as in gt_1.csv beside rec_1.wav.
_TABLE_WORDS = re.compile(
    r"^(?:gt|truth|ground[-_ ]?truth|labels?|annotations?|annot|selections?|events?|reference|manual)[-_. ]+"
)
_RECORDING_WORDS = re.compile(r"^(?:rec|recording|audio|sound|wav|track)[-_. ]+")

#: Folded path, name or stem -> folded folder -> paths.
_Paths = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class RecordingIndex:
    """The recordings of a corpus by folded path, file name and stem; `kept` leads from a duplicate to its original."""

    by_path: _Paths
    by_name: _Paths
    by_stem: _Paths
    by_bare_stem: _Paths
    kept: Mapping[str, str]


@dataclass(frozen=True)
class Pairing:
    """The path of the recording that was found, or None with the reason and what to do."""

    recording: str | None
    reason: str = ""
    remedy: str = ""


def index_recordings(paths: Iterable[str], kept: Mapping[str, str] | None = None) -> RecordingIndex:
    """Return an index of recordings by their posix paths below the root.

    `kept` maps each path to the recording that stands for it (byte-identical files are one recording).
    """
    maps: list[dict[str, dict[str, list[str]]]] = [{}, {}, {}, {}]
    for path in paths:
        folded = _folded(path)
        folder, _, name = folded.rpartition("/")
        stem = _stem(name)
        for found, key in zip(maps, (folded, name, stem, _RECORDING_WORDS.sub("", stem)), strict=True):
            found.setdefault(key, {}).setdefault(folder, []).append(path)
    by_path, by_name, by_stem, by_bare_stem = maps
    return RecordingIndex(by_path, by_name, by_stem, by_bare_stem, kept or {})


def recording_named(index: RecordingIndex, reference: str, table: str) -> Pairing:
    """Return the recording that a cell of the file `table` names: a relative path, a file name or a stem.

    Case does not matter. The folders of absolute and Windows paths count as far as they agree with the corpus.
    Among recordings of one name the one in the table's folder wins.
    """
    parts = [part for part in _folded(reference).split("/") if part not in ("", ".")]
    if not parts:
        return Pairing(None, "names no recording", "write the recording's file name into the row")
    folder = _folded(table).rpartition("/")[0]
    beside = "/".join([folder, *parts]) if folder else "/".join(parts)
    hits = [index.by_path.get(beside, {})]
    hits += [index.by_path.get("/".join(parts[i:]), {}) for i in range(max(1, len(parts) - 1))]
    hits += [index.by_name.get(parts[-1], {}), index.by_stem.get(parts[-1], {})]
    hits += [index.by_stem.get(_stem(parts[-1]), {})]
    paths = next(filter(None, hits), {})
    if not paths:
        return Pairing(
            None,
            f"names the recording '{excerpt(reference)}', which is not in the corpus",
            "add the recording, or correct its name",
        )
    return _choose(
        index,
        paths,
        table,
        f"names the recording '{excerpt(reference)}', which fits",
        "write the path below the corpus root",
    )


def recording_of_file(index: RecordingIndex, table: str) -> Pairing:
    """Return the recording that an annotation file belongs to by its own name.

    That is the recording with the longest stem that begins the name, followed by nothing or by an ending such as
    `.Table.1.selections.txt` or `_labels.txt`. An ending that begins with a digit makes it another recording's:
    `rec_1_2.txt` does not belong to `rec_1.wav`. Where nothing is found, the leading words of names such as
    `gt_1.csv` and `rec_1.wav` are left out.
    """
    name = _folded(table).rpartition("/")[2]
    bare = _TABLE_WORDS.sub("", name)
    searches = [(name, index.by_stem), (bare, index.by_stem), (bare, index.by_bare_stem)]
    for text, stems in searches if bare != name else searches[:1]:
        paths = _longest_beginning(text, stems)
        if paths:
            return _choose(
                index, paths, table, "has a name that fits", "move the table beside its recording or rename both"
            )
    return Pairing(
        None,
        "belongs to no recording: its name does not begin with the name of any",
        "name it like its recording, or add the recording",
    )


def _longest_beginning(name: str, stems: _Paths) -> Mapping[str, Sequence[str]]:
    """The recordings whose stem begins `name`, the longest one only, if what follows it is an ending."""
    for length in range(len(name), 0, -1):
        if (length == len(name) or not name[length].isalnum()) and name[:length] in stems:
            return stems[name[:length]] if _is_ending(name[length:]) else {}
    return {}


def _is_ending(rest: str) -> bool:
    """Whether `rest` can follow the stem of a recording: not a number, except that of a copy such as ' (1).txt'."""
    suffix = re.match(r"\.[a-z0-9]+(?![a-z0-9])", rest)
    if suffix and is_audio(f"x{suffix.group()}"):
        rest = rest[suffix.end() :]
    first = next(filter(str.isalnum, rest), "")
    return not first.isdigit() or re.match(r"[ _]?\(\d+\)", rest) is not None


def _choose(
    index: RecordingIndex, by_folder: Mapping[str, Sequence[str]], table: str, what: str, remedy: str
) -> Pairing:
    """The one recording in `by_folder`: in the table's folder, else the only one, else the nearest by folder names."""
    folder = _folded(table).rpartition("/")[0]
    candidates = {folder: by_folder[folder]} if folder in by_folder else by_folder
    if len(candidates) > 1:
        parts = set(folder.split("/")) - {""}
        shared = {other: len(parts & set(other.split("/"))) for other in candidates}
        most = max(shared.values())
        candidates = {other: paths for other, paths in candidates.items() if shared[other] == most}
    paths = sorted(path for group in candidates.values() for path in group)
    kept = {index.kept.get(path, path) for path in paths}
    if len(kept) == 1:
        return Pairing(kept.pop())
    listed = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    return Pairing(None, f"{what} {len(paths)} recordings ({listed})", remedy)


def _stem(name: str) -> str:
    """A file name without its audio suffix, and only that: `A_20250203_05.23` keeps its dot."""
    return name.rpartition(".")[0] if is_audio(name) else name


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.strip().replace("\\", "/")).casefold()
