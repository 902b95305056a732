import os
import time
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from otus import audio
from otus.errors import DataError
from otus.forest import spectra
from otus.forest.features import (
    FEATURE_NAMES,
    cepstral_statistics,
    density_quantiles,
    feature_names,
    selection_features,
)
from otus.forest.spectra import fft_length, mel_bank

RATE = 24_000
N_FFT = 1024
HOP = N_FFT // 2
SETTINGS = {"window_s": 0.04, "low_hz": 200.0, "high_hz": 6000.0, "n_mfcc": 13}


def write(folder, samples, rate=RATE, subtype="FLOAT", name="r.wav"):
    path = folder / name
    soundfile.write(path, samples, rate, subtype=subtype)
    return path, audio.inspect(path)


def describe(path, info, start_s, end_s, **changes):
    return selection_features(path, info, start_s, end_s, np.zeros(len(start_s)), **SETTINGS | changes)


def column(name, n_mfcc=13):
    return feature_names(n_mfcc).index(name)


def noise(duration_s, seed=0, rate=RATE):
    return (0.1 * np.random.default_rng(seed).normal(size=int(duration_s * rate))).astype(np.float32)


def by_the_book(samples, first, stop, low_hz, high_hz, n_mfcc, rate=RATE, n_fft=N_FFT):
    """The same features of frames [first, stop), with librosa and the formulas as the alpaca post-filter has them."""
    hop = n_fft // 2
    power = np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=hop, window="hann", center=True)) ** 2
    power = power[:, first:stop].astype(np.float64)
    frequencies = librosa.fft_frequencies(sr=rate, n_fft=n_fft)
    low, high = np.searchsorted(frequencies, low_hz, "left"), np.searchsorted(frequencies, high_hz, "right")
    band, band_hz = power[low:high], frequencies[low:high]
    times = np.arange(first, stop) * hop / rate

    def quantile(x, density, q):
        c = np.cumsum(density / density.sum())
        i = np.searchsorted(c, q, "left")
        if i <= 0:
            return x[0]
        if i >= len(x):
            return x[-1]
        w = (q - c[i - 1]) / (c[i] - c[i - 1] + 1e-12)
        return (1 - w) * x[i - 1] + w * x[i]

    def entropy(density):
        p = np.clip(density / (density.sum() + 1e-12), 1e-12, 1)
        return -np.sum(p * np.log2(p))

    envelope, spectrum = band.sum(axis=0), band.mean(axis=1)
    t = {q: quantile(times, envelope, q / 100) for q in (5, 25, 75, 95)}
    f = {q: quantile(band_hz, spectrum, q / 100) for q in (5, 25, 50, 75, 95)}
    robust = [t[95] - t[5], t[75] - t[25], f[50], f[5], f[25], f[75], f[95], f[75] - f[25], f[95] - f[5]]
    robust += [np.mean([entropy(frame) for frame in band.T]), entropy(spectrum)]
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=rate, n_fft=n_fft))
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=n_mfcc)
    tables = [mfcc, *(librosa.feature.delta(mfcc, width=9, order=order, mode="nearest") for order in (1, 2))]
    statistics = [
        value
        for table in tables
        for row in table
        for value in (row.mean(), row.std(ddof=1) if stop - first > 1 else 0.0)
    ]
    return np.array(robust + statistics)


def test_names_are_those_of_the_alpaca_forest():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 90
    assert FEATURE_NAMES[:3] == ("cnn_logit_mean", "Dur 90% (s)", "Dur 50% (s)")
    assert FEATURE_NAMES[10:16] == (
        "Avg Entropy (bits)",
        "Agg Entropy (bits)",
        "mfcc1_mean",
        "mfcc1_std",
        "mfcc2_mean",
        "mfcc2_std",
    )
    assert FEATURE_NAMES[38:40] == ("d_mfcc1_mean", "d_mfcc1_std")
    assert FEATURE_NAMES[-2:] == ("dd_mfcc13_mean", "dd_mfcc13_std")
    assert len(feature_names(20)) == 12 + 120


@pytest.mark.parametrize(
    ("window_s", "rate", "n_fft"), [(0.04, 24_000, 1024), (0.0427, 48_000, 2048), (1e-6, 8000, 16)]
)
def test_fft_length(window_s, rate, n_fft):
    assert fft_length(window_s, rate) == n_fft


