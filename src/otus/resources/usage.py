"""What past jobs took: a table that the workflow updates after each run, and that the next run asks by.

Light: it is read while Snakemake is parsed. A damaged table never stops a run: what cannot be read is passed over.
"""

import csv
import io
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from otus import __version__
from otus.atomic import write_text
from otus.resources.benchmark import read_benchmark
from otus.resources.jobs import complete, job_file, wildcards_of_file, wildcards_of_message
from otus.resources.workload import Load, Workload

if TYPE_CHECKING:
    from otus.runs.log import JobRun, RunLog

#: Rows that are kept of a rule: the newest.
KEPT_PER_RULE = 200

#: A benchmark file may be older than the submission of its job by so much, because clocks of nodes differ, and than
#: the notice of its end.
_CLOCK_SKEW_S, _LATEST_NOTICE_S = 30.0, 600.0


@dataclass(frozen=True)
class Usage:
    """What one finished job took; `work`, `read_h` and `data_mb` are its load (otus.resources.workload).

    `job` is its benchmark file, `model` is empty for jobs of no model, `device` is cpu or cuda. `wait_s` is the time
    between submission and the notice of its end that it did not run (None if it was not submitted to a cluster);
    `attempts` is 2 or more if the figures are those of the last of several attempts.
    """

    rule: str
    job: str
    model: str
    device: str
    work: float
    read_h: float
    data_mb: float
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    wait_s: float | None
    attempts: int
    host: str
    finished: str
    version: str

    @property
    def load(self) -> Load:
        """What the job handled."""
        return Load(self.work, self.read_h, self.data_mb)


_COLUMNS = tuple(field.name for field in fields(Usage))


