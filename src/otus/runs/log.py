"""Snakemake's own log of a run, read back: which jobs ran, how they ended, what was said of those that failed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Status = Literal["finished", "failed", "unfinished"]


@dataclass(frozen=True)
class JobRun:
    """One job of a run, with all its attempts.

    A rule with a `message:` is announced by that message alone (`says`): its wildcards, outputs, log and resources
    are then known only as far as an error names them.
    """

    rule: str
    jobid: int
    says: str | None
    wildcards: dict[str, str]
    outputs: tuple[str, ...]
    log: str | None
    benchmark: str | None
    resources: dict[str, str]  # of the last attempt
    submitted: datetime  # the first attempt
    ended: datetime | None
    status: Status
    attempts: int
    message: str | None  # what Snakemake or its executor said of the last error
    external_jobid: str | None
    slurm_log: str | None
    local: bool  # not handed to a cluster


@dataclass(frozen=True)
class RunLog:
    """What the log of one run says, as far as it goes."""

    path: Path
    jobs: tuple[JobRun, ...]  # in the order of their first attempts
    complete: bool  # Snakemake came to its own end (at most its hooks are left), with or without failures
    stopped_early: bool  # jobs that could have run were not started any more
    total: int | None  # jobs that the run was to do, target rules among them
    slurm_run: str | None  # the name of its Slurm jobs
    errors: tuple[str, ...]  # that belong to no job

    @property
    def failed(self) -> tuple[JobRun, ...]:
        """The jobs whose last attempt failed."""
        return tuple(job for job in self.jobs if job.status == "failed")

    @property
    def unfinished(self) -> tuple[JobRun, ...]:
        """The jobs that were started and of which no end is known."""
        return tuple(job for job in self.jobs if job.status == "unfinished")

    @property
    def not_run(self) -> int:
        """The number of jobs that were never started."""
        return max(0, (self.total or 0) - len(self.jobs))


def latest_log(folder: Path) -> Path | None:
    """Return the newest log below the working directory `folder` of a run that started jobs, or None.

    Snakemake writes logs for `--unlock`, `--lint` and refused or empty runs too; those say nothing about jobs.
    """
    logs = sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"), key=lambda path: path.name, reverse=True)
    return next((path for path in logs if b"Select jobs to execute..." in path.read_bytes()), None)


def read_run(path: Path) -> RunLog:
    """Return what a log says; a log that breaks off is read as far as it goes. Raises OSError."""
    text = path.read_text(encoding="utf-8", errors="replace")
    begun = re.search(r"^  Date: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)$", text[:100_000], re.MULTILINE)
    now = datetime.fromisoformat(begun[1]) if begun else datetime.fromtimestamp(path.stat().st_mtime)
    state = _State(text.split("\n"), now)
    i = 0
    while i < len(state.lines):
        i = _record(state, i)
    errors = tuple(
        text for text in state.pending if not text.endswith("At least one job did not complete successfully.")
    )
    return RunLog(
        path=path,
        jobs=tuple(job.frozen(state.slurm_run is not None) for job in state.jobs.values()),
        complete=state.complete,
        stopped_early=state.stopped_early,
        total=state.total,
        slurm_run=state.slurm_run,
        errors=errors,
    )


@dataclass
class _Job:
    jobid: int
    submitted: datetime
    rule: str = ""
    says: str | None = None
    local: bool | None = None
    fields: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    ended: datetime | None = None
    status: Status = "unfinished"
    attempts: int = 0
    message: str | None = None
    external_jobid: str | None = None
    slurm_log: str | None = None

    def frozen(self, on_cluster: bool) -> JobRun:
        rule, log = self.rule, self.fields.get("log")
        if not rule and self.slurm_log:  # only announced by its message so far: <logs>/rule_<name>/<wildcards>/<id>.log
            named = re.search(r"/rule_([^/]+)/", self.slurm_log)
            rule = named[1] if named else ""
        local = self.external_jobid is None and not on_cluster if self.local is None else self.local
        return JobRun(
            rule=rule,
            jobid=self.jobid,
            says=self.says,
            wildcards=_pairs(self.fields.get("wildcards", "")),
            outputs=self.outputs,
            log=log.split(", ")[0] if log else None,
            benchmark=self.fields.get("benchmark"),
            resources=_pairs(self.fields.get("resources", "")),
            submitted=self.submitted,
            ended=self.ended,
            status=self.status,
            attempts=max(1, self.attempts),  # under --quiet jobs are not announced
            message=self.message,
            external_jobid=self.external_jobid,
            slurm_log=self.slurm_log,
            local=local,
        )


@dataclass
class _State:
    """What is known at some line of the log."""

    lines: Sequence[str]
    now: datetime
    jobs: dict[int, _Job] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)  # exceptions that no job has claimed yet
    complete: bool = False
    stopped_early: bool = False
    total: int | None = None
    slurm_run: str | None = None


_TIME = re.compile(r"\[(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (\w{3}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})\]$")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BLOCK = re.compile(r"(local)?(?:rule|checkpoint) (\S+):$")
_SAYS = re.compile(r"Job (\d+): (.*)")
_SUBMITTED = re.compile(r"Job (\d+) has been submitted with SLURM jobid (\S+) \(log: (.*)\)\.$")
_FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: (.*)\)$")
_ERROR = re.compile(r"Error in rule (\S+):$")
_RESTART = re.compile(r"Trying to restart job (\d+)\.$")
_MISSING = re.compile(r"Job (\d+) +completed successfully, but some output files are missing\.")
_EXCEPTION = re.compile(r"\w*(?:Error|Exception)(?: in .*)?(?::|\.)$")
_JOBID = re.compile(r"    jobid: \d+$")
#: The first words of what Snakemake logs beside exceptions: where the text of an exception is over.
_NEXT = re.compile(
    r"\[\w{3} \w{3} |Error in rule |Trying to restart |Select jobs to |Execute \d+ jobs|Removing output files of |"
    r"Waiting at most |Job \d+: |Job \d+ has been |Finished jobid: |Exiting because |Complete log\(s\): |"
    r"Shutting down, |Terminating processes |Will exit after |Elapsed time: |Cleaning up |Storing output |"
    r"\w*(?:Error|Exception)(?: in .*)?:$"
)
_ADVICE = re.compile(r"\s*For further error details see the cluster/cloud log and the log files of .*$", re.DOTALL)


def _record(state: _State, i: int) -> int:
    """Take in the record that begins at line `i`; return the line after it."""
    line = state.lines[i]
    if not line or line.startswith(" "):
        return i + 1
    if found := _TIME.match(line):
        state.now = _moment(found) or state.now
    elif found := _BLOCK.match(line):
        return _announced(state, i, found)
    elif found := _SUBMITTED.match(line):
        job = _job(state, int(found[1]))
        job.external_jobid, job.slurm_log, job.local = found[2], found[3], False
    elif found := _SAYS.match(line):
        _start(state, int(found[1])).says = found[2]
    elif found := _FINISHED.match(line):
        job = _job(state, int(found[1]))
        job.rule, job.status, job.ended = found[2], "finished", state.now
    elif found := _ERROR.match(line):
        return _failed(state, i, found[1])
    elif found := _RESTART.match(line):
        job = _job(state, int(found[1]))
        job.status, job.ended = "unfinished", None
    elif _EXCEPTION.match(line):
        return _exception(state, i)
    else:
        return _remark(state, i)
    return i + 1


def _remark(state: _State, i: int) -> int:
    """Take in a line about the run as a whole."""
    line = state.lines[i]
    if line.startswith("SLURM run ID: "):
        state.slurm_run = line.removeprefix("SLURM run ID: ")
    elif line == "Job stats:":
        while i + 1 < len(state.lines) and state.lines[i + 1]:
            i += 1
            name, _, count = state.lines[i].rpartition(" ")
            if name.strip() == "total" and count.isdigit():
                state.total = int(count)
    elif line.startswith(("Will exit after finishing currently running jobs", "Terminating processes on user request")):
        state.stopped_early = True
    elif line.startswith(("Exiting because a job execution failed", "Complete log(s): ", "Nothing to be done")):
        state.complete = True
    return i + 1


def _job(state: _State, jobid: int) -> _Job:
    return state.jobs.setdefault(jobid, _Job(jobid, state.now))


def _start(state: _State, jobid: int) -> _Job:
    """A new attempt of a job."""
    job = _job(state, jobid)
    job.attempts += 1
    job.status, job.ended, job.external_jobid, job.slurm_log = "unfinished", None, None, None
    return job


def _announced(state: _State, i: int, found: re.Match[str]) -> int:
    """A job is about to start: `rule x:` and its indented lines."""
    fields, end = _fields(state.lines, i + 1)
    if fields.get("jobid", "").isdigit():
        job = _start(state, int(fields["jobid"]))
        job.rule, job.local, job.fields = found[2], found[1] is not None, fields
        job.outputs = _files(fields.get("output", ""))
    return end


def _failed(state: _State, i: int, rule: str) -> int:
    """An attempt has failed: `Error in rule x:`, a message of any number of lines, indented lines, log files."""
    start = i + 1
    i = start
    while i < len(state.lines) and not _JOBID.match(state.lines[i]):
        i += 1
    if i == len(state.lines):  # the log breaks off here
        return i
    message = _ADVICE.sub("", "\n".join(state.lines[start:i]).removeprefix("    message: ")).strip()
    fields, i = _fields(state.lines, i)
    logs = list(_files(fields.get("log", "").removesuffix(" (check log file(s) for error details)")))
    i = _past_log_files(state.lines, i, logs)
    job = state.jobs.get(int(fields["jobid"]))
    if job is None:
        return i
    job.rule, job.status, job.ended = rule, "failed", state.now
    job.outputs = _files(fields.get("output", "")) or job.outputs
    if logs and "log" not in job.fields and logs[0] != job.slurm_log:
        job.fields = job.fields | {"log": logs[0]}
    job.external_jobid = fields.get("external_jobid", job.external_jobid)
    if message.startswith(("SLURM ", "Job submission failed")):
        job.local = False
    said = _claim(state, rule, fields.get("shell"))
    job.message = said if message in ("", "None") else message
    return i


def _claim(state: _State, rule: str, shell: str | None) -> str | None:
    """The exception that belongs to a failed job: threads may have logged others in between."""
    named = [text for text in state.pending if (shell and shell in text) or f".{rule}.py" in text]
    likely = named or [text for text in state.pending if text.startswith("RuleException")]
    if not likely:
        return None
    state.pending.remove(likely[-1])
    return likely[-1]


def _exception(state: _State, i: int) -> int:
    """`SomeError in ...:` and the lines that tell more; missing outputs are the failure of a job by themselves."""
    end = i + 1
    while end < len(state.lines) and state.lines[end] and not (end > i + 1 and _NEXT.match(state.lines[end])):
        end += 1
    text = "\n".join(state.lines[i:end])
    missing = _MISSING.match(state.lines[i + 1]) if i + 1 < end else None
    if missing is None:
        state.pending.append(text)
        if not text.startswith("RuleException") and not any(state.lines[end:]):
            state.complete = True  # the error that ended the run
        return end
    job = _job(state, int(missing[1]))
    named = re.match(r"MissingOutputException in rule (\S+)", state.lines[i])
    job.rule = named[1] if named else job.rule
    job.status, job.ended, job.message = "failed", state.now, "\n".join(state.lines[i + 1 : end])
    gone = [line.partition(" (missing ")[0] for line in state.lines[i + 2 : end] if " (missing " in line]
    job.outputs = job.outputs or tuple(gone)
    return end


def _fields(lines: Sequence[str], i: int) -> tuple[dict[str, str], int]:
    """The `    key: value` lines from line `i` on, and the line after them."""
    fields: dict[str, str] = {}
    while i < len(lines) and lines[i].startswith("    "):
        key, _, value = lines[i][4:].partition(":")
        i += 1
        if key == "shell" and not value:  # a command of any number of lines, and a remark that ends it
            start = i
            while i < len(lines) and lines[i] != "        (command exited with non-zero exit code)":
                i += 1
            value = "\n".join(lines[start:i]).strip()
            i += 1
        fields[key] = value.strip()
    return fields, min(i, len(lines))


def _past_log_files(lines: Sequence[str], i: int, logs: Sequence[str]) -> int:
    """The line after the log files that Snakemake shows of a failed job (`show-failed-logs`).

    They hold the messages of the Snakemake inside the job, which must not be taken for this one's. Each stands
    between two rulers; a ruler that is followed by neither the next log nor a message is a part of the file.
    """
    for n, log in enumerate(logs):
        if i >= len(lines) or not lines[i].startswith(f"Logfile {log}"):
            return i
        if lines[i] != f"Logfile {log}:" or i + 1 == len(lines):
            return i + 1  # empty, not found or not a text: then Snakemake shows no more of them
        ruler, i = lines[i + 1], i + 2
        following = f"Logfile {logs[n + 1]}" if n + 1 < len(logs) else None
        while i < len(lines) and not (lines[i] == ruler and _goes_on(lines, i + 1, following)):
            i += 1
        i += 1
    return min(i, len(lines))


def _goes_on(lines: Sequence[str], i: int, following: str | None) -> bool:
    if i >= len(lines) or not lines[i]:
        return True
    return lines[i].startswith(following) if following else _NEXT.match(lines[i]) is not None


def _moment(found: re.Match[str]) -> datetime | None:
    """The time of a `[Sat Nov 21 13:00:00 2026]` line, whatever the locale; None if there is no such time."""
    month, day, hour, minute, second, year = found.groups()
    try:
        return datetime(int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
    except ValueError:
        return None


def _files(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def _pairs(text: str) -> dict[str, str]:
    """`a=1, b=x, y` as a dictionary: a value may hold commas."""
    return dict(re.findall(r"(\w+)=(.*?)(?=, \w+=|$)", text))
