import csv
import hashlib
import json
import os
import random
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from otus import audio
from otus.annotations import read_annotations
from otus.cli import main
from otus.config import AnnotationSource, SoundscapeSettings, parse_config
from otus.errors import DataError, MissingPartError
from otus.soundscapes import build_soundscapes, rendering
from otus.soundscapes.sources import Catalogue, catalogue_of

RATE = 8000
REPOSITORY = Path(__file__).parents[2]

#: Samples of the two calls in every clip, at the edges of frames of 5 ms.
CALLS = ((800, 1600), (4000, 6400))

#: The tone in the background of each part, by which it is told where a background comes from.
HUM_HZ = {"1": 700.0, "2": 2900.0}


def square(n_samples, period=8):
    """A wave whose every sample is 1 or -1."""
    return np.where(np.arange(n_samples) % period < period // 2, 1.0, -1.0)


def call_clip(period=8, scale=1):
    clip = np.zeros(8000 * scale)
    for start, end in CALLS:
        clip[start * scale : end * scale] = 0.5 * square((end - start) * scale, period * scale)
    return clip


def hum(rng, part, seconds):
    times = np.arange(round(seconds * RATE)) / RATE
    return 0.1 * np.sin(2 * np.pi * HUM_HZ[part] * times) + 0.03 * rng.standard_normal(len(times))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Two parts with three clips of each of two sounds and four backgrounds."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for name in ("owl", "frog", "bed"):
        (folder / name).mkdir()
    for part in "12":
        for n in range(3):
            soundfile.write(folder / "owl" / f"{part}-{n}.wav", call_clip(6 + 4 * n + 2 * int(part)), RATE)
            frog = np.concatenate([call_clip(30 + 4 * n + 2 * int(part)), np.zeros(400)])
            soundfile.write(folder / "frog" / f"{part}-{n}.flac", frog, RATE)
        for n in range(4):
            soundfile.write(folder / "bed" / f"{part}-{n}.wav", hum(rng, part, 1.7 + n / 3), RATE)
    return folder


def settings_of(folder, **changes):
    defaults = {
        "clips": str(folder),
        "events": {"owl": {"files": "owl/*", "rate_per_min": 12}, "frog": {"files": "frog/*", "label": "tree frog"}},
        "backgrounds": ["bed/*"],
        "part": r"/(?P<part>\d)-",
        "duration_s": 20.0,
        "sample_rate": RATE,
    }
    return SoundscapeSettings.model_validate(defaults | changes)


def build(settings, folder, workers=2):
    lines = []
    index = build_soundscapes(settings, folder, workers=workers, progress=lines.append)
    return index, lines


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def events(folder):
    with (folder / "events.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def level_db(samples):
    return 20.0 * np.log10(np.sqrt(np.mean(np.square(samples.astype(float)))))


@pytest.fixture(scope="module")
def built(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "corpus"
    index, _ = build(settings_of(clips), folder)
    return folder, index


class Shuffled(list):
    """What os.scandir gives, in another order."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_neither_workers_nor_the_order_of_directories_nor_the_folder_change_a_byte(built, clips, tmp_path, monkeypatch):
    moved = shutil.copytree(clips, tmp_path / "elsewhere" / "clips")
    scandir, rng = os.scandir, random.Random(5)

    def shuffled(path="."):
        entries = Shuffled(scandir(path))
        rng.shuffle(entries)
        return entries

    monkeypatch.setattr(os, "scandir", shuffled)
    build(settings_of(moved), tmp_path / "again", workers=3)
    build(settings_of(clips), tmp_path / "alone", workers=1)
    assert digests(tmp_path / "again") == digests(tmp_path / "alone") == digests(built[0])


def test_another_seed_gives_other_recordings_of_the_same_names(built, clips, tmp_path):
    build(settings_of(clips, seed=2), tmp_path / "other")
    ours, other = digests(built[0]), digests(tmp_path / "other")
    assert ours.keys() == other.keys()
    assert not {ours[name] for name in ours if name.endswith(".flac")} & set(other.values())


def test_more_recordings_do_not_change_those_that_are_there(built, clips, tmp_path):
    build(settings_of(clips, recordings_per_part=3), tmp_path / "more")
    ours, more = digests(built[0]), digests(tmp_path / "more")
    audio_files = [name for name in ours if name.endswith(".flac")]
    assert len(audio_files) == 4
    assert all(more[name] == ours[name] for name in audio_files)


def test_every_sample_of_an_event_and_no_other_is_annotated(clips, tmp_path):
    settings = settings_of(
        clips,
        overlap="forbid",
        fade_s=0.0,
        background_dbfs=-60.0,
        snr={"mean_db": 40.0, "sd_db": 0.0, "low_db": 0.0, "high_db": 50.0},
    )
    build(settings, tmp_path / "corpus")
    rows = events(tmp_path / "corpus")
    assert len({row["recording"] for row in rows}) == 4
    for recording in {row["recording"] for row in rows}:
        samples, rate = soundfile.read(tmp_path / "corpus" / recording)
        assert (len(samples), rate) == (20 * RATE, RATE)
        marked = np.zeros(len(samples), dtype=bool)
        for row in rows:
            if row["recording"] == recording:
                marked[int(row["start_sample"]) : int(row["end_sample"])] = True
        np.testing.assert_array_equal(np.abs(samples) > 0.05, marked)


def test_tables_and_events_csv_say_the_same(built):
    folder, index = built
    listed = events(folder)
    seen = 0
    for recording in index["recordings"]:
        source = AnnotationSource(files="*", format="raven")
        found = read_annotations(folder / recording["table"], source)
        rows = [row for row in listed if row["recording"] == recording["path"]]
        assert not found.problems
        assert [(row.start_s, row.end_s, row.label) for row in found.rows] == [
            (float(row["start_s"]), float(row["end_s"]), row["label"]) for row in rows
        ]
        for row in rows:
            assert round(float(row["start_s"]) * RATE) == int(row["start_sample"])
            assert round(float(row["end_s"]) * RATE) == int(row["end_sample"])
            assert 0.0 <= float(row["low_hz"]) < float(row["high_hz"]) <= RATE / 2
            assert row["part"] == recording["part"]
        seen += len(rows)
    assert seen == len(listed) == index["counts"]["events"] > 20
    assert {row["label"] for row in listed} == {"owl", "tree frog"}


def test_an_event_is_a_call_of_its_clip(built):
    for row in events(built[0]):
        source = int(row["source_start_sample"]), int(row["source_end_sample"])
        assert source in CALLS
        assert int(row["end_sample"]) - int(row["start_sample"]) == source[1] - source[0]


def test_snr_is_what_the_files_hold(clips, tmp_path):
    """The same recordings with and without events: their difference is the events."""
    changes = {"overlap": "forbid", "background_dbfs": -45.0}
    build(settings_of(clips, **changes), tmp_path / "both")
    quiet = {"owl": {"files": "owl/*", "rate_per_min": 1e-9}}
    index, _ = build(settings_of(clips, **changes, events=quiet), tmp_path / "background")
    assert index["counts"]["events"] == 0
    rows = events(tmp_path / "both")
    assert len(rows) > 20
    drawn = []
    for row in rows:
        both, ground = (soundfile.read(tmp_path / name / row["recording"])[0] for name in ("both", "background"))
        here = slice(int(row["start_sample"]), int(row["end_sample"]))
        assert level_db((both - ground)[here]) - level_db(ground[here]) == pytest.approx(float(row["snr_db"]), abs=0.1)
        drawn.append(float(row["snr_db"]))
    assert min(drawn) >= -0.05 and max(drawn) <= 25.05 and np.std(drawn) > 2.0


def test_what_would_clip_is_lowered_as_a_whole_and_said(clips, tmp_path):
    settings = settings_of(
        clips, background_dbfs=-20.0, overlap="forbid", snr={"mean_db": 30.0, "sd_db": 0.0, "high_db": 30.0}
    )
    index, lines = build(settings, tmp_path / "loud")
    for recording in index["recordings"]:
        samples, _ = soundfile.read(tmp_path / "loud" / recording["path"])
        assert np.abs(samples).max() == pytest.approx(0.99, abs=1e-3)
        assert recording["lowered_db"] == pytest.approx(10.0, abs=3.0)
        assert any(recording["path"] in line and "lest it clips" in line for line in lines)
    for row in events(tmp_path / "loud"):
        assert float(row["snr_db"]) == pytest.approx(30.0, abs=0.05)


def test_gain_leads_from_the_clip_to_the_file(clips, tmp_path):
    changes = {"overlap": "forbid", "background_dbfs": -60.0, "snr": {"mean_db": 40.0, "sd_db": 0.0, "high_db": 40.0}}
    build(settings_of(clips, **changes), tmp_path / "corpus")
    for row in events(tmp_path / "corpus"):
        written, _ = soundfile.read(tmp_path / "corpus" / row["recording"])
        original, _ = soundfile.read(clips / row["clip"])
        own = original[int(row["source_start_sample"]) : int(row["source_end_sample"])]
        heard = written[int(row["start_sample"]) : int(row["end_sample"])]
        inside = slice(100, -100)  # without the fades
        assert level_db(heard[inside]) - level_db(own[inside]) == pytest.approx(float(row["gain_db"]), abs=0.1)


def test_parts_are_a_wall(built, clips):
    folder, index = built
    digest = {path.relative_to(clips).as_posix(): audio.sha256(path) for path in clips.rglob("*.*")}
    assert {source["path"]: source["sha256"] for source in index["sources"]} == digest
    assert all(source["path"].split("/")[1].startswith(source["part"]) for source in index["sources"])
    for row in events(folder):
        assert row["recording"].startswith(f"part_{row['part']}/part_{row['part']}_00")
        assert row["clip"].split("/")[1].startswith(f"{row['part']}-")
    for recording in index["recordings"]:
        samples, _ = soundfile.read(folder / recording["path"])
        spectrum = np.abs(np.fft.rfft(samples))
        own, other = (spectrum[round(HUM_HZ[part] * 20)] for part in ("12" if recording["part"] == "1" else "21"))
        assert own > 50.0 * other


def test_the_background_has_its_level(clips, tmp_path):
    quiet = {"owl": {"files": "owl/*", "rate_per_min": 1e-9}}
    build(settings_of(clips, events=quiet, background_dbfs=-33.0, part=None), tmp_path / "corpus")
    samples, _ = soundfile.read(tmp_path / "corpus" / "soundscape_001.flac")
    for second in samples.reshape(20, RATE):
        assert level_db(second) == pytest.approx(-33.0, abs=1.5)


def test_a_recording_without_events_has_a_table_with_a_header_only(clips, tmp_path):
    quiet = {"owl": {"files": "owl/*", "rate_per_min": 1e-9}}
    index, lines = build(settings_of(clips, events=quiet), tmp_path / "corpus")
    for recording in index["recordings"]:
        text = (tmp_path / "corpus" / recording["table"]).read_text()
        assert text.startswith("Selection\t") and text.count("\n") == 1
        found = read_annotations(tmp_path / "corpus" / recording["table"], AnnotationSource(files="*"))
        assert found.format == "raven" and not found.rows and not found.problems
    assert (tmp_path / "corpus" / "events.csv").read_text().count("\n") == 1
    assert index["labels"]["owl"]["achieved_per_min"] == 0.0
    assert any("no event" in line for line in lines)


def test_a_crowded_recording_says_what_found_no_place(clips, tmp_path):
    crowd = {"owl": {"files": "owl/*", "rate_per_min": 400}}
    index, _ = build(settings_of(clips, events=crowd, overlap="forbid", recordings_per_part=1), tmp_path / "corpus")
    owl = index["labels"]["owl"]
    assert owl["crowded_out"] > 100
    assert owl["drawn"] == owl["written"] + owl["crowded_out"] + owl["too_faint"]
    assert owl["achieved_per_min"] == pytest.approx(owl["written"] / (2 * 20 / 60), abs=1e-3)
    assert sum(recording["events"]["owl"] for recording in index["recordings"]) == owl["written"]


def test_an_event_of_another_rate_keeps_its_place_in_the_clip(clips, tmp_path):
    (tmp_path / "clips" / "owl").mkdir(parents=True)
    soundfile.write(tmp_path / "clips" / "owl" / "1-0.wav", call_clip(scale=3), 3 * RATE)
    shutil.copytree(clips / "bed", tmp_path / "clips" / "bed")
    settings = settings_of(tmp_path / "clips", events={"owl": {"files": "owl/*", "rate_per_min": 30}})
    index, _ = build(settings, tmp_path / "corpus")
    assert index["skipped_parts"] == [{"part": "2", "reason": "has no usable clip of any event"}]
    rows = events(tmp_path / "corpus")
    assert rows
    for row in rows:
        source = np.array([int(row["source_start_sample"]), int(row["source_end_sample"])])
        assert min(np.abs(source - 3 * np.array(call)).max() for call in CALLS) <= 3 * 40  # a frame of 5 ms
        assert 3 * (int(row["end_sample"]) - int(row["start_sample"])) == source[1] - source[0]


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_files_are_16_bit_mono(clips, tmp_path, suffix):
    build(settings_of(clips, format=suffix, recordings_per_part=1), tmp_path / "corpus")
    info = audio.inspect(tmp_path / "corpus" / "part_1" / f"part_1_001.{suffix}")
    assert (info.n_samples, info.sample_rate, info.channels, info.subtype) == (20 * RATE, RATE, 1, "PCM_16")


def test_beyond_4_gb_a_wav_file_is_rf64(clips, tmp_path, monkeypatch):
    assert rendering.container(".wav", 2**31 - 2**15) == "WAV"
    assert rendering.container(".wav", 2**31 - 2**15 + 1) == "RF64"
    assert rendering.container(".flac", 2**31) == "FLAC"
    build(settings_of(clips, format="wav"), tmp_path / "small")
    monkeypatch.setattr(rendering, "_LARGEST_WAV", 1000)
    build(settings_of(clips, format="wav"), tmp_path / "large")
    path = Path("part_2", "part_2_002.wav")
    assert (tmp_path / "large" / path).read_bytes()[:4] == b"RF64"
    assert audio.inspect(tmp_path / "large" / path).n_samples == 20 * RATE
    np.testing.assert_array_equal(audio.read(tmp_path / "large" / path)[0], audio.read(tmp_path / "small" / path)[0])


def spoil(folder):
    """Add clips of every kind that cannot be used; return their paths and what is said of them."""
    rng = np.random.default_rng(3)
    (folder / "owl" / "1-broken.wav").write_bytes(b"RIFF nonsense")
    (folder / "owl" / "1-empty.wav").write_bytes(b"")
    soundfile.write(folder / "owl" / "1-silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "owl" / "1-constant.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(folder / "owl" / "1-noise.wav", 0.1 * rng.standard_normal(6 * RATE), RATE)
    soundfile.write(folder / "owl" / "1-click.wav", np.eye(1, RATE, 50)[0] * 0.5, RATE)
    soundfile.write(folder / "owl" / "1-nan.wav", np.where(np.arange(RATE) == 9, np.nan, 0.1), RATE, subtype="FLOAT")
    soundfile.write(folder / "owl" / "nowhere.wav", call_clip(50), RATE)
    soundfile.write(folder / "bed" / "1-short.wav", 0.1 * rng.standard_normal(RATE // 2), RATE)
    shutil.copy(folder / "owl" / "1-0.wav", folder / "owl" / "2-copy.wav")
    soundfile.write(folder / "owl" / "x.wav", call_clip(52), RATE)
    (folder / "owl" / "x.wav").rename(folder / "owl" / os.fsdecode(b"1-\xff.wav"))
    return {
        "owl/1-broken.wav": "cannot be read as audio",
        "owl/1-empty.wav": "",
        "owl/1-silent.wav": "is silent",
        "owl/1-constant.wav": "is silent",
        "owl/1-noise.wav": "holds no event of 0.05 to 5 s",
        "owl/1-click.wav": "lasts 0.01 s",
        "owl/1-nan.wav": "no numbers",
        "owl/nowhere.wav": "names no part",
        "bed/1-short.wav": "two crossfades",
        "owl/2-copy.wav": "is a copy of owl/1-0.wav",
        "owl/1-\\xff.wav": "not valid UTF-8",
    }


def test_clips_that_cannot_be_used_are_listed_and_the_others_used(built, clips, tmp_path):
    spoilt = shutil.copytree(clips, tmp_path / "clips")
    expected = spoil(spoilt)
    index, lines = build(settings_of(spoilt), tmp_path / "corpus")
    reasons = {entry["path"]: entry["reason"] for entry in index["skipped"]}
    assert reasons.keys() == expected.keys()
    assert index["counts"]["skipped"] == len(expected)
    for path, reason in expected.items():
        assert reason in reasons[path]
        assert str(tmp_path) not in reasons[path]
        assert any(line.startswith(f"not used: {path} ") for line in lines)
    assert {source["path"] for source in index["sources"]} == {source["path"] for source in built[1]["sources"]}
    ours, theirs = digests(tmp_path / "corpus"), digests(built[0])
    assert ours.pop("corpus.json") != theirs.pop("corpus.json")
    assert ours == theirs


def test_a_long_list_is_cut_short(clips, tmp_path):
    spoilt = shutil.copytree(clips, tmp_path / "clips")
    for n in range(25):
        (spoilt / "owl" / f"1-broken{n}.wav").write_bytes(b"x")
    index, lines = build(settings_of(spoilt), tmp_path / "corpus")
    assert len(index["skipped"]) == 25
    assert sum(line.startswith("not used") for line in lines) == 21
    assert any("5 more clips" in line for line in lines)


def test_a_part_without_background_is_left_out_and_said(clips, tmp_path):
    poor = shutil.copytree(clips, tmp_path / "clips")
    for path in poor.glob("bed/1-*"):
        path.unlink()
    for path in poor.glob("frog/2-*"):
        path.unlink()
    index, lines = build(settings_of(poor), tmp_path / "corpus")
    assert index["skipped_parts"] == [{"part": "1", "reason": "has no usable background clip"}]
    assert {recording["part"] for recording in index["recordings"]} == {"2"}
    assert not (tmp_path / "corpus" / "part_1").exists()
    assert "not built: part 1 has no usable background clip" in lines
    assert "note: part 2 has no usable clip of 'frog'" in lines


def test_low_sample_rates_are_noted(clips, tmp_path):
    index, _ = build(settings_of(clips, sample_rate=2 * RATE, recordings_per_part=1), tmp_path / "corpus")
    assert index["notes"] == ["20 clips have 8000 Hz only: above 4000 Hz they add nothing to the soundscapes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": "{folder}/nowhere"}, "nowhere does not exist"),
        ({"clips": "{folder}/owl/1-0.wav"}, "is not a folder"),
        ({"events": {"owl": {"files": "owls/*"}}}, r"events\.owl\.files: no audio file below .* matches 'owls/\*'"),
        ({"backgrounds": ["bed/*", "rain/*"]}, r"backgrounds\[1\]: no audio file"),
        ({"backgrounds": ["bed/*", "owl/1-0.wav"]}, r"owl/1-0\.wav is matched by events\.owl\.files and by backgrou"),
        ({"backgrounds": ["../*"]}, "no audio file below"),
        ({"part": r"/(?P<part>\d\d\d)"}, "no clip belongs to a part; 20 clips cannot be used, the first: bed/1-0.wav"),
        ({"part": r"(?P<part>/\d)-"}, "cannot be the name of a folder"),
        ({"part": r"-(?P<part>.*)\."}, None),
        ({"min_event_s": 1.0}, "part 1 has no usable clip of any event; part 2 has no usable clip of any event; 12"),
        ({"crossfade_s": 5.0}, "has no usable background clip"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(clips, tmp_path, changes, message):
    values = {key: v.format(folder=clips) if key == "clips" else v for key, v in changes.items()}
    settings = settings_of(clips, **values)
    if message is None:  # parts 0 to 3, of which the last has no events
        index, _ = build(settings, tmp_path / "corpus")
        assert [entry["part"] for entry in index["skipped_parts"]] == ["3"]
        return
    with pytest.raises(DataError, match=message) as caught:
        build(settings, tmp_path / "corpus")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "a\nb", "part.", "y" * 61])
def test_a_part_that_could_lead_out_of_the_folder_is_left_out(clips, tmp_path, name):
    moved = shutil.copytree(clips, tmp_path / "clips")
    for path in list(moved.rglob("1-*")):
        path.rename(path.with_name(f"x{name}{path.name[1:]}"))
    before = set(tmp_path.rglob("*"))
    index, _ = build(settings_of(moved, part=r"/x?(?P<part>[^/-]+)-"), tmp_path / "corpus")
    assert len(index["skipped"]) == 10
    assert all("cannot be the name of a folder" in entry["reason"] for entry in index["skipped"])
    assert {recording["part"] for recording in index["recordings"]} == {"2"}
    made = set(tmp_path.rglob("*")) - before - {tmp_path / "corpus"}
    assert {path.relative_to(tmp_path / "corpus").parts[0] for path in made} == {
        "README.txt", "corpus.json", "events.csv", "part_2"
    }  # fmt: skip


def test_parts_that_differ_only_in_case_are_refused(clips, tmp_path):
    moved = shutil.copytree(clips, tmp_path / "clips")
    for path in list(moved.rglob("*-*")):
        path.rename(path.with_name({"1": "a", "2": "A"}[path.name[0]] + path.name[1:]))
    with pytest.raises(DataError, match=r"'A' and 'a' differ only in case"):
        build(settings_of(moved, part=r"/(?P<part>\w)-"), tmp_path / "corpus")


def test_a_folder_with_other_files_is_refused_untouched(clips, tmp_path):
    (tmp_path / "README.txt").write_text("my thesis")
    with pytest.raises(DataError, match="holds files that are no soundscapes"):
        build(settings_of(clips), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["README.txt"]
    with pytest.raises(DataError, match="is a file"):
        build(settings_of(clips), tmp_path / "README.txt")


def test_a_folder_among_the_clips_is_refused(clips):
    with pytest.raises(DataError, match="lies in the folder of the clips"):
        build(settings_of(clips), clips / "built")
    assert not (clips / "built").exists()


def test_recordings_that_do_not_belong_are_refused_not_deleted(built, clips, tmp_path):
    shutil.copytree(built[0], tmp_path / "corpus")
    before = digests(tmp_path / "corpus")
    with pytest.raises(DataError, match=r"part_1_002\.flac: is no part of the soundscapes"):
        build(settings_of(clips, recordings_per_part=1), tmp_path / "corpus")
    assert digests(tmp_path / "corpus") == before


def test_other_settings_or_a_cut_off_build_are_built_anew(built, clips, tmp_path):
    build(settings_of(clips, seed=9), tmp_path / "corpus")
    (tmp_path / "corpus" / "corpus.json").unlink()
    next((tmp_path / "corpus").rglob("*.flac")).unlink()
    build(settings_of(clips), tmp_path / "corpus")
    assert digests(tmp_path / "corpus") == digests(built[0])


def test_a_full_disk_is_one_sentence_and_leaves_no_corpus_json(built, clips, tmp_path):
    shutil.copytree(built[0], tmp_path / "corpus")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(MissingPartError, match=r"part_\d_00\d\.flac: could not be written") as caught:
            build(settings_of(clips), tmp_path / "corpus")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus" / "corpus.json").exists()
    assert not list(tmp_path.rglob(".*tmp*"))


def test_settings_and_versions_are_kept_without_the_folder_of_the_clips(built, clips):
    folder, index = built
    text = (folder / "corpus.json").read_text()
    assert json.loads(text) == index
    assert str(clips) not in text
    assert "clips" not in index["settings"] and index["settings"]["sample_rate"] == RATE
    assert index["versions"]["libsndfile"]


def test_the_catalogue_does_not_depend_on_the_order_of_the_settings(clips):
    def catalogue(names, beds) -> Catalogue:
        both = {"owl": {"files": "owl/*"}, "frog": {"files": "frog/*"}}
        settings = settings_of(clips, events={name: both[name] for name in names}, backgrounds=beds)
        return catalogue_of(settings, workers=2, progress=lambda _: None)

    one, other = catalogue(["owl", "frog"], ["bed/1*", "bed/2*"]), catalogue(["frog", "owl"], ["bed/2*", "bed/1*"])
    assert one == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part": "([0-9"}, "not a regular expression"),
        ({"part": "([0-9])"}, "has no group"),
        ({"min_event_s": 5.0}, "must lie below max_event_s"),
        ({"events": {"owl": {"files": "*", "label": " owl"}}}, "label"),
        ({"events": {"owl": {"files": "*", "label": "a\tb"}}}, "label"),
        ({"snr": {"mean_db": 30.0}}, "low_db <= mean_db <= high_db"),
        ({"background_dbfs": -90.0}, "background_dbfs"),
        ({"sample_rate": 700_000}, "use format: wav"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(clips, changes, message):
    values = settings_of(clips).model_dump() | changes
    with pytest.raises(DataError, match=message):
        parse_config({"corpus": {"root": "x", "targets": ["owl"], "soundscapes": values}})


def run_command(*arguments):
    return main(["build-soundscapes", *map(str, arguments)])


def test_the_command_builds_into_the_root_or_another_folder(built, clips, tmp_path, capsys):
    corpus = {"root": str(tmp_path / "root"), "targets": ["owl"], "soundscapes": settings_of(clips).model_dump()}
    config, layer = tmp_path / "config.yaml", tmp_path / "layer.yaml"
    config.write_text(yaml.safe_dump({"corpus": corpus}))
    assert run_command(config) == 0
    assert digests(tmp_path / "root") == digests(built[0])
    assert f"4 soundscapes, 0.02 h, {built[1]['counts']['events']} events" in capsys.readouterr().out
    layer.write_text(yaml.safe_dump({"corpus": {"soundscapes": {"duration_s": 2.0}}}))
    assert run_command(config, layer, "-o", tmp_path / "other") == 0
    assert audio.inspect(tmp_path / "other" / "part_1" / "part_1_001.flac").duration_s == 2.0
    layer.write_text(yaml.safe_dump({"corpus": {"soundscapes": None}}))
    assert run_command(config, layer) == 3
    assert "layer.yaml: has no corpus.soundscapes" in capsys.readouterr().err


@pytest.mark.real
def test_the_recipe_for_esc10_builds_and_is_read(tmp_path, capsys):
    if "OTUS_DATA" not in os.environ:
        pytest.skip("OTUS_DATA is not set: it names the folder of the annotated recordings")
    layer = tmp_path / "layer.yaml"
    short = {"duration_s": 30.0, "recordings_per_part": 1}
    layer.write_text(yaml.safe_dump({"corpus": {"root": str(tmp_path / "corpus"), "soundscapes": short}}))
    recipe = REPOSITORY / "config" / "soundscapes.yaml"
    assert run_command(recipe, layer) == 0
    index = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert len(index["sources"]) + index["counts"]["skipped"] == 360
    assert index["counts"]["skipped"] < 20 and not index["skipped_parts"] and not index["notes"]
    for row in events(tmp_path / "corpus"):
        assert row["recording"].startswith(f"part_{row['part']}/") and row["clip"].split("/")[1][0] == row["part"]
    capsys.readouterr()
    assert main(["check", str(recipe), str(layer)]) == 0
    out = capsys.readouterr().out
    assert "5 readable recordings in 5 groups" in out
    assert "quarantine:" not in out
