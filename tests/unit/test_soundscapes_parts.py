"""The pieces that soundscapes are put together from: gate, placement, background, rendering, the shelf."""

import dataclasses
import itertools
import threading
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otus.audio import AudioInfo
from otus.config import SnrSettings, SoundscapeSettings
from otus.soundscapes.background import lay_bed, read_bed
from otus.soundscapes.gating import SILENCE, frame_length, loud_stretches, measure
from otus.soundscapes.placement import Place, draw_snr, place_events
from otus.soundscapes.rendering import Event, Scene, Sounds, compose, render, to_pcm, write_recording
from otus.soundscapes.sounds import EventSound, Shelf, background_piece, event_sound, rms
from otus.soundscapes.sources import LONGEST_PIECE_S, Cut, Sound, catalogue_of

RATE = 1000
INFO = AudioInfo(10**9, RATE, 1, "PCM_16")
SNR = SnrSettings()


def cut(n_samples, name="clip", start=0):
    return Cut(name, start, start + n_samples, 0.0, INFO)


def sound(label, rate_per_min, *lengths):
    return Sound(label, rate_per_min, tuple((cut(length, f"{label}{i}"),) for i, length in enumerate(lengths)))


# --- gate -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 8))
def test_stretches_hold_every_loud_frame_and_no_long_pause(loud, bridge):
    levels = np.array(loud, dtype=float)
    found = loud_stretches(levels, 0.5, bridge)
    inside = np.zeros(len(levels), dtype=bool)
    for first, last in found:
        assert loud[first] and loud[last - 1]
        inside[first:last] = True
        pauses = [len(list(run)) for is_loud, run in itertools.groupby(loud[first:last]) if not is_loud]
        assert max(pauses, default=0) <= bridge
    assert inside[levels > 0.5].all()
    assert all(later[0] - earlier[1] > bridge for earlier, later in itertools.pairwise(found))


@given(st.integers(1, 400), st.floats(-0.5, 0.5), st.integers(0, 2**32))
def test_levels_are_those_around_the_mean(n_samples, offset, seed):
    samples = (0.1 * np.random.default_rng(seed).standard_normal(n_samples) + offset).astype(np.float32)
    assume(n_samples % 5 != 1)  # a last frame of one sample is constant, and so silent
    loudness = measure([samples], RATE)
    frame = frame_length(RATE)
    assert loudness.n_samples == n_samples and loudness.frame_samples == frame == 5
    assert loudness.mean == pytest.approx(samples.mean(dtype=float), abs=1e-9)
    expected = [rms(samples[i : i + frame] - loudness.mean) for i in range(0, n_samples, frame)]
    assert loudness.levels == pytest.approx(expected, abs=1e-6)
    assert loudness.span(0, len(expected)) == (0, n_samples)


def test_blocks_do_not_change_the_levels():
    samples = np.random.default_rng(0).standard_normal(1003).astype(np.float32)
    whole = measure([samples], RATE)
    pieces = measure([samples[i : i + 50] for i in range(0, 1003, 50)], RATE)
    np.testing.assert_array_equal(whole.levels, pieces.levels)
    assert whole.mean == pytest.approx(pieces.mean)


def test_silence_is_silent_whatever_the_rest_of_the_clip_does():
    """A clip that does not swing around zero: the mean of the loud part must not make sound of digital zeros."""
    loud = 0.1 + 0.05 * np.random.default_rng(1).standard_normal(500)
    loudness = measure([np.concatenate([np.zeros(500), loud]).astype(np.float32)], RATE)
    assert (loudness.levels[:100] == 0.0).all()
    assert loudness.mean == pytest.approx(0.1, abs=0.01)
    assert loudness.levels[100:] == pytest.approx(0.05, abs=0.06)
    assert measure([np.full(100, 0.3, dtype=np.float32)], RATE).levels.max() == 0.0
    assert measure([np.full(100, SILENCE / 3, dtype=np.float32)], RATE).levels.max() == 0.0
    assert len(measure([], RATE).levels) == 0


# --- placement ------------------------------------------------------------------------------------------------------


def spans(placement, *labels):
    return sorted((place.start, place.end) for place in placement.places if place.label in labels)


def gaps(intervals):
    return [later[0] - earlier[1] for earlier, later in itertools.pairwise(intervals)]


