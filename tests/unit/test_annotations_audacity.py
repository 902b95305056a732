from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from otus.annotations import AnnotationFile, read_annotations
from otus.annotations.audacity import read_audacity
from otus.config import AnnotationSource


def read(text: str, label: str | None = None) -> AnnotationFile:
    return read_audacity(text, AnnotationSource(files="*", format="audacity", label=label))


def test_labels_and_frequencies() -> None:
    content = read("0.5\t1.25\towl\n\\\t400.5\t900\n2\t3\tfrog call\n4\t5\towl\n\\\t-1.0\t800\n")
    assert [(r.start_s, r.end_s, r.low_hz, r.high_hz, r.label, r.source_row) for r in content.rows] == [
        (0.5, 1.25, 400.5, 900.0, "owl", 1),
        (2.0, 3.0, None, None, "frog call", 3),
        (4.0, 5.0, None, 800.0, "owl", 4),
    ]
    assert not content.problems


def test_point_labels_and_bad_lines_are_problems() -> None:
    content = read("1\t1\towl\n2\tx\towl\n3\t4\towl\n5\n")
    assert [r.start_s for r in content.rows] == [3.0]
    assert [(p.row, p.reason.split(" (")[0]) for p in content.problems] == [
        (1, "has zero length"),
        (2, "'x' is not a time in seconds"),
        (4, "a time is missing"),
    ]


def test_frequencies_without_a_label_are_a_problem() -> None:
    content = read("\\\t1\t2\n1\t2\towl\n\\\t3\t4\n\\\t5\t6\n")
    assert [(r.low_hz, r.source_row) for r in content.rows] == [(3.0, 2)]
    assert [p.row for p in content.problems] == [1, 4]
    assert content.n_rows == 3 and content.miscounted() is None


def test_an_empty_label_takes_the_sources() -> None:
    assert [r.label for r in read("1\t2\t\n3\t4\n", label="owl").rows] == ["owl", "owl"]
    assert [p.reason for p in read("1\t2\t\n").problems] == ["has no label"]


def test_an_empty_track_is_valid_when_the_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("")
    assert read_annotations(path, AnnotationSource(files="*", format="audacity")) == AnnotationFile("audacity")


def test_a_text_that_is_no_track_is_one_problem() -> None:
    assert [p.row for p in read("Notes on the season\n\nIt rained.\n").problems] == [None]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e5),
            st.floats(1e-3, 1e3),
            st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8),
        )
    )
)
def test_what_is_written_is_read(labels: list[tuple[float, float, str]]) -> None:
    text = "".join(f"{start:.6f}\t{start + length:.6f}\t{label}\n" for start, length, label in labels)
    content = read(text)
    assert not content.problems
    assert [(r.label, r.source_row) for r in content.rows] == [(x[2], i) for i, x in enumerate(labels, start=1)]
    assert all(abs(r.start_s - x[0]) < 1e-6 for r, x in zip(content.rows, labels, strict=True))
