"""Sound files: open, inspect, read stretches by sample position, resample. Nothing here keeps a file whole."""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from otus.containers import extent
from otus.errors import DataError

#: Samples added on either side of a stretch before resampling, so that the filter has settled (soxr HQ); at least so
#: many of the recording, and at least so many at the target rate, which is where strong downsampling needs them.
_SETTLE_SAMPLES, _SETTLE_RESAMPLED = 2048, 128

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
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(mono), rate


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
    divisor = math.gcd(info.sample_rate, target_rate)
    up, down = target_rate // divisor, info.sample_rate // divisor  # up samples out for down samples in
    settle = max(_SETTLE_SAMPLES, _SETTLE_RESAMPLED * info.sample_rate // target_rate)
    first_period = max(0, start // up - -(-settle // down))
    last_sample = min(info.n_samples, -(-end // up) * down + settle)
    block, _ = read(path, first_period * down, last_sample)
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