def read_usage(path: Path) -> list[Usage]:
    """Return the rows of the table, oldest first; none if there is no table. Rows that make no sense are left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for row in csv.DictReader(io.StringIO(text.replace("\0", "")), strict=False):
        try:
            rows.append(_parsed(row))
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(rows, key=lambda row: row.finished)


def _parsed(row: dict[str, str]) -> Usage:
    """One row as typed values; raises KeyError, TypeError or ValueError if it makes no sense."""
    datetime.fromisoformat(row["finished"])
    if not row["rule"] or row["device"] not in ("cpu", "cuda") or None in row.values():
        raise ValueError("not a job")
    return Usage(
        rule=row["rule"],
        job=row["job"],
        model=row["model"],
        device=row["device"],
        work=_quantity(row["work"]),
        read_h=_quantity(row["read_h"]),
        data_mb=_quantity(row["data_mb"]),
        wall_s=_quantity(row["wall_s"]),
        cpu_s=_quantity(row["cpu_s"]),
        max_rss_mb=_quantity(row["max_rss_mb"]),
        wait_s=_quantity(row["wait_s"]) if row["wait_s"] else None,
        attempts=max(1, int(row["attempts"])),
        host=row["host"],
        finished=row["finished"],
        version=row["version"],
    )


def _quantity(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise ValueError(f"{text} is no quantity")
    return value


def add_usage(path: Path, new: Iterable[Usage]) -> int:
    """Add rows to the table, each job and time of finishing once, and return how many were new.

    The newest rows of a rule are kept. The table is replaced as a whole: a reader never sees half of it.
    Raises OSError or MissingPartError if it cannot be written.
    """
    table = {_identity(row): row for row in read_usage(path)}
    before = len(table)
    table.update({_identity(row): row for row in new})
    if len(table) == before:
        return 0
    of_rule: dict[str, list[Usage]] = {}
    for row in sorted(table.values(), key=lambda row: row.finished):
        of_rule.setdefault(row.rule, []).append(row)
    kept = [row for rows in of_rule.values() for row in rows[-KEPT_PER_RULE:]]
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in sorted(kept, key=lambda row: (row.finished, row.rule, row.job)))
    write_text(path, text.getvalue())
    return len(table) - before


def _identity(row: Usage) -> tuple[str, str, str]:
    return row.rule, row.job, row.finished


def update_usage(path: Path, run: "RunLog", workload: Workload) -> int:
    """Add the finished jobs of a run to the table and return how many were new."""
    return add_usage(path, collect_usage(run, workload))


def collect_usage(run: "RunLog", workload: Workload) -> list[Usage]:
    """Return what the finished jobs of a run took, from their benchmark files and logs; others are left out."""
    results = Path(workload.config.results_dir)
    files: dict[Path, JobRun] = {}
    unnamed = []
    for job in run.jobs:
        if job.status != "finished" or job.ended is None:
            continue
        wildcards = job.wildcards or wildcards_of_message(job.rule, job.says or "", workload.names())
        if job.benchmark or complete(job.rule, wildcards):
            files[Path(job.benchmark or job_file(results, "benchmarks", job.rule, wildcards, ".tsv"))] = job
        else:
            unnamed.append(job)
    for job in unnamed:
        if path := _nearest(job, set((results / "benchmarks" / job.rule).glob("*.tsv")) - set(files)):
            files[path] = job
    rows = (_usage(job, path, workload) for path, job in files.items())
    return [row for row in rows if row is not None]


def _nearest(job: "JobRun", candidates: Iterable[Path]) -> Path | None:
    """The benchmark file that was written closest to the end of a job which the log does not name (`--quiet`)."""
    ended = job.ended.timestamp() if job.ended else 0.0
    apart = {path: abs(ended - _changed(path)) for path in candidates}
    return min(apart, key=lambda path: (apart[path], path), default=None)


def _usage(job: "JobRun", benchmark: Path, workload: Workload) -> Usage | None:
    """The row of one job; None if its benchmark file is of an earlier run or lacks something."""
    took = read_benchmark(benchmark)
    if took.wall_s is None or took.cpu_s is None or took.rss_mb is None or job.ended is None:
        return None
    turnaround_s = (job.ended - job.submitted).total_seconds()
    announced = turnaround_s > 0
    earliest = job.submitted.timestamp() - _CLOCK_SKEW_S if announced else job.ended.timestamp() - _LATEST_NOTICE_S
    if _changed(benchmark) < earliest:
        return None
    waited = announced and not job.local and job.attempts == 1
    wildcards = wildcards_of_file(job.rule, benchmark)
    load = workload.load(job.rule, wildcards)
    text = _text(Path(job.log or job_file(Path(workload.config.results_dir), "logs", job.rule, wildcards, ".log")))
    nodes = _NODE.findall(text)
    return Usage(
        rule=job.rule,
        job=str(benchmark),
        model="-".join(wildcards[key] for key in ("dataset", "training") if key in wildcards),
        device="cuda" if _ON_CUDA.search(text) else "cpu",
        work=round(load.work, 6),
        read_h=round(load.read_h, 6),
        data_mb=round(load.data_mb, 3),
        wall_s=took.wall_s,
        cpu_s=took.cpu_s,
        max_rss_mb=took.rss_mb,
        wait_s=round(max(0.0, turnaround_s - took.wall_s), 1) if waited else None,
        attempts=max(job.attempts, 2 if _RESUMED.search(text) else 1),
        host=nodes[-1] if nodes else "",
        finished=job.ended.isoformat(timespec="seconds"),
        version=__version__,
    )


#: What the logs of training and prediction say about the device, of training about an earlier start, and of every job
#: about its node (otus.joblog).
_ON_CUDA = re.compile(r"\bon cuda\b")
_RESUMED = re.compile(r"\bresum(?:ing|ed)\b")
_NODE = re.compile(r"\botus \S+ on (\S+), Python ")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _changed(path: Path) -> float:
    """Time of change; long ago if there is no such file."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def median_wait_s(past: Sequence[Usage], rules: Iterable[str]) -> float | None:
    """Return the median wait of past cluster jobs of these rules, None if there are none."""
    wanted = set(rules)
    waits = [row.wait_s for row in past if row.wait_s is not None and row.rule in wanted]
    return statistics.median(waits) if waits else None
