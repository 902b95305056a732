"""From sound to what the network sees: band powers in units of the recording's own band medians.

Frame i is centred on sample i * hop + hop / 2 and stands for samples [i * hop, (i + 1) * hop), so that a recording
of n samples has ceil(n / hop) frames wherever it is cut. What lies outside the recording is silence.
"""

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from otus.audio import AudioInfo, read_at_rate, resampled_length
from otus.config import FrontendSettings
from otus.errors import DataError

#: Power below this (full scale is 1; 16-bit quantisation noise is 8e-11) is silence.
POWER_FLOOR = 1e-11

#: The network's input is ln(power / median power) of a band, clipped to this range.
INPUT_RANGE = (-3.0, 8.0)

#: Hops in samples are at least this long, whatever the sample rate.
_SHORTEST_HOP_SAMPLES = 16

#: A recording longer than this many frames gives its band medians from evenly spaced blocks.
_PROFILE_FRAMES = 12_000
_PROFILE_BLOCK_FRAMES = 200

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Frontend:
    """Everything that turns samples into band powers; stored in the model card."""

    sample_rate: int
    hop_samples: int
    n_fft: int
    bands: int
    low_hz: float
    high_hz: float
    scale: str

    @property
    def hop_s(self) -> float:
        """Seconds per frame."""
        return self.hop_samples / self.sample_rate

    def n_frames(self, info: AudioInfo) -> int:
        """Return the number of frames of a recording."""
        return -(-resampled_length(info.n_samples, info.sample_rate, self.sample_rate) // self.hop_samples)


def choose_frontend(
    settings: FrontendSettings,
    *,
    sample_rates: list[int],
    call_durations_s: NDArray[np.float64],
    call_low_hz: NDArray[np.float64],
    call_high_hz: NDArray[np.float64],
) -> Frontend:
    """Return the front end that `settings` ask for, its open choices filled from the training calls.

    The hop is a sixth of a short call (10 % quantile) within 1 to 20 ms; the window is the power of two nearest
    to three hops. If at least 4 of 5 calls have frequency limits, the band is half the lower to twice the upper
    one (5 and 95 % quantiles); otherwise everything up to half the sample rate. Missing limits are NaN.
    Raises DataError for a band that the sample rate cannot hold.
    """
    rate = settings.sample_rate or max(set(sample_rates), key=sample_rates.count)
    short_call_s = float(np.quantile(call_durations_s, 0.1))
    hop_s = settings.hop_s or float(np.clip(round(short_call_s / 6, 3), 0.001, 0.02))
    hop = max(_SHORTEST_HOP_SAMPLES, round(hop_s * rate))
    n_fft = 2 ** round(np.log2((settings.window_s or 3 * hop / rate) * rate))
    low, high = 0.0, rate / 2
    known = np.isfinite(call_low_hz) & np.isfinite(call_high_hz)
    if known.mean() >= 0.8:
        low = float(np.quantile(call_low_hz[known], 0.05)) / 2
        high = min(high, float(np.quantile(call_high_hz[known], 0.95)) * 2)
    low = settings.low_hz if settings.low_hz is not None else round(low)
    high = settings.high_hz or round(high)
    if not low < high <= rate / 2:
        raise DataError(
            f"front end: the band {low:g}-{high:g} Hz does not fit a sample rate of {rate} Hz; "
            "set training.<name>.frontend.low_hz, high_hz or sample_rate."
        )
    scale = settings.scale or ("linear" if rate > 96_000 else "mel")
    return Frontend(rate, hop, int(n_fft), settings.bands, float(low), float(high), scale)


@lru_cache(maxsize=8)
def filter_bank(frontend: Frontend) -> tuple[int, torch.Tensor]:
    """Return the first FFT bin in use and the weights (bins, bands), each band summing to one.

    Mel bands are HTK triangles, linear ones equal triangles (torchaudio). A band narrower than a bin takes the
    nearest bin.
    """
    n_bins = frontend.n_fft // 2 + 1
    if frontend.scale == "mel":
        warnings.filterwarnings("ignore", "At least one mel filterbank", module="torchaudio")  # handled below
        bank = torchaudio.functional.melscale_fbanks(
            n_bins, frontend.low_hz, frontend.high_hz, frontend.bands, frontend.sample_rate, mel_scale="htk"
        )
        low, high = (2595.0 * math.log10(1.0 + f / 700.0) for f in (frontend.low_hz, frontend.high_hz))
        edges = torch.linspace(low, high, frontend.bands + 2)
        centres = (700 * (10 ** (edges / 2595) - 1))[1:-1]
    else:
        bank = torchaudio.functional.linear_fbanks(
            n_bins, frontend.low_hz, frontend.high_hz, frontend.bands, frontend.sample_rate
        )
        centres = torch.linspace(frontend.low_hz, frontend.high_hz, frontend.bands + 2)[1:-1]
    nearest = torch.round(centres / (frontend.sample_rate / 2) * (n_bins - 1)).long().clamp(max=n_bins - 1)
    empty = torch.nonzero(bank.sum(dim=0) <= 0).flatten()
    bank[nearest[empty], empty] = 1.0
    used = torch.nonzero(bank.sum(dim=1) > 0).flatten()
    first, last = int(used[0]), int(used[-1]) + 1
    return first, (bank / bank.sum(dim=0))[first:last].contiguous()


def band_power(samples: torch.Tensor, frontend: Frontend) -> torch.Tensor:
    """Return the power in each band, shape (..., bands, frames), of samples with (n_fft - hop) extra at both ends.

    `samples` has shape (..., n) with n = frames * hop + n_fft - hop. Full scale is 1.
    """
    window = torch.hann_window(frontend.n_fft, device=samples.device)
    first, bank = filter_bank(frontend)
    spectrum = torch.stft(
        samples, frontend.n_fft, frontend.hop_samples, window=window, center=False, return_complex=True
    )[..., first : first + bank.shape[0], :]
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    return torch.matmul(bank.T.to(samples.device), power)


def read_band_power(
    path: str | Path, info: AudioInfo, frontend: Frontend, start_frame: int, end_frame: int
) -> torch.Tensor:
    """Return the band powers (bands, frames) of frames [start, end) of a recording, read from the file.

    The values do not depend on how the recording is cut into stretches.
    """
    hop, margin = frontend.hop_samples, (frontend.n_fft - frontend.hop_samples) // 2
    start, end = start_frame * hop - margin, end_frame * hop + frontend.n_fft - hop - margin
    samples = read_at_rate(path, start, end, frontend.sample_rate, info)
    before = max(0, -start)
    after = end - start - before - len(samples)
    padded = torch.from_numpy(np.pad(samples, (before, max(0, after))))
    return band_power(padded, frontend)


def band_medians(path: str | Path, info: AudioInfo, frontend: Frontend) -> torch.Tensor:
    """Return the median power of every band over the recording, shape (bands,).

    Long recordings are represented by evenly spaced blocks, so that the cost does not grow with their length.
    """
    n_frames = frontend.n_frames(info)
    if n_frames <= _PROFILE_FRAMES:
        return read_band_power(path, info, frontend, 0, n_frames).median(dim=1).values
    n_blocks = _PROFILE_FRAMES // _PROFILE_BLOCK_FRAMES
    starts = [int(i * (n_frames - _PROFILE_BLOCK_FRAMES) / (n_blocks - 1)) for i in range(n_blocks)]
    blocks = [read_band_power(path, info, frontend, s, s + _PROFILE_BLOCK_FRAMES) for s in starts]
    return torch.cat(blocks, dim=1).median(dim=1).values


def relative_log_power(power: torch.Tensor, medians: torch.Tensor) -> torch.Tensor:
    """Return the network's input: ln of the power (bands, frames) in units of the medians (bands,), clipped."""
    ratio = (power + POWER_FLOOR).log() - (medians + POWER_FLOOR).log().unsqueeze(-1)
    return ratio.clamp(*INPUT_RANGE)
