from pathlib import Path

import pytest

from otus.annotations import AnnotationFile, detect_format, read_annotations
from otus.config import AnnotationSource
from otus.errors import DataError

HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"


def read(folder: Path, text: str | bytes, **source: str) -> AnnotationFile:
    path = folder / "night.Table.1.selections.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_annotations(path, AnnotationSource(files="*.txt", **source))  # type: ignore[arg-type]


def test_rows_have_line_numbers_and_the_label_of_the_cell_wins(tmp_path: Path) -> None:
    text = HEADER + "1\tSpectrogram 1\t1\t1.5\t2.25\t400\t900\towl\n\n2\tSpectrogram 1\t1\t3\t4\t\t\t\n"
    content = read(tmp_path, text, label="other")
    assert content.format == "raven" and not content.problems
    assert [(r.start_s, r.end_s, r.low_hz, r.high_hz, r.label, r.source_row) for r in content.rows] == [
        (1.5, 2.25, 400.0, 900.0, "owl", 2),
        (3.0, 4.0, None, None, "other", 4),
    ]
    assert content.rows[0].recording is None


@pytest.mark.parametrize("header", ["Begin time (s)", "BEGIN TIME (S)", "Start Time (s)", "Begin Time"])
def test_header_variants(tmp_path: Path, header: str) -> None:
    content = read(tmp_path, HEADER.replace("Begin Time (s)", header) + "1\tSpectrogram 1\t1\t1\t2\t1\t2\towl\n")
    assert [r.start_s for r in content.rows] == [1.0]


@pytest.mark.parametrize(
    "column", ["Label", "species", "Sound type", "Sound_type", "Call", "TAG", "Common Name", "Type"]
)
def test_label_columns_by_their_usual_names(tmp_path: Path, column: str) -> None:
    content = read(tmp_path, HEADER.replace("Annotation", column) + "1\tSpectrogram 1\t1\t1\t2\t1\t2\towl\n")
    assert [r.label for r in content.rows] == ["owl"]


def test_an_empty_annotation_column_gives_way_to_one_that_is_filled(tmp_path: Path) -> None:
    text = HEADER.rstrip("\n") + "\tSpecies\n1\tSpectrogram 1\t1\t1\t2\t1\t2\t\towl\n"
    assert [r.label for r in read(tmp_path, text).rows] == ["owl"]


def test_label_column_that_is_asked_for(tmp_path: Path) -> None:
    text = HEADER.rstrip("\n") + "\tMy class\n1\tSpectrogram 1\t1\t1\t2\t1\t2\tnoise\towl\n"
    assert [r.label for r in read(tmp_path, text, label_column="my class").rows] == ["owl"]
    with pytest.raises(DataError, match=r"no column 'Wrong'.*Selection.*My class"):
        read(tmp_path, text, label_column="Wrong")


@pytest.mark.parametrize("order", [0, 1])
def test_views_of_one_selection_count_once_with_the_spectrograms_frequencies(tmp_path: Path, order: int) -> None:
    views = ["1\tWaveform 1\t1\t1\t2\t0\t12000\towl\n", "1\tSpectrogram 1\t1\t1\t2\t400\t900\t\n"]
    content = read(tmp_path, HEADER + views[order] + views[1 - order] + "2\tWaveform 1\t1\t5\t6\t0\t12000\towl\n")
    assert [(r.start_s, r.low_hz, r.label) for r in content.rows] == [(1.0, 400.0, "owl"), (5.0, 0.0, "owl")]
    assert content.rows[0].source_row == 3 - order


def test_tables_put_one_after_the_other_keep_their_rows(tmp_path: Path) -> None:
    text = HEADER + "".join(f"1\tSpectrogram 1\t1\t{t}\t{t + 1}\t1\t2\towl\n" for t in (1, 4, 7))
    text += "1\tWaveform 1\t1\t20\t21\t1\t2\towl\n"
    assert [r.start_s for r in read(tmp_path, text).rows] == [1.0, 4.0, 7.0, 20.0]


def test_begin_file_and_file_offset(tmp_path: Path) -> None:
    text = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tLabel\n"
    text += "1\tSpectrogram 1\t1\t61.5\t62.25\tb.wav\t1.5\towl\n2\tSpectrogram 1\t1\t3\t4\ta.wav\t3\towl\n"
    text += "3\tSpectrogram 1\t1\t63\t64\tb.wav\t\towl\n"
    content = read(tmp_path, text)
    assert [(r.recording, r.start_s, r.end_s) for r in content.rows] == [("b.wav", 1.5, 2.25), ("a.wav", 3.0, 4.0)]
    assert [(p.row, p.recording) for p in content.problems] == [(4, "b.wav")]