def draw(seed, sounds, seconds, overlap, gap_s=0.1):
    rng = np.random.default_rng(seed)
    return place_events(rng, sounds, seconds * RATE, RATE, overlap=overlap, gap_s=gap_s, snr=SNR)


SOUNDS = (sound("frog", 60, 150, 800), sound("owl", 90, 40, 500, 2100), sound("owl", 10, 3000))


@given(st.integers(0, 2**32), st.sampled_from(["forbid", "other", "allow"]), st.sampled_from([0.0, 0.1, 0.7]))
@hypothesis_settings(max_examples=60, deadline=None)
def test_events_overlap_as_allowed_and_none_is_lost_from_the_books(seed, overlap, gap_s):
    placement = draw(seed, SOUNDS, 30, overlap, gap_s)
    gap = round(gap_s * RATE)
    if overlap == "forbid":
        assert min(gaps(spans(placement, "owl", "frog")), default=gap) >= gap
    if overlap == "other":
        for label in ("owl", "frog"):
            assert min(gaps(spans(placement, label)), default=gap) >= gap
    if overlap == "allow":
        assert not placement.crowded_out
    placed = Counter(place.label for place in placement.places)
    assert placed + placement.crowded_out == placement.drawn
    assert all(0 <= place.start < place.end <= 30 * RATE for place in placement.places)
    assert [place.start for place in placement.places] == sorted(place.start for place in placement.places)
    assert all(SNR.low_db <= place.snr_db <= SNR.high_db for place in placement.places)


def test_the_policies_differ():
    """Events of one label, or of two, overlap only where they may."""
    allow, other, forbid = (draw(1, SOUNDS, 60, policy, 0.0) for policy in ("allow", "other", "forbid"))
    assert min(gaps(spans(allow, "owl"))) < 0
    assert min(gaps(spans(other, "owl"))) >= 0 > min(gaps(spans(other, "owl", "frog")))
    assert sum(forbid.crowded_out.values()) > sum(other.crowded_out.values()) > 0


def test_numbers_and_places_are_a_poisson_process():
    """800 recordings of 5 minutes, 3 events a minute: 12,000 events, give or take 4 standard deviations."""
    runs = [draw(seed, [sound("owl", 3, 100)], 300, "allow") for seed in range(800)]
    counts = np.array([len(run.places) for run in runs])
    assert abs(counts.sum() - 12_000) < 4 * np.sqrt(12_000)
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 800))
    starts = np.array([place.start for run in runs for place in run.places]) / (300 * RATE - 100)
    shares, _ = np.histogram(starts, 10, (0, 1))
    assert np.sum((shares - shares.mean()) ** 2 / shares.mean()) < 27.9  # chi-square, 9 degrees of freedom, 0.1 %
    waits = np.diff(np.sort(starts))
    assert waits.std() / waits.mean() == pytest.approx(1.0, abs=0.05)


def test_in_a_crowd_no_sound_has_the_first_choice():
    crowd = (sound("a", 300, 200), sound("b", 300, 200))
    placed = Counter(place.label for seed in range(8) for place in draw(seed, crowd, 60, "forbid").places)
    assert placed["a"] / placed["b"] == pytest.approx(1.0, abs=0.2)


def test_an_event_longer_than_the_recording_is_dropped_and_one_as_long_fits():
    placement = draw(0, [sound("long", 200, 2001), sound("whole", 200, 2000)], 2, "other")
    assert placement.crowded_out["long"] == placement.drawn["long"] > 0
    assert spans(placement, "whole") == [(0, 2000)]


def test_clips_come_up_alike_however_many_events_they_hold():
    many = tuple(cut(50, "many", 100 * n) for n in range(20))
    placement = draw(3, [Sound("owl", 4000, ((cut(50, "one"),), many))], 60, "allow")
    drawn = Counter(place.cut.path for place in placement.places)
    assert drawn["one"] / drawn["many"] == pytest.approx(1.0, abs=0.15)


def test_snr_follows_its_truncated_normal_distribution():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_snr(rng, SnrSettings(mean_db=10, sd_db=5, low_db=5, high_db=40)) for _ in range(20_000)])
    assert drawn.min() >= 5.0 and drawn.max() < 40.0
    assert drawn.mean() == pytest.approx(11.44, abs=0.1)  # 10 + 5 * density(-1) / (1 - distribution(-1))
    assert {draw_snr(rng, SnrSettings(mean_db=7, sd_db=0, low_db=0, high_db=9)) for _ in range(5)} == {7.0}
    assert draw_snr(rng, SnrSettings(mean_db=7, sd_db=3, low_db=7, high_db=7)) == 7.0
    assert 0.0 <= draw_snr(rng, SnrSettings(mean_db=0, sd_db=1e-3, low_db=0, high_db=9)) < 0.01


