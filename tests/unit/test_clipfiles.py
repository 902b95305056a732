import dataclasses
import errno
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from clipfiles_tables import call, clip, clips_of, recordings_of

from otus.clipfiles import DatasetTables, describe_dataset
from otus.clipfiles.page import MOST_ROWS
from otus.clipfiles.verdicts import leakage_verdicts, noise_sentences
from otus.config import ClipFileSettings, DatasetSettings
from otus.datasets.noise import NoiseReport
from otus.errors import DataError, MissingPartError
from otus.tables import table

RATE = 8000
REPORT = {
    "wanted": 20, "mined": 12, "mined_raw": 4, "false_alarms": 3, "unmet": 4, "recordings_without_room": 1,
    "overlapping_noise": 2, "duplicate_noise": 1, "confusers_left_out": 0, "unrated_calls": 0, "selections": {},
    "examples": ["a: samples 1 to 2 (<annotation>)"],
}  # fmt: skip
NOTHING = dict.fromkeys(REPORT, 0) | {"selections": {}, "examples": []}


def leakage_row(fold=1, side="train", other_side="test", **values):
    counts = dict.fromkeys(
        ("shared_groups", "shared_recordings", "shared_contents", "shared_raw_recordings", "overlapping_clips"), 0
    )
    return {"dataset": "d", "fold": fold, "side": side, "other_side": other_side, "leaky": False, **counts, **values}


