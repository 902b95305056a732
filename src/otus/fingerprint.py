"""Which files a corpus consists of, and a cheap digest of them. Light: it runs while the workflow is parsed."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from otus.config import CorpusSettings
from otus.config.corpus import NAME_FORMATS
from otus.errors import DataError

#: Suffixes (lower case) taken for audio; libsndfile decides what it can really read.
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".rf64", ".caf"}
)


#: Hands the fingerprint from the driver to its jobs.
_TOLD = "OTUS_CORPUS_STATE"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file below the corpus root: posix path relative to the root, size in bytes, time of change in ns."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class CorpusFiles:
    """The files that the corpus settings select, each sorted by path; `annotations` has one entry per source."""

    audio: tuple[FoundFile, ...]
    annotations: tuple[tuple[FoundFile, ...], ...]
    sheet: FoundFile | None


def corpus_fingerprint(root: Path, settings: CorpusSettings) -> str:
    """Return a hexadecimal digest of path, size and time of change of every file that the settings select.

    The folder is always looked through anew, no file is opened. Raises DataError if `root` is not a folder.
    """
    _selected.cache_clear()
    files = seen_files(root, settings)
    digest = hashlib.sha256()
    kinds = [("audio", files.audio), *((f"annotations {i}", found) for i, found in enumerate(files.annotations))]
    for kind, found in [*kinds, ("sheet", (files.sheet,) if files.sheet else ())]:
        for file in found:
            line = f"{kind}\0{file.path}\0{file.size}\0{file.mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def seen_files(root: Path, settings: CorpusSettings) -> CorpusFiles:
    """Return the files that the settings select, as this process saw them last: those of the latest fingerprint.

    Looks for itself if there was none: a walk through a large corpus on a network disk takes a while, and who only
    guesses need not repeat it. Raises DataError if `root` is not a folder.
    """
    return _selected(root, settings.model_dump_json())


@lru_cache(maxsize=1)
def _selected(root: Path, settings: str) -> CorpusFiles:
    return select_files(walk(root), CorpusSettings.model_validate_json(settings))


def explore(root: Path) -> tuple[list[FoundFile], list[str]]:
    """Return every file below `root` and the folders (posix paths) that may not be opened, both sorted by path.

    Hidden files and folders, and so `._x.wav`, are left out. Links are followed, except one that leads back to a
    folder that it lies in; one that leads nowhere counts as an empty file. Raises DataError if `root` is missing or
    not a folder.
    """
    check_root(root)
    found: list[FoundFile] = []
    closed: list[str] = []
    _scan(root, "", (), found, closed)
    return sorted(found, key=lambda file: file.path), sorted(closed)


def walk(root: Path) -> list[FoundFile]:
    """Return the files that `explore` finds. Raises DataError if `root` is missing or not a folder."""
    return explore(root)[0]


def shared_fingerprint(root: Path, settings: CorpusSettings, *, asks_driver: bool) -> str:
    """Return the corpus_fingerprint, in a job the one that its driver has found and handed on in the environment.

    Snakemake compares the settings of earlier stages in every job: one that came to another digest, because a file has
    changed meanwhile, would take the inventory again on its own. A job that was told nothing looks for itself.
    """
    told = os.environ.get(_TOLD) if asks_driver else None
    os.environ[_TOLD] = told or corpus_fingerprint(root, settings)
    return os.environ[_TOLD]


def check_root(root: Path, key: str = "corpus.root") -> None:
    """Raise DataError if `root`, which the config gives under `key`, is missing or not a folder."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{key}: {root} {what}; set it to the folder that holds the recordings.")


def select_files(files: Iterable[FoundFile], settings: CorpusSettings) -> CorpusFiles:
    """Return which of `files` are recordings, annotation files (per source) and the recordings sheet.

    Globs do not look at case. The annotation files of a source that reads names are audio files, be they recordings
    or not; those of every other source are not audio. A glob with wildcards does not take the sheet for one of them.
    """
    audio: list[tuple[str, FoundFile]] = []
    other: list[tuple[str, FoundFile]] = []
    for file in files:
        (audio if is_audio(file.path) else other).append((_folded(file.path), file))
    wanted = _folded(settings.sheet or "")
    sheet = next((file for key, file in other if key == wanted), None)
    recordings = [_glob(pattern) for pattern in settings.recordings]
    annotations = []
    for source in settings.annotations:
        glob, exact = _glob(source.files), not set("*?[") & set(source.files)
        keyed = audio if source.format in NAME_FORMATS else other
        annotations.append(tuple(f for key, f in keyed if glob.fullmatch(key) and (exact or f is not sheet)))
    return CorpusFiles(
        tuple(file for key, file in audio if any(glob.fullmatch(key) for glob in recordings)),
        tuple(annotations),
        sheet,
    )


def is_audio(path: str) -> bool:
    """Return whether the suffix of `path` is one of an audio file, in whatever case."""
    return os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES  # noqa: PTH122 (20,000 Path objects are slow)


def _scan(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], found: list[FoundFile], closed: list[str]
) -> None:
    """Add the files below `folder`, or the folder to `closed`; `above` holds device and inode of those on the way."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        entries = list(os.scandir(folder))
    except OSError:
        closed.append(prefix.rstrip("/"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir():
                _scan(Path(entry.path), f"{prefix}{entry.name}/", (*above, here), found, closed)
            elif entry.is_file():
                size = entry.stat()
                found.append(FoundFile(prefix + entry.name, size.st_size, size.st_mtime_ns))
            elif entry.is_symlink():  # to nothing: found, so that it is reported and not lost
                found.append(FoundFile(prefix + entry.name, 0, entry.stat(follow_symlinks=False).st_mtime_ns))
        except OSError:  # removed meanwhile, or a link to itself, which is found as one to nothing is
            if entry.is_symlink():
                found.append(FoundFile(prefix + entry.name, 0, 0))


def _folded(path: str) -> str:
    """One spelling of a path for comparing: composed accents, forward slashes, no leading './', no case."""
    return unicodedata.normalize("NFC", path.replace("\\", "/").removeprefix("./")).casefold()


def _glob(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob over folded relative paths; `**/` stands for any number of folders."""
    text, parts, i = _folded(pattern), [], 0
    while i < len(text):
        if text.startswith("**/", i):
            parts.append("(?:.*/)?")
            i += 3
        elif text.startswith("**", i):
            parts.append(".*")
            i += 2
        elif text[i] == "*":
            parts.append("[^/]*")
            i += 1
        elif text[i] == "?":
            parts.append("[^/]")
            i += 1
        elif text[i] == "[" and (end := text.find("]", i + 2)) > 0:
            inner = text[i + 1 : end]
            negated = inner.startswith("!")
            kept = re.sub(r"([\\^\[&~|])", r"\\\1", inner[negated:])
            parts.append(f"[{'^' * negated}{kept}]")
            i = end + 1
        else:
            parts.append(re.escape(text[i]))
            i += 1
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise DataError(f"corpus: '{pattern}' is not a usable glob ({error}); correct its brackets.") from error
