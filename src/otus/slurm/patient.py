"""The patient sbatch, squeue and sacct (see the package). Standard library only; run as a script by `bin/*`."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: What sbatch says when it is worth while to try again.
TEMPORARY = (
    "socket timed out",
    "unable to contact slurm controller",
    "resource temporarily unavailable",
    "connection refused",
    "connection timed out",
    "communication connection failure",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "temporarily unable to accept job",
    "slurm backup controller in standby mode",
    "slurm controller is not ready",
    "invalid protocol version",  # while the cluster is upgraded
    "maxsubmitjob",  # as many jobs as the site allows are in the queue; some will end
    "job submit limit",
)
#: States in which a job is not over.
ACTIVE = (
    "PENDING",
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "REQUEUED",
    "RESIZING",
    "SIGNALING",
)
#: How long sbatch is tried, and how long a job may take to appear in the accounting database.
PATIENCE_S = 900.0
APPEARS_WITHIN_S = 300.0
#: The executor gives a status query 60 s.
QUERY_S = 40.0


def submit(
    sbatch: str,
    arguments: Sequence[str],
    *,
    sleep: Callable[[float], None] = time.sleep,
    patience_s: float = PATIENCE_S,
) -> int:
    """Run sbatch until it takes the job, refuses it for good, or patience ends; print what it printed.

    After a time-out the controller may have taken the job all the same: a job of this name and comment in the queue
    is that job.
    """
    script = sys.stdin.read() if "/dev/stdin" in arguments else None
    name, comment = _value(arguments, "--job-name"), _value(arguments, "--comment")
    waited_s, pause_s = 0.0, 5.0
    while True:
        done = subprocess.run([sbatch, *arguments], input=script, capture_output=True, text=True, check=False)
        refused = done.stderr.lower()
        if done.returncode == 0 or waited_s >= patience_s or not any(words in refused for words in TEMPORARY):
            break
        _note(f"sbatch: {done.stderr.strip()}; trying again in {pause_s:g} s ({comment})")
        sleep(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(60.0, 2 * pause_s)
        if found := _in_queue(sbatch, name, comment):
            done = subprocess.CompletedProcess([sbatch], 0, found + "\n", "")
            break
    if done.returncode == 0:
        new = not _book(name).exists()
        with _book(name).open("a") as book:
            if new:
                book.write(f"# {os.environ.get('OTUS_DRIVER', '')}\n")
            book.write(f"{done.stdout.strip().split(';')[0]} {time.time():.0f}\n")
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def report(program: str, name: str, *, sleep: Callable[[float], None] = time.sleep, query_s: float = QUERY_S) -> int:
    """Print `id|STATE` of every job that was submitted under `name`. Never fails: nobody knows is RUNNING."""
    submitted = _read_book(name)
    until = time.monotonic() + query_s
    while (states := _states(program, name)) is None and time.monotonic() < until:
        sleep(5.0)
    if states is None:
        _note("no status: neither the accounting database nor the controller answers; jobs are taken to be running")
        states = dict.fromkeys(submitted, "RUNNING")
    doubtful = [j for j, s in states.items() if s in ("PREEMPTED", "NODE_FAIL")]
    doubtful += [j for j, at in submitted.items() if j not in states and time.time() - at > APPEARS_WITHIN_S]
    if doubtful:
        sleep(2.0)  # between preemption and its return to the queue a job is in neither
        active = _ask("squeue", "-h", "-o", "%i|%T", "--name", name)
        for job in doubtful if active is not None else []:
            gone = "UNKNOWN" if job not in states else "CANCELLED" if states[job] == "PREEMPTED" else "FAILED"
            states[job] = (active or {}).get(job, gone)
    sys.stdout.write("".join(f"{job}|{state}\n" for job, state in states.items()))
    return 0


def _states(program: str, name: str) -> dict[str, str] | None:
    """State by job id, from the command that was called or else the other; None if neither answers."""
    squeue = ("squeue", "-h", "-o", "%i|%T", "--states=all", "--name", name)
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 7 * 86400))
    sacct = ("sacct", "-X", "-n", "-P", "-o", "JobIdRaw,State", "-S", since, "-E", "now", "--name", name)
    first, second = (squeue, sacct) if program == "squeue" else (sacct, squeue)
    states = _ask(*first)
    return states if states is not None else _ask(*second)


def _ask(*command: str) -> dict[str, str] | None:
    real = _real(command[0])
    if real is None:
        return None
    try:
        done = subprocess.run([real, *command[1:]], capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        return None
    rows = [line.split("|") for line in done.stdout.splitlines() if "|" in line]
    return {row[0].strip(): (row[1].split() or ["UNKNOWN"])[0] for row in rows}  # "CANCELLED by 1000" is CANCELLED


def _in_queue(sbatch: str, name: str, comment: str) -> str | None:
    """The id of an active job of this name and comment."""
    squeue = Path(sbatch).with_name("squeue")
    try:
        words = [str(squeue), "-h", "-o", "%i|%k", "--name", name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [line.split("|", 1) for line in done.stdout.splitlines() if "|" in line]
    return next((job for job, text in rows if comment and text.strip() == comment), None)


def _value(arguments: Sequence[str], option: str) -> str:
    """The value of `--option value` or `--option=value`; empty if it is not there."""
    for i, word in enumerate(arguments):
        if word == option and i + 1 < len(arguments):
            return arguments[i + 1]
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


def _book(name: str) -> Path:
    """The file that names the driver of one run and lists its jobs, in the working directory of the run."""
    folder = Path(".snakemake", "otus", "slurm")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / (name.replace("/", "_") or "unnamed")


def _read_book(name: str) -> dict[str, float]:
    """Time of submission by job id."""
    try:
        rows = [line.split() for line in _book(name).read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[0] != "#"}


def _note(line: str) -> None:
    """Leave a line for the person who asks why nothing moved."""
    with _book("patience.log").open("a") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")


def _real(program: str) -> str | None:
    """The command of that name that is not one of ours."""
    ours = Path(__file__).resolve().parent / "bin"
    folders = [p for p in os.environ.get("PATH", "").split(os.pathsep) if Path(p).resolve() != ours]
    return shutil.which(program, path=os.pathsep.join(folders))


def main(program: str, arguments: Sequence[str]) -> int:
    """Stand in for one Slurm command."""
    real = _real(program)
    name = _value(arguments, "--name")
    asks_states = any(a in ("--format=%i|%T", "--format=JobIdRaw,State") for a in arguments)
    if name.startswith("otus_") and asks_states:
        return report(program, name)
    if real is None:
        print(f"{program}: command not found", file=sys.stderr)
        return 127
    if program == "sbatch" and _value(arguments, "--job-name").startswith("otus_"):
        return submit(real, arguments)
    os.execv(real, [real, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
