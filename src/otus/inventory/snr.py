"""How much louder calls are than the background beside them, in their own frequency band.

    SNR = 10 log10((P - N) / N) dB

P is the mean power in the band during the call; N is the power in the band in up to 2 s on each side, outside of any
annotation: the median over short frames, divided by the ratio of median and mean that noise has. It depends on how
tightly calls are boxed, on the recorder and on the place: compare it within a corpus only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Reals = NDArray[np.float64]
Positions = NDArray[np.int64]

#: Where the background of a call is looked for (s), and the least that tells its level.
_BESIDE_S, _LEAST_BACKGROUND_S = 2.0, 0.1
#: What is told: a call under the background has the lowest, a call in digital silence the highest (dB).
_LOWEST_DB, _HIGHEST_DB = -20.0, 60.0
#: The band of a label of which no annotation has one begins here (Hz).
_LOW_HZ = 100.0
#: A frame divides the band into about four, but has no less and no more than this (s), nor fewer samples.
_PARTS_OF_BAND, _SHORTEST_FRAME_S, _LONGEST_FRAME_S, _LEAST_FRAME = 4, 0.01, 0.1, 16
#: Of a longer call its middle is measured (s), and so many frames of a call and of its background, evenly spread.
_LONGEST_CALL_S, _MOST_FRAMES = 60.0, 200
#: Neighbouring bins of a Hann window are not independent: so many of them are worth one.
_HANN_BINS = 1.5


class Readable(Protocol):
    """What of an open recording is needed (`otus.audio.AudioFile`)."""

    def read(self, start: int, end: int) -> Samples:
        """Return samples [start, end)."""


@dataclass(frozen=True, slots=True)
class Call:
    """An annotated call: start and end in s, and its band in Hz."""

    start_s: float
    end_s: float
    low_hz: float
    high_hz: float


@dataclass(frozen=True, slots=True)
class _Held:
    """A stretch of a recording that was read already, from sample `first` on."""

    samples: Samples
    first: int

    def read(self, start: int, end: int) -> Samples:
        return self.samples[start - self.first : end - self.first]


def typical_band(bands: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the band (Hz) of calls that have none of their own: the medians of `bands`, or 100 Hz and up."""
    if not bands:
        return _LOW_HZ, math.inf
    low_hz, high_hz = np.median(np.asarray(bands, dtype=np.float64), axis=0)
    return float(low_hz), float(high_hz)


def calls_snr_db(
    recording: Readable, n_samples: int, sample_rate: int, calls: Sequence[Call], busy_s: Sequence[tuple[float, float]]
) -> list[float | None]:
    """Return the SNR (dB, two decimals, -20 to 60) of every call of one recording; calls are best in order of time.

    `busy_s` are start and end of everything annotated there, which is no background. None where there is less than
    0.1 s of background, the band lies above half the sample rate, the call has fewer than 16 samples, or there is no
    sound at all. Raises what reading raises.
    """
    busy = _merged(np.asarray(busy_s, dtype=np.float64).reshape(-1, 2) * sample_rate)
    return [_snr_db(recording, n_samples, sample_rate, call, busy) for call in calls]


