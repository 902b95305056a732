"""Augmentation: every kind does to power, time and frequency what its name says, and nothing when it is off."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otus.config import AugmentationSettings
from otus.frontend import (
    FBANK_SILENCE,
    FBANK_SPREAD,
    INPUT_RANGE,
    Frontend,
    band_power,
    beats_frontend,
    kaldi_fbank,
    relative_log_power,
)
from otus.training.augment_geometry import masked, rotated, scaled_in_pitch, shifted_in_bands, stretched_in_time
from otus.training.augment_power import averaged, mixed, noisy, tilted
from otus.training.augmentation import augment, domain_of
from otus.training.cuts import Batch

RATE = 16_000
FRONTEND = Frontend(RATE, 160, 512, 64, 100.0, 8000.0, "mel")
DOMAIN = domain_of(FRONTEND)
OFF = {"gain_db": 0.0, "tilt_db": 0.0, "mix_probability": 0.0, "shift_bands": 0, "masks": 0}
KINDS = {
    "gain": {"gain_db": 6.0},
    "tilt": {"tilt_db": 6.0},
    "mix": {"mix_probability": 1.0},
    "noise": {"noise_probability": 1.0},
    "mixup": {"mixup_probability": 1.0},
    "shift_bands": {"shift_bands": 3},
    "stretch_time": {"stretch_time": 2.0},
    "stretch_pitch": {"stretch_pitch": 1.5},
    "shift_time": {"shift_time": 0.5},
    "masks": {"masks": 8},
}
ALL = {name: value for kind in KINDS.values() for name, value in kind.items()}
SIX_DB = 0.6 * math.log(10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def settings(**kinds):
    return AugmentationSettings(**(OFF | kinds))


def make_batch(n=6, bands=64, frames=50, classes=1, margin=0, seed=0):
    """Noise around the median level; even cuts hold a call, odd ones are noise."""
    features = torch.randn(n, bands, frames + 2 * margin, generator=seeded(seed)).clamp(*INPUT_RANGE)
    activity, onset = torch.zeros(n, classes, frames), torch.zeros(n, classes, frames)
    activity[::2, 0, frames // 3 : frames // 2] = 1
    onset[::2, 0, max(0, frames // 3 - 1) : frames // 3 + 2] = 1
    noise = (torch.arange(n) % 2).float()
    return Batch(
        features=features,
        activity=activity,
        onset=onset,
        valid=torch.ones(n, frames),
        noise=noise,
        sources=tuple(map(str, range(n))),
    )


def with_calls(calls, frames, onset_frames=2, classes=1):
    """One cut with calls [first, end) and onsets as wide as the frame labels make them."""
    batch = make_batch(1, 8, frames, classes)
    activity, onset = torch.zeros(1, classes, frames), torch.zeros(1, classes, frames)
    for first, end in calls:
        activity[0, 0, max(0, first) : end] = 1
        onset[0, 0, max(0, first - onset_frames) : first + onset_frames + 1] = 1
    return dataclasses.replace(batch, activity=activity, onset=onset)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


def true_frames(truth):
    return torch.nonzero(truth[0, 0]).flatten().tolist()


def of(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


def tone(hz, margin, seconds=0.3):
    samples = torch.arange(round(seconds * RATE) + margin) / RATE
    return 0.1 * torch.sin(2 * math.pi * hz * samples)


def tone_features(hz, frontend=FRONTEND):
    """A cut (1, bands, frames) of a tone in white noise, in units of that noise."""
    margin = frontend.n_fft - frontend.hop_samples
    sound = tone(hz, margin)
    noise = 0.003 * torch.randn(len(sound), generator=seeded())
    medians = band_power(noise, frontend).median(dim=1).values
    return relative_log_power(band_power(sound + noise, frontend), medians).unsqueeze(0)


# What an input means


@pytest.mark.parametrize("scale", ["mel", "linear"])
@pytest.mark.parametrize("band", [12, 30, 63])
def test_a_tone_at_the_centre_of_a_band_is_loudest_there(scale, band):
    frontend = dataclasses.replace(FRONTEND, scale=scale, bands=64)
    centre = domain_of(frontend).centres_hz[band]
    power = band_power(tone(centre, frontend.n_fft - frontend.hop_samples), frontend)
    assert len(domain_of(frontend).centres_hz) == 64 and int(power.mean(dim=1).argmax()) == band


@pytest.mark.parametrize("band", [40, 80, 120])
def test_so_it_is_in_the_filter_bank_of_beats(band):
    frontend = beats_frontend()
    features = kaldi_fbank(tone(domain_of(frontend).centres_hz[band], 240), frontend)
    assert int(features.mean(dim=1).argmax()) == band


def test_values_of_beats_are_of_another_unit_and_range():
    domain = domain_of(beats_frontend())
    assert domain.nepers_per_unit == FBANK_SPREAD and not domain.relative
    assert (domain.low, domain.high, domain.outside) == (FBANK_SILENCE, math.inf, FBANK_SILENCE)
    assert (DOMAIN.nepers_per_unit, DOMAIN.low, DOMAIN.high, DOMAIN.outside) == (1.0, *INPUT_RANGE, 0.0)


def test_ten_times_the_power_of_a_sound_is_ten_db_in_both_units():
    for frontend, window in ((FRONTEND, FRONTEND.n_fft), (beats_frontend(), 400)):
        quiet = 0.1 * torch.randn(4000 + window - 160, generator=seeded())

        def heard(samples, frontend=frontend):
            if frontend.kind == "fbank":
                return kaldi_fbank(samples, frontend)[20:]  # the lowest filters are empty
            return band_power(samples, frontend).log()

        louder = tilted(heard(quiet)[None], of(10.0), of(0.0), domain_of(frontend).nepers_per_unit)[0]
        torch.testing.assert_close(louder, heard(quiet * math.sqrt(10)), atol=1e-3, rtol=0)


# Off and on


def test_what_is_off_leaves_every_bit_and_draws_nothing():
    batch, generator = make_batch(), seeded(3)
    assert same(augment(batch, settings(), generator, DOMAIN), batch)
    assert torch.equal(generator.get_state(), seeded(3).get_state())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_something_by_itself(kind):
    batch = make_batch()
    assert not same(augment(batch, settings(**KINDS[kind]), seeded(1), DOMAIN), batch)


@pytest.mark.parametrize("kind", ["noise", "mixup", "stretch_time", "stretch_pitch", "shift_time"])
def test_the_kinds_that_came_later_are_off_unless_asked_for(kind):
    asked = AugmentationSettings().model_dump()
    assert all(asked[name] == settings().model_dump()[name] for name in KINDS[kind])


@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_the_same_seed_draws_the_same_and_inputs_stay_as_they_are(kind):
    batch, asked = make_batch(), settings(**(ALL if kind == "all" else KINDS[kind]))
    before = batch.having({name: value.clone() for name, value in batch.tensors().items()})
    first, second, third = (augment(batch, asked, seeded(s), DOMAIN) for s in (1, 1, 2))
    assert same(first, second) and not same(first, third) and same(batch, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_draws_the_same(kind):
    batch, asked = make_batch(), settings(**KINDS[kind])
    here = augment(batch, asked, seeded(), DOMAIN)
    there = augment(batch.to("cuda"), asked, seeded(), DOMAIN).to("cpu")
    for name, value in here.tensors().items():
        torch.testing.assert_close(there.tensors()[name], value, atol=1e-3, rtol=0)


@given(
    n=st.integers(1, 5),
    frames=st.integers(1, 40),
    margin=st.sampled_from([0, 7]),
    kinds=st.sets(st.sampled_from(sorted(KINDS))),
    beats=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_is_on_shapes_ranges_and_truths_hold(n, frames, margin, kinds, beats, seed):
    domain = domain_of(beats_frontend()) if beats else DOMAIN
    batch = make_batch(n, len(domain.centres_hz), frames, classes=2, margin=margin, seed=seed)
    if beats:
        batch = batch.having({"features": batch.features / 3})
    asked = settings(**{name: value for kind in kinds for name, value in KINDS[kind].items()})
    varied = augment(batch, asked, seeded(seed), domain)
    for name, value in varied.tensors().items():
        before = batch.tensors()[name]
        assert value.shape == before.shape and value.dtype == torch.float32 and torch.isfinite(value).all(), name
    assert domain.low <= varied.features.min() and varied.features.max() <= domain.high
    for truth in (varied.activity, varied.onset, varied.valid):
        assert truth.min() >= 0 and truth.max() <= 1
        assert "mixup" in kinds or set(truth.unique().tolist()) <= {0.0, 1.0}
    assert set(varied.valid.unique().tolist()) <= {0.0, 1.0}
    assert not varied.activity[:, 1].any(), "a label that is nowhere stays nowhere"


# Level and slope


@pytest.mark.parametrize("unit", [1.0, FBANK_SPREAD])
def test_six_db_and_a_slope_of_six_db(unit):
    x = make_batch(2, 10, 20).features
    louder = tilted(x, of(6.0, 0.0), of(0.0, 6.0), unit) - x
    torch.testing.assert_close(louder[0], torch.full((10, 20), SIX_DB / unit))
    torch.testing.assert_close(louder[1, -1] - louder[1, 0], torch.full((20,), SIX_DB / unit))
    torch.testing.assert_close(louder[1].mean(dim=0), torch.zeros(20), atol=1e-6, rtol=0)


def test_gain_and_slope_reach_no_further_than_the_settings_say():
    batch = make_batch(400, 8, 1).having({"features": torch.zeros(400, 8, 1)})
    gain = augment(batch, settings(gain_db=6.0), seeded(), DOMAIN).features
    assert 0.95 * SIX_DB < gain.max() <= SIX_DB and -SIX_DB <= gain.min() < -0.95 * SIX_DB
    slope = augment(batch, settings(tilt_db=6.0), seeded(), DOMAIN).features
    assert 0.45 * SIX_DB < slope.max() <= 0.5 * SIX_DB + 1e-6


# Other sounds


def test_power_of_two_cuts_adds_up_and_calls_of_both_count():
    batch = make_batch(3)
    valid = batch.valid.clone()
    valid[1, 40:] = 0
    batch = dataclasses.replace(batch, valid=valid)
    both = mixed(batch, of(1, 2, 0, dtype=torch.int64), of(True, False, True, dtype=torch.bool), of(3.0, 0, -8.0), 1.0)
    for cut, partner, level_db in ((0, 1, 3.0), (2, 0, -8.0)):
        power = batch.features[cut].exp() + 10 ** (level_db / 10) * batch.features[partner].exp()
        torch.testing.assert_close(both.features[cut].exp(), power)
        assert torch.equal(both.activity[cut], torch.maximum(batch.activity[cut], batch.activity[partner]))
        assert torch.equal(both.onset[cut], torch.maximum(batch.onset[cut], batch.onset[partner]))
    assert both.valid.sum(dim=1).tolist() == [40, 40, 50], "only what counts in both"
    assert same(both.part(1, 2), batch.part(1, 2))


def test_two_equal_cuts_have_twice_the_power_in_the_unit_of_beats():
    batch = make_batch(1)
    both = mixed(batch, of(0, dtype=torch.int64), of(True, dtype=torch.bool), of(0.0), FBANK_SPREAD)
    torch.testing.assert_close(both.features - batch.features, torch.full((1, 64, 50), math.log(2) / FBANK_SPREAD))


def noise_on_the_first(batch, snr_db, unit=1.0, *, relative):
    """Two cuts, of which the first gets the second as noise."""
    partner, chosen = of(1, 1, dtype=torch.int64), of(True, False, dtype=torch.bool)
    return noisy(batch, partner, chosen, of(snr_db, 0.0), unit, relative=relative)


@pytest.mark.parametrize("unit", [1.0, FBANK_SPREAD])
@given(snr_db=st.floats(-10, 20), seed=st.integers(0, 99), margin=st.sampled_from([0, 5]), calls=st.booleans())
def test_noise_comes_in_at_exactly_the_ratio(unit, snr_db, seed, margin, calls):
    batch = make_batch(2, 16, 60, margin=margin, seed=seed)
    valid = batch.valid.clone()
    valid[:, 50:] = 0
    activity = batch.activity if calls else torch.zeros_like(batch.activity)
    x = batch.features.double() / unit
    batch = dataclasses.replace(batch, features=x, valid=valid, activity=activity)
    out = noise_on_the_first(batch, snr_db, unit, relative=False)
    before, after = ((v[0] * unit).exp()[:, margin : margin + 60] for v in (x, out.features))
    frames = slice(20, 30) if calls else slice(0, 50)
    signal, noise = before[:, frames].mean(), (after - before)[:, :50].mean()
    assert 10 * math.log10(signal / noise) == pytest.approx(snr_db, abs=1e-3)
    assert same(out.part(1, 2), batch.part(1, 2))


def test_in_units_of_the_median_the_ratio_is_the_same_and_the_unit_another():
    batch = make_batch(2)
    apart = (
        noise_on_the_first(batch, 3.0, relative=False).features - noise_on_the_first(batch, 3.0, relative=True).features
    )
    torch.testing.assert_close(apart[0], apart[0, 0, 0].expand(64, 50), atol=1e-5, rtol=0)
    assert apart[0, 0, 0] > 0.1 and not apart[1].any()


@given(snr_db=st.floats(-10, 20))
def test_steady_noise_stays_at_the_median_and_hides_the_call(snr_db):
    batch = make_batch(2, 16, 60)
    features = torch.zeros(2, 16, 60)
    features[0, :, 20:30] = 5.0
    out = noise_on_the_first(dataclasses.replace(batch, features=features), snr_db, relative=True).features[0]
    torch.testing.assert_close(out[:, :20], torch.zeros(16, 20), atol=1e-5, rtol=0)
    level = math.exp(5.0) * 10 ** (-snr_db / 10)
    torch.testing.assert_close(out[0, 25], torch.tensor(math.log((math.exp(5.0) + level) / (1 + level))).float())


def test_noise_comes_from_another_cut_around_a_noise_clip():
    n = 12
    features = torch.zeros(n, 8, n) + 0.01 * torch.randn(n, 8, n, generator=seeded())
    features[torch.arange(n), :, torch.arange(n)] = 4.0  # cut i is loud in frame i
    noise = torch.zeros(n)
    noise[[2, 5]] = 1
    batch = dataclasses.replace(make_batch(n, 8, n), features=features, noise=noise)
    seen = set()
    for seed in range(8):
        out = augment(
            batch, settings(noise_probability=1.0), seeded(seed), domain_of(dataclasses.replace(FRONTEND, bands=8))
        )
        loud = (out.features.mean(dim=1) - out.features.mean(dim=1).median(dim=1, keepdim=True).values) > 0.5
        for cut in range(n):
            others = set(torch.nonzero(loud[cut]).flatten().tolist()) - {cut}
            assert others <= {2, 5} - {cut}
            seen |= {(cut, other) for other in others}
    assert {(0, 2), (0, 5), (2, 5), (5, 2)} <= seen


@pytest.mark.parametrize("noise", [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
def test_without_another_noise_clip_a_cut_is_left_alone(noise):
    batch = dataclasses.replace(make_batch(3), noise=torch.tensor(noise))
    out = augment(batch, settings(noise_probability=1.0), seeded(), DOMAIN)
    alone = [cut for cut in range(3) if same(out.part(cut, cut + 1), batch.part(cut, cut + 1))]
    assert alone == ([1] if sum(noise) else [0, 1, 2])


def test_a_cut_of_which_nothing_counts_makes_no_nonsense():
    batch = dataclasses.replace(make_batch(2), valid=torch.zeros(2, 50))
    out = augment(batch, settings(noise_probability=1.0), seeded(), DOMAIN)
    assert torch.isfinite(out.features).all() and not out.valid.any()


def test_mixup_averages_inputs_and_truths():
    batch = make_batch(3)
    valid = batch.valid.clone()
    valid[1, :5] = 0
    batch = dataclasses.replace(batch, valid=valid)
    chosen = of(True, False, True, dtype=torch.bool)
    out = averaged(batch, of(1, 0, 0, dtype=torch.int64), chosen, of(0.7, 0.5, 1.0))
    torch.testing.assert_close(out.features[0], 0.7 * batch.features[0] + 0.3 * batch.features[1])
    torch.testing.assert_close(out.activity[0], 0.7 * batch.activity[0])
    torch.testing.assert_close(out.onset[0], 0.7 * batch.onset[0])
    assert out.valid.sum(dim=1).tolist() == [45, 45, 50]
    assert same(out.part(1, 3), batch.part(1, 3)), "not chosen, or all weight on itself"


def test_most_weights_of_mixup_lie_near_nought_or_one():
    n = 4000
    batch = make_batch(n, 8, 1)
    batch = dataclasses.replace(batch, activity=(torch.arange(n) % 2).float().view(n, 1, 1))
    out = augment(batch, settings(mixup_probability=1.0), seeded(), DOMAIN)
    soft = out.activity[(out.activity > 0) & (out.activity < 1)]
    assert len(soft) == pytest.approx(n / 2, rel=0.1), "half of the cuts meet one of the other kind"
    assert float(soft.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(soft.var()) == pytest.approx(1 / 8, abs=0.01)  # Beta(0.5, 0.5)


@pytest.mark.parametrize("kind", ["mix", "noise", "mixup"])
def test_chances_are_those_of_the_settings(kind):
    batch, (name,) = make_batch(1000, 8, 4), KINDS[kind]
    out = augment(batch, settings(**{name: 0.3}), seeded(), DOMAIN)
    changed = (out.features != batch.features).any(dim=(1, 2)).float().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.05)


# Time


@given(
    first=st.integers(60, 110),
    duration=st.integers(1, 40),
    factor=st.floats(0.5, 2.0),
    onset_frames=st.integers(0, 4),
)
def test_a_stretched_call_is_so_much_longer_around_its_middle(first, duration, factor, onset_frames):
    batch = with_calls([(first, first + duration)], 210, onset_frames)
    out = stretched_in_time(batch, of(factor), 0.0)
    active, onset = true_frames(out.activity), true_frames(out.onset)
    assert active == list(range(active[0], active[-1] + 1))
    assert len(active) >= 1 and len(active) == pytest.approx(factor * duration, abs=1)
    middle = first + duration / 2
    assert active[0] == pytest.approx(middle - factor * duration / 2, abs=0.51)
    assert onset == list(range(active[0] - onset_frames, active[0] + onset_frames + 1)), "thin, where the call starts"


@given(factor=st.floats(0.5, 2.0))
def test_what_is_heard_moves_with_the_truth(factor):
    batch = with_calls([(30, 40), (90, 110)], 140)
    batch = dataclasses.replace(batch, features=5.0 * batch.activity.expand(1, 8, 140).clone())
    out = stretched_in_time(batch, of(factor), 0.0)
    counted = out.valid[0] > 0
    heard, truth = out.features[0, 3] > 2.5, out.activity[0, 0] > 0
    assert int((heard != truth)[counted].sum()) <= 4, "at most the frame at each of the four edges"


def test_calls_that_touch_keep_two_onsets():
    out = stretched_in_time(with_calls([(40, 50), (50, 60)], 100), of(2.0), 0.0)
    assert true_frames(out.activity) == list(range(30, 70))
    assert true_frames(out.onset) == [28, 29, 30, 31, 32, 48, 49, 50, 51, 52]


def test_a_call_of_one_frame_keeps_one():
    for place in range(20, 30):
        out = stretched_in_time(with_calls([(place, place + 1), (40, 60)], 100), of(0.5), 0.0)
        assert len(true_frames(out.activity)) == 1 + 10


def test_a_squeezed_cut_is_filled_with_frames_that_do_not_count():
    batch = dataclasses.replace(with_calls([], 100), activity=torch.zeros(1, 1, 100))
    out = stretched_in_time(batch, of(0.5), -2.0)
    assert torch.nonzero(out.valid[0]).flatten().tolist() == list(range(25, 75))
    assert (out.features[0, :, :25] == -2.0).all() and (out.features[0, :, 75:] == -2.0).all()
    assert (out.features[0, :, 25:75] != -2.0).all()


def test_frames_that_did_not_count_do_not_when_stretched():
    batch = with_calls([], 100)
    valid = torch.ones(1, 100)
    valid[0, 60:70] = 0
    out = stretched_in_time(dataclasses.replace(batch, valid=valid), of(2.0), 0.0)
    assert torch.nonzero(out.valid[0] == 0).flatten().tolist() == list(range(70, 90))


def test_a_call_that_leaves_the_cut_goes_on_outside_it():
    for factor in (0.5, 2.0):
        out = stretched_in_time(with_calls([(90, 100)], 100), of(factor), 0.0)
        assert true_frames(out.activity)[-1] == 99
        assert true_frames(out.activity)[0] == (92 if factor == 0.5 else 85)


def test_a_factor_of_one_changes_nothing():
    batch = make_batch(6, 16, 50)
    out = stretched_in_time(batch, torch.ones(6), 0.0)
    torch.testing.assert_close(out.features, batch.features, atol=1e-4, rtol=0)
    assert same(out.having({"features": batch.features}), batch)


def test_cuts_are_stretched_each_by_its_own_factor():
    batch = make_batch(4, 16, 50)
    factors = of(0.6, 1.0, 1.3, 1.9)
    out = stretched_in_time(batch, factors, 0.0)
    for cut in range(4):
        assert same(out.part(cut, cut + 1), stretched_in_time(batch.part(cut, cut + 1), factors[cut : cut + 1], 0.0))


def test_a_window_keeps_its_label_and_is_filled_with_what_surrounds_it():
    batch = dataclasses.replace(make_batch(1, 8, 20, margin=20), activity=torch.ones(1, 1, 20))
    x = torch.linspace(-1, 1, 60).expand(1, 8, 60)
    out = stretched_in_time(dataclasses.replace(batch, features=x), of(0.5), 9.0)
    assert out.activity.mean() == 1.0
    assert torch.nonzero(out.features[0, 0] == 9.0).flatten().tolist() == [*range(15), *range(45, 60)]
    heard = 29.5 + 2 * (torch.arange(20) - 9.5)  # twice as far from the middle of the 60 frames
    torch.testing.assert_close(out.features[0, 0, 20:40], 2 * heard / 59 - 1)
    assert rotated(batch, of(7, dtype=torch.int64)).activity.mean() == 1.0


@given(by=st.integers(-60, 60), frames=st.integers(1, 30))
def test_rotation_is_that_of_numpy(by, frames):
    batch = make_batch(2, 8, frames)
    valid = torch.rand(2, frames, generator=seeded()).round()
    out = rotated(dataclasses.replace(batch, valid=valid), of(by, 0, dtype=torch.int64))
    for name in ("features", "activity", "onset"):
        before, after = batch.tensors()[name], out.tensors()[name]
        np.testing.assert_array_equal(after[0], np.roll(before[0], by, axis=-1))
        assert torch.equal(after[1], before[1])
    np.testing.assert_array_equal(out.valid[0], np.roll(valid[0], by))


def heard_where_active(batch, margin):
    """The cuts with sound, on every band, exactly in the frames of a call; the margin sounds otherwise."""
    length = batch.activity.shape[-1]
    sound = torch.full_like(batch.features, -3.0)
    sound[..., margin : margin + length] = batch.activity[:, :1]
    return dataclasses.replace(batch, features=sound)


@given(by=st.integers(-60, 60), margin=st.integers(1, 30))
def test_a_margin_is_not_rotated(by, margin):
    batch = heard_where_active(make_batch(2, 8, 50, margin=margin), margin)
    out = rotated(batch, of(by, by, dtype=torch.int64))
    assert torch.equal(out.features, heard_where_active(out, margin).features), "active frames keep their sound"
    np.testing.assert_array_equal(out.activity[0], np.roll(batch.activity[0], by, axis=-1))


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
@pytest.mark.parametrize("margin", [1, 13])
def test_active_frames_keep_their_sound_when_a_cut_with_a_margin_is_stretched(factor, margin):
    batch = make_batch(2, 8, 120, margin=margin)
    wide = torch.nn.functional.pad(batch.activity, (margin, margin)).expand(-1, 8, -1)
    out = stretched_in_time(dataclasses.replace(batch, features=wide.contiguous()), of(factor, factor), 0.0)
    active = out.activity[0, 0] > 0
    assert int(active.sum()) == pytest.approx(20 * factor, abs=1)
    wrong = ((out.features[0, 0, margin : margin + 120] > 0.5) != active).nonzero().flatten()
    edges = active.nonzero().flatten()[[0, -1]].unsqueeze(1)
    assert ((wrong - edges).abs() <= 1).any(dim=0).all(), "but for half a frame at its edges"


def test_cuts_are_rotated_by_up_to_the_share():
    ramp = torch.arange(100.0).expand(300, 8, 100) / 100
    batch = dataclasses.replace(make_batch(300, 8, 100), features=ramp)
    out = augment(batch, settings(shift_time=0.2), seeded(), DOMAIN)
    by = (-(out.features[:, 0, 0] * 100).round() + 50) % 100 - 50
    assert set(by.tolist()) == set(range(-20, 21))


# Frequency


@pytest.mark.parametrize("scale", ["mel", "linear"])
@pytest.mark.parametrize("factor", [1 / 1.5, 0.9, 1.2, 1.5])
def test_a_tone_comes_out_where_its_scaled_frequency_lies(scale, factor):
    frontend = dataclasses.replace(FRONTEND, scale=scale)
    centres = torch.tensor(domain_of(frontend).centres_hz)
    scaled = scaled_in_pitch(tone_features(2000.0, frontend), of(factor), centres, 0.0)
    expected = int((centres - 2000.0 * factor).abs().argmin())
    heard = int(scaled.mean(dim=(0, 2)).argmax())
    really = int(tone_features(2000.0 * factor, frontend).mean(dim=(0, 2)).argmax())
    assert abs(heard - expected) <= 1 and abs(heard - really) <= 1


@given(factor=st.floats(0.5, 2.0), slope=st.floats(-1, 1))
def test_a_level_that_is_linear_in_frequency_is_moved_exactly(factor, slope):
    centres = torch.tensor(DOMAIN.centres_hz, dtype=torch.float64)
    level = slope * centres / 1000
    moved = scaled_in_pitch(level.view(1, -1, 1), torch.tensor([factor]).double(), centres, 99.0)[0, :, 0]
    source = centres / factor
    known = (source >= centres[0]) & (source <= centres[-1])
    torch.testing.assert_close(moved[known], slope * source[known] / 1000)
    low, high = centres[0] - (centres[1] - centres[0]) / 2, centres[-1] + (centres[-1] - centres[-2]) / 2
    assert torch.equal(moved == 99.0, (source < low) | (source >= high))


def test_what_comes_from_beyond_the_bands_is_outside():
    centres = torch.tensor(DOMAIN.centres_hz)
    x = torch.full((2, 64, 3), 3.0)
    scaled = scaled_in_pitch(x, of(1.5, 1 / 1.5), centres, -2.0)
    assert (scaled[0, -1] == 3.0).all() and (scaled[0, 0] == -2.0).all()
    assert (scaled[1, 0] == 3.0).all() and (scaled[1, -1] == -2.0).all()
    torch.testing.assert_close(scaled_in_pitch(tone_features(1000.0), of(1.0), centres, 0.0), tone_features(1000.0))


def test_bands_are_shifted_whole_and_the_outermost_fills_the_gap():
    x = torch.arange(8.0).view(1, 8, 1).repeat(3, 1, 2)
    out = shifted_in_bands(x, of(2, 0, -1, dtype=torch.int64))[:, :, 0].tolist()
    assert out == [[0, 0, 0, 1, 2, 3, 4, 5], list(range(8)), [1, 2, 3, 4, 5, 6, 7, 7]]


# Masks


def test_masks_replace_stretches_of_time_or_frequency():
    x = torch.ones(2, 10, 20)
    assert torch.nonzero(masked(x, of(3.5, 19.0), of(4.0, 4.0), 2, -2.0)[:, 0] == -2.0).tolist() == [
        *([0, frame] for frame in (4, 5, 6, 7)),
        [1, 19],
    ]
    assert torch.nonzero(masked(x, of(-1.0, 0.0), of(3.0, 0.0), 1, -2.0)[:, :, 0] == -2.0).tolist() == [[0, 0], [0, 1]]


def test_masks_are_as_many_and_as_small_as_they_should_be():
    batch = dataclasses.replace(make_batch(300, 64, 250), features=torch.ones(300, 64, 250))
    out = augment(batch, settings(masks=1), seeded(), DOMAIN).features
    frames = (out == 0).all(dim=1).sum(dim=1)
    bands = (out == 0).all(dim=2).sum(dim=1)
    assert 13 <= int(frames.max()) <= 15 and 3 <= int(bands.max()) <= 4  # 6 % of 250 and of 64
    rest = (out != 0).sum(dim=(1, 2))
    assert torch.equal(rest, (250 - frames) * (64 - bands)), "nothing but one of each"
