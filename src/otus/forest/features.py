"""What the forest knows of a selection: its score, Raven-like robust measures in the band, MFCC and their deltas.

The names and their order are those of the alpaca post-filter, so that its tables and forests can be compared.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import correlate1d

from otus.audio import AudioInfo
from otus.errors import DataError
from otus.forest.spectra import Place, Spectra, entropies, spectra_of

Reals = NDArray[np.float64]

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

_TOP_DB = 80.0

#: Savitzky-Golay kernels over nine frames: slope of a line, second derivative of a parabola (as librosa's delta).
_DELTA = np.arange(-4.0, 5.0) / 60
_DELTA_DELTA = np.array([28, 7, -8, -17, -20, -17, -8, 7, 28]) / 462


def feature_names(n_mfcc: int) -> tuple[str, ...]:
    """Return the names of the features in the order of the columns: 12 + 6 * n_mfcc."""
    kinds = [f"{prefix}mfcc{number}" for prefix in ("", "d_", "dd_") for number in range(1, n_mfcc + 1)]
    statistics = [f"{kind}_{statistic}" for kind in kinds for statistic in ("mean", "std")]
    return ("cnn_logit_mean", *ROBUST_NAMES, *statistics)


#: The 90 features of the alpaca post-filter (13 MFCC).
FEATURE_NAMES = feature_names(13)


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

    Which frames describe a selection, `otus.forest.spectra.spectra_of` tells. The robust measures look at low_hz to
    high_hz; the MFCC (librosa's: 128 Slaney mel bands up to half the sample rate, at most 80 dB below the selection's
    loudest) at everything.

    Raises DataError if the file cannot be decoded, a selection is not inside it, or a score is not finite.
    """
    return described(
        path,
        info,
        (start_s, end_s, score),
        lambda spectra, place: sound_features(spectra, place.inside, n_mfcc),
        len(feature_names(n_mfcc)) - 1,
        window_s=window_s,
        low_hz=low_hz,
        high_hz=high_hz,
        with_surroundings=False,
    )


def described(
    path: str | Path,
    info: AudioInfo,
    selections: tuple[ArrayLike, ArrayLike, ArrayLike],
    describe: Callable[[Spectra, Place], Reals],
    n_described: int,
    *,
    window_s: float,
    low_hz: float,
    high_hz: float,
    with_surroundings: bool,
) -> Reals:
    """Return the score of each selection (start_s, end_s, score) and behind it the n_described values of `describe`.

    Raises DataError as `selection_features` does.
    """
    starts, ends, scores = (np.asarray(values, dtype=np.float64).reshape(-1) for values in selections)
    check_selections(path, info, starts, ends, scores)
    features = np.empty((len(starts), 1 + n_described))
    features[:, 0] = scores
    band = {"window_s": window_s, "low_hz": low_hz, "high_hz": high_hz}
    for spectra, places in spectra_of(path, info, starts, ends, **band, with_surroundings=with_surroundings):
        for place in places:
            features[place.row, 1:] = describe(spectra, place)
    return features


def check_selections(path: str | Path, info: AudioInfo, starts_s: Reals, ends_s: Reals, scores: Reals) -> None:
    """Raise DataError if a selection does not lie inside the recording or its score (a row of them) is not finite."""
    inside = (starts_s >= 0) & (ends_s > starts_s) & (starts_s < info.duration_s)  # false for NaN, too
    for good, problem in ((inside, "is not inside the recording"), (np.isfinite(scores), "has no finite score")):
        if not good.all():
            row = int(np.argmin(good))
            where = f"selection {row + 1} ({starts_s[row]:g} to {ends_s[row]:g} s)"
            raise DataError(f"{path}: {where} {problem}: make the selections again from this recording's scores.")


def sound_features(spectra: Spectra, inside: slice, n_mfcc: int) -> Reals:
    """Return what a run of frames says of a selection: all of `feature_names` but the score."""
    return np.concatenate([_robust_measures(spectra, inside), cepstral_statistics(spectra.mel_db[inside], n_mfcc)])


def _robust_measures(spectra: Spectra, inside: slice) -> Reals:
    spectrum = spectra.band_power[inside].mean(axis=0, dtype=np.float64)
    times_s, energy = spectra.times_s[inside], spectra.energy[inside]
    t5, t25, t75, t95 = density_quantiles(times_s, energy, (0.05, 0.25, 0.75, 0.95))
    f5, f25, f50, f75, f95 = density_quantiles(spectra.band_hz, spectrum, (0.05, 0.25, 0.5, 0.75, 0.95))
    average_bits = spectra.entropy[inside].mean()
    aggregate_bits = entropies(spectrum[np.newaxis], spectrum.sum(keepdims=True))[0]
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
