"""Frames, band powers and their medians."""

import numpy as np
import pytest
import soundfile
import torch

from otus.audio import inspect
from otus.config import FrontendSettings
from otus.errors import DataError
from otus.frontend import (
    INPUT_RANGE,
    Frontend,
    band_medians,
    choose_frontend,
    filter_bank,
    read_band_power,
    relative_log_power,
)

FRONTEND = Frontend(16_000, 160, 512, 40, 0.0, 8000.0, "mel")


def choose(settings=None, rates=(24_000,), durations=(0.5,), low=(np.nan,), high=(np.nan,)):
    return choose_frontend(
        settings or FrontendSettings(),
        sample_rates=list(rates),
        call_durations_s=np.array(durations),
        call_low_hz=np.array(low),
        call_high_hz=np.array(high),
    )


@pytest.fixture
def recording(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(16_000 * 3 + 77), 16_000)
    return path, inspect(path)


def test_the_hop_follows_short_calls_within_limits():
    assert choose(durations=[3.0, 4.0]).hop_samples == 480  # 20 ms
    assert choose(durations=[0.06, 0.06]).hop_s == pytest.approx(0.010)
    assert choose(durations=[0.004, 0.004], rates=[250_000]).hop_s == pytest.approx(0.001)


def test_the_band_follows_annotated_frequencies_only_if_most_calls_have_them():
    assert choose().high_hz == 12_000
    narrow = choose(low=[400.0] * 10, high=[900.0] * 10, durations=[0.5] * 10)
    assert (narrow.low_hz, narrow.high_hz) == (200.0, 1800.0)
    few = choose(low=[400.0] * 2 + [np.nan] * 8, high=[900.0] * 2 + [np.nan] * 8, durations=[0.5] * 10)
    assert (few.low_hz, few.high_hz) == (0.0, 12_000.0)


def test_ultrasound_gets_linear_bands_and_settings_win():
    assert choose(rates=[250_000]).scale == "linear"
    fixed = choose(FrontendSettings(sample_rate=8000, hop_s=0.01, low_hz=100, high_hz=3000, scale="linear", bands=20))
    assert fixed == Frontend(8000, 80, 256, 20, 100.0, 3000.0, "linear")


def test_a_band_above_half_the_sample_rate_is_refused():
    with pytest.raises(DataError, match="does not fit a sample rate of 8000"):
        choose(FrontendSettings(sample_rate=8000, low_hz=5000))


@pytest.mark.parametrize("scale", ["mel", "linear"])
@pytest.mark.parametrize("bands", [8, 64, 200])
def test_every_band_weighs_one_even_where_bins_are_scarce(scale, bands):
    _, bank = filter_bank(Frontend(24_000, 480, 1024, bands, 150.0, 1800.0, scale))
    assert bank.shape[1] == bands
    torch.testing.assert_close(bank.sum(dim=0), torch.ones(bands))


def test_a_tone_lands_in_its_band(tmp_path):
    t = np.arange(16_000) / 16_000
    soundfile.write(tmp_path / "t.wav", 0.5 * np.sin(2 * np.pi * 3000 * t), 16_000, subtype="FLOAT")
    info = inspect(tmp_path / "t.wav")
    linear = Frontend(16_000, 160, 512, 80, 0.0, 8000.0, "linear")
    power = read_band_power(tmp_path / "t.wav", info, linear, 10, 90).mean(dim=1)
    assert abs(int(power.argmax()) - 3000 / 8000 * 80) <= 1
    assert torch.isfinite(power).all()


def test_frames_do_not_depend_on_where_the_recording_is_cut(recording):
    path, info = recording
    n = FRONTEND.n_frames(info)
    assert n == -(-info.n_samples // 160)
    whole = read_band_power(path, info, FRONTEND, 0, n)
    assert whole.shape == (40, n)
    pieces = [read_band_power(path, info, FRONTEND, a, min(a + 37, n)) for a in range(0, n, 37)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)


def test_frames_at_another_rate_do_not_depend_on_the_cut(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "b.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(44_100 * 2 + 5), 44_100)
    info = inspect(path)
    n = FRONTEND.n_frames(info)
    whole = read_band_power(path, info, FRONTEND, 0, n)
    pieces = [read_band_power(path, info, FRONTEND, a, min(a + 50, n)) for a in range(0, n, 50)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-3, atol=1e-9)


def test_medians_of_a_long_recording_come_from_spaced_blocks(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(8000 * 140), 8000)
    coarse = Frontend(8000, 80, 256, 16, 0.0, 4000.0, "linear")
    info = inspect(path)
    assert coarse.n_frames(info) > 12_000
    exact = read_band_power(path, info, coarse, 0, coarse.n_frames(info)).median(dim=1).values
    torch.testing.assert_close(band_medians(path, info, coarse), exact, rtol=0.1, atol=0)


def test_silence_and_loudness_stay_in_range():
    silent = relative_log_power(torch.zeros(4, 5), torch.zeros(4))
    assert (silent == 0).all()
    loud = relative_log_power(torch.ones(4, 5), torch.zeros(4))
    assert (loud == INPUT_RANGE[1]).all()