# --- sounds ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shifted_clip(tmp_path):
    """A second of a 100 Hz tone of level 0.5 that swings around 0.25, at 1 kHz."""
    samples = 0.25 + 0.5 * np.sqrt(2) * np.sin(2 * np.pi * 0.1 * np.arange(RATE) + 0.3)
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    return Cut("clip.wav", 100, 900, 0.25, AudioInfo(RATE, RATE, 1, "FLOAT"))


def test_an_event_is_faded_at_both_ends_around_zero(tmp_path, shifted_clip):
    plain = event_sound(tmp_path, shifted_clip, RATE, 0.0)
    faded = event_sound(tmp_path, shifted_clip, RATE, 0.1)
    assert len(plain.samples) == len(faded.samples) == 800
    assert plain.rms == pytest.approx(0.5, abs=1e-6) and abs(plain.samples.mean()) < 1e-6
    expected = 0.5 - 0.5 * np.cos(np.pi * (np.arange(100) + 0.5) / 100)
    assert faded.samples[:100] == pytest.approx(plain.samples[:100] * expected, abs=1e-6)
    assert faded.samples[-100:] == pytest.approx(plain.samples[-100:] * expected[::-1], abs=1e-6)
    np.testing.assert_array_equal(faded.samples[100:-100], plain.samples[100:-100])
    assert faded.rms == pytest.approx(rms(faded.samples)) and faded.rms < plain.rms
    assert plain.low_hz <= 100.0 <= plain.high_hz < 110.0


def test_fades_of_a_short_event_meet_in_its_middle(tmp_path, shifted_clip):
    short = dataclasses.replace(shifted_clip, end=111)
    faded = event_sound(tmp_path, short, RATE, 3.0)
    ratio = faded.samples / event_sound(tmp_path, short, RATE, 0.0).samples
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(5) + 0.5) / 5)
    assert ratio == pytest.approx([*rise, 1.0, *rise[::-1]], abs=1e-5)


def test_a_background_piece_has_its_level_before_its_ramps(tmp_path, shifted_clip):
    samples = background_piece(tmp_path, shifted_clip, RATE, -20.0, 200)
    assert rms(samples[200:-200]) == pytest.approx(0.1, rel=1e-4)
    assert rms(samples[:100]) < 0.05 and rms(samples[-100:]) < 0.05
    assert abs(samples[200:-200].mean()) < 1e-6
    rise, fall = samples[:200] / samples[200:400], samples[-200:] / samples[200:400]
    assert rise**2 + fall**2 == pytest.approx(1.0, abs=1e-3)  # two periods of a ramp hold whole waves of the tone


@pytest.mark.parametrize(("gate_db", "length"), [(15, 200), (25, 500), (45, 800)])
def test_the_gate_goes_by_the_loudest_moment(tmp_path, gate_db, length):
    """A call whose echo is 20 dB, then 40 dB weaker."""
    levels = np.concatenate([np.zeros(100), np.full(200, 0.5), np.full(300, 0.05), np.full(300, 0.005), np.zeros(99)])
    soundfile.write(tmp_path / "call.wav", levels * np.where(np.arange(len(levels)) % 2, 1, -1), RATE)
    bed = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE)
    soundfile.write(tmp_path / "bed.wav", bed, RATE)
    settings = SoundscapeSettings(
        clips=str(tmp_path), events={"owl": {"files": "call.wav"}}, backgrounds=["bed.wav"], sample_rate=RATE,
        gate_db=gate_db,
    )  # fmt: skip
    (part,) = catalogue_of(settings, workers=1, progress=lambda _: None).parts
    ((call,),) = part.sounds[0].clips
    assert (call.start, call.end) == (100, 100 + length)


