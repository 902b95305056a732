import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.annotations import AnnotationRow, TableRow, audacity_labels, raven_table, read_annotations
from otus.annotations.audacity import read_audacity
from otus.annotations.raven import read_raven
from otus.annotations.text import one_line
from otus.config import AnnotationSource

RAVEN = AnnotationSource(files="*", format="raven")
AUDACITY = AnnotationSource(files="*", format="audacity")

#: Whatever a table can hold as text: no lone surrogates, and no null character, which makes a file no text.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
labels = texts.filter(lambda text: one_line(text) != "")
frequencies = st.none() | st.floats(0, allow_nan=False, allow_infinity=False)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[float, float]:
    times = st.floats(allow_nan=False, allow_infinity=False)
    one, other = draw(st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]))
    return min(one, other), max(one, other)


@st.composite
def table_rows(draw: st.DrawFn) -> TableRow:
    start_s, end_s = draw(intervals())
    quality = draw(st.none() | texts.filter(lambda text: one_line(text) != ""))
    return TableRow(start_s, end_s, draw(labels), draw(frequencies), draw(frequencies), quality)


def as_read(rows: list[TableRow], numbers: list[int], *, with_quality: bool) -> list[AnnotationRow]:
    return [
        AnnotationRow(
            row.start_s,
            row.end_s,
            row.low_hz,
            row.high_hz,
            one_line(row.label),
            one_line(row.quality) if with_quality and row.quality else None,
            row.recording,
            number,
        )
        for row, number in zip(rows, numbers, strict=True)
    ]


@settings(deadline=None)
@given(st.lists(table_rows(), max_size=6))
def test_a_raven_table_reads_back_as_it_was(rows: list[TableRow]) -> None:
    content = read_raven(raven_table(rows), RAVEN, "x")
    assert not content.problems and content.n_views == 0
    assert content.rows == as_read(rows, list(range(2, len(rows) + 2)), with_quality=True)


@settings(deadline=None)
@given(st.lists(table_rows(), max_size=6))
def test_an_audacity_track_reads_back_as_it_was(rows: list[TableRow]) -> None:
    text = audacity_labels(rows)
    content = read_audacity(text, AUDACITY)
    numbers = [i for i, line in enumerate(text.split("\n"), start=1) if line and not line.startswith("\\")]
    assert not content.problems and content.n_rows == len(rows)
    assert content.rows == as_read(rows, numbers, with_quality=False)


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(table_rows(), min_size=1, max_size=3))
def test_files_are_told_apart_and_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[TableRow]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    for name, text in (("raven", raven_table(rows)), ("audacity", audacity_labels(rows))):
        (folder / f"{name}.txt").write_bytes(text.encode())
        content = read_annotations(folder / f"{name}.txt", AnnotationSource(files="*"))
        assert content.format == name
        assert [(r.start_s, r.end_s, r.label) for r in content.rows] == [
            (r.start_s, r.end_s, one_line(r.label)) for r in rows
        ]


@given(st.integers(0, 10**10), st.integers(1, 10**7), st.sampled_from([8000, 11025, 22050, 44100, 48000, 250000]))
def test_times_are_exact_to_the_sample(start: int, length: int, rate: int) -> None:
    row = TableRow(start / rate, (start + length) / rate, "owl")
    for read in (read_raven(raven_table([row]), RAVEN, "x"), read_audacity(audacity_labels([row]), AUDACITY)):
        assert [(round(r.start_s * rate), round(r.end_s * rate)) for r in read.rows] == [(start, start + length)]


def test_the_columns_of_a_raven_table() -> None:
    plain = raven_table([TableRow(1e-05, 2.5, "owl")])
    assert plain == (
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tAnnotation\n1\tSpectrogram 1\t1\t0.00001\t2.5\towl\n"
    )
    full = [
        TableRow(0, 1, "tab\there", 100.25, 1e22, "Q2", "a.wav", {"Sound type": "target"}),
        TableRow(1, 2, '"owl"', None, 900.0, None, None, {"Comments": "a\nb"}),
    ]
    lines = [line.split("\t") for line in raven_table(full).split("\n")]
    assert lines[0] == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Begin File", "Annotation", "Quality", "Sound type", "Comments",
    ]  # fmt: skip
    assert lines[1][3:] == ["0.0", "1.0", "100.25", "1" + "0" * 22, "a.wav", "tab here", "Q2", "target", ""]
    assert lines[2][3:] == ["1.0", "2.0", "", "900.0", "", '"""owl"""', "", "", "a b"]
    content = read_raven(raven_table(full), RAVEN, "x")
    assert [(r.label, r.recording, r.quality) for r in content.rows] == [
        ("tab here", "a.wav", "Q2"),
        ('"owl"', None, None),
    ]


def test_an_extra_column_does_not_hide_another() -> None:
    with pytest.raises(ValueError, match="has a column 'Annotation' already"):
        raven_table([TableRow(0, 1, "owl", extra={"Annotation": "frog"})])


def test_nothing_to_write() -> None:
    assert raven_table([]) == "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"
    assert audacity_labels([]) == ""
    content = read_raven(raven_table([]), RAVEN, "x")
    assert (content.rows, content.problems, content.n_rows) == ([], [], 0)


def test_an_audacity_line_for_frequencies_only_where_there_are_any() -> None:
    rows = [TableRow(0, 1, "owl"), TableRow(1, 2, "owl", None, 900.5), TableRow(2, 3, "owl", 0.0, None)]
    assert audacity_labels(rows) == "0.0\t1.0\towl\n1.0\t2.0\towl\n\\\t-1.0\t900.5\n2.0\t3.0\towl\n\\\t0.0\t-1.0\n"
