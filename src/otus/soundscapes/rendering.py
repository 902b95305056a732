"""One recording: background and events at their levels, mixed and written block by block."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from otus.atomic import replacing
from otus.audio import Samples
from otus.errors import MissingPartError
from otus.soundscapes.background import Bed, read_bed
from otus.soundscapes.placement import Place
from otus.soundscapes.sounds import EventSound, rms
from otus.soundscapes.sources import Cut

BLOCK_S = 10.0

_FULL_SCALE = 32767

#: The loudest sample of a recording that would clip.
_CEILING = 0.99

#: A WAV file has room for so many bytes of samples and some of header.
_LARGEST_WAV = 2**32 - 2**16


@dataclass(frozen=True)
class Sounds:
    """Where the samples of cuts come from: events as their clips have them, background pieces at level with ramps."""

    event: Callable[[Cut], EventSound]
    piece: Callable[[Cut], Samples]


@dataclass(frozen=True)
class Event:
    """An event in a recording: the samples of `cut` times `gain`, from sample `start` on."""

    start: int
    label: str
    cut: Cut
    gain: float

    @property
    def end(self) -> int:
        """One past the last sample."""
        return self.start + self.cut.n_samples


@dataclass(frozen=True)
class Scene:
    """All that a recording of `n_samples` consists of; events in order of time, `gain` applies to everything."""

    n_samples: int
    sample_rate: int
    bed: Bed
    events: tuple[Event, ...]
    gain: float = 1.0

    @cached_property
    def longest_event(self) -> int:
        """Samples of the longest event."""
        return max((event.cut.n_samples for event in self.events), default=0)


@dataclass(frozen=True)
class Heard:
    """An event as written: its SNR (dB) and the gain from clip to file (dB), and its band (Hz)."""

    event: Event
    snr_db: float
    gain_db: float
    low_hz: float
    high_hz: float


def compose(
    n_samples: int, sample_rate: int, bed: Bed, places: Sequence[Place], sounds: Sounds
) -> tuple[Scene, tuple[Heard, ...], Counter[str]]:
    """Return the recording, what is heard in it, and by label how many events were left out as too faint for 16 bits.

    Every event gets the SNR of its place: its RMS over its own length against the RMS of the background there. If the
    sum would clip, the whole recording is lowered, so that every SNR stays.
    """
    events = tuple(_at_level(place, bed, sounds) for place in places)
    scene = Scene(n_samples, sample_rate, bed, events)
    peak = max(float(np.abs(block).max(initial=0.0)) for block in _blocks(scene, sounds, BLOCK_S))
    gain = min(1.0, _CEILING / peak) if peak > 0.0 else 1.0
    heard = [(event, _heard(event, bed, gain, sounds)) for event in events]
    faint = Counter(event.label for event, found in heard if found is None)
    kept = tuple(found for _, found in heard if found is not None)
    return Scene(n_samples, sample_rate, bed, tuple(found.event for found in kept), gain), kept, faint


def render(scene: Scene, start: int, end: int, sounds: Sounds) -> Samples:
    """Return samples [start, end) of a recording, the same to the bit wherever the stretch begins and ends."""
    out = read_bed(scene.bed, start, end, sounds.piece)
    for event in _between(scene, start, end):
        first, last = max(start, event.start), min(end, event.end)
        heard = sounds.event(event.cut).samples[first - event.start : last - event.start]
        out[first - start : last - start] += np.float32(event.gain) * heard
    out *= np.float32(scene.gain)
    return out


def to_pcm(samples: Samples) -> NDArray[np.int16]:
    """Return samples in [-1, 1] as 16-bit integers."""
    pcm: NDArray[np.int16] = np.rint(samples * np.float32(_FULL_SCALE)).astype(np.int16)
    return pcm


def write_recording(
    path: Path,
    scene: Scene,
    sounds: Sounds,
    *,
    block_s: float = BLOCK_S,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Write a recording as 16-bit FLAC or WAV (by the suffix of `path`), calling `advance` with seconds written.

    The bytes do not depend on the length of the blocks. Raises MissingPartError if the disk does not take the file.
    """
    format_ = container(path.suffix, scene.n_samples)
    with replacing(path) as temporary:
        try:
            with soundfile.SoundFile(
                temporary, "w", scene.sample_rate, channels=1, subtype="PCM_16", format=format_
            ) as file:
                for block in _blocks(scene, sounds, block_s):
                    file.write(to_pcm(block))
                    advance(len(block) / scene.sample_rate)
        except soundfile.LibsndfileError as error:
            what = error.error_string.rstrip(". ")
            raise MissingPartError(
                f"{path}: could not be written ({what}); see whether the disk, the quota or the largest file size "
                "(ulimit -f) has room for it, and start again."
            ) from error


def container(suffix: str, n_samples: int) -> str:
    """Return the format that a mono file of 16 bits is written in: RF64 where a WAV file would be too large."""
    if suffix == ".flac":
        return "FLAC"
    return "WAV" if 2 * n_samples <= _LARGEST_WAV else "RF64"


def _at_level(place: Place, bed: Bed, sounds: Sounds) -> Event:
    """The event with its gain; 0 where there is nothing to compare."""
    own, ground = sounds.event(place.cut).rms, rms(read_bed(bed, place.start, place.end, sounds.piece))
    gain = ground / own * 10.0 ** (place.snr_db / 20.0) if own > 0.0 else 0.0
    return Event(place.start, place.label, place.cut, gain)


def _heard(event: Event, bed: Bed, scene_gain: float, sounds: Sounds) -> Heard | None:
    """The event measured in the 16-bit samples of itself and of the background; None if either has none but zeros."""
    sound = sounds.event(event.cut)
    own = rms(to_pcm(np.float32(event.gain) * sound.samples * np.float32(scene_gain)))
    ground = rms(to_pcm(read_bed(bed, event.start, event.end, sounds.piece) * np.float32(scene_gain)))
    if own == 0.0 or ground == 0.0:
        return None
    gain_db = 20.0 * np.log10(event.gain * scene_gain)
    return Heard(event, float(20.0 * np.log10(own / ground)), float(gain_db), sound.low_hz, sound.high_hz)


def _blocks(scene: Scene, sounds: Sounds, block_s: float) -> Iterator[Samples]:
    step = max(1, round(block_s * scene.sample_rate))
    for start in range(0, scene.n_samples, step):
        yield render(scene, start, min(start + step, scene.n_samples), sounds)


def _between(scene: Scene, start: int, end: int) -> Iterator[Event]:
    """The events that overlap [start, end), in order."""
    index = bisect_left(scene.events, start - scene.longest_event, key=lambda event: event.start)
    while index < len(scene.events) and scene.events[index].start < end:
        if scene.events[index].end > start:
            yield scene.events[index]
        index += 1
