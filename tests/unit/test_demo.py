import csv
import hashlib
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from otus import audio
from otus.config import DemoSettings
from otus.demo import background, make_demo_corpus, scene, selection_tables, voices
from otus.demo.sites import SITES
from otus.errors import DataError

RATE = 24_000
SMALL = DemoSettings(seed=3, recordings=12, duration_s=6.0)
VOICES = [site.voice for site in SITES]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    make_demo_corpus(folder, SMALL)
    return folder


def _digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _index(folder):
    return json.loads((folder / "corpus.json").read_text())


def _odd(folder, oddity):
    (entry,) = [entry for entry in _index(folder)["files"] if entry["oddity"] == oddity]
    return folder / entry["path"], folder / entry["table"]


def test_same_settings_give_the_same_bytes_and_another_seed_does_not(corpus, tmp_path):
    make_demo_corpus(tmp_path / "again", SMALL)
    assert _digests(tmp_path / "again") == _digests(corpus)
    make_demo_corpus(tmp_path / "other", SMALL.model_copy(update={"seed": 4}))
    ours, other = _digests(corpus), _digests(tmp_path / "other")
    assert ours.keys() == other.keys()
    assert not {ours[name] for name in ours if name.endswith((".wav", ".flac"))} & set(other.values())


def test_every_recording_is_as_promised(corpus):
    index = _index(corpus)
    good = [entry for entry in index["files"] if entry["oddity"] != "truncated"]
    assert index["counts"]["recordings"] == len(good) == 12
    assert {entry["site"] for entry in good} == {"site_a", "site_b", "site_c", "site_d"}
    assert index["settings"] == SMALL.model_dump()
    for entry in good:
        assert re.fullmatch(r"(site_[a-d])/\1_2024\d{4}_\d{6}\.(wav|flac)", entry["path"])
        info = audio.inspect(corpus / entry["path"])
        assert info.duration_s == SMALL.duration_s
        assert info.subtype == "PCM_16"
        stereo = entry["oddity"] == "stereo"
        assert (info.sample_rate, info.channels) == ((48_000, 2) if stereo else (24_000, 1))
        samples, _ = audio.read(corpus / entry["path"])
        assert 0.001 < samples.std() < 0.2
        assert np.abs(samples).max() < 1.0
    on_disk = {path.relative_to(corpus).as_posix() for path in corpus.rglob("site_*.*")}
    assert on_disk == {entry[key] for entry in index["files"] for key in ("path", "table")}


def test_channels_of_the_stereo_recording_are_nearly_alike(corpus):
    samples, _ = soundfile.read(_odd(corpus, "stereo")[0])
    left, right = samples.T
    assert not np.array_equal(left, right)
    lags = np.arange(-5, 6)
    correlation = [np.corrcoef(left, np.roll(right, lag))[0, 1] for lag in lags]
    assert lags[int(np.argmax(correlation))] == -2
    assert max(correlation) > 0.95
    assert 20 * np.log10(left.std() / right.std()) == pytest.approx(1.5, abs=0.3)


def test_the_truncated_recording_is_refused_and_has_a_table(corpus):
    path, table = _odd(corpus, "truncated")
    with pytest.raises(DataError, match="truncated"):
        audio.inspect(path)
    assert _rows(table)