def _snr_db(
    recording: Readable, n_samples: int, sample_rate: int, call: Call, busy: tuple[Positions, Positions]
) -> float | None:
    first, last = max(0, round(call.start_s * sample_rate)), min(n_samples, round(call.end_s * sample_rate))
    length = _frame_length(call, last - first, sample_rate)
    band = _band(call, length, sample_rate)
    if last - first < _LEAST_FRAME or band is None:
        return None
    beside = int(_BESIDE_S * sample_rate)
    sides = (max(0, first - beside), first), (last, min(n_samples, last + beside))
    pieces = [piece for side in sides for piece in _gaps(*side, *busy) if piece[1] - piece[0] >= length]
    if sum(b - a for a, b in pieces) < _LEAST_BACKGROUND_S * sample_rate:
        return None
    background = np.concatenate([np.arange(a, b - length + 1, length) for a, b in pieces])
    middle, end = _middle(first, last, int(_LONGEST_CALL_S * sample_rate))
    during = np.append(np.arange(middle, end - length, max(1, length // 2)), end - length)
    if middle == first:  # in one stretch, so that what neighbouring calls share is decoded once
        recording = _Held(recording.read(sides[0][0], sides[1][1]), sides[0][0])
    before, signal, after = (
        _power(recording.read(a, b), _thinned(starts) - a, length, band)
        for (a, b), starts in (
            (sides[0], background[background < first]),
            ((middle, end), during),
            (sides[1], background[background >= last]),
        )
    )
    noise = float(np.median(np.concatenate([before, after])))
    return _decibels(float(signal.mean()), noise / _median_to_mean(band.stop - band.start))


def _decibels(signal: float, noise: float) -> float | None:
    """The SNR of a power that is signal and noise against that of noise alone, within its limits."""
    if not math.isfinite(signal + noise) or (signal == 0.0 and noise == 0.0):
        return None
    if noise == 0.0:
        return _HIGHEST_DB
    excess = (signal - noise) / noise
    return round(min(max(10.0 * math.log10(excess), _LOWEST_DB), _HIGHEST_DB), 2) if excess > 0.0 else _LOWEST_DB


def _median_to_mean(n_bins: int) -> float:
    """The median of noise power in a band by its mean, as of a gamma distribution (Wilson and Hilferty 1931)."""
    return (1.0 - 1.0 / (9.0 * max(1.0, n_bins / _HANN_BINS))) ** 3


def _frame_length(call: Call, n_samples: int, sample_rate: int) -> int:
    """A power of two of samples, short enough for the call."""
    width_hz = max(min(call.high_hz, sample_rate / 2) - call.low_hz, 1e-9)
    wanted_s = min(max(_PARTS_OF_BAND / width_hz, _SHORTEST_FRAME_S), _LONGEST_FRAME_S)
    longest = int(math.log2(max(n_samples, _LEAST_FRAME)))
    return max(_LEAST_FRAME, int(2 ** min(round(math.log2(wanted_s * sample_rate)), longest)))


def _band(call: Call, length: int, sample_rate: int) -> slice | None:
    """The bins of a spectrum that are in the band, or the nearest one; never the constant part."""
    spacing, half = sample_rate / length, sample_rate / 2
    if call.low_hz >= half:
        return None
    high_hz = min(call.high_hz, half)
    low, high = max(1, math.ceil(call.low_hz / spacing)), math.floor(high_hz / spacing) + 1
    if high > low:
        return slice(low, high)
    nearest = min(max(1, round((call.low_hz + high_hz) / 2 / spacing)), length // 2)
    return slice(nearest, nearest + 1)


def _power(samples: Samples, starts: Positions, length: int, band: slice) -> Reals:
    """The power in the band of each frame, in units that the call and its background share."""
    frames = samples[starts[:, None] + np.arange(length)]
    frames = frames - frames.mean(axis=1, keepdims=True)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
    spectra = scipy.fft.rfft(frames * window, axis=1)[:, band]
    return np.asarray((spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2).sum(axis=1))


def _thinned(starts: Positions) -> Positions:
    """At most 200 of the frames, evenly spread."""
    if len(starts) <= _MOST_FRAMES:
        return starts
    return starts[np.linspace(0, len(starts) - 1, _MOST_FRAMES).round().astype(np.int64)]


def _middle(first: int, last: int, longest: int) -> tuple[int, int]:
    """The middle of a stretch, if it is longer than `longest` samples."""
    cut = max(0, last - first - longest) // 2
    return first + cut, last - cut


def _merged(intervals: Reals) -> tuple[Positions, Positions]:
    """First sample and end of the disjoint stretches that intervals (in samples) cover, in order."""
    if len(intervals) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    start, end = np.floor(ordered[:, 0]), np.maximum.accumulate(np.ceil(ordered[:, 1]))
    begins = np.flatnonzero(np.append(True, start[1:] > end[:-1]))
    return start[begins].astype(np.int64), end[np.append(begins[1:], len(start)) - 1].astype(np.int64)


def _gaps(begin: int, end: int, busy_from: Positions, busy_to: Positions) -> list[tuple[int, int]]:
    """The stretches of [begin, end) outside of the busy ones, in order."""
    first, stop = np.searchsorted(busy_to, begin, side="right"), np.searchsorted(busy_from, end, side="left")
    edges = [begin, *np.stack([busy_from[first:stop], busy_to[first:stop]], axis=1).ravel().tolist(), end]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
