"""After a run: what failed (`failures`), run that again (`rerun`), go on after the driver died (`resume`)."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from otus.errors import DataError, MissingPartError, StageError
from otus.runs.driver import (
    Driver,
    driver_state,
    guard_text,
    locked,
    own_jobs,
    quoted,
    read_driver,
    unforced,
    untargeted,
    with_targets,
    working_directory,
)
from otus.runs.failures import failure_text, failures_of
from otus.runs.log import RunLog, latest_log, read_run

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: How often --wait asks Slurm.
POLL_S = 20.0

_RERUN = """Run the failed jobs of the last run again, and what they need, with the options of that run or with those
given. Run it in the working directory of the run.

options:
  --failed        the failed jobs (has to be given)
  -n, --dry-run   only show what would run
  -h, --help      show this help
All other words go to Snakemake as they are."""

_RESUME = """Go on after the process that ran the workflow died (a lost connection, a reboot, kill -9): make sure that
it is dead and that none of its Slurm jobs is left, unlock the folder, and start Snakemake again with the options of
that run or with those given. Run it in the working directory of the run.

options:
  --wait          wait for the Slurm jobs that are left; what they finish is not done again
  --force         take the run for dead although it was started on another host, or nothing is known of it
  -n, --dry-run   only show what would run
  -h, --help      show this help
All other words go to Snakemake as they are."""


def register(commands: "Commands") -> None:
    """Add `failures`, `rerun` and `resume` to the commands of `otus`."""
    failures = commands.add_parser("failures", help="show what failed in the last run, why, and how to run it again")
    failures.add_argument("--all", action="store_true", help="all of them, not the first 20")
    failures.add_argument("--log", type=Path, help="log of Snakemake (default: the newest in .snakemake/log)")
    failures.set_defaults(run=show_failures)

    usage = "otus rerun --failed [-n] [SNAKEMAKE ARGUMENTS ...]"
    _passing(commands, "rerun", "run the failed jobs of the last run again", usage, _RERUN, rerun)
    usage = "otus resume [--wait] [--force] [-n] [SNAKEMAKE ARGUMENTS ...]"
    _passing(commands, "resume", "go on after the run's process died", usage, _RESUME, resume)


def _passing(
    commands: "Commands",
    name: str,
    summary: str,
    usage: str,
    description: str,
    run: Callable[[argparse.ArgumentParser, Sequence[str]], int],
) -> None:
    """Add a command that gets all its words as they are: argparse cannot leave unknown options to another program."""
    parser = commands.add_parser(
        name,
        help=summary,
        usage=usage,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        prefix_chars="\0",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=lambda options: run(parser, options.words))


def show_failures(options: argparse.Namespace) -> int:
    """Print a block for each failed job of the last run."""
    folder = Path.cwd()
    run = _last_run(folder, options.log)
    if run is None:
        print("No run has left a log here (.snakemake/log); go to the working directory of the run.")
        return 0
    driver = read_driver(folder)
    failures = failures_of(run, folder, *((driver.command, driver.targets) if driver else ()))
    if failures:
        print(failure_text(failures, run, limit=None if options.all else 20))
    elif run.errors:
        print("No job is known to have failed, but Snakemake said:\n" + "\n".join(run.errors))
    elif run.complete:
        print(f"The last run had no failures ({run.path.name}).")
    if remark := _loose_ends(run, folder):
        print(f"\n{remark}" if failures else remark)
    return 0


def _loose_ends(run: RunLog, folder: Path) -> str | None:
    """What is to be said of jobs whose end is not known."""
    left = len(run.unfinished)
    if not run.complete and driver_state(folder) == "running":
        return f"The run is still at work on {left} job{'s' * (left != 1)}."
    if not run.complete:
        return f"The log of the last run breaks off, with {left} job{'s' * (left != 1)} unfinished: otus resume"
    if left:
        return f"The run was stopped with {left} job{'s' * (left != 1)} unfinished: start it again."
    return None


def rerun(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Replace this process by a Snakemake that makes the first outputs of the failed jobs of the last run."""
    flags, given = _flags(parser, words, ("--failed",))
    if "--failed" not in flags:
        parser.error("say what to run again: --failed")
    folder = _folder(given)
    _refuse_if_running(folder)
    run = _last_run(folder, None)
    if run is None:
        raise DataError(f"{folder}: no run has left a log here (.snakemake/log); go to the run's working directory.")
    failures = failures_of(run, folder)
    if not failures:
        print(f"Nothing failed in the last run ({run.path.name}).")
        return 0
    targets = [failure.target for failure in failures if failure.target]
    if len(targets) < len(failures):
        rules = ", ".join(sorted({failure.rule for failure in failures if not failure.target}))
        print(f"Left out, because the log does not name their outputs: jobs of {rules}.", file=sys.stderr)
    if not targets:
        raise DataError(f"{run.path}: names no output of the failed jobs; start the run again as it was.")
    if locked(folder) and driver_state(folder) == "dead":
        raise StageError(f"{folder} is still locked by the last run, which died; go on with all of it: otus resume.")
    driver = read_driver(folder)
    if not given and driver is None:
        raise DataError(
            f"{folder}: the arguments of the last run are not known; give them: otus rerun --failed ARGUMENTS."
        )
    arguments = given or untargeted(driver.command[1:] if driver else (), driver.targets if driver else ())
    _become_snakemake(_dry(flags) + with_targets(unforced(arguments), targets), None if given else driver)


