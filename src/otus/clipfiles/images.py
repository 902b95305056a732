"""Spectrogram images: samples to levels, levels to PNG through a palette. No figure is drawn, so it is fast."""

import difflib
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image

from otus.config import ClipImageSettings
from otus.errors import DataError

_COLOURS = 256
#: A longer picture is averaged along time; nobody looks at wider ones, and memory stays bounded.
_MOST_COLUMNS = 4000
_BLOCK_SAMPLES = 2_000_000

Levels = NDArray[np.uint8]

#: Returns samples [start, end), counted from the beginning of the picture, as mono float32.
Reader = Callable[[int, int], NDArray[np.float32]]


def palette(colours: str) -> bytes:
    """Return the 256 RGB triples of a colour map of matplotlib. Raises DataError for a name that it does not have."""
    if colours not in mpl.colormaps:
        near = difflib.get_close_matches(colours, list(mpl.colormaps), n=3) or ["magma", "viridis", "gray_r"]
        raise DataError(
            f"clip_files.spectrograms.colours: matplotlib has no colour map '{colours}'; choose for example "
            f"{' or '.join(near)}."
        )
    rgba = mpl.colormaps[colours](np.linspace(0.0, 1.0, _COLOURS), bytes=True)
    return np.asarray(rgba, dtype=np.uint8)[:, :3].tobytes()


def spectrogram_levels(read: Reader, n_samples: int, sample_rate: int, settings: ClipImageSettings) -> Levels:
    """Return the power spectrogram of `n_samples` as levels 0 to 255 (bands x frames, high frequencies first).

    255 is the loudest point in the band and 0 what lies `dynamic_range_db` or more below it; a constant signal is
    0 everywhere. Fewer samples than a window are padded with their mean; of more than 4000 frames, neighbours are
    averaged. Raises DataError if the band lies above half the sample rate or the samples are not finite numbers.
    """
    window, hop = (max(2, round(s * sample_rate)) for s in (settings.window_s, settings.hop_s))
    bins_hz = np.arange(window // 2 + 1) * (sample_rate / window)
    high_hz = settings.high_hz if settings.high_hz is not None else sample_rate / 2
    shown = np.flatnonzero((bins_hz >= settings.low_hz) & (bins_hz <= high_hz))
    if len(shown) == 0:
        raise DataError(
            f"has no frequency between {settings.low_hz:g} and {high_hz:g} Hz to show at a rate of {sample_rate} Hz"
        )
    power = _power(read, n_samples, window, hop, slice(shown[0], shown[-1] + 1))
    loudest = float(power.max())
    if not np.isfinite(loudest):
        raise DataError("holds samples that are not finite numbers")
    if loudest <= 0.0:
        return np.zeros(power.T.shape, dtype=np.uint8)
    with np.errstate(divide="ignore"):
        below_db = 10.0 * np.log10(power / loudest)
    scale = (_COLOURS - 1) / settings.dynamic_range_db
    levels = np.rint(np.clip(below_db * scale + (_COLOURS - 1), 0, _COLOURS - 1)).astype(np.uint8)
    return np.ascontiguousarray(levels.T[::-1])


def write_png(path: Path, levels: Levels, colours: bytes) -> None:
    """Write `levels` as a PNG with a palette (see `palette`)."""
    image = Image.fromarray(levels)
    image.putpalette(colours)
    image.save(path, "PNG", compress_level=4)


def _power(read: Reader, n_samples: int, window: int, hop: int, bins: slice) -> NDArray[np.float32]:
    """Power of every frame in `bins` (frames x bins), averaged over neighbours if there are too many frames."""
    frames = max(1, 1 + (n_samples - window) // hop)
    step = -(-frames // _MOST_COLUMNS)
    block = max(1, _BLOCK_SAMPLES // (max(hop, window) * step)) * step
    taper = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    parts = []
    for first in range(0, frames, block):
        last = min(first + block, frames)
        samples = read(first * hop, min((last - 1) * hop + window, n_samples))
        if len(samples) < window:
            middle = samples.mean(dtype=np.float64).astype(np.float32)
            samples = np.pad(samples, (0, window - len(samples)), constant_values=middle)
        cut = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop][: last - first]
        parts.append(_averaged(cut, taper, bins, step))
    return np.concatenate(parts)


def _averaged(frames: NDArray[np.float32], taper: NDArray[np.float32], bins: slice, step: int) -> NDArray[np.float32]:
    """Power of the frames in `bins`, the mean of every `step` of them; the offset of a recorder is no sound."""
    offset = frames.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    spectrum = scipy.fft.rfft((frames - offset) * taper, axis=1)[:, bins]
    power = spectrum.real**2 + spectrum.imag**2
    if step == 1:
        return np.asarray(power, dtype=np.float32)
    starts = np.arange(0, len(power), step)
    counts = np.diff(np.append(starts, len(power)))
    return np.asarray(np.add.reduceat(power, starts, axis=0) / counts[:, None], dtype=np.float32)