def variant(folds=2, seed=None):
    """Recordings a to f with three clips each, dealt to the sides of every fold; rows in any order."""
    recordings = recordings_of(
        *({"recording_id": r, "group": f"g{i // 2}", "sample_rate": RATE, "n_samples": 4 * RATE}
          for i, r in enumerate("abcdef"))
    )  # fmt: skip
    sides = ("train", "val", "test")
    rows, splits = [], []
    for fold in range(1, folds + 1):
        for i, r in enumerate("abcdef"):
            split = sides[(i // 2 + fold) % 3]
            splits.append(
                {"recording_id": r, "group": f"g{i // 2}", "fold": fold, "split": split, "start_sample": 0,
                 "end_sample": 4 * RATE, "leaky": False}
            )  # fmt: skip
            own = (
                call(r, 0, 800 + 100 * i, quality="Q2"),
                clip(r, 4000, 5000),
                call(r, 6000, 6100, clip_id=f"{r}_low"),
            )
            own[2]["class"] = "unknown"
            rows += [{"clip_id": f"{r}_{k}", **c, "fold": fold, "split": split} for k, c in enumerate(own)]
    leakage = [leakage_row(f, one, other) for f in range(1, folds + 1)
               for one, other in (("train", "val"), ("train", "test"), ("val", "test"))]  # fmt: skip
    tables = [
        recordings, table("annotations", []), clips_of(*rows), table("splits", splits), table("leakage", leakage),
    ]  # fmt: skip
    if seed is not None:
        tables = [frame.sample(frac=1, random_state=seed, ignore_index=True) for frame in tables]
    return DatasetTables(*tables)


@pytest.fixture
def root(tmp_path):
    """A folder with the sound of recordings a to f."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i, r in enumerate("abcdef"):
        samples = np.random.default_rng(i).integers(-9000, 9000, 4 * RATE).astype(np.int16)
        soundfile.write(folder / f"{r}.wav", samples, RATE)
    return folder


def describe(folder, root, tables, said=None, **values):
    arguments = {
        "dataset": "d", "settings": DatasetSettings(), "files": ClipFileSettings(), "noise_report": REPORT,
        "targets": ["hum"], "workers": 2, **values,
    }  # fmt: skip
    describe_dataset(folder, tables, root=root, progress=(said if said is not None else []).append, **arguments)
    return json.loads((folder / "statistics.json").read_text())


def contents(folder):
    """Every file below `folder`, without the one entry that is a time."""
    made = re.compile(rb'"created_at": "[^"]+Z"')
    return {str(p.relative_to(folder)): made.sub(b"", p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_is_there_and_agrees(tmp_path, root):
    files = ClipFileSettings(spectrograms={}, audio=True)
    statistics = describe(tmp_path / "files", root, variant(), files=files)
    folder = tmp_path / "files"
    assert sorted(p.name for p in folder.iterdir()) == [
        "audio", "contact_sheet_hum.png", "contact_sheet_noise.png", "dataset.html", "fold1", "fold2",
        "selection_tables", "spectrograms", "statistics.json",
    ]  # fmt: skip
    sounds = {p.name for p in (folder / "audio").iterdir()}
    assert len(sounds) == 12  # a target and a noise clip of six recordings; what is unknown has no file
    for fold in ("fold1", "fold2"):
        listed = [(folder / fold / f"{split}.csv").read_bytes().decode() for split in ("train", "val", "test")]
        assert set("".join(listed).split("\r\n")) == sounds | {""} and all(text.count("\n") == 4 for text in listed)
        assert {p.name for p in (folder / fold).glob("*.wav")} == sounds
        assert all((folder / fold / name).samefile(folder / "audio" / name) for name in sounds)
        index = json.loads((folder / fold / "variant_index.json").read_text())
        assert {entry["fn"] for entry in index["entries"]} == sounds
        assert index["meta"]["split_counts"] == {"train": 4, "val": 4, "test": 4}
        for entry in index["entries"]:
            assert (folder / fold / entry["spectrogram_path"]).resolve().is_file()
            assert entry["fn"] in listed[("train", "val", "test").index(entry["split"])]
            assert soundfile.info(folder / "audio" / entry["fn"]).frames == round(
                (entry["end_s"] - entry["start_s"]) * RATE
            )
    assert sorted(p.name for p in (folder / "selection_tables").iterdir()) == [f"{r}.selections.txt" for r in "abcdef"]
    assert statistics["files"] == {
        "folds": ["fold1", "fold2"], "selection_tables": 6, "spectrograms": 12, "sounds": 12,
        "contact_sheets": ["contact_sheet_hum.png", "contact_sheet_noise.png"],
    }  # fmt: skip
    assert not statistics["unread"] and statistics["noise"] == REPORT


def test_statistics_count_every_clip_once_and_once_per_fold(tmp_path, root):
    statistics = describe(tmp_path / "files", root, variant())
    by_class = {row["class"]: row for row in statistics["clips"]["class"]}
    assert list(by_class) == ["target", "noise", "unknown"]
    assert {kind: row["clips"] for kind, row in by_class.items()} == {"target": 6, "noise": 6, "unknown": 6}
    assert by_class["target"] == {
        "class": "target", "clips": 6, "total_s": 0.7875 + 0.0, "median_s": 0.13125, "min_s": 0.1, "max_s": 0.1625,
    }  # fmt: skip
    assert [(r["class"], r["label"], r["quality"], r["clips"]) for r in statistics["clips"]["quality"]] == [
        ("target", "hum", "Q2", 6), ("noise", None, None, 6), ("unknown", "hum", None, 6),
    ]  # fmt: skip
    assert sum(row["clips"] for row in statistics["clips"]["fold_split"]) == 36
    assert {row["group"] for row in statistics["clips"]["group"]} == {"g0", "g1", "g2"}
    side = next(row for row in statistics["sides"] if (row["fold"], row["split"]) == (2, "test"))
    assert (side["groups"], side["recordings"], side["target_clips"], side["unknown_clips"]) == (1, 2, 2, 2)
    assert side["hours"] == pytest.approx(8 / 3600, abs=1e-6) and side["noise_s"] == 0.25
    assert statistics["groups"][0] == {"group": "g0", "recordings": 2, "train": [], "val": [1], "test": [2]}
    bars = statistics["histogram"]
    assert sum(bars["target"] + bars["noise"] + bars["unknown"]) == 18
    assert bars["edges_s"][0] <= 0.0125 and bars["edges_s"][-1] >= 0.1625


def test_neither_the_order_of_rows_nor_threads_nor_a_second_run_change_a_byte(tmp_path, root):
    files = ClipFileSettings(spectrograms={"sheet_tiles": 2}, audio=True)
    describe(tmp_path / "one", root, variant(), files=files, workers=1)
    describe(tmp_path / "two", root, variant(seed=5), files=files, workers=4)
    first = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == first
    describe(tmp_path / "one", root, variant(seed=6), files=files)
    assert contents(tmp_path / "one") == first


def test_the_folder_is_replaced_as_a_whole(tmp_path, root):
    folder = tmp_path / "files"
    describe(folder, root, variant(folds=2), files=ClipFileSettings(audio=True))
    (tmp_path / ".files.tmp-new").mkdir()
    (tmp_path / ".files.tmp-new" / "left over").write_text("")
    describe(folder, root, variant(folds=1))
    assert sorted(p.name for p in folder.iterdir()) == ["dataset.html", "fold1", "selection_tables", "statistics.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "files"]


def test_a_failure_leaves_what_was_there(tmp_path, root):
    folder = tmp_path / "files"
    describe(folder, root, variant())
    before = contents(folder)
    with pytest.raises(DataError, match=r"^clip_files.spectrograms.colours: .*'dark'"):
        describe(folder, root, variant(), files=ClipFileSettings(spectrograms={"colours": "dark"}))
    assert contents(folder) == before and sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "files"]


def test_foreign_files_are_never_replaced(tmp_path, root):
    folder = tmp_path / "files"
    folder.mkdir()
    describe(folder, root, variant())  # an empty folder may be taken
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"mine: holds other files [^.]*\.$"):
        describe(tmp_path / "mine", root, variant())
    with pytest.raises(DataError, match=r"thesis.txt: holds other files"):
        describe(tmp_path / "mine" / "thesis.txt", root, variant())
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_recordings_that_vanished_are_said_in_log_statistics_and_page(tmp_path, root):
    (root / "b.wav").unlink()
    said = []
    statistics = describe(tmp_path / "files", root, variant(), said, files=ClipFileSettings(spectrograms={}))
    assert statistics["unread"] == [
        {"recording_id": "b", "path": "b.wav", "clips": 2, "reason": "is no longer there"}
    ]  # fmt: skip
    assert "b.wav: is no longer there; 2 clips of it have no picture or sound" in said
    page = (tmp_path / "files" / "dataset.html").read_text()
    assert "2 clips could not be cut" in page and "is no longer there" in page
    index = json.loads((tmp_path / "files" / "fold1" / "variant_index.json").read_text())
    assert sum("spectrogram_path" in entry for entry in index["entries"]) == 10 and len(index["entries"]) == 12


def test_one_recording_is_open_at_a_time_in_every_thread(tmp_path, root, monkeypatch):
    open_now, most, lock, original = [0], [0], threading.Lock(), soundfile.SoundFile

    class Counted(original):
        def __init__(self, file, *args, **kwargs):
            super().__init__(file, *args, **kwargs)
            with lock:
                open_now[0] += 1
                most[0] = max(most[0], open_now[0])

        def close(self):
            with lock:
                open_now[0] -= not self.closed
            super().close()

    monkeypatch.setattr(soundfile, "SoundFile", Counted)
    describe(tmp_path / "files", root, variant(), files=ClipFileSettings(spectrograms={}), workers=2)
    assert 1 <= most[0] <= 2 and open_now[0] == 0


def test_a_variant_without_clips(tmp_path, root):
    tables = variant()
    empty = DatasetTables(tables.recordings, tables.annotations, clips_of(), tables.splits, tables.leakage)
    statistics = describe(
        tmp_path / "files", root, empty, files=ClipFileSettings(spectrograms={}), noise_report=NOTHING
    )
    assert statistics["clips"]["class"] == [] and statistics["files"]["folds"] == ["fold1", "fold2"]
    assert (tmp_path / "files" / "fold1" / "train.csv").read_bytes() == b""


def page_of(tmp_path, root, tables, **values):
    describe(tmp_path / "files", root, tables, **values)
    return (tmp_path / "files" / "dataset.html").read_text(encoding="utf-8")


def test_the_page_says_what_it_is_and_needs_nothing_else(tmp_path, root):
    files = ClipFileSettings(spectrograms={"sheet_tiles": 1})
    page = page_of(tmp_path, root, variant(), files=files, settings=DatasetSettings(margin_s=0.25))
    assert "No leakage." in page and page.count("No group, no recording, no content on two sides.") == 2
    assert "0.25" in page and "Mined noise keeps this distance from every annotation." in page
    assert '<a href="contact_sheet_hum.png">' in page and "<script" not in page and "//" not in page
    links = re.findall(r'href="([^"]+)"', page)
    assert links and all((tmp_path / "files" / link).exists() for link in links)
    assert "test: 2; val: 1" in page and str(tmp_path) not in page


def test_names_are_escaped_on_the_page(tmp_path, root):
    tables = variant()
    evil = "<script>alert('x')</script>"
    frames = {
        "recordings": tables.recordings.assign(group=evil), "clips": tables.clips.assign(label=evil),
        "splits": tables.splits.assign(group=evil),
        "leakage": table("leakage", [leakage_row(shared_groups=1, example=f"group: {evil}")]),
    }  # fmt: skip
    page = page_of(
        tmp_path, root, DatasetTables(annotations=tables.annotations, **frames), dataset=evil, targets=[evil]
    )
    assert "<script" not in page and "&lt;script&gt;" in page and "(&lt;annotation&gt;)" in page


def test_a_large_variant_has_a_small_page(tmp_path, root):
    n = 450
    names = [f"{'&<long>' * 40}{i:05d}" for i in range(n)]
    recordings = recordings_of(*({"recording_id": f"r{i}", "group": names[i], "sample_rate": RATE} for i in range(n)))
    clips = clips_of(*(call(f"r{i}", 0, 100 + i, label=names[i], quality=names[i], group=names[i]) for i in range(n)))
    splits = table(
        "splits",
        [{"recording_id": f"r{i}", "group": names[i], "fold": f, "split": "train", "start_sample": 0, "end_sample": 9}
         for i in range(n) for f in (1, i + 2)],
    )  # fmt: skip
    leakage = table("leakage", [leakage_row(fold=i, shared_groups=1, example=names[i]) for i in range(1, n)])
    tables = DatasetTables(recordings, table("annotations", []), clips, splits, leakage)
    report = {**REPORT, "examples": names}
    page = page_of(tmp_path, root, tables, noise_report=report, targets=names)
    assert len(page.encode()) < 2_000_000
    assert f"{n - MOST_ROWS} more rows are in" in page and "&amp;&lt;long&gt;&amp;" in page


def test_leaky_variants_are_called_so(tmp_path, root):
    tables = variant(folds=1)
    leakage = table("leakage", [leakage_row(shared_groups=4, shared_recordings=12, leaky=True)])
    leaky = DatasetTables(tables.recordings, tables.annotations, tables.clips, tables.splits, leakage)
    page = page_of(tmp_path, root, leaky, settings=DatasetSettings(strategy="random"))
    assert "LEAKY, as its strategy is." in page and "No leakage" not in page
    assert "LEAKY: 12 recordings stand in train and in test." in page
    page = page_of(tmp_path, root, leaky)
    assert "Not proved free of leakage." in page and "LEAKY, as" not in page


def test_verdicts_name_what_leaks_and_what_was_not_checked():
    rows = [
        leakage_row(1, shared_contents=1),
        leakage_row(1, "val", "test", shared_recordings=1, overlapping_clips=7, shared_groups=1),
        leakage_row(2, overlapping_clips=1),
        leakage_row(3),
    ]
    verdicts = leakage_verdicts(table("leakage", rows), [1, 2, 3, 4])
    assert verdicts[1] == (
        False,
        "LEAKY: 1 content stands in train and in test; 1 recording stands in val and in test, 7 clips of val overlap a "
        "clip of test.",
    )
    assert verdicts[2] == (False, "LEAKY: 1 clip of train overlaps a clip of test.")
    assert verdicts[3] == (True, "No group, no recording, no content on two sides.")
    assert verdicts[4][0] is False and "Not checked" in verdicts[4][1]


def test_the_report_here_has_the_keys_of_the_real_one():
    assert REPORT.keys() == {entry.name for entry in dataclasses.fields(NoiseReport)}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"wanted": 20, "mined": 12, "mined_raw": 4, "unmet": 4, "false_alarms": 3},
         "20 noise clips wanted, 16 found (12 in labelled recordings, 4 or 25.0 % in raw recordings that nobody has "
         "labelled); 4 not found, as there was no room; 3 false alarms of an earlier model used on top."),
        ({"wanted": 1, "mined": 1}, "1 noise clip wanted, 1 found, all in labelled recordings."),
        ({"wanted": 2, "unmet": 2}, "2 noise clips wanted, 0 found; 2 not found, as there was no room."),
        ({"selections": {"used": 0, "unreadable": 1}},
         "0 noise clips wanted, 0 found; 0 false alarms of an earlier model used on top."),
        ({}, "0 noise clips wanted, 0 found."),
    ],
)  # fmt: skip
def test_the_first_sentence_about_noise(found, said):
    assert noise_sentences(NOTHING | found)[0] == said


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"confusers_left_out": 1},
         "1 labelled confuser is no noise clip: a call or something unknown is heard too."),
        ({"confusers_left_out": 7},
         "7 labelled confusers are no noise clips: a call or something unknown is heard too."),
        ({"unrated_calls": 1}, "1 call whose quality holds no number is a target clip all the same (min_quality)."),
        ({"unrated_calls": 3}, "3 calls whose quality holds no number are target clips all the same (min_quality)."),
        ({"selections": {"used": 4, "unreadable": 1, "not labelled": 0, "near an annotation": 5, "over the limit": 1}},
         "Of 11 rows of the table of hard negatives 4 became noise clips; left out: near an annotation 5, "
         "over the limit 1, unreadable 1."),
        ({"selections": {"unreadable": 0, "used": 1}},
         "Of 1 row of the table of hard negatives 1 became noise clips."),
        ({"overlapping_noise": 2, "duplicate_noise": 1},
         "2 noise clips overlap an earlier one of the same recording, 1 with the same times; labelled confusers may, "
         "as a person drew them."),
    ],
)  # fmt: skip
def test_what_was_left_out_is_said_where_there_is_any(found, said):
    plain = noise_sentences(NOTHING)
    assert len(plain) == 2 and plain[1] == "No two noise clips of a recording overlap."
    assert said not in plain and said in noise_sentences(NOTHING | found)


def test_the_page_says_what_was_left_out_of_the_noise(tmp_path, root):
    report = REPORT | {"confusers_left_out": 5, "unrated_calls": 6, "selections": {"used": 3, "over the limit": 8}}
    page = page_of(tmp_path, root, variant(), noise_report=report)
    for sentence in noise_sentences(report):
        assert f"<p>{sentence}</p>" in page


def test_contents_that_were_not_compared_are_not_called_clean(tmp_path, root):
    tables = variant(folds=1)
    leakage = tables.leakage.assign(shared_contents=pd.array([None] * 3, dtype="Int64"))
    assert leakage_verdicts(leakage, [1])[1] == (
        True, "No group, no recording on two sides; contents were not compared.",
    )  # fmt: skip
    page = page_of(tmp_path, root, dataclasses.replace(tables, leakage=leakage))
    assert "Contents were not compared" in page and "or a content stand" not in page
    leaking = leakage.assign(shared_recordings=1)
    assert leakage_verdicts(leaking, [1])[1][0] is False


# Sounds beside the lists


def test_every_fold_has_the_sounds_of_its_own_lists_only(tmp_path, root):
    tables = variant()
    clips = tables.clips[~(tables.clips["fold"].eq(2) & tables.clips["recording_id"].eq("c"))]
    (root / "b.wav").unlink()
    folder = tmp_path / "files"
    describe(folder, root, dataclasses.replace(tables, clips=clips), files=ClipFileSettings(audio=True))
    found = [{p.name for p in (folder / fold).glob("*.wav")} for fold in ("fold1", "fold2")]
    cut = {p.name for p in (folder / "audio").iterdir()}
    assert found[0] == cut and len(cut) == 10 and len(found[1]) == 8 < len(found[0])
    listed = "".join((folder / "fold2" / f"{split}.csv").read_bytes().decode() for split in ("train", "val", "test"))
    assert found[1] <= set(listed.split("\r\n"))


def test_a_clip_that_stands_on_two_sides_is_linked_once(tmp_path, root):
    tables = variant(folds=1)
    both = pd.concat([tables.clips, tables.clips.assign(split="test")])
    describe(tmp_path / "files", root, dataclasses.replace(tables, clips=both), files=ClipFileSettings(audio=True))
    assert len(list((tmp_path / "files" / "fold1").glob("*.wav"))) == 12


def test_without_sounds_there_are_no_links(tmp_path, root):
    describe(tmp_path / "files", root, variant())
    assert not list((tmp_path / "files").rglob("*.wav"))


def refuse(*arguments, **options):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_disk_without_hard_links_gets_symbolic_ones_that_survive_a_move(tmp_path, root, monkeypatch):
    monkeypatch.setattr(os, "link", refuse)
    describe(tmp_path / "files", root, variant(), files=ClipFileSettings(audio=True))
    (tmp_path / "files").rename(tmp_path / "moved")
    links = sorted((tmp_path / "moved" / "fold2").glob("*.wav"))
    assert len(links) == 12 and all(p.is_symlink() and soundfile.info(p).samplerate == RATE for p in links)
    assert links[0].readlink() == Path("../audio", links[0].name)


def test_a_disk_without_any_links_is_one_sentence(tmp_path, root, monkeypatch):
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(MissingPartError, match=r"clip_files.audio needs hard or symbolic links .* to false\.$"):
        describe(tmp_path / "files", root, variant(), files=ClipFileSettings(audio=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]


@pytest.mark.parametrize(("strategy", "leaky"), [("grouped", False), ("random", True)])
def test_the_index_says_whether_the_variant_is_leaky(tmp_path, root, strategy, leaky):
    describe(tmp_path / "files", root, variant(), settings=DatasetSettings(strategy=strategy))
    for fold in ("fold1", "fold2"):
        index = json.loads((tmp_path / "files" / fold / "variant_index.json").read_text())
        assert index["meta"]["leaky"] is leaky


@pytest.mark.real
def test_boobook(tmp_path):
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to look at")
    root = Path(os.environ["OTUS_DATA"]) / "boobook"
    paths = sorted((root / "positive").rglob("*.wav"))[:3]
    rows = []
    for i, path in enumerate(paths):
        info = soundfile.info(path)
        rows.append({"recording_id": f"r{i}", "path": str(path.relative_to(root)), "sample_rate": info.samplerate})
    clips = clips_of(*(call(r["recording_id"], s, s + 24_000) for r in rows for s in (24_000, 240_000)))
    splits = table("splits", [{"recording_id": f"r{i}", "group": f"r{i}", "fold": 1, "split": "train",
                               "start_sample": 0, "end_sample": 720_000} for i in range(3)])  # fmt: skip
    tables = DatasetTables(recordings_of(*rows), table("annotations", []), clips, splits, table("leakage", []))
    files = ClipFileSettings(spectrograms={"high_hz": 4000}, audio=True)
    statistics = describe(tmp_path / "files", root, tables, files=files)
    assert statistics["files"]["spectrograms"] == statistics["files"]["sounds"] == 6 and not statistics["unread"]
    for path in (tmp_path / "files" / "audio").iterdir():
        start = int(path.stem.split("_")[4]) * 24
        original = soundfile.read(root / rows[int(path.stem.split("_")[3][1:])]["path"], start=start, frames=24_000)[0]
        np.testing.assert_array_equal(soundfile.read(path)[0], original)
