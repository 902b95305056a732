"""One row per job: what it asked for and what it took, from its journal and Snakemake's benchmark file."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from otus.resources.benchmark import Benchmark, read_benchmark
from otus.tables import table, write_table
from otus.telemetry.summary import JobSummary, read_journal, runs_of, summarise

#: Clocks of nodes and of the file server differ.
_CLOCK_SKEW_S = 30.0


def summarise_jobs(results: Path, now: datetime) -> pd.DataFrame:
    """Return the table `jobs` of a results folder: each job that left a journal or a benchmark file, by rule and name.

    A row is the last start of a job, whether it succeeded, failed or goes on at `now`; `attempt` counts its starts
    since it last succeeded. Times and memory include what the benchmark file says of that start. Files that cannot be
    read are passed over.
    """
    journals = {_key(path, results / "telemetry"): path for path in (results / "telemetry").rglob("*.jsonl")}
    benchmarks = {_key(path, results / "benchmarks"): path for path in (results / "benchmarks").rglob("*.tsv")}
    rows = []
    for key in sorted(journals.keys() | benchmarks.keys()):
        summary = _last_run(journals[key], now) if key in journals else None
        if row := _row(key, summary, benchmarks.get(key)):
            rows.append(row)
    return table("jobs", pd.DataFrame(rows))


def write_jobs(results: Path, now: datetime) -> None:
    """Write benchmarks/jobs.parquet and .csv of a results folder, if any job has left something there.

    Raises MissingPartError if they cannot be written.
    """
    jobs = summarise_jobs(results, now)
    if len(jobs):
        folder = results / "benchmarks"
        write_table(folder / "jobs.parquet", "jobs", jobs, csv=folder / "jobs.csv")


def _key(path: Path, folder: Path) -> tuple[str, str]:
    """Rule and name of a job; a rule with one job has its file in the folder itself."""
    rule = path.relative_to(folder).parts[0] if path.parent != folder else path.stem
    return rule, path.name.removesuffix(path.suffix)


def _last_run(path: Path, now: datetime) -> JobSummary | None:
    try:
        runs = runs_of(read_journal(path))
    except OSError:
        return None
    return summarise(runs[-1], now) if runs else None


def _row(key: tuple[str, str], summary: JobSummary | None, benchmark: Path | None) -> dict[str, Any] | None:
    """The row of a job; None if nothing is known of it."""
    took, written = (read_benchmark(benchmark), _changed(benchmark)) if benchmark else (Benchmark(), None)
    if summary is None:
        if took.wall_s is None or written is None:
            return None
        ended = written.isoformat(timespec="seconds").replace("+00:00", "Z")
        known = {"ended": ended, "wall_s": took.wall_s, "cpu_s": took.cpu_s, "rss_peak_mb": took.rss_mb}
        return {"rule": key[0], "job": key[1], "status": "ok", **known}
    begun = datetime.fromisoformat(summary.started).timestamp() - _CLOCK_SKEW_S
    if summary.status == "ok" and written and written.timestamp() > begun:
        summary = replace(
            summary,
            wall_s=max(summary.wall_s, took.wall_s or 0.0),  # with the start of Python
            cpu_s=max(filter(None, (summary.cpu_s, took.cpu_s)), default=None),
            rss_peak_mb=max(filter(None, (summary.rss_peak_mb, took.rss_mb)), default=None),
        )
    return asdict(summary) | {"rule": key[0], "job": key[1]}


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
