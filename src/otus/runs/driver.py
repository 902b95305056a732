"""The process that runs a workflow: what is known of it, of its Slurm jobs, and of the command that started it."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from otus.atomic import read_json, write_json
from otus.errors import DataError, MissingPartError

DriverState = Literal["none", "running", "dead", "elsewhere"]

#: Slurm jobs of a run are named <prefix><unique id of the run> (slurm-jobname-prefix in profiles/slurm).
JOB_PREFIX = "otus_"

#: States in which a Slurm job writes nothing any more. Any other state, known or not, counts as at work.
_ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "PREEMPTED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "REVOKED",
)
_SQUEUE_TIMEOUT_S = 30.0
_SQUEUE_TRIES = 3
_SQUEUE_PAUSE_S = 5.0


@dataclass(frozen=True)
class Driver:
    """The process of the last run in a working directory, and how it was started."""

    host: str
    pid: int
    process_start: str  # tells a process from a later one with the same pid
    command: tuple[str, ...]  # as in sys.argv: the program first
    targets: tuple[str, ...]  # those among the command's words that name targets
    launched_in: str  # the folder where the command was typed, for its relative paths
    started: str  # ISO time
    slurm: bool  # it hands jobs to Slurm
    ended: str | None = None  # ISO time, if the run came to its own end


@dataclass(frozen=True)
class ClusterJob:
    """A Slurm job of a run of this working directory that has not ended."""

    id: str
    name: str
    state: str
    comment: str  # rule_<rule>_wildcards_<values>, by Snakemake's executor

    @property
    def work(self) -> str:
        """The rule and its wildcards, as far as the comment tells them."""
        rule, _, values = self.comment.removeprefix("rule_").partition("_wildcards_")
        return f"{rule} {values}".strip() or self.name


def driver_file(folder: Path) -> Path:
    """Return where the driver of the working directory `folder` is recorded."""
    return folder / ".snakemake" / "otus" / "driver.json"


def record_driver(folder: Path, command: Sequence[str], targets: Sequence[str], *, slurm: bool) -> None:
    """Record this process as the one that runs the workflow in the working directory `folder`.

    `command` is as in sys.argv; `targets` are the targets among its words. What was recorded before is replaced: ask
    driver_state first.
    """
    driver = Driver(
        host=platform.node(),
        pid=os.getpid(),
        process_start=_process_start(os.getpid()) or "",
        command=tuple(command),
        targets=tuple(targets),
        launched_in=str(_launched_in(folder, command)),
        started=datetime.now().isoformat(timespec="seconds"),
        slurm=slurm,
    )
    write_json(driver_file(folder), asdict(driver))


def forget_driver(folder: Path) -> None:
    """Note that this process has ended its run. Its command stays known, for `otus rerun` and `otus failures`."""
    driver = read_driver(folder)
    if driver and driver.host == platform.node() and driver.pid == os.getpid():
        write_json(driver_file(folder), asdict(replace(driver, ended=datetime.now().isoformat(timespec="seconds"))))


def read_driver(folder: Path) -> Driver | None:
    """Return what is known of the last run in `folder`, or None. Raises DataError if the record is damaged."""
    path = driver_file(folder)
    try:
        values = read_json(path)
        return Driver(**values | {name: tuple(values[name]) for name in ("command", "targets")})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a record of a run ({error}); delete it if no run is at work here.") from None


def driver_state(folder: Path) -> DriverState:
    """Return `none` (no run, or the last one ended), `running`, `dead`, or `elsewhere`: on another host, so unknown."""
    driver = read_driver(folder)
    if driver is None or driver.ended:
        return "none"
    if driver.host != platform.node():
        return "elsewhere"
    return "running" if _process_start(driver.pid) == driver.process_start else "dead"


def own_jobs(folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> list[ClusterJob]:
    """Return the Slurm jobs, waiting or at work, of runs in the working directory `folder`; none without Slurm.

    Raises MissingPartError if squeue is there and does not answer, three times.
    """
    if shutil.which("squeue") is None:
        return []
    here = folder.resolve()
    rows = [line.split("|", 4) for line in _squeue(sleep).splitlines()]
    return [
        ClusterJob(id=row[0].strip(), name=row[1], state=row[2], comment=row[3])
        for row in rows
        if len(row) == 5
        and row[1].startswith(JOB_PREFIX)
        and row[2] not in _ENDED
        and Path(row[4].rstrip("\n")).resolve() == here
    ]


def orphans(folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> list[ClusterJob]:
    """Return those of own_jobs whose driver is not at work (any more) on this machine.

    Two runs may share a working directory if their results differ; the jobs of a living one are no orphans.
    """
    jobs = own_jobs(folder, sleep=sleep)
    living = {name for name in {job.name for job in jobs} if _lives(folder, name)}
    return [job for job in jobs if job.name not in living]


def this_process() -> str:
    """Return words that name this process for ever: host, number, start."""
    return f"{platform.node()} {os.getpid()} {_process_start(os.getpid()) or ''}".strip()


def _lives(folder: Path, run: str) -> bool:
    """Whether the driver of the Slurm run of that name, as the patient sbatch wrote it down, is still at work."""
    try:
        words = (
            (folder / ".snakemake" / "otus" / "slurm" / run).read_text(encoding="utf-8").split("\n", 1)[0].split(" ", 3)
        )
    except OSError:
        return False
    if len(words) < 4 or words[0] != "#" or words[1] != platform.node() or not words[2].isdigit():
        return False
    return _process_start(int(words[2])) == words[3]


def guard_text(jobs: Sequence[ClusterJob], command: Sequence[str]) -> str:
    """Return why a new run is refused while `jobs` are left, and what there is to choose from.

    `command` is the one that was refused, as in sys.argv.
    """
    shown = [f"  {job.id}  {job.work}  ({job.state.lower()})" for job in jobs[:10]]
    if len(jobs) > len(shown):
        shown.append(f"  and {len(jobs) - len(shown)} more")
    names = sorted({job.name for job in jobs})
    few = len(jobs) <= 10
    scancel = ["scancel", *([job.id for job in jobs] if few else [f"--name={','.join(names)}"])]
    several = len(jobs) != 1
    return "\n".join(
        [
            f"{len(jobs)} Slurm job{'s' * several} of an earlier run still work{'s' * (not several)} in this folder, "
            "and a second run would do the same work again:",
            *shown,
            f"Wait until {'they end' if several else 'it ends'}, stop {'them' if several else 'it'} with `"
            + " ".join(scancel)
            + "`, or let otus wait and then go on: `"
            + quoted(["otus", "resume", "--wait", *command[1:]])
            + "`.",
        ]
    )


def quoted(words: Sequence[str]) -> str:
    """Return a command as it can be typed into a shell."""
    return shlex.join(words)


def locked(folder: Path) -> bool:
    """Whether Snakemake has locked the working directory."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def _squeue(sleep: Callable[[float], None]) -> str:
    # No field has a width, so none is cut; the folder comes last because it may hold any character.
    words = ["squeue", "--me", "-h", "--states=all", "-o", "%i|%j|%T|%k|%Z"]
    # The user's own defaults (SQUEUE_FORMAT, SQUEUE_PARTITION, ...) would hide jobs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    said = ""
    for attempt in range(_SQUEUE_TRIES):
        if attempt:
            sleep(_SQUEUE_PAUSE_S)
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SQUEUE_TIMEOUT_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            said = f"no answer within {_SQUEUE_TIMEOUT_S:g} s"
            continue
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise MissingPartError(
        f"The Slurm controller does not answer squeue ({said}), so that nobody knows whether jobs of an earlier run "
        "are still at work; try again when squeue works."
    )


