import json
import re

import pandas as pd
import pytest
from clipfiles_tables import call, clip, clips_of, named_of, recordings_of
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.annotations import read_annotations
from otus.clipfiles.lists import file_list, index_entries, sides_by_fold, variant_index
from otus.clipfiles.names import distinct, named_clips, numbered_clips, quality_text
from otus.clipfiles.selection_tables import selection_tables
from otus.config import AnnotationSource
from otus.errors import DataError
from otus.tables import table

NAME = re.compile(r"([A-Za-z0-9]+)-([A-Za-z0-9-]+)_(\d{6,})_(\d{4})_([A-Za-z0-9-]+)_(\d{7,})_(\d{7,})")


A = recordings_of({"recording_id": "a"})


def test_names_follow_the_convention_of_animal_spot():
    recordings = recordings_of(
        {"recording_id": "a", "group": "Tape_1.b", "start_time": "2021-02-16T18:44:00"}, {"recording_id": "b"}
    )
    clips = clips_of(
        call("a", 5934, 6497, quality="Q3"),
        call("a", 7000, 7100),
        clip("a", 8000, 9000),
        clip("b", 10, 20, label="dog bark", origin="annotation", quality="2"),
        clip("b", 30, 40, origin="mined_raw"),
    )
    named, _ = named_of(recordings, clips)
    assert list(named["name"]) == [
        "target-Q3_000001_2021_Tape-1-b_0005934_0006497",
        "target-hum_000002_2021_Tape-1-b_0007000_0007100",
        "noise-bg_000003_2021_Tape-1-b_0008000_0009000",
        "noise-dog-bark_000004_0000_b_0000010_0000020",
        "noise-bg_000005_0000_b_0000030_0000040",
    ]
    assert list(named["folder"]) == ["hum", "hum", "noise", "dog_bark", "noise"]


def test_with_several_targets_the_class_is_the_label_and_never_noise_or_target():
    clips = clips_of(call(label="low hum"), call(start=1, label="noise"), call(start=2, label="Target"), clip(start=3))
    named, _ = named_of(A, clips, targets=["low hum", "noise", "Target"])
    classes = [name.split("-")[0] for name in named["name"]]
    assert classes[0] == "lowhum" and classes[3] == "noise"
    assert re.fullmatch("noise[0-9a-f]{8}", classes[1]) and re.fullmatch("Target[0-9a-f]{8}", classes[2])
    assert named["folder"].iloc[1] != "noise" == named["folder"].iloc[3]


def test_milliseconds_are_rounded_at_any_rate():
    recordings = recordings_of({"recording_id": "a", "sample_rate": 44_100})
    named, _ = named_of(recordings, clips_of(clip(start=44_078, end=44_100 * 20_000)))
    assert named["name"].iloc[0].endswith("_0001000_20000000")  # 0.9995 s; longer numbers are not cut


