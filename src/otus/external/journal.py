"""The journal of a job: what became of each chunk, a line of JSON each, written at once and kept until all is done."""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otus.atomic import storage_explained


@dataclass(frozen=True)
class Entry:
    """The item of one chunk, its selections, and the labels that were dropped with their numbers of rows."""

    item: dict[str, Any]
    rows: list[dict[str, Any]]
    dropped: dict[str, int]


class Journal:
    """An append-only file of entries; `entries` holds the latest of every chunk.

    A journal that was begun for other work (another `digest`) is begun anew; a last line that was cut short, by a kill
    or a full disk, is passed over, and so is anything else that is no entry.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        with storage_explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            if _record(lines[0] if lines else b"") != {"digest": digest}:
                path.write_bytes(b"")
                self._append({"digest": digest})
                lines = []
            elif lines[-1]:  # a cut line stands alone, so that the next one is whole
                self._append_bytes(b"\n")
        for line in lines[1:]:
            record = _record(line)
            if record and set(record) == {"item", "rows", "dropped"}:
                self.entries[record["item"]["chunk_id"]] = Entry(**record)

    def add(self, entry: Entry) -> None:
        """Write an entry to disk. Raises MissingPartError if the disk is full or may not be written."""
        with storage_explained(self.path):
            self._append({"item": entry.item, "rows": entry.rows, "dropped": entry.dropped})
        self.entries[entry.item["chunk_id"]] = entry

    def _append(self, record: dict[str, Any]) -> None:
        self._append_bytes(json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n")

    def _append_bytes(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(
                    errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)
                )  # the disk took only a part of it
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
