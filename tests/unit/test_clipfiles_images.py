import numpy as np
import pytest
import soundfile
from clipfiles_tables import call, clip, clips_of, named_of, recordings_of
from PIL import Image

from otus.clipfiles.cutting import Unread, plan_cuts, write_cuts
from otus.clipfiles.images import palette, spectrogram_levels, write_png
from otus.clipfiles.sheets import write_sheets
from otus.config import ClipImageSettings
from otus.errors import DataError

RATE = 8000


def levels_of(samples, rate=RATE, **values):
    samples = np.asarray(samples, dtype=np.float32)
    return spectrogram_levels(lambda a, b: samples[a:b], len(samples), rate, ClipImageSettings(**values))


def tone(hz, seconds, level=0.5, rate=RATE):
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def test_a_tone_is_a_bright_line_at_its_height():
    levels = levels_of(tone(3000, 0.5) + tone(500, 0.5, 0.005))
    assert levels.shape == (81, 97)  # bands of 50 Hz up to 4 kHz; 160 samples every 40
    rows = levels.mean(axis=1)
    assert rows.argmax() == 20 and rows[20] == 255  # 3000 Hz, counted from 4000 Hz at the top
    assert rows[70] == pytest.approx(255 - 255 * 40 / 60, abs=1)  # 500 Hz, 40 dB below
    assert (rows[30:60] == 0).all()


def test_what_is_quieter_than_the_dynamic_range_is_dark():
    wide, narrow = (levels_of(tone(3000, 0.2) + tone(500, 0.2, 0.005), dynamic_range_db=d) for d in (80, 39))
    assert wide[70].mean() == pytest.approx(127.5, abs=1) and narrow[70].max() == 0


def test_the_band_is_cropped_and_the_loudest_point_is_looked_for_in_it():
    both = tone(3000, 0.2) + tone(500, 0.2, 0.005)
    levels = levels_of(both, low_hz=100, high_hz=1000)
    assert levels.shape[0] == 19 and levels[10].mean() == 255
    assert levels_of(both, high_hz=99_999).shape[0] == 81
    with pytest.raises(DataError, match="no frequency between 5000 and 6000 Hz"):
        levels_of(both, low_hz=5000, high_hz=6000)


def test_time_runs_from_left_to_right():
    levels = levels_of(np.concatenate([np.zeros(RATE), tone(1000, 1.0)]))
    assert levels[:, :90].max() == 0 and levels[60, -90:].min() == 255


@pytest.mark.parametrize("samples", [np.zeros(900), np.full(900, 0.3), np.full(5, -0.1)])
def test_silence_and_an_offset_are_dark(samples):
    assert levels_of(samples).max() == 0


@pytest.mark.parametrize("n", [1, 100, 159, 160, 161, 199, 200])
def test_short_clips_are_padded_to_one_window(n):
    levels = levels_of(tone(1000, 1)[:n] + 0.01)
    assert levels.shape == (81, 2 if n == 200 else 1)


def test_samples_that_are_no_numbers():
    with pytest.raises(DataError, match="not finite"):
        levels_of([0.1, np.nan] * 200)


def test_long_clips_are_averaged_and_read_in_stretches():
    read = []

    def reader(start, end):
        read.append(end - start)
        return tone(1000, 1)[np.arange(start, end) % RATE].astype(np.float32)

    levels = spectrogram_levels(reader, 1800 * RATE, RATE, ClipImageSettings())
    assert levels.shape == (81, 4000) and (levels[60] == 255).all() and max(read) < 2_100_000
    assert sum(read) < 1801 * RATE


def test_blocks_do_not_change_the_picture(monkeypatch):
    noise = np.random.default_rng(1).normal(0, 0.1, 3 * RATE)
    whole = levels_of(noise)
    monkeypatch.setattr("otus.clipfiles.images._BLOCK_SAMPLES", 1000)
    np.testing.assert_array_equal(levels_of(noise), whole)
    monkeypatch.setattr("otus.clipfiles.images._MOST_COLUMNS", 100)
    averaged = levels_of(noise)
    monkeypatch.setattr("otus.clipfiles.images._BLOCK_SAMPLES", 10**9)
    np.testing.assert_array_equal(levels_of(noise), averaged)


def test_an_unknown_colour_map_is_one_sentence():
    with pytest.raises(DataError, match=r"no colour map 'magmaa'; choose for example magma[^.]*\.$"):
        palette("magmaa")
    with pytest.raises(DataError, match="choose for example magma or viridis or gray_r"):
        palette("§§")


def test_pixels_have_the_colours_of_the_map(tmp_path):
    write_png(tmp_path / "x.png", np.array([[0, 255]], dtype=np.uint8), palette("gray_r"))
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (2, 1) and list(image.convert("RGB").tobytes()) == [255] * 3 + [0] * 3
    assert len(palette("tab10")) == len(palette("magma")) == 768