def test_every_clip_has_one_number_whatever_the_folds_and_the_order_of_rows():
    rows = [call(start=s, end=s + 100, fold=f, split=p) for s in (900, 100) for f, p in ((1, "train"), (2, "test"))]
    rows += [clip(start=100, end=200, fold=1), {**call(start=500, end=600), "class": "unknown"}]
    clips = clips_of(*rows).assign(clip_id=["x", "x", "y", "y", "z", "u"])
    once, sides = numbered_clips(A, clips)
    again, other = numbered_clips(A, clips.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(once, again)
    pd.testing.assert_frame_equal(sides, other)
    assert list(zip(once["uid"], once["start_sample"], once["class"], strict=True)) == [
        (1, 100, "noise"), (2, 100, "target"), (3, 500, "unknown"), (4, 900, "target"),
    ]  # fmt: skip
    assert sides_by_fold(sides)[4] == {1: "train", 2: "test"}
    named = named_clips(once, groups=["a"], targets=["hum"])
    assert list(named["uid"]) == [1, 2, 4]


def test_clips_that_differ_in_nothing_but_their_id_are_two():
    once, _ = numbered_clips(A, clips_of(call(), call()))
    assert list(once["uid"]) == [1, 2]


def test_a_clip_of_an_unknown_recording_is_one_sentence():
    unreadable = recordings_of({"recording_id": "a", "sample_rate": None})
    for recordings in (unreadable, recordings_of({"recording_id": "b"})):
        with pytest.raises(DataError, match=r"^clips: clip a_c00000 names the recording a, [^.]*\.$"):
            numbered_clips(recordings, clips_of(clip()))


def test_no_clips_at_all():
    named, sides = named_of(A, clips_of())
    assert len(named) == len(sides) == 0 and {"name", "info", "folder"} <= set(named.columns)
    assert selection_tables(named, sides, table("annotations", [])) == {}


@pytest.mark.parametrize(
    ("written", "expected"),
    [("2", "2"), ("Q2", "2"), ("q 2", "2"), ("2.0", "2"), ("2,00", "2"), ("2.5", "2.5"), (" good ", "good"),
     ("Quiet", "Quiet"), ("", None), (None, None), (float("nan"), None), (pd.NA, None)],
)  # fmt: skip
def test_qualities(written, expected):
    assert quality_text(written) == expected


def test_distinct_names_stay_as_they_are_where_they_can():
    found = distinct(["a_b", "c"], replacement="-", longest=20)
    assert found == {"a_b": "a-b", "c": "c"}
    crowd = distinct(["a_b", "a-b", "A.B", "", "é", "x" * 50], replacement="-", longest=20)
    assert len({name.lower() for name in crowd.values()}) == 6
    assert all(re.fullmatch("[A-Za-z0-9-]{8,20}", name) for name in crowd.values())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(texts, texts, texts, st.integers(0, 10**9), st.integers(1, 10**8)), min_size=1, max_size=5),
    st.integers(1, 400_000),
    st.booleans(),
)
def test_whatever_the_labels_and_groups_names_have_six_parts_and_fit_on_a_disk(rows, rate, several):
    recordings = recordings_of(
        *({"recording_id": f"r{i}", "group": group, "sample_rate": rate} for i, (group, *_) in enumerate(rows))
    )
    clips = clips_of(
        *(call(f"r{i}", start, start + n, label=label, quality=q) for i, (_, label, q, start, n) in enumerate(rows)),
        *(clip(f"r{i}", start, start + n) for i, (*_, start, n) in enumerate(rows)),
    )
    targets = [*dict.fromkeys(label for _, label, *_ in rows), *(["another"] if several else [])]
    named, _ = named_of(recordings, clips, targets=targets)
    assert named["name"].is_unique and len(named) == 2 * len(rows)
    for name, kind in zip(named["name"], named["class"], strict=True):
        match = NAME.fullmatch(name)
        assert match and len(f"{name}.wav".split("_")) == 6 and len(f"{name}.wav".encode()) <= 255
        assert (match[1] == "noise") == (kind == "noise")
        assert len(targets) > 1 or match[1] in ("noise", "target")
    assert named["folder"].str.fullmatch("[A-Za-z0-9_-]+").all()
    tapes = {name: NAME.fullmatch(name)[5].lower() for name in named["name"]}
    groups = dict(zip(named["name"], named["group"], strict=True))
    assert len(set(tapes.values())) == len(set(groups.values()))


def test_lists_end_their_lines_as_animal_spot_reads_them():
    assert file_list(["noise-bg_000001_0000_a_0000000_0000500.wav", "x.wav"]) == (
        "noise-bg_000001_0000_a_0000000_0000500.wav\r\nx.wav\r\n"
    )
    assert file_list([]) == ""


def test_the_index_has_the_schema_of_alpaca():
    clips = clips_of(
        call(start=1000, end=1500, quality="Q3"),
        clip(start=2000, end=2400, split="val"),
        clip(start=3000, end=3100, split="test", origin="mined_raw"),
        clip(start=4000, end=4001, split="test", origin="false_alarm"),
    )
    named, sides = named_of(A, clips)
    entries = index_entries(named, several_targets=False, pictures={1: "../spectrograms/hum/x.png"})
    pairs = list(zip(sides["uid"], sides["split"], strict=True))
    index = json.loads(
        variant_index(entries, pairs, strategy="grouped", leaky=False, created_at="2026-01-01T00:00:00Z")
    )
    assert index["meta"] == {
        "created_at": "2026-01-01T00:00:00Z", "split_strategy": "grouped", "leaky": False,
        "n_total": 4, "n_target": 1, "n_noise": 3, "split_counts": {"train": 1, "val": 1, "test": 2},
    }  # fmt: skip
    assert index["entries"][0] == {
        "uid": 1, "fn": "target-Q3_000001_0000_a_0001000_0001500.wav", "class": "target", "label": "Q3",
        "tape_key": "a.wav", "quality": 3, "source": "labelled", "start_ms": 1000, "end_ms": 1500, "start_s": 1.0,
        "end_s": 1.5, "split": "train", "spectrogram_path": "../spectrograms/hum/x.png",
    }  # fmt: skip
    assert index["entries"][1].keys() == index["entries"][0].keys() - {"spectrogram_path"}
    assert index["entries"][1]["quality"] is None and index["entries"][1]["label"] == "bg"
    assert [entry["source"] for entry in index["entries"]] == ["labelled", "clip", "raw", "clip"]


