"""Runner `hawkears`: HawkEars 2 in its own Python, whose networks are loaded once for all sound files of a job."""

import json
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otus.config import ExternalSettings
from otus.errors import MissingPartError, StageError
from otus.external.programs import Child, InterruptedProgramError, ProgramError, child_environment, last_words, start
from otus.external.results import Found

_DRIVER = Path(__file__).with_name("hawkears_driver.py")

#: Files that one process is told of beforehand; their paths are an argument of it.
_FILES_AT_ONCE = 500

#: Between two looks at whether the job is to stop.
_POLL_S = 0.2


class HawkEarsRunner:
    """Hands sound files to one process of HawkEars, which is started with the first one and after a failure anew.

    `stop` is asked while it works. Raises MissingPartError if its environment or its Python is missing.
    """

    def __init__(self, settings: ExternalSettings, folder: Path, stop: Callable[[], bool]) -> None:
        self.settings, self.folder, self.stop = settings, folder, stop
        self.variables = child_environment(settings.threads, settings.environment)
        self.python = Path(settings.environment).absolute() / "bin" / "python" if settings.environment else None
        self.options = _options(settings)
        self._child: Child | None = None
        self._unread = b""
        self._places: list[str] = []

    def find(self, sound: Path, folder: Path) -> list[Found]:
        """Return what HawkEars finds in the file `sound`. Raises ProgramError if it fails on it or takes too long,
        StageError if it cannot work at all.
        """
        try:
            if not self._places:
                self.close()
            child = self._child or self._begin()
            place = self._answer(child)["next"]
            self._places.pop()
            os.replace(sound, place)
            self._say(child, b"go\n")
            answer = self._answer(child)
            Path(place).unlink(missing_ok=True)
        except (ProgramError, InterruptedProgramError, OSError):
            self.close()
            raise
        if "failed" in answer:
            raise ProgramError(f"HawkEars failed: {answer['failed']}")
        return [Found(row["start"], row["end"], row["label"], row["score"]) for row in answer["found"]]

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.end()
        self._child, self._unread, self._places = None, b"", []

    def _begin(self) -> Child:
        self._places = [str(self.folder / f"sound{number:05d}.wav") for number in range(_FILES_AT_ONCE)]
        python = str(self.python or sys.executable)
        words = [python, str(_DRIVER), json.dumps(self.options), json.dumps(self._places)]
        self._child = start(words, self.folder, self.folder / ".said", self.variables, talks=True)
        return self._child

    def _say(self, child: Child, line: bytes) -> None:
        assert child.process.stdin is not None
        try:
            child.process.stdin.write(line)
            child.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _answer(self, child: Child) -> dict[str, Any]:
        """The next line that the process writes."""
        assert child.process.stdout is not None
        until = time.monotonic() + self.settings.timeout_s
        while b"\n" not in self._unread:
            if self.stop():
                raise InterruptedProgramError("the job was asked to stop")
            if time.monotonic() >= until:
                raise ProgramError(f"HawkEars was stopped after {self.settings.timeout_s:g} s (timeout_s)")
            if select.select([child.process.stdout], [], [], _POLL_S)[0]:
                data = os.read(child.process.stdout.fileno(), 2**16)
                if not data:
                    raise self._ended()
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise ProgramError(f"HawkEars wrote what is no answer: {line[:80]!r}") from error
        if "fatal" in answer:
            self.close()
            raise StageError(f"external: HawkEars cannot work: {answer['fatal']}{last_words(self.folder / '.said')}.")
        return answer

    def _ended(self) -> ProgramError:
        return ProgramError(f"HawkEars ended on its own{last_words(self.folder / '.said')}")


def _options(settings: ExternalSettings) -> dict[str, Any]:
    """The arguments of hawkears.commands.analyze."""
    asked = settings.hawkears
    data_root = Path(asked.data_root or ".").absolute()
    if not data_root.is_dir():
        raise MissingPartError(f"external: hawkears.data_root {data_root} is no folder; run `hawkears init` there.")
    options = {
        "data_root": str(data_root),
        "min_score": settings.min_score or 0.0,
        "segment_len": asked.segment_s,
        "max_models": asked.models,
        "label_field": asked.label_field,
        "low_band": asked.low_band,
    }
    return {name: value for name, value in options.items() if value is not None}