def test_rows_and_views_are_counted(tmp_path: Path) -> None:
    views = "1\tWaveform 1\t1\t1\t2\t0\t12000\towl\n1\tSpectrogram 1\t1\t1\t2\t400\t900\t\n"
    views += "1\tSpectrogram 1\t2\t1\t2\t400\t900\towl\n2\tSpectrogram 1\t1\t3\t3\t0\t1\towl\n\n"
    content = read(tmp_path, HEADER + views)
    assert (content.n_rows, content.n_views, len(content.rows), len(content.problems)) == (4, 2, 1, 1)
    unlabelled = read(tmp_path, (HEADER + views).replace("Annotation", "Remark"))
    assert (unlabelled.n_rows, unlabelled.problems[0].n_rows, unlabelled.problems[0].row) == (4, 4, None)


def test_views_whose_times_are_rounded_differently_are_one_selection(tmp_path: Path) -> None:
    row = "1\t{}\t1\t{}\t{}\t0\t1\towl\n"
    near = row.format("Waveform 1", "1,000", "2,004") + row.format("Spectrogram 1", "1.0", "2.0")
    far = row.format("Waveform 1", "1", "2.02") + row.format("Spectrogram 1", "1", "2")
    assert [len(read(tmp_path, HEADER + text).rows) for text in (near, far)] == [1, 2]


def test_delta_time_stands_for_an_end_that_is_missing(tmp_path: Path) -> None:
    header = "Selection\tView\tBegin Time (s)\tDelta Time (s)\tLabel\n"
    rows = "1\tSpectrogram 1\t1.5\t0,25\towl\n2\tSpectrogram 1\t3\t0\towl\n3\tSpectrogram 1\t4\t\towl\n"
    content = read(tmp_path, header + rows)
    assert content.format == "raven" and [(r.start_s, r.end_s) for r in content.rows] == [(1.5, 1.75)]
    assert [p.reason for p in content.problems] == ["has zero length (at 3 s)", "a time is missing"]
    both = header.replace("Label", "End Time (s)\tLabel") + "1\tSpectrogram 1\t1\t9\t2\towl\n"
    assert [(r.start_s, r.end_s) for r in read(tmp_path, both).rows] == [(1.0, 2.0)]


def test_a_selection_that_runs_over_into_the_next_file_is_a_problem(tmp_path: Path) -> None:
    text = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tEnd File\tFile Offset (s)\tLabel\n"
    text += "1\t58\t63\ta.wav\tb.wav\t58\towl\n2\t64\t65\tb.wav\tB.WAV\t4\towl\n"
    content = read(tmp_path, text)
    assert [(r.recording, r.start_s, r.end_s) for r in content.rows] == [("b.wav", 4.0, 5.0)]
    assert [(p.row, p.reason, p.recording) for p in content.problems] == [
        (2, "runs over from a.wav into b.wav", "a.wav")
    ]


def test_an_offset_that_is_the_begin_time_changes_nothing(tmp_path: Path) -> None:
    text = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tLabel\n"
    content = read(tmp_path, text + "1\t0.1\t0.7000000000000001\ta.wav\t0.1\towl\n")
    assert [(r.start_s, r.end_s) for r in content.rows] == [(0.1, 0.7000000000000001)]


def test_blanks_within_labels_are_one(tmp_path: Path) -> None:
    content = read(tmp_path, HEADER + "1\tSpectrogram 1\t1\t1\t2\t1\t2\t  barn \u00a0 owl \n")
    assert [r.label for r in content.rows] == ["barn owl"]