def test_tables_are_ravens(corpus):
    counted = {"hum": 0, "other": 0}
    doubled = 0
    for entry in _index(corpus)["files"]:
        text = (corpus / entry["table"]).read_text()
        assert tuple(text.splitlines()[0].split("\t")) == selection_tables.HEADER
        rows = _rows(corpus / entry["table"])
        selections = {}
        for row in rows:
            assert re.fullmatch(r"\d+\.\d{9}", row["Begin Time (s)"])
            begin, end = float(row["Begin Time (s)"]), float(row["End Time (s)"])
            assert 0.0 <= begin <= end <= SMALL.duration_s
            assert 0.0 <= float(row["Low Freq (Hz)"]) < float(row["High Freq (Hz)"]) <= 12_000.0
            assert row["Quality"] in {"1", "2", "3", "4"}
            selections.setdefault(row["Selection"], []).append((row["View"], begin, end, row["Annotation"]))
        views = {tuple(view for view, *_ in copies) for copies in selections.values()}
        assert views <= {("Spectrogram 1",)} or views == {("Waveform 1", "Spectrogram 1")}
        doubled += views == {("Waveform 1", "Spectrogram 1")}
        assert all(len({copy[1:] for copy in copies}) == 1 for copies in selections.values())
        real = [copies[0] for copies in selections.values() if copies[0][2] > copies[0][1]]
        assert len(selections) - len(real) == (entry["oddity"] == "slip")
        for label in counted:
            found = sum(row[3] == label for row in real)
            assert found == entry[label]
            counted[label] += found if entry["oddity"] != "truncated" else 0
    assert 0 < doubled < 13
    assert counted == {label: _index(corpus)["counts"][label] for label in counted}


def test_the_recording_without_calls_has_a_header_only(corpus):
    _, table = _odd(corpus, "no calls")
    assert table.read_text() == "\t".join(selection_tables.HEADER) + "\n"


def test_readme_names_the_seed_and_every_oddity(corpus):
    text = (corpus / "README.txt").read_text()
    assert "seed 3" in text
    for oddity in ("slip", "stereo", "no calls", "truncated"):
        assert _odd(corpus, oddity)[0].name in text


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "README.txt").write_text("my thesis")
    with pytest.raises(DataError, match=r"no corpus\.json"):
        make_demo_corpus(tmp_path, SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["README.txt"]
    assert (tmp_path / "README.txt").read_text() == "my thesis"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "demo").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        make_demo_corpus(tmp_path / "demo", SMALL)


def test_recordings_that_do_not_belong_are_refused_not_deleted(tmp_path, corpus):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    (tmp_path / "site_a" / "mine.WAV").write_bytes(b"mine")
    before = _digests(tmp_path)
    with pytest.raises(DataError, match=r"mine\.WAV: is no part of the demo corpus"):
        make_demo_corpus(tmp_path, SMALL)
    assert _digests(tmp_path) == before


def test_a_corpus_that_was_cut_off_is_made_again(tmp_path, corpus):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)
    (tmp_path / "corpus.json").unlink()
    next(tmp_path.glob("*/*.wav")).unlink()
    make_demo_corpus(tmp_path, SMALL)
    assert _digests(tmp_path) == _digests(corpus)


def test_corpus_json_is_absent_while_recordings_are_being_made(tmp_path, corpus, monkeypatch):
    shutil.copytree(corpus, tmp_path, dirs_exist_ok=True)

    def fail(*_arguments, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(soundfile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo_corpus(tmp_path, SMALL)
    assert not (tmp_path / "corpus.json").exists()
    assert not list(tmp_path.rglob(".*tmp*"))


def test_too_short_recordings_are_refused(tmp_path):
    with pytest.raises(DataError, match="too short"):
        make_demo_corpus(tmp_path / "demo", SMALL.model_copy(update={"duration_s": 4.0}))
    assert not (tmp_path / "demo").exists()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), voice=st.sampled_from(VOICES))
def test_a_hum_keeps_to_its_definition(seed, voice):
    rng = np.random.default_rng(seed)
    call = voices.hum(rng, RATE, voices.individual(rng, voice))
    assert 0.15 - 1 / RATE <= len(call) / RATE <= 1.5 + 1 / RATE
    assert np.sqrt(np.mean(call**2)) == pytest.approx(1.0)
    low_hz, high_hz = voices.occupied_band(call, RATE)
    assert 220.0 <= low_hz <= 720.0
    assert high_hz <= 14 * 720.0
    edge = round(0.004 * RATE)
    assert max(np.abs(call[:edge]).max(), np.abs(call[-edge:]).max()) < 0.7 * np.abs(call).max()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(sorted(voices.CONFUSERS)), rate=st.sampled_from([RATE, 48_000]))
def test_confusers_are_sound(seed, kind, rate):
    call = voices.CONFUSERS[kind](np.random.default_rng(seed), rate)
    assert np.isfinite(call).all()
    assert np.sqrt(np.mean(call**2)) == pytest.approx(1.0)
    assert 0.03 <= len(call) / rate <= 1.5


