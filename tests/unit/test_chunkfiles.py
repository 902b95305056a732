import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from otus.audio import inspect, read_at_rate
from otus.chunkfiles import cut_chunk, write_chunk_files
from otus.chunks import make_chunks
from otus.config import ChunkSettings
from otus.errors import DataError, StageError
from otus.tables import table

RATE = 8000


def chunk(start, end, left=0, right=0):
    return SimpleNamespace(start_sample=start, end_sample=end, context_left=left, context_right=right)


def record(path, seconds=3.0, *, channels=1, subtype="PCM_16", rate=RATE, seed=1):
    """A recording of noise whose samples are anything that its subtype can hold."""
    noise = np.random.default_rng(seed).uniform(-0.9, 0.9, (round(seconds * rate), channels))
    soundfile.write(path, noise, rate, subtype=subtype)
    return inspect(path)


@pytest.mark.parametrize(
    ("suffix", "subtype", "kept", "dtype"),
    [
        ("wav", "PCM_U8", "PCM_U8", "int16"),
        ("wav", "PCM_16", "PCM_16", "int16"),
        ("wav", "PCM_24", "PCM_24", "int32"),
        ("wav", "PCM_32", "PCM_32", "int32"),
        ("wav", "FLOAT", "FLOAT", "float32"),
        ("wav", "DOUBLE", "DOUBLE", "float64"),
        ("wav", "ULAW", "PCM_16", "int16"),
        ("flac", "PCM_16", "PCM_16", "int16"),
        ("flac", "PCM_24", "PCM_24", "int32"),
        ("aiff", "PCM_S8", "PCM_16", "int16"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_sample_is_kept(tmp_path, suffix, subtype, kept, dtype, channels):
    info = record(tmp_path / f"r.{suffix}", channels=channels, subtype=subtype)
    offset_s = cut_chunk(tmp_path, f"r.{suffix}", chunk(9000, 12_000, 4000, 500), info, tmp_path / "c.wav")
    assert offset_s == 5000 / RATE
    assert soundfile.info(tmp_path / "c.wav").subtype == kept
    wanted, _ = soundfile.read(tmp_path / f"r.{suffix}", start=5000, stop=12_500, dtype=dtype, always_2d=True)
    got, rate = soundfile.read(tmp_path / "c.wav", dtype=dtype, always_2d=True)
    assert rate == RATE
    assert np.array_equal(got, wanted)
    assert len(np.unique(wanted)) > 100


def test_what_lies_beyond_full_scale_is_clipped_and_does_not_wrap_around(tmp_path):
    loud = 1.4 * np.sin(np.arange(3 * RATE) * 0.05)
    soundfile.write(tmp_path / "r.ogg", loud, RATE, subtype="VORBIS")
    info = inspect(tmp_path / "r.ogg")
    cut_chunk(tmp_path, "r.ogg", chunk(RATE, 2 * RATE), info, tmp_path / "c.wav")
    wanted = soundfile.read(tmp_path / "r.ogg", start=RATE, stop=2 * RATE)[0]
    got = soundfile.read(tmp_path / "c.wav")[0]
    assert np.abs(wanted).max() > 1.1
    assert np.abs(got - np.clip(wanted, -1, 1)).max() < 1e-4


def test_blocks_are_put_together_without_a_seam(tmp_path, monkeypatch):
    info = record(tmp_path / "r.wav", channels=2)
    cut_chunk(tmp_path, "r.wav", chunk(1000, 20_000), info, tmp_path / "whole.wav")
    cut_chunk(tmp_path, "r.wav", chunk(1000, 20_000), info, tmp_path / "whole16.wav", sample_rate=16_000)
    monkeypatch.setattr("otus.chunkfiles._BLOCK_SAMPLES", 777)
    cut_chunk(tmp_path, "r.wav", chunk(1000, 20_000), info, tmp_path / "blocks.wav")
    cut_chunk(tmp_path, "r.wav", chunk(1000, 20_000), info, tmp_path / "blocks16.wav", sample_rate=16_000)
    assert (tmp_path / "whole.wav").read_bytes() == (tmp_path / "blocks.wav").read_bytes()
    whole, blocks = (soundfile.read(tmp_path / f"{name}16.wav", dtype="int16")[0] for name in ("whole", "blocks"))
    assert np.abs(whole.astype(int) - blocks).max() <= 1


@pytest.mark.parametrize(("rate", "target"), [(8000, 16_000), (44_100, 32_000), (48_000, 22_050), (8000, 8000)])
def test_another_rate_and_where_the_file_begins(tmp_path, rate, target):
    info = record(tmp_path / "r.wav", 2.0, rate=rate, channels=2)
    start, end = rate // 3, rate + 7
    offset_s = cut_chunk(tmp_path, "r.wav", chunk(start, end, 11, 13), info, tmp_path / "c.wav", sample_rate=target)
    first = round(offset_s * target)
    assert offset_s == first / target
    assert (start - 11) / rate - 1 / target < offset_s <= (start - 11) / rate
    written = soundfile.info(tmp_path / "c.wav")
    assert (written.samplerate, written.channels, written.subtype) == (target, 1, "PCM_16")
    assert offset_s + written.frames / target >= (end + 13) / rate
    wanted = read_at_rate(tmp_path / "r.wav", first, first + written.frames, target, info)
    assert np.abs(soundfile.read(tmp_path / "c.wav")[0] - np.clip(wanted, -1, 1)).max() < 1e-4


@pytest.mark.parametrize(("subtype", "resampled"), [("PCM_U8", "PCM_16"), ("PCM_24", "PCM_24"), ("DOUBLE", "FLOAT")])
def test_resampled_sound_is_no_coarser_than_it_was_computed(tmp_path, subtype, resampled):
    info = record(tmp_path / "r.wav", subtype=subtype)
    cut_chunk(tmp_path, "r.wav", chunk(0, RATE), info, tmp_path / "c.wav", sample_rate=16_000)
    assert soundfile.info(tmp_path / "c.wav").subtype == resampled


def test_the_same_bytes_every_time(tmp_path, monkeypatch):
    info = record(tmp_path / "r.wav", subtype="FLOAT")
    cut_chunk(tmp_path, "r.wav", chunk(0, 500), info, tmp_path / "a.wav")
    data = (tmp_path / "a.wav").read_bytes()
    peak = data.index(b"PEAK")
    assert data[peak + 12 : peak + 16] == bytes(4), "no time of writing"


def test_a_recording_that_changed_or_ends_early_is_no_chunk(tmp_path):
    info = record(tmp_path / "r.wav")
    with pytest.raises(DataError, match=r"has 24000 samples, not 0 to 24001"):
        cut_chunk(tmp_path, "r.wav", chunk(0, 24_001), info, tmp_path / "c.wav")
    record(tmp_path / "r.wav", channels=2)
    with pytest.raises(DataError, match="changed since the inventory"):
        cut_chunk(tmp_path, "r.wav", chunk(0, 100), info, tmp_path / "c.wav")
    (tmp_path / "r.wav").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"r\.wav"):
        cut_chunk(tmp_path, "r.wav", chunk(0, 100), info, tmp_path / "c.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["r.wav"]


def test_damaged_flac_leaves_no_file(tmp_path):
    info = record(tmp_path / "r.flac", 20.0)
    data = bytearray((tmp_path / "r.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    (tmp_path / "r.flac").write_bytes(data)
    with pytest.raises(DataError, match=r"r\.flac"):
        cut_chunk(tmp_path, "r.flac", chunk(0, 20 * RATE), info, tmp_path / "c.wav")
    assert not (tmp_path / "c.wav").exists()


def test_a_chunk_beyond_what_wav_holds_is_refused(tmp_path):
    path = tmp_path / "r.wav"
    record(path)
    info = SimpleNamespace(n_samples=2**31, sample_rate=RATE, channels=1, subtype="PCM_16")
    with pytest.raises(DataError, match=r"chunking\.chunk_s"):
        cut_chunk(tmp_path, "r.wav", chunk(0, 2**31), info, tmp_path / "c.wav")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from otus.audio import inspect
from otus.chunkfiles import cut_chunk
from otus.errors import MissingPartError
from types import SimpleNamespace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
root = Path(sys.argv[1])
row = SimpleNamespace(start_sample=0, end_sample=160_000, context_left=0, context_right=0)
try:
    cut_chunk(root, "r.wav", row, inspect(root / "r.wav"), root / "c.wav")
except MissingPartError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    record(tmp_path / "r.wav", 20.0)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=False)
    assert "c.wav: " in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.wav"]


def corpus(tmp_path, **seconds):
    rows = []
    for name, length_s in seconds.items():
        info = record(tmp_path / f"{name}.wav", length_s, seed=len(rows))
        rows.append(
            {
                "recording_id": name, "path": f"{name}.wav", "n_samples": info.n_samples, "sample_rate": RATE,
                "channels": info.channels, "subtype": info.subtype, "labelled": True, "readable": True,
            }
        )  # fmt: skip
    recordings = table("recordings", rows)
    return recordings, make_chunks(recordings, ChunkSettings(chunk_s=2.0, context_s=0.5))


def test_the_table_leads_back_to_the_recording(tmp_path):
    recordings, chunks = corpus(tmp_path, a=5.0, b=1.3)
    said = []
    rows = write_chunk_files(tmp_path, chunks.iloc[::-1], recordings, tmp_path / "out" / "shard1", progress=said.append)
    assert rows["chunk_id"].tolist() == chunks["chunk_id"].tolist()
    assert rows["error"].isna().all()
    assert rows["path"].tolist() == [f"shard1/{c}.wav" for c in chunks["chunk_id"]]
    assert rows["sha256"].is_unique
    sound = {name: soundfile.read(tmp_path / f"{name}.wav", dtype="int16")[0] for name in ("a", "b")}
    for row in rows.itertuples():
        heard = soundfile.read(tmp_path / "out" / row.path, dtype="int16")[0]
        first = round(row.offset_s * RATE)
        assert np.array_equal(heard, sound[row.recording_id][first : first + len(heard)])
        assert row.offset_s <= row.start_s < row.end_s <= row.offset_s + len(heard) / RATE
    inner = rows.iloc[1]
    assert inner["start_s"] - inner["offset_s"] == 0.5
    assert said == ["4 chunks written, 0 could not be read"]


def test_a_recording_that_cannot_be_read_is_a_row_with_its_reason(tmp_path):
    recordings, chunks = corpus(tmp_path, a=3.0, b=1.0, c=1.0)
    (tmp_path / "a.wav").unlink()
    (tmp_path / "b.wav").write_bytes((tmp_path / "b.wav").read_bytes()[:-2000])
    said = []
    rows = write_chunk_files(tmp_path, chunks, recordings, tmp_path / "shard1", progress=said.append)
    assert len(rows) == len(chunks) == 4
    assert rows["error"].notna().tolist() == [True, True, True, False]
    assert rows.loc[rows["error"].notna(), ["path", "offset_s", "sha256"]].isna().all(axis=None)
    assert "b.wav: has changed since the inventory" in rows["error"].iloc[2]
    assert "1 chunks written, 3 could not be read" in said
    assert [path.name for path in (tmp_path / "shard1").iterdir()] == ["c_k00000.wav"]


def test_a_recording_that_was_replaced_by_a_longer_one_is_not_cut_where_the_old_one_was(tmp_path):
    recordings, chunks = corpus(tmp_path, a=3.0, b=1.0)
    record(tmp_path / "a.wav", 4.0, seed=9)
    rows = write_chunk_files(tmp_path, chunks, recordings, tmp_path / "shard1", progress=lambda line: None)
    assert rows["error"].notna().tolist() == [True, True, False]
    assert "a.wav: has changed since the inventory" in rows["error"].iloc[0]


def test_nothing_that_can_be_read_is_a_failure_and_nothing_to_do_is_none(tmp_path):
    recordings, chunks = corpus(tmp_path, a=3.0)
    empty = write_chunk_files(tmp_path, chunks[:0], recordings, tmp_path / "shard2", progress=print)
    assert len(empty) == 0
    assert (tmp_path / "shard2").is_dir()
    (tmp_path / "a.wav").unlink()
    with pytest.raises(StageError, match="none of 2 chunks"):
        write_chunk_files(tmp_path, chunks, recordings, tmp_path / "shard1", progress=print)


def test_memory_does_not_grow_with_the_chunk(tmp_path):
    path = tmp_path / "r.wav"
    with soundfile.SoundFile(path, "w", 48_000, 1, "PCM_16") as file:
        for _ in range(30):
            file.write(np.zeros(48_000 * 60, dtype=np.int16))
    info = inspect(path)
    cut_chunk(tmp_path, "r.wav", chunk(0, 48_000 * 60), info, tmp_path / "c.wav")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cut_chunk(tmp_path, "r.wav", chunk(0, info.n_samples), info, tmp_path / "c.wav")
    cut_chunk(tmp_path, "r.wav", chunk(0, info.n_samples), info, tmp_path / "d.wav", sample_rate=32_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