@pytest.mark.parametrize(("rate", "n_fft"), [(24_000, 1024), (48_000, 2048), (250_000, 512), (1600, 256)])
@pytest.mark.filterwarnings("ignore:Empty filters")
def test_mel_bank_is_librosas(rate, n_fft):
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=128)
    np.testing.assert_allclose(mel_bank(rate, n_fft), expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("n_frames", [1, 2, 3, 5, 8, 9, 30])
def test_deltas_are_librosas(n_frames):
    mel_db = np.random.default_rng(n_frames).uniform(-60, 0, size=(n_frames, 128))
    mfcc = librosa.feature.mfcc(S=mel_db.T, n_mfcc=5)
    found = cepstral_statistics(mel_db, 5).reshape(3, 5, 2)
    for kind, table in enumerate(
        [mfcc, *(librosa.feature.delta(mfcc, width=9, order=order, mode="nearest") for order in (1, 2))]
    ):
        np.testing.assert_allclose(found[kind, :, 0], table.mean(axis=1), atol=1e-9)
        spread = table.std(axis=1, ddof=1) if n_frames > 1 else np.zeros(5)
        np.testing.assert_allclose(found[kind, :, 1], spread, atol=1e-9)


def test_quantiles_of_a_density():
    positions = np.array([10.0, 20.0, 30.0, 40.0])
    np.testing.assert_allclose(density_quantiles(positions, [1, 1, 1, 1], (0.25, 0.5, 0.6, 1.0)), [10, 20, 24, 40])
    np.testing.assert_allclose(density_quantiles(positions, [0, 0, 0, 0], (0.05, 0.95)), [30, 30])
    np.testing.assert_allclose(density_quantiles(positions, [0, 0, 5, 0], (0.5,)), [25])
    np.testing.assert_allclose(density_quantiles(positions[:1], [2], (0.05, 0.95)), [10, 10])


@pytest.mark.parametrize(("first", "stop"), [(0, 40), (30, 31), (50, 53), (100, 139)])
def test_equal_to_librosa_and_the_formulas(tmp_path, first, stop):
    samples = noise(3.5)
    samples += 0.3 * librosa.chirp(fmin=500, fmax=4000, sr=RATE, length=len(samples)).astype(np.float32)
    path, info = write(tmp_path, samples)
    start_s, end_s = first * HOP / RATE, ((stop - 1) * HOP + 1) / RATE
    found = describe(path, info, [start_s], [end_s])[0, 1:]
    expected = by_the_book(samples, first, stop, 200, 6000, 13)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3)


def test_what_is_80_db_below_the_loudest_is_floor(tmp_path):
    samples = 1e-5 * noise(2.0)
    samples[RATE : RATE + 6000] += np.sin(2 * np.pi * 1500 * np.arange(6000) / RATE).astype(np.float32)
    path, info = write(tmp_path, samples)
    ranges = [(10, 80), (10, 40)]  # with the tone and without
    found = describe(path, info, [a * HOP / RATE for a, _ in ranges], [((b - 1) * HOP + 1) / RATE for _, b in ranges])
    for row, (first, stop) in enumerate(ranges):
        expected = by_the_book(samples, first, stop, 200, 6000, 13)
        np.testing.assert_allclose(found[row, 12:], expected[11:], rtol=1e-4, atol=2e-3)


