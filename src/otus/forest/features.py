"""What the forest knows of a selection: its score, Raven-like robust measures in the band, MFCC and their deltas.

The names and their order are those of the alpaca post-filter, so that its tables and forests can be compared.
A recording is transformed once: short-time spectra on one grid over the whole recording (centred frames, Hann,
zeros beyond the ends), of which only those are computed that some selection needs.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d

from otus import audio
from otus.audio import AudioInfo
from otus.errors import DataError

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]
Powers = NDArray[np.float32]

#: Measures from the distribution of power over time and frequency, by Raven Pro's names.
ROBUST_NAMES = (
    "Dur 90% (s)",
    "Dur 50% (s)",
    "Center Freq (Hz)",
    "Freq 5% (Hz)",
    "Freq 25% (Hz)",
    "Freq 75% (Hz)",
    "Freq 95% (Hz)",
    "BW 50% (Hz)",
    "BW 90% (Hz)",
    "Avg Entropy (bits)",
    "Agg Entropy (bits)",
)

_MELS = 128
_TOP_DB = 80.0
_SMALLEST_POWER = 1e-10
_ENTROPY_FLOOR = 1e-12

#: Savitzky-Golay kernels over nine frames: slope of a line, second derivative of a parabola (as librosa's delta).
_DELTA = np.arange(-4.0, 5.0) / 60
_DELTA_DELTA = np.array([28, 7, -8, -17, -20, -17, -8, 7, 28]) / 462

# Memory does not grow with the recording: limits in samples, turned into frames by `_limit`.
_BLOCK_SAMPLES = 2**19  # read and transformed at once
_BATCH_SAMPLES = 2**22  # whose spectra are held at once: at most 16 MiB of band power, and the mel bands beside it
_LONGEST_SAMPLES = 2**24  # of one selection, which is then a batch of its own: 6 minutes at 48 kHz
_MERGE_S = 1.0  # reading on over a gap costs less than opening the file again


def feature_names(n_mfcc: int) -> tuple[str, ...]:
    """Return the names of the features in the order of the columns: 12 + 6 * n_mfcc."""
    kinds = [f"{prefix}mfcc{number}" for prefix in ("", "d_", "dd_") for number in range(1, n_mfcc + 1)]
    statistics = [f"{kind}_{statistic}" for kind in kinds for statistic in ("mean", "std")]
    return ("cnn_logit_mean", *ROBUST_NAMES, *statistics)


#: The 90 features of the alpaca post-filter (13 MFCC).
FEATURE_NAMES = feature_names(13)


def fft_length(window_s: float, sample_rate: int) -> int:
    """Return the power of two nearest (in octaves) to the window in samples, 16 at least."""
    return max(16, int(2 ** round(np.log2(window_s * sample_rate))))


def selection_features(
    path: str | Path,
    info: AudioInfo,
    start_s: ArrayLike,
    end_s: ArrayLike,
    score: ArrayLike,
    *,
    window_s: float,
    low_hz: float,
    high_hz: float,
    n_mfcc: int,
) -> Reals:
    """Return the features (selections x `feature_names(n_mfcc)`) of all selections of one recording; all finite.

    A selection is described by the frames whose centres lie in it (start included, end not), or by the frame
    nearest to its middle if there is none. Frames are `fft_length` long and overlap by half. The robust measures
    look at low_hz to high_hz; the MFCC (librosa's: 128 Slaney mel bands up to half the sample rate, at most 80 dB
    below the selection's loudest) at everything. Samples that are not numbers count as silence. What a selection
    has beyond 2**24 samples (6 minutes at 48 kHz) or 2**17 frames is not looked at.
    Frames of overlapping selections are computed once; between distant selections the file is not read.

    Raises DataError if the file cannot be decoded, a selection is not inside it, or a score is not finite.
    """
    starts, ends, scores = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (start_s, end_s, score))
    grid = _Grid(Path(path), info, fft_length(window_s, info.sample_rate), low_hz, high_hz)
    features = np.empty((len(starts), len(feature_names(n_mfcc))))
    features[:, 0] = scores
    _check(grid.path, info, starts, ends, scores)
    first, stop = grid.frames_of(starts, ends)
    for batch in _batches(first, stop, _limit(_BATCH_SAMPLES, grid.hop)):
        spectra = grid.spectra(_union(first[batch], stop[batch]))
        for row in batch:
            features[row, 1:] = np.concatenate(spectra.describe(first[row], stop[row], n_mfcc))
    if not np.isfinite(features).all():
        raise DataError(f"{grid.path}: its samples are too large to describe: write it again within -1 to 1.")
    return features


class _Grid:
    """The frames of one recording: where they lie, and how their spectra are computed."""

    def __init__(self, path: Path, info: AudioInfo, n_fft: int, low_hz: float, high_hz: float) -> None:
        self.path, self.info, self.n_fft, self.hop = path, info, n_fft, n_fft // 2
        self.frequencies = np.arange(n_fft // 2 + 1, dtype=np.float64) * (info.sample_rate / n_fft)
        low = min(int(np.searchsorted(self.frequencies, max(0.0, low_hz), "left")), len(self.frequencies) - 1)
        high = int(np.searchsorted(self.frequencies, high_hz, "right"))
        self.band = slice(low, max(high, low + 1))
        self.window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)

    def frames_of(self, starts_s: Reals, ends_s: Reals) -> tuple[Counts, Counts]:
        """The half-open range of frames of each selection; frame k is centred on sample k * hop."""
        rate, hop = self.info.sample_rate, self.hop
        start = np.rint(starts_s * rate).astype(np.int64)
        end = np.minimum(np.rint(ends_s * rate).astype(np.int64), self.info.n_samples)
        first, stop = -(-start // hop), -(-end // hop)
        nearest = np.minimum(np.rint((start + end) / (2 * hop)).astype(np.int64), self.info.n_samples // hop)
        first = np.where(stop > first, first, nearest)
        return first, np.clip(stop, first + 1, first + _limit(_LONGEST_SAMPLES, hop))

    def spectra(self, frames: Counts) -> "_Spectra":
        """The spectra of these frames (ascending), read and transformed block by block."""
        band_hz = self.frequencies[self.band]
        band_power = np.empty((len(frames), len(band_hz)), dtype=np.float32)
        mel_db = np.empty((len(frames), _MELS), dtype=np.float32)
        energy, entropy = np.empty(len(frames)), np.empty(len(frames))
        bank = mel_bank(self.info.sample_rate, self.n_fft).T
        for block in self._blocks(frames):
            power = self._power(frames[block])
            band_power[block] = power[:, self.band]
            energy[block] = band_power[block].sum(axis=1, dtype=np.float64)
            entropy[block] = _entropy(band_power[block], energy[block])
            mel_db[block] = 10 * np.log10(np.maximum(power @ bank, np.float32(_SMALLEST_POWER)))
        return _Spectra(frames, self.hop / self.info.sample_rate, band_hz, band_power, energy, entropy, mel_db)

    def _blocks(self, frames: Counts) -> Iterator[slice]:
        """Runs of frames without long gaps that span at most _BLOCK_SAMPLES."""
        span = _limit(_BLOCK_SAMPLES, self.hop)
        gap = max(2, int(_MERGE_S * self.info.sample_rate) // self.hop)
        begin = 0
        for index in range(1, len(frames) + 1):
            if index == len(frames) or frames[index] - frames[index - 1] > gap or frames[index] - frames[begin] >= span:
                yield slice(begin, index)
                begin = index

    def _power(self, frames: Counts) -> Powers:
        """|STFT|^2 of the frames (frames x bins) from one read of the stretch they span."""
        start = int(frames[0]) * self.hop - self.hop
        end = int(frames[-1]) * self.hop + self.hop
        samples, _ = audio.read(self.path, start, end)
        lead = max(0, -start)
        samples = np.pad(samples, (lead, end - start - lead - len(samples)))
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        views = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)
        spectrum = scipy.fft.rfft(views[(frames - frames[0]) * self.hop] * self.window, axis=1)
        power: Powers = spectrum.real**2 + spectrum.imag**2
        return power


@dataclass(frozen=True)
class _Spectra:
    """Spectra of some frames (first axis), and what a run of consecutive ones says about a selection."""

    frames: Counts
    hop_s: float
    band_hz: Reals
    band_power: Powers
    energy: Reals
    entropy: Reals
    mel_db: Powers

    def describe(self, first: int, stop: int, n_mfcc: int) -> tuple[Reals, Reals]:
        """The robust measures and the cepstral statistics of frames [first, stop)."""
        begin = int(np.searchsorted(self.frames, first))
        run = slice(begin, begin + int(stop - first))
        return self._robust(run), cepstral_statistics(self.mel_db[run], n_mfcc)

    def _robust(self, run: slice) -> Reals:
        spectrum = self.band_power[run].mean(axis=0, dtype=np.float64)
        times_s = self.frames[run] * self.hop_s
        t5, t25, t75, t95 = density_quantiles(times_s, self.energy[run], (0.05, 0.25, 0.75, 0.95))
        f5, f25, f50, f75, f95 = density_quantiles(self.band_hz, spectrum, (0.05, 0.25, 0.5, 0.75, 0.95))
        average_bits = self.entropy[run].mean()
        aggregate_bits = _entropy(spectrum[np.newaxis], spectrum.sum(keepdims=True))[0]
        durations = (max(0.0, t95 - t5), max(0.0, t75 - t25))
        return np.array(
            [*durations, f50, f5, f25, f75, f95, max(0.0, f75 - f25), max(0.0, f95 - f5), average_bits, aggregate_bits]
        )


def density_quantiles(positions: NDArray[np.floating], density: ArrayLike, quantiles: tuple[float, ...]) -> Reals:
    """Return the positions below which these shares of a discrete density lie, interpolated linearly.

    The first position whose cumulated share reaches q is interpolated with the one before it. A density that
    sums to zero has all its quantiles in the middle of the positions.
    """
    weights = np.clip(np.asarray(density, dtype=np.float64), 0.0, None)
    total = weights.sum()
    if total <= 0:
        return np.full(len(quantiles), positions[len(positions) // 2])
    share = np.cumsum(weights / total)
    index = np.minimum(np.searchsorted(share, quantiles, "left"), len(share) - 1)
    before = np.maximum(index - 1, 0)
    fraction = np.clip((quantiles - share[before]) / (share[index] - share[before] + 1e-12), 0.0, 1.0)
    found: Reals = np.where(index == 0, positions[0], (1 - fraction) * positions[before] + fraction * positions[index])
    return found


def cepstral_statistics(mel_db: NDArray[np.floating], n_mfcc: int) -> Reals:
    """Return mean and standard deviation (ddof 1; 0 for one frame) of each MFCC, delta and delta-delta.

    `mel_db` (frames x mel bands) are the consecutive frames of a selection. Deltas are librosa's (width 9) with
    the first and last frame repeated beyond the ends, so that short selections have them too.
    """
    heard = np.maximum(mel_db, mel_db.max() - _TOP_DB).astype(np.float64)
    mfcc = scipy.fft.dct(heard, type=2, norm="ortho", axis=1)[:, :n_mfcc]
    slopes = [correlate1d(mfcc, kernel, axis=0, mode="nearest") for kernel in (_DELTA, _DELTA_DELTA)]
    table = np.hstack([mfcc, *slopes])
    spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(table.shape[1])
    statistics: Reals = np.stack([table.mean(axis=0), spread], axis=1).ravel()
    return statistics


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


def _entropy(power: NDArray[np.floating], total: NDArray[np.floating]) -> Reals:
    """Entropy in bits of each row's shares of its total; shares below 1e-12 count as that much."""
    shares = np.clip(power / (total + _ENTROPY_FLOOR)[:, np.newaxis].astype(power.dtype), _ENTROPY_FLOOR, 1)
    entropy: Reals = -(shares * np.log2(shares)).sum(axis=1, dtype=np.float64)
    return entropy


def _check(path: Path, info: AudioInfo, starts_s: Reals, ends_s: Reals, scores: Reals) -> None:
    inside = (starts_s >= 0) & (ends_s > starts_s) & (starts_s < info.duration_s)  # false for NaN, too
    for good, problem in ((inside, "is not inside the recording"), (np.isfinite(scores), "has no finite score")):
        if not good.all():
            row = int(np.argmin(good))
            where = f"selection {row + 1} ({starts_s[row]:g} to {ends_s[row]:g} s)"
            raise DataError(f"{path}: {where} {problem}: make the selections again from this recording's scores.")


def _limit(samples: int, hop: int) -> int:
    """How many frames that is; with a short hop the mel bands of a frame take more room than its samples."""
    return max(1, samples // max(hop, _MELS))


def _batches(first: Counts, stop: Counts, limit: int) -> Iterator[Counts]:
    """Selections in order of time, so many at once that their frames together stay within the limit."""
    order = np.lexsort((stop, first))
    begin, held = 0, 0
    for place, row in enumerate(order):
        length = int(stop[row] - first[row])
        if place > begin and held + length > limit:
            yield order[begin:place]
            begin, held = place, 0
        held += length
    if len(order):
        yield order[begin:]


def _union(first: Counts, stop: Counts) -> Counts:
    """The frames that lie in any of the half-open ranges, ascending, each once."""
    return np.unique(np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)]))
