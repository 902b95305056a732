"""The samples of cuts: read, brought to level and faded; and a memory of bounded size for those used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft, rfftfreq

from otus import audio
from otus.audio import Samples
from otus.soundscapes.sources import Cut

Item = TypeVar("Item")

#: The band of an event leaves out this share of its energy at either end.
_OUTSIDE_BAND = 0.01


@dataclass(frozen=True)
class EventSound:
    """An event as its clip has it, faded: samples, their RMS, and the band (Hz) that holds 98 % of the energy."""

    samples: Samples
    rms: float
    low_hz: float
    high_hz: float


def event_sound(folder: Path, cut: Cut, sample_rate: int, fade_s: float) -> EventSound:
    """Return the event `cut` of a clip below `folder` at `sample_rate`, with raised-cosine fades at both ends.

    A fade is never longer than half the event. Raises DataError if the clip cannot be read any more.
    """
    samples = _read(folder, cut, sample_rate)
    fade = min(round(fade_s * sample_rate), len(samples) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))).astype(np.float32)
    samples[:fade] *= ramp
    samples[len(samples) - fade :] *= ramp[::-1]
    samples.flags.writeable = False
    return EventSound(samples, rms(samples), *_band(samples, sample_rate))


def background_piece(folder: Path, cut: Cut, sample_rate: int, level_dbfs: float, crossfade: int) -> Samples:
    """Return the piece `cut` of a background clip with an RMS of `level_dbfs` (before its ramps).

    The first and the last `crossfade` samples are the ramps of an equal-power crossfade. A piece that is silent at
    this rate stays silent.
    """
    samples = _read(folder, cut, sample_rate)
    samples *= np.float32(10.0 ** (level_dbfs / 20.0) / max(rms(samples), 1e-12))
    ramp = np.sin(0.5 * np.pi * (np.arange(crossfade) + 0.5) / crossfade).astype(np.float32)
    samples[:crossfade] *= ramp
    samples[len(samples) - crossfade :] *= ramp[::-1]
    samples.flags.writeable = False
    return samples


def rms(samples: NDArray[Any]) -> float:
    """Return the root mean square; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


class Shelf(Generic[Item]):
    """Keeps the items used last, up to a size in bytes; several threads may ask at a time."""

    def __init__(self, make: Callable[[Cut], Item], size_of: Callable[[Item], int], limit_bytes: int) -> None:
        self._make, self._size_of, self._limit = make, size_of, limit_bytes
        self._items: OrderedDict[Cut, Item] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __call__(self, cut: Cut) -> Item:
        """Return the item of `cut`, made anew if it is not kept."""
        with self._lock:
            if cut in self._items:
                self._items.move_to_end(cut)
                return self._items[cut]
        item = self._make(cut)
        with self._lock:
            if cut not in self._items:
                self._items[cut] = item
                self._bytes += self._size_of(item)
            while self._bytes > self._limit and len(self._items) > 1:
                _, oldest = self._items.popitem(last=False)
                self._bytes -= self._size_of(oldest)
        return item


def _read(folder: Path, cut: Cut, sample_rate: int) -> Samples:
    samples = audio.read_at_rate(folder / cut.path, cut.start, cut.end, sample_rate, cut.info)
    return np.subtract(samples, np.float32(cut.mean))


def _band(samples: Samples, sample_rate: int) -> tuple[float, float]:
    """The frequencies (Hz) below which 1 % and 99 % of the energy lie, at least one step of the spectrum apart."""
    energy = np.cumsum(np.abs(rfft(samples.astype(np.float64))) ** 2)
    frequencies = rfftfreq(len(samples), 1.0 / sample_rate)
    if len(frequencies) < 2 or energy[-1] == 0.0:
        return 0.0, sample_rate / 2.0
    low, high = np.searchsorted(energy, [_OUTSIDE_BAND * energy[-1], (1.0 - _OUTSIDE_BAND) * energy[-1]])
    low = min(int(low), len(frequencies) - 2)
    return float(frequencies[low]), float(frequencies[max(int(high), low + 1)])
