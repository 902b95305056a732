import os
from pathlib import Path

import pytest

from otus.annotations import AnnotationFile, read_annotations
from otus.annotations.columns import read_columns
from otus.config import AnnotationSource
from otus.errors import DataError


def read(text: str, columns: dict[str, str] | None = None, label: str | None = None) -> AnnotationFile:
    source = AnnotationSource(files="*", format="csv", label=label, columns=columns or {})  # type: ignore[arg-type]
    return read_columns(text, source, "labels.csv")


def test_mapped_columns() -> None:
    text = "f,a,b,sp,lo,hi,grade\nx.wav,1,2,owl,400,900,Q1\n"
    columns = {"recording": "f", "start": "a", "end": "B", "label": "sp", "low_hz": "lo", "high_hz": "hi"}
    (row,) = read(text, {**columns, "quality": "grade"}).rows
    assert (row.recording, row.start_s, row.end_s, row.label) == ("x.wav", 1.0, 2.0, "owl")
    assert (row.low_hz, row.high_hz, row.quality, row.source_row) == (400.0, 900.0, "Q1", 2)


def test_a_mapped_column_that_is_missing() -> None:
    with pytest.raises(DataError, match=r"labels.csv: has no column 'onset'; its columns are: start, end, label"):
        read("start,end,label\n1,2,owl\n", {"start": "onset"})


@pytest.mark.parametrize(
    "header",
    [
        "onset,offset,species,filename",
        "Start (s),End (s),Label,recording_id",
        "Begin Time (s),End Time (s),Common Name,path",
        "start_time,stop_time,class,file",
        "on,off,call_type,audio_file",
        "startTime,endTime,tag,Begin File",
    ],
)
def test_usual_names_are_guessed(header: str) -> None:
    (row,) = read(f"{header}\n1,2,owl,x.wav\n").rows
    assert (row.start_s, row.end_s, row.label, row.recording) == (1.0, 2.0, "owl", "x.wav")


@pytest.mark.parametrize(
    "text",
    [
        "start;end;label\n0,5;1,5;owl\n",
        "start\tend\tlabel\n0,5\t1.5\towl\n",
        'start,end,label\n"0,5","1,5",owl\n',
        "start, end, label\r\n 0.5, 1.5, owl\r\n",
        'start;end;label\n.5;15e-1;"owl"\n',
    ],
)
def test_separators_and_decimal_commas(text: str) -> None:
    (row,) = read(text.replace("\r\n", "\n")).rows
    assert (row.start_s, row.end_s, row.label) == (0.5, 1.5, "owl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5,1.5\n2,3\n", (None, 0.5, 1.5, "usv")),
        ('"0,5","1,5"\n', (None, 0.5, 1.5, "usv")),
        ("0,5;1,5\n2,5;3,5\n", (None, 0.5, 1.5, "usv")),
        ("0.5,1.5,owl\n", (None, 0.5, 1.5, "owl")),
        ("0.5,1.5,7\n2,3,8\n", (None, 0.5, 1.5, "7")),
        ("0.5,1.5,0.93\n2,3,1\n", (None, 0.5, 1.5, "usv")),
        ("x.wav,0.5,1.5,owl\n", ("x.wav", 0.5, 1.5, "owl")),
    ],
)
def test_tables_without_a_header(text: str, expected: tuple[object, ...]) -> None:
    row = read(text, label="usv").rows[0]
    assert (row.recording, row.start_s, row.end_s, row.label) == expected
    assert row.source_row == 1


def test_columns_by_number_where_there_is_no_header() -> None:
    (row,) = read("9,0.5,1.5,owl\n", {"start": "2", "end": "3", "label": "4"}).rows
    assert (row.start_s, row.end_s, row.label) == (0.5, 1.5, "owl")


def test_a_cell_with_line_ends_keeps_the_count_of_lines() -> None:
    text = 'start,end,label,note\n1,2,owl,"two\nlines"\n\n3,3,owl,\n'
    content = read(text)
    assert [r.source_row for r in content.rows] == [2]
    assert [p.row for p in content.problems] == [5]


def test_a_duration_stands_for_the_end() -> None:
    for content in (
        read("start,duration,label\n1.5,0.25,owl\n3,x,owl\n4,,owl\n"),
        read("at,for,label\n1.5,0.25,owl\n3,x,owl\n4,,owl\n", {"start": "at", "duration": "for"}),
        read("at,for,label,end\n1.5,0.25,owl,9\n3,x,owl,9\n4,,owl,9\n", {"start": "at", "duration": "for"}),
        read("1.5,0.25,owl\n3,x,owl\n4,,owl\n", {"start": "1", "duration": "2", "label": "3"}),
    ):
        assert [(r.start_s, r.end_s) for r in content.rows] == [(1.5, 1.75)]
        assert [p.reason for p in content.problems] == ["'x' is not a time in seconds", "a time is missing"]
    assert [r.end_s for r in read("start,end,duration,label\n1,2,9,owl\n1,,3,owl\n").rows] == [2.0, 4.0]


def test_labels_with_line_ends_are_one_line() -> None:
    content = read('start,end,label\n1,2,"barn\n\t owl"\n')
    assert [r.label for r in content.rows] == ["barn owl"]


def test_rows_that_cannot_be_told_are_counted() -> None:
    unlabelled, endless = read("start,end\n1,2\n3,4\n"), read("start,label\n1,owl\n\n")
    assert [(c.n_rows, c.problems[0].n_rows) for c in (unlabelled, endless)] == [(2, 2), (1, 1)]
    assert "the end (columns: start, label)" in endless.problems[0].reason


def test_short_rows_are_problems_and_bad_frequencies_are_unknown() -> None:
    content = read("start,end,label,low_hz\n1\n2,3,owl,low\n")
    assert [(p.row, p.reason) for p in content.problems] == [(2, "a time is missing")]
    assert content.rows[0].low_hz is None


def test_a_table_of_something_else_is_one_problem() -> None:
    for text in ("name,age\nx,2\n", "", "word\n", "start,end\n1,2\n", "start,label\n1,owl\n"):
        assert [p.row for p in read(text).problems] == [None]
        assert not read(text).rows


def test_header_only_is_a_valid_table() -> None:
    assert read("start,end,label\n") == AnnotationFile("csv")


def test_an_unclosed_quote_does_not_swallow_the_file() -> None:
    text = "start,end,label\n" + '1,2,"owl\n' + "3,4,frog\n" * 20000
    assert len(read(text).rows) == 20001


@pytest.mark.real
def test_real_csv_files_with_and_without_decimal_commas() -> None:
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to read")
    folder = Path(os.environ["OTUS_DATA"]) / "usv"
    source = AnnotationSource(files="*", label="usv")
    truth = [read_annotations(path, source) for path in sorted(folder.glob("*/gt_*.csv"))]
    assert sum(len(content.rows) for content in truth) == 245
    assert not any(content.problems for content in truth)
    comma = read_annotations(folder / "1" / "msa1_1.csv", source)
    assert (comma.rows[0].start_s, comma.rows[0].end_s) == (0.0775, 0.0811)
