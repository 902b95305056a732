import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.inventory.levels import LevelMeter, Levels

RATE = 1000  # so that digital silence lasts 10 samples


def measured(samples, cuts=(), rate=RATE, subtype="PCM_16", full_scale=32768.0):
    """The levels of samples x channels, given in the blocks between `cuts`."""
    samples = np.asarray(samples)
    samples = samples[:, None] if samples.ndim == 1 else samples
    meter = LevelMeter(rate, samples.shape[1], subtype, full_scale)
    borders = [0, *sorted(set(cuts) - {0, len(samples)}), len(samples)]
    for a, b in itertools.pairwise(borders):
        assert meter.add(samples[a:b])
    return meter.levels()


def stretches(values):
    """(first, length) of each stretch of equal rows."""
    first = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or not np.array_equal(values[i], values[first]):
            yield first, i - first
            first = i


def expected_silence(samples):
    quiet = sum(n for i, n in stretches(samples) if n >= 10 and np.all(np.abs(samples[i].astype(float)) < 16384))
    return quiet / len(samples)


def expected_clipped(samples):
    clipped = 0
    for channel in samples.T.astype(float):
        for limit in {channel.max(), channel.min()}:
            tops = []
            for i, n in stretches(channel):
                edges = [channel[j] for j in (i - 1, i + n) if 0 <= j < len(channel)]
                if channel[i] == limit and n >= 3 and any(abs(limit - edge) > 2 for edge in edges):
                    tops.append(n)
            if abs(limit) >= 32767 or (len(tops) >= 3 and abs(limit) >= 3276.8):
                clipped += sum(tops)
    return clipped / samples.size


few = st.sampled_from([-32768, -9000, -1, 0, 1, 9000, 9002, 32766, 32767])
runs = st.lists(st.tuples(few, st.integers(1, 14)), min_size=1, max_size=25)


@given(runs, runs, st.sets(st.integers(1, 200), max_size=8))
def test_shares_do_not_depend_on_the_blocks_and_agree_with_counting_one_by_one(left, right, cuts):
    left, right = (np.repeat([v for v, _ in part], [n for _, n in part]) for part in (left, right))
    n = min(len(left), len(right))
    samples = np.stack([left[:n], right[:n]], axis=1).astype(np.int16)
    levels = measured(samples, [c for c in cuts if c < n])
    assert levels == measured(samples)
    assert levels.silent_share == pytest.approx(expected_silence(samples), abs=1e-12)
    # One channel at a constant limit has one value on both sides; a stretch there is no flat top without a step.
    assert levels.clipped_share == pytest.approx(expected_clipped(samples), abs=1e-12)
    peak = np.abs(samples.astype(float)).max()
    assert levels.peak_dbfs == (None if peak == 0 else pytest.approx(20 * math.log10(peak / 32768), abs=0.006))
    rms = math.sqrt(samples.astype(float).var(axis=0).mean())
    if rms > 1e-3:
        assert levels.rms_dbfs == pytest.approx(20 * math.log10(rms / 32768), abs=0.006)


def noise(n, sd=1000, seed=0):
    return np.random.default_rng(seed).normal(0, sd, n).round().astype(np.int16)


def test_plain_noise_is_neither_clipped_nor_silent():
    levels = measured(noise(20_000), [7, 5000])
    assert levels == Levels(levels.peak_dbfs, levels.rms_dbfs, 0.0, 0.0, ())
    assert levels.rms_dbfs == pytest.approx(20 * math.log10(1000 / 32768), abs=0.1)


def test_a_sine_at_full_scale_has_minus_three_db_and_is_not_clipped():
    for hz in (1.0, 3.0, 50.0, 440.0):  # the top of a slow one is flat for many samples, but nothing is cut off
        sine = np.round(32767 * np.sin(2 * np.pi * hz * np.arange(44_100) / 44_100)).astype(np.int16)
        levels = measured(sine, rate=44_100)
        assert (levels.peak_dbfs, levels.rms_dbfs) == (0.0, pytest.approx(-3.01, abs=0.01))
        assert levels.clipped_share == 0


@pytest.mark.parametrize("limit", [32767, 12_000, 3300])
def test_a_wave_that_is_cut_off_is_clipped_at_full_scale_and_below(limit):
    wave = 1.3 * limit * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    cut = np.clip(np.round(wave), -limit, limit).astype(np.int16)
    share = np.mean(np.abs(wave) >= limit)
    assert measured(cut, [100, 20_000], rate=44_100).clipped_share == pytest.approx(share, rel=0.05)


def test_a_quiet_limit_or_a_single_flat_top_below_full_scale_is_no_clipping():
    assert measured(np.clip(noise(20_000), -3000, 3000)).clipped_share == 0
    single = noise(20_000)
    single[500:510] = 20_000
    assert measured(single).clipped_share == 0
    single[500:510] = 32_767
    assert measured(single).clipped_share == pytest.approx(10 / 20_000)


def test_a_held_limit_is_clipped_and_not_silent():
    held = noise(20_000)
    held[500:1500] = 32_767
    levels = measured(held)
    assert (levels.clipped_share, levels.silent_share) == (0.05, 0.0)


def test_digital_silence_of_any_value():
    for value in (0, -3, 500):
        samples = noise(10_000)
        samples[1000:3000] = value
        assert measured(samples, [1500, 2999]).silent_share == pytest.approx(0.2, abs=0.001)
    samples[1000:1009] = 0
    samples[1009:3000] = noise(1991, seed=1)
    assert measured(samples).silent_share == 0  # shorter than 10 ms


def test_nothing_but_one_value():
    for value in (0, 7):
        levels = measured(np.full(1000, value, np.int16), [300])
        assert (levels.rms_dbfs, levels.silent_share, levels.clipped_share) == (None, 1.0, 0.0)
        assert levels.dead_channels == ()
    assert measured(np.zeros(5, np.int16)).peak_dbfs is None


def test_dead_channels():
    live = noise(5000)
    hiss = np.random.default_rng(1).integers(-1, 1, 5000).astype(np.int16)
    faint = (noise(5000, seed=2) // 500).astype(np.int16)
    samples = np.stack([live, np.full(5000, 12, np.int16), hiss, faint], axis=1)
    assert measured(samples, [2500]).dead_channels == (2, 3)


def test_eight_bit_sine_is_not_clipped():
    sine = (np.round(100 * np.sin(2 * np.pi * 20 * np.arange(44_100) / 44_100)) * 256).astype(np.int16)
    assert measured(sine, rate=44_100, subtype="PCM_U8").clipped_share == 0


def test_floating_point():
    samples = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    samples[:1000] = np.clip(100 * samples[:1000], -1, 1)
    samples[4000] = 2.0
    levels = measured(samples, subtype="FLOAT", full_scale=1.0)
    assert levels.peak_dbfs == 6.02 and levels.clipped_share > 0.01  # -1 is still the lowest value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    samples = np.zeros((10, 2), np.float32)
    samples[7, 1] = value
    assert not LevelMeter(RATE, 2, "FLOAT", 1.0).add(samples)
