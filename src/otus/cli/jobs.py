"""The command `otus jobs`: what the jobs of a run took, beside what they asked for."""

import argparse
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otus.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = """Print what the jobs took, rule by rule: time and memory, also as a share of what they asked for; cores
in use; multiples of real time; the share of the time that the network waited for data; how busy the GPU was. Then the
jobs that did not end well, and what could be done better. It may be asked while jobs run and after a run that failed.
A row per job is in benchmarks/jobs.csv, which each run writes at its end.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of `otus`."""
    jobs = commands.add_parser("jobs", help="print what the jobs took and asked for", description=_DESCRIPTION)
    jobs.add_argument("results", type=Path, nargs="?", default=Path("results"), help="results_dir of the run")
    jobs.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table of the jobs, one line per rule."""
    from otus.telemetry.jobs import summarise_jobs

    jobs = summarise_jobs(options.results, datetime.now(UTC))
    if jobs.empty:
        raise DataError(f"{options.results}: no job has left anything there; name the results_dir of your config.")
    print(jobs_text(jobs))
    return 0


def jobs_text(jobs: "pd.DataFrame") -> str:
    """Return the table for a person: a line per rule, what did not end well, and what could be done better."""
    import pandas as pd

    by_rule = [(str(rule), group) for rule, group in jobs.groupby("rule", sort=True)]
    lines = pd.DataFrame([_line(rule, group) for rule, group in by_rule]).to_string(index=False).splitlines()
    blocks = [[line.rstrip() for line in lines], _not_well(jobs), [h for r, g in by_rule for h in _hints(r, g)]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _line(rule: str, group: "pd.DataFrame") -> dict[str, str]:
    """One rule, in at most 100 characters."""
    counts = group["status"].value_counts()
    heard = group[group["audio_h"].notna()]
    on_gpu = group[group["gpu_util_mean"].notna()]
    waited = group[group["data_wait_share"].notna()]
    return {
        "rule": rule,
        "jobs": ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), reverse=True)),
        "wall time": _span(group["wall_s"].sum()),
        "of asked": _percent((group["wall_s"] / (60 * group["asked_min"])).max()),
        "cores": _number(round(group["cpu_s"].sum() / group["wall_s"].sum(), 2) if group["wall_s"].sum() else None),
        "memory": _size(group["rss_peak_mb"].max()),
        "of asked ": _percent((group["rss_peak_mb"] / group["asked_mem_mb"]).max()),
        "x real time": _number(3600 * heard["audio_h"].sum() / heard["wall_s"].sum() if len(heard) else None),
        "waiting": _percent(_weighted(waited["data_wait_share"], waited["wall_s"])),
        "GPU busy": _percent(_weighted(on_gpu["gpu_util_mean"], on_gpu["wall_s"]), of=100),
    }


def _not_well(jobs: "pd.DataFrame") -> list[str]:
    """The jobs that failed, were stopped or were lost, a line each."""
    found = jobs[jobs["status"].isin(["failed", "stopped", "lost"])]
    lines = []
    for row in found.itertuples():
        why = str(row.error).splitlines()[-1] if isinstance(row.error, str) else "ended without a word (killed?)"
        lines.append(f"{row.status}: {row.rule} {row.job} on {row.host}, start {row.attempt}: {why}")
    return [*lines, "Why, and how to run them again: otus failures"] if lines else []


def _hints(rule: str, group: "pd.DataFrame") -> list[str]:
    """What a person could change."""
    hints = []
    waiting = group[(group["gpu_util_mean"] < 50) & (group["data_wait_share"] > 0.3)]
    if len(waiting):
        worst = waiting.loc[waiting["data_wait_share"].idxmax()]
        hints.append(
            f"{rule}: the GPU was {worst['gpu_util_mean']:.0f} % busy and waited for data "
            f"{100 * worst['data_wait_share']:.0f} % of the time ({worst['job']}); give the job more threads, and in "
            "prediction more prediction.readers."
        )
    tight = group[group["rss_peak_mb"] > 0.9 * group["asked_mem_mb"]]
    if len(tight):
        worst = tight.loc[(tight["rss_peak_mb"] / tight["asked_mem_mb"]).idxmax()]
        share = worst["rss_peak_mb"] / worst["asked_mem_mb"]
        hints.append(f"{rule}: {worst['job']} took {100 * share:.0f} % of the memory that it asked for; ask for more.")
    if backed_off := int(group["oom_backoffs"].fillna(0).sum()):
        hints.append(f"{rule}: memory ran out {backed_off} times and the batch was made smaller; lower its batch size.")
    for reason in sorted(set(group["no_gpu"].dropna()) - {"no GPU: the job computes on cpu"}):
        hints.append(f"{rule}: {reason}.")
    return hints


def _weighted(values: "pd.Series[float]", weights: "pd.Series[float]") -> float | None:
    return float((values * weights).sum() / weights.sum()) if weights.sum() else None


def _known(value: Any) -> bool:
    return value is not None and not math.isnan(value)


def _percent(value: Any, of: float = 1) -> str:
    return f"{100 * value / of:.0f} %" if _known(value) else "-"


def _number(value: Any) -> str:
    return f"{value:.3g}" if _known(value) and value < 1000 else f"{value:,.0f}" if _known(value) else "-"


def _size(mb: Any) -> str:
    return (f"{mb / 1024:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB") if _known(mb) else "-"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
