"""Sound files: open, inspect, read stretches by sample position, resample. Nothing here keeps a file whole."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from otus.errors import DataError

#: Samples added on either side of a stretch before resampling, so that the filter has settled (soxr HQ); at least so
#: many of the recording, and at least so many at the target rate, which is where strong downsampling needs them.
_SETTLE_SAMPLES, _SETTLE_RESAMPLED = 2048, 128

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
    try:
        with soundfile.SoundFile(path) as file:
            info = AudioInfo(file.frames, file.samplerate, file.channels, file.subtype)
            tail = min(file.frames, 1024)
            file.seek(file.frames - tail)
            found = len(file.read(tail, dtype="int16"))
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read as audio ({_reason(error)}).") from error
    if info.n_samples == 0:
        raise DataError(f"{path}: holds no samples.")
    if found != tail:
        raise DataError(f"{path}: ends early: its header promises {info.n_samples} samples.")
    missing = _missing_bytes(Path(path))
    if missing > 0:
        raise DataError(f"{path}: truncated: {missing} bytes of audio that its header promises are not there.")
    return info


def read(path: str | Path, start_sample: int = 0, end_sample: int | None = None) -> tuple[Samples, int]:
    """Return samples [start, end) as mono float32 in [-1, 1] (the mean of the channels) and the sample rate.

    Positions outside the file are not padded. Raises DataError if the file cannot be decoded.
    """
    try:
        with soundfile.SoundFile(path) as file:
            start = max(0, min(start_sample, file.frames))
            stop = file.frames if end_sample is None else max(start, min(end_sample, file.frames))
            file.seek(start)
            block: Any = file.read(stop - start, dtype="float32", always_2d=True)
            rate = int(file.samplerate)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be decoded ({_reason(error)}).") from error
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
    return str(getattr(error, "error_string", None) or error).split("\n")[0].rstrip(". ")


def _missing_bytes(path: Path) -> int:
    """Bytes that the data chunk of a WAV or RF64 file promises beyond its end; libsndfile hides this by clamping."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return 0
        size_beyond_32_bits = 0
        while len(chunk := file.read(8)) == 8:
            name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
            body = file.tell()
            if name == b"ds64":
                size_beyond_32_bits = int.from_bytes(file.read(16)[8:], "little")
            if name == b"data":
                if size == 0xFFFFFFFF and size_beyond_32_bits:
                    size = size_beyond_32_bits
                # A program that cannot seek back (sox, arecord, ffmpeg in a pipe) writes the largest size, or nearly.
                elif size == 0 or 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFF0000:
                    return 0
                return body + size - path.stat().st_size
            file.seek(body + size + size % 2)
    return 0
