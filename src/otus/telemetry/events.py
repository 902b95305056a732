"""The events of a journal and their fields: the contract between jobs, summaries and whoever reads the files."""

from collections.abc import Mapping
from typing import Any, Protocol

#: Of the records; it is raised when a field changes its meaning.
SCHEMA_VERSION = 1

#: Event -> what it says. A job writes run_start first and run_end last.
EVENTS: Mapping[str, str] = {
    "run_start": "the job begins; an earlier attempt may have left its own records in the file",
    "plan": "what there is to do: items_total, audio_s; items_done if an earlier attempt did some",
    "item_start": "work on item_id begins",
    "item_end": "item_id is done, with its status; items_done counts up",
    "sample": "what processor, memory and GPU did since the last sample",
    "heartbeat": "the process is alive; idle_s tells since when nothing was finished",
    "oom_backoff": "memory ran out; batch_size is the smaller one from now on",
    "epoch": "an epoch of training is done",
    "stage_end": "totals of a part of the job, such as data_wait_s and gpu_s",
    "run_end": "the job ends, with its status",
}

#: Field -> what it holds, in the records of every event (what is not known is left out). The journal sets them.
IDENTITY: Mapping[str, str] = {
    "schema": "version of the record",
    "ts": "UTC time with milliseconds",
    "run_id": "one start of the job",
    "event": "one of EVENTS",
    "stage": "stage of the workflow",
    "rule": "rule of the workflow",
    "job": "name of the file without its suffix: model, fold and shard",
    "attempt": "starts of the job since it last succeeded; of an item (item_start, item_end) its own attempts",
    "host": "node",
    "pid": "process",
    "slurm_job_id": "Slurm job",
    "slurm_array_task": "task of a Slurm array",
    "versions_hash": "digest of the versions of Otus, Python and the packages that compute",
    "gpu_uuid": "the GPU that the process uses, as NVML names it (GPU-... or MIG-...)",
    "gpu_name": "its model",
}

#: Field -> what it holds. Given to Journal.write; each belongs to the events where it makes sense.
FIELDS: Mapping[str, str] = {
    "item_id": "chunk, recording or network",
    "attempt": "as above",
    "status": "of an item: ok, failed or skipped; of a run: ok, failed or stopped",
    "wall_s": "duration of the item, epoch, part or run",
    "audio_s": "audio planned (plan), of the item (item_end) or done so far",
    "items_done": "items that have ended, epochs that are done",
    "items_total": "items or epochs that there are",
    "items_failed": "items that failed, among items_done",
    "rtf": "multiple of real time: audio_s by the seconds they took",
    "batch_size": "windows or examples that go through the network at once",
    "data_wait_s": "time that the network waited for data",
    "gpu_s": "time that the network computed",
    "n_detections": "selections found",
    "vram_peak_mb": "largest memory in use on the GPU",
    "gpu_util_mean": "share of time that the GPU computed, in percent",
    "gpu_util_p95": "its 95th percentile over the readings",
    "power_w": "mean power of the GPU",
    "temperature_c": "highest temperature of the GPU",
    "energy_j": "energy that the GPU took since the start: the integral of its power",
    "no_gpu": "why nothing is said of a GPU, or not all",
    "rss_mb": "memory of the process and its children",
    "cpu_s": "processor time of the process and its children since its start",
    "idle_s": "time since the last event that was no sample or heartbeat",
    "asked_mem_mb": "memory that the job asked for",
    "asked_min": "run time in minutes that the job asked for",
    "threads": "threads that the job asked for",
    "loss": "mean loss of an epoch",
    "detection": "detection in validation after an epoch",
    "error_class": "class of the error",
    "error_tail": "the end of its text",
}


class Recorder(Protocol):
    """Where the work tells what it does: a Journal, or NO_JOURNAL."""

    def write(self, event: str, **fields: Any) -> None:
        """Record an event. Raises ValueError for an event or a field that does not exist."""


class _NoJournal:
    """Writes nothing, but refuses what a journal refuses."""

    def write(self, event: str, **fields: Any) -> None:
        """Check the names only."""
        check_names(event, fields)


def check_names(event: str, fields: Mapping[str, Any]) -> None:
    """Raise ValueError for an event or a field that does not exist."""
    if event not in EVENTS:
        raise ValueError(f"telemetry has no event '{event}'; there are {', '.join(EVENTS)}")
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise ValueError(f"a record of telemetry has no field {', '.join(unknown)}")


#: For work that nobody follows.
NO_JOURNAL: Recorder = _NoJournal()