def test_a_growl_is_beaten_and_a_whistle_has_no_harmonics():
    rng = np.random.default_rng(5)
    loudness = np.abs(voices.growl(rng, RATE))
    frames = loudness[: len(loudness) // 240 * 240].reshape(-1, 240).mean(axis=1)
    inner = frames[len(frames) // 4 : len(frames) * 3 // 4]
    assert inner.min() < 0.4 * inner.max()
    whistle = voices.whistle(rng, RATE)
    low_hz, high_hz = voices.occupied_band(whistle, RATE)
    assert high_hz < 1.5 * low_hz


def test_distance_dulls_and_smears_but_keeps_the_level():
    rng = np.random.default_rng(2)
    dry = voices.hum(rng, RATE, VOICES[0])
    near = voices.from_afar(np.random.default_rng(1), RATE, dry, 0.0)
    far = voices.from_afar(np.random.default_rng(1), RATE, dry, 1.0)
    for heard in (near, far):
        assert np.mean(heard[: len(dry)] ** 2) == pytest.approx(np.mean(dry**2))
    high = [voices.band_power(heard, RATE, 1500.0, 12_000.0) for heard in (near, far)]
    assert high[1] < 0.7 * high[0]
    tail = [np.mean(heard[len(dry) + 50 :] ** 2) for heard in (near, far)]
    assert tail[1] > 10.0 * tail[0]


def test_band_power_of_a_tone_is_half_its_squared_amplitude():
    tone = 3.0 * np.sin(2 * np.pi * 500.0 * np.arange(RATE) / RATE)
    assert voices.band_power(tone, RATE, 400.0, 600.0) == pytest.approx(4.5)
    assert voices.band_power(tone, RATE, 600.0, 900.0) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("slope_db", [-6.0, 0.0])
def test_coloured_noise_has_unit_level_and_its_slope(slope_db):
    noise = background.coloured_noise(np.random.default_rng(0), RATE, 10 * RATE + 7, slope_db)
    assert len(noise) == 10 * RATE + 7
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    octaves = [voices.band_power(noise, RATE, low, 2 * low) / low for low in (500.0, 1000.0, 2000.0)]
    assert np.diff(10 * np.log10(octaves)) == pytest.approx(slope_db, abs=0.5)


def test_wind_is_low_and_gusty_and_clicks_are_sparse():
    rng = np.random.default_rng(1)
    gusts = background.wind(rng, RATE, 40 * RATE)
    assert voices.band_power(gusts, RATE, 0.0, 500.0) > 0.9 * np.mean(gusts**2)
    levels = gusts.reshape(40, RATE).std(axis=1)
    assert levels.max() > 3.0 * levels.min()
    clicks = background.clicks(rng, RATE, 40 * RATE, per_minute=20.0)
    assert 0.0 < np.mean(clicks != 0.0) < 0.1
    assert len(background.clicks(rng, RATE, 100, per_minute=1e6)) == 100


def test_rain_follows_its_density():
    thin, dense = (background.rain(np.random.default_rng(4), RATE, 10 * RATE, drops_per_s=d) for d in (2.0, 200.0))
    assert np.mean(dense**2) > np.mean(thin**2)
    assert np.isfinite(dense).all()


def test_slow_curve_is_smooth_and_covers_every_sample():
    curve = background.slow_curve(np.random.default_rng(0), 100, 100_000, period_s=2.0)
    assert len(curve) == 100_000
    assert np.abs(np.diff(curve)).max() < 0.1
    assert curve.std() == pytest.approx(0.85, abs=0.2)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_a_scene_holds_its_calls_apart_and_at_the_stated_level(site):
    made = scene.compose(np.random.default_rng(7), RATE, 60.0, site, calls=True)
    hums = [event for event in made.events if event.label == "hum"]
    assert 4 <= len(hums) <= 12
    assert all(event.label == ("hum" if event.kind == "hum" else "other") for event in made.events)
    assert all(later.start_s - earlier.end_s >= 0.099 for earlier, later in itertools.pairwise(hums))
    assert all(0.0 < event.start_s < event.end_s < 60.0 for event in made.events)
    assert all(-30.0 < event.snr_db < 30.0 for event in made.events)
    silent = scene.compose(np.random.default_rng(7), RATE, 8.0, site, calls=False)
    assert not [event for event in silent.events if event.label == "hum"]
    loudest = max(hums, key=lambda event: event.snr_db)
    inside = made.samples[round(loudest.start_s * RATE) : round(loudest.end_s * RATE)]
    beside = made.samples[round((loudest.start_s - 0.3) * RATE) : round((loudest.start_s - 0.02) * RATE)]
    band = (loudest.low_hz, loudest.high_hz)
    assert voices.band_power(inside, RATE, *band) > voices.band_power(beside, RATE, *band)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), site=st.sampled_from(SITES), duration_s=st.floats(5.0, 8.0))
