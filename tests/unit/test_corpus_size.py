import csv
import math

import numpy as np
import pytest
import soundfile

from otus.config import CorpusSettings
from otus.resources.corpus_size import UNKNOWN, corpus_size

RECORDINGS = ["recording_id", "duration_s", "sample_rate", "labelled", "readable"]
ANNOTATIONS = ["recording_id", "start_s", "end_s", "label"]


def settings(root, **more):
    return CorpusSettings.model_validate({"root": str(root), "targets": ["hum"], **more})


def write_inventory(folder, recordings, annotations, *, columns=RECORDINGS):
    folder.mkdir()
    for name, head, rows in (("recordings", columns, recordings), ("annotations", ANNOTATIONS, annotations)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return folder


def test_an_inventory_is_counted(tmp_path):
    folder = write_inventory(
        tmp_path / "inventory",
        [
            ["a", "3600", "24000", "True", "True"],
            ["b", "1800", "48000", "False", "True"],
            ["broken", "", "", "False", "False"],
        ],
        [["a", str(i), f"{i + 0.1 * (i + 1):.3f}", "hum"] for i in range(10)] + [["a", "50", "59", "other"]],
    )
    size = corpus_size(folder, settings("/nowhere"))
    assert (size.recordings, size.hours, size.labelled_hours, size.longest_h) == (2, 1.5, 1.0, 1.0)
    assert (size.sample_rate, size.rows, size.calls, size.counted) == (48_000, 11, 10, True)
    assert size.short_call_s == pytest.approx(0.2)  # the 10 % quantile of 0.1, 0.2, ... 1.0


def test_an_inventory_without_calls_or_with_one(tmp_path):
    rows = [["a", "60", "24000", "True", "True"]]
    none = corpus_size(write_inventory(tmp_path / "none", rows, []), settings("/nowhere"))
    one = corpus_size(write_inventory(tmp_path / "one", rows, [["a", "1", "1.5", "hum"]]), settings("/nowhere"))
    assert (none.calls, none.short_call_s) == (0, None)
    assert (one.calls, one.short_call_s) == (1, 0.5)


@pytest.mark.parametrize("duration", ["nan", "inf", "-3", "", "long"])
def test_a_damaged_inventory_is_not_believed(tmp_path, duration):
    folder = write_inventory(tmp_path / "inventory", [["a", duration, "24000", "True", "True"]], [])
    assert corpus_size(folder, settings(tmp_path / "nowhere")) == UNKNOWN


def test_an_inventory_with_other_columns_or_a_short_row_is_not_believed(tmp_path):
    other = write_inventory(tmp_path / "other", [["a"]], [], columns=["name"])
    short = write_inventory(tmp_path / "short", [["a", "60"]], [])
    assert corpus_size(other, settings(tmp_path / "nowhere")) == UNKNOWN
    assert corpus_size(short, settings(tmp_path / "nowhere")) == UNKNOWN


def test_the_demo_is_guessed_from_its_settings(tmp_path):
    size = corpus_size(tmp_path, settings(tmp_path / "none", demo={"recordings": 30, "duration_s": 120}))
    assert (size.recordings, size.hours, size.longest_h, size.counted) == (30, 1.0, 120 / 3600, False)
    assert size.calls > 100


def test_wav_files_are_guessed_from_their_headers(tmp_path):
    for i, seconds in enumerate([1, 2, 3]):
        soundfile.write(tmp_path / f"r{i}.wav", np.zeros((seconds * 8000, 2)), 8000, subtype="PCM_24")
    (tmp_path / "labels.txt").write_text("0.5\t0.9\thum\n" * 100)
    size = corpus_size(tmp_path / "inventory", settings(tmp_path, annotations=[{"files": "*.txt"}]))
    assert size.hours == pytest.approx(6 / 3600, rel=0.01)
    assert size.longest_h == pytest.approx(3 / 3600, rel=0.01)
    assert (size.recordings, size.sample_rate, size.counted) == (3, 8000, False)
    assert size.labelled_hours == size.hours  # one table may be about all of them
    assert 10 <= size.calls <= 100


def test_tables_of_some_recordings_label_as_many(tmp_path):
    for i in range(10):
        (tmp_path / f"r{i}.mp3").write_bytes(b"x" * 16_000 * 36)
    for i in range(4):
        (tmp_path / f"r{i}.txt").write_text("0.5\t0.9\thum\n")
    some = corpus_size(tmp_path / "inventory", settings(tmp_path, annotations=[{"files": "*.txt"}]))
    everything = corpus_size(
        tmp_path / "inventory", settings(tmp_path, annotations=[{"files": "*.txt"}], unlabelled="negative")
    )
    assert some.hours == pytest.approx(0.1)
    assert some.labelled_hours == pytest.approx(0.04)
    assert everything.labelled_hours == pytest.approx(0.1)


@pytest.mark.parametrize("content", [b"", b"RIFF nonsense", b"RIFF\0\0\0\0WAVEfmt " + bytes(20), bytes(100)])
def test_files_that_are_no_wav_stop_nothing(tmp_path, content):
    (tmp_path / "x.wav").write_bytes(content)
    size = corpus_size(tmp_path / "inventory", settings(tmp_path))
    assert size.recordings == 1 and math.isfinite(size.hours)


def test_nothing_is_known_of_a_folder_that_is_missing_or_empty(tmp_path):
    assert corpus_size(tmp_path / "inventory", settings(tmp_path / "nowhere")) == UNKNOWN
    assert corpus_size(tmp_path / "inventory", settings(tmp_path)) == UNKNOWN
