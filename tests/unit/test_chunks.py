import csv
import io
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.tables import table, write_table


def recording(number, n_samples=1000, sample_rate=100, **values):
    row = {
        "recording_id": f"r{number}", "path": f"r{number}.wav", "group": "g", "n_samples": n_samples,
        "duration_s": n_samples / sample_rate, "sample_rate": sample_rate, "sha256": f"{number:064x}", "labelled": True,
        "readable": True,
    }  # fmt: skip
    return row | values


UNREADABLE = {
    "recording_id": "bad", "path": "bad.wav", "group": "g", "labelled": False, "readable": False, "error": "truncated",
}  # fmt: skip

LENGTHS = st.lists(st.tuples(st.integers(1, 100_000), st.sampled_from([8, 100, 441])), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.floats(1, 300), st.floats(0, 20), st.integers(1, 6), st.booleans())
def test_every_sample_is_in_one_chunk(lengths, chunk_s, context_s, shards, with_unreadable):
    rows = [recording(i, n, rate) for i, (n, rate) in enumerate(lengths)] + [UNREADABLE] * with_unreadable
    recordings = table("recordings", rows)
    chunks = make_chunks(recordings, ChunkSettings(chunk_s=chunk_s, context_s=context_s, shards=shards))
    assert chunks["chunk_id"].is_unique
    assert set(chunks["recording_id"]) == {f"r{i}" for i in range(len(lengths))}
    for i, (n, rate) in enumerate(lengths):
        own = chunks[chunks["recording_id"] == f"r{i}"]
        starts, ends = own["start_sample"].tolist(), own["end_sample"].tolist()
        assert starts[0] == 0 and starts[1:] == ends[:-1] and ends[-1] == n
        sizes = [end - start for start, end in zip(starts, ends, strict=True)]
        assert min(sizes) > 0 and max(sizes) <= math.ceil(chunk_s * rate) and max(sizes) - min(sizes) <= 1
        context = math.ceil(context_s * rate)
        assert own["context_left"].tolist() == [min(context, start) for start in starts]
        assert own["context_right"].tolist() == [min(context, n - end) for end in ends]
        assert set(own["sha256"]) == {f"{i:064x}"}
    rate_of = {f"r{i}": rate for i, (_, rate) in enumerate(lengths)}
    durations = (chunks["end_sample"] - chunks["start_sample"]) / chunks["recording_id"].map(rate_of)
    loads = durations.groupby(chunks["shard"]).sum().reindex(range(1, shards + 1), fill_value=0.0)
    assert set(chunks["shard"]) <= set(range(1, shards + 1))
    assert loads.max() - loads.min() <= durations.max() + 1e-6


def test_only_readable_and_labelled_recordings_have_chunks():
    rows = [recording(1), recording(2, labelled=False), UNREADABLE]
    chunks = make_chunks(table("recordings", rows), ChunkSettings())
    assert chunks["chunk_id"].tolist() == ["r1_k00000"]
    assert len(make_chunks(table("recordings", [UNREADABLE]), ChunkSettings(shards=3))) == 0


@pytest.mark.parametrize(("n_samples", "pieces"), [(1, 1), (99, 1), (100, 1), (101, 2), (200, 2), (201, 3)])
def test_a_recording_is_cut_no_more_than_needed(n_samples, pieces):
    chunks = make_chunks(table("recordings", [recording(1, n_samples, 10)]), ChunkSettings(chunk_s=10))
    assert len(chunks) == pieces


def test_the_order_of_the_recordings_does_not_matter():
    rows = [recording(i, 1000 + 37 * i) for i in range(12)]
    forward = make_chunks(table("recordings", rows), ChunkSettings(chunk_s=5, shards=4))
    assert forward.equals(make_chunks(table("recordings", rows[::-1]), ChunkSettings(chunk_s=5, shards=4)))


def test_long_recordings_do_not_come_last():
    rows = [recording(i, n) for i, n in enumerate([100, 100, 100, 100, 400])]
    chunks = make_chunks(table("recordings", rows), ChunkSettings(shards=2))
    assert (chunks["end_sample"] - chunks["start_sample"]).groupby(chunks["shard"]).sum().tolist() == [400, 400]


