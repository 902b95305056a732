import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.tables import table


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
    assert loads.max() - loads.min() <= durations.max() + 1e-6  # longest first, always to the emptiest


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
