"""Short-time spectra of the selections of one recording, and of what surrounds them, from one read of the file.

All features are made from frames of one grid over the whole recording (centred frames, Hann, zeros beyond the ends),
of which only those are computed that some selection needs, each once.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from otus import audio
from otus.audio import AudioFile, AudioInfo, Samples
from otus.errors import DataError

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Powers = NDArray[np.float32]

#: The smallest power that decibels are made of.
SMALLEST_POWER = 1e-10

_MELS = 128
_ENTROPY_FLOOR = 1e-12

#: On either side a selection is surrounded by as much as it lasts, within these limits, of which at most so many
#: frames are looked at: steady noise is known well enough from them.
_SURROUNDINGS_S = (0.5, 2.0)
_SURROUNDING_FRAMES = 12

#: The band in parts of equal width, which are compared with surroundings: their noise is known from few frames.
_PARTS = 32

# Memory does not grow with the recording: limits in samples, turned into frames by `_limit`.
_BLOCK_SAMPLES = 2**17  # read and transformed at once, which stays in the processor's cache
_BATCH_SAMPLES = 2**22  # whose spectra are held at once: at most 16 MiB of band power, and the mel bands beside it
_LONGEST_SAMPLES = 2**24  # of one selection, which is then a batch of its own: 6 minutes at 48 kHz
_MERGE_S = 1.0  # reading on over a gap costs less than going to another place in the file

#: What is decoded at once from a file that has to be decoded from its beginning, and how many of these stay at hand.
_SLAB_SAMPLES, _SLABS = 2**18, 6


@dataclass(frozen=True)
class Place:
    """Where a selection lies among the frames of its `Spectra`: a run inside, and single frames around it."""

    row: int
    inside: slice
    around: Indices


@dataclass(frozen=True)
class Spectra:
    """Spectra of some frames (first axis, ascending in time). Energies are sums of |STFT|^2 over bins.

    `band_power` (frames x bins at `band_hz`) is |STFT|^2 inside the band, `energy` its sum, `part_energy` its sums over
    at most 32 parts of the band, `rest_energy` the sum over all other bins (NaN if there are none). `entropy` (bits, of
    the band) and `mel_db` (frames x 128 mel bands, dB) are known of the frames inside selections and NaN elsewhere.
    """

    times_s: Reals
    band_hz: Reals
    band_power: Powers
    energy: Reals
    part_energy: Powers
    rest_energy: Reals
    entropy: Reals
    mel_db: Powers


def fft_length(window_s: float, sample_rate: int) -> int:
    """Return the power of two nearest (in octaves) to the window in samples, 16 at least."""
    return max(16, int(2 ** round(np.log2(window_s * sample_rate))))


def spectra_of(
    path: str | Path,
    info: AudioInfo,
    starts_s: Reals,
    ends_s: Reals,
    *,
    window_s: float,
    low_hz: float,
    high_hz: float,
    with_surroundings: bool,
) -> Iterator[tuple[Spectra, list[Place]]]:
    """Yield spectra and the selections that they hold, until every selection was there once; in order of time.

    The frames inside a selection are those whose centres lie in it (start included, end not), or the one nearest to
    its middle if there is none. Frames are `fft_length` long and overlap by half; the band is low_hz to high_hz.
    What surrounds a selection (if wanted) is up to 2 s before and after it, as far as the recording has them. Samples
    that are not numbers count as silence. What a selection has beyond 2**24 samples (6 minutes at 48 kHz) or 2**17
    frames is not looked at. Frames of overlapping selections are computed once; between distant selections the file
    is not read.

    Raises DataError if the file cannot be decoded, has changed since the inventory, or holds samples too large.
    """
    if not len(starts_s):
        return
    grid = _Grid(info, fft_length(window_s, info.sample_rate), low_hz, high_hz)
    first, stop = grid.frames_of(starts_s, ends_s)
    around = [
        grid.surroundings(int(a), int(b)) if with_surroundings else np.zeros(0, dtype=np.int64)
        for a, b in zip(first, stop, strict=True)
    ]
    with audio.reading_explained(path, "read"), AudioFile(path) as file:
        _check_unchanged(path, file.info, info)
        source = _Source(file)
        for batch in _batches(first, stop, around, _limit(_BATCH_SAMPLES, grid.hop)):
            inside = np.unique(np.concatenate([np.arange(first[row], stop[row]) for row in batch]))
            frames = np.union1d(inside, np.concatenate([around[row] for row in batch]))
            spectra = grid.spectra(source, frames, np.isin(frames, inside, assume_unique=True))
            if not (np.isfinite(spectra.energy).all() and not np.isinf(spectra.rest_energy).any()):
                raise DataError(f"{path}: its samples are too large to describe: write it again within -1 to 1.")
            begin = np.searchsorted(frames, first[batch])
            runs = zip(batch, begin, begin + stop[batch] - first[batch], strict=True)
            yield spectra, [Place(int(row), slice(a, b), np.searchsorted(frames, around[row])) for row, a, b in runs]


class _Source:
    """Samples of an open file. One that is decoded from its beginning keeps what was decoded last for a step back."""

    def __init__(self, file: AudioFile) -> None:
        self._file = file
        self._forward = audio.is_decoded_from_its_beginning(file.info)
        self._slabs: dict[int, Samples] = {}

    def read(self, start: int, end: int) -> Samples:
        """Samples [start, end), zeros where the recording has none."""
        a, b = max(0, start), min(end, self._file.info.n_samples)
        if self._forward and a < b:
            numbers = range(a // _SLAB_SAMPLES, -(-b // _SLAB_SAMPLES))
            whole = np.concatenate([self._slab(number) for number in numbers])
            heard = whole[a - numbers[0] * _SLAB_SAMPLES :][: b - a]
        else:
            heard = self._file.read(a, b)
        return heard if len(heard) == end - start else np.pad(heard, (a - start, end - a - len(heard)))

    def _slab(self, number: int) -> Samples:
        if number not in self._slabs:
            self._slabs[number] = self._file.read(number * _SLAB_SAMPLES, (number + 1) * _SLAB_SAMPLES)
            if len(self._slabs) > _SLABS:
                del self._slabs[min(self._slabs)]
        return self._slabs[number]


class _Grid:
    """The frames of one recording: where they lie, and how their spectra are computed."""

    def __init__(self, info: AudioInfo, n_fft: int, low_hz: float, high_hz: float) -> None:
        self.info, self.n_fft, self.hop = info, n_fft, n_fft // 2
        self.frequencies = np.arange(n_fft // 2 + 1, dtype=np.float64) * (info.sample_rate / n_fft)
        low = min(int(np.searchsorted(self.frequencies, max(0.0, low_hz), "left")), len(self.frequencies) - 1)
        high = int(np.searchsorted(self.frequencies, high_hz, "right"))
        self.band = slice(low, max(high, low + 1))
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)

    def frames_of(self, starts_s: Reals, ends_s: Reals) -> tuple[Indices, Indices]:
        """The half-open range of frames of each selection; frame k is centred on sample k * hop."""
        rate, hop = self.info.sample_rate, self.hop
        start = np.rint(starts_s * rate).astype(np.int64)
        end = np.minimum(np.rint(ends_s * rate).astype(np.int64), self.info.n_samples)
        first, stop = -(-start // hop), -(-end // hop)
        nearest = np.minimum(np.rint((start + end) / (2 * hop)).astype(np.int64), self.info.n_samples // hop)
        first = np.where(stop > first, first, nearest)
        return first, np.clip(stop, first + 1, first + _limit(_LONGEST_SAMPLES, hop))

    def surroundings(self, first: int, stop: int) -> Indices:
        """Evenly spaced frames before and after frames [first, stop), ascending."""
        shortest, longest = (round(side_s * self.info.sample_rate / self.hop) for side_s in _SURROUNDINGS_S)
        reach = min(max(stop - first, shortest), longest)
        steps = np.arange(1, reach + 1, max(1, -(-reach // _SURROUNDING_FRAMES)))
        frames = np.concatenate([first - steps[::-1], stop - 1 + steps])
        kept: Indices = frames[(frames >= 0) & (frames <= self.info.n_samples // self.hop)]
        return kept

    def spectra(self, source: _Source, frames: Indices, inside: Flags) -> Spectra:
        """The spectra of these frames (ascending), read and transformed block by block."""
        band_hz = self.frequencies[self.band]
        borders = np.unique(np.linspace(0, len(band_hz), _PARTS, endpoint=False).astype(np.int64))
        band_power = np.empty((len(frames), len(band_hz)), dtype=np.float32)
        mel_db = np.full((len(frames), _MELS), np.nan, dtype=np.float32)
        energy, rest_energy, entropy = np.full((3, len(frames)), np.nan)
        bank = mel_bank(self.info.sample_rate, self.n_fft).T
        for block in self._blocks(frames):
            power = self._power(source, frames[block])
            band_power[block] = power[:, self.band]
            energy[block] = band_power[block].sum(axis=1, dtype=np.float64)
            if len(band_hz) < len(self.frequencies):
                rest_energy[block] = np.maximum(power.sum(axis=1, dtype=np.float64) - energy[block], 0.0)
            rows = block.start + np.flatnonzero(inside[block])
            entropy[rows] = entropies(band_power[rows], energy[rows])
            mel_db[rows] = 10 * np.log10(np.maximum(power[inside[block]] @ bank, np.float32(SMALLEST_POWER)))
        part_energy: Powers = np.add.reduceat(band_power, borders, axis=1)
        times_s: Reals = frames.astype(np.float64) * (self.hop / self.info.sample_rate)
        return Spectra(times_s, band_hz, band_power, energy, part_energy, rest_energy, entropy, mel_db)

    def _blocks(self, frames: Indices) -> Iterator[slice]:
        """Runs of frames without long gaps that span at most _BLOCK_SAMPLES."""
        span = _limit(_BLOCK_SAMPLES, self.hop)
        gap = max(2, int(_MERGE_S * self.info.sample_rate) // self.hop)
        begin = 0
        for index in range(1, len(frames) + 1):
            if index == len(frames) or frames[index] - frames[index - 1] > gap or frames[index] - frames[begin] >= span:
                yield slice(begin, index)
                begin = index

    def _power(self, source: _Source, frames: Indices) -> Powers:
        """|STFT|^2 of the frames (frames x bins) from one read of the stretch they span."""
        samples = source.read(int(frames[0] - 1) * self.hop, int(frames[-1] + 1) * self.hop)
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        heard = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)[(frames - frames[0]) * self.hop]
        heard *= self.window
        spectrum = scipy.fft.rfft(heard, axis=1, overwrite_x=True)
        power: Powers = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        return power


@functools.lru_cache(maxsize=8)
def mel_bank(sample_rate: int, n_fft: int) -> Powers:
    """Return Slaney's triangular mel filters (bands x bins): 128 from 0 Hz to half the sample rate, of equal area.

    The mel scale of Slaney's Auditory Toolbox (1998): 200/3 Hz per mel up to 1 kHz, then 27 mel per factor 6.4.
    """
    log_step = np.log(6.4) / 27
    top_hz = sample_rate / 2
    top_mel = top_hz * 3 / 200 if top_hz < 1000 else 15 + np.log(top_hz / 1000) / log_step
    mels = np.linspace(0, top_mel, _MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(log_step * (np.maximum(mels, 15) - 15)))
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    ramps = edges[:, np.newaxis] - bins
    widths = np.diff(edges)[:, np.newaxis]
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    bank: Powers = (triangles * (2 / (edges[2:] - edges[:-2]))[:, np.newaxis]).astype(np.float32)
    bank.flags.writeable = False
    return bank


def entropies(power: NDArray[np.floating], total: NDArray[np.floating]) -> Reals:
    """Return the entropy in bits of each row's shares of its total; shares below 1e-12 count as that much."""
    shares = np.clip(power / (total + _ENTROPY_FLOOR)[:, np.newaxis].astype(power.dtype), _ENTROPY_FLOOR, 1)
    entropy: Reals = -(shares * np.log2(shares)).sum(axis=1, dtype=np.float64)
    return entropy


def _check_unchanged(path: str | Path, found: AudioInfo, known: AudioInfo) -> None:
    if (found.n_samples, found.sample_rate) != (known.n_samples, known.sample_rate):
        raise DataError(
            f"{path}: has changed since the inventory, from {known.n_samples} samples at {known.sample_rate} Hz to "
            f"{found.n_samples} at {found.sample_rate} Hz; start again, so that it is taken anew."
        )


def _limit(samples: int, hop: int) -> int:
    """How many frames that is; with a short hop the mel bands of a frame take more room than its samples."""
    return max(1, samples // max(hop, _MELS))


def _batches(first: Indices, stop: Indices, around: list[Indices], limit: int) -> Iterator[Indices]:
    """Selections in order of time, so many at once that their frames together stay within the limit."""
    order = np.lexsort((stop, first))
    begin, held = 0, 0
    for place, row in enumerate(order):
        length = int(stop[row] - first[row]) + len(around[row])
        if place > begin and held + length > limit:
            yield order[begin:place]
            begin, held = place, 0
        held += length
    yield order[begin:]
