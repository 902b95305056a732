"""Why jobs failed, for a person who wants to go back to bed: a reason, where to look, how to run it again."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from otus.runs.driver import quoted, unforced, untargeted, with_targets
from otus.runs.log import JobRun, RunLog

#: How much of the end of a log is looked at.
_TAIL_BYTES = 65536
_SHOWN = 20


@dataclass(frozen=True)
class Failure:
    """A job whose last attempt failed."""

    rule: str
    wildcards: dict[str, str]
    work: str  # what the job was to do: its message, or its wildcards
    attempts: int
    reason: str
    log: str | None  # the file that tells most
    slurm_job: str | None
    slurm_log: str | None
    target: str | None  # a file that makes Snakemake run the job again, if the log names one
    rerun: str | None  # the command for the shell


def failures_of(
    run: RunLog, folder: Path, command: Sequence[str] = ("snakemake",), targets: Sequence[str] = ()
) -> list[Failure]:
    """Return the failed jobs of a run in the working directory `folder`, in the order of their failures.

    `command` is the run's, as in sys.argv, and `targets` are the targets among its words: a failed job is run again
    by the same command with its first output in their place.
    """
    arguments = unforced(untargeted(command[1:], targets))
    return [
        _failure(job, folder, arguments, run.stopped_early)
        for job in sorted(run.failed, key=lambda job: (job.ended or job.submitted, job.jobid))
    ]


def failure_text(failures: Sequence[Failure], run: RunLog | None = None, *, limit: int | None = _SHOWN) -> str:
    """Return a block of lines for each failure, at most `limit`, and how many jobs of `run` were not run."""
    shown = failures[:limit]
    blocks = [_block(failure) for failure in shown]
    if len(failures) > len(shown):
        blocks.append(f"... and {len(failures) - len(shown)} more: otus failures --all")
    if run is not None and run.complete and failures and run.not_run:
        jobs, they = ("1 job was", "it depends") if run.not_run == 1 else (f"{run.not_run} jobs were", "they depend")
        why = "the run stopped early" if run.stopped_early else f"{they} on what failed"
        blocks.append(f"{jobs} not run, because {why}.")
    return "\n\n".join(blocks)


def _block(failure: Failure) -> str:
    attempts = f"   ({failure.attempts} attempts)" if failure.attempts > 1 else ""
    lines = [f"{failure.rule}  {failure.work}".rstrip() + attempts, f"  reason   {failure.reason}"]
    if failure.log:
        lines.append(f"  log      {failure.log}")
    if failure.slurm_job:
        elsewhere = failure.slurm_log is not None and failure.slurm_log != failure.log
        lines.append(f"  slurm    job {failure.slurm_job}" + (f", {failure.slurm_log}" if elsewhere else ""))
    if failure.rerun:
        lines.append(f"  rerun    {failure.rerun}")
    return "\n".join(lines)


def _failure(job: JobRun, folder: Path, arguments: Sequence[str], stopped: bool) -> Failure:
    rule_log, slurm_log = _tail(folder, job.log), _tail(folder, job.slurm_log)
    reason, from_slurm_log = _reason(job, rule_log, slurm_log, stopped)
    log = job.slurm_log if slurm_log and (from_slurm_log or not rule_log) else job.log or job.slurm_log
    target = job.outputs[0] if job.outputs else None
    return Failure(
        rule=job.rule,
        wildcards=job.wildcards,
        work=job.says or ", ".join(f"{name} {value}" for name, value in job.wildcards.items()),
        attempts=job.attempts,
        reason=" ".join(reason.split()),
        log=_short(log, folder),
        slurm_job=job.external_jobid,
        slurm_log=_short(job.slurm_log, folder),
        target=target,
        rerun=quoted(["snakemake", *with_targets(arguments, [target])]) if target else None,
    )


def _reason(job: JobRun, rule_log: str, slurm_log: str, stopped: bool) -> tuple[str, bool]:
    """Why a job failed, and whether it is the Slurm log that says so."""
    message = job.message or ""
    own = _own_reason(rule_log)
    status = re.search(r"SLURM status is: '([A-Z_]+)", message)
    if status:
        end, from_log = status[1], False
        if end in ("FAILED", "CANCELLED") and not own and (found := _killed(slurm_log)):
            end, from_log = found, True
        if end != "FAILED":
            said, advice = _slurm_end(job, end)
            return f"{said}: {own or advice}", from_log
    told = own or _submission(message) or _missing_output(message) or _signal_text(message, stopped)
    if told:
        return told, False
    for log, name in ((rule_log, "its log"), (slurm_log, "its Slurm log")):
        if last := _telling_line(log):
            return f"it stopped without giving a reason; {name} ends with: {last}", log is slurm_log
    code = re.search(r"returned non-zero exit status (\d+)", message)
    said = "Slurm says FAILED" if status else f"exit status {code[1]}" if code else message.strip().rpartition("\n")[2]
    return "it stopped without giving a reason" + (f" ({said})" if said else ""), False


def _own_reason(log: str) -> str | None:
    """The sentence with which the job itself ended (see otus.joblog), if it got so far in its last start."""
    starts = [found.start() for found in re.finditer(r"^\S+ otus \S+ on ", log, re.MULTILINE)]
    said = re.findall(r"^\S+ FAILED: (.+)$", log[starts[-1] if starts else 0 :], re.MULTILINE)
    return str(said[-1]) if said else None


#: What slurmstepd and srun write when they kill a job, and the status that Slurm may not have given it.
_KILLS = (
    ("OUT_OF_MEMORY", r"oom[-_ ]?kill|exceeded (?:job |step )?memory limit|out[- ]of[- ]memory handler"),
    ("TIMEOUT", r"DUE TO TIME LIMIT"),
    ("PREEMPTED", r"DUE TO PREEMPTION"),
    ("NODE_FAIL", r"DUE TO NODE FAILURE"),
)


def _killed(slurm_log: str) -> str | None:
    """The status that the Slurm log gives to the job's last start; a job that is queued again goes on in its log."""
    last = slurm_log.rpartition("\nSNAKEMAKE\n=========\n")[2]
    return next((status for status, words in _KILLS if re.search(words, last, re.IGNORECASE)), None)


