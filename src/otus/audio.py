"""Sound files: open, inspect, read stretches by sample position, resample. Nothing here keeps a file whole."""

import contextlib
import errno
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from otus.containers import extent
from otus.errors import DataError

#: Samples added on either side of a stretch before resampling, so that the filter has settled (soxr HQ); at least so
#: many of the recording, and at least so many at the target rate, which is where strong downsampling needs them.
_SETTLE_SAMPLES, _SETTLE_RESAMPLED = 2048, 128

#: Samples that an open file resamples at once, and decodes at once with the decoders below. Both begin at multiples of
#: so many, so that a sample is the same in whatever stretch it is read.
_RESAMPLED_AT_ONCE, _DECODED_AT_ONCE = 2**17, 2**17

#: Subtypes whose samples depend on all that was decoded before, or that libsndfile finds a place in only roughly.
_FORWARD_ONLY = ("VORBIS", "OPUS", "MPEG")

#: Samples of these fit 16 bits, which are read and scaled faster than libsndfile makes floats of them; same values.
_SIXTEEN_BITS = ("PCM_16", "PCM_U8", "PCM_S8")

#: Samples that are turned into floats at once, so that they stay in the processor's cache; the step of 16 bits.
_CONVERTED_AT_ONCE, _STEP = 2**16, np.float32(2**-15)

#: libsndfile's number for an error that the system reported, and bytes that are read to learn which.
_SYSTEM_ERROR, _PROBED_BYTES = 2, 2**16

#: What libsndfile takes for the length of a file that names none.
_NO_LENGTH = 2**62

#: A header, tags and padding are hardly longer.
_HEADER_BYTES = 4096

_UNKNOWN_CODING = "its header is damaged, or names a coding that is not known"
#: A part of what libsndfile says -> the same in plain words.
_PLAIN = {
    "possibly a pipe": "no audio is found in it",  # an MP3 file that its decoder gives up on
    "Format not recognised": "it is in no format that is known",
    "No 'data' chunk": "no audio follows its header",
    "SF_INFO struct incomplete": "its header makes no sense",
    "internal error": "its header makes no sense",
    "is malformed": "it is damaged",
    "'fmt ' chunk": _UNKNOWN_CODING,
    "Invalid format chunk": _UNKNOWN_CODING,
    "unimplemented format": _UNKNOWN_CODING,
    "flac decoder": "its FLAC data are damaged",
    "psf_fseek() failed": "its end cannot be reached",
}

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class AudioInfo:
    """What the header says and the data confirm. `n_samples` counts per channel."""

    n_samples: int
    sample_rate: int
    channels: int
    subtype: str

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate


def inspect(path: str | Path) -> AudioInfo:
    """Return the format of a sound file, after reading its last samples to see that they are there.

    Raises DataError if the file cannot be opened, is empty, or ends before its header says.
    """
    with reading_explained(path, "read as audio"):
        check_extent(path)
        with soundfile.SoundFile(path) as file:
            info = header_of(file, path)
            tail = min(info.n_samples, 1024)
            reached = file.seek(info.n_samples - tail)  # beyond the end where an MP3 file is damaged
            found = len(file.read(tail, dtype="int16")) if reached < info.n_samples else 0
    if found != tail:
        raise DataError(f"{path}: ends early: its header promises {info.n_samples} samples.")
    return info


@contextlib.contextmanager
def reading_explained(path: str | Path, what: str) -> Iterator[None]:
    """Turn a failure of libsndfile or of the disk into a DataError: the file at `path` cannot be `what`."""
    try:
        yield
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be {what} ({_reason(error)}).") from error


def header_of(file: soundfile.SoundFile, path: str | Path) -> AudioInfo:
    """Return what the header of an open file says; DataError if that is no samples, or no number of samples."""
    if file.frames == 0:
        size = Path(path).stat().st_size
        rest = (
            f" by its header, but has {size} bytes: the recorder may have stopped too early"
            if size > _HEADER_BYTES
            else ""
        )
        raise DataError(f"{path}: holds no samples{rest}.")
    if file.frames >= _NO_LENGTH:
        raise DataError(f"{path}: its header does not say how long it is; convert it anew, not through a pipe.")
    return AudioInfo(file.frames, file.samplerate, file.channels, file.subtype)


def check_extent(path: str | Path) -> int:
    """Return how many bytes stand behind the audio of a file and are no part of its format.

    Raises DataError if the file is empty or audio that its header promises is not there; OSError if it cannot be read.
    """
    if not Path(path).stat().st_size:
        raise DataError(f"{path}: cannot be read as audio (it has 0 bytes).")
    found = extent(path)
    if found.missing_bytes:
        raise DataError(
            f"{path}: truncated: {found.missing_bytes} bytes of audio that its header promises are not there."
        )
    if found.unfinished:
        raise DataError(f"{path}: truncated: the page that ends an Ogg stream is not there.")
    return found.surplus_bytes


