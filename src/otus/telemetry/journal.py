"""The journal of a job: one JSON line per event, appended over all attempts, and never a reason for a job to fail."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from otus import __version__
from otus.errors import OtusError
from otus.stopping import StoppedError
from otus.telemetry.events import SCHEMA_VERSION, check_names

#: Versions that go into versions_hash.
_PACKAGES = ("numpy", "scipy", "soundfile", "soxr", "torch", "torchaudio")

#: Characters kept of the text of an error: its end says most.
_TAIL = 500

#: Events that tell of the process, not of its work.
_BACKGROUND = ("sample", "heartbeat")


class Journal:
    """Writes the events of one run of a job. Made by open_journal; safe to use from several threads.

    Items are counted as item_end is written; an event that gives items_done or items_total sets the count.
    """

    def __init__(self, path: Path, identity: dict[str, Any], log: Callable[[str], None]) -> None:
        self._path, self._identity, self._log = path, identity, log
        self._identity_members = _members(identity)  # written with every record, the same most of the time
        self._lock = threading.Lock()
        self._began = self._worked = time.monotonic()
        self._counts: dict[str, Any] = {"items_done": 0, "items_total": None, "items_failed": 0}
        self._audio_s = 0.0
        self._kept: dict[str, Any] = {}
        self._complained = False
        self._descriptor = self._open()
        self._torn = self._descriptor is not None and _torn(path)

    def write(self, event: str, **fields: Any) -> None:
        """Append a record; fields that are None or not finite are left out.

        Raises ValueError for an event or a field that does not exist, and nothing else: a disk that is full or cannot
        be written is said once in the log.
        """
        check_names(event, fields)
        if tail := fields.get("error_tail"):
            fields["error_tail"] = str(tail).strip()[-_TAIL:]
        with self._lock:
            self._count(event, fields)
            own = {"attempt": 1} if event.startswith("item_") else {}
            progress = self._progress(event) if event in ("heartbeat", "run_end") else {}
            head = _members({"schema": SCHEMA_VERSION, "ts": _now(), "event": event})
            rest = _members({**own, **progress, **fields})
            self._append("{" + ", ".join(filter(None, (head, self._identity_members, rest))) + "}")

    def keep(self, **fields: Any) -> None:
        """Hold figures of the whole run back for its run_end; later ones win. Raises ValueError as write does."""
        check_names("run_end", fields)
        with self._lock:
            self._kept |= fields

    def uses_gpu(self, uuid: str, name: str) -> None:
        """From now on records name this GPU."""
        with self._lock:
            self._identity |= {"gpu_uuid": uuid, "gpu_name": name}
            self._identity_members = _members(self._identity)

    def end(self, status: str, **fields: Any) -> None:
        """Write run_end, with what was kept for it, and close the file."""
        self.write("run_end", status=status, **{**self._kept, **fields})
        with self._lock:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):  # a network disk tells of a full disk only here
                    os.close(self._descriptor)
            self._descriptor = None

    def _count(self, event: str, fields: dict[str, Any]) -> None:
        if event not in _BACKGROUND:
            self._worked = time.monotonic()
        if event == "item_end":
            self._counts["items_done"] += 1
            self._counts["items_failed"] += fields.get("status") == "failed"
            self._audio_s += fields.get("audio_s") or 0.0
            fields.setdefault("items_done", self._counts["items_done"])
        for name in self._counts:
            if fields.get(name) is not None:
                self._counts[name] = fields[name]

    def _progress(self, event: str) -> dict[str, Any]:
        """How far the job is."""
        now = time.monotonic()
        wall_s = now - self._began
        found: dict[str, Any] = {"wall_s": wall_s}
        if event == "heartbeat":
            found["idle_s"] = now - self._worked
        if self._counts["items_total"] or self._counts["items_done"]:
            found |= self._counts
        if self._audio_s:
            found |= {"audio_s": self._audio_s, "rtf": self._audio_s / wall_s}
        return found

    def _open(self) -> int | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._complain(error.strerror or str(error))
            return None

    def _append(self, text: str) -> None:
        """One write for the whole line, so that a reader sees at most one that is not whole: the last."""
        if self._descriptor is None:
            return
        line = (("\n" if self._torn else "") + text + "\n").encode()
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._complain(error.strerror or str(error))
            return
        self._torn = written < len(line)
        if self._torn:
            self._complain("no room left for a whole line")

    def _complain(self, why: str) -> None:
        if not self._complained:
            self._complained = True
            self._log(f"warning: the telemetry {self._path} cannot be written ({why}); the job goes on without it.")


def _members(record: dict[str, Any]) -> str:
    """The members of a JSON object without its brackets; what is None or not finite is left out."""
    return json.dumps({key: plain for key, value in record.items() if _is_known(plain := _plain(value))})[1:-1]


@contextlib.contextmanager
def open_journal(
    path: str | Path,
    *,
    stage: str,
    rule: str,
    log: Callable[[str], None],
    asked_mem_mb: float | None = None,
    asked_min: float | None = None,
    threads: int | None = None,
) -> Iterator[Journal]:
    """Append the records of a run of a job to the file `path`; yield the journal between run_start and run_end.

    The status of run_end is ok, stopped (StoppedError, Ctrl-C) or failed, with the class and the end of the text of
    the error, which goes on. `asked_...` and `threads` are what the job asked for. A file that cannot be written is
    said once through `log` and stops nothing.
    """
    path = Path(path)
    identity = {
        "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        "stage": stage,
        "rule": rule,
        "job": path.name.removesuffix(".jsonl"),
        "attempt": _attempt(path),
        "host": platform.node(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_array_task": os.environ.get("SLURM_ARRAY_TASK_ID"),
        "versions_hash": _versions_hash(),
    }
    journal = Journal(path, identity, log)
    journal.write("run_start", asked_mem_mb=asked_mem_mb, asked_min=asked_min, threads=threads)
    try:
        yield journal
    except BaseException as error:
        stopped = isinstance(error, StoppedError | KeyboardInterrupt)
        journal.end("stopped" if stopped else "failed", error_class=type(error).__name__, error_tail=_text(error))
        raise
    journal.end("ok")


def _attempt(path: Path) -> int:
    """1, and one more for each start in the file since the job last succeeded."""
    if not path.is_file():  # such as /dev/null, for somebody who wants none
        return 1
    starts = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if '"event": "run_start"' in line:
                    starts += 1
                elif '"event": "run_end"' in line and '"status": "ok"' in line:
                    starts = 0
    except OSError:
        return 1
    return starts + 1


def _torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line: its writer was killed, or its disk was full."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # empty, or unreadable
        return False


def _versions_hash() -> str:
    found = {"otus": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def _text(error: BaseException) -> str:
    """What is to be said of an error: its sentence if it is an expected one, else its traceback."""
    expected = isinstance(error, OtusError | KeyboardInterrupt)
    text = str(error) if expected else "".join(traceback.format_exception(error))
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_known(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and not math.isfinite(value))


def _plain(value: Any) -> Any:
    """A value as JSON holds it: floats in a few digits, numbers of numpy as those of Python, the rest as text."""
    if not isinstance(value, str | int | float | None):
        try:
            value = value.item()
        except (AttributeError, TypeError, ValueError, RuntimeError):  # a record may not fail
            return str(value)
    return round(value, 4) if isinstance(value, float) and math.isfinite(value) else value