def corpus(tmp_path, n=3, seconds=4, rate=RATE, **values):
    """Recordings a, b, ... below `root`, in samples that all differ."""
    (tmp_path / "root").mkdir()
    rows = []
    for i in range(n):
        samples = np.random.default_rng(i).integers(-30_000, 30_000, seconds * rate).astype(np.int16)
        soundfile.write(tmp_path / "root" / f"{'abcdef'[i]}.wav", samples, rate, **values)
        rows.append({"recording_id": "abcdef"[i], "sample_rate": rate})
    return recordings_of(*rows), tmp_path / "root"


def cut(tmp_path, recordings, clips, images=None, audio=False, workers=1):
    named, _ = named_of(recordings, clips)
    plans = plan_cuts(named, images, audio=audio)
    return named, write_cuts(tmp_path / "out", tmp_path / "root", plans, images, workers=workers, progress=print)


def test_pictures_of_clips_are_the_same_with_any_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("otus.clipfiles.cutting._CLIPS_AT_A_TIME", 3)
    recordings, _ = corpus(tmp_path)
    clips = clips_of(*(make(r, s, s + 900) for r in "abc" for s in range(0, 8000, 1000) for make in (call, clip)))
    contents = []
    for workers in (1, 4):
        named, written = cut(tmp_path, recordings, clips, ClipImageSettings(), workers=workers)
        assert list(written.pictures) == list(named["uid"])
        contents.append([(tmp_path / "out" / path).read_bytes() for path in written.pictures.values()])
    assert contents[0] == contents[1] and len(set(contents[0])) == 24
    assert sorted(p.name for p in (tmp_path / "out" / "spectrograms").iterdir()) == ["hum", "noise"]
    assert not written.unread and written.sounds == 0


