"""Which stage the time of a prediction goes to, told while it runs."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from otus.audio import AudioFile
from otus.inference import windowed
from otus.inference.parts import ShardParts
from otus.inference.scorer import Scorer
from otus.scores import ScoreWriter

#: What belongs to which stage; a call within another one counts for its own stage alone.
_CALLS: tuple[tuple[Any, str, str], ...] = (
    (AudioFile, "__init__", "decode"),
    (AudioFile, "read_at_rate", "decode"),
    (AudioFile, "__exit__", "decode"),
    (Scorer, "profile", "spectrogram"),
    (Scorer, "features", "spectrogram"),
    (windowed, "window_inputs", "spectrogram"),
    (Scorer, "score", "network"),
    (ShardParts, "add", "write"),
    (ShardParts, "commit", "write"),
    (ShardParts, "copy_into", "write"),
    (ScoreWriter, "__exit__", "write"),
)


class StageClock:
    """Seconds that all calls of each stage take while the context is open, in whichever thread.

    Counts with `clock`: time.thread_time for CPU seconds, time.perf_counter for wall seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = dict.fromkeys((stage for *_, stage in _CALLS), 0.0)
        self._clock, self._lock, self._here = clock, threading.Lock(), threading.local()
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Self:
        for owner, name, stage in _CALLS:
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._timed(original, stage))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def _timed(self, original: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            before = getattr(self._here, "stage", None)
            self._switch(stage)
            try:
                return original(*arguments, **named)
            finally:
                self._switch(before)

        return call

    def _switch(self, stage: str | None) -> None:
        """From now on the time of this thread goes to another stage, or to none."""
        now, before = self._clock(), getattr(self._here, "stage", None)
        if before is not None:
            with self._lock:
                self.seconds[before] += now - self._here.since
        self._here.stage, self._here.since = stage, now
