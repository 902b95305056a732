"""Frames, band powers and their medians."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.compliance.kaldi

from otus import frontend
from otus.audio import inspect
from otus.config import FrontendSettings
from otus.errors import DataError
from otus.frontend import (
    FBANK_MEAN,
    FBANK_SILENCE,
    FBANK_SPREAD,
    INPUT_RANGE,
    Frontend,
    band_medians,
    band_power,
    beats_frontend,
    choose_frontend,
    filter_bank,
    kaldi_fbank,
    read_band_power,
    read_features,
    relative_log_power,
)

FRONTEND = Frontend(16_000, 160, 512, 40, 0.0, 8000.0, "mel")
BEATS = beats_frontend()
CPU = torch.device("cpu")


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
    assert torch.equal(torch.cat(pieces, dim=1), whole), "to the last bit"


@pytest.mark.parametrize("at_once", [2**17, 1500, 100])
@pytest.mark.parametrize("scale", ["mel", "linear"])
def test_band_powers_are_sums_of_the_power_of_bins(monkeypatch, scale, at_once):
    monkeypatch.setitem(frontend._AT_ONCE_SAMPLES, "cpu", at_once)  # 256 windows, two, and less than one
    some = Frontend(16_000, 160, 512, 40, 200.0, 7000.0, scale)
    samples = 0.1 * torch.randn(2, 300 * 160 + 352, generator=torch.Generator().manual_seed(4))
    window = torch.hann_window(512)
    spectra = torch.stft(samples, 512, 160, window=window, center=False, return_complex=True).abs().square()
    first, bank = filter_bank(some)
    expected = bank.T @ (spectra / window.square().sum())[:, first : first + len(bank)]
    assert expected.shape == (2, 40, 300)
    torch.testing.assert_close(band_power(samples, some, 17), expected, rtol=1e-4, atol=1e-9)


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


def fbank_of(path, info, start, end):
    return read_features(path, info, BEATS, start, end, band_medians(path, info, BEATS), CPU)


@pytest.mark.parametrize("level", [1e-4, 0.1, 1.0])
def test_the_filter_bank_is_kaldis(level):
    generator = torch.Generator().manual_seed(3)
    samples = level * torch.randn(2, 16_000, generator=generator)
    for one, found in zip(samples, kaldi_fbank(samples, BEATS), strict=True):
        theirs = torchaudio.compliance.kaldi.fbank(
            2**15 * one.unsqueeze(0), num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10
        )
        torch.testing.assert_close(found.T, (theirs - FBANK_MEAN) / FBANK_SPREAD, rtol=0, atol=1e-5)


def test_a_filter_bank_does_not_depend_on_where_the_recording_is_cut(recording):
    path, info = recording
    n = BEATS.n_frames(info)
    whole = fbank_of(path, info, 0, n)
    assert whole.shape == (128, n)
    pieces = [fbank_of(path, info, a, min(a + 37, n)) for a in range(0, n, 37)]
    assert torch.equal(torch.cat(pieces, dim=1), whole), "to the last bit"


def test_outside_the_recording_there_is_silence(recording):
    path, info = recording
    n = BEATS.n_frames(info)
    assert BEATS.outside == FBANK_SILENCE
    assert FRONTEND.outside == 0.0
    around = fbank_of(path, info, -50, n + 40)
    torch.testing.assert_close(around[:, 50 : 50 + n], fbank_of(path, info, 0, n), rtol=0, atol=1e-5)
    # 120 samples of a window lie outside its frame on either side
    silent = torch.cat([around[:, :49], around[:, 50 + n + 1 :]], dim=1)
    torch.testing.assert_close(silent, torch.full_like(silent, FBANK_SILENCE), rtol=0, atol=1e-6)
    before, after = fbank_of(path, info, -50, -20), fbank_of(path, info, n + 20, n + 50)
    assert before.shape == after.shape == (128, 30)
    assert torch.equal(before, after)


@pytest.mark.parametrize("kind", ["relative", "fbank"])
def test_a_click_is_strongest_in_the_frame_that_it_is_in(tmp_path, kind):
    samples = np.zeros(16_000, dtype=np.float32)
    samples[[160 * 30 + 80, 160 * 60 + 80]] = 0.5  # frames 30 and 60, in the middle
    soundfile.write(tmp_path / "click.wav", samples, 16_000, subtype="FLOAT")
    info = inspect(tmp_path / "click.wav")
    frontend = BEATS if kind == "fbank" else Frontend(16_000, 160, 512, 40, 0.0, 8000.0, "linear")
    power = read_features(tmp_path / "click.wav", info, frontend, 0, 100, torch.full((40,), 1e-3), CPU).mean(dim=0)
    around = power[25:36]
    assert around.argmax() == 5
    torch.testing.assert_close(around, around.flip(0), rtol=0, atol=0.01)
    torch.testing.assert_close(power[25:36], power[55:66])


def test_features_of_the_relative_kind_are_in_units_of_the_medians(recording):
    path, info = recording
    medians = band_medians(path, info, FRONTEND)
    expected = relative_log_power(read_band_power(path, info, FRONTEND, 10, 60), medians)
    assert torch.equal(read_features(path, info, FRONTEND, 10, 60, medians, CPU), expected)


def test_filter_banks_need_no_medians_and_hear_other_rates(tmp_path):
    t = np.arange(44_100) / 44_100
    soundfile.write(tmp_path / "t.wav", 0.5 * np.sin(2 * np.pi * 4000 * t), 44_100)
    info = inspect(tmp_path / "t.wav")
    assert band_medians(tmp_path / "t.wav", info, BEATS).shape == (0,)
    assert BEATS.n_frames(info) == 100
    found = fbank_of(tmp_path / "t.wav", info, 10, 90).mean(dim=1)
    mel = 1127 * np.log(1 + np.array([20.0, 4000.0, 8000.0]) / 700)
    assert abs(int(found.argmax()) - 129 * (mel[1] - mel[0]) / (mel[2] - mel[0])) < 2


def test_cards_from_before_there_were_kinds_are_of_the_relative_kind():
    assert Frontend(16_000, 160, 512, 40, 0.0, 8000.0, "mel").kind == "relative"
    assert BEATS.kind == "fbank"