def test_begin_path_may_be_a_folder_or_the_whole_path(tmp_path: Path) -> None:
    text = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tBegin File\tLabel\n"
    text += "1\t1\t2\tD:\\x\\a.wav\ta.wav\towl\n2\t1\t2\tD:\\x\ta.wav\towl\n3\t1\t2\t\ta.wav\towl\n"
    assert [r.recording for r in read(tmp_path, text).rows] == ["D:\\x\\a.wav", "D:\\x/a.wav", "a.wav"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings_line_ends_and_decimal_commas(tmp_path: Path, encoding: str) -> None:
    text = (HEADER + "1\tSpectrogram 1\t1\t1,5\t2,25\t400,1\t900\tKäuzchen\n").replace("\n", "\r\n")
    content = read(tmp_path, text.encode(encoding))
    assert [(r.start_s, r.end_s, r.low_hz, r.label) for r in content.rows] == [(1.5, 2.25, 400.1, "Käuzchen")]


def test_an_empty_table_is_valid_but_an_empty_file_is_not(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER) == AnnotationFile("raven")
    assert [p.row for p in read(tmp_path, "", format="raven").problems] == [None]
    assert "could be an Audacity track" in read(tmp_path, "").problems[0].reason


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ("2\t2", "zero length"),
        ("3\t2", "ends before it starts"),
        ("x\t2", "'x' is not a time"),
        ("\t2", "a time is missing"),
        ("1\tnan", "'nan' is not a time"),
        ("1\t1_000", "not a time"),
        ("1\t1,000.5", "not a time"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, times: str, reason: str) -> None:
    good = "1\tSpectrogram 1\t1\t1\t2\t1\t2\towl\n"
    content = read(tmp_path, HEADER + good + f"2\tSpectrogram 1\t1\t{times}\t1\t2\towl\n")
    assert len(content.rows) == 1
    assert [(p.row, reason in p.reason) for p in content.problems] == [(3, True)]
    assert content.problems[0].remedy


def test_missing_labels(tmp_path: Path) -> None:
    row = "1\tSpectrogram 1\t1\t1\t2\t1\t2\t\n"
    assert [(p.row, p.reason) for p in read(tmp_path, HEADER + row).problems] == [(2, "has no label")]
    content = read(tmp_path, HEADER.replace("\tAnnotation", "") + row)
    assert content.problems[0].row is None and "names no label" in content.problems[0].reason


@pytest.mark.parametrize("data", [b"RIFF\x00\x00WAVE", b"Dear reader,\nthis is no table.\n"])
def test_other_files_are_one_problem(tmp_path: Path, data: bytes) -> None:
    content = read(tmp_path, data)
    assert content.format == "unknown" and [p.row for p in content.problems] == [None]


def test_a_missing_file_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    assert "cannot be read" in read_annotations(tmp_path / "no.txt", AnnotationSource(files="x")).problems[0].reason


def test_formats_are_told_apart() -> None:
    assert detect_format(HEADER) == "raven"
    assert detect_format("0.5\t1.5\towl\n") == "audacity"
    assert detect_format("0,5\t1,5\n") == "audacity"
    assert detect_format("start,end\n1,2\n") == "csv"
    assert detect_format("start (s)\tend (s)\tlabel\n") == "csv"
    assert detect_format("name,age\nx,2\n") is None
    assert detect_format("") is None
    assert detect_format('\n{"meta": {"n_hums": 0}, "entries": []}') == "alpaca_index"
    assert detect_format('{"entries": []}') is None
    assert detect_format('<?xml version="1.0"?>\n<Sequences><NumSequence>0') == "birdsong-recognition-dataset"
    assert detect_format('\nFile type = "ooTextFile"\nObject class = "TextGrid"\n') == "textgrid"


def several_files(*rows: tuple[str, float], offset: bool = False) -> str:
    header = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation" + "\tFile Offset (s)" * offset
    lines = (
        f"{i}\tSpectrogram 1\t{start}\t{start + 1}\t{file}\towl" + f"\t{start}" * offset
        for i, (file, start) in enumerate(rows, start=1)
    )
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize(
    "rows",
    [
        [("a.wav", 2), ("b.wav", 12), ("c.wav", 45)],
        [("a.wav", 9), ("a.wav", 2), ("A.WAV", 4), ("b.wav", 61), ("b.wav", 60), ("", 3)],
    ],
)
def test_times_that_run_on_over_several_files_are_a_problem(tmp_path: Path, rows: list[tuple[str, float]]) -> None:
    content = read(tmp_path, several_files(*rows))
    assert not content.rows and content.n_rows == len(rows) == sum(p.n_rows for p in content.problems)
    assert {(p.row, p.remedy) for p in content.problems} == {
        (None, "in Raven add the measurement File Offset (s) and save the table again")
    }
    n = len({file.casefold() for file, _ in rows} - {""})
    (reason,) = {p.reason for p in content.problems}
    assert reason.startswith(f"names {n} recordings but has no column File Offset (s), and its times seem to count on")
    assert {p.recording for p in content.problems} == {file or None for file, _ in rows}
    assert len(read(tmp_path, several_files(*rows, offset=True)).rows) == len(rows)


@pytest.mark.parametrize(
    "rows",
    [
        [("a.wav", 2), ("a.wav", 12), ("b.wav", 3), ("b.wav", 20)],
        [("a.wav", 0), ("b.wav", 0)],
        [("a.wav", 2), ("b.wav", 5), ("a.wav", 30)],
        [("a.wav", 2), ("b.wav", 9), ("c.wav", 4)],
        [("a.wav", 2), ("a.wav", 12)],
        [("", 2), ("a.wav", 12)],
    ],
)
def test_times_that_start_anew_in_each_file_are_used(tmp_path: Path, rows: list[tuple[str, float]]) -> None:
    content = read(tmp_path, several_files(*rows))
    assert [(r.recording or "", r.start_s) for r in content.rows] == rows and not content.problems


def test_a_table_without_labels_tells_which_recordings_it_names(tmp_path: Path) -> None:
    text = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\n1\t1\t2\ta.wav\n2\t1\t2\tb.wav\n3\t3\t4\ta.wav\n"
    problems = read(tmp_path, text).problems
    assert [(p.recording, p.n_rows) for p in problems] == [("a.wav", 2), ("b.wav", 1)]
    assert all(p.reason.startswith("names no label") for p in problems)
