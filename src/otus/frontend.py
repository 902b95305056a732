"""From sound to what the network sees.

There are two kinds. `relative`: band powers in units of the recording's own band medians, for networks that learn from
nothing. `fbank`: the filter bank of the Kaldi toolkit as BEATs was trained on it, for that network.

Frame i is centred on sample i * hop + hop / 2 and stands for samples [i * hop, (i + 1) * hop), so that a recording
of n samples has ceil(n / hop) frames wherever it is cut. What lies outside the recording is silence.
"""

import math
import warnings
from collections.abc import Callable, Sequence
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

#: Samples of analysis windows that are transformed at once: what stays in the cache of a core, or fills a GPU.
_AT_ONCE_SAMPLES = {"cpu": 2**17, "cuda": 2**25}

#: Bands that share a range of bins.
_GROUP_BANDS = 16

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


def band_power(samples: torch.Tensor, frontend: Frontend, first_frame: int = 0) -> torch.Tensor:
    """Return the power in each band, shape (..., bands, frames), of samples with (n_fft - hop) extra at both ends.

    `samples` has shape (..., n) with n = frames * hop + n_fft - hop. Full scale is 1. `first_frame` is the number of
    the first frame in its recording, on which only the last bits depend.
    """
    window = torch.hann_window(frontend.n_fft, device=samples.device)
    window /= window.square().sum().sqrt()
    first, bank = filter_bank(frontend)
    groups = [(a, b, weights.to(samples.device)) for a, b, weights in _band_groups(frontend)]

    def power_of(cut: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(cut * window)[:, first : first + len(bank)]
        parts = torch.view_as_real(spectrum).square_()
        power = parts[..., 0] + parts[..., 1]
        return torch.cat([power[:, a:b] @ weights for a, b, weights in groups], dim=1)

    return _by_frames(samples, frontend.n_fft, frontend.hop_samples, first_frame, power_of)


@lru_cache(maxsize=8)
def _band_groups(frontend: Frontend) -> list[tuple[int, int, torch.Tensor]]:
    """The filter bank as neighbouring bands with the bins [a, b) that they use: most of its weights are zero."""
    _, bank = filter_bank(frontend)
    groups = []
    for band in range(0, bank.shape[1], _GROUP_BANDS):
        bands = bank[:, band : band + _GROUP_BANDS]
        used = torch.nonzero(bands.sum(dim=1) > 0).flatten()
        a, b = int(used[0]), int(used[-1]) + 1
        groups.append((a, b, bands[a:b].contiguous()))
    return groups


def _by_frames(
    samples: torch.Tensor, width: int, hop: int, first_frame: int, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What `compute` makes of analysis windows (frames, width), turned from (frames, bands) to (..., bands, frames).

    On a CPU it always gets as many windows, which start at a multiple of that number in the recording and are empty
    where there are no samples: so not even the last bits depend on how a recording is cut.
    """
    if samples.dim() > 1:
        return torch.stack([_by_frames(one, width, hop, first_frame, compute) for one in samples])
    cut = samples.unfold(0, width, hop)
    at_once = max(1, _AT_ONCE_SAMPLES[samples.device.type] // width)
    found = []
    for begin in range(-(first_frame % at_once), len(cut), at_once):
        start, end = max(0, begin), min(len(cut), begin + at_once)
        before, after = start - begin, begin + at_once - end
        if samples.device.type == "cpu" and before + after:
            found.append(
                compute(torch.nn.functional.pad(cut[start:end], (0, 0, before, after)))[before:][: end - start]
            )
        else:
            found.append(compute(cut[start:end]))
    return torch.cat(found).T.contiguous()


@lru_cache(maxsize=2)
def _kaldi_bank(frontend: Frontend) -> torch.Tensor:
    """Weights (bins, bands) of Kaldi's filters: triangles on its mel scale, of height one, narrow ones left empty."""
    mel_low, mel_high = (1127.0 * math.log(1.0 + f / 700.0) for f in (frontend.low_hz, frontend.high_hz))
    width = (mel_high - mel_low) / (frontend.bands + 1)
    left = mel_low + width * torch.arange(frontend.bands)
    hz = torch.arange(frontend.n_fft // 2 + 1) * (frontend.sample_rate / frontend.n_fft)
    rising = (1127.0 * (1.0 + hz / 700.0).log().unsqueeze(1) - left) / width
    return torch.minimum(rising, 2.0 - rising).clamp(min=0.0)


def kaldi_fbank(samples: torch.Tensor, frontend: Frontend, first_frame: int = 0) -> torch.Tensor:
    """Return the network's input of kind fbank, shape (..., bands, frames), of samples with (window - hop) extra.

    `samples` has shape (..., n) with n = frames * hop + window - hop; the window has 25 ms. Full scale is 1.
    `first_frame` is the number of the first frame in its recording, on which only the last bits depend.
    """
    width = _window_samples(frontend)
    shape = torch.hann_window(width, periodic=False, device=samples.device).pow(_POVEY)
    bank = _kaldi_bank(frontend).to(samples.device)

    def input_of(cut: torch.Tensor) -> torch.Tensor:
        scaled = cut * 2.0**15
        scaled -= scaled.mean(dim=-1, keepdim=True)
        before = torch.cat([scaled[:, :1], scaled[:, :-1]], dim=-1)
        spectrum = torch.fft.rfft((scaled - _PRE_EMPHASIS * before) * shape, n=frontend.n_fft)
        power = (spectrum.real.square() + spectrum.imag.square()) @ bank
        level: torch.Tensor = (power.clamp_(min=_LEAST_POWER).log_() - FBANK_MEAN) / FBANK_SPREAD
        return level

    return _by_frames(samples, width, frontend.hop_samples, first_frame, input_of)


def _window_samples(frontend: Frontend) -> int:
    """Length of the analysis window."""
    return round(_KALDI_WINDOW_S * frontend.sample_rate) if frontend.kind == "fbank" else frontend.n_fft


def samples_of_frames(frontend: Frontend, start_frame: int, end_frame: int) -> tuple[int, int]:
    """Return the samples [start, end), counted at the rate of the front end, that frames [start, end) are made of.

    These may lie outside the recording.
    """
    extra = _window_samples(frontend) - frontend.hop_samples
    start = start_frame * frontend.hop_samples - extra // 2
    return start, start + (end_frame - start_frame) * frontend.hop_samples + extra


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
    samples = _read_frames(path, info, frontend, start_frame, end_frame)
    return band_power(samples.to(device), frontend, start_frame)


def _read_frames(
    path: str | Path, info: AudioInfo, frontend: Frontend, start_frame: int, end_frame: int
) -> torch.Tensor:
    """The samples that frames [start, end) are made of; zeros outside the recording."""
    start, end = samples_of_frames(frontend, start_frame, end_frame)
    samples = read_at_rate(path, start, end, frontend.sample_rate, info)
    before = min(max(0, -start), end - start)
    return torch.from_numpy(np.pad(samples, (before, end - start - before - len(samples))))


def profile_frames(info: AudioInfo, frontend: Frontend) -> list[tuple[int, int]]:
    """Return the frames [start, end) from which the band medians of a recording are taken; none for the kind fbank.

    Long recordings are represented by evenly spaced blocks, so that the cost does not grow with their length.
    """
    if frontend.kind == "fbank":
        return []
    n_frames = frontend.n_frames(info)
    if n_frames <= _PROFILE_FRAMES:
        return [(0, n_frames)]
    n_blocks = _PROFILE_FRAMES // _PROFILE_BLOCK_FRAMES
    starts = [int(i * (n_frames - _PROFILE_BLOCK_FRAMES) / (n_blocks - 1)) for i in range(n_blocks)]
    return [(start, start + _PROFILE_BLOCK_FRAMES) for start in starts]


def band_medians(path: str | Path, info: AudioInfo, frontend: Frontend) -> torch.Tensor:
    """Return the median power of every band over the recording, shape (bands,); none for the kind fbank, shape (0,).

    It is that of `profile_frames`. Raises DataError if the recording cannot be decoded.
    """
    return medians_of([read_band_power(path, info, frontend, *frames) for frames in profile_frames(info, frontend)])


def medians_of(powers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the medians (bands,) of band powers (bands, frames), over all frames; shape (0,) if there are none."""
    return torch.cat(list(powers), dim=1).median(dim=1).values if powers else torch.zeros(0)


def relative_log_power(power: torch.Tensor, medians: torch.Tensor) -> torch.Tensor:
    """Return the network's input: ln of the power (bands, frames) in units of the medians (bands,), clipped."""
    ratio = (power + POWER_FLOOR).log() - (medians + POWER_FLOOR).log().unsqueeze(-1)
    return ratio.clamp(*INPUT_RANGE)


def network_input(samples: torch.Tensor, frontend: Frontend, first_frame: int, medians: torch.Tensor) -> torch.Tensor:
    """Return the network's input (bands, frames) for the samples (n,) that frames from `first_frame` on are made of.

    `medians` are those of the recording, on the same device; the kind fbank needs none.
    """
    if frontend.kind == "fbank":
        return kaldi_fbank(samples, frontend, first_frame)
    return relative_log_power(band_power(samples, frontend, first_frame), medians)


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
    samples = _read_frames(path, info, frontend, start_frame, end_frame).to(device)
    return network_input(samples, frontend, start_frame, medians.to(device))
