"""Programs of others as child processes: each in a process group of its own, with a time limit, without a shell."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import otus
from otus.errors import MissingPartError, StageError

#: Variables by which numerical libraries learn how many threads they may start.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

#: What activating another environment would replace.
_ENVIRONMENT_VARIABLES = ("PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")

#: Between looks at a program that runs; between the request to end and the end by force.
_POLL_S, _GRACE_S = 0.02, 3.0

#: Ends the group whose number it is told, unless the job says that it is over before the job itself ends.
_GUARD = 'read -r group && { read -r over || kill -s KILL -- "-$group"; }'

#: How much of what a program says is kept.
_LAST_LINES, _LAST_BYTES = 5, 4096


class ProgramError(StageError):
    """A program of others failed on one sound file."""


class InterruptedProgramError(StageError):
    """The job was asked to stop while the program ran."""


def child_environment(threads: int, environment: str | None) -> dict[str, str]:
    """Return the variables for a program: the job's, its threads, and first on the PATH the folder `environment`.

    CUDA_VISIBLE_DEVICES stays as it is. The sources of Otus, which the job may have on its PYTHONPATH, do not go along.
    Raises MissingPartError if `environment` is no folder of programs.
    """
    variables = dict(os.environ) | dict.fromkeys(_THREAD_VARIABLES, str(threads))
    own = str(Path(otus.__file__).parents[1])
    paths = [path for path in variables.pop("PYTHONPATH", "").split(os.pathsep) if path not in ("", own)]
    if paths:
        variables["PYTHONPATH"] = os.pathsep.join(paths)
    if environment is not None:
        folder = Path(environment).absolute()
        if not (folder / "bin").is_dir():
            raise MissingPartError(
                f"external: the environment {folder} has no folder bin; make it first, or correct its path."
            )
        for name in _ENVIRONMENT_VARIABLES:
            variables.pop(name, None)
        variables["CONDA_PREFIX" if (folder / "conda-meta").is_dir() else "VIRTUAL_ENV"] = str(folder)
        variables["PATH"] = f"{folder / 'bin'}{os.pathsep}{variables.get('PATH', os.defpath)}"
    return variables


def absolute_words(command: Sequence[str]) -> list[str]:
    """Return the words of a command, those that name a file of the working folder as absolute paths.

    The program runs in another folder. A word without a slash and without a suffix stays: it is rarely meant as a file.
    """
    return [
        str(Path(word).absolute()) if ("/" in word or Path(word).suffix) and Path(word).exists() else word
        for word in command
    ]


def program_files(command: Sequence[str]) -> dict[str, list[int]]:
    """Return size and time of change (ns) of every file that the words of a command name.

    A detector whose script or weights were edited is another detector.
    """
    found = {}
    for word in absolute_words(command):
        if Path(word).is_absolute() and Path(word).is_file():
            status = Path(word).stat()
            found[word] = [status.st_size, status.st_mtime_ns]
    return dict(sorted(found.items()))


def start(words: Sequence[str], folder: Path, said: Path, variables: Mapping[str, str], *, talks: bool) -> "Child":
    """Start a program in `folder` and return it; what it says goes to the file `said`.

    A program that talks is written to and read from through its standard input and output. Raises MissingPartError if
    there is no such program or it may not be run.
    """
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with said.open("ab") as log:
        try:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(variables),
                start_new_session=True,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
            )
        except OSError as error:
            _tell(guard, b"", last=True)
            reason = f"{error.strerror or error}".lower()
            raise MissingPartError(
                f"external: {words[0]} cannot be started ({reason}); install it, or correct command or environment."
            ) from error
    _tell(guard, b"%d\n" % process.pid, last=False)
    return Child(process, guard)


def _tell(guard: "subprocess.Popen[bytes]", line: bytes, *, last: bool) -> None:
    """Say something to a guard, and let it end if that was all; one that has ended hears nothing."""
    assert guard.stdin is not None
    if guard.stdin.closed:
        return
    with contextlib.suppress(OSError):  # somebody has ended it
        guard.stdin.write(line)
        guard.stdin.flush()
    if last:
        with contextlib.suppress(OSError):
            guard.stdin.close()
        guard.wait()


class Child:
    """A process that leads a group of its own, so that whatever it starts ends with it.

    `guard` ends the group if the job is killed and can no longer do so.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", guard: "subprocess.Popen[bytes]") -> None:
        self.process, self._guard = process, guard

    def ended(self) -> bool:
        """Return whether the program has ended; its number is still its own then."""
        if self.process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, options) is not None

    def wait(self, until: float, stop: Callable[[], bool]) -> bool:
        """Wait until the program ends or `until` (time.monotonic) has passed; return whether it has ended.

        Raises InterruptedProgramError if `stop` says yes meanwhile.
        """
        pause = _POLL_S / 4
        while not self.ended():
            if stop():
                raise InterruptedProgramError("the job was asked to stop")
            if time.monotonic() >= until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 5 * _POLL_S)
        return True

    def end(self) -> int:
        """End the whole group, by force if need be, and return the exit status (negative: the number of a signal)."""
        if self.process.returncode is None:
            try:
                if not self.ended():
                    self._signal(signal.SIGTERM)
                    until = time.monotonic() + _GRACE_S
                    while not self.ended() and time.monotonic() < until:
                        time.sleep(_POLL_S)
            finally:  # also after a second Ctrl-C
                # Before the leader is reaped: until then no other group can have its number.
                self._signal(signal.SIGKILL)
                _tell(self._guard, b"over\n", last=True)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def run_program(
    words: Sequence[str], folder: Path, variables: Mapping[str, str], timeout_s: float, stop: Callable[[], bool]
) -> None:
    """Run a program to its end in `folder`.

    Raises ProgramError, with the last lines that it said, if it fails or takes longer than `timeout_s`;
    InterruptedProgramError if `stop` says yes meanwhile; MissingPartError if it cannot be started. Nothing that it
    started outlives it, or this process, except what has moved to a session of its own.
    """
    said = folder / ".said"
    child = start(words, folder, said, variables, talks=False)
    try:
        in_time = child.wait(time.monotonic() + timeout_s, stop)
    finally:
        status = child.end()
    name = Path(words[0]).name
    if not in_time:
        raise ProgramError(f"{name} was stopped after {timeout_s:g} s (timeout_s){last_words(said)}")
    if status != 0:
        how = f"was ended by {_signal_name(-status)}" if status < 0 else f"ended with exit code {status}"
        raise ProgramError(f"{name} {how}{last_words(said)}")


def last_words(said: Path) -> str:
    """Return the last lines in the file, on one line after a colon; nothing if there are none."""
    try:
        with said.open("rb") as file:
            file.seek(max(0, said.stat().st_size - _LAST_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    kept = " | ".join([line for line in lines if any(map(str.isalnum, line))][-_LAST_LINES:])
    return "".join([": ", *(c if c.isprintable() else "?" for c in kept)]) if kept else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def filled_words(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the words of a command with `values` for {input}, {output}, {folder} and {threads}.

    Other curly brackets stay as they are, and so does what a value holds.
    """
    names = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return [names.sub(lambda found: values[found[0][1:-1]], word) for word in command]
