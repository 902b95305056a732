import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray

from otus.columns import SCHEMAS
from otus.config import AnnotationSource, CorpusSettings
from otus.errors import DataError, StageError
from otus.inventory import Inventory, summary_lines, take_inventory
from otus.inventory.accounts import check_annotation_files, check_audio_files
from otus.tables import read_table, write_table

RATE = 8000


def noise(n: int) -> NDArray[np.float64]:
    return np.random.default_rng(99).normal(0, 0.3, n)


HEADER = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"


class Corpus:
    """A corpus in a folder, built file by file; every recording has its own content."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made = 0

    def wav(self, path: str, duration_s: float = 2.0) -> None:
        self.made += 1
        samples = np.random.default_rng(self.made).normal(0, 0.1, int(duration_s * RATE))
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.root / path, samples, RATE, subtype="PCM_16")

    def samples(self, path: str, samples: NDArray[np.float64]) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.root / path, samples, RATE, subtype="PCM_16")

    def text(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def raven(self, path: str, *rows: tuple[float, float, str]) -> None:
        lines = (f"{i}\tSpectrogram 1\t{a}\t{b}\t100\t900\t{label}\n" for i, (a, b, label) in enumerate(rows, start=1))
        self.text(path, HEADER + "".join(lines))

    def take(self, *sources: AnnotationSource, workers: int = 1, **values: Any) -> Inventory:
        values.setdefault("targets", ["owl"])
        used = list(sources) or [AnnotationSource(files="**/*.txt")]
        settings = CorpusSettings(root=str(self.root), annotations=used, **values)
        return take_inventory(self.root, settings, workers=workers, progress=lambda line: None)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.wav("site_a/x_20210123_085630.wav")
    made.raven("site_a/x_20210123_085630.Table.1.selections.txt", (1.0, 1.5, "owl"), (0.25, 0.5, "frog"))
    return made


def entries(inventory: Inventory, kind: str) -> pd.DataFrame:
    return inventory.quarantine[inventory.quarantine["kind"] == kind]


def test_tables_conform_and_survive_the_disk(corpus: Corpus, tmp_path: Path) -> None:
    corpus.text("site_a/broken.wav", "no audio")
    inventory = corpus.take()
    for name in ("recordings", "annotations", "annotation_files", "quarantine"):
        frame = getattr(inventory, name)
        assert list(frame.columns) == list(SCHEMAS[name])
        write_table(tmp_path / "out" / f"{name}.parquet", name, frame)
        assert len(read_table(tmp_path / "out" / f"{name}.parquet", name)) == len(frame)


def test_one_recording_with_its_table(corpus: Corpus) -> None:
    inventory = corpus.take()
    recording = inventory.recordings.iloc[0]
    assert recording["recording_id"] == recording["group"] == "site_a__x_20210123_085630"
    assert (recording["path"], recording["duration_s"], recording["n_samples"]) == (
        "site_a/x_20210123_085630.wav",
        2.0,
        2 * RATE,
    )
    assert (recording["sample_rate"], recording["channels"], recording["subtype"]) == (RATE, 1, "PCM_16")
    assert recording["start_time"] == "2021-01-23T08:56:30" and len(recording["sha256"]) == 64
    assert recording["labelled"] and recording["readable"] and pd.isna(recording["error"])
    assert inventory.annotations[["annotation_id", "start_s", "label", "source_row"]].to_dict("list") == {
        "annotation_id": ["site_a__x_20210123_085630_a0001", "site_a__x_20210123_085630_a0002"],
        "start_s": [0.25, 1.0],
        "label": ["frog", "owl"],
        "source_row": [3, 2],
    }
    assert set(inventory.annotations["source_file"]) == {"site_a/x_20210123_085630.Table.1.selections.txt"}
    assert inventory.quarantine.empty


def test_twice_the_same_with_any_number_of_workers(corpus: Corpus) -> None:
    for i in range(12):
        corpus.wav(f"b/{i}.wav", 0.1)
    one, four = corpus.take(), corpus.take(workers=4)
    for name in ("recordings", "annotations", "annotation_files", "quarantine"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(four, name))


def test_an_unreadable_recording_is_kept_in_the_tables(corpus: Corpus) -> None:
    corpus.text("bad.wav", "no audio")
    corpus.raven("bad.txt", (1, 2, "owl"), (3, 4, "owl"))
    inventory = corpus.take(unlabelled="negative")
    bad = inventory.recordings.set_index("path").loc["bad.wav"]
    assert not bad["readable"] and not bad["labelled"] and bad["error"] and pd.isna(bad["duration_s"])
    assert str(corpus.root) not in bad["error"]
    (row,) = entries(inventory, "recording").to_dict("records")
    assert row["path"] == "bad.wav" and row["reason"] == bad["error"] and row["remedy"]
    (table,) = entries(inventory, "table").to_dict("records")
    assert table["path"] == "bad.txt" and "bad.wav, which cannot be read (2 rows)" in table["reason"]
    assert len(inventory.annotations) == 2


def test_copies_are_one_recording_with_the_tables_of_all(corpus: Corpus) -> None:
    data = (corpus.root / "site_a/x_20210123_085630.wav").read_bytes()
    for copy in ("site_a/x_20210123_085630 (1).wav", "b/x_20210123_085630.wav"):
        (corpus.root / copy).parent.mkdir(exist_ok=True)
        (corpus.root / copy).write_bytes(data)
    corpus.raven("b/x_20210123_085630.txt", (1.0004, 1.5004, "owl"), (1.75, 1.9, "owl"), (1.0, 1.5, "toad"))
    inventory = corpus.take()
    assert list(inventory.recordings["path"]) == ["b/x_20210123_085630.wav"]
    assert [(a.start_s, a.label) for a in inventory.annotations.itertuples()] == [
        (0.25, "frog"),
        (1.0, "owl"),
        (1.0, "toad"),
        (1.75, "owl"),
    ]
    copies = entries(inventory, "duplicate")
    assert list(copies["path"]) == ["site_a/x_20210123_085630 (1).wav", "site_a/x_20210123_085630.wav"]
    assert all("b/x_20210123_085630.wav" in reason for reason in copies["reason"])
    (merged,) = entries(inventory, "row").to_dict("records")
    assert (merged["path"], merged["row"]) == ("b/x_20210123_085630.txt", 2)
    assert "row 2 of site_a/x_20210123_085630.Table.1.selections.txt" in merged["reason"]


def test_rows_beyond_the_recording(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    rows = [
        (1.0, 2.1, "owl"),
        (1.0, 2.2, "owl"),
        (2.0, 2.05, "owl"),
        (5.0, 6.0, "owl"),
        (-0.05, 0.5, "owl"),
        (-1, 1, "owl"),
    ]
    corpus.raven("y.txt", *rows)
    inventory = corpus.take()
    kept = inventory.annotations[inventory.annotations["recording_id"] == "y"]
    assert list(zip(kept["start_s"], kept["end_s"], strict=True)) == [(0.0, 0.5), (1.0, 2.0)]
    lost = entries(inventory, "row")
    assert list(lost["row"]) == [3, 4, 5, 7]
    assert lost["reason"].iloc[0] == "row outside its recording: ends at 2.2 s, the recording lasts 2 s"


def test_impossible_frequencies_become_unknown(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    corpus.text("y.txt", HEADER + "1\tSpectrogram 1\t0\t1\t900\t900\towl\n2\tSpectrogram 1\t1\t2\t\t900\towl\n")
    inventory = corpus.take()
    kept = inventory.annotations[inventory.annotations["recording_id"] == "y"]
    assert kept["low_hz"].isna().all() and list(kept["high_hz"].isna()) == [True, False]


def test_a_table_without_a_recording_goes_to_quarantine(corpus: Corpus) -> None:
    corpus.raven("lost.txt", (0, 1, "owl"))
    corpus.raven("lost_and_empty.txt")
    corpus.text("readme.txt", "not a table\n")
    tables = entries(corpus.take(), "table")
    assert list(tables["path"]) == ["lost.txt", "lost_and_empty.txt", "readme.txt"]
    assert tables["row"].isna().all() and tables["remedy"].str.len().min() > 0


def test_one_csv_over_several_recordings(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    text = "recording,start,end,label\nY.WAV,0,1,owl\nsite_a/x_20210123_085630.wav,1.6,1.7,owl\n"
    corpus.text("labels.csv", text + "gone.wav,0,1,owl\ngone.wav,1,2,owl\ny,1,1,owl\n")
    inventory = corpus.take(AnnotationSource(files="labels.csv"))
    assert sorted(inventory.annotations["recording_id"]) == ["site_a__x_20210123_085630", "y"]
    (table,) = entries(inventory, "table").to_dict("records")
    assert table["row"] == 4 and "'gone.wav'" in table["reason"] and "(2 rows)" in table["reason"]
    (row,) = entries(inventory, "row").to_dict("records")
    assert row["row"] == 6


@pytest.mark.parametrize(("unlabelled", "labelled"), [("exclude", [True, False]), ("negative", [True, True])])
def test_recordings_without_a_table(corpus: Corpus, unlabelled: str, labelled: list[bool]) -> None:
    corpus.wav("y.wav")
    corpus.wav("z.wav")
    corpus.raven("z.txt")
    inventory = corpus.take(unlabelled=unlabelled)
    by_path = inventory.recordings.set_index("path")["labelled"]
    assert [by_path["z.wav"], by_path["y.wav"]] == labelled
    rows = entries(inventory, "unlabelled")
    assert list(rows["path"]) == ["y.wav"] * (unlabelled == "exclude")
    assert all("set corpus.unlabelled: negative" in remedy for remedy in rows["remedy"])


@pytest.mark.parametrize("unlabelled", ["exclude", "negative"])
def test_a_table_of_which_nothing_can_be_used_proves_no_absence(corpus: Corpus, unlabelled: str) -> None:
    corpus.wav("y.wav")
    corpus.raven("y.txt", (5.0, 6.0, "owl"))
    inventory = corpus.take(unlabelled=unlabelled)
    assert not inventory.recordings.set_index("path")["labelled"]["y.wav"]
    (row,) = entries(inventory, "unlabelled").to_dict("records")
    assert (row["path"], row["reason"]) == ("y.wav", "nothing in its tables can be used")


def test_groups_by_folder_and_expression_and_sheet(corpus: Corpus) -> None:
    corpus.wav("y_site7_1.wav")
    sheet = "Recording;Group;Site;Split\nX_20210123_085630;tape 1;wood;Train\nnot there;a;b;test\n"
    corpus.text("sheet.csv", sheet)
    by_folder = corpus.take(group="folder", sheet="sheet.csv")
    assert list(by_folder.recordings["group"]) == ["tape 1", "."]
    assert list(by_folder.recordings["site"].fillna("-")) == ["wood", "-"]
    assert list(by_folder.recordings["given_split"].fillna("-")) == ["train", "-"]
    (unknown,) = entries(by_folder, "sheet").to_dict("records")
    assert (unknown["path"], unknown["row"]) == ("sheet.csv", 3)
    by_expression = corpus.take(group=r"_(?P<group>site\d+)_", sheet="sheet.csv")
    assert list(by_expression.recordings["group"]) == ["tape 1", "site7"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"group": "(?P<group>site_[0-9])"},
            r"site_a/x_20210123_085630.wav: corpus.group '\(\?P<group>site_\[0-9\]\)'",
        ),
        ({"targets": ["Owl"]}, r"target label \(Owl\); labels found: \w+ \(1\), \w+ \(1\)"),
        ({"recordings": ["*.flac"]}, r"no audio file below it matches corpus.recordings \(\*.flac\)"),
        ({"sheet": "gone.csv"}, "corpus.sheet: there is no file gone.csv"),
    ],
)
def test_settings_that_cannot_be_met(corpus: Corpus, values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        corpus.take(**values)


def test_sources_that_cannot_be_met(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"no file below .* matches '\*.csv'"):
        corpus.take(AnnotationSource(files="*.csv"))
    with pytest.raises(DataError, match=r"is matched by '\*\*/\*.txt' and by 'site_a/\*'"):
        corpus.take(AnnotationSource(files="**/*.txt"), AnnotationSource(files="site_a/*"))
    corpus.text("a.csv", "start,end\n1,2\n")
    with pytest.raises(DataError, match=r"a.csv: has no column 'on'; its columns are: start, end"):
        corpus.take(AnnotationSource(files="*.csv", columns={"start": "on"}))
    with pytest.raises(DataError, match=r"labels found: none; in quarantine, for example: a.csv names no label"):
        corpus.take(AnnotationSource(files="*.csv"))


def test_no_readable_recording(tmp_path: Path) -> None:
    corpus = Corpus(tmp_path)
    corpus.text("a.wav", "")
    corpus.raven("a.txt", (0, 1, "owl"))
    with pytest.raises(DataError, match=r"none of 1 audio files can be read; a.wav "):
        corpus.take()


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("recording,split\nx_20210123_085630,training\n", r"sheet.csv, row 2: the split 'training' is none of"),
        ("file,split\nx_20210123_085630,train\n", r"no column 'recording' \(columns: file, split\)"),
        ("", r"no column 'recording' \(columns: none\)"),
        ("recording,group\na.wav,1\nb.wav,2\n", r"sheet.csv, row 3: 'b.wav' is the same recording as in row 2"),
        ("recording,split\na.wav,test\nb.wav,train\n", r"row 3: 'b.wav' is the same recording"),
    ],
)
def test_sheets_that_contradict_something(corpus: Corpus, sheet: str, message: str) -> None:
    corpus.wav("a.wav")
    (corpus.root / "b.wav").write_bytes((corpus.root / "a.wav").read_bytes())
    corpus.text("sheet.csv", sheet)
    with pytest.raises(DataError, match=message):
        corpus.take(sheet="sheet.csv")


def test_file_names_that_are_no_text(corpus: Corpus) -> None:
    data = (corpus.root / "site_a/x_20210123_085630.wav").read_bytes()
    try:
        (corpus.root / os.fsdecode(b"caf\xe9.wav")).write_bytes(data)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (row,) = entries(corpus.take(), "recording").to_dict("records")
    assert row["path"] == r"caf\xe9.wav" and "UTF-8" in row["reason"]


def test_quarantine_is_sorted(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    corpus.wav("z.wav")
    corpus.raven("z.txt", (1, 1, "owl"), (0, 1, "owl"), (9, 9.5, "owl"))
    corpus.raven("lost.txt", (0, 1, "owl"))
    rows = corpus.take().quarantine
    found = [(q.kind, q.path, None if pd.isna(q.row) else q.row) for q in rows.itertuples()]
    assert found == [
        ("row", "z.txt", 2),
        ("row", "z.txt", 4),
        ("table", "lost.txt", None),
        ("unlabelled", "y.wav", None),
    ]


def test_summary(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    lines = summary_lines(corpus.take())
    assert lines[0].startswith("2 readable recordings in 2 groups") and "1 of them labelled" in lines[0]
    assert lines[1:] == [
        "2 annotations in 1 recordings: frog 1, owl 1.",
        "1 entries in quarantine: unlabelled 1.",
    ]


def test_summary_of_duplicates_flags_and_dates(corpus: Corpus) -> None:
    source = corpus.root / "site_a/x_20210123_085630.wav"
    samples, _ = soundfile.read(source, dtype="int16")
    soundfile.write(corpus.root / "copy_in_another_format.flac", samples, RATE)
    (corpus.root / "byte_identical_copy.wav").write_bytes(source.read_bytes())
    corpus.samples("silent_1.wav", np.zeros(RATE))
    corpus.samples("clipped_20211323_000000.wav", np.clip(3 * noise(RATE), -1, 1))
    names = [{"pattern": r"(?P<time>\d{8}_\d{6})"}, {"pattern": "(?P<time>_[1-9])"}]
    lines = summary_lines(corpus.take(names=names))
    assert lines[2:5] == [
        "2 recordings have flags: no date in the name can be read 2, clipped 1, silent 1.",
        "corpus.names: the date of 2 recordings cannot be read.",
        "2 duplicates: byte-identical 1, same samples 1.",
    ]


def test_levels_and_flags_of_recordings(corpus: Corpus) -> None:
    half = noise(2 * RATE)
    half[RATE // 2 : RATE // 2 + RATE] = 0
    corpus.samples("half.wav", half)
    corpus.samples("silent.wav", np.zeros(RATE))
    corpus.samples("faint.wav", np.sign(noise(RATE)) / 32768)
    corpus.samples("clipped.wav", np.clip(2 * np.sin(np.arange(RATE) / 10), -1, 1))
    corpus.samples("dead.wav", np.stack([noise(RATE), np.zeros(RATE), noise(RATE), np.zeros(RATE)], axis=1))
    corpus.wav("tail.wav")
    with (corpus.root / "tail.wav").open("ab") as file:
        file.write(bytes(3000))
    recordings = corpus.take().recordings.set_index("path")
    flags = recordings["flags"].dropna().to_dict()
    clipped = recordings.loc["clipped.wav"]
    assert flags == {
        "half.wav": "50 % digital silence",
        "silent.wav": "silent",
        "faint.wav": "nearly silent (peak -90 dBFS)",
        "clipped.wav": "clipped 67 %",
        "dead.wav": "channels 2 and 4 are dead",
        "tail.wav": "data after the audio: 3000 bytes",
    }
    assert (
        recordings["readable"].all()
        and clipped["peak_dbfs"] == 0
        and clipped["clipped_share"] == pytest.approx(2 / 3, abs=0.01)
    )
    assert recordings.loc["half.wav", "silent_share"] == pytest.approx(0.5, abs=0.001)
    assert pd.isna(recordings.loc["silent.wav", ["peak_dbfs", "rms_dbfs"]]).all()
    assert recordings["content_sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_ends_leaves_out_what_only_decoding_tells(corpus: Corpus) -> None:
    corpus.samples("silent.wav", np.zeros(RATE))
    recordings = corpus.take(audio_check="ends").recordings
    columns = ["content_sha256", "peak_dbfs", "rms_dbfs", "clipped_share", "silent_share", "flags"]
    assert recordings[columns].isna().all(axis=None) and recordings["sha256"].notna().all()


def test_the_same_samples_in_another_format_are_a_copy(corpus: Corpus) -> None:
    samples, _ = soundfile.read(corpus.root / "site_a/x_20210123_085630.wav", dtype="int16")
    soundfile.write(corpus.root / "x.flac", samples, RATE)
    corpus.raven("x.txt", (1.7, 1.8, "owl"))
    inventory = corpus.take()
    assert list(inventory.recordings["path"]) == ["x.flac"] and len(inventory.annotations) == 3
    (copy,) = entries(inventory, "duplicate").to_dict("records")
    assert (copy["path"], copy["reason"]) == (
        "site_a/x_20210123_085630.wav",
        "same samples as x.flac, which is kept",
    )
    assert len(corpus.take(audio_check="ends").recordings) == 2  # their bytes differ


def test_site_recorder_and_time_by_patterns(corpus: Corpus) -> None:
    corpus.wav("wood/AM7_20210124_120000.wav")
    corpus.wav("wood/AM7_broken.wav")
    corpus.text("sheet.csv", "recording,site\nAM7_20210124_120000,forest\n")
    pattern = r"^(?P<site>[^/]+)/(?:(?P<recorder>AM\d)|x)_(?P<time>[^/]+)\.wav"
    recordings = corpus.take(names=[{"pattern": pattern}], sheet="sheet.csv").recordings.set_index("path")
    found = recordings[["site", "recorder", "start_time", "flags"]].astype(object).where(lambda f: f.notna(), None)
    assert found.to_dict("split")["data"] == [
        ["site_a", None, "2021-01-23T08:56:30", None],
        ["forest", "AM7", "2021-01-24T12:00:00", None],
        ["wood", "AM7", None, "no date in the name can be read"],
    ]


@pytest.fixture
def tapes(corpus: Corpus) -> Corpus:
    """A tape of 2 min with two extracts, one of them annotated, an extract of a tape that is not there, and others."""
    corpus.wav("raw/t.wav", 120)
    corpus.wav("cut/t.wav_0_1.wav", 60)
    corpus.wav("cut/t.wav_70_80.wav", 10)
    corpus.wav("cut/gone.wav_5_9.wav", 4)
    corpus.wav("cut/t.wav_3_9.wav", 1)
    corpus.raven("cut/t.wav_0_1.txt", (1, 2, "owl"))
    return corpus


@pytest.mark.parametrize("unlabelled", ["exclude", "negative"])
def test_extracts(tapes: Corpus, unlabelled: str) -> None:
    inventory = tapes.take(extracts={}, unlabelled=unlabelled)
    recordings = inventory.recordings.set_index("path")
    found = recordings[["group", "parent", "parent_start_s", "flags", "labelled"]].astype(object)
    rest = unlabelled == "negative"
    assert found.where(found.notna(), None).loc["cut/gone.wav_5_9.wav":"raw/t.wav"].T.to_dict("list") == {
        "cut/gone.wav_5_9.wav": ["gone", None, 5.0, None, rest],
        "cut/t.wav_0_1.wav": ["raw__t", "raw__t", 0.0, None, True],
        "cut/t.wav_3_9.wav": [
            "raw__t", "raw__t", None, "start and end in the name do not agree with its length", rest
        ],
        "cut/t.wav_70_80.wav": ["raw__t", "raw__t", 70.0, None, rest],
        "raw/t.wav": ["raw__t", None, None, None, False],
    }  # fmt: skip
    reasons = entries(inventory, "unlabelled").set_index("path")["reason"]
    assert reasons["raw/t.wav"] == "raw recording of 3 extracts, used only for noise"
    assert len(reasons) == (1 if rest else 4)


def test_extracts_are_known_without_being_asked_for(tapes: Corpus) -> None:
    told, by_default = tapes.take(extracts={}), tapes.take()
    pd.testing.assert_frame_equal(told.recordings, by_default.recordings)
    off = tapes.take(extracts=None).recordings
    assert off["parent"].isna().all() and off["raw"].isna().all() and off["group"].is_unique


def test_the_key_of_a_raw_recording_there_or_not(tapes: Corpus) -> None:
    for path in ("b/gone.wav_20_24.wav", "cut/gone.wav_20_24.wav", "cut__gone.wav"):
        tapes.wav(path, 4)
    recordings = tapes.take().recordings.set_index("path")
    raw = recordings["raw"].dropna()
    assert set(raw.index) == {path for path in recordings.index if ".wav_" in path}
    assert raw[["cut/t.wav_0_1.wav", "cut/t.wav_70_80.wav", "cut/t.wav_3_9.wav"]].tolist() == ["raw__t"] * 3
    assert recordings["parent"].dropna().equals(raw[recordings["parent"].notna()])
    assert raw["cut/gone.wav_5_9.wav"] == raw["cut/gone.wav_20_24.wav"] != raw["b/gone.wav_20_24.wav"]
    absent = raw[recordings["parent"].isna()]
    assert not absent.isin(recordings["recording_id"]).any() and absent.str.fullmatch(r"[\w.-]+").all()
    assert recordings["recording_id"]["cut__gone.wav"] == "cut__gone"


def test_a_pattern_of_extracts_that_fits_nothing_is_told(corpus: Corpus) -> None:
    def lines(**values: Any) -> list[str]:
        said: list[str] = []
        source = AnnotationSource(files="**/*.txt")
        settings = CorpusSettings(root=str(corpus.root), annotations=[source], targets=["owl"], **values)
        take_inventory(corpus.root, settings, progress=said.append)
        return [line for line in said if "corpus.extracts" in line]

    handed_on = CorpusSettings(root="x").model_dump()["extracts"]
    assert lines() == lines(extracts=None) == lines(extracts=handed_on) == []
    told = ["corpus.extracts: no file name is that of an extract; correct its pattern, or leave extracts out"]
    assert lines(extracts={}) == told == lines(extracts={"unit": "minutes"})
    corpus.wav("a.wav_0_5.wav", 5)
    assert lines(extracts={}) == []


def test_an_extract_begins_later_than_its_raw_recording(corpus: Corpus) -> None:
    for path in ("20201220_235900.wav_90_92.5.wav", "20201220T180000Z.wav_0.25_2.wav", "20201220_180000.wav_3_99.wav"):
        corpus.wav(path, 2)
    corpus.wav("tape.wav_90_92.wav", 2)
    corpus.wav("tape.wav_20201220180000_20201220180002.wav", 2)
    began = corpus.take().recordings.set_index("path")["start_time"].astype(object)
    assert began.where(began.notna(), None).to_dict() == {
        "site_a/x_20210123_085630.wav": "2021-01-23T08:56:30",
        "20201220_235900.wav_90_92.5.wav": "2020-12-21T00:00:30",
        "20201220T180000Z.wav_0.25_2.wav": "2020-12-20T18:00:00.250Z",
        "20201220_180000.wav_3_99.wav": None,  # nobody knows where in its raw recording it is
        "tape.wav_90_92.wav": None,
        "tape.wav_20201220180000_20201220180002.wav": "2020-12-20T18:00:00",  # a time of its own
    }


@pytest.fixture
def cut_outs(corpus: Corpus) -> Corpus:
    """Four clips and the calls that were cut out of them; one clip is gone, one name does not fit."""
    for i in range(4):
        corpus.wav(f"clips/t{i}.wav_0_10.wav", 10)
        corpus.wav(f"hums/t{i}.wav_0_10.wav_{i + 1}_{i + 3}Q2.wav")
    corpus.wav("hums/gone.wav_0_10.wav_1_3Q1.wav")
    corpus.wav("hums/good one.wav")
    return corpus


@pytest.mark.parametrize("unlabelled", ["exclude", "negative"])
def test_calls_that_were_cut_out_are_no_recordings(cut_outs: Corpus, unlabelled: str) -> None:
    hums = AnnotationSource(files="hums/*.wav", format="alpaca_hums", label="owl")
    inventory = cut_outs.take(hums, unlabelled=unlabelled)
    clips = [f"clips/t{i}.wav_0_10.wav" for i in range(4)]
    assert inventory.recordings["path"].tolist() == [*clips, "hums/good one.wav", "site_a/x_20210123_085630.wav"]
    assert inventory.annotations["start_s"].tolist() == [1.0, 2.0, 3.0, 4.0]
    rows = entries(inventory, "cutout")
    assert len(rows) == 5 and set(rows["remedy"]) == {"nothing to do"} and set(rows["n_rows"]) == {0}
    assert rows["reason"].iloc[1] == "is a cut-out call of t0.wav_0_10.wav, read as an annotation"
    assert entries(inventory, "table")["path"].tolist() == ["hums/gone.wav_0_10.wav_1_3Q1.wav", "hums/good one.wav"]
    only_hums = cut_outs.root / "hums"
    settings = CorpusSettings(root=str(only_hums), annotations=[hums.model_copy(update={"files": "*Q*"})])
    (only_hums / "good one.wav").unlink()
    with pytest.raises(DataError, match=r"all 5 audio files are cut-out calls .*, such as gone.wav_0_10.wav_1_3Q1"):
        take_inventory(only_hums, settings, progress=lambda line: None)


def test_calls_whose_names_tell_another_recording_are_none(cut_outs: Corpus) -> None:
    pattern = r"(?P<recording>[^/]+)@(?P<start>\d+)-(?P<end>\d+)\.wav"
    cut_outs.wav("owls/x_20210123_085630@0-1.wav", 1)
    cut_outs.wav("owls/x_20210123_085630@1-2.wav", 1)
    source = AnnotationSource(files="owls/*", format="names", pattern=pattern, label="owl")
    inventory = cut_outs.take(source)
    assert inventory.annotations["recording_id"].unique().tolist() == ["site_a__x_20210123_085630"]
    assert entries(inventory, "cutout")["path"].str.startswith("owls/").tolist() == [True, True]
    # A name that names its own file is that of a recording.
    cut_outs.wav("twice/y.wav")
    cut_outs.wav("twice/y.flac")
    for pattern in ("(?P<recording>[^/]+)$", r"(?P<recording>[^/]+)\.\w+$"):
        own = AnnotationSource(files="[st]*/*", format="names", pattern=pattern, label="owl")
        inventory = cut_outs.take(own)
        assert {"site_a/x_20210123_085630.wav", "twice/y.wav", "twice/y.flac"} <= set(inventory.recordings["path"])
        assert entries(inventory, "cutout").empty


def test_the_folder_is_looked_through_once(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir, seen = os.scandir, []

    def counted(folder: Path) -> Any:
        seen.append(Path(folder).name)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counted)
    corpus.take()
    assert sorted(seen) == sorted([corpus.root.name, "site_a"])


@pytest.mark.parametrize("unlabelled", ["exclude", "negative"])
def test_a_table_whose_times_run_on_over_its_files_labels_none_of_them(corpus: Corpus, unlabelled: str) -> None:
    header = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation\n"
    for name in ("a", "b"):
        corpus.wav(f"{name}.wav", 30)
    corpus.text("all.txt", f"{header}1\tS\t2\t3\ta.wav\towl\n2\tS\t12\t13\ta.wav\towl\n3\tS\t40\t41\tb.wav\towl\n")
    inventory = corpus.take(unlabelled=unlabelled)
    assert not inventory.recordings.set_index("path").loc[["a.wav", "b.wav"], "labelled"].any()
    (row,) = entries(inventory, "table").to_dict("records")
    assert (row["path"], row["n_rows"]) == ("all.txt", 3)
    assert inventory.annotation_files.set_index("path").loc["all.txt", ["n_rows", "n_quarantined"]].tolist() == [3, 3]


def test_a_raw_recording_with_a_table_of_its_own_is_labelled(tapes: Corpus) -> None:
    tapes.raven("raw/t.txt")
    inventory = tapes.take(extracts={}, unlabelled="negative")
    assert inventory.recordings.set_index("path").loc["raw/t.wav", "labelled"]
    assert entries(inventory, "unlabelled").empty


def test_the_sheet_may_not_tear_a_tape_apart(tapes: Corpus) -> None:
    tapes.text("sheet.csv", "recording,group\nt.wav,a\nt.wav_70_80.wav,b\n")
    with pytest.raises(DataError, match=r"corpus.sheet, row 2: raw/t.wav has another group than cut/t.wav_70_80.wav"):
        tapes.take(extracts={}, sheet="sheet.csv")


def test_every_row_of_every_annotation_file_is_accounted_for(corpus: Corpus) -> None:
    corpus.wav("y.wav")
    corpus.raven("y.txt", (0, 1, "owl"), (1, 1, "owl"), (0.0004, 1.0004, "owl"), (9, 9.5, "owl"), (0, 1, "cat"))
    corpus.raven("lost.txt", (0, 1, "owl"), (1, 2, "owl"))
    corpus.text("readme.txt", "not a table\n")
    inventory = corpus.take(labels={"cat": None})
    files = inventory.annotation_files.set_index("path")
    counts = files[["n_rows", "n_annotations", "n_views", "n_quarantined"]]
    assert counts.T.to_dict("list") == {
        "lost.txt": [2, 0, 0, 2],
        "readme.txt": counts.loc["readme.txt"].tolist(),
        "site_a/x_20210123_085630.Table.1.selections.txt": [2, 2, 0, 0],
        "y.txt": [5, 1, 0, 4],
    }
    assert counts["n_annotations"].sum() == len(inventory.annotations)
    assert counts["n_quarantined"].sum() == inventory.quarantine["n_rows"].sum()


def test_an_account_that_does_not_add_up_is_an_error(corpus: Corpus) -> None:
    found = corpus.take()
    tables = (found.annotation_files, found.annotations, found.quarantine)
    paths = list(found.annotation_files["path"])
    check_annotation_files(paths, *tables)
    check_audio_files(found.recordings["path"], found.recordings, found.quarantine)
    with pytest.raises(StageError, match=r"does not add up: .* has 2 rows, of which 1 are annotations"):
        check_annotation_files(paths, tables[0], tables[1].iloc[:1], tables[2])
    with pytest.raises(StageError, match=r"does not add up: the annotation file other.txt was found 1 times"):
        check_annotation_files([*paths, "other.txt"], *tables)
    with pytest.raises(StageError, match=r"does not add up: the audio file gone.wav was found 1 times .* 0 times"):
        check_audio_files([*found.recordings["path"], "gone.wav"], found.recordings, found.quarantine)
    with pytest.raises(StageError, match=r"was found 0 times and stands in the tables 1 times"):
        check_audio_files([], found.recordings, found.quarantine)


def test_the_same_tables_in_whatever_order_a_folder_is_listed(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(8):
        corpus.wav(f"b{i % 3}/{i}.wav", 0.1)
        corpus.raven(f"b{i % 3}/{i}.txt", (0.01 * i, 0.05 * i + 0.02, "owl"))
    (corpus.root / "z.wav").write_bytes((corpus.root / "b0/0.wav").read_bytes())
    first = corpus.take()
    scandir, generator = os.scandir, random.Random(1)

    def shuffled(folder: Path) -> list[os.DirEntry[str]]:
        found = list(scandir(folder))
        return generator.sample(found, k=len(found))

    monkeypatch.setattr(os, "scandir", shuffled)
    second = corpus.take()
    for name in ("recordings", "annotations", "annotation_files", "quarantine"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_a_link_to_nothing_is_not_lost(corpus: Corpus) -> None:
    (corpus.root / "gone.wav").symlink_to(corpus.root / "not_fetched.wav")
    (row,) = entries(corpus.take(), "recording").to_dict("records")
    assert (row["path"], row["reason"]) == ("gone.wav", "cannot be read as audio (No such file or directory)")


@pytest.mark.real
def test_boobook() -> None:
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to take stock of")
    root = Path(os.environ["OTUS_DATA"]) / "boobook"
    sources = [
        AnnotationSource(files="positive/*.selections.txt", label="boobook"),
        AnnotationSource(files="negative/neg_2/*.selections.txt", label="other"),
    ]
    settings = CorpusSettings(root=str(root), annotations=sources, targets=["boobook"], unlabelled="negative")
    silent: Callable[[str], None] = lambda line: None  # noqa: E731
    inventory = take_inventory(root, settings, workers=2, progress=silent)
    assert len(inventory.recordings) == 33 and inventory.recordings["labelled"].all()
    assert inventory.recordings["duration_s"].sum() == pytest.approx(990, abs=0.1)
    assert inventory.recordings["start_time"].notna().all()
    assert inventory.annotations["label"].value_counts().to_dict() == {"boobook": 49, "other": 32}
    assert inventory.quarantine["kind"].value_counts().to_dict() == {"duplicate": 4, "row": 1}
    assert inventory.recordings["flags"].dropna().str.startswith("clipped").sum() == 6
    assert "zero length" in entries(inventory, "row")["reason"].iloc[0]
