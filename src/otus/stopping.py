"""Jobs that are asked to stop: by Slurm ahead of the time limit, before a preemption, by scancel."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from otus.errors import StageError

#: What Slurm and its sites send before they kill (those that the system knows).
_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGXCPU")


class StoppedError(StageError):
    """The job was asked to stop and has saved what it did; the next start goes on from there."""

    def __init__(self, done: str, kept_in: Path) -> None:
        super().__init__(
            f"stopped by a signal (time limit, preemption or scancel) after {done}; "
            f"the state is saved in {kept_in} and the next start goes on from there."
        )


def stop_on_signals() -> Callable[[], bool]:
    """Let the signals that announce the end of a job only be noted; return whether one has come.

    From now on such a signal does not end the process, however often it comes: the work has to ask. For the main
    thread of a script (ValueError elsewhere).
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    for name in _SIGNALS:
        if number := getattr(signal, name, None):
            signal.signal(number, note)
            signal.siginterrupt(number, False)  # a library's read or write under way is not cut short
    return lambda: asked
