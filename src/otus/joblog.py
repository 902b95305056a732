"""The log of one job: where it ran, what it did, and why it failed."""

import contextlib
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from otus import __version__
from otus.atomic import storage_failure
from otus.errors import OtusError

#: Printed in the first line, if set: which job on which node with which GPU, and for which time.
_FACTS = (
    "SLURM_JOB_ID",
    "SLURMD_NODENAME",
    "SLURM_STEP_GPUS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def job_log(path: str | Path) -> Callable[[str], None]:
    """Start the log file of a job and return a function that adds a line to it (and to stderr).

    Warnings and uncaught exceptions go there too: an expected failure, a full disk among them, as its one sentence,
    anything else with its traceback (OTUS_DEBUG=1 gives the traceback of both). A log file that cannot be written is
    said once on stderr and stops nothing.
    """
    write = _file_writer(Path(path))

    def log(line: str) -> None:
        stamped = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n"
        _to_stderr(stamped)
        write(stamped)

    def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        expected = error if isinstance(error, OtusError) else _storage_failure(error)
        if expected is None or os.environ.get("OTUS_DEBUG"):
            log("".join(traceback.format_exception(kind, error, trace)).rstrip())
        log(f"FAILED: {expected or f'{kind.__name__}: {error}'}")

    def warned(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log(f"warning: {category.__name__}: {message} ({Path(filename).name}:{lineno})")

    sys.excepthook = failed
    warnings.showwarning = warned
    facts = " ".join(f"{name}={os.environ[name]}" for name in _FACTS if name in os.environ)
    python = platform.python_version()
    log(f"otus {__version__} on {platform.node()}, Python {python}, pid {os.getpid()} {facts}".rstrip())
    return log


def _file_writer(path: Path) -> Callable[[str], None]:
    """Start the file anew; return a function that appends to it and never fails."""
    complained = False

    def write(text: str, mode: str = "a") -> None:
        nonlocal complained
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            if not complained:
                complained = True
                _to_stderr(f"warning: the log {path} cannot be written ({error.strerror or error}); it goes on here.\n")

    write("", "w")
    return write


def _to_stderr(text: str) -> None:
    with contextlib.suppress(OSError):  # closed, or a file on a disk that is full
        sys.stderr.write(text)
        sys.stderr.flush()


def _storage_failure(error: BaseException) -> OtusError | None:
    """The sentence for a full or closed disk that was met outside atomic writing."""
    if not isinstance(error, OSError):
        return None
    return storage_failure(error, error.filename if isinstance(error.filename, str) else "a file of this job")
