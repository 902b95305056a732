"""Chunks as WAV files of their own, for programs outside Otus, and a table that leads back into the recordings."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from otus.atomic import replacing
from otus.audio import AudioInfo, read_at_rate, reading_explained, resampled_length, sha256
from otus.errors import DataError, StageError
from otus.tables import table
from otus.wav import writing_wav

#: Samples per channel that are held at once.
_BLOCK_SAMPLES = 2**20

#: What a WAV file may hold, less room for its header.
_MOST_BYTES = 2**32 - 2**12

#: Subtype of the recording -> that of the WAV file, bytes of a sample in it, and the type that holds a decoded sample
#: without loss. All others have 16 bits or fewer, or are lossy, and become PCM_16.
_SUBTYPES = {
    "PCM_U8": ("PCM_U8", 1, "int16"),
    "PCM_24": ("PCM_24", 3, "int32"),
    "PCM_32": ("PCM_32", 4, "int32"),
    "FLOAT": ("FLOAT", 4, "float32"),
    "DOUBLE": ("DOUBLE", 8, "float64"),
    "ALAC_20": ("PCM_24", 3, "int32"),
    "ALAC_24": ("PCM_24", 3, "int32"),
    "ALAC_32": ("PCM_32", 4, "int32"),
}
_PCM_16 = ("PCM_16", 2, "int16")
#: What resampled sound has instead, so that it is as exact as it was computed.
_RESAMPLED = {"PCM_U8": ("PCM_16", 2), "DOUBLE": ("FLOAT", 4)}
#: These decode to floats that can lie beyond full scale; as integers they would wrap around.
_LOSSY = ("VORBIS", "OPUS", "MPEG")

_REPORT_EVERY_S = 10.0

#: Failures that are told in the log; the table has them all.
_TOLD = 5

Block = NDArray[Any]


def write_chunk_files(
    root: Path, chunks: pd.DataFrame, recordings: pd.DataFrame, folder: Path, *, progress: Callable[[str], None]
) -> pd.DataFrame:
    """Write every chunk with its context to `folder`/<chunk_id>.wav; return the `chunk_files` table, a row for each.

    `start_s` to `end_s` is the chunk in the recording, without context, and what is at t s in the file is at `offset_s`
    + t in the recording. `path` counts from the folder above `folder`, `sha256` is that of the file. A chunk whose
    recording cannot be read has no file, and its row tells the reason in `error`, while the others go on. Raises
    StageError if that is so of all chunks, MissingPartError if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of = recordings.set_index("recording_id")
    todo = chunks.sort_values(["recording_id", "start_sample"])
    rows: list[dict[str, Any]] = []
    began = reported = time.monotonic()
    for recording_id, own in todo.groupby("recording_id", sort=True):
        rows += _write_recording(root, of.loc[recording_id], own, folder)
        if (now := time.monotonic()) - reported >= _REPORT_EVERY_S:
            reported = now
            left_s = (now - began) * (len(todo) - len(rows)) / len(rows)
            progress(f"{len(rows)} of {len(todo)} chunks written, about {left_s:.0f} s left")
    unread = [row for row in rows if row["error"]]
    progress(f"{len(rows) - len(unread)} chunks written, {len(unread)} could not be read")
    for row in unread[:_TOLD]:
        progress(f"{row['chunk_id']}: {row['error']}")
    if rows and len(unread) == len(rows):
        raise StageError(f"chunk files: none of {len(rows)} chunks could be read; the first: {unread[0]['error']}")
    return table("chunk_files", rows)


def info_of(recording: "pd.Series[Any]") -> AudioInfo:
    """Return what the inventory says of the sound of a recording, a row of the table `recordings`."""
    n_samples, rate, channels = (int(recording[name]) for name in ("n_samples", "sample_rate", "channels"))
    return AudioInfo(n_samples, rate, channels, str(recording["subtype"]))