def test_with_several_targets_the_index_tells_them_apart():
    named, _ = named_of(A, clips_of(call(quality="2"), call(start=1, label="bark", quality="good")), ["hum", "bark"])
    entries = index_entries(named, several_targets=True, pictures={})
    assert [entry["label"] for entry in entries.values()] == ["hum", "bark"]
    assert [entry["quality"] for entry in entries.values()] == [2, "good"]


def back(text, tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(text, encoding="utf-8")
    found = read_annotations(path, AnnotationSource(files="*"))
    assert not found.problems
    return found.rows


def test_raven_tables_hold_every_clip_in_order_with_its_side(tmp_path):
    recordings = recordings_of({"recording_id": "a"}, {"recording_id": "b"})
    rows = [
        call("a", 900, 1400, quality="2"),
        clip("a", 100, 300),
        clip("a", 100, 300, clip_id="again"),
        clip("b", 5, 9),
    ]
    rows += [{**call("a", 2000, 2100), "class": "unknown"}, clip("a", 500, 700, label="bark", origin="annotation")]
    annotations = table(
        "annotations",
        [{"annotation_id": "x", "recording_id": "a", "start_s": 0.9004, "end_s": 1.3996, "label": "hum", "low_hz": 80.5,
          "high_hz": 900.0}],
    )  # fmt: skip
    named, sides = named_of(recordings, clips_of(*rows))
    texts = selection_tables(named, sides, annotations)
    assert sorted(texts) == ["a", "b"]
    header, *lines = (line.split("\t") for line in texts["a"].splitlines())
    assert header[-3:] == ["Sound_type", "Origin", "Split"]
    assert [line[-3:] for line in lines] == [
        ["noise", "mined", "train"], ["noise", "mined", "train"], ["noise", "annotation", "train"],
        ["target", "annotation", "train"],
    ]  # fmt: skip
    found = back(texts["a"], tmp_path)
    assert [(r.start_s, r.end_s, r.label, r.quality) for r in found] == [
        (0.1, 0.3, "noise", None), (0.1, 0.3, "noise", None), (0.5, 0.7, "bark", None), (0.9, 1.4, "hum", "2"),
    ]  # fmt: skip
    assert (found[3].low_hz, found[3].high_hz) == (80.5, 500.0)  # nothing above half the rate: Raven refuses it
    assert (found[0].low_hz, found[0].high_hz) == (None, None)


def test_with_several_folds_a_table_has_a_column_for_each(tmp_path):
    clips = clips_of(
        *(call(fold=f, split=s, clip_id="x") for f, s in ((1, "train"), (2, "val"), (3, "test"))), clip(start=1)
    )
    named, sides = named_of(A, clips)
    header, first, second = (
        line.split("\t") for line in selection_tables(named, sides, table("annotations", []))["a"].splitlines()
    )
    assert header[-3:] == ["Split fold 1", "Split fold 2", "Split fold 3"]
    assert first[-3:] == ["train", "val", "test"] and second[-3:] == ["train", "", ""]
    assert [row.start_s for row in back(selection_tables(named, sides, table("annotations", []))["a"], tmp_path)] == [
        0.0,
        0.001,
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 10**7)), min_size=1, max_size=8),
    st.sampled_from([8000, 22_050, 24_000, 44_100, 48_000, 250_000, 384_000]),
)
def test_raven_tables_are_exact_to_the_sample(tmp_path_factory, places, rate):
    recordings = recordings_of({"recording_id": "a", "sample_rate": rate})
    named, sides = named_of(recordings, clips_of(*(call("a", start, start + n) for start, n in places)))
    rows = back(selection_tables(named, sides, table("annotations", []))["a"], tmp_path_factory.mktemp("raven"))
    assert [(round(row.start_s * rate), round(row.end_s * rate)) for row in rows] == sorted(
        (s, s + n) for s, n in places
    )
