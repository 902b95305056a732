"""One sound file, looked into: decoded from end to end, or only its header and its last samples."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from otus.audio import AudioInfo, check_extent, header_of, inspect, reading_explained, sha256
from otus.errors import DataError
from otus.inventory.levels import Block, LevelMeter, Levels

#: Samples of a block, all channels together: large enough to be quick, small enough to stay in the processor's cache.
#: It holds whole frames of MP3: soundfile seeks to where it is after every block, which inside of a frame does harm.
_BLOCK_SAMPLES, _MP3_FRAME = 1 << 17, 1152
_READ_BYTES = 1 << 20

#: How samples are decoded and hashed, by what the file holds: as whole numbers that hold every bit of it.
_SHORT = frozenset({"PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "ALAC_16", "GSM610"})
_LONG = frozenset({"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"})
_FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31, "float32": 1.0}


@dataclass(frozen=True, slots=True)
class Content:
    """What only decoding tells: a digest of the samples, and their levels."""

    sha256: str
    levels: Levels


@dataclass(frozen=True, slots=True)
class Examined:
    """What a sound file is. `sha256` is that of its bytes; `surplus_bytes` stand behind its audio; `content` is None
    if only the ends were looked at.
    """

    info: AudioInfo
    sha256: str
    surplus_bytes: int
    content: Content | None


def examine(path: str | Path, check: Literal["full", "ends"]) -> Examined:
    """Return what is in a sound file: with `full` after decoding every sample, with `ends` from its two ends.

    The digest of the content is the SHA-256 of the line "otus-samples <rate> <channels> <kind>\\n" in ASCII and then
    all samples, frame by frame, little-endian: kind int16 for formats of up to 16 bits (8-bit ones times 256), int32
    for those of 20 to 32 bits (in the upper bits), float32 for floating point and lossy formats. A WAV file and its
    FLAC copy, or copies with other metadata, agree.

    Raises DataError if the file cannot be read or decoded, holds no samples or samples that are no numbers, or ends
    before its header says.
    """
    if check == "ends":
        info = inspect(path)
        with reading_explained(path, "read"):
            return Examined(info, sha256(path), check_extent(path), None)
    with reading_explained(path, "read as audio"):
        surplus_bytes = check_extent(path)
        with soundfile.SoundFile(path) as file, Path(path).open("rb") as raw:
            info = header_of(file, path)
            kind = _kind(info.subtype)
            meter = LevelMeter(info.sample_rate, info.channels, info.subtype, _FULL_SCALE[kind])
            samples = hashlib.sha256(f"otus-samples {info.sample_rate} {info.channels} {kind}\n".encode())
            whole = hashlib.sha256()
            size, decoded = os.fstat(raw.fileno()).st_size, 0
            for block in _blocks(file, info, kind):
                samples.update(block.astype(block.dtype.newbyteorder("<"), copy=False).data)
                if not meter.add(block):
                    raise DataError(f"{path}: holds samples that are no numbers (NaN or infinite).")
                decoded += len(block)
                _hash_up_to(whole, raw, size * decoded // info.n_samples)
            _hash_up_to(whole, raw, None)
    if decoded != info.n_samples:
        raise DataError(
            f"{path}: ends early: {decoded} of the {info.n_samples} samples that its header promises can be decoded."
        )
    return Examined(info, whole.hexdigest(), surplus_bytes, Content(samples.hexdigest(), meter.levels()))


def _kind(subtype: str) -> str:
    """The type of number that holds every bit of a sample."""
    return "int16" if subtype in _SHORT else "int32" if subtype in _LONG else "float32"


def _blocks(file: soundfile.SoundFile, info: AudioInfo, kind: str) -> Iterator[Block]:
    """The samples from the first to the last that can be decoded, samples x channels; a block lives until the next."""
    frames = max(1, _BLOCK_SAMPLES // info.channels // _MP3_FRAME) * _MP3_FRAME
    buffer = np.empty((frames, info.channels), kind)
    left = info.n_samples
    while left:
        found = file.buffer_read_into(buffer[:left], kind)
        if not found:
            return
        yield buffer[:found]
        left -= found


def _hash_up_to(digest: "hashlib._Hash", file: BinaryIO, position: int | None) -> None:
    """Go on hashing a file up to a position (None: its end).

    This follows the decoder through the file, so that the disk or the network delivers each byte only once.
    """
    while position is None or file.tell() < position:
        data = file.read(_READ_BYTES)
        if not data:
            return
        digest.update(data)