def _process_start(pid: int) -> str | None:
    """Which process has this number: boot and start time; None if there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _process_start_by_ps(pid)
    fields = stat.rpartition(")")[2].split()  # the program's name stands in brackets and may hold anything
    if fields[0] in "ZX":
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = ""
    return f"{boot} {fields[19]}".strip()


def _process_start_by_ps(pid: int) -> str | None:
    """The same where there is no /proc (macOS)."""
    words = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=10, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, start = done.stdout.strip().partition(" ")
    return start.strip() or None if not state.startswith("Z") else None


def _launched_in(folder: Path, command: Sequence[str]) -> Path:
    """Where the command was typed: not `folder` if it says `--directory`, which Snakemake has followed by now."""
    directory = working_directory(command)
    shell = Path(os.environ.get("PWD", folder))
    if directory is None or (shell / directory).resolve() != folder.resolve():
        return folder
    return shell


def working_directory(command: Sequence[str]) -> str | None:
    """Return the value of `-d` or `--directory` among Snakemake's arguments, or None."""
    for i, word in enumerate(command):
        if word in ("-d", "--directory") and i + 1 < len(command):
            return command[i + 1]
        if word.startswith("--directory="):
            return word.removeprefix("--directory=")
    return None


#: Options that make Snakemake run jobs again that are done, and whether they take rule or file names.
_FORCING = {"-f": False, "--force": False, "-F": False, "--forceall": False, "-R": True, "--forcerun": True}
#: Other options that take names of rules or files: a word after them is no target.
_NAMING = ("-U", "--until", "-O", "--omit-from", "--allowed-rules", "--target-jobs", "-P", "--prioritize")


def unforced(arguments: Sequence[str]) -> list[str]:
    """Return Snakemake's arguments without those that would do again what is done (`--forceall`, `--forcerun`)."""
    kept: list[str] = []
    dropping = False
    for given in arguments:
        word = given
        if word.startswith("-"):
            dropping = _FORCING.get(word, False)
            if re.fullmatch(r"-[nkptFf]{2,}", word):  # flags in one word, such as -kF
                word = re.sub("[Ff]", "", word)
            if word in _FORCING or word.startswith("--forcerun=") or word == "-" != given:
                continue
        elif dropping:
            continue
        kept.append(word)
    return kept


def untargeted(arguments: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Return Snakemake's arguments without the targets among them."""
    words, wanted = list(arguments), list(targets)
    if "--" in words:
        cut = words.index("--")
        behind = words[cut + 1 :]
        words, wanted = words[:cut], wanted[: len(wanted) - len(behind)]
    places = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted and not _names(words[:i])]
    if not wanted or not places:
        return words
    at = places[-1] if places[0] else 0
    return words[:at] + words[at + len(wanted) :]


def _names(before: Sequence[str]) -> bool:
    """Whether the word after `before` belongs to an option that takes names."""
    option = next((word for word in reversed(before) if word.startswith("-")), "")
    return option in _NAMING or _FORCING.get(option, False)


def with_targets(arguments: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Return Snakemake's arguments with targets that no option takes for its own."""
    return [*arguments, *([] if "--" in arguments else ["--"]), *targets]
