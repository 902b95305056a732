import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from scipy.special import expit
from tests.unit import exports_tables as made

from otus.annotations import index_recordings, mapped_label, recording_named
from otus.annotations.audacity import read_audacity
from otus.annotations.raven import read_raven
from otus.config import AnnotationSource
from otus.errors import DataError
from otus.exports import Hearing, read_hearing, write_files
from otus.exports.review import review_files, reviewed
from otus.measures import evidence as evidence_module

RAVEN = AnnotationSource(files="*", format="raven")
AUDACITY = AnnotationSource(files="*", format="audacity")
ROOT = Path("/tapes/my owls")
TESTED = ["a__tape.23", "b__tape.23", "quiet", "x_1"]


def evidence(name, tables=None):
    tables = tables or made.layer(name)
    own = (tables.selections, tables.matches, tables.counts)
    found = evidence_module.tested_layers(
        *own, made.annotations(), made.recordings(), made.splits(), labels=made.LABELS
    )
    return found[-1]


def files_of(name, tables=None):
    return review_files(evidence(name, tables), made.recordings(), made.annotations(), root=ROOT, hearing=made.HEARING)


def cells(text):
    header, *rows = [line.split("\t") for line in text.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_there_is_a_table_and_a_track_for_every_recording_tested_and_no_other():
    names = sorted(files_of("cnn"))
    expected = [f"raven/{name}.selections.txt" for name in TESTED] + [f"audacity/{name}.txt" for name in TESTED]
    assert names == sorted([*expected, "all_recordings.selections.txt"])


def test_the_columns_are_ravens_and_stand_in_a_table_without_rows_as_well():
    files = files_of("cnn")
    full = files["raven/a__tape.23.selections.txt"].splitlines()[0].split("\t")
    assert full[:9] == [
        *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
        *("Begin File", "Annotation"),
    ]
    quiet = files["raven/quiet.selections.txt"].splitlines()
    assert len(quiet) == 1 and quiet[0].split("\t")[5:] == full[8:]
    assert full[9:] == [
        *("Outcome", "Score", "Probability", "IoU", "Onset error (s)", "Verdict", "selection_id", "annotation_id"),
        *("File Offset (s)", "Begin Path"),
    ]
    assert files["audacity/quiet.txt"] == ""


def test_rows_say_what_was_found_missed_and_made_up():
    rows = cells(files_of("cnn")["raven/a__tape.23.selections.txt"])
    assert [(row["Outcome"], row["selection_id"], row["annotation_id"]) for row in rows] == [
        ("hit", "s1", "a1"),
        ("false_alarm", "s2", ""),
        ("miss", "", "a2"),
        ("false_alarm", "s3", ""),
        ("miss", "", "a3"),
    ]
    hit, false_alarm, miss = rows[:3]
    assert (hit["Score"], hit["Probability"], hit["IoU"], hit["Onset error (s)"]) == (
        "0.9526",
        "0.9000",
        "0.900",
        "0.100",
    )
    assert (false_alarm["Score"], false_alarm["Probability"], false_alarm["IoU"]) == ("0.7311", "", "")
    assert miss["Score"] == miss["Probability"] == miss["IoU"] == miss["Onset error (s)"] == ""
    assert all(row["Verdict"] == "" and row["View"] == "Spectrogram 1" and row["Channel"] == "1" for row in rows)
    assert [row["Selection"] for row in rows] == ["1", "2", "3", "4", "5"]


def test_behind_a_forest_the_score_is_the_forests():
    rows = cells(files_of("cnn+rf")["raven/a__tape.23.selections.txt"])
    assert [(row["Outcome"], row["selection_id"], row["Score"]) for row in rows] == [
        ("hit", "s1", "0.8000"),
        ("hit", "s4", "0.9000"),
        ("false_alarm", "s3", "0.7000"),
        ("miss", "", ""),
    ]


def test_where_a_fold_has_no_forest_the_others_keep_the_score_of_theirs():
    tables = made.layer("cnn+rf")
    own = tables.selections
    alone = own["rf_probability"].where(own["fold"] == 1, expit(own["peak_score"].astype(float)))
    mixed = replace(tables, selections=own.assign(rf_probability=alone))
    rows = cells(files_of("cnn+rf", tables=mixed)["all_recordings.selections.txt"])
    scores = {row["selection_id"]: (row["Score"], row["Probability"]) for row in rows if row["selection_id"]}
    assert scores["s4"] == ("0.9000", "0.1000")
    assert scores["s5"] == ("0.9820", "0.9500")


def test_frequencies_are_the_detectors_or_the_missed_calls_and_none_is_above_half_the_sample_rate():
    files = files_of("cnn")
    bands = {
        row["selection_id"] or row["annotation_id"]: (float(row["Low Freq (Hz)"]), float(row["High Freq (Hz)"]))
        for name in ("a__tape.23", "b__tape.23")
        for row in cells(files[f"raven/{name}.selections.txt"])
    }
    assert bands["s1"] == bands["s2"] == (100, 6000)
    assert bands["s5"] == (100, 4000), "half of 8 kHz"
    assert bands["a2"] == (100, 6000), "an annotation without frequencies"
    assert bands["a3"] == (0, 24_000), "an annotation above half of 48 kHz"


@pytest.mark.parametrize("name", ["cnn", "cnn+rf"])
def test_tables_read_back_with_their_recordings(name):
    files, rows = files_of(name), reviewed(evidence(name), made.recordings(), made.annotations(), made.HEARING)
    index = index_recordings(row[1] for row in made.RECORDINGS)
    paths = dict(zip(made.recordings()["recording_id"], made.recordings()["path"], strict=True))
    for recording_id in TESTED:
        content = read_raven(files[f"raven/{recording_id}.selections.txt"], RAVEN, "x")
        own = rows[rows["recording_id"] == recording_id]
        assert not content.problems and content.n_rows == len(own)
        for read, row in zip(content.rows, own.to_dict("records"), strict=True):
            assert (read.start_s, read.end_s) == pytest.approx((row["start_s"], row["end_s"]), abs=1e-6)
            assert (read.label, read.low_hz, read.high_hz) == (row["label"], row["low_hz"], row["high_hz"])
            assert recording_named(index, read.recording, "review/x.txt").recording == paths[recording_id]


@pytest.mark.parametrize("name", ["cnn", "cnn+rf"])
def test_the_sheet_holds_all_rows_the_surest_first_and_misses_last(name):
    files = files_of(name)
    sheet = cells(files["all_recordings.selections.txt"])
    singles = [row for one in TESTED for row in cells(files[f"raven/{one}.selections.txt"])]
    ids = [row["selection_id"] or row["annotation_id"] for row in sheet]
    assert sorted(ids) == sorted(row["selection_id"] or row["annotation_id"] for row in singles)
    scores = [float(row["Score"]) if row["Score"] else -1.0 for row in sheet]
    assert scores == sorted(scores, reverse=True) and scores[-1] == -1.0
    assert [row["Selection"] for row in sheet] == [str(number) for number in range(1, len(sheet) + 1)]


def test_times_of_the_sheet_run_on_and_offsets_count_within_the_file():
    files = files_of("cnn")
    rows = {row["selection_id"]: row for row in cells(files["all_recordings.selections.txt"])}
    assert (rows["s1"]["Begin Time (s)"], rows["s1"]["File Offset (s)"]) == ("1.1", "1.1")
    assert (rows["s5"]["Begin Time (s)"], rows["s5"]["End Time (s)"]) == ("62.25", "62.9"), "behind 60 s of the first"
    assert rows["s5"]["File Offset (s)"] == "2.25" and rows["s5"]["Begin Path"] == "/tapes/my owls/b/tape.23.wav"
    assert rows["s6"]["Begin Time (s)"] == "90.0", "the recording without a row is not among the files"
    content = read_raven(files["all_recordings.selections.txt"], RAVEN, "x")
    read = {(round(row.start_s, 4), row.label, row.recording) for row in content.rows}
    assert not content.problems and (2.25, "hum", "/tapes/my owls/b/tape.23.wav") in read


def test_a_verdict_becomes_an_annotation_and_what_has_none_is_dropped():
    text = files_of("cnn")["raven/a__tape.23.selections.txt"]
    header, *lines = [line.split("\t") for line in text.splitlines()]
    verdicts = {"s2": "yes", "s3": "no"}
    for line in lines:
        line[header.index("Verdict")] = verdicts.get(line[header.index("selection_id")], "")
    reviewed_text = "\n".join("\t".join(line) for line in [header, *lines]) + "\n"
    source = AnnotationSource(files="*", format="raven", label_column="Verdict", label="unchecked")
    content = read_raven(reviewed_text, source, "x")
    labels = {"yes": "hum", "no": "other", "unchecked": None}
    found = [(row.start_s, row.end_s, mapped_label(row.label, labels)) for row in content.rows]
    assert not content.problems
    assert [row for row in found if row[2]] == [(4.0, 4.5, "hum"), (8.0, 8.4, "other")]
    nothing = read_raven(files_of("cnn")["raven/quiet.selections.txt"], source, "x")
    assert not nothing.problems and not nothing.rows


def test_tracks_read_back_and_tell_outcome_label_and_score():
    content = read_audacity(files_of("cnn")["audacity/a__tape.23.txt"], AUDACITY)
    assert not content.problems
    assert [(row.start_s, row.end_s, row.label) for row in content.rows] == [
        (1.1, 2.0, "hit hum 0.95"),
        (4.0, 4.5, "false_alarm hum 0.73"),
        (5.0, 6.0, "miss hum"),
        (8.0, 8.4, "false_alarm hum 0.88"),
        (8.0, 8.5, "miss howl"),
    ]


def test_numbers_have_no_exponent_and_no_noise_of_floating_point():
    files = files_of("cnn")
    assert "e-" not in files["raven/x_1.selections.txt"].split("\n")[1].split("Spectrogram")[1].split("x_1")[0]
    assert "0.000012" in files["audacity/x_1.txt"]
    assert "2.9\t" in files["audacity/b__tape.23.txt"]


def test_a_layer_that_found_nothing_has_its_misses():
    layer = evidence("cnn")
    matches = layer.matches[layer.matches["outcome"] == "miss"]
    nothing = type(layer)(**{**vars(layer), "selections": layer.selections.iloc[:0], "matches": matches})
    files = review_files(nothing, made.recordings(), made.annotations(), root=ROOT, hearing=made.HEARING)
    sheet = cells(files["all_recordings.selections.txt"])
    assert [row["annotation_id"] for row in sheet] == ["a2", "a3"] and all(row["Score"] == "" for row in sheet)
    empty = type(layer)(**{**vars(nothing), "matches": matches.iloc[:0]})
    files = review_files(empty, made.recordings(), made.annotations(), root=ROOT, hearing=made.HEARING)
    assert all(text.count("\n") <= 1 for text in files.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_the_tables_does_not_matter(seed):
    layer = evidence("cnn")
    mixed = {name: getattr(layer, name).sample(frac=1, random_state=seed) for name in ("selections", "matches")}
    files = review_files(
        type(layer)(**{**vars(layer), **mixed}),
        made.recordings().iloc[::-1],
        made.annotations().iloc[::-1],
        root=ROOT,
        hearing=made.HEARING,
    )
    assert files == files_of("cnn")


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "a//b", "a\\b", "raven/..", "", "a\0b"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(DataError, match="rename its recording"):
        write_files(tmp_path / "exports" / "m", {"fine.txt": "x", name: "y"})
    assert not (tmp_path / "exports").exists()


def test_a_folder_appears_as_a_whole_and_nothing_is_overwritten(tmp_path):
    folder = tmp_path / "exports" / "m"
    write_files(folder, {"a/b.txt": "ü\n", "c.txt": ""})
    assert (folder / "a" / "b.txt").read_bytes() == "ü\n".encode() and (folder / "c.txt").exists()
    with pytest.raises(DataError, match="holds something already"):
        write_files(folder, {"d.txt": ""})
    assert sorted(path.name for path in folder.parent.iterdir()) == ["m"]
    empty = tmp_path / "empty"
    empty.mkdir()
    write_files(empty, {})
    assert empty.is_dir() and not any(empty.iterdir())


def test_what_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        write_files(tmp_path / "m", {"a": "1", "a/b": "2"})
    assert not any(tmp_path.iterdir())


def test_scores_are_probabilities_whatever_the_peak():
    layer = evidence("cnn")
    extreme = layer.selections.assign(peak_score=[800.0, -800.0, 0.0, 1.0, math.nan, 2.0])
    rows = reviewed(
        type(layer)(**{**vars(layer), "selections": extreme}), made.recordings(), made.annotations(), made.HEARING
    )
    scores = pd.Series(rows.set_index("selection_id")["score"])
    assert scores["s1"] == 1.0 and scores["s2"] == 0.0 and scores["s3"] == 0.5


def test_a_model_card_tells_how_its_network_listens(tmp_path):
    frontend = {"sample_rate": 24_000, "hop_samples": 480, "low_hz": 181.0, "high_hz": 1914, "n_fft": 1024}
    (tmp_path / "card.json").write_text(json.dumps({"frontend": frontend, "window_frames": 20, "fold": 1}))
    hearing = read_hearing(tmp_path / "card.json")
    assert (hearing.low_hz, hearing.high_hz) == (181, 1914)
    assert (hearing.window_s, hearing.hop_s) == (pytest.approx(0.4), 0.02)
    assert hearing.spectrum_s == 1024 / 24_000


def test_a_band_without_an_end_goes_up_to_half_the_sample_rate():
    unknown = Hearing(0.0, math.inf, 0.0, 0.0, 0.02)
    assert unknown.high_below(8000) == 4000
    rows = reviewed(evidence("cnn"), made.recordings(), made.annotations(), unknown)
    assert rows.set_index("selection_id").loc["s1", ["low_hz", "high_hz"]].tolist() == [0, 24_000]
