"""Files that are either whole or absent: write to a temporary name in the same folder, then rename."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otus.errors import MissingPartError

_NO_ROOM = "free space or quota there and start again; nothing that was finished is lost"
_LARGE = "raise the limit (ulimit -f) and start again; nothing that was finished is lost"
_NO_WRITING = "let it be written to, or set results_dir to a folder that you may write to, and start again"
_NO_ACCESS = "get the right to read and write there, or set results_dir to a folder of yours, and start again"
_MANY_OPEN = "raise the limit (ulimit -n) or run fewer jobs at a time, and start again"

#: What the system says about a folder, a disk or a quota: error number -> what is wrong and what to do.
_STORAGE_ERRORS = {
    errno.ENOSPC: ("the disk has no room for it", _NO_ROOM),
    errno.EDQUOT: ("your quota is used up", _NO_ROOM),
    errno.EFBIG: ("the file would be larger than the system allows", _LARGE),
    errno.EROFS: ("the folder is read-only", _NO_WRITING),
    errno.EACCES: ("access is denied", _NO_ACCESS),
    errno.EPERM: ("access is denied", _NO_ACCESS),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "shorten results_dir or the names in the config"),
    errno.EMFILE: ("this job has too many files open", _MANY_OPEN),
    errno.ENFILE: ("this machine has too many files open", _MANY_OPEN),
}


def storage_failure(error: OSError, path: str | Path) -> MissingPartError | None:
    """Return the sentence for a failure that lies in the disk, the quota or the permissions at `path`, or None."""
    if error.errno not in _STORAGE_ERRORS:
        return None
    what, remedy = _STORAGE_ERRORS[error.errno]
    return MissingPartError(f"{path}: {what} ({_room(Path(path))}); {remedy}.")


@contextlib.contextmanager
def storage_explained(path: str | Path) -> Iterator[None]:
    """Turn what storage_failure knows into MissingPartError, if the block fails at `path`, not at a file it reads."""
    try:
        yield
    except OSError as error:
        explained = storage_failure(error, path) if _belongs_to(error.filename, Path(path)) else None
        if explained is None:
            raise
        raise explained from error


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, else delete it.

    The folder is made if it is missing. The data are flushed to disk before the rename, so that a reader
    on another node never sees a name without its content. Raises MissingPartError if the disk is full or the
    folder cannot be written; what was at `path` before stays then.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with storage_explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):  # a folder that cannot be written holds no temporary file
                temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically. NaN is refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _belongs_to(found: Any, target: Path) -> bool:
    """Whether `found` (the file name in an OSError, if any) is the target, its temporary file or a folder above."""
    if not isinstance(found, str | bytes):
        return True
    path = Path(os.fsdecode(found))
    return path in (target, *target.parents) or path.name.startswith(f".{target.name}.tmp-")


def _room(path: Path) -> str:
    """What is free on the disk that `path` lies on, and where that disk is mounted."""
    for parent in path.absolute().parents:
        try:
            status, folder = os.statvfs(parent), parent.resolve()
            mount = next(p for p in (folder, *folder.parents) if p.is_mount())
        except (OSError, StopIteration):  # the folder does not exist or may not be looked into: the one above it
            continue
        no_files = ", room for no more files" if status.f_files and not status.f_favail else ""
        return f"{status.f_bavail * status.f_frsize / 2**20:,.0f} MB free on {mount}{no_files}"
    return "free space unknown"
