"""The folder that the workflow writes into: space, speed, renaming, and the clock of its file system."""

import contextlib
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from otus.doctor.report import Finding

_WARN_GB, _NEEDED_GB, _WARN_FILES = 10.0, 1.0, 10_000
_WARN_LATENCY_MS, _WARN_SKEW_S, _TRIES = 100.0, 2.0, 20
#: File systems that several machines can share, so that jobs on other nodes may see the same files.
_SHARED = {"afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4"}
_SHARED |= {"panfs", "pvfs2", "smb3", "wekafs"}
#: File systems that make trouble, and why.
_POOR = {
    "cifs": "Windows shares often have no links and coarse times",
    "smb3": "Windows shares often have no links and coarse times",
    "fuse.sshfs": "sshfs is slow and breaks with the connection",
    "9p": "a folder of Windows seen from WSL is slow",
    "vfat": "FAT has no links and coarse times",
    "exfat": "exFAT has no links",
    "tmpfs": "it is memory, and gone when the machine restarts",
    "ramfs": "it is memory, and gone when the machine restarts",
}


def file_findings(folder: Path) -> Iterator[Finding]:
    """Look at `folder`, or at the nearest folder above it that is there."""
    place = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir()), Path("/"))
    absent = f" ({folder} is not there yet)" if place != folder.absolute() else ""
    yield _space(place, absent)
    kind = file_system(place)
    try:
        with tempfile.TemporaryDirectory(prefix=".otus-doctor-", dir=place) as trial:
            yield _renaming(Path(trial), place, kind)
            yield _latency(Path(trial))
            yield _clock(Path(trial))
    except OSError as error:
        remedy = "work in a folder that you may write to, or name one with --folder"
        if not isinstance(error, PermissionError):
            remedy = "see whether the disk is full, over quota or mounted for reading only"
        yield Finding("writing", "missing", f"{place} cannot be written to ({error.strerror})", remedy)
    yield _temporary()


def _space(place: Path, absent: str) -> Finding:
    free_gb = shutil.disk_usage(place).free / 1e9
    state = os.statvfs(place)
    text = f"{free_gb:.1f} GB free in {place}{absent}; a quota is not seen from here"
    remedy = "free some space, or set results_dir in the config to a larger disk"
    if free_gb < _NEEDED_GB:
        return Finding("space", "missing", text, remedy)
    if free_gb < _WARN_GB:
        return Finding("space", "warning", text, remedy)
    if state.f_files and state.f_favail < _WARN_FILES:  # some file systems do not count files and say 0 of 0
        return Finding("space", "warning", f"{text}; room for only {state.f_favail} more files", "delete old files")
    return Finding("space", "ok", text)


def _renaming(trial: Path, place: Path, kind: str) -> Finding:
    """Outputs are written under another name and renamed over the old: a reader must see the one or the other."""
    where = f"{place} is on {kind or 'a file system of unknown kind'}{', shared' if kind in _SHARED else ''}"
    old, new = trial / "old", trial / "new"
    old.write_text("old")
    new.write_text("new")
    with old.open() as reader:
        os.replace(new, old)
        kept, content = reader.read(), old.read_text()
    if new.exists() or content != "new" or kept != "old":
        text = f"{where}; a file that is replaced while it is read changes under its reader"
        return Finding("file system", "warning", text, "work on another disk: a job could read half a table")
    if kind in _POOR:
        return Finding("file system", "warning", f"{where}: {_POOR[kind]}", "keep the results on another disk")
    return Finding("file system", "ok", f"{where}; renaming replaces a file in one step")


def _latency(trial: Path) -> Finding:
    median_ms = statistics.median(_write_one(trial / f"{i}") for i in range(_TRIES)) * 1000
    text = f"a small file is written, flushed and renamed in {median_ms:.1f} ms (median of {_TRIES})"
    if median_ms > _WARN_LATENCY_MS:
        remedy = "put results_dir on a faster file system (scratch); every job writes dozens of files"
        return Finding("latency", "warning", text, remedy)
    return Finding("latency", "ok", text)


def _write_one(path: Path) -> float:
    begin = time.perf_counter()
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(b"otus" * 256)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    path.stat()
    return time.perf_counter() - begin


def _clock(trial: Path) -> Finding:
    before = time.time()
    file = trial / "clock"
    file.write_text("now")
    stamp, after = file.stat().st_mtime, time.time()
    ahead_s = stamp - after if stamp > after else min(0.0, stamp - before)
    text = f"that of the file system and that of this machine differ by {abs(ahead_s):.1f} s"
    if abs(ahead_s) > _WARN_SKEW_S:
        remedy = "ask the administrator to set the clocks (NTP): Snakemake compares times of change"
        return Finding("clock", "warning", f"{text} ({'ahead' if ahead_s > 0 else 'behind'})", remedy)
    return Finding("clock", "ok", text)


def _temporary() -> Finding:
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile() as file:
            file.write(b"otus" * 1024)
            file.flush()
        free_gb = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        text = f"no folder for temporary files can be written to ({error.strerror or error})"
        return Finding("temporary", "missing", text, "set TMPDIR to a folder with space")
    text = f"{free_gb:.1f} GB free in {folder}"
    if free_gb < 1:
        return Finding("temporary", "warning", text, "delete old files there, or set TMPDIR to a folder with space")
    return Finding("temporary", "ok", text)


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the type of the file system that holds `folder`, such as ext4 or nfs4; empty where it is not told."""
    text = ""
    with contextlib.suppress(OSError):
        text = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    place, best, kind = folder.resolve(), "", ""
    for row in text.splitlines():
        fields = row.split(" ")
        if len(fields) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match.group(1), 8)), fields[1])
        if place.is_relative_to(point) and len(point) >= len(best):  # of two on one point, the later covers the other
            best, kind = point, fields[2]
    return kind
