"""The audio files of a corpus: what each one is, which are copies of one another, and what is left out and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from otus.audio import AudioInfo
from otus.inventory.examine import Content, Examined


@dataclass(frozen=True)
class Quarantined:
    """Something left out, why, and what to do.

    `kind` is folder, recording, duplicate, cutout, table, row, dropped, sheet or unlabelled.
    `n_rows` is the number of annotation rows that this entry stands for; 0 for a whole recording or file.
    """

    kind: str
    path: str
    row: int | None
    reason: str
    remedy: str
    n_rows: int = 0


@dataclass(frozen=True, slots=True)
class AudioFile:
    """An audio file of the corpus. `found` is None if it cannot be read; `error` says why."""

    path: str
    sha256: str | None
    found: Examined | None
    error: str | None

    @property
    def info(self) -> AudioInfo | None:
        """Format and length, None if it cannot be read."""
        return self.found.info if self.found else None

    @property
    def content(self) -> Content | None:
        """What only decoding tells, None if it was not decoded."""
        return self.found.content if self.found else None

    @property
    def identity(self) -> str | None:
        """The digest that copies share: of the samples if they were decoded, else of the bytes; None if unreadable."""
        if self.found is None:
            return None
        return self.content.sha256 if self.content else self.sha256


def originals(files: Iterable[AudioFile]) -> dict[str, str]:
    """Return, for the path of every file, the path that stands for its content.

    Of readable files with the same samples that is the one with the shortest name, then the alphabetically first path.
    """
    copies: dict[str, list[str]] = {}
    for file in files:
        copies.setdefault(file.identity or f"/{file.path}", []).append(file.path)
    kept: dict[str, str] = {}
    for paths in copies.values():
        best = min(paths, key=lambda path: (len(path.rpartition("/")[2]), path))
        kept.update(dict.fromkeys(paths, best))
    return kept


def left_out(files: Iterable[AudioFile], kept: dict[str, str]) -> list[Quarantined]:
    """Return a quarantine row for every file that cannot be read or is a copy of another."""
    files = list(files)
    digests = {file.path: file.sha256 for file in files}
    rows = []
    for file in files:
        original = kept[file.path]
        if file.error is not None:
            remedy = "replace it by a good copy, or remove it"
            rows.append(Quarantined("recording", file.path, None, file.error, remedy))
        elif original != file.path:
            how = "byte-identical to" if file.sha256 == digests[original] else "same samples as"
            remedy = "nothing to do: its tables were merged into those of the kept file"
            rows.append(Quarantined("duplicate", file.path, None, f"{how} {original}, which is kept", remedy))
    return rows


def not_opened(folder: str) -> Quarantined:
    """Return the quarantine row of a folder that may not be looked into."""
    remedy = "get the right to read it, or leave it out of the corpus"
    return Quarantined("folder", shown(folder), None, "is a folder that may not be opened", remedy)


def shown(path: str) -> str:
    """Return a path as a table can hold it: bytes that are no UTF-8 are written out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
