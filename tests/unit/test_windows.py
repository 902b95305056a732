"""Windows: how many, where, and what the network sees of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otus import windows
from otus.audio import AudioInfo
from otus.config import Resnet18Settings
from otus.errors import DataError
from otus.windows import (
    clip_power,
    compressed,
    network_input,
    window_frontend,
    window_inputs,
)

USUAL = window_frontend(Resnet18Settings())


def frontend(**values):
    usual = {"sample_rate": 16_000, "n_fft": 512, "hop_samples": 160, "bins": 64, "low_hz": 200, "high_hz": 5000}
    return window_frontend(Resnet18Settings(**(usual | values)))


def noise(n, seed=0):
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def info(n_samples, rate=48_000):
    return AudioInfo(n_samples, rate, 1, "PCM_16")


def test_the_usual_geometry():
    assert (USUAL.window_samples, USUAL.hop_samples, USUAL.window_frames) == (19_200, 2400, 8)
    assert USUAL.hop_s == 0.05
    assert window_inputs(noise(19_200), USUAL).shape == (1, 1, 17, 128)


def test_lengths_are_rounded_up_to_samples():
    odd = frontend(window_s=0.10003, hop_s=0.02501)
    assert (odd.window_samples, odd.hop_samples) == (1601, 401)


@given(n=st.integers(1, 3000), window=st.integers(1, 700), hop=st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_every_whole_window_is_one_and_has_a_frame(n, window, hop):
    some = frontend(sample_rate=16_000, window_s=window / 16_000, hop_s=hop / 16_000)
    window, hop = some.window_samples, some.hop_samples
    whole = [i for i in range(n) if i * hop + window <= n]
    assert some.n_windows(info(n, 16_000)) == max(1, len(whole))
    assert some.n_windows(info(n, 16_000)) == max(math.ceil((n + 1 - window) / hop), 1)  # as it is documented
    assert some.n_frames(info(n, 16_000)) == math.ceil(n / hop) >= some.n_windows(info(n, 16_000))
    if whole:
        assert whole[-1] + some.window_frames // 2 < some.n_frames(info(n, 16_000))


def test_the_length_of_a_recording_counts_at_the_rate_of_the_network():
    assert USUAL.n_windows(info(44_100, 44_100)) == USUAL.n_windows(info(48_000, 48_000)) == 13


@pytest.mark.parametrize("hop_s", [0.05, 0.02, 0.01, 0.0333])
def test_windows_of_a_stretch_are_those_computed_alone_to_the_last_bit(hop_s):
    some = frontend(hop_s=hop_s)
    stretch = noise(16_000)
    together = window_inputs(stretch, some)
    hop, length = some.hop_samples, some.window_samples
    alone = [window_inputs(stretch[i * hop : i * hop + length], some) for i in range(len(together))]
    assert len(together) == some.n_windows(info(16_000, 16_000))
    assert (together - torch.cat(alone)).abs().max() == 0.0


def test_windows_share_their_spectra_only_where_the_hops_allow_it(monkeypatch):
    seen, level_db = [], windows._level_db
    monkeypatch.setattr(windows, "_level_db", lambda cut, f: seen.append(tuple(cut.shape)) or level_db(cut, f))
    for values in ({"hop_s": 0.05}, {"hop_s": 0.055}, {"hop_s": 0.05, "window_s": 0.02}):
        window_inputs(noise(16_000), frontend(**values))  # 800 samples are five times 160, 880 are not
    assert seen == [(97, 512), (11, 37, 512), (20, 512)]  # the last are shorter than a spectrum


@pytest.mark.parametrize("values", [{}, {"compression": "mel"}, {"hop_s": 0.055}, {"min_max_norm": False}])
def test_windows_are_what_training_sees(values):
    """Training keeps whole spectra of clips; only the order of the arithmetic differs."""
    some = frontend(**{"hop_s": 0.05, **values})
    stretch = noise(16_000)
    cut = stretch.unfold(0, some.window_samples, some.hop_samples)
    expected = network_input(compressed(clip_power(cut, some), some), some)
    torch.testing.assert_close(window_inputs(stretch, some)[:, 0], expected, atol=1e-5, rtol=0)


def test_pre_emphasis_starts_anew():
    some = frontend(pre_emphasis=1.0, compression="linear", low_hz=0)
    level = torch.full((6400,), 0.5)
    assert torch.equal(clip_power(level, some), clip_power(torch.zeros(6400), some))  # 0.5 - 0.5, the first is unseen
    assert clip_power(level, frontend(pre_emphasis=0.0)).max() > 1


def test_a_full_scale_sine_has_the_power_of_its_window():
    some = frontend(pre_emphasis=0.0)
    t = torch.arange(6400) / 16_000
    power = clip_power(torch.sin(2 * math.pi * 1000 * t), some)
    window = torch.hann_window(512)
    assert power.shape == (37, 257)
    assert power.argmax(dim=1).unique().tolist() == [32]
    torch.testing.assert_close(power.max(), window.sum() ** 2 / 4 / (window**2).sum(), rtol=1e-3, atol=0)


def test_too_few_samples_are_filled_up_after_pre_emphasis():
    some, short = frontend(), noise(100)
    emphasised = np.append(short[:1], short[1:] - 0.98 * short[:-1])
    window = np.hanning(513)[:512]
    expected = np.abs(np.fft.rfft(np.pad(emphasised, (0, 412)) * window)) ** 2 / (window**2).sum()
    np.testing.assert_allclose(clip_power(short, some), expected[None], rtol=1e-4, atol=1e-9)
    assert window_inputs(short, some).shape == (1, 1, 1, 64)


def test_linear_bands_take_the_nearest_bin():
    numbered = torch.arange(1025.0).expand(2, 1025)
    bands = compressed(numbered, USUAL)
    assert bands.shape == (2, 128)
    assert bands[0].tolist() == [math.floor(i * 171 / 128) for i in range(128)]  # 0 to 4000 Hz are bins 0 to 170
    few = window_frontend(Resnet18Settings(low_hz=1000, high_hz=1100, bins=16))
    assert sorted(set(compressed(numbered, few)[0].tolist())) == [42, 43, 44, 45, 46]


def test_bands_end_at_half_the_sample_rate():
    bands = compressed(torch.arange(257.0).expand(1, 257), frontend(low_hz=4000, high_hz=10_000, bins=129))
    assert bands[0].tolist() == list(range(128, 257))


def test_mel_bands_are_triangles_of_height_one():
    some = frontend(compression="mel", bins=16)
    bank = compressed(torch.eye(257), some)  # one bin after the other
    assert bank.max() == 1.0
    assert bank.min() == 0.0
    assert (bank > 0).any(dim=0).all()
    assert (bank.argmax(dim=0).diff() > 0).all()
    assert bank[: int(200 / 31.25)].sum() == 0
    assert bank[math.ceil(5000 / 31.25) + 1 :].sum() == 0
    narrow = compressed(torch.eye(257), frontend(compression="mel", bins=200))
    assert torch.isfinite(narrow).all()
    assert (narrow.sum(dim=0) == 0).any()  # no bin is left for these


def test_scaling_to_the_range_of_each_window():
    power = torch.tensor([[[1.0, 10.0], [100.0, 1000.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(
        network_input(power, frontend()),
        torch.tensor([[[0.0, 1 / 3], [2 / 3, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]),
    )


def test_scaling_to_a_fixed_range():
    power = torch.tensor([[1e-12, 1e-8, 1e-4, 1.0, 100.0, 1e6]])
    fixed = frontend(min_max_norm=False)  # -80 dB is 0, 20 dB is 1
    torch.testing.assert_close(network_input(power, fixed), torch.tensor([[0.0, 0.0, 0.4, 0.8, 1.0, 1.0]]))
    other = window_frontend(Resnet18Settings(min_max_norm=False), min_level_db=-50, ref_level_db=0)
    torch.testing.assert_close(network_input(power, other), torch.tensor([[0.0, 0.0, 0.2, 1.0, 1.0, 1.0]]))


@pytest.mark.parametrize("limits", [{"low_hz": 8000, "high_hz": 9000}, {"low_hz": 5000}, {"low_hz": 6000}])
def test_a_band_that_cannot_be_is_refused(limits):
    with pytest.raises(DataError, match="does not fit a sample rate of 16000 Hz"):
        frontend(**limits)
