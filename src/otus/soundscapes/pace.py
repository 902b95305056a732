"""How far a build is, at what multiple of real time, and when it will end."""

import threading
import time
from collections.abc import Callable

_REPORT_EVERY_S = 10.0


class Pace:
    """Counts the audio written by all threads and says how far they are."""

    def __init__(self, total_s: float, progress: Callable[[str], None]) -> None:
        self._total_s, self._progress = total_s, progress
        self._done_s, self._stopped = 0.0, False
        self._begun = self._reported = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Count audio that was written; in a build that has failed, end the thread."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("another recording has failed")
            self._done_s += seconds
            now = time.monotonic()
            if now - self._reported >= _REPORT_EVERY_S:
                self._reported = now
                self._progress(self._line(now))

    def say(self, line: str) -> None:
        """Report a recording that is finished, with the pace of all."""
        with self._lock:
            self._progress(f"{line}; {self._line(time.monotonic())}")

    def stop(self) -> None:
        """Let the threads end at their next block."""
        self._stopped = True

    def _line(self, now: float) -> str:
        passed_s = max(now - self._begun, 1e-6)
        left_s = passed_s * (self._total_s - self._done_s) / max(self._done_s, 1e-6)
        return (
            f"{self._done_s / 3600:.2f} of {self._total_s / 3600:.2f} h written at "
            f"{self._done_s / passed_s:.0f} x real time, about {left_s:.0f} s left"
        )
