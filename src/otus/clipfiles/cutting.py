"""Pictures and cut-out sounds of clips, read by position from one open recording at a time in every thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from otus.clipfiles.images import palette, spectrogram_levels, write_png
from otus.config import ClipImageSettings
from otus.errors import DataError
from otus.wav import writing_wav

_REPORT_EVERY_S = 10.0
_BLOCK_SAMPLES = 1_000_000
#: Clips that one thread takes at a time, so that a corpus of one long recording keeps all of them busy.
_CLIPS_AT_A_TIME = 250

#: Subtypes that a WAV file keeps as they are, and the type that holds their samples. All others become PCM_16.
_KEPT = {
    "PCM_U8": "int16", "PCM_16": "int16", "PCM_24": "int32", "PCM_32": "int32", "FLOAT": "float32", "DOUBLE": "float64",
}  # fmt: skip
#: Lossy formats decode to floats that can lie beyond full scale; as integers they would wrap around.
_LOSSY = ("VORBIS", "OPUS", "MPEG")


@dataclass(frozen=True)
class Cut:
    """One clip [start, end) of a recording in samples, and the files wanted of it, below the output folder."""

    uid: int
    start: int
    end: int
    picture: str | None
    sound: str | None


@dataclass(frozen=True)
class RecordingCuts:
    """Clips of one recording; `path` lies below the corpus root."""

    recording_id: str
    path: str
    sample_rate: int
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Unread:
    """How many clips of a recording have no picture or sound, and why."""

    recording_id: str
    path: str
    clips: int
    reason: str


@dataclass
class Written:
    """What has been written: the path of the picture by uid, the number of sounds, and what could not be read."""

    pictures: dict[int, str] = field(default_factory=dict)
    sounds: int = 0
    unread: list[Unread] = field(default_factory=list)


def plan_cuts(clips: pd.DataFrame, images: ClipImageSettings | None, *, audio: bool) -> list[RecordingCuts]:
    """Return what is to be cut, by recording and start; nothing if neither kind of file is wanted.

    `clips` has the columns of named_clips. With `max_per_class` every label has that many pictures, evenly spaced
    over its clips. A recording with many clips comes in several parts.
    """
    if images is None and not audio:
        return []
    wanted = set(_evenly(clips, images.max_per_class)) if images is not None else set()
    plans = []
    for recording_id, rows in clips.sort_values("uid").groupby("recording_id", sort=True):
        cuts = []
        for row in rows.to_dict("records"):
            picture = f"spectrograms/{row['folder']}/{row['name']}.png" if row["uid"] in wanted else None
            sound = f"audio/{row['name']}.wav" if audio else None
            if picture or sound:
                cuts.append(Cut(row["uid"], int(row["start_sample"]), int(row["end_sample"]), picture, sound))
        path, rate = rows["path"].iloc[0], int(rows["sample_rate"].iloc[0])
        parts = (tuple(cuts[i : i + _CLIPS_AT_A_TIME]) for i in range(0, len(cuts), _CLIPS_AT_A_TIME))
        plans += [RecordingCuts(str(recording_id), path, rate, part) for part in parts]
    return plans


def write_cuts(
    folder: Path,
    root: Path,
    plans: Sequence[RecordingCuts],
    images: ClipImageSettings | None,
    *,
    workers: int,
    progress: Callable[[str], None],
) -> Written:
    """Write the pictures and sounds of `plans` below `folder`, with `workers` threads (the work releases the GIL).

    Pictures show the mean of the channels, sounds keep all of them, sample by sample, in the recording's own subtype
    if a WAV file can hold it, else as PCM_16. A clip that cannot be read is counted, and the others go on. Raises
    DataError for an unknown colour map and MissingPartError if a sound cannot be written.
    """
    colours = palette(images.colours) if images is not None else b""
    for name in {str(Path(f).parent) for plan in plans for cut in plan.cuts for f in (cut.picture, cut.sound) if f}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    total, done, written = sum(len(plan.cuts) for plan in plans), 0, Written()
    begun = reported = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for plan, own in zip(plans, pool.map(lambda p: _write(folder, root, p, images, colours), plans), strict=True):
            written.pictures |= own.pictures
            written.sounds += own.sounds
            _add(written.unread, own.unread)
            done += len(plan.cuts)
            now = time.monotonic()
            if now - reported >= _REPORT_EVERY_S:
                reported = now
                left_s = (now - begun) * (total - done) / done
                progress(f"pictures and sounds of {done} of {total} clips, about {left_s:.0f} s left")
    return written


def _add(unread: list[Unread], more: Sequence[Unread]) -> None:
    """Add what could not be read in a part of a recording to what could not be read in the parts before."""
    for one in more:
        if unread and unread[-1].recording_id == one.recording_id:
            unread[-1] = replace(unread[-1], clips=unread[-1].clips + one.clips)
        else:
            unread.append(one)


def _write(folder: Path, root: Path, plan: RecordingCuts, images: ClipImageSettings | None, colours: bytes) -> Written:
    """The files of one recording."""
    written = Written()
    failed = 0
    reason = ""
    try:
        with _opened(root / plan.path, plan.sample_rate) as file:
            for cut in plan.cuts:
                try:
                    _write_cut(folder, file, cut, images, colours)
                except DataError as error:
                    failed, reason = failed + 1, reason or str(error)
                    continue
                written.sounds += cut.sound is not None
                if cut.picture is not None:
                    written.pictures[cut.uid] = cut.picture
    except DataError as error:
        failed, reason = len(plan.cuts), str(error)
    if failed:
        written.unread.append(Unread(plan.recording_id, plan.path, failed, reason))
    return written


def _write_cut(folder: Path, file: Any, cut: Cut, images: ClipImageSettings | None, colours: bytes) -> None:
    if not 0 <= cut.start < cut.end <= file.frames:
        raise DataError(f"has no samples {cut.start} to {cut.end}: it has {file.frames}")
    if cut.picture is not None and images is not None:
        context = round(images.context_s * file.samplerate)
        first, end = max(0, cut.start - context), min(file.frames, cut.end + context)

        def read(start: int, stop: int) -> NDArray[np.float32]:
            block = _read(file, first + start, first + stop, "float32")
            return np.asarray(block.mean(axis=1, dtype=np.float32))

        levels = spectrogram_levels(read, end - first, file.samplerate, images)
        write_png(folder / cut.picture, levels, colours)
    if cut.sound is not None:
        _write_sound(folder / cut.sound, file, cut)


def _write_sound(path: Path, file: Any, cut: Cut) -> None:
    """Copy the samples of `cut` into a WAV file, block by block."""
    subtype = file.subtype if file.subtype in _KEPT else "PCM_16"
    dtype = _KEPT.get(file.subtype, "float32" if file.subtype.startswith(_LOSSY) else "int16")
    try:
        with writing_wav(path, sample_rate=file.samplerate, channels=file.channels, subtype=subtype) as out:
            for start in range(cut.start, cut.end, _BLOCK_SAMPLES):
                block = _read(file, start, min(start + _BLOCK_SAMPLES, cut.end), dtype)
                out.write(block)
    except DataError:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _opened(path: Path, sample_rate: int) -> Iterator[Any]:
    """The recording, as long as it is what the inventory has seen; DataError gives the reason without the path."""
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        reason = "is no longer there" if not path.exists() else f"cannot be opened ({_said(error)})"
        raise DataError(reason) from error
    with file:
        if file.samplerate != sample_rate:
            raise DataError(f"has changed since the inventory: its rate is {file.samplerate}, not {sample_rate} Hz")
        yield file


def _read(file: Any, start: int, end: int, dtype: str) -> NDArray[Any]:
    """Samples [start, end) of all channels."""
    try:
        file.seek(start)
        block: NDArray[Any] = file.read(end - start, dtype=dtype, always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise DataError(f"cannot be decoded at sample {start} ({_said(error)})") from error
    if len(block) != end - start:
        raise DataError(f"ends early: only {len(block)} of {end - start} samples could be decoded from {start}")
    return block


def _said(error: Exception) -> str:
    """What libsndfile or the system says, without the name of the file."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    return str(text).split("\n")[0].rstrip(". ")


def _evenly(clips: pd.DataFrame, most: int | None) -> list[int]:
    """The uids of at most `most` clips of every folder, evenly spaced."""
    chosen: list[int] = []
    for _, uids in clips.sort_values("uid").groupby("folder", sort=True)["uid"]:
        values = uids.to_numpy(dtype=np.int64)
        n = len(values) if most is None else min(most, len(values))
        chosen += values[np.linspace(0, len(values) - 1, n).round().astype(int)].tolist()
    return chosen
