"""Every audio file, looked into once: its format, its digest, and which files are copies of one another."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from otus.audio import AudioInfo, inspect, sha256
from otus.errors import DataError
from otus.fingerprint import FoundFile

_REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class Quarantined:
    """Something left out, why, and what to do; kind: recording, duplicate, table, row, sheet or unlabelled."""

    kind: str
    path: str
    row: int | None
    reason: str
    remedy: str


@dataclass(frozen=True)
class AudioFile:
    """An audio file of the corpus. `info` is None if it cannot be read; `error` says why."""

    path: str
    sha256: str | None
    info: AudioInfo | None
    error: str | None


def inspect_files(
    root: Path, files: Sequence[FoundFile], *, workers: int, progress: Callable[[str], None]
) -> list[AudioFile]:
    """Return what is in each of `files`, in their order, using `workers` threads. Unreadable files are no error."""
    total = sum(file.size for file in files)
    begun = reported = time.monotonic()
    done: list[AudioFile] = []
    read = 0
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for file, found in zip(files, pool.map(lambda f: _inspect(root, f.path), files), strict=True):
            done.append(found)
            read += file.size
            now = time.monotonic()
            if now - reported >= _REPORT_EVERY_S:
                reported = now
                left_s = (now - begun) * (total - read) / max(read, 1)
                progress(
                    f"inspected {len(done)} of {len(files)} audio files "
                    f"({read / 1e9:.1f} of {total / 1e9:.1f} GB, about {left_s:.0f} s left)"
                )
    return done


def originals(files: Iterable[AudioFile]) -> dict[str, str]:
    """Return, for the path of every file, the path that stands for its content.

    Of byte-identical readable files that is the one with the shortest name, then the alphabetically first path.
    """
    copies: dict[str, list[str]] = {}
    for file in files:
        alone = file.info is None or file.sha256 is None
        copies.setdefault(f"/{file.path}" if alone else str(file.sha256), []).append(file.path)
    kept: dict[str, str] = {}
    for paths in copies.values():
        best = min(paths, key=lambda path: (len(path.rpartition("/")[2]), path))
        kept.update(dict.fromkeys(paths, best))
    return kept


def left_out(files: Iterable[AudioFile], kept: dict[str, str]) -> list[Quarantined]:
    """Return a quarantine row for every file that cannot be read or is a copy of another."""
    rows = []
    for file in files:
        if file.error is not None:
            rows.append(
                Quarantined("recording", file.path, None, file.error, "replace it by a good copy, or remove it")
            )
        elif kept[file.path] != file.path:
            reason = f"byte-identical to {kept[file.path]}, which is kept"
            remedy = "nothing to do: its tables were merged into those of the kept file"
            rows.append(Quarantined("duplicate", file.path, None, reason, remedy))
    return rows


def _inspect(root: Path, path: str) -> AudioFile:
    full = root / path
    digest = info = error = None
    try:
        info = inspect(full)
    except (DataError, OSError) as problem:
        error = str(problem).removeprefix(f"{full}: ").replace(f"'{full}': ", "").rstrip(".")
    try:
        digest = sha256(full)
    except OSError as problem:
        info, error = None, error or f"cannot be read ({problem.strerror})"
    return AudioFile(path, digest, info, error)
