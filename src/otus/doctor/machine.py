"""Cores and memory that this process may use, which on a shared machine is less than what is built in."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from otus.doctor.report import Finding

#: What the rule that trains asks for (rules/train.smk).
_TRAINING_MB = 6000


def machine_findings(
    environment: Mapping[str, str] | None = None, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> Iterator[Finding]:
    """Yield one finding on cores and one on memory."""
    yield _cores(os.environ if environment is None else environment, proc, groups)
    yield _memory(proc, groups)


def _cores(environment: Mapping[str, str], proc: Path, groups: Path) -> Finding:
    usable, built_in = usable_cores(), os.cpu_count() or 1
    text = f"{usable} of {built_in} may be used"
    quota = cpu_quota(proc, groups)
    if quota is not None and quota < usable:
        text += f", for as much time as {quota:g} take"
        usable = max(1, int(quota))
    threads = environment.get("OMP_NUM_THREADS")
    text += f"; OMP_NUM_THREADS {'is ' + threads if threads else 'is not set'}"
    if threads and threads.isdigit() and int(threads) > usable:
        remedy = f"unset OMP_NUM_THREADS, or set it to {usable} at most"
        return Finding("cores", "warning", f"{text}: threads will wait for each other", remedy)
    return Finding("cores", "ok", text)


def _memory(proc: Path, groups: Path) -> Finding:
    total_mb, limit_mb = total_memory_mb(proc), memory_limit_mb(proc, groups)
    if total_mb is None:
        return Finding("memory", "skipped", "this system does not say how much there is")
    usable_mb = min(total_mb, limit_mb or total_mb)
    text = f"{total_mb / 1024:.1f} GiB"
    if usable_mb < total_mb:
        text += f", of which this session may use {usable_mb / 1024:.1f} GiB"
    if usable_mb < _TRAINING_MB:
        remedy = "train on a machine with more memory, or with --profile slurm"
        return Finding("memory", "warning", f"{text}; a training asks for {_TRAINING_MB / 1000:g} GB", remedy)
    return Finding("memory", "ok", text)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_mb(proc: Path) -> float | None:
    """Return the memory of the machine in MiB, or None if it is not told."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next(int(row.split()[1]) / 1024 for row in lines if row.startswith("MemTotal:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError):
        return None


def memory_limit_mb(proc: Path, groups: Path) -> float | None:
    """Return the tightest memory limit of the control groups that this process is in, in MiB, or None."""
    found = []
    for folder in _group_folders(proc, groups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _read(folder / name)
            if value.isdigit() and int(value) < 2**60:  # no limit is "max", or with the old groups a huge number
                found.append(int(value) / 2**20)
    return min(found, default=None)


def cpu_quota(proc: Path, groups: Path) -> float | None:
    """Return how many cores' time the control groups allow, or None if they do not limit it."""
    found = []
    for folder in _group_folders(proc, groups, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _group_folders(proc: Path, groups: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's control groups (both versions) and of all groups that hold them."""
    for row in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = row.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controllers if controllers else groups
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder == root or root in folder.parents)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
