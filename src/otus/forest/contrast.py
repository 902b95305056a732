"""How a selection stands out from what is heard before and after it, and how tonal it is."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otus.audio import AudioInfo
from otus.forest.features import described, feature_names, sound_features
from otus.forest.spectra import SMALLEST_POWER, Indices, Place, Spectra

Reals = NDArray[np.float64]

CONTRAST_NAMES = (
    "band_contrast_db",
    "peak_contrast_db",
    "rest_contrast_db",
    "band_to_rest_db",
    "flatness_db",
    "tonality_db",
    "level_std_db",
)


def surrounded_features(
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
    """Return `otus.forest.features.selection_features` and behind them the values of `CONTRAST_NAMES`.

    One row per selection, from the same frames and one read of the file. Raises DataError as that does.
    """

    def describe(spectra: Spectra, place: Place) -> Reals:
        heard = sound_features(spectra, place.inside, n_mfcc)
        return np.concatenate([heard, contrast_features(spectra, place.inside, place.around)])

    return described(
        path,
        info,
        (start_s, end_s, score),
        describe,
        len(feature_names(n_mfcc)) - 1 + len(CONTRAST_NAMES),
        window_s=window_s,
        low_hz=low_hz,
        high_hz=high_hz,
        with_surroundings=True,
    )


def contrast_features(spectra: Spectra, inside: slice, around: Indices) -> Reals:
    """Return the values of `CONTRAST_NAMES` of one selection, all in decibels.

    - band_contrast_db: mean power in the band inside, against the median over the frames around.
    - peak_contrast_db: the same of the part of the band (of 32) that stands out most.
    - rest_contrast_db: the same of everything outside the band: what rises there as well is hardly a call.
    - band_to_rest_db: power in the band against the power outside it, inside the selection.
    - flatness_db: geometric against arithmetic mean over the bins of the mean spectrum; 0 for white noise.
    - tonality_db: the strongest bin against the mean of the band, averaged over the frames.
    - level_std_db: how much the power in the band varies from frame to frame; 0 for one frame.

    The first three are NaN without frames around, and what looks outside the band is NaN if the band is everything.
    """
    power, energy = spectra.band_power[inside], spectra.energy[inside]
    spectrum = power.mean(axis=0, dtype=np.float64)
    band, rest = energy.mean(), spectra.rest_energy[inside].mean()
    band_around = rest_around = peak_contrast = np.nan
    if len(around):
        band_around, rest_around = np.median(spectra.energy[around]), np.median(spectra.rest_energy[around])
        parts, parts_around = spectra.part_energy[inside].mean(axis=0), np.median(spectra.part_energy[around], axis=0)
        peak_contrast = (_db(parts) - _db(parts_around)).max()
    level_db = _db(spectrum)
    tonality_db = _db(power.max(axis=1)) - _db(energy / power.shape[1])
    return np.array(
        [
            _db(band) - _db(band_around),
            peak_contrast,
            _db(rest) - _db(rest_around),
            _db(band) - _db(rest),
            level_db.mean() - _db(spectrum.mean()),
            tonality_db.mean(),
            _db(energy).std(),
        ]
    )


def _db(power: ArrayLike) -> Reals:
    decibels: Reals = 10 * np.log10(np.maximum(power, SMALLEST_POWER))
    return decibels
