import json
from pathlib import Path
from typing import Any

import pytest

from otus.annotations import AnnotationFile, Extent, read_annotations
from otus.annotations.alpaca_index import read_alpaca_index
from otus.config import AnnotationSource


def read(name: str, *, heard: dict[str, float] | None = None, **source: Any) -> AnnotationFile:
    """What the file name says where the recordings `heard` (name -> length in s) are there."""
    lengths = heard or {}

    def extent_of(reference: str | None) -> Extent | None:
        return Extent(lengths[reference], 8000) if reference in lengths else None

    return read_annotations(Path("nowhere"), AnnotationSource(files="*", **source), name, extent_of)


def names(pattern: str, path: str, **more: Any) -> AnnotationFile:
    return read(path, format="names", pattern=pattern, **more)


def test_a_folder_names_the_whole_recording() -> None:
    content = names(r"\d+ - (?P<label>[^/]+)/", "001 - Dog bark/1-30226-A.ogg", heard={"1-30226-A.ogg": 4.75})
    assert [(r.start_s, r.end_s, r.label, r.quality, r.recording, r.source_row) for r in content.rows] == [
        (0.0, 4.75, "Dog bark", None, "1-30226-A.ogg", 1)
    ]
    assert (content.format, content.n_rows) == ("names", 1)


def test_names_with_times_quality_and_recording() -> None:
    pattern = r"(?P<recording>tape\d+)_(?P<start>[\d.]+)_(?P<end>[\d.]+)_(?P<label>\w+?)(?:_q(?P<quality>\d))?\.wav"
    (row,) = names(pattern, "cuts/tape7_1.5_2.25_owl_q3.wav").rows
    assert (row.recording, row.start_s, row.end_s, row.label, row.quality) == ("tape7", 1.5, 2.25, "owl", "3")
    (row,) = names(pattern, "cuts/tape7_1.5_2.25_owl.wav").rows
    assert row.quality is None
    (problem,) = names(pattern, "cuts/tape7_1.5_1..5_owl.wav").problems
    assert problem.reason == "'1..5' is not a time in seconds"


def test_times_that_a_name_may_leave_out() -> None:
    pattern = r"(?P<label>[a-z]+)(?:_(?P<start>\d+)_(?P<end>\d+))?\.wav$"
    heard = {"owl_1_2.wav": 5.0, "owl.wav": 6.0}
    assert [(r.start_s, r.end_s) for r in names(pattern, "owl_1_2.wav", heard=heard).rows] == [(1.0, 2.0)]
    assert [(r.start_s, r.end_s) for r in names(pattern, "owl.wav", heard=heard).rows] == [(0.0, 6.0)]


def test_the_label_of_the_source_where_the_name_has_none() -> None:
    heard = {"a.wav": 1.0}
    assert names(r"(?P<label>owl)?", "a.wav", heard=heard, label="frog").rows[0].label == "frog"
    assert names(r"a", "a.wav", heard=heard, label="frog").rows[0].label == "frog"
    assert names(r"(?P<label>owl)?", "a.wav", heard=heard).problems[0].reason == "has no label"


def test_a_name_that_does_not_fit_is_a_problem() -> None:
    for content in (
        names(r"(?P<label>owl)_", "frog_1.wav"),
        read("target-Q3_1_0000_tape_1_2_3.wav", format="animal_spot"),
        read("387_20201207_cut.wav_110_125.wav", format="alpaca_hums"),
    ):
        (problem,) = content.problems
        assert (problem.row, problem.n_rows, content.n_rows, content.rows) == (None, 1, 1, [])
        assert problem.reason.startswith("its name ") and "rename the file" in problem.remedy


def test_a_recording_that_is_not_there_leaves_its_row_unplaced() -> None:
    content = names(r"(?P<label>owl)", "owl/a.wav")
    assert (content.unplaced, content.rows, content.n_rows) == ([("a.wav", 1)], [], 1)


@pytest.mark.parametrize(
    ("name", "label", "quality"),
    [
        ("target-Q3_001218_0000_391-20201208-cut_0005934_0006497.wav", "target", "3"),
        ("penguin-_2381_2010_101BC_149817_150055.WAV", "penguin", None),
        ("N9-call-Q4-low_1_2010_A_0_99.flac", "N9", "4"),
        ("frog-seq3_1_2010_A_0_99.wav", "frog", None),
    ],
)
def test_animal_spot_clips(name: str, label: str, quality: str | None) -> None:
    content = read(f"clips/{name}", heard={name: 0.563}, format="animal_spot")
    assert [(r.start_s, r.end_s, r.label, r.quality, r.recording) for r in content.rows] == [
        (0.0, 0.563, label, quality, name)
    ]


