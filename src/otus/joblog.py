"""The log of one job: where it ran, what it did, and why it failed."""

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
from otus.errors import OtusError


def job_log(path: str | Path) -> Callable[[str], None]:
    """Start the log file of a job and return a function that adds a line to it (and to stderr).

    Warnings and uncaught exceptions go there too: an expected failure as its one sentence, anything else with its
    traceback (OTUS_DEBUG=1 gives the traceback of both).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("", encoding="utf-8")

    def log(line: str) -> None:
        stamped = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n"
        with target.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(stamped)
        sys.stderr.write(stamped)
        sys.stderr.flush()

    def failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, OtusError) or os.environ.get("OTUS_DEBUG"):
            log("".join(traceback.format_exception(kind, error, trace)).rstrip())
        log(f"FAILED: {error}" if isinstance(error, OtusError) else f"FAILED: {kind.__name__}: {error}")

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
    where = {k: os.environ[k] for k in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS") if k in os.environ}
    facts = " ".join(f"{k}={v}" for k, v in where.items())
    python = platform.python_version()
    log(f"otus {__version__} on {platform.node()}, Python {python}, pid {os.getpid()} {facts}".rstrip())
    return log