def test_short_scenes_can_always_be_made(seed, site, duration_s):
    made = scene.compose(np.random.default_rng(seed), RATE, duration_s, site, calls=True)
    assert len(made.samples) == round(duration_s * RATE)
    assert [event for event in made.events if event.label == "hum"]


def _event(start_s, end_s, label="hum"):
    return scene.Event(label, label, start_s, end_s, 300.0, 2000.0, 3.0)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_shaky_hands_stay_inside_the_recording(seed):
    events = [_event(0.0, 0.15), _event(1.0, 1.2), _event(9.85, 10.0)]
    rows = selection_tables.annotate(np.random.default_rng(seed), events, 10.0, 1900.0)
    assert len(rows) == 3
    for row, event in zip(rows, events, strict=True):
        assert 0.0 <= row.start_s < row.end_s <= 10.0
        assert row.end_s - row.start_s >= 0.0399
        assert abs(row.start_s - event.start_s) < 0.25
        assert row.high_hz <= 1900.0


@pytest.mark.parametrize(("snr_db", "quality"), [(20.0, 1), (5.0, 1), (0.0, 2), (-3.0, 3), (-8.0, 4), (-30.0, 4)])
def test_quality_is_one_for_clear_and_four_for_faint(snr_db, quality):
    event = scene.Event("hum", "hum", 1.0, 2.0, 300.0, 2000.0, snr_db)
    (row,) = selection_tables.annotate(np.random.default_rng(0), [event], 10.0, 12_000.0)
    assert row.quality == quality


def test_jitter_is_a_few_hundredths_and_half_of_the_confusers_are_left_out():
    rng = np.random.default_rng(0)
    events = [_event(k, k + 0.5) for k in range(1, 400)] + [_event(k + 0.6, k + 0.9, "other") for k in range(1, 400)]
    rows = selection_tables.annotate(rng, events, 500.0, 12_000.0)
    hums = [row for row in rows if row.label == "hum"]
    assert len(hums) == 399
    assert 160 < len(rows) - 399 < 240
    assert 0.015 < np.std([row.start_s - event.start_s for row, event in zip(hums, events, strict=False)]) < 0.045


def test_late_rows_move_to_the_end_and_a_slip_is_one_row_more():
    rng = np.random.default_rng(0)
    rows = selection_tables.annotate(rng, [_event(k, k + 0.5) for k in range(1, 8)], 10.0, 12_000.0)
    late = selection_tables.add_late(rng, rows)
    assert sorted(late, key=lambda row: row.start_s) == rows
    assert late != rows
    slipped = selection_tables.add_slip(rng, rows)
    (extra,) = [row for row in slipped if row not in rows]
    assert extra.start_s == extra.end_s


def test_both_views_repeat_the_number_and_the_values():
    row = selection_tables.Selected("hum", 1.25, 2.0, 300.0, 1500.5, 2)
    text = selection_tables.render([row, row], views=("Waveform 1", "Spectrogram 1"))
    assert text.splitlines()[1:] == [
        f"{number}\t{view}\t1\t1.250000000\t2.000000000\t300.000\t1500.500\thum\t2"
        for number in (1, 2)
        for view in ("Waveform 1", "Spectrogram 1")
    ]
