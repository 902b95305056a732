"""What a run will take, before it starts: the jobs that remain, from Snakemake itself, and what they should take.

The expected wall time runs the stages one after the other, and the jobs of a stage on as many slots as there are.
"""

import heapq
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from otus.errors import DataError
from otus.resources.corpus_size import CorpusSize
from otus.resources.jobs import wildcards_of_output
from otus.resources.requests import estimate, request_mb, request_min
from otus.resources.usage import Usage, median_wait_s
from otus.resources.workload import Workload

#: The stage of every rule, in the order of the stages.
STAGES = {
    "make_demo_corpus": "demo",
    "build_soundscapes": "soundscapes",
    "take_inventory": "inventory",
    "write_inventory_page": "inventory",
    "make_dataset": "prepare",
    "describe_dataset": "prepare",
    "make_chunks": "chunk",
    "write_chunk_files": "chunk",
    "train_model": "train",
    "predict_shard": "predict",
    "run_external": "external",
    "evaluate_model": "evaluate",
    "evaluate_external": "evaluate",
    "filter_selections": "forest",
    "measure_model": "measure",
    "merge_metrics": "merge",
    "write_model_card": "report",
    "write_report": "report",
    "export_model": "export",
}

#: How long a job waits on a cluster of which no past job is known: Snakemake starts twice and asks every minute.
_ASSUMED_WAIT_S = 90.0

#: Rules whose jobs the driver runs itself; as in rules/driver.smk.
LOCAL_RULES = frozenset({"make_chunks", "merge_metrics", "write_inventory_page", "write_model_card", "write_report"})

_HEADER = "output_file\tdate\trule\tlog-file(s)\tstatus\tplan"


@dataclass(frozen=True)
class Job:
    """A job that remains to be done; wildcards as sorted pairs."""

    rule: str
    wildcards: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Machines:
    """Jobs at a time (on a cluster) or cores (here), GPUs, whether `device: auto` finds one, longest time of a job."""

    cluster: bool
    slots: int
    gpus: int
    has_gpu: bool
    longest_min: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """One stage: what a job of it takes on average, the most that one asks for, the sums of everything else."""

    stage: str
    jobs: int
    job_s: float
    gpu_h: float
    cpu_h: float
    asks_mb: int
    asks_min: int
    disk_mb: float
    wall_s: float
    wait_s: float
    past_jobs: int


@dataclass(frozen=True)
class Plan:
    """All stages that have something to do, in their order."""

    stages: tuple[StagePlan, ...]
    corpus: CorpusSize
    machines: Machines
    uses_gpu: bool
    shards: int

    @property
    def wall_s(self) -> float:
        """The expected time from start to end."""
        return sum(stage.wall_s for stage in self.stages)


def remaining_jobs(
    snakefile: Path, results: Path, *, configfiles: Sequence[Path], profile: str | None, targets: Sequence[str]
) -> list[Job]:
    """Return the jobs that Snakemake would run now. Raises DataError, with what Snakemake says, if it refuses."""
    command = [sys.executable, "-m", "snakemake", "-s", str(snakefile), "--summary", "--rerun-incomplete", "--nocolor"]
    command += ["--profile", profile] if profile else []
    command += ["--configfile", *map(str, configfiles)] if configfiles else []
    done = subprocess.run([*command, "--", *targets], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("  File ")]
        said = re.sub(r"^\w+ in file .*?, line \d+: ", "", " ".join(lines[-2:]))
        raise DataError(f"snakemake cannot plan this run: {said or 'it says nothing'}")
    return jobs_in_summary(done.stdout, results)


def jobs_in_summary(text: str, results: Path) -> list[Job]:
    """Return the jobs whose outputs are pending in the output of `snakemake --summary`, each once, in its order."""
    if _HEADER not in text:
        raise DataError("snakemake --summary gave no table that this version of Otus can read.")
    jobs: dict[Job, None] = {}
    for line in text.partition(_HEADER)[2].splitlines():
        cells = line.split("\t")
        if len(cells) == 6 and cells[5] == "update pending":
            wildcards = wildcards_of_output(cells[2], cells[0], results)
            jobs[Job(cells[2], tuple(sorted(wildcards.items())))] = None
    return list(jobs)


def make_plan(jobs: Iterable[Job], workload: Workload, past: Sequence[Usage], machines: Machines) -> Plan:
    """Return what the jobs are expected to take, stage by stage."""
    of_stage: dict[str, list[Job]] = {stage: [] for stage in STAGES.values()}
    for job in jobs:
        of_stage.setdefault(STAGES.get(job.rule, job.rule), []).append(job)
    stages = tuple(_stage(stage, found, workload, past, machines) for stage, found in of_stage.items() if found)
    uses_gpu = any(stage.gpu_h > 0 for stage in stages)
    return Plan(stages, workload.size(), machines, uses_gpu, workload.shards)


