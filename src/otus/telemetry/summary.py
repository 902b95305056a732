"""What a job did, from its journal."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from otus.telemetry.events import SCHEMA_VERSION
from otus.telemetry.sampler import p95

Event = Mapping[str, Any]

#: A run that has said nothing for three heartbeats, and somewhat more for clocks that differ, is taken for dead.
_SILENT_S = 120.0


@dataclass(frozen=True)
class JobSummary:
    """One run of a job. None: not known. `status` is ok, failed, stopped, running, or lost (it ended without a word).

    `ended` is the time of its last record. `rtf` is the multiple of real time, `data_wait_share` a share of the
    wall time; GPU figures are as in otus.telemetry.events.
    """

    run_id: str
    stage: str
    rule: str
    job: str
    attempt: int
    host: str
    slurm_job_id: str | None
    started: str
    ended: str
    status: str
    wall_s: float
    cpu_s: float | None
    rss_peak_mb: float | None
    asked_mem_mb: float | None
    asked_min: float | None
    threads: int | None
    items_ok: int
    items_failed: int
    items_skipped: int
    retries: int
    oom_backoffs: int
    audio_h: float | None
    rtf: float | None
    data_wait_s: float | None
    data_wait_share: float | None
    gpu_s: float | None
    gpu_uuid: str | None
    gpu_name: str | None
    gpu_util_mean: float | None
    gpu_util_p95: float | None
    vram_peak_mb: float | None
    energy_wh: float | None
    no_gpu: str | None
    error_class: str | None
    error: str | None


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a journal in the order of writing.

    Lines that are not whole (a job that was killed, a full disk) are passed over, and so are records of other versions
    than this one. Raises OSError if the file cannot be read.
    """
    records = []
    for line in Path(path).read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(record, dict)
            and record.get("schema") == SCHEMA_VERSION
            and {"run_id", "event", "ts"} <= set(record)
        ):
            records.append(record)
    return records


def runs_of(events: Sequence[Event]) -> list[list[Event]]:
    """Return the events of each run, in the order in which the runs began."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event["run_id"], []).append(event)
    return list(found.values())


def summarise(events: Sequence[Event], now: datetime) -> JobSummary:
    """Return what a run did; `events` are its own, at least one. `now` tells a run that goes on from a dead one."""
    first, last = events[0], events[-1]
    items = [event for event in events if event["event"] == "item_end"]
    ends = [event.get("status") for event in items]
    wall_s = _seconds_between(first["ts"], last["ts"])
    audio_s = _sum(event.get("audio_s") for event in items if event.get("status") == "ok")
    waited_s = _total(events, "data_wait_s")
    energy_j = _latest(events, "energy_j")
    return JobSummary(
        run_id=first["run_id"],
        stage=first.get("stage", ""),
        rule=first.get("rule", ""),
        job=first.get("job", ""),
        attempt=first.get("attempt", 1),
        host=first.get("host", ""),
        slurm_job_id=first.get("slurm_job_id"),
        started=first["ts"],
        ended=last["ts"],
        status=_status(last, now),
        wall_s=wall_s,
        cpu_s=_latest(events, "cpu_s"),
        rss_peak_mb=_most(events, "rss_mb"),
        asked_mem_mb=first.get("asked_mem_mb"),
        asked_min=first.get("asked_min"),
        threads=first.get("threads"),
        items_ok=ends.count("ok"),
        items_failed=ends.count("failed"),
        items_skipped=ends.count("skipped"),
        retries=sum(event.get("attempt", 1) - 1 for event in items),
        oom_backoffs=sum(event["event"] == "oom_backoff" for event in events),
        audio_h=audio_s / 3600 if audio_s is not None else None,
        rtf=audio_s / wall_s if audio_s is not None and wall_s else None,
        data_wait_s=waited_s,
        data_wait_share=waited_s / wall_s if waited_s is not None and wall_s else None,
        gpu_s=_total(events, "gpu_s"),
        gpu_uuid=last.get("gpu_uuid"),
        gpu_name=last.get("gpu_name"),
        gpu_util_mean=_load(events, "gpu_util_mean", lambda means: fmean(means) if means else None),
        gpu_util_p95=_load(events, "gpu_util_p95", p95),
        vram_peak_mb=_most(events, "vram_peak_mb"),
        energy_wh=energy_j / 3600 if energy_j is not None else None,
        no_gpu=_latest(events, "no_gpu"),
        error_class=last.get("error_class") if last["event"] == "run_end" else None,
        error=last.get("error_tail") if last["event"] == "run_end" else None,
    )


def _status(last: Event, now: datetime) -> str:
    if last["event"] == "run_end":
        return str(last.get("status", ""))
    return "running" if (now - datetime.fromisoformat(last["ts"])).total_seconds() < _SILENT_S else "lost"


def _seconds_between(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def _values(events: Sequence[Event], field: str) -> list[Any]:
    return [event[field] for event in events if event.get(field) is not None]


def _latest(events: Sequence[Event], field: str) -> Any:
    return next(iter(_values(events, field)[::-1]), None)


def _most(events: Sequence[Event], field: str) -> Any:
    return max(_values(events, field), default=None)


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _total(events: Sequence[Event], field: str) -> float | None:
    """What the parts of the job add up to; without such totals, the sum over items."""
    parts = _values([event for event in events if event["event"] == "stage_end"], field)
    return _sum(parts or _values([event for event in events if event["event"] == "item_end"], field))


def _load(events: Sequence[Event], field: str, of_samples: Callable[[list[float]], float | None]) -> float | None:
    """What the run says over all its readings, or if it did not come to its end, what follows from its samples."""
    last = events[-1]
    if last["event"] == "run_end" and last.get(field) is not None:
        return float(last[field])
    return of_samples(_values(events, field))
