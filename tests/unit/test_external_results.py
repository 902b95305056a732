import json

import pytest

from otus.config import ExternalSettings
from otus.external.programs import ProgramError
from otus.external.results import Found, read_result, result_file


def settings(format_, **more):
    command = ["detect", "{input}", "{output}"]
    return ExternalSettings(runner="command", command=command, format=format_, **more)


def read(tmp_path, text, format_, only_label=None, **more):
    path = tmp_path / "found"
    path.write_text(text, encoding="utf-8")
    return read_result(path, settings(format_, **more), only_label)


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies Code\tConfidence\n"
)
HAWKEARS1 = "filename,start_time,end_time,class_name,class_code,score\n"
HAWKEARS2 = "recording,name,start_time,end_time,score\n"


@pytest.mark.parametrize(
    ("format_", "text", "more"),
    [
        ("csv", "start,end,label,score\n1.5,2.25,owl,0.75\n", {}),
        ("csv", "onset;offset;species;confidence\n1,5;2,25;owl;0,75\n", {}),
        ("csv", "t0\tt1\twho\thow sure\n1.5\t2.25\towl\t0.75\n", {"columns": {"label": "who", "score": "how sure"}}),
        ("raven", RAVEN + "1\tSpectrogram 1\t1\t1.5\t2.25\t100\t200\towl\t0.75\n", {}),
        (
            "raven",
            RAVEN + "1\tWaveform 1\t1\t1.5\t2.25\t0\t0\towl\t0.75\n1\tSpectrogram 1\t1\t1.5\t2.25\t9\t20\towl\t0.75\n",
            {"columns": {"label": "Species Code", "score": "Confidence"}},
        ),
        ("audacity", "1.50\t2.25\towl;0.75\n", {}),
        ("json", '[{"start": 1.5, "end": 2.25, "label": "owl", "score": 0.75, "x": null}]', {}),
        (
            "json",
            '{"status": "ok", "detections": [{"a": 1.5, "b": 2.25, "c": "owl", "p": 0.75}]}',
            {"columns": {"start": "a", "end": "b", "label": "c", "score": "p"}},
        ),
        ("hawkears1", HAWKEARS1 + "chunk.wav,1.500,2.250,Great Owl,owl,0.750\n", {}),
        ("hawkears2", HAWKEARS2 + "chunk,owl,1.500,2.250,0.750\n", {}),
    ],
)
def test_every_format_tells_the_same(tmp_path, format_, text, more):
    assert read(tmp_path, text, format_, **more) == [Found(1.5, 2.25, "owl", 0.75)]


def test_a_score_may_be_missing(tmp_path):
    assert read(tmp_path, "start,end,label\n1,2,owl\n", "csv") == [Found(1.0, 2.0, "owl", None)]
    assert read(tmp_path, "1\t2\tcall 2\n", "audacity") == [Found(1.0, 2.0, "call 2", None)]


def test_a_table_without_labels_is_of_the_only_label(tmp_path):
    assert read(tmp_path, "start,end,score\n1,2,0.5\n", "csv", only_label="owl") == [Found(1.0, 2.0, "owl", 0.5)]
    with pytest.raises(ProgramError, match="names no label"):
        read(tmp_path, "start,end,score\n1,2,0.5\n", "csv")


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("csv", "start,end,label,score\n"),
        ("raven", RAVEN),
        ("audacity", ""),
        ("json", "[]"),
        ("json", '{"results": []}'),
    ],
)
def test_nothing_found_is_written_down(tmp_path, format_, text):
    assert read(tmp_path, text, format_) == []


