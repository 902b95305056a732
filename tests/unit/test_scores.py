"""The score store."""

import resource

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from otus.errors import DataError, MissingPartError
from otus.scores import ScoreRows, ScoreWriter, read_scores
from otus.tables import table, write_table

HOP_S = 0.01


def logits(n, classes=1, seed=0):
    return np.random.default_rng(seed).normal(scale=4, size=(2 * classes, n)).astype(np.float32)


def write(path, parts, classes=("call",), hop_s=HOP_S):
    with ScoreWriter(path, list(classes), hop_s) as writer:
        for recording_id, first, values in parts:
            writer.write(recording_id, first, values)
    return path


def realistic(n_frames, seed=0):
    """Activity and onset logits as a network gives them: slow movements, calls, and noise on top."""
    random = np.random.default_rng(seed)
    slow = np.convolve(random.normal(size=n_frames + 200), np.hanning(201) / 20, mode="valid")[:n_frames]
    calls = np.zeros(n_frames)
    for start in range(100, n_frames - 100, 400):
        calls[start : start + 60] += 9 * np.hanning(60)
    activity = -6 + slow + calls + random.normal(scale=0.3, size=n_frames)
    onset = -8 + slow + np.maximum(np.gradient(calls) * 10, 0) + random.normal(scale=0.3, size=n_frames)
    return np.stack([activity, onset]).astype(np.float32)


def test_round_trip_over_chunks_shards_and_classes(tmp_path):
    a, b, c = logits(1000, 2, 1), logits(1, 2, 2), logits(777, 2, 3)
    first = write(tmp_path / "1.parquet", [("a", 0, a[:, :400]), ("b", 0, b), ("c", 0, c[:, :5])], ["x", "y"])
    second = write(tmp_path / "2.parquet", [("c", 5, c[:, 5:]), ("a", 400, a[:, 400:])], ["x", "y"])
    scores, classes, hop_s = read_scores([first, second], only={"a", "b", "c"})
    assert classes == ["x", "y"]
    assert hop_s == HOP_S
    for recording_id, values in {"a": a, "b": b, "c": c}.items():
        assert scores[recording_id].dtype == np.float32
        assert scores[recording_id].shape == values.shape
        assert np.abs(scores[recording_id] - values).max() < 4e-5


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0, 1e6])
def test_rounding_stays_below_4e_5_and_happens_once(tmp_path, scale):
    values = (logits(5000) * scale).astype(np.float32)
    path = write(tmp_path / "1.parquet", [("a", 0, values)])
    scores, _, _ = read_scores([path], only={"a"})
    assert np.abs(scores["a"].astype(float) - values).max() < 4e-5
    again, _, _ = read_scores([write(tmp_path / "2.parquet", [("a", 0, scores["a"])])], only={"a"})
    np.testing.assert_array_equal(again["a"], scores["a"])


def test_bytes_per_frame_and_class(tmp_path):
    n_frames = 60_000
    parts = [
        (f"r{i}", first, values[:, first : first + 12_000])
        for i in range(3)
        for values in [realistic(n_frames, seed=i)]
        for first in range(0, n_frames, 12_000)
    ]
    path = write(tmp_path / "s.parquet", parts)
    assert path.stat().st_size / (3 * n_frames) <= 6
    scores, _, _ = read_scores([path], only={"r0", "r1", "r2"})
    assert all(values.shape == (2, n_frames) for values in scores.values())


def test_unwanted_recordings_are_skipped_even_if_they_are_broken(tmp_path):
    path = write(tmp_path / "s.parquet", [("a", 0, logits(5)), ("broken", 7, logits(5)), ("z", 0, logits(3))])
    assert set(read_scores([path], only={"a"})[0]) == {"a"}
    assert read_scores([path], only=set())[0] == {}


@pytest.mark.parametrize(
    "parts",
    [
        [("a", 0, logits(5)), ("a", 6, logits(5))],
        [("a", 1, logits(5))],
        [("a", 0, logits(5)), ("a", 0, logits(5))],
        [("a", 0, logits(5)), ("a", 4, logits(5))],
    ],
    ids=["hole", "no start", "twice", "overlap"],
)
def test_missing_and_double_frames_are_refused(tmp_path, parts):
    path = write(tmp_path / "s.parquet", [("good", 0, logits(9)), *parts])
    with pytest.raises(DataError, match="scores of a: frames are missing or double"):
        read_scores([path], only={"good", "a"})
    assert set(read_scores([path], only={"good"})[0]) == {"good"}