def test_context_is_shown_as_far_as_the_recording_goes(tmp_path):
    recordings, _ = corpus(tmp_path, 1)
    clips = clips_of(clip("a", 0, 800), clip("a", 16_000, 16_800))
    _, written = cut(tmp_path, recordings, clips, ClipImageSettings(context_s=1.0))
    widths = [Image.open(tmp_path / "out" / path).width for path in written.pictures.values()]
    assert widths == [1 + (8800 - 160) // 40, 1 + (16_800 - 160) // 40]


def test_so_many_pictures_of_a_label_evenly_spaced(tmp_path):
    recordings, _ = corpus(tmp_path, 1)
    clips = clips_of(*(call("a", s, s + 100) for s in range(0, 900, 100)), clip("a", 5, 50))
    _, written = cut(tmp_path, recordings, clips, ClipImageSettings(max_per_class=3), audio=True)
    assert sorted(written.pictures) == [1, 2, 6, 10]  # the call at 0, the noise, the calls at 400 and 800
    assert written.sounds == 10


@pytest.mark.parametrize(
    ("subtype", "kept", "dtype"),
    [("PCM_16", "PCM_16", "int16"), ("PCM_24", "PCM_24", "int32"), ("FLOAT", "FLOAT", "float32"),
     ("PCM_U8", "PCM_U8", "int16"), ("DOUBLE", "DOUBLE", "float64"), ("ULAW", "PCM_16", "int16")],
)  # fmt: skip
def test_sounds_are_cut_out_sample_by_sample_in_the_subtype_of_the_recording(tmp_path, subtype, kept, dtype):
    recordings, root = corpus(tmp_path, 1, subtype=subtype)
    named, written = cut(tmp_path, recordings, clips_of(call("a", 1234, 5678)), audio=True)
    path = tmp_path / "out" / "audio" / f"{named['name'].iloc[0]}.wav"
    assert written.sounds == 1 and soundfile.info(path).subtype == kept and soundfile.info(path).samplerate == RATE
    expected = soundfile.read(root / "a.wav", start=1234, stop=5678, dtype=dtype)[0]
    np.testing.assert_array_equal(soundfile.read(path, dtype=dtype)[0], expected)


def test_float_sounds_have_no_date_in_them(tmp_path):
    recordings, _ = corpus(tmp_path, 1, subtype="FLOAT")
    named, _ = cut(tmp_path, recordings, clips_of(call("a", 0, 5000)), audio=True)
    content = (tmp_path / "out" / "audio" / f"{named['name'].iloc[0]}.wav").read_bytes()
    peak = content.index(b"PEAK")
    assert content[peak + 12 : peak + 16] == bytes(4)


def test_sounds_keep_their_channels_and_pictures_show_their_mean(tmp_path):
    (tmp_path / "root").mkdir()
    left, right = tone(1000, 1), -tone(1000, 1)
    soundfile.write(tmp_path / "root" / "a.flac", np.stack([left, right], axis=1), RATE)
    recordings = recordings_of({"recording_id": "a", "path": "a.flac", "sample_rate": RATE})
    named, written = cut(tmp_path, recordings, clips_of(clip("a", 0, 4000)), ClipImageSettings(), audio=True)
    assert soundfile.info(tmp_path / "out" / "audio" / f"{named['name'].iloc[0]}.wav").channels == 2
    with Image.open(tmp_path / "out" / written.pictures[1]) as image:
        assert max(image.tobytes()) == 0  # one channel undoes the other


def test_loud_lossy_sound_is_clipped_and_does_not_wrap_around(tmp_path):
    (tmp_path / "root").mkdir()
    soundfile.write(tmp_path / "root" / "a.ogg", np.sign(tone(440, 1)) * 0.999, RATE, subtype="VORBIS")
    recordings = recordings_of({"recording_id": "a", "path": "a.ogg", "sample_rate": RATE})
    named, _ = cut(tmp_path, recordings, clips_of(clip("a", 0, 8000)), audio=True)
    heard = soundfile.read(tmp_path / "out" / "audio" / f"{named['name'].iloc[0]}.wav")[0]
    expected = soundfile.read(tmp_path / "root" / "a.ogg")[0]
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(heard, np.clip(expected, -1, 1), atol=1e-4)


def test_recordings_that_changed_are_counted_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("otus.clipfiles.cutting._CLIPS_AT_A_TIME", 2)
    recordings, root = corpus(tmp_path, 5)
    (root / "a.wav").unlink()
    (root / "b.wav").write_bytes(b"no sound")
    soundfile.write(root / "c.wav", np.zeros(100), 4000)
    soundfile.write(root / "d.wav", np.zeros(1500, dtype=np.int16), RATE)
    clips = clips_of(*(call(r, s, s + 1000) for r in "abcde" for s in (0, 1000, 2000)))
    _, written = cut(tmp_path, recordings, clips, ClipImageSettings(), audio=True, workers=3)
    assert [(one.recording_id, one.clips) for one in written.unread] == [("a", 3), ("b", 3), ("c", 3), ("d", 2)]
    reasons = [one.reason for one in written.unread]
    assert reasons[0] == "is no longer there" and reasons[1].startswith("cannot be opened (")
    assert reasons[2] == "has changed since the inventory: its rate is 4000, not 8000 Hz"
    assert reasons[3] == "has no samples 1000 to 2000: it has 1500"
    assert not any(str(tmp_path) in reason for reason in reasons)
    assert len(written.pictures) == written.sounds == 4 == len(list((tmp_path / "out" / "audio").iterdir()))
    assert written.unread[0] == Unread("a", "a.wav", 3, "is no longer there")


def test_damage_within_a_recording_costs_its_own_clips_only(tmp_path):
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.flac"
    soundfile.write(path, np.random.default_rng(0).integers(-9999, 9999, 10 * RATE).astype(np.int16), RATE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    recordings = recordings_of({"recording_id": "a", "path": "a.flac", "sample_rate": RATE})
    clips = clips_of(*(clip("a", s * RATE, (s + 1) * RATE) for s in (0, 1, 8, 9)))
    _, written = cut(tmp_path, recordings, clips, audio=True)
    assert written.sounds == 2 == len(list((tmp_path / "out" / "audio").iterdir()))
    assert written.unread[0].clips == 2


def test_nothing_wanted_is_nothing_done(tmp_path):
    recordings, _ = corpus(tmp_path, 1)
    named, written = cut(tmp_path, recordings, clips_of(clip("a")))
    assert plan_cuts(named, None, audio=False) == [] and not (tmp_path / "out").exists() and not written.pictures


def test_contact_sheets_show_the_same_clips_every_time(tmp_path):
    recordings, _ = corpus(tmp_path)
    rows = [make(r, s, s + 700, **values) for r in "abc" for s in range(0, 8000, 800)
            for make, values in ((call, {"quality": "Q2"}), (clip, {}), (clip, {"label": "dög"}))]  # fmt: skip
    named, written = cut(tmp_path, recordings, clips_of(*rows), ClipImageSettings())
    out = tmp_path / "out"
    names = write_sheets(out, named, written.pictures, lambda uid: "train", tiles=5)
    assert names == ["contact_sheet_d_g.png", "contact_sheet_hum.png", "contact_sheet_noise.png"]
    first = [(out / name).read_bytes() for name in names]
    shuffled = named.sample(frac=1, random_state=1)
    write_sheets(out, shuffled, dict(sorted(written.pictures.items(), reverse=True)), lambda uid: "train", tiles=5)
    assert [(out / name).read_bytes() for name in names] == first
    with Image.open(out / names[1]) as few, Image.open(out / names[0]) as other:
        assert few.size == other.size
    write_sheets(out, named, written.pictures, lambda uid: "a long side " * 9, tiles=400)
    with Image.open(out / names[1]) as all_of_them:
        assert all_of_them.height > few.height


def test_a_label_without_a_picture_has_no_sheet(tmp_path):
    recordings, _ = corpus(tmp_path, 1)
    named, written = cut(tmp_path, recordings, clips_of(call("a"), clip("a", 10**6, 10**6 + 5)), ClipImageSettings())
    assert write_sheets(tmp_path / "out", named, written.pictures, str, tiles=3) == ["contact_sheet_hum.png"]


def test_a_band_that_is_upside_down_is_refused():
    with pytest.raises(ValueError, match=r"low_hz \(500\) must lie below high_hz \(400\)"):
        ClipImageSettings(low_hz=500, high_hz=400)