def test_more_shards_than_chunks_are_no_error():
    chunks = make_chunks(table("recordings", [recording(1), recording(2)]), ChunkSettings(shards=5))
    assert sorted(chunks["shard"]) == [1, 2]


@pytest.mark.parametrize("shards", [3, 4, 7, 10])
def test_a_recording_lies_in_one_shard_where_there_are_many_recordings(shards):
    rows = [recording(i, 6000 + 10 * i) for i in range(100)]
    chunks = make_chunks(table("recordings", rows), ChunkSettings(chunk_s=10, shards=shards))
    assert (chunks.groupby("recording_id")["shard"].nunique() == 1).mean() > 0.9
    loads = (chunks["end_sample"] - chunks["start_sample"]).groupby(chunks["shard"]).sum()
    assert len(loads) == shards
    assert loads.max() - loads.min() <= 1000


def test_a_long_recording_is_divided_among_all_shards():
    chunks = make_chunks(table("recordings", [recording(1, 24 * 3600 * 10, 10)]), ChunkSettings(shards=7))
    assert chunks["shard"].value_counts().between(102, 104).all()


@pytest.mark.parametrize(
    ("n_recordings", "shard_min", "chunk_s", "shards"),
    [
        (30, 10, 20, 1),
        (30, 2.5, 20, 2),
        (30, 2, 20, 3),
        (30, 1, 5, 5),
        (30, 0.01, 20, 15),
        (1, 0.01, 60, 1),
        (0, 1, 5, 0),
    ],
)
def test_the_target_decides_on_the_number_of_shards_and_none_is_empty(n_recordings, shard_min, chunk_s, shards):
    rows = [recording(i) for i in range(n_recordings)]  # of 10 s
    settings = ChunkSettings(chunk_s=chunk_s, shards=None, shard_min=shard_min)
    chunks = make_chunks(table("recordings", rows), settings)
    assert sorted(set(chunks["shard"])) == list(range(1, shards + 1))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.floats(0.5, 300), st.floats(0.01, 10))
def test_a_target_never_makes_more_shards_than_chunks(lengths, chunk_s, shard_min):
    rows = [recording(i, n, rate) for i, (n, rate) in enumerate(lengths)]
    settings = ChunkSettings(chunk_s=chunk_s, shards=None, shard_min=shard_min)
    chunks = make_chunks(table("recordings", rows), settings)
    shards = settings.shards_for(sum(n / rate for n, rate in lengths))
    assert 1 <= shards <= len(chunks)
    assert set(chunks["shard"]) <= set(range(1, shards + 1))


NAMES = ["a, b", 'the "loud" one', "two\nlines", "Ünï-codé 鳥", "'single'", " blank ", "semi;colon\ttab", ",", '"']


def test_strange_names_survive_the_csv_twin(tmp_path):
    rows = [recording(i) | {"recording_id": name} for i, name in enumerate(NAMES)]
    chunks = make_chunks(table("recordings", rows), ChunkSettings(chunk_s=5))
    write_table(tmp_path / "chunks.parquet", "chunks", chunks, csv=tmp_path / "chunks.csv")
    text = (tmp_path / "chunks.csv").read_bytes().decode("utf-8")
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["recording_id"] for row in read] == chunks["recording_id"].tolist()
    assert [row["chunk_id"] for row in read] == chunks["chunk_id"].tolist()
    assert set(chunks["recording_id"]) == set(NAMES)
    frame = pd.read_csv(tmp_path / "chunks.csv", dtype={"sha256": str})
    pd.testing.assert_frame_equal(frame, chunks, check_dtype=False)


def test_neither_shards_nor_context_change_the_ids():
    rows = table("recordings", [recording(i, 1000 + 37 * i) for i in range(5)])
    made = [make_chunks(rows, ChunkSettings(chunk_s=5, shards=n, context_s=n)) for n in (1, 3)]
    columns = ["chunk_id", "recording_id", "start_sample", "end_sample", "sha256"]
    assert made[0][columns].equals(made[1][columns])
