"""Other programs are asked with a time limit, and killed with all their children if they do not answer."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Standard output of a program, and what went wrong in a few words (empty if nothing did)."""

    text: str
    problem: str = ""


def ask(words: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> Answer:
    """Run a program without a shell and return its answer; never raises for what the program does."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # so that its children, which may hold the pipes open, can be killed with it
        )
    except OSError as error:
        return Answer("", f"{words[0]}: {error.strerror}")
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Answer("", f"{words[0]}: no answer within {timeout_s:g} s")
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a process stuck in the kernel cannot be killed
                process.wait(1)
    text = out.decode(errors="replace")
    return Answer(text, _problem(words[0], process.returncode, err.decode(errors="replace")))


def _problem(program: str, code: int, complaint: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return f"{program}: killed by {name}"
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[-1] if lines else f"{program}: exit code {code}"
