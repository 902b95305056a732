"""Every audio file of a corpus, looked into once, by several threads, with what earlier inventories found."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from otus.audio import sha256
from otus.errors import DataError, MissingPartError
from otus.fingerprint import FoundFile
from otus.inventory.cache import load_cache, save_cache
from otus.inventory.examine import Examined, examine
from otus.inventory.recordings import AudioFile

_REPORT_EVERY_S = 10.0
_SAVE_EVERY_S = 60.0
#: What a thread is given at a time, and how many such batches wait for each thread, so that none is ever idle.
_BATCH_FILES, _BATCH_BYTES, _AHEAD = 32, 16_000_000, 4

Progress = Callable[[str], None]


def survey(
    root: Path,
    files: Sequence[FoundFile],
    check: Literal["full", "ends"],
    *,
    workers: int,
    cache: Path | None,
    progress: Progress,
) -> list[AudioFile]:
    """Return what is in each of `files`, in their order. Files that cannot be read are no error.

    `workers` threads read what the table at `cache` does not know, by path, size and time of change; what they find
    is added to it every minute and at the end, also if the survey is stopped. Failures are not kept.
    """
    known = load_cache(cache, root, check, progress) if cache else {}
    found = {file: known[file] for file in files if file in known}
    todo = [file for file in files if file not in found]
    if found:
        progress(f"{len(found)} of {len(files)} audio files are as they were when they were last looked into")
    keeper = _Keeper(cache, root, check, found, progress)
    done = {file: AudioFile(file.path, entry.sha256, entry, None) for file, entry in found.items()}
    meter = _Meter(len(todo), sum(file.size for file in todo), progress)

    def tick() -> None:
        meter.tick()
        keeper.tick()

    try:
        for file, audio in _looked_into(root, todo, check, workers, tick):
            done[file] = audio
            meter.add(file.size, audio.found)
            keeper.add(file, audio.found)
    finally:
        if keeper.unsaved or len(known) > len(keeper.known):
            keeper.save()
    if todo:
        progress(f"looked into {meter.counts()}")
    return [done[file] for file in files]


def _looked_into(
    root: Path, files: Sequence[FoundFile], check: Literal["full", "ends"], workers: int, tick: Callable[[], object]
) -> Iterator[tuple[FoundFile, AudioFile]]:
    """What is in the files, in their order; `tick` is called about every second, also during a long file."""
    workers = max(1, workers)
    waiting: deque[tuple[list[FoundFile], Future[list[AudioFile]]]] = deque()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for batch in _batches(files):
                waiting.append((batch, pool.submit(_look_into, root, batch, check)))
                if len(waiting) > _AHEAD * workers:
                    yield from _first(waiting, tick)
            while waiting:
                yield from _first(waiting, tick)
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(files: Sequence[FoundFile]) -> Iterator[list[FoundFile]]:
    """Files in their order, small ones together: handing over each on its own would take as long as reading it."""
    batch: list[FoundFile] = []
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or sum(f.size for f in batch) + file.size > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _first(
    waiting: "deque[tuple[list[FoundFile], Future[list[AudioFile]]]]", tick: Callable[[], object]
) -> Iterator[tuple[FoundFile, AudioFile]]:
    batch, future = waiting.popleft()
    while not future.done():
        wait([future], timeout=1.0)
        tick()
    tick()
    return zip(batch, future.result(), strict=True)


def _look_into(root: Path, batch: Sequence[FoundFile], check: Literal["full", "ends"]) -> list[AudioFile]:
    return [_look(root, file.path, check) for file in batch]


def _look(root: Path, path: str, check: Literal["full", "ends"]) -> AudioFile:
    """What is in one file; one that cannot be read keeps the digest of its bytes."""
    full = root / path
    try:
        found = examine(full, check)
        return AudioFile(path, found.sha256, found, None)
    except DataError as problem:
        error = str(problem).removeprefix(f"{full}: ").rstrip(".")
    with contextlib.suppress(OSError):
        return AudioFile(path, sha256(full), None, error)
    return AudioFile(path, None, None, error)


@dataclass
class _Keeper:
    """What is known of the files, and when it was last saved."""

    path: Path | None
    root: Path
    check: str
    known: dict[FoundFile, Examined]
    progress: Progress
    unsaved: int = 0
    saved_at: float = field(default_factory=time.monotonic)

    def add(self, file: FoundFile, found: Examined | None) -> None:
        if found is not None:
            self.known[file] = found
            self.unsaved += 1

    def tick(self) -> None:
        if self.unsaved and time.monotonic() - self.saved_at >= _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Save, if there is a place; one that cannot be written is said once and stops nothing."""
        if self.path is not None:
            try:
                save_cache(self.path, self.root, self.check, self.known)
            except (MissingPartError, OSError) as error:
                self.progress(f"what was found is not kept for the next inventory: {error}")
                self.path = None
        self.unsaved, self.saved_at = 0, time.monotonic()


@dataclass
class _Meter:
    """Counts what was looked into, and says so about every ten seconds."""

    files: int
    size: int
    progress: Progress
    files_done: int = 0
    size_done: int = 0
    audio_s: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    def add(self, size: int, found: Examined | None) -> None:
        self.files_done += 1
        self.size_done += size
        self.audio_s += found.info.duration_s if found else 0.0

    def tick(self) -> None:
        """Say how far it is and when it ends, if it is time to."""
        now = time.monotonic()
        if now - self.reported >= _REPORT_EVERY_S:
            self.reported = now
            left_s = (now - self.begun) * (self.size - self.size_done) / max(self.size_done, 1)
            self.progress(f"looking into audio files: {self.counts()}, about {_span(left_s)} left")

    def counts(self) -> str:
        """Return how much was looked into, and how fast."""
        speed = self.audio_s / max(time.monotonic() - self.begun, 1e-3)
        done, all_ = self.size_done / 1e9, self.size / 1e9
        return f"{self.files_done} of {self.files} files, {done:.1f} of {all_:.1f} GB, {speed:,.0f} x real time"


def _span(seconds: float) -> str:
    """A time in the units that a person would use."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