def test_interior_equals_librosa_mfcc_of_the_waveform(tmp_path):
    samples = noise(2.0)
    path, info = write(tmp_path, samples)
    mfcc = librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=13, n_fft=N_FFT, hop_length=HOP)[:, 20:60]
    found = describe(path, info, [20 * HOP / RATE], [59.5 * HOP / RATE])[0]
    start = column("mfcc1_mean")
    np.testing.assert_allclose(found[start : start + 26 : 2], mfcc.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(found[start + 1 : start + 26 : 2], mfcc.std(axis=1, ddof=1), atol=1e-3)


def test_tone_burst_has_the_known_answers(tmp_path):
    samples = np.zeros(4 * RATE, dtype=np.float32)
    burst = slice(1 * RATE, 2 * RATE)
    samples[burst] = np.sin(2 * np.pi * 1500 * np.arange(RATE) / RATE)
    path, info = write(tmp_path, samples)
    found = describe(path, info, [0.2], [3.8])[0]
    frame_s, bin_hz = HOP / RATE, RATE / N_FFT
    assert found[column("Dur 90% (s)")] == pytest.approx(0.9, abs=frame_s)
    assert found[column("Dur 50% (s)")] == pytest.approx(0.5, abs=frame_s)
    for name in ("Center Freq (Hz)", "Freq 25% (Hz)", "Freq 75% (Hz)"):
        assert found[column(name)] == pytest.approx(1500, abs=bin_hz)
    assert found[column("BW 50% (Hz)")] < 2 * bin_hz


def test_chirp_has_the_known_quantiles(tmp_path):
    samples = librosa.chirp(fmin=1000, fmax=5000, sr=RATE, duration=4.0, linear=True).astype(np.float32)
    path, info = write(tmp_path, samples)
    found = describe(path, info, [0.0], [4.0])[0]
    for name, expected in [("Freq 5% (Hz)", 1200), ("Freq 25% (Hz)", 2000), ("Center Freq (Hz)", 3000)]:
        assert found[column(name)] == pytest.approx(expected, abs=50)
    assert found[column("BW 50% (Hz)")] == pytest.approx(2000, abs=50)
    assert found[column("BW 90% (Hz)")] == pytest.approx(3600, abs=50)
    assert found[column("Agg Entropy (bits)")] > found[column("Avg Entropy (bits)")] + 3
    half = describe(path, info, [0.0], [4.0], high_hz=3000.0)[0]
    assert half[column("Freq 95% (Hz)")] < 3000


@pytest.mark.parametrize("block", [1, 2**13, 2**15])
@pytest.mark.parametrize("merge_s", [0.0, 1.0])
def test_blocks_and_batches_do_not_change_anything(tmp_path, monkeypatch, block, merge_s):
    path, info = write(tmp_path, noise(12.0))
    random = np.random.default_rng(3)
    starts = random.uniform(0, 11.5, 60)
    ends = np.minimum(starts + random.uniform(0.001, 2.0, 60), 12.0)
    scores = random.normal(size=60)
    whole = selection_features(path, info, starts, ends, scores, **SETTINGS)
    monkeypatch.setattr(spectra, "_BLOCK_SAMPLES", block)
    monkeypatch.setattr(spectra, "_BATCH_SAMPLES", 4 * block)
    monkeypatch.setattr(spectra, "_MERGE_S", merge_s)
    blocked = selection_features(path, info, starts, ends, scores, **SETTINGS)
    np.testing.assert_allclose(blocked, whole, rtol=1e-5, atol=1e-4)
    assert (whole[:, 0] == scores).all()


def test_order_and_company_do_not_matter(tmp_path):
    path, info = write(tmp_path, noise(6.0))
    starts, ends = np.array([3.0, 0.5, 3.2, 0.5]), np.array([4.0, 1.0, 3.6, 5.5])
    together = describe(path, info, starts, ends)
    for row in range(4):
        alone = describe(path, info, starts[row : row + 1], ends[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-4)


def test_first_and_last_samples(tmp_path):
    samples = noise(2.03)
    path, info = write(tmp_path, samples)
    n_frames = len(samples) // HOP + 1
    found = describe(path, info, [0.0, 1.5, 0.0, info.duration_s - 1e-4], [0.5, info.duration_s + 0.02, 1e-4, 9.0])
    assert np.isfinite(found).all()
    first = -(-int(1.5 * RATE) // HOP)
    np.testing.assert_allclose(found[1, 1:], by_the_book(samples, first, n_frames, 200, 6000, 13), rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(found[2, 1:], by_the_book(samples, 0, 1, 200, 6000, 13), rtol=1e-4, atol=2e-3)


def test_shorter_than_a_frame(tmp_path):
    path, info = write(tmp_path, noise(0.01))
    found = describe(path, info, [0.002], [0.003])[0]
    assert np.isfinite(found).all()
    stds = [index for index, name in enumerate(FEATURE_NAMES) if name.endswith("_std")]
    assert (found[stds] == 0).all()
    assert found[column("Dur 90% (s)")] == 0


def test_no_selections_read_nothing(tmp_path):
    info = audio.AudioInfo(RATE, RATE, 1, "PCM_16")
    assert describe(tmp_path / "absent.wav", info, [], []).shape == (0, 90)
    assert describe(tmp_path / "absent.wav", info, [], [], n_mfcc=5).shape == (0, 42)


def test_digital_silence(tmp_path):
    path, info = write(tmp_path, np.zeros(RATE), subtype="PCM_16")
    found = describe(path, info, [0.0, 0.5], [1.0, 0.51])
    assert np.isfinite(found).all()
    assert (found[:, column("Dur 90% (s)")] == 0).all()
    np.testing.assert_allclose(found[:, column("Avg Entropy (bits)")], 0, atol=1e-6)


def test_samples_that_are_no_numbers_are_silence(tmp_path):
    samples = noise(1.0)
    spoilt = samples.copy()
    samples[5000:5100], spoilt[5000:5050], spoilt[5050:5100] = 0, np.nan, np.inf
    expected = describe(*write(tmp_path, samples, name="a.wav"), [0.1], [0.9])
    np.testing.assert_array_equal(describe(*write(tmp_path, spoilt, name="b.wav"), [0.1], [0.9]), expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_absurdly_large_samples_are_an_error(tmp_path):
    path, info = write(tmp_path, np.full(RATE, 1e30, dtype=np.float32))
    with pytest.raises(DataError, match="too large"):
        describe(path, info, [0.1], [0.9])


def test_channels_are_averaged(tmp_path):
    samples = noise(1.0)
    mono = describe(*write(tmp_path, samples, name="a.wav"), [0.1], [0.9])
    stereo = np.stack([2 * samples, np.zeros_like(samples)], axis=1)
    np.testing.assert_allclose(
        describe(*write(tmp_path, stereo, name="b.wav"), [0.1], [0.9]), mono, rtol=1e-5, atol=1e-4
    )


def test_band_narrower_than_a_bin_and_beyond_the_spectrum(tmp_path):
    path, info = write(tmp_path, noise(1.0))
    for low_hz, high_hz in [(1000.0, 1001.0), (50_000.0, 60_000.0), (0.0, 1e6)]:
        assert np.isfinite(describe(path, info, [0.1], [0.9], low_hz=low_hz, high_hz=high_hz)).all()


@pytest.mark.parametrize(
    ("start_s", "end_s", "score", "words"),
    [
        (5.0, 6.0, 0.0, "not inside"),
        (-0.1, 0.5, 0.0, "not inside"),
        (0.5, 0.5, 0.0, "not inside"),
        (0.6, 0.5, 0.0, "not inside"),
        (np.nan, 0.5, 0.0, "not inside"),
        (0.1, 0.5, np.nan, "no finite score"),
    ],
)
def test_bad_selections_are_named(tmp_path, start_s, end_s, score, words):
    path, info = write(tmp_path, noise(1.0))
    with pytest.raises(DataError, match=rf"r\.wav: selection 2 .*{words}"):
        selection_features(path, info, [0.1, start_s], [0.2, end_s], [0.0, score], **SETTINGS)


def test_reads_only_around_selections(tmp_path, monkeypatch):
    path, info = write(tmp_path, noise(60.0))
    reads = []
    read = audio.AudioFile.read

    def spy(file, start, end):
        reads.append((start / RATE, end / RATE))
        return read(file, start, end)

    monkeypatch.setattr(audio.AudioFile, "read", spy)
    describe(path, info, [50.0, 10.0, 10.3, 10.1], [50.5, 10.2, 10.6, 10.5])
    assert len(reads) == 2
    assert sum(end - start for start, end in reads) < 1.1 + 4 * N_FFT / RATE


def test_endless_selection_is_cut(tmp_path, monkeypatch):
    path, info = write(tmp_path, noise(4.0))
    monkeypatch.setattr(spectra, "_LONGEST_SAMPLES", RATE)
    found = describe(path, info, [0.0], [4.0])
    np.testing.assert_allclose(found, describe(path, info, [0.0], [RATE // HOP * HOP / RATE]), rtol=1e-5, atol=1e-4)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    peaks = []
    for duration_s in (120, 360):
        path, info = write(tmp_path, noise(duration_s, rate=48_000), 48_000, "PCM_16")
        starts = np.arange(0.0, duration_s - 1, 0.5)
        tracemalloc.start()
        selection_features(path, info, starts, starts + 1, starts, **SETTINGS | {"high_hz": 24_000.0})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 80e6


@pytest.mark.slow
def test_speed(tmp_path):
    path, info = write(tmp_path, noise(300, rate=48_000), 48_000, "PCM_16")
    starts = np.random.default_rng(0).uniform(0, 297, 500)
    ends = starts + np.random.default_rng(1).uniform(0.2, 2, 500)
    began = time.process_time()
    selection_features(path, info, starts, ends, starts, **SETTINGS)
    assert 500 / (time.process_time() - began) > 300  # about 1000 a second on a quiet core


@pytest.mark.real
def test_real_owls_are_described():
    folder = os.environ.get("OTUS_DATA")
    if not folder:
        pytest.skip("OTUS_DATA is not set: it names the folder of annotated recordings")
    path = sorted(Path(folder).glob("boobook/**/*.wav"))[0]
    info = audio.inspect(path)
    starts = np.arange(0.0, info.duration_s - 1, 0.7)
    found = describe(path, info, starts, starts + 0.6)
    assert np.isfinite(found).all()
    samples, rate = audio.read(path)
    hop = fft_length(SETTINGS["window_s"], rate) // 2
    first, stop = -(-round(starts[7] * rate) // hop), -(-round((starts[7] + 0.6) * rate) // hop)
    expected = by_the_book(samples, first, stop, 200, 6000, 13, rate, 2 * hop)
    np.testing.assert_allclose(found[7, 1:], expected, rtol=1e-3, atol=5e-3)