@pytest.mark.parametrize(
    ("format_", "text", "what"),
    [
        ("csv", "", "is empty"),
        ("raven", "", "is empty"),
        ("json", "", "it is no JSON"),
        ("json", '{"status": "no_output"}', "neither a list"),
        ("json", "[1, 2]", "neither a list"),
        ("csv", "Traceback (most recent call last):\n", "is empty"),
        ("json", "[" * 200_000, "it is no JSON"),
        ("csv", "name,value\n1,2\n", "no column can be told"),
        ("csv", "start,end,label,score\n1,2,owl,\n", "row 2 of its output has no score"),
        ("audacity", "1\t2\towl;0.5\n3\t4\towl\n", "row 2 of its output has no score"),
        ("csv", "start,end,label,score\n1,2,owl,0.5\n3,x,owl,0.5\n", "row 3 of its output 'x' is not a time"),
        ("csv", "start,end,label,score\n2,1,owl,0.5\n", "row 2 of its output ends before it starts"),
        ("csv", "start,end,label,score\n1,2,owl,high\n", "row 2 of its output has the score 'high'"),
        ("csv", "start,end,label,score\n1,2,owl,nan\n", "has the score 'nan'"),
        ("raven", "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t2\n", "row 2 of its output a time is missing"),
        ("audacity", "<html>not found</html>\n", "is no Audacity label track"),
        ("hawkears2", "start,end\n1,2\n", "has no column"),
    ],
)
def test_what_cannot_be_used_is_a_failure(tmp_path, format_, text, what):
    with pytest.raises(ProgramError, match=what):
        read(tmp_path, text, format_)


@pytest.mark.parametrize(
    ("format_", "header", "account"),
    [("hawkears1", HAWKEARS1, "HawkEars_summary.txt"), ("hawkears2", HAWKEARS2, "manifest.yaml")],
)
def test_a_header_of_hawkears_counts_only_beside_its_account(tmp_path, format_, header, account):
    with pytest.raises(ProgramError, match=f"no row, and {account}"):
        read(tmp_path, header, format_)
    (tmp_path / account).write_text("")
    assert read(tmp_path, header, format_) == []


def test_columns_that_are_not_there_are_a_failure(tmp_path):
    with pytest.raises(ProgramError, match="has no column 'sure'"):
        read(tmp_path, "start,end,label\n1,2,owl\n", "csv", columns={"score": "sure"})
    with pytest.raises(ProgramError, match="has no column 'sure'"):
        read(tmp_path, RAVEN, "raven", columns={"score": "sure"})


def test_a_quality_of_the_program_is_no_score(tmp_path):
    text = "Begin Time (s)\tEnd Time (s)\tSpecies\tQuality\tScore\n1\t2\towl\tgood\t0.5\n"
    assert read(tmp_path, text, "raven") == [Found(1.0, 2.0, "owl", 0.5)]
    assert read(tmp_path, "start,end,label,quality,score\n1,2,owl,good,0.5\n", "csv") == [Found(1.0, 2.0, "owl", 0.5)]
    text = "Begin Time (s)\tEnd Time (s)\tSpecies\tQuality\n1\t2\towl\tgood\n"
    assert read(tmp_path, text, "raven") == [Found(1.0, 2.0, "owl", None)]
    assert read(tmp_path, "start,end,label,quality\n1,2,owl,good\n", "csv") == [Found(1.0, 2.0, "owl", None)]


def test_the_result_is_the_one_file_that_fits(tmp_path):
    with pytest.raises(ProgramError, match=r"wrote no \*.txt, although it ended without an error"):
        result_file(tmp_path, "*.txt")
    (tmp_path / "a.txt").write_text("")
    assert result_file(tmp_path, "*.txt") == tmp_path / "a.txt"
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(ProgramError, match="2 files"):
        result_file(tmp_path, "*.txt")


@pytest.mark.parametrize("name", ["a[1].csv", "a?.csv", "**", "a**", "*", "a*"])
def test_only_a_star_stands_for_what_varies(tmp_path, name):
    own = tmp_path / name.replace("*", "a1.csv")
    (tmp_path / ".said").write_text("what the program says is not its result")
    own.write_text("")
    assert result_file(tmp_path, name) == own
    if "*" not in name:
        own.rename(tmp_path / "a1.csv")
        with pytest.raises(ProgramError, match="wrote no"):
            result_file(tmp_path, name)


def test_a_folder_that_the_program_deleted_holds_no_result(tmp_path):
    with pytest.raises(ProgramError, match="wrote no found"):
        result_file(tmp_path / "gone", "found.csv")


def test_labels_with_separators_come_through(tmp_path):
    text = json.dumps([{"start": 0, "end": 1, "label": 'hoot, "loud"\n; ü', "score": 1}])
    assert read(tmp_path, text, "json") == [Found(0.0, 1.0, 'hoot, "loud" ; ü', 1.0)]
