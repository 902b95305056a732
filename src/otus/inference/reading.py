"""Reading ahead: threads open, decode and resample what the network will want next; order never depends on them."""

import contextlib
import errno
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from otus.audio import AudioFile, AudioInfo, Samples, is_decoded_from_its_beginning
from otus.errors import DataError
from otus.inference.scorer import Stretch

#: What a disk, a network drive or a busy machine may say now and not in a while. Not: a file that is not there.
_MAY_PASS = frozenset(
    number
    for name in (
        *("EIO", "EINTR", "EAGAIN", "EBUSY", "ENOMEM", "EMFILE", "ENFILE", "ENOLCK", "ENOBUFS"),
        *("ESTALE", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
        *("ECONNABORTED", "ECONNRESET", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if (number := getattr(errno, name, None)) is not None  # not every system has them all
)

#: Waits between attempts double from 1 s on, up to this.
_LONGEST_PAUSE_S = 60.0

#: So many requests of each reader wait for the network at most.
_AHEAD = 2


@dataclass(frozen=True)
class Request:
    """Stretches of one recording: (sample rate, start, end) each, with positions counted at that rate.

    `info` is what the inventory says of the recording at `path`.
    """

    path: Path
    info: AudioInfo
    stretches: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Answer:
    """The stretches of a request, or the error that kept them from being read; how often it was tried.

    `error` is a DataError; `error_class` is the class of what was at fault first.
    """

    stretches: tuple[Stretch, ...]
    attempts: int
    error: DataError | None = None
    error_class: str | None = None


def read_ahead(
    requests: Iterable[Sequence[Request]],
    *,
    readers: int,
    retries: int,
    pinned: bool,
    pause: Callable[[float], object] | None = None,
) -> Generator[list[Answer]]:
    """Yield the answers to each list of requests, in their order, read by `readers` threads ahead of whoever asks.

    An error that may pass (of the disk or the network) is met by up to `retries` further attempts after 1 s, 2 s, 4 s
    and so on, through `pause`; a file that is missing or damaged is not tried again. Memory is bounded by the two lists
    for each reader that are read ahead; with `pinned` samples lie where a GPU copies them from while it computes. No
    thread is left when the iterator has ended or was closed.
    """
    closing = threading.Event()
    lanes = [_Lane(retries, pause or closing.wait, closing, number, pinned=pinned) for number in range(readers)]
    waiting: deque[Future[list[Answer]]] = deque()
    try:
        for number, several in enumerate(requests):
            waiting.append(_lane_for(lanes, number, several).submit(several))
            if len(waiting) > _AHEAD * readers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        closing.set()
        for future in waiting:
            future.cancel()
        for lane in lanes:
            lane.close()


def _lane_for(lanes: list["_Lane"], number: int, requests: Sequence[Request]) -> "_Lane":
    """In turn; but a recording that is decoded from its beginning is read by one alone."""
    if requests and is_decoded_from_its_beginning(requests[0].info):
        return lanes[sum(str(requests[0].path).encode()) % len(lanes)]
    return lanes[number % len(lanes)]


class _Lane:
    """One reader: a thread, and the file that it has open."""

    def __init__(
        self, retries: int, pause: Callable[[float], object], closing: threading.Event, number: int, *, pinned: bool
    ) -> None:
        self._retries, self._pause, self._closing, self._pinned = retries, pause, closing, pinned
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"reader-{number}")
        self._path: Path | None = None
        self._file: AudioFile | None = None

    def submit(self, requests: Sequence[Request]) -> Future[list[Answer]]:
        return self._thread.submit(lambda: [self._answer(request) for request in requests])

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._let_go()

    def _answer(self, request: Request) -> Answer:
        """Read a request, again if it fails for a reason that may pass."""
        for attempt in range(1, self._retries + 2):
            if attempt > 1:
                self._pause(min(2.0 ** (attempt - 2), _LONGEST_PAUSE_S))
            try:
                return Answer(self._stretches(request), attempt)
            except OSError as error:
                self._let_go()
                if error.errno in _MAY_PASS and attempt <= self._retries and not self._closing.is_set():
                    continue
                tried = f"; tried {attempt} times" if attempt > 1 else ""
                reason = f"{request.path}: cannot be read ({error.strerror or error}{tried})."
                return Answer((), attempt, DataError(reason), type(error).__name__)
            except (DataError, MemoryError, RuntimeError, ValueError) as error:
                self._let_go()
                known = error if isinstance(error, DataError) else DataError(f"{request.path}: {error}")
                return Answer((), attempt, known, type(error).__name__)
        raise AssertionError("the last attempt returns")

    def _stretches(self, request: Request) -> tuple[Stretch, ...]:
        if not request.stretches:
            return ()
        file = self._opened(request)
        read = [(file.read_at_rate(a, b, rate), a, rate) for rate, a, b in request.stretches]
        return tuple(Stretch(_pinned(s) if self._pinned else s, a, rate) for s, a, rate in read)

    def _opened(self, request: Request) -> AudioFile:
        if self._file is None or self._path != request.path:
            self._let_go()
            self._file, self._path = AudioFile(request.path), request.path
        found, known = self._file.info, request.info
        if (found.n_samples, found.sample_rate) != (known.n_samples, known.sample_rate):
            raise DataError(
                f"{request.path}: has changed since the inventory, from {known.n_samples} samples at "
                f"{known.sample_rate} Hz to {found.n_samples} at {found.sample_rate} Hz; start again, so that it is "
                "taken anew."
            )
        return self._file

    def _let_go(self) -> None:
        file, self._file, self._path = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.__exit__()


def _pinned(samples: Samples) -> torch.Tensor:
    """Samples in memory that a GPU copies from by itself; if the system grants none, or the GPU failed, as they are."""
    try:
        return torch.from_numpy(samples).pin_memory()
    except RuntimeError:  # what the GPU does next tells whether it failed
        return torch.from_numpy(samples)