def test_animal_spot_noise_is_a_recording_without_annotations() -> None:
    for name in ("noise-bg_001218_0000_391-20201208-cut_0005934_0006497.wav", "Noise-_1_2010_A_0_9.wav"):
        assert read(name, heard={name: 1.0}, format="animal_spot") == AnnotationFile("animal_spot")


@pytest.mark.parametrize(
    ("name", "clip", "start_s", "end_s", "quality"),
    [
        (
            "387_20201207_cut.wav_110_125.wav_450.653258954_451.035708526Q3.wav",
            "387_20201207_cut.wav_110_125.wav", 450.653258954, 451.035708526, "3",
        ),
        ("388_20250204.wav_0_3550.wav_7_8.5Q1.wav", "388_20250204.wav_0_3550.wav", 7.0, 8.5, "1"),
        ("20250203_052300 note.wav_12.5_13.1_h_q2.wav", "20250203_052300 note.wav", 12.5, 13.1, "2"),
        ("A_20250203_052300.wav_1_2_HW_Q4 _faint.wav", "A_20250203_052300.wav", 1.0, 2.0, "4"),
        ("A_20250203_05.23.wav_1_2_hw_q1 (two calls).WAV", "A_20250203_05.23.wav", 1.0, 2.0, "1"),
    ],
)  # fmt: skip
def test_hum_cut_outs(name: str, clip: str, start_s: float, end_s: float, quality: str) -> None:
    (row,) = read(f"segmented wav only hums/{name}", format="alpaca_hums").rows
    assert (row.recording, row.start_s, row.end_s, row.quality, row.label) == (clip, start_s, end_s, quality, "hum")
    assert read(name, format="alpaca_hums", label="alpaca").rows[0].label == "alpaca"


def entry(**values: Any) -> dict[str, Any]:
    return {
        "uid": "3",
        "hum_path": "segmented/t.wav_110_125.wav_450.6_451Q3.wav",
        "clip_path": "labelled_recordings/t.wav_110_125.wav",
        "raw_path": None,
        "quality": 3,
        "dur_s": 0.4,
        "clip_start_s": 450.6,
        "clip_end_s": 451.0,
        "raw_start_s": 560.6,
        "raw_end_s": 561.0,
    } | values


@pytest.mark.parametrize("more", [{}, {"clip_dur_s": 900.0}])
def test_a_corpus_index_of_either_version(more: dict[str, float], tmp_path: Path) -> None:
    entries = [entry(**more), entry(**more, clip_start_s=1, clip_end_s=1e-5), entry(**more, quality=None)]
    path = tmp_path / "corpus_index.json"
    path.write_text(json.dumps({"meta": {"n_hums": 3}, "entries": entries}, indent=1))
    content = read_annotations(path, AnnotationSource(files="*"))
    assert content.format == "alpaca_index" and content.n_rows == 3
    assert [(r.start_s, r.end_s, r.label, r.quality, r.recording, r.source_row) for r in content.rows] == [
        (450.6, 451.0, "hum", "3", "labelled_recordings/t.wav_110_125.wav", 1),
        (450.6, 451.0, "hum", None, "labelled_recordings/t.wav_110_125.wav", 3),
    ]
    assert [(p.row, p.reason) for p in content.problems] == [(2, "ends before it starts (1 s to 1e-05 s)")]


def test_entries_that_cannot_be_used() -> None:
    source = AnnotationSource(files="*", format="alpaca_index", label="call")
    entries = [entry(clip_path=None), "x", entry(clip_start_s=None), entry(clip_end_s=float("nan")), entry()]
    content = read_alpaca_index(json.dumps({"entries": entries}), source)
    assert [p.row for p in content.problems] == [1, 2, 3, 4] and content.miscounted() is None
    assert [(r.label, r.source_row) for r in content.rows] == [("call", 5)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entries": {}}', "{}", "[" * 100_000])
def test_a_file_that_is_no_index(text: str) -> None:
    content = read_alpaca_index(text, AnnotationSource(files="*", format="alpaca_index"))
    assert [p.row for p in content.problems] == [None] and content.n_rows == 0
