import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from otus.annotations import AnnotationFile, Extent, read_annotations
from otus.annotations.sequences import sniff_sequences
from otus.config import AnnotationSource

RATE = 32000
NOTE = "<Note><Position>{}</Position><Length>{}</Length><Label>{}</Label></Note>"
SEQUENCE = (
    "<Sequence><WaveFileName>{}</WaveFileName><Position>{}</Position><Length>9</Length><NumNote>1</NumNote>"
    "{}</Sequence>"
)


def read(path: Path, format_: str, *, known: bool = True, label: str | None = None) -> AnnotationFile:
    source = AnnotationSource(files="*", format=format_, label=label)  # type: ignore[arg-type]
    return read_annotations(path, source, path.name, lambda reference: Extent(60.0, RATE) if known else None)


def facts(content: AnnotationFile) -> list[tuple[object, ...]]:
    return [(r.recording, r.start_s, r.end_s, r.label, r.source_row) for r in content.rows]


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def koumura(folder: Path) -> Path:
    body = SEQUENCE.format("0.wav", 32000, NOTE.format(3200, 1600, 0) + NOTE.format(6400, 0, 1))
    body += SEQUENCE.format("1.wav", 0, NOTE.format(0, 320, 2)) + SEQUENCE.format("0.wav", 64000, NOTE.format(1, 2, 0))
    return write(folder, "Annotation.xml", f"<?xml version='1.0'?>\n<Sequences>{body}</Sequences>")


def test_koumura_positions_count_from_the_sequence_in_samples(tmp_path: Path) -> None:
    content = read(koumura(tmp_path), "birdsong-recognition-dataset")
    assert facts(content) == [
        ("0.wav", 1.1, 1.15, "0", 1),
        ("1.wav", 0.0, 0.01, "2", 3),
        ("0.wav", 64001 / RATE, 64003 / RATE, "0", 4),
    ]
    assert [p.reason for p in content.problems] == ["has zero length (at 1.2 s)"] and content.n_rows == 4


def test_notes_of_recordings_that_are_not_there_are_unplaced(tmp_path: Path) -> None:
    content = read(koumura(tmp_path), "auto", known=False)
    assert content.format == "birdsong-recognition-dataset" and not content.rows
    assert content.unplaced == [("0.wav", 1), ("0.wav", 2), ("1.wav", 3), ("0.wav", 4)]


TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier"
        name = "peaks"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "top"
    item [2]:
        class = "IntervalTier"
        name = "calls"
        xmin = 0
        xmax = 2
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5005
            text = ""
        intervals [2]:
            xmin = 0.5005
            xmax = 1.123456789
            text = "barn  owl "
        intervals [3]:
            xmin = 1.123456789
            xmax = 2
            text = " "
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrid(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(TEXTGRID.encode(encoding))
    content = read(path, "auto")
    assert content.format == "textgrid"
    assert facts(content) == [(None, 0.5005, 1.123456789, "barn owl", 2)]
    assert [(p.row, p.reason) for p in content.problems] == [(1, "has zero length (at 0.5 s)"), (3, "has no label")]


def test_simple_seq_is_not_rounded_and_takes_the_label_of_the_source(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "onset_s,offset_s,label\n0.12345,1.5,a\n2.0,3.0,b\n")
    assert facts(read(path, "simple-seq")) == [(None, 0.12345, 1.5, "a", 2), (None, 2.0, 3.0, "b", 3)]
    bare = write(tmp_path, "b.csv", "onset_s,offset_s\n0.5,1.5\n")
    assert [r.label for r in read(bare, "simple-seq", label="owl").rows] == ["owl"]
    assert [p.reason for p in read(bare, "simple-seq").problems] == ["has no label"]


def test_generic_seq_in_seconds_or_samples_over_several_recordings(tmp_path: Path) -> None:
    header = "label,onset_s,offset_s,notated_path,annot_path,sequence,annotation\n"
    path = write(tmp_path, "a.csv", header + "a,0.25,0.5,x.wav,a.csv,0,0\nb,1.0,2.0,d/y.wav,a.csv,0,1\n")
    assert facts(read(path, "generic-seq")) == [("x.wav", 0.25, 0.5, "a", 2), ("d/y.wav", 1.0, 2.0, "b", 3)]
    samples = write(tmp_path, "b.csv", header.replace("_s,", "_sample,") + "a,3200,6400,x.wav,a.csv,0,0\n")
    assert facts(read(samples, "generic-seq")) == [("x.wav", 0.1, 0.2, "a", 2)]
    assert read(samples, "generic-seq", known=False).unplaced == [("x.wav", 2)]


def test_notmat_counts_in_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "a.cbin.not.mat"
    scipy.io.savemat(path, {"onsets": [250.0, 1000.0], "offsets": [500.5, 1250.0], "labels": "ab"})
    assert facts(read(path, "notmat")) == [(None, 0.25, 0.5005, "a", 1), (None, 1.0, 1.25, "b", 2)]


def test_timit_counts_in_samples(tmp_path: Path) -> None:
    path = write(tmp_path, "sa1.phn", "0 3200 h#\n3200 4800 sh\n")
    assert facts(read(path, "timit")) == [(None, 0.0, 0.1, "h#", 1), (None, 0.1, 0.15, "sh", 2)]


def test_yarden_names_each_recording(tmp_path: Path) -> None:
    def element(starts: list[float], ends: list[float], kinds: list[int]) -> dict[str, object]:
        return {"segFileStartTimes": starts, "segFileEndTimes": ends, "segType": kinds, "fs": 48000.0}

    elements = np.empty(2, dtype=object)
    elements[:] = [element([0.12345, 1.0], [0.5, 1.5], [1, 2]), element([2.0, 3.0], [2.5, 3.5], [1, 1])]
    scipy.io.savemat(tmp_path / "a.mat", {"keys": np.array(["x.wav", "y.wav"], dtype=object), "elements": elements})
    assert facts(read(tmp_path / "a.mat", "yarden")) == [
        ("x.wav", 0.12345, 0.5, "1", 1),
        ("x.wav", 1.0, 1.5, "2", 2),
        ("y.wav", 2.0, 2.5, "1", 3),
        ("y.wav", 3.0, 3.5, "1", 4),
    ]


@pytest.mark.parametrize(
    ("format_", "name", "text"),
    [
        ("birdsong-recognition-dataset", "a.xml", "<Sequences><Sequence></Sequence></Sequences>"),
        ("birdsong-recognition-dataset", "a.xml", "<Sequences>"),
        ("birdsong-recognition-dataset", "a.txt", "<Sequences/>"),
        ("generic-seq", "a.csv", "start,end\n1,2\n"),
        ("notmat", "a.not.mat", "no matlab"),
        ("simple-seq", "a.csv", ""),
        ("textgrid", "a.TextGrid", "File type\n"),
        ("timit", "a.phn", "0 1\n"),
        ("yarden", "a.mat", ""),
    ],
)
def test_a_file_that_crowsetta_refuses_is_one_problem(tmp_path: Path, format_: str, name: str, text: str) -> None:
    (problem,) = read(write(tmp_path, name, text), format_).problems
    assert problem.row is None and problem.reason.startswith(f"cannot be read as {format_} (")
    assert str(tmp_path) not in problem.reason and "\n" not in problem.reason and problem.remedy


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert [p.row for p in read(tmp_path / "a.xml", "birdsong-recognition-dataset").problems] == [None]


def test_other_xml_and_praat_files_are_not_taken_for_annotations() -> None:
    assert sniff_sequences("<?xml version='1.0'?><kml></kml>") is None
    assert sniff_sequences('File type = "ooTextFile"\nObject class = "PitchTier"\n') is None


@pytest.mark.real
def test_the_real_koumura_file_without_its_recordings() -> None:
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to read")
    path = Path(os.environ["OTUS_DATA"]) / "koumura" / "Annotation.xml"
    content = read(path, "auto", known=False)
    assert (content.n_rows, len(content.unplaced), content.problems) == (7652, 7652, [])
