"""From sound to the windows that ANIMAL-SPOT's network sees: short spectrograms, each computed on its own.

Window i holds samples [i * hop, i * hop + length) of the recording at the network's rate; what is left at the end and
is shorter than a window belongs to none, and a recording shorter than a window is one short window. Pre-emphasis and
normalisation start anew in every window.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from otus.audio import AudioInfo, read_at_rate, resampled_length
from otus.config import Resnet18Settings
from otus.errors import DataError

#: What ANIMAL-SPOT calls min_level_db and ref_level_db, unless a checkpoint says otherwise.
MIN_LEVEL_DB, REF_LEVEL_DB = -100.0, 20.0


@dataclass(frozen=True)
class WindowFrontend:
    """Everything that turns samples into windows; stored in the model card.

    `hop_samples` leads from one window to the next, `spectrum_hop_samples` from one spectrum within a window to the
    next. With `min_max_norm` every window is scaled to 0..1; else `ref_level_db` + `min_level_db` is 0 and
    `ref_level_db` is 1.
    """

    sample_rate: int
    window_samples: int
    hop_samples: int
    n_fft: int
    spectrum_hop_samples: int
    bands: int
    low_hz: float
    high_hz: float
    scale: str
    pre_emphasis: float
    min_max_norm: bool
    min_level_db: float = MIN_LEVEL_DB
    ref_level_db: float = REF_LEVEL_DB
    kind: str = "windows"

    @property
    def hop_s(self) -> float:
        """Seconds from window to window, which is the length of a frame of the scores."""
        return self.hop_samples / self.sample_rate

    @property
    def window_frames(self) -> int:
        """Length of a window in frames of the scores."""
        return max(1, round(self.window_samples / self.hop_samples))

    def n_frames(self, info: AudioInfo) -> int:
        """Return the number of frames of the scores of a recording."""
        return -(-resampled_length(info.n_samples, info.sample_rate, self.sample_rate) // self.hop_samples)

    def n_windows(self, info: AudioInfo) -> int:
        """Return the number of windows of a recording."""
        n_samples = resampled_length(info.n_samples, info.sample_rate, self.sample_rate)
        return max(1, -(-(n_samples + 1 - self.window_samples) // self.hop_samples))


def window_frontend(
    settings: Resnet18Settings, *, min_level_db: float = MIN_LEVEL_DB, ref_level_db: float = REF_LEVEL_DB
) -> WindowFrontend:
    """Return the front end that the settings ask for.

    Lengths are rounded up to whole samples as ANIMAL-SPOT does it; what lies above half the sample rate is left out of
    the band. Raises DataError if nothing is left of it.
    """
    rate = settings.sample_rate
    if not settings.low_hz < min(settings.high_hz, rate / 2):
        raise DataError(
            f"resnet18: the band {settings.low_hz:g}-{settings.high_hz:g} Hz does not fit a sample rate of {rate} Hz; "
            "set training.<name>.resnet18.low_hz, high_hz or sample_rate, or take another checkpoint."
        )
    return WindowFrontend(
        sample_rate=rate,
        window_samples=math.ceil(settings.window_s * rate),
        hop_samples=math.ceil(settings.hop_s * rate),
        n_fft=settings.n_fft,
        spectrum_hop_samples=settings.hop_samples,
        bands=settings.bins,
        low_hz=settings.low_hz,
        high_hz=settings.high_hz,
        scale=settings.compression,
        pre_emphasis=settings.pre_emphasis,
        min_max_norm=settings.min_max_norm,
        min_level_db=min_level_db,
        ref_level_db=ref_level_db,
    )


def read_windows(path: str | Path, info: AudioInfo, frontend: WindowFrontend, first: int, last: int) -> torch.Tensor:
    """Return the samples that windows [first, last) of a recording cover, without what lies beyond its end.

    Raises DataError if the recording cannot be decoded.
    """
    end = (last - 1) * frontend.hop_samples + frontend.window_samples
    samples = read_at_rate(path, first * frontend.hop_samples, end, frontend.sample_rate, info)
    return torch.from_numpy(samples)


def window_inputs(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the network's input (windows, 1, frames, bands) for all windows of a stretch of samples (n,).

    The stretch begins with the first window; one that is shorter than a window is one window.
    """
    return network_input(compressed(window_power(samples, frontend), frontend), frontend).unsqueeze(1)


