"""Memory and processor time of this process and its children, without a package for it."""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessUse:
    """Memory in use in MB (where the system does not tell: the most so far) and processor time since the start."""

    rss_mb: float
    cpu_s: float


def process_use() -> ProcessUse:
    """Return what this process and its children use; children that have ended count for their processor time."""
    times = os.times()
    cpu_s = times.user + times.system + times.children_user + times.children_system
    own_mb = _rss_mb(os.getpid())
    if own_mb is None:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return ProcessUse(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, cpu_s)
    living = _descendants(os.getpid())
    rss_mb = own_mb + sum(_rss_mb(pid) or 0.0 for pid in living)
    return ProcessUse(rss_mb, cpu_s + sum(_cpu_s(pid) for pid in living))


def _descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on; those that are there when it is asked."""
    found: list[int] = []
    todo = [pid]
    while todo:
        for thread in _threads(todo.pop()):
            try:
                children = [int(word) for word in (thread / "children").read_text().split()]
            except OSError:  # the thread has ended
                continue
            found += children
            todo += children
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _rss_mb(pid: int) -> float | None:
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize() / 2**20


def _cpu_s(pid: int) -> float:
    """Processor time of a living process and of its children that have ended."""
    try:
        after_name = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return sum(int(ticks) for ticks in after_name[11:15]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return 0.0