def _stage(stage: str, jobs: Sequence[Job], workload: Workload, past: Sequence[Usage], machines: Machines) -> StagePlan:
    wait_s = 0.0
    if machines.cluster and not LOCAL_RULES.issuperset(job.rule for job in jobs):
        waits = median_wait_s(past, {job.rule for job in jobs}), median_wait_s(past, STAGES)
        wait_s = next((wait for wait in waits if wait is not None), _ASSUMED_WAIT_S)
    gpu_s = cpu_s = disk_mb = 0.0
    asks_mb = asks_min = past_jobs = 0
    durations: dict[tuple[str, int], list[float]] = {}
    for job in jobs:
        wildcards = dict(job.wildcards)
        load, wanted = workload.load(job.rule, wildcards), workload.device(job.rule, wildcards)
        device = "cuda" if wanted == "cuda" or (wanted == "auto" and machines.has_gpu) else "cpu"
        expected = estimate(job.rule, load, device, past)
        past_jobs = max(past_jobs, expected.from_runs)
        gpu_s += expected.wall_s if device == "cuda" else 0.0
        cpu_s += expected.cpu_s
        disk_mb += workload.disk_mb(job.rule, wildcards)
        asks_mb = max(asks_mb, request_mb(job.rule, load, device, past, 1))
        wanted_min = request_min(job.rule, load, device, past, 1)
        asks_min = max(asks_min, min(wanted_min, machines.longest_min or wanted_min))
        threads = 1 if machines.cluster else workload.threads(job.rule, wildcards)
        durations.setdefault((device, threads), []).append(expected.wall_s + wait_s)
    wall_s = max(makespan(found, _slots(machines, *kind)) for kind, found in durations.items())
    job_s = sum(map(sum, durations.values())) / len(jobs) - wait_s
    return StagePlan(
        stage, len(jobs), job_s, gpu_s / 3600, cpu_s / 3600, asks_mb, asks_min, disk_mb, wall_s, wait_s, past_jobs
    )


def _slots(machines: Machines, device: str, threads: int) -> int:
    """How many jobs of a kind run at a time."""
    slots = max(1, machines.slots // threads)
    return min(slots, machines.gpus) if device == "cuda" else slots


def makespan(durations: Iterable[float], slots: int) -> float:
    """Return when the last job ends if the longest start first, each as soon as one of `slots` is free."""
    free_at = [0.0] * max(1, slots)
    for duration in sorted(durations, reverse=True):
        heapq.heappush(free_at, heapq.heappop(free_at) + duration)
    return max(free_at)


def as_json(plan: Plan) -> str:
    """Return the plan as one JSON object."""
    total = {"jobs": sum(stage.jobs for stage in plan.stages), "wall_s": plan.wall_s}
    total |= {key: sum(getattr(s, key) for s in plan.stages) for key in ("gpu_h", "cpu_h", "disk_mb")}
    return json.dumps({**asdict(plan), "total": total}, indent=2, sort_keys=True)


def as_text(plan: Plan, usage_table: str) -> str:
    """Return the plan for a person: a table and what it rests on, at most 100 columns wide."""
    if not plan.stages:
        return "Nothing to be done: all outputs are there and up to date."
    corpus = plan.corpus
    how = "counted by the inventory" if corpus.counted else "guessed, there is no inventory yet"
    heads = ("stage", "jobs", "GPU h", "CPU h", "asks for", "at most", "disk", "wall time")
    rows = [
        (
            stage.stage,
            str(stage.jobs),
            _hours(stage.gpu_h) if stage.gpu_h else "-",
            _hours(stage.cpu_h),
            _size(stage.asks_mb),
            _span(60 * stage.asks_min),
            _size(stage.disk_mb),
            _span(stage.wall_s),
        )
        for stage in plan.stages
    ]
    gpu_h, cpu_h = sum(stage.gpu_h for stage in plan.stages), sum(stage.cpu_h for stage in plan.stages)
    jobs, disk_mb = sum(stage.jobs for stage in plan.stages), sum(stage.disk_mb for stage in plan.stages)
    total = ("total", str(jobs), _hours(gpu_h) if gpu_h else "-", _hours(cpu_h), "", "", _size(disk_mb))
    lines = [f"{corpus.hours:.1f} h of audio in {corpus.recordings} recordings, {corpus.calls} calls ({how})", ""]
    return "\n".join(
        [*lines, *_aligned([heads, *rows, (*total, _span(plan.wall_s))]), "", *_grounds(plan, usage_table)]
    )


def _grounds(plan: Plan, usage_table: str) -> list[str]:
    """What the figures rest on."""
    machines, known = plan.machines, sum(stage.past_jobs for stage in plan.stages)
    if machines.cluster:
        waits = sorted(stage.wait_s for stage in plan.stages)
        slots = f"{machines.slots} jobs in the queue at a time, {min(machines.gpus, machines.slots)} of them with a GPU"
        lines = [f"Wall time: {slots}, about {_span(waits[len(waits) // 2])} of waiting per job."]
    else:
        cores = f"{machines.slots} core{'s' * (machines.slots != 1)}"
        lines = [f"Wall time: on {cores}{' and one GPU' if plan.uses_gpu else ''}."]
    missing = [stage.stage for stage in plan.stages if not stage.past_jobs]
    if known:
        lines.append(f"Rests on {known} past jobs in {usage_table}.")
    if missing:
        of = f" of {', '.join(missing)}" if known else ""
        lines.append(f"No past jobs{of} yet. The figures that come with Otus may be wrong by a factor of 2.")
    short = [stage for stage in plan.stages if stage.stage == "predict" and stage.job_s < stage.wait_s]
    if plan.shards > 1 and short:
        lines.append(f"A prediction job takes {_span(short[0].job_s)}: fewer chunking.shards would wait less.")
    if any(stage.gpu_h and not stage.past_jobs for stage in plan.stages):
        lines.append("GPU hours without past jobs are those of one CPU core: an upper limit.")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:.0f}"


def _size(mb: float) -> str:
    return f"{mb / 1024:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB" if mb >= 1 else "< 1 MB"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 2880 else f"{minutes / 1440:.1f} days"