def window_power(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the power spectra (windows, frames, n_fft / 2 + 1) of all windows of a stretch of samples (n,)."""
    length, hop, step = frontend.window_samples, frontend.hop_samples, frontend.spectrum_hop_samples
    if len(samples) < length:
        return clip_power(samples.unsqueeze(0), frontend)
    if hop % step or length < frontend.n_fft:
        return clip_power(samples.unfold(0, length, hop), frontend)
    # Windows share their spectra: a Hann window is zero at its first sample, the only one in which pre-emphasis that
    # starts anew differs.
    frames = 1 + (length - frontend.n_fft) // step
    return clip_power(samples, frontend).unfold(0, frames, hop // step).transpose(1, 2)


def clip_power(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the power spectra (..., frames, n_fft / 2 + 1) of samples (..., n) after pre-emphasis; full scale is 1.

    Fewer samples than a spectrum needs are filled up with zeros.
    """
    x = torch.cat([samples[..., :1], samples[..., 1:] - frontend.pre_emphasis * samples[..., :-1]], dim=-1)
    x = torch.nn.functional.pad(x, (0, max(0, frontend.n_fft - x.shape[-1])))
    window = torch.hann_window(frontend.n_fft, device=x.device)
    spectrum = torch.stft(
        x, frontend.n_fft, frontend.spectrum_hop_samples, window=window, center=False, return_complex=True
    )
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    return power.transpose(-1, -2)


def compressed(power: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the power in the network's bands (..., frames, bands) of power spectra (..., frames, n_fft / 2 + 1)."""
    if frontend.scale == "mel":
        return torch.matmul(power, _mel_bank(frontend).to(power.device))
    return power[..., _linear_bins(frontend).to(power.device)]


def network_input(power: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return band powers (..., frames, bands) in dB, scaled to 0..1 over the last two dimensions together."""
    level_db = 10.0 * power.clamp(min=10.0 ** (frontend.min_level_db / 10.0)).log10()
    if not frontend.min_max_norm:
        return ((level_db - frontend.ref_level_db - frontend.min_level_db) / -frontend.min_level_db).clamp(0.0, 1.0)
    above = level_db - level_db.amin(dim=(-2, -1), keepdim=True)
    peak = above.amax(dim=(-2, -1), keepdim=True)
    return above / torch.where(peak > 0, peak, 1.0)


@lru_cache(maxsize=8)
def _linear_bins(frontend: WindowFrontend) -> torch.Tensor:
    """The bin of the spectrum that each band takes: the nearest of those within the limits."""
    per_hz = frontend.n_fft / frontend.sample_rate
    first = math.floor(frontend.low_hz * per_hz)
    last = min(math.ceil(frontend.high_hz * per_hz), frontend.n_fft // 2 + 1)
    bins = torch.arange(first, last, dtype=torch.float64).view(1, 1, -1)
    return torch.nn.functional.interpolate(bins, size=frontend.bands, mode="nearest").flatten().long()


@lru_cache(maxsize=8)
def _mel_bank(frontend: WindowFrontend) -> torch.Tensor:
    """Weights (n_fft / 2 + 1, bands): triangles of height one between whole bins, narrow ones left empty."""
    low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (frontend.low_hz, frontend.high_hz))
    hz = 700.0 * (10.0 ** (torch.linspace(low, high, frontend.bands + 2) / 2595.0) - 1.0)
    corner = torch.floor((frontend.n_fft + 1) * hz / frontend.sample_rate)
    left, middle, right = corner[:-2], corner[1:-1], corner[2:]
    position = torch.arange(frontend.n_fft // 2 + 1).unsqueeze(1)
    rising = (position - left) / (middle - left)
    falling = (right - position) / (right - middle)
    zero = torch.zeros(())
    bank = torch.where((position >= left) & (position < middle), rising, zero)
    return torch.where((position >= middle) & (position < right), falling, bank)