def test_long_backgrounds_come_in_pieces_without_their_pauses(tmp_path):
    rng = np.random.default_rng(0)
    bed = 0.1 * rng.standard_normal(90 * RATE)
    bed[30 * RATE : 31 * RATE] *= 0.01
    bed[60 * RATE : 60 * RATE + 40] = 0.0  # too short for a pause
    soundfile.write(tmp_path / "bed.wav", bed, RATE)
    soundfile.write(tmp_path / "call.wav", np.where(np.arange(2 * RATE) < 500, 0.1 * bed[: 2 * RATE], 0.0), RATE)
    settings = SoundscapeSettings(
        clips=str(tmp_path), events={"owl": {"files": "call.wav"}}, backgrounds=["bed.wav"], sample_rate=RATE
    )
    (part,) = catalogue_of(settings, workers=1, progress=lambda _: None).parts
    spans = [(one.start, one.end) for one in part.backgrounds]
    assert [spans[0][0], spans[1][1], spans[2][0], spans[-1][1]] == [0, 30_000, 31_000, 90_000]
    assert all(end - start <= LONGEST_PIECE_S * RATE for start, end in spans)
    assert [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans)] == [0, 1000, 0, 0]


# --- background -----------------------------------------------------------------------------------------------------

CROSSFADE = 20


def piece(one):
    """Noise with the ramps of an equal-power crossfade, as a function of the cut."""
    samples = np.random.default_rng([one.n_samples, one.start]).standard_normal(one.n_samples).astype(np.float32)
    ramp = np.sin(0.5 * np.pi * (np.arange(CROSSFADE) + 0.5) / CROSSFADE).astype(np.float32)
    samples[:CROSSFADE] *= ramp
    samples[-CROSSFADE:] *= ramp[::-1]
    return samples


CUTS = tuple(cut(length, f"bed{i}", i) for i, length in enumerate((40, 41, 97, 150, 300)))