def _slurm_end(job: JobRun, status: str) -> tuple[str, str]:
    """What Slurm did to a job, in plain words, and what helps."""
    # Not --set-resources: on the command line it would take the place of all that the profile sets.
    more = f"each attempt gets more, so run it again with --retries {job.attempts + 1}"
    if status == "TIMEOUT":
        goes_on = "the training goes on from its last epoch when it is run again"
        minutes = job.resources.get("runtime")
        return f"time limit reached ({minutes} min)" if minutes else "time limit reached", (
            goes_on if job.rule == "train_model" else more
        )
    if status == "OUT_OF_MEMORY":
        memory = job.resources.get("mem_mb")
        return f"out of memory (it had {memory} MB)" if memory else "out of memory", more
    words = {
        "CANCELLED": "cancelled, by you, by an administrator or by the site's rules",
        "PREEMPTED": "pushed aside by a job of higher priority (preempted)",
        "NODE_FAIL": "the node that it ran on failed",
        "BOOT_FAIL": "the node that it was to run on did not start",
        "DEADLINE": "its deadline passed",
    }
    return words.get(status, f"Slurm ended it with the status {status}"), "run it again"


def _submission(message: str) -> str | None:
    """Why a job did not get into the queue, in the words of sbatch."""
    if refused := re.match(
        r"SLURM sbatch failed\. The error message was '(.*?)'\.(?:\n    sbatch call:|$)", message, re.S
    ):
        lines = [re.sub(r"^sbatch: (?:error: )?", "", line.strip()) for line in refused[1].splitlines() if line.strip()]
        return f"sbatch did not take the job: {' '.join(lines) or 'it gave no reason'}"
    if broken := re.match(r"Job submission failed with exception: (.*)", message):
        return f"the job could not be handed to Slurm: {broken[1]}"
    return None


def _missing_output(message: str) -> str | None:
    if "completed successfully, but some output files are missing" not in message:
        return None
    files = [line.partition(" (missing ")[0] for line in message.splitlines() if " (missing " in line]
    waited = re.search(r"Missing files after (\d+) seconds", message)
    return (
        f"it ended well, but {', '.join(files[:3]) or 'an output'} could not be seen"
        + (f" within {waited[1]} s" if waited else "")
        + ": most likely the network file system is slow; run it again, with a longer --latency-wait"
    )


def _signal_text(message: str, stopped: bool) -> str | None:
    """What the signal that ended a local job means, if a signal ended it."""
    died = re.search(r"died with <Signals\.\w+: (\d+)>", message)
    code = re.search(r"returned non-zero exit status (\d+)", message)
    number = int(died[1]) if died else int(code[1]) - 128 if code else 0
    if number not in signal.valid_signals():
        return None
    if number == signal.SIGKILL:
        return (
            "killed by the system (signal 9), most likely because memory ran out: run fewer jobs at a time (-j), "
            "or close other programs"
        )
    if number == signal.SIGINT or (stopped and number in (signal.SIGTERM, signal.SIGHUP)):
        return "stopped together with the run (Ctrl-C)"
    return f"ended by signal {number} ({signal.Signals(number).name})"


#: Lines of the Snakemake around a job, in a Slurm log: they say that it failed, never why.
_BANNER = re.compile(
    r"\s|\[\w{3} \w{3} |Error in rule |RuleException:|CalledProcessError in |Command '|Removing output files |"
    r"Shutting down, |Exiting because |Storing output |Elapsed time: |WorkflowError:|At least one job did not |"
    r"Trying to restart |Complete log|\d+ of \d+ steps |Select jobs to |Execute \d+ jobs|Shell command: |SNAKEMAKE$|"
    r"=+$|Building DAG|Using shell: |Provided |Rules claiming |(?:local)?rule |Job \d+: |Reason: |Waiting at most |"
    r"srun: (?:job|Job step) |\w+\.\w+ \(missing "
)


def _telling_line(log: str) -> str | None:
    """The last line that is not one of Snakemake's own, without its time."""
    lines = [line for line in log.splitlines() if line.strip() and not _BANNER.match(line)]
    return re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+ ", "", lines[-1]) if lines else None


def _tail(folder: Path, path: str | None) -> str:
    """The end of a log file; empty if there is none."""
    if path is None:
        return ""
    try:
        with (folder / path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _short(path: str | None, folder: Path) -> str | None:
    """A path as it is typed in the working directory."""
    if path is None or not Path(path).is_absolute():
        return path
    for base in (folder, folder.resolve()):
        if Path(path).is_relative_to(base):
            return str(Path(path).relative_to(base))
    return path