def _write_recording(
    root: Path, recording: "pd.Series[Any]", chunks: pd.DataFrame, folder: Path
) -> list[dict[str, Any]]:
    """Write the chunks of one recording; return their rows."""
    rows = []
    info = info_of(recording)
    for chunk in chunks.itertuples(index=False):
        row = {
            "chunk_id": chunk.chunk_id,
            "recording_id": chunk.recording_id,
            "path": None,
            "start_s": chunk.start_sample / info.sample_rate,
            "end_s": chunk.end_sample / info.sample_rate,
            "error": None,
        }
        destination = folder / f"{chunk.chunk_id}.wav"
        try:
            row["offset_s"] = cut_chunk(root, str(recording["path"]), chunk, info, destination)
            row |= {"path": f"{folder.name}/{destination.name}", "sha256": sha256(destination)}
        except DataError as error:
            row["error"] = str(error)
        rows.append(row)
    return rows


def cut_chunk(
    root: Path,
    recording_path: str,
    chunk: Any,
    info: AudioInfo,
    destination: Path,
    *,
    sample_rate: int | None = None,
) -> float:
    """Write a chunk with its context as a WAV file; return the time in s at which the file begins in the recording.

    `chunk` has start_sample, end_sample, context_left and context_right, like a row of the table `chunks`; `info` is
    the recording's. The file holds every channel sample by sample, in the recording's own subtype where WAV has it
    (else PCM_16). With `sample_rate` it is the mean of the channels at that rate, and begins and ends on samples of
    that rate at or just outside the chunk's. Files are whole or absent and the same bytes every time; memory does not
    grow with the chunk. Raises DataError if the recording cannot be decoded, is not what `info` says or the file would
    be larger than WAV allows, MissingPartError if the file cannot be written.
    """
    path = root / recording_path
    start = int(chunk.start_sample) - int(chunk.context_left)
    end = int(chunk.end_sample) + int(chunk.context_right)
    if not 0 <= start < end <= info.n_samples:
        raise DataError(f"{path}: has {info.n_samples} samples, not {start} to {end}; take the inventory anew.")
    rate, channels = info.sample_rate, info.channels
    if sample_rate is not None:
        start, end = start * sample_rate // rate, resampled_length(end, rate, sample_rate)
        rate, channels = sample_rate, 1
    subtype, sample_bytes = _format(info, resampled=sample_rate is not None)
    if (end - start) * channels * sample_bytes > _MOST_BYTES:
        raise DataError(f"{path}: {end - start} samples from {start} do not fit a WAV file; lower chunking.chunk_s.")
    blocks = _copied(path, start, end, info) if sample_rate is None else _resampled(path, start, end, rate, info)
    with (
        replacing(destination) as temporary,
        writing_wav(temporary, sample_rate=rate, channels=channels, subtype=subtype, called=destination) as out,
    ):
        for block in blocks:
            out.write(block)
    return start / rate


def _format(info: AudioInfo, *, resampled: bool) -> tuple[str, int]:
    """Subtype of the WAV file, and bytes of a sample in it."""
    subtype, sample_bytes, _ = _SUBTYPES.get(info.subtype, _PCM_16)
    return _RESAMPLED.get(subtype, (subtype, sample_bytes)) if resampled else (subtype, sample_bytes)


def _copied(path: Path, start: int, end: int, info: AudioInfo) -> Iterator[Block]:
    """Samples [start, end) of all channels as they were recorded."""
    dtype: Any = "float32" if info.subtype.startswith(_LOSSY) else _SUBTYPES.get(info.subtype, _PCM_16)[2]
    with reading_explained(path, "decoded"):
        file = soundfile.SoundFile(path)
    with file:
        if (file.samplerate, file.channels, file.frames) != (info.sample_rate, info.channels, info.n_samples):
            raise DataError(f"{path}: has changed since the inventory; start again, so that it is taken anew.")
        for first in range(start, end, _BLOCK_SAMPLES):
            wanted = min(_BLOCK_SAMPLES, end - first)
            with reading_explained(path, "decoded"):
                reached = file.seek(first) if first == start else first
                block: Block = file.read(wanted, dtype=dtype, always_2d=True) if reached == first else np.zeros((0, 1))
            if len(block) != wanted:
                raise DataError(f"{path}: only {len(block)} of {wanted} samples could be decoded from {first}.")
            yield block


def _resampled(path: Path, start: int, end: int, rate: int, info: AudioInfo) -> Iterator[Block]:
    """Samples [start, end) of the mean of the channels, counted at `rate`."""
    at_once = max(1, _BLOCK_SAMPLES * rate // max(rate, info.sample_rate))
    for first in range(start, end, at_once):
        yield read_at_rate(path, first, min(first + at_once, end), rate, info)
