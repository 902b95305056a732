"""From sound to what the network sees.

There are two kinds. `relative`: band powers in units of the recording's own band medians, for networks that learn from
nothing. `fbank`: the filter bank of the Kaldi toolkit as BEATs was trained on it, for that network.

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

#: Kaldi's filter bank: length of the analysis window, share of the sample before that is taken off each sample,
#: exponent that makes a Hann window a "povey" window, smallest power. Powers are of samples in units of 2^-15.
_KALDI_WINDOW_S, _PRE_EMPHASIS, _POVEY, _LEAST_POWER = 0.025, 0.97, 0.85, torch.finfo(torch.float32).eps

#: An fbank input is (ln power - mean) / spread, with the values that BEATs was trained with.
FBANK_MEAN, FBANK_SPREAD = 15.41663, 2 * 6.55582

#: The fbank input where all samples are zero.
FBANK_SILENCE = (math.log(_LEAST_POWER) - FBANK_MEAN) / FBANK_SPREAD

Features = NDArray[np.float32]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Frontend:
    """Everything that turns samples into the network's input; stored in the model card.

    `kind` is `relative` or `fbank`; the latter is always what `beats_frontend` returns.
    """

    sample_rate: int
    hop_samples: int
    n_fft: int
    bands: int
    low_hz: float
    high_hz: float
    scale: str
    kind: str = "relative"

    @property
    def outside(self) -> float:
        """What the network sees where there is no recording: the median level, or silence."""
        return FBANK_SILENCE if self.kind == "fbank" else 0.0

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


def beats_frontend() -> Frontend:
    """Return the front end that every BEATs checkpoint was trained with."""
    return Frontend(16_000, 160, 512, 128, 20.0, 8000.0, "mel", kind="fbank")


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


@lru_cache(maxsize=2)
def _kaldi_bank(frontend: Frontend) -> torch.Tensor:
    """Weights (bins, bands) of Kaldi's filters: triangles on its mel scale, of height one, narrow ones left empty."""
    mel_low, mel_high = (1127.0 * math.log(1.0 + f / 700.0) for f in (frontend.low_hz, frontend.high_hz))
    width = (mel_high - mel_low) / (frontend.bands + 1)
    left = mel_low + width * torch.arange(frontend.bands)
    hz = torch.arange(frontend.n_fft // 2 + 1) * (frontend.sample_rate / frontend.n_fft)
    rising = (1127.0 * (1.0 + hz / 700.0).log().unsqueeze(1) - left) / width
    return torch.minimum(rising, 2.0 - rising).clamp(min=0.0)


def kaldi_fbank(samples: torch.Tensor, frontend: Frontend) -> torch.Tensor:
    """Return the network's input of kind fbank, shape (..., bands, frames), of samples with (window - hop) extra.

    `samples` has shape (..., n) with n = frames * hop + window - hop; the window has 25 ms. Full scale is 1.
    """
    window = round(_KALDI_WINDOW_S * frontend.sample_rate)
    shape = torch.hann_window(window, periodic=False, device=samples.device).pow(_POVEY)
    cut = samples.unfold(-1, window, frontend.hop_samples) * 2.0**15
    cut = cut - cut.mean(dim=-1, keepdim=True)
    before = torch.cat([cut[..., :1], cut[..., :-1]], dim=-1)
    spectrum = torch.fft.rfft((cut - _PRE_EMPHASIS * before) * shape, n=frontend.n_fft)
    power: torch.Tensor = (spectrum.real.square() + spectrum.imag.square()) @ _kaldi_bank(frontend).to(samples.device)
    return (power.clamp(min=_LEAST_POWER).log().transpose(-1, -2) - FBANK_MEAN) / FBANK_SPREAD


def read_band_power(
    path: str | Path,
    info: AudioInfo,
    frontend: Frontend,
    start_frame: int,
    end_frame: int,
    device: torch.device = _CPU,
) -> torch.Tensor:
    """Return the band powers (bands, frames), on `device`, of frames [start, end) of a recording.

    The values do not depend on how the recording is cut into stretches.
    """
    samples = _read_windows(path, info, frontend, start_frame, end_frame, frontend.n_fft)
    return band_power(samples.to(device), frontend)


def _read_windows(
    path: str | Path, info: AudioInfo, frontend: Frontend, start_frame: int, end_frame: int, window: int
) -> torch.Tensor:
    """The samples that the windows of frames [start, end) cover; zeros outside the recording."""
    margin = (window - frontend.hop_samples) // 2
    start = start_frame * frontend.hop_samples - margin
    end = end_frame * frontend.hop_samples + window - frontend.hop_samples - margin
    samples = read_at_rate(path, start, end, frontend.sample_rate, info)
    before = min(max(0, -start), end - start)
    return torch.from_numpy(np.pad(samples, (before, end - start - before - len(samples))))


def band_medians(path: str | Path, info: AudioInfo, frontend: Frontend) -> torch.Tensor:
    """Return the median power of every band over the recording, shape (bands,); none for the kind fbank, shape (0,).

    Long recordings are represented by evenly spaced blocks, so that the cost does not grow with their length.
    """
    if frontend.kind == "fbank":
        return torch.zeros(0)
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


def read_features(
    path: str | Path,
    info: AudioInfo,
    frontend: Frontend,
    start_frame: int,
    end_frame: int,
    medians: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Return the network's input (bands, frames), on `device`, for frames [start, end) of a recording.

    `medians` are those of the recording (`band_medians`). Raises DataError if the recording cannot be decoded.
    """
    if frontend.kind == "fbank":
        window = round(_KALDI_WINDOW_S * frontend.sample_rate)
        samples = _read_windows(path, info, frontend, start_frame, end_frame, window)
        return kaldi_fbank(samples.to(device), frontend)
    power = read_band_power(path, info, frontend, start_frame, end_frame, device)
    return relative_log_power(power, medians.to(device))