@given(st.integers(0, 2**32), st.integers(1, 3000), st.integers(1, 5), st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_background_is_the_same_wherever_it_is_cut(seed, n_samples, n_cuts, data):
    bed = lay_bed(np.random.default_rng(seed), CUTS[:n_cuts], n_samples, CROSSFADE)
    whole = read_bed(bed, 0, n_samples, piece)
    start = data.draw(st.integers(0, n_samples))
    end = data.draw(st.integers(start, n_samples))
    np.testing.assert_array_equal(read_bed(bed, start, end, piece), whole[start:end])


@given(st.integers(0, 2**32), st.integers(1, 3000), st.integers(1, 5))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_background_has_full_power_everywhere_and_no_piece_twice_running(seed, n_samples, n_cuts):
    bed = lay_bed(np.random.default_rng(seed), CUTS[:n_cuts], n_samples, CROSSFADE)
    power = np.zeros(n_samples)
    for one, start in zip(bed.pieces, bed.starts, strict=True):
        squares = np.ones(one.n_samples)
        squares[:CROSSFADE] = np.sin(0.5 * np.pi * (np.arange(CROSSFADE) + 0.5) / CROSSFADE) ** 2
        squares[-CROSSFADE:] = squares[CROSSFADE - 1 :: -1]
        inside = slice(max(0, start), min(n_samples, start + one.n_samples))
        power[inside] += squares[inside.start - start : inside.stop - start]
    assert power == pytest.approx(1.0)
    if n_cuts > 1:
        assert all(one != following for one, following in itertools.pairwise(bed.pieces))
    counts = Counter(bed.pieces)
    assert max(counts.values()) - min(counts[one] for one in CUTS[:n_cuts]) <= 1


# --- rendering ------------------------------------------------------------------------------------------------------


def tone(one):
    samples = np.sin(np.arange(one.n_samples) * 0.7 + one.start).astype(np.float32)
    return EventSound(samples, rms(samples), 0.0, 500.0)


SOURCES = Sounds(tone, piece)


def scene_of(seed, n_samples=5000, snr_db=6.0):
    rng = np.random.default_rng(seed)
    bed = lay_bed(rng, CUTS, n_samples, CROSSFADE)
    lengths = rng.integers(1, 400, 30)
    places = [Place(int(rng.integers(n_samples - n + 1)), "owl", cut(int(n), "event", int(n)), snr_db) for n in lengths]
    return compose(n_samples, RATE, bed, sorted(places, key=lambda place: place.start), SOURCES)


@given(st.integers(0, 200), st.data())
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_recording_is_the_same_wherever_it_is_cut(seed, data):
    scene, _, _ = scene_of(seed)
    whole = render(scene, 0, 5000, SOURCES)
    start = data.draw(st.integers(0, 5000))
    end = data.draw(st.integers(start, 5000))
    np.testing.assert_array_equal(render(scene, start, end, SOURCES), whole[start:end])


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_the_length_of_the_blocks_does_not_change_a_byte(tmp_path, suffix):
    scene, _, _ = scene_of(3)
    written, seconds = [], []
    for i, block_s in enumerate((0.013, 0.9, 10.0)):
        passed = []
        write_recording(tmp_path / f"{i}{suffix}", scene, SOURCES, block_s=block_s, advance=passed.append)
        written.append((tmp_path / f"{i}{suffix}").read_bytes())
        seconds.append(sum(passed))
    assert written[0] == written[1] == written[2]
    assert seconds == pytest.approx([5.0, 5.0, 5.0])


def test_snr_is_that_of_the_event_alone_against_the_background_alone():
    """Also where events overlap, and after the recording was lowered lest it clips."""
    scene, heard, faint = scene_of(5)
    assert scene.gain < 0.5 and not faint and len(heard) == 30
    assert np.abs(render(scene, 0, 5000, SOURCES)).max() == pytest.approx(0.99, abs=1e-5)
    silent = Sounds(tone, lambda one: np.zeros(one.n_samples, dtype=np.float32))
    ground = render(dataclasses.replace(scene, events=()), 0, 5000, SOURCES)
    for one in heard:
        alone = render(dataclasses.replace(scene, events=(one.event,)), 0, 5000, silent)
        here = slice(one.event.start, one.event.end)
        assert not alone[: here.start].any() and not alone[here.stop :].any()
        assert one.snr_db == pytest.approx(6.0, abs=0.05)
        assert 20 * np.log10(rms(alone[here]) / rms(ground[here])) == pytest.approx(one.snr_db, abs=0.05)
        assert one.gain_db == pytest.approx(20 * np.log10(one.event.gain * scene.gain))


def test_events_below_16_bits_are_left_out_and_counted():
    _, heard, faint = scene_of(5, snr_db=-120.0)
    assert not heard and faint == Counter(owl=30)
    silent = Sounds(lambda one: EventSound(np.zeros(one.n_samples, np.float32), 0.0, 0.0, 1.0), piece)
    bed = lay_bed(np.random.default_rng(0), CUTS, 500, CROSSFADE)
    scene, heard, faint = compose(500, RATE, bed, [Place(5, "owl", cut(50), 10.0)], silent)
    assert not heard and not scene.events and faint == Counter(owl=1)


def test_full_scale_fits_into_16_bits():
    assert to_pcm(np.array([-1.0, 0.0, 1.0], dtype=np.float32)).tolist() == [-32767, 0, 32767]


def test_an_event_outside_the_stretch_is_not_read():
    def never(_):
        raise AssertionError("read without need")

    bed = lay_bed(np.random.default_rng(0), CUTS, 500, CROSSFADE)
    scene = Scene(500, RATE, bed, (Event(100, "owl", cut(50), 1.0),))
    assert len(render(scene, 150, 500, Sounds(never, piece))) == 350
    assert len(render(scene, 0, 100, Sounds(never, piece))) == 100
    with pytest.raises(AssertionError, match="without need"):
        render(scene, 0, 101, Sounds(never, piece))


# --- the shelf ------------------------------------------------------------------------------------------------------


def test_the_shelf_keeps_what_was_used_last_within_its_size():
    made = []

    def make(one):
        made.append(one.path)
        return bytes(one.n_samples)

    shelf = Shelf(make, len, 250)
    a, b, c, huge = cut(100, "a"), cut(100, "b"), cut(100, "c"), cut(1000, "huge")
    for one in (a, b, a, c, a, b, huge, huge, a):
        assert len(shelf(one)) == one.n_samples
    assert made == ["a", "b", "c", "b", "huge", "a"]


def test_threads_may_share_a_shelf():
    shelf = Shelf(lambda one: bytes(one.n_samples), len, 300)
    cuts, wrong = [cut(n, f"{n}") for n in range(1, 80)], []

    def ask(seed):
        for i in np.random.default_rng(seed).integers(0, len(cuts), 2000):
            if len(shelf(cuts[i])) != cuts[i].n_samples:
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(len(item) for item in shelf._items.values()) == shelf._bytes <= 300
