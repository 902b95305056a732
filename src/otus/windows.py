"""From sound to the windows that ANIMAL-SPOT's network sees: short spectrograms, each computed on its own.

Window i holds samples [i * hop, i * hop + length) of the recording at the network's rate; what is left at the end and
is shorter than a window belongs to none, and a recording shorter than a window is one short window. Pre-emphasis and
normalisation start anew in every window.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from otus.audio import AudioInfo, resampled_length
from otus.config import Resnet18Settings
from otus.errors import DataError

#: What ANIMAL-SPOT calls min_level_db and ref_level_db, unless a checkpoint says otherwise.
MIN_LEVEL_DB, REF_LEVEL_DB = -100.0, 20.0

#: Samples of spectra that are transformed at once: what stays in the cache of a core, or fills a GPU.
_AT_ONCE_SAMPLES = {"cpu": 2**17, "cuda": 2**25}


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


def window_inputs(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the network's input (windows, 1, frames, bands) for all windows of a stretch of samples (n,).

    The stretch begins with the first window; one that is shorter than a window is one window. Every window is what it
    would be alone, to the last bit.
    """
    length, hop, step, n_fft = (
        min(len(samples), frontend.window_samples),
        frontend.hop_samples,
        frontend.spectrum_hop_samples,
        frontend.n_fft,
    )
    # Pre-emphasis starts anew in every window, which differs in its first sample only: there a Hann window is zero.
    emphasised = _emphasised(samples, frontend)
    windows = emphasised.unfold(0, length, hop)
    if length <= n_fft:
        level_db = _level_db(torch.nn.functional.pad(windows, (0, n_fft - length)), frontend).unsqueeze(1)
    elif hop % step:
        level_db = _level_db(windows.unfold(1, n_fft, step), frontend)
    else:  # windows share their spectra
        frames = 1 + (length - n_fft) // step
        shared = emphasised.unfold(0, n_fft, step)[: (len(windows) - 1) * (hop // step) + frames]
        level_db = _level_db(shared, frontend).unfold(0, frames, hop // step).transpose(1, 2)
    return _scaled(level_db, frontend).unsqueeze(1)


def _level_db(cut: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """The level in the network's bands (..., bands) of samples (..., n_fft), only the bins in use computed."""
    shape = torch.hann_window(frontend.n_fft, device=cut.device)
    full_scale = shape.square().sum()
    first, last = _bins_in_use(frontend)
    per = math.prod(cut.shape[1:]) // frontend.n_fft  # spectra of a row
    at_once = max(1, _AT_ONCE_SAMPLES[cut.device.type] // (frontend.n_fft * per))
    levels = []
    for start in range(0, len(cut), at_once):
        parts = torch.view_as_real(torch.fft.rfft(cut[start : start + at_once] * shape)[..., first:last]).square_()
        power = (parts[..., 0] + parts[..., 1]) / full_scale
        levels.append(_decibels(_in_bands(power, first, last, frontend), frontend))
    return torch.cat(levels)


def clip_power(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the power spectra (..., frames, n_fft / 2 + 1) of samples (..., n) after pre-emphasis; full scale is 1.

    Fewer samples than a spectrum needs are filled up with zeros.
    """
    x = _emphasised(samples, frontend)
    x = torch.nn.functional.pad(x, (0, max(0, frontend.n_fft - x.shape[-1])))
    window = torch.hann_window(frontend.n_fft, device=x.device)
    spectrum = torch.stft(
        x, frontend.n_fft, frontend.spectrum_hop_samples, window=window, center=False, return_complex=True
    )
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    return power.transpose(-1, -2)


def _emphasised(samples: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Samples (..., n) after pre-emphasis."""
    return torch.cat([samples[..., :1], samples[..., 1:] - frontend.pre_emphasis * samples[..., :-1]], dim=-1)


def compressed(power: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return the power in the network's bands (..., frames, bands) of power spectra (..., frames, n_fft / 2 + 1)."""
    return _in_bands(power, 0, power.shape[-1], frontend)


def _in_bands(power: torch.Tensor, first: int, last: int, frontend: WindowFrontend) -> torch.Tensor:
    """The power in the network's bands of bins [first, last) of the spectra."""
    if frontend.scale == "mel":
        return torch.matmul(power, _mel_bank(frontend)[first:last].to(power.device))
    return power[..., (_linear_bins(frontend) - first).to(power.device)]


def network_input(power: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Return band powers (..., frames, bands) in dB, scaled to 0..1 over the last two dimensions together."""
    return _scaled(_decibels(power, frontend), frontend)


def _decibels(power: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    return 10.0 * power.clamp(min=10.0 ** (frontend.min_level_db / 10.0)).log10_()


def _scaled(level_db: torch.Tensor, frontend: WindowFrontend) -> torch.Tensor:
    """Levels (..., frames, bands) scaled to 0..1 over the last two dimensions together, or from a fixed range."""
    if not frontend.min_max_norm:
        return ((level_db - frontend.ref_level_db - frontend.min_level_db) / -frontend.min_level_db).clamp(0.0, 1.0)
    above = level_db - level_db.amin(dim=(-2, -1), keepdim=True)
    peak = above.amax(dim=(-2, -1), keepdim=True)
    return above / torch.where(peak > 0, peak, 1.0)


@lru_cache(maxsize=8)
def _bins_in_use(frontend: WindowFrontend) -> tuple[int, int]:
    """The bins [first, last) of the spectrum that the bands are made of."""
    if frontend.scale == "mel":
        bins = torch.nonzero(_mel_bank(frontend).sum(dim=1) > 0).flatten()
    else:
        bins = _linear_bins(frontend)
    return (int(bins.min()), int(bins.max()) + 1) if len(bins) else (0, 1)


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