def resume(
    parser: argparse.ArgumentParser,
    words: Sequence[str],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Replace this process by the Snakemake of the run whose process died, when nothing of that run is left."""
    flags, given = _flags(parser, words, ("--wait", "--force"))
    folder = _folder(given)
    driver = read_driver(folder)
    if not given and driver is None:
        raise DataError(
            f"{folder}: no run is known here; go to the working directory of the run, or give its arguments: "
            "otus resume ARGUMENTS."
        )
    arguments = unforced(given or (driver.command[1:] if driver else ()))
    if _dry(flags):
        _become_snakemake(_dry(flags) + arguments, None if given else driver)
    _refuse_if_running(folder)
    _refuse_if_unknown(folder, driver, force="--force" in flags)
    if driver is None or driver.slurm:
        try:
            _without_jobs(folder, arguments, wait="--wait" in flags, sleep=sleep)
        except KeyboardInterrupt:
            print("\nStopped waiting; the Slurm jobs go on.", file=sys.stderr)
            return 130
    home = None if given else driver
    if locked(folder):
        done = subprocess.run(_snakemake(["--unlock", *arguments]), cwd=home.launched_in if home else None, check=False)
        if done.returncode:
            raise StageError(f"{folder}: Snakemake could not unlock the folder; see its message above.")
    incomplete = [] if {"--rerun-incomplete", "--ri"} & set(arguments) else ["--rerun-incomplete"]
    _become_snakemake(incomplete + arguments, home)


def _refuse_if_running(folder: Path) -> None:
    driver = read_driver(folder)
    if driver and driver_state(folder) == "running":
        raise StageError(
            f"The run of {driver.started} is still at work here (process {driver.pid}); wait for its end, "
            "or stop it with Ctrl-C where it runs."
        )


def _refuse_if_unknown(folder: Path, driver: Driver | None, *, force: bool) -> None:
    """Only a run that is known to be dead is taken over without being told to."""
    state = driver_state(folder)
    if force or state == "dead":
        return
    if driver and state == "elsewhere":
        raise StageError(
            f"The run of {driver.started} was started on {driver.host} (process {driver.pid}), and from here nobody "
            "can see whether it is still at work; look there, and if it is dead: otus resume --force."
        )
    if locked(folder):
        raise StageError(
            f"{folder} is locked by a run of which nothing else is known; if no Snakemake is at work here: "
            "otus resume --force."
        )


def _without_jobs(folder: Path, arguments: Sequence[str], *, wait: bool, sleep: Callable[[float], None]) -> None:
    """Return when no Slurm job of an earlier run is left; raise StageError if there are some and `wait` is false."""
    jobs = own_jobs(folder, sleep=sleep)
    if jobs and not wait:
        raise StageError(guard_text(jobs, ["snakemake", *arguments]))
    announced, silent = 0, False
    while jobs:
        if len(jobs) != announced:
            announced = len(jobs)
            shown = ", ".join(f"{job.id} {job.work} ({job.state.lower()})" for job in jobs[:3])
            more = f" and {announced - 3} more" if announced > 3 else ""
            print(f"{time.strftime('%H:%M:%S')} waiting for {shown}{more}", flush=True)
        sleep(POLL_S)
        try:
            jobs, silent = own_jobs(folder, sleep=sleep), False
        except MissingPartError as error:  # a night is long: the controller will be back
            if not silent:
                print(f"{time.strftime('%H:%M:%S')} {error} Still waiting.", flush=True)
            silent = True


def _flags(
    parser: argparse.ArgumentParser, words: Sequence[str], own: Sequence[str]
) -> tuple[frozenset[str], list[str]]:
    """Split the words into our own flags, wherever they stand before `--`, and what is Snakemake's."""
    cut = list(words).index("--") if "--" in words else len(words)
    before, behind = words[:cut], words[cut:]
    if {"-h", "--help"} & set(before):
        parser.print_help()
        parser.exit()
    known = {*own, "-n", "--dry-run", "--dryrun"}
    return frozenset(word for word in before if word in known), [*(w for w in before if w not in known), *behind]


def _dry(flags: frozenset[str]) -> list[str]:
    return ["--dry-run"] if flags & {"-n", "--dry-run", "--dryrun"} else []


def _folder(arguments: Sequence[str]) -> Path:
    return Path.cwd() / (working_directory(arguments) or "")


def _last_run(folder: Path, log: Path | None) -> RunLog | None:
    path = log or latest_log(folder)
    return read_run(path) if path else None


def _snakemake(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def _become_snakemake(arguments: Sequence[str], driver: Driver | None) -> NoReturn:
    """Run Snakemake in place of this process, so that Ctrl-C and exit codes are its own."""
    if driver and Path(driver.launched_in).is_dir():
        os.chdir(driver.launched_in)
    print(quoted(["snakemake", *arguments]), flush=True)
    sys.stderr.flush()
    os.execv(sys.executable, _snakemake(arguments))
