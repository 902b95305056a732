import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otus.inventory.labels
from otus.annotations import AnnotationFile, idle_entries, index_recordings, mapped_label, read_annotations
from otus.config import AnnotationSource, CorpusSettings, parse_config
from otus.errors import DataError, StageError
from otus.fingerprint import FoundFile, select_files, walk
from otus.inventory import take_inventory
from otus.inventory.labels import AnnotationFileAccount, Labels, attach_labels

HEADER = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"


class Corpus:
    """Tables in a folder, and recordings of which only length and sample rate are known."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.durations_s: dict[str, float | None] = {}
        self.said: list[str] = []

    def text(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def raven(self, path: str, *rows: tuple[float, float, str]) -> None:
        lines = (f"{i}\tSpectrogram 1\t{a}\t{b}\t{label}\n" for i, (a, b, label) in enumerate(rows, start=1))
        self.text(path, HEADER + "".join(lines))

    def attach(self, *sources: AnnotationSource, label_map: dict[str, str | None] | None = None) -> Labels:
        used = list(sources) or [AnnotationSource(files="**/*.txt")]
        settings = CorpusSettings(root=str(self.root), annotations=used)
        found = [FoundFile(path, 0, 0) for path in self.durations_s]
        files = select_files(sorted([*walk(self.root), *found], key=lambda file: file.path), settings)
        return attach_labels(
            self.root,
            zip(used, files.annotations, strict=True),
            index_recordings(self.durations_s),
            self.durations_s,
            self.said.append,
            sample_rates=dict.fromkeys(self.durations_s, 8000),
            label_map=label_map or {},
        )


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.durations_s |= {"x.wav": 10.0, "y.wav": 10.0, "broken.wav": None}
    return made


def found(labels: Labels) -> list[tuple[str, float, str]]:
    return [(attached.recording, attached.row.start_s, attached.row.label) for attached in labels.rows]


def left_out(labels: Labels, kind: str) -> list[tuple[str, int | None, int]]:
    return sorted((q.path, q.row, q.n_rows) for q in labels.quarantine if q.kind == kind)


MAP: dict[str, str | None] = {"owl?": "Owl", "owl1": "barn owl", "owl*": None, "[fF]rog": "unknown", "a  b": "c"}


@pytest.mark.parametrize(
    ("label", "target"),
    [
        ("owl1", "barn owl"),
        ("owl2", "Owl"),
        ("owl22", None),
        ("OWL2", "OWL2"),
        ("frog", "unknown"),
        ("Frog", "unknown"),
        ("a b", "c"),
        ("other", "other"),
    ],
)
def test_the_label_itself_then_the_first_glob_that_fits(label: str, target: str | None) -> None:
    assert mapped_label(label, MAP) == target


def test_a_label_with_brackets_may_be_an_entry() -> None:
    assert mapped_label("call [1]", {"call [1]": "one", "*": "other"}) == "one"
    assert mapped_label("call 1", {"call [1]": "one", "*": "other"}) == "one"


def test_entries_that_fit_nothing() -> None:
    assert idle_entries(MAP, {"owl1"}) == ["[fF]rog", "a  b"]
    assert idle_entries(MAP, set()) == list(MAP)
    assert idle_entries({}, {"owl1"}) == []


def test_labels_are_merged_before_rows_are_compared(corpus: Corpus) -> None:
    corpus.raven("x.txt", (1, 2, "owl"), (1, 2, "Owl "), (3, 4, "frog"), (5, 6, "toad"))
    labels = corpus.attach(label_map={"Owl": "owl", "toad": "unknown", "newt*": None})
    assert found(labels) == [("x.wav", 1.0, "owl"), ("x.wav", 3.0, "frog"), ("x.wav", 5.0, "unknown")]
    assert left_out(labels, "row") == [("x.txt", 3, 1)]
    assert corpus.said == ["corpus.labels: 'newt*' fits none of the labels that were read"]
    assert labels.files == [AnnotationFileAccount("x.txt", "raven", 4, 3, 0, 1)]


def test_dropped_rows_are_told_by_file_and_label_and_leave_the_recording_labelled(corpus: Corpus) -> None:
    corpus.raven("x.txt", (1, 2, "rain"), (3, 4, "rain"), (5, 6, "wind"), (90, 91, "rain"))
    corpus.raven("y.txt", (1, 2, "owl"), (2, 3, "rain"))
    labels = corpus.attach(label_map={"rain": None, "w*": None})
    assert found(labels) == [("y.wav", 1.0, "owl")]
    assert left_out(labels, "dropped") == [("x.txt", None, 1), ("x.txt", None, 3), ("y.txt", None, 1)]
    assert labels.labelled == {"x.wav", "y.wav"} and not labels.unusable
    reasons = sorted(q.reason for q in labels.quarantine if q.path == "x.txt")
    assert reasons == [
        "its rows with the label 'rain' are dropped by corpus.labels (3 rows)",
        "its rows with the label 'wind' are dropped by corpus.labels (1 row)",
    ]


def test_every_row_of_every_file_is_accounted_for(corpus: Corpus) -> None:
    views = "1\tWaveform 1\t1\t2\towl\n1\tSpectrogram 1\t1\t2\towl\n2\tSpectrogram 1\t3\t3\towl\n"
    corpus.text("x.txt", HEADER + views + "3\tSpectrogram 1\t50\t51\towl\n4\tSpectrogram 1\t5\t6\train\n")
    corpus.raven("x_labels.txt", (1, 2, "owl"), (7, 8, "owl"))
    corpus.raven("broken.txt", (1, 2, "owl"), (2, 3, "owl"))
    corpus.raven("lost.txt", (1, 2, "owl"))
    corpus.raven("y.txt")
    corpus.text("notes.txt", "no table\n")
    corpus.text("z.csv", "recording,start,end\nx,1,2\ny,1,2\n")
    corpus.text("all.csv", "recording,start,end,label\nx,9,10,owl\ngone,1,2,owl\ngone,3,4,owl\ny,8,7,owl\n")
    sources = [AnnotationSource(files="*.txt"), AnnotationSource(files="*.csv")]
    labels = corpus.attach(*sources, label_map={"rain": None})
    assert labels.files == [
        AnnotationFileAccount("all.csv", "csv", 4, 1, 0, 3),
        AnnotationFileAccount("broken.txt", "raven", 2, 0, 0, 2),
        AnnotationFileAccount("lost.txt", "raven", 1, 0, 0, 1),
        AnnotationFileAccount("notes.txt", "unknown", 0, 0, 0, 0),
        AnnotationFileAccount("x.txt", "raven", 5, 1, 1, 3),
        AnnotationFileAccount("x_labels.txt", "raven", 2, 1, 0, 1),
        AnnotationFileAccount("y.txt", "raven", 0, 0, 0, 0),
        AnnotationFileAccount("z.csv", "csv", 2, 0, 0, 2),
    ]
    assert left_out(labels, "table") == [
        ("all.csv", 3, 2), ("broken.txt", None, 2), ("lost.txt", None, 1), ("notes.txt", None, 0), ("z.csv", None, 2),
    ]  # fmt: skip
    assert labels.labelled == {"x.wav", "y.wav"}


cells = st.sampled_from(["0.5", "1,5", "2", "9.95", "10.05", "70", "-1", "", "x", "nan"])
named_rows = st.tuples(
    st.sampled_from(["x", "y.wav", "broken", "gone", ""]), cells, cells, st.sampled_from(["owl", "rain", ""])
)


@settings(deadline=None, max_examples=60)
@given(st.lists(named_rows, max_size=12), st.booleans())
def test_rows_in_are_rows_out(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], drops: bool
) -> None:
    made = Corpus(tmp_path_factory.mktemp("corpus"))
    made.durations_s |= {"x.wav": 10.0, "y.wav": 10.0, "broken.wav": None}
    rows = [row for row in rows if any(row)]  # a line of nothing but separators is no row
    lines = [";".join(row) for row in rows]
    made.text("x.csv", "\n".join(["recording;start;end;label", *lines]))
    labels = made.attach(AnnotationSource(files="*.csv"), label_map={"rain": None} if drops else {})
    (account,) = labels.files
    assert account.n_rows == len(rows) == len(labels.rows) + sum(q.n_rows for q in labels.quarantine)


def test_a_reader_that_loses_rows_is_found_out(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.raven("x.txt", (1, 2, "owl"), (3, 4, "owl"))

    def forgetful(*args: Any) -> AnnotationFile:
        content = read_annotations(*args)
        content.rows.pop()
        return content

    monkeypatch.setattr(otus.inventory.labels, "read_annotations", forgetful)
    with pytest.raises(StageError, match=r"x.txt: of its 2 rows 1 became annotations.*does not add up"):
        corpus.attach()


def test_a_miscount_within_one_file_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text(HEADER + "1\tSpectrogram 1\t1\t2\towl\n")
    monkeypatch.setattr(AnnotationFile, "add", lambda *args, **kwargs: None)
    with pytest.raises(StageError, match=r"x.txt: rows were lost .*1 rows, but 0 usable"):
        read_annotations(tmp_path / "x.txt", AnnotationSource(files="*"), "x.txt")


def test_sample_positions_are_divided_by_the_rate_of_the_recording(corpus: Corpus) -> None:
    note = "<Note><Position>{}</Position><Length>800</Length><Label>a</Label></Note>"
    sequence = "<Sequence><WaveFileName>{}.wav</WaveFileName><Position>8000</Position><Length>1</Length>{}</Sequence>"
    body = sequence.format("x", note.format(400)) + sequence.format("gone", note.format(0) * 3)
    corpus.text("Annotation.xml", f"<Sequences>{body}{sequence.format('broken', note.format(0))}</Sequences>")
    labels = corpus.attach(AnnotationSource(files="*.xml"))
    assert [(a.recording, a.row.start_s, a.row.end_s) for a in labels.rows] == [("x.wav", 1.05, 1.15)]
    assert left_out(labels, "table") == [("Annotation.xml", 2, 3), ("Annotation.xml", 5, 1)]
    assert {q.reason for q in labels.quarantine} == {
        "names the recording 'gone.wav', which is not in the corpus (3 rows)",
        "belongs to broken.wav, which cannot be read",
    }


def test_names_of_audio_files_are_annotations(corpus: Corpus) -> None:
    corpus.durations_s |= {"owl/x.wav": 3.0, "frog/x.wav": 4.0, "misc/1.wav": 1.0}
    source = AnnotationSource(files="*/*.wav", format="names", pattern=r"(?P<label>owl|frog)/")
    labels = corpus.attach(source)
    assert [(a.recording, a.row.end_s, a.row.label) for a in labels.rows] == [
        ("frog/x.wav", 4.0, "frog"),
        ("owl/x.wav", 3.0, "owl"),
    ]
    assert left_out(labels, "table") == [("misc/1.wav", None, 1)] and labels.unusable == {"misc/1.wav"}
    assert len(labels.files) == 3


def test_hums_that_are_no_recordings_label_their_clip(corpus: Corpus) -> None:
    clip = "labelled/387_20201207_cut.wav_110_125.wav"
    corpus.durations_s[clip] = 900.0
    for hum in ("450.5_451Q3", "450.5002_451Q2", "700_701Q1", "900.5_901Q1"):
        corpus.text(f"segmented/387_20201207_cut.wav_110_125.wav_{hum}.wav", "")
    corpus.text("segmented/388_20201207_cut.wav_0_15.wav_1_2Q1.wav", "")
    labels = corpus.attach(AnnotationSource(files="segmented/*.wav", format="alpaca_hums"))
    assert found(labels) == [(clip, 450.5, "hum"), (clip, 700.0, "hum")]
    kinds = Counter(q.kind for q in labels.quarantine)
    assert kinds == {"row": 2, "table": 1} and sum(q.n_rows for q in labels.quarantine) == 3


def test_animal_spot_clips_and_noise(corpus: Corpus) -> None:
    call, noise = "target-Q3_1_2010_A_0_1000.wav", "noise-_2_2010_A_0_1000.wav"
    corpus.durations_s |= {call: 1.0, noise: 1.0}
    labels = corpus.attach(AnnotationSource(files="*-*.wav", format="animal_spot"))
    assert found(labels) == [(call, 0.0, "target")] and labels.labelled == {call, noise}
    assert not labels.quarantine and [file.n_rows for file in labels.files] == [0, 1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "names"}, "`pattern` and `format: names` go together"),
        ({"pattern": "a"}, "`pattern` and `format: names` go together"),
        ({"format": "names", "pattern": "("}, "is no valid regular expression"),
        ({"format": "names", "pattern": "(?P<species>a)"}, "has a group named 'species'; it takes label"),
        ({"format": "names", "pattern": "(?P<label>a)(?P<end>b)"}, "has only one of"),
        ({"format": "names", "pattern": "a"}, r"has no \(\?P<label>...\); add it, or set `label`"),
        ({"format": "raven", "columns": {"start": "a"}}, "`columns` is for tables such as CSV"),
        ({"format": "timit", "label_column": "a"}, "`label_column` is for tables"),
        ({"columns": {"end": "a", "duration": "b"}}, "maps both end and duration"),
    ],
)
def test_sources_that_contradict_themselves(source: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^config: 'corpus\.annotations\.0.*{message}"):
        parse_config({"corpus": {"root": "x", "annotations": [{"files": "*", **source}]}})


def test_a_label_cannot_become_nothing() -> None:
    with pytest.raises(DataError, match="'rain' leads to an empty label; write null to drop its rows"):
        parse_config({"corpus": {"root": "x", "labels": {"owl": "Owl", "rain": " "}}})


def inventory_of(folder: str, *sources: dict[str, Any], targets: list[str]) -> Any:
    if not os.environ.get("OTUS_DATA"):
        pytest.skip("OTUS_DATA is not set: no annotated recordings to read")
    root = Path(os.environ["OTUS_DATA"]) / folder
    values = {"root": str(root), "annotations": list(sources), "targets": targets, "audio_check": "ends"}
    return take_inventory(root, CorpusSettings.model_validate(values), workers=2, progress=lambda line: None)


@pytest.mark.real
def test_koumura() -> None:
    taken = inventory_of("koumura", {"files": "Annotation.xml"}, targets=["0"])
    assert taken.recordings["labelled"].all() and len(taken.recordings) == 40
    assert taken.annotations["label"].nunique() == 9 and len(taken.annotations) == 1988
    assert (taken.annotations["end_s"] - taken.annotations["start_s"]).between(0.02, 0.2).all()
    assert len(taken.quarantine) == 95 and taken.quarantine["n_rows"].sum() == 7652 - 1988


@pytest.mark.real
def test_usv() -> None:
    taken = inventory_of("usv", {"files": "*/gt_*.csv", "label": "usv"}, targets=["usv"])
    assert len(taken.recordings) == 7 and taken.recordings["labelled"].all()
    assert len(taken.annotations) == 195
    assert list(taken.quarantine["path"]) == ["5/gt_5.csv", "9/gt_9.csv"] and taken.quarantine["n_rows"].sum() == 50


@pytest.mark.real
def test_esc10() -> None:
    source = {"files": "**/*.ogg", "format": "names", "pattern": r"\d+ - (?P<label>[^/]+)/"}
    taken = inventory_of("esc10", source, targets=["Dog bark"])
    assert Counter(taken.annotations["label"]).most_common(1)[0][1] == 40
    assert len(taken.annotations) == len(taken.recordings) == 400 and taken.quarantine.empty