def read(path: str | Path, start_sample: int = 0, end_sample: int | None = None) -> tuple[Samples, int]:
    """Return samples [start, end) as mono float32 in [-1, 1] (the mean of the channels) and the sample rate.

    Positions outside the file are not padded. Raises DataError if the file cannot be decoded.
    """
    with reading_explained(path, "decoded"), soundfile.SoundFile(path) as file:
        start = max(0, min(start_sample, file.frames))
        stop = file.frames if end_sample is None else max(start, min(end_sample, file.frames))
        if file.seek(start) > file.frames:  # where an MP3 file is damaged
            raise DataError(f"{path}: is damaged: sample {start} cannot be reached.")
        block: Any = file.read(stop - start, dtype="float32", always_2d=True)
        rate = int(file.samplerate)
    if len(block) != stop - start:
        raise DataError(f"{path}: only {len(block)} of {stop - start} samples could be decoded from {start}.")
    return _mono(block), rate


def is_decoded_from_its_beginning(info: AudioInfo) -> bool:
    """Return whether an AudioFile decodes all that lies before a stretch: MP3, Ogg Vorbis, Opus."""
    return info.subtype.startswith(_FORWARD_ONLY)


def resampled_length(n_samples: int, rate: int, target_rate: int) -> int:
    """Return the number of samples after resampling: ceil(n * target / rate)."""
    return -(-n_samples * target_rate // rate)


def read_at_rate(path: str | Path, start: int, end: int, target_rate: int, info: AudioInfo) -> Samples:
    """Return samples [start, end) of the recording as heard at `target_rate` (positions count at that rate).

    The result does not depend on where the stretch was cut: the resampler starts on a position where both
    rates have a sample, with enough margin for its filter. Positions outside the recording are not padded.
    """
    total = resampled_length(info.n_samples, info.sample_rate, target_rate)
    start, end = max(0, start), min(end, total)
    if end <= start:
        return np.zeros(0, dtype=np.float32)
    if target_rate == info.sample_rate:
        return read(path, start, end)[0]
    return _resampled(lambda first, last: read(path, first, last)[0], start, end, target_rate, info)


class AudioFile:
    """An open recording that is read stretch by stretch, from one thread at a time; use as a context manager.

    A sample has the same value to the last bit in whatever stretch it is read, and in whatever order. Stretches that
    follow or overlap the one before are read on: nothing is decoded twice. MP3, Ogg Vorbis and Opus are decoded from
    their beginning, again if a stretch lies before the one that was read last. Holds the stretch that was read last.

    Raises OSError if the system cannot open or read the file, DataError if it is no audio or cannot be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            self._file = self._opened()
            self.info = header_of(self._file, path)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._dtype = "int16" if self.info.subtype in _SIXTEEN_BITS else "float32"
        self._grid = _DECODED_AT_ONCE if is_decoded_from_its_beginning(self.info) else 1
        self._position = 0
        self._held: tuple[int, NDArray[Any]] = 0, np.zeros((0, self.info.channels), self._dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
        os.close(self._descriptor)

    def read(self, start: int, end: int) -> Samples:
        """Return samples [start, end) as mono float32 in [-1, 1]; positions outside the recording are not padded."""
        start, end = max(0, start), min(end, self.info.n_samples)
        return _mono(self._decoded(start, end)) if start < end else np.zeros(0, dtype=np.float32)

    def read_at_rate(self, start: int, end: int, target_rate: int) -> Samples:
        """Return samples [start, end) as heard at `target_rate` (positions count at that rate), like `read`."""
        if target_rate == self.info.sample_rate:
            return self.read(start, end)
        start, end = max(0, start), min(end, resampled_length(self.info.n_samples, self.info.sample_rate, target_rate))
        divisor = math.gcd(self.info.sample_rate, target_rate)
        up, down = target_rate // divisor, self.info.sample_rate // divisor
        step = up * max(1, _RESAMPLED_AT_ONCE // down)
        if end <= start:
            return np.zeros(0, dtype=np.float32)
        last = resampled_length(self.info.n_samples, self.info.sample_rate, target_rate)
        firsts = range(start // step * step, end, step)
        pieces = [_resampled(self.read, a, min(a + step, last), target_rate, self.info) for a in firsts]
        pieces[-1] = pieces[-1][: end - firsts[-1]]
        pieces[0] = pieces[0][start - firsts[0] :]
        return np.concatenate(pieces) if len(pieces) > 1 else np.ascontiguousarray(pieces[0])

    def _decoded(self, start: int, end: int) -> NDArray[Any]:
        """Samples [start, end) of all channels (n, channels), as far as they are held already from there."""
        first, last = start // self._grid * self._grid, min(-(-end // self._grid) * self._grid, self.info.n_samples)
        held_from, held = self._held
        held_to = held_from + len(held)
        if not (held_from <= first and last <= held_to):
            known = [held[first - held_from :]] if held_from <= first < held_to else []
            begin = held_to if known else first
            step = self._grid if self._grid > 1 else last - begin
            more = [self._decode(a, min(a + step, last)) for a in range(begin, last, step)]
            self._held = first, np.concatenate([*known, *more]) if len(known) + len(more) > 1 else more[0]
        held_from, held = self._held
        return held[start - held_from : end - held_from]

    def _decode(self, start: int, end: int) -> NDArray[Any]:
        """Samples [start, end) of all channels from the file."""
        with self._told_apart("decoded"):
            self._go_to(start)
            self._position = self.info.n_samples + 1  # unknown, should reading fail
            block: NDArray[Any] = self._file.read(end - start, dtype=self._dtype, always_2d=True)
            self._position = start + len(block)
            if len(block) != end - start:
                self._probe()
        if len(block) != end - start:
            raise DataError(f"{self._path}: only {len(block)} of {end - start} samples could be decoded from {start}.")
        return block

    def _go_to(self, start: int) -> None:
        """Let the decoder stand at a sample, so that what it decodes next does not depend on how it got there."""
        if not is_decoded_from_its_beginning(self.info):
            if self._position != start:
                self._file.seek(start)
            return
        if self._position > start:
            self._file.close()
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._file, self._position = self._opened(), 0
        while self._position < start:
            passed = len(self._file.read(min(_DECODED_AT_ONCE, start - self._position), dtype=self._dtype))
            self._position += passed
            if not passed:
                raise DataError(f"{self._path}: is damaged: sample {start} cannot be reached.")

    def _opened(self) -> soundfile.SoundFile:
        with self._told_apart("read as audio"):
            return soundfile.SoundFile(self._descriptor, closefd=False)

    @contextlib.contextmanager
    def _told_apart(self, what: str) -> Iterator[None]:
        """Raise OSError if the disk failed, and DataError if the file `what` does not allow; libsndfile mixes them."""
        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError) as error:
            self._probe()
            if getattr(error, "code", None) == _SYSTEM_ERROR:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._path)) from error
            raise DataError(f"{self._path}: cannot be {what} ({_reason(error)}).") from error

    def _probe(self) -> None:
        """Read where the decoder stands: a disk that fails there says why (OSError), which libsndfile does not."""
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        os.pread(self._descriptor, _PROBED_BYTES, max(0, position - _PROBED_BYTES // 2))


def _mono(block: NDArray[Any]) -> Samples:
    """The mean of the channels of samples (n, channels), float32 or 16 bits, as float32."""
    if block.shape[1] > 1 or block.dtype != np.int16:
        floats = block * _STEP if block.dtype == np.int16 else block
        mono = floats[:, 0] if floats.shape[1] == 1 else floats.mean(axis=1, dtype=np.float32)
        return np.ascontiguousarray(mono)
    out = np.empty(len(block), dtype=np.float32)
    for a in range(0, len(block), _CONVERTED_AT_ONCE):
        np.multiply(block[a : a + _CONVERTED_AT_ONCE, 0], _STEP, out=out[a : a + _CONVERTED_AT_ONCE])
    return out


def _resampled(
    read_native: Callable[[int, int], Samples], start: int, end: int, target_rate: int, info: AudioInfo
) -> Samples:
    """Samples [start, end) at the target rate, from the stretch of the recording that they depend on."""
    divisor = math.gcd(info.sample_rate, target_rate)
    up, down = target_rate // divisor, info.sample_rate // divisor  # up samples out for down samples in
    settle = max(_SETTLE_SAMPLES, _SETTLE_RESAMPLED * info.sample_rate // target_rate)
    first_period = max(0, start // up - -(-settle // down))
    last_sample = min(info.n_samples, -(-end // up) * down + settle)
    block = read_native(first_period * down, last_sample)
    heard = soxr.resample(block, info.sample_rate, target_rate, quality="HQ")
    offset = start - first_period * up
    out = heard[offset : offset + end - start]
    short = end - start - len(out)
    return np.pad(out, (0, short)) if short > 0 else np.ascontiguousarray(out)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """What libsndfile or the system says, without the name of the file."""
    said = str(getattr(error, "error_string", None) or getattr(error, "strerror", None) or error)
    plain = next((plain for part, plain in _PLAIN.items() if part in said), said)
    return plain.split("\n", maxsplit=1)[0].rstrip(". ")