def test_recording_without_scores_is_refused(tmp_path):
    path = write(tmp_path / "s.parquet", [("a", 0, logits(5))])
    with pytest.raises(DataError, match="scores of b"):
        read_scores([path], only={"a", "b"})


def test_empty_shard(tmp_path):
    empty, full = write(tmp_path / "0.parquet", []), write(tmp_path / "1.parquet", [("a", 0, logits(5))])
    assert read_scores([empty], only=set()) == ({}, ["call"], HOP_S)
    assert read_scores([empty, full], only={"a"})[0]["a"].shape == (2, 5)


@pytest.mark.parametrize(("classes", "hop_s"), [(("call",), 0.02), (("other",), HOP_S), (("call", "other"), HOP_S)])
def test_shards_of_different_models_are_refused(tmp_path, classes, hop_s):
    first = write(tmp_path / "1.parquet", [("a", 0, logits(5))])
    second = write(tmp_path / "2.parquet", [("b", 0, logits(5, len(classes)))], classes, hop_s)
    with pytest.raises(DataError, match=r"2\.parquet: other classes or another frame hop"):
        read_scores([first, second], only={"a", "b"})


def test_other_files_are_refused(tmp_path):
    write_table(tmp_path / "items.parquet", "items", table("items", []))
    pq.write_table(pa.Table.from_pandas(pd.DataFrame({"a": [1]})), tmp_path / "foreign.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    for name in ("items", "foreign", "torn"):
        with pytest.raises(DataError, match=f"{name}.parquet: not a"):
            read_scores([tmp_path / f"{name}.parquet"], only={"a"})


def test_failed_writing_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = write(tmp_path / "s.parquet", [("a", 0, logits(5))])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="disk"), ScoreWriter(path, ["call"], HOP_S) as writer:
        writer.write("b", 0, logits(5))
        raise RuntimeError("disk")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_same_scores_same_bytes(tmp_path):
    first, second = (write(tmp_path / f"{i}.parquet", [("a", 0, logits(500)), ("b", 0, logits(50))]) for i in "12")
    assert first.read_bytes() == second.read_bytes()


def groups(path):
    with pq.ParquetFile(path) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def test_short_stretches_share_a_row_group_and_long_ones_are_never_cut(tmp_path):
    parts = [("a", 0, logits(1_100_000)), ("b", 0, logits(1)), ("a", 1_100_000, logits(40))]
    assert groups(write(tmp_path / "s.parquet", parts)) == [1_100_000, 41]
    many = [(f"r{i:04d}", 0, logits(100, seed=i)) for i in range(2000)]
    path = write(tmp_path / "m.parquet", many)
    assert groups(path) == [65_600, 65_600, 65_600, 3200]
    scores, _, _ = read_scores([path], only={"r0000", "r1234", "r1999"})
    assert all(np.abs(scores[f"r{i:04d}"] - logits(100, seed=i)).max() < 4e-5 for i in (0, 1234, 1999))


def test_what_was_written_at_once_can_be_read_by_its_rows_and_copied_byte_for_byte(tmp_path):
    parts = [("a", 0, logits(70_000)), ("b", 7, logits(1)), ("a", 70_000, logits(40)), ("c", 0, logits(66_000))]
    path = write(tmp_path / "s.parquet", parts)
    with ScoreRows(path) as rows, ScoreWriter(tmp_path / "copy.parquet", ["call"], HOP_S) as writer:
        first_row = 0
        for recording_id, first_frame, values in parts:
            found = rows.stretch(first_row, values.shape[1])
            assert found[:2] == (recording_id, first_frame)
            assert np.abs(found[2] - values).max() < 4e-5
            writer.write(*found)
            first_row += values.shape[1]
    assert (tmp_path / "copy.parquet").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("rows", [(9, 2), (0, 11), (4, 3), (0, 0), (20, 1), (19, 2)])
def test_rows_that_were_not_written_at_once_are_refused(tmp_path, rows):
    path = write(tmp_path / "s.parquet", [("a", 0, logits(5)), ("a", 9, logits(5)), ("b", 0, logits(10))])
    with (
        ScoreRows(path) as file,
        pytest.raises(DataError, match=r"s\.parquet: rows \d+ to \d+ are not of one recording"),
    ):
        file.stretch(*rows)


@pytest.mark.parametrize("most_bytes", [0, 2000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, most_bytes):
    path = write(tmp_path / "s.parquet", [("a", 0, logits(5))])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        with pytest.raises(MissingPartError, match=r"s\.parquet: .* MB free on /"):
            write(path, [("a", 0, logits(5000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]
