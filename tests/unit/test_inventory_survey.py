import os
import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from otus.fingerprint import FoundFile, walk
from otus.inventory import cache as cache_module
from otus.inventory import survey as module
from otus.inventory.survey import survey

RATE = 8000


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "corpus"
    for i in range(9):
        path = folder / f"s{i % 2}" / f"r{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = 1 + i % 2
        samples = np.random.default_rng(i).normal(0, 0.1, (RATE // 4, channels))
        samples[: RATE // 8, channels - 1] = 0
        soundfile.write(path, samples, RATE)
    (folder / "s0" / "bad.wav").write_text("no audio")
    return folder


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that are really opened, in a list that grows."""
    seen, examine = [], module.examine

    def noted(path, check):
        seen.append(Path(path).name)
        return examine(path, check)

    monkeypatch.setattr(module, "examine", noted)
    return seen


def take(root, cache=None, *, check="full", workers=2, lines=None):
    progress = [].append if lines is None else lines.append
    return survey(root, walk(root), check, workers=workers, cache=cache, progress=progress)


def test_the_result_is_in_the_order_of_the_files_whatever_the_threads(root):
    one, three = take(root, workers=1), take(root, workers=3)
    assert one == three and [file.path for file in one] == [file.path for file in walk(root)]
    bad = next(file for file in one if file.path == "s0/bad.wav")
    assert bad.found is None and bad.error.startswith("cannot be read as audio") and len(bad.sha256) == 64
    assert all(file.found and file.error is None for file in one if file is not bad)


def test_unchanged_files_are_not_opened_again(root, tmp_path, looked):
    cache, lines = tmp_path / "results" / "cache" / "inventory.parquet", []
    first = take(root, cache)
    assert len(looked) == 10
    looked.clear()
    assert take(root, cache, lines=lines) == first
    assert looked == ["bad.wav"]  # a failure may have been the disk's
    assert "9 of 10 audio files are as they were when they were last looked into" in lines


def test_what_was_read_from_the_table_is_what_was_found(root, tmp_path):
    soundfile.write(root / "silent.wav", np.zeros((500, 2)), RATE)
    for check in ("full", "ends"):
        cache = tmp_path / f"{check}.parquet"
        assert take(root, cache, check=check) == take(root, cache, check=check) == take(root, check=check)


def test_only_what_changed_is_opened(root, tmp_path, looked):
    cache = tmp_path / "c.parquet"
    take(root, cache)
    looked.clear()
    os.utime(root / "s1/r1.wav", ns=(1, 1))  # another time of change
    soundfile.write(root / "s0/new.wav", np.ones(100), RATE)
    longer = root / "s0/r2.wav"
    status = longer.stat()
    soundfile.write(longer, np.random.default_rng(0).normal(0, 0.1, 5000), RATE)
    os.utime(longer, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the size differs
    (root / "s0/r4.wav").unlink()
    again = take(root, cache)
    assert sorted(looked) == ["bad.wav", "new.wav", "r1.wav", "r2.wav"]
    assert next(file for file in again if file.path == "s0/r2.wav").info.n_samples == 5000
    assert "s0/r4.wav" not in pq.read_table(cache)["path"].to_pylist()


def test_a_repaired_file_is_read(root, tmp_path):
    cache = tmp_path / "c.parquet"
    take(root, cache)
    (root / "s0/bad.wav").write_bytes((root / "s0/r0.wav").read_bytes())
    assert all(file.found for file in take(root, cache))


@pytest.mark.parametrize("damage", [b"", b"no table", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_damaged_table_is_ignored_and_replaced(root, tmp_path, looked, damage):
    cache, lines = tmp_path / "c.parquet", []
    first = take(root, cache)
    cache.write_bytes(damage)
    looked.clear()
    assert take(root, cache, lines=lines) == first and len(looked) == 10
    assert re.fullmatch(r".*c\.parquet cannot be read \(.+\): all files are looked into again", lines[0])
    assert len(pq.read_table(cache)) == 9


def test_a_table_of_another_folder_check_decoder_or_code_is_ignored(root, tmp_path, looked, monkeypatch):
    cache, lines = tmp_path / "c.parquet", []
    take(root, cache, check="ends")
    for change in (
        lambda: None,  # full after ends
        lambda: monkeypatch.setattr(cache_module.soundfile, "__libsndfile_version__", "0"),
        lambda: monkeypatch.setattr(cache_module, "code_digest", lambda *modules: "other"),
    ):
        change()
        looked.clear()
        take(root, cache, lines=lines)
        assert len(looked) == 10 and "made from other settings or by another version" in lines[-2]
    moved = root.rename(tmp_path / "elsewhere")
    looked.clear()
    take(moved, cache)
    assert len(looked) == 10


def test_a_survey_that_is_stopped_goes_on_where_it_was(root, tmp_path, monkeypatch):
    cache, count = tmp_path / "c.parquet", iter(range(100))
    examine = module.examine

    def stopped(path, check):
        if next(count) == 5:
            raise KeyboardInterrupt
        return examine(path, check)

    monkeypatch.setattr(module, "_BATCH_FILES", 1)
    monkeypatch.setattr(module, "examine", stopped)
    with pytest.raises(KeyboardInterrupt):
        take(root, cache, workers=1)
    known = len(pq.read_table(cache))
    assert 3 <= known <= 5  # bad.wav is among the first


def test_it_is_saved_while_it_runs(root, tmp_path, monkeypatch):
    sizes = []
    save = module.save_cache
    monkeypatch.setattr(module, "_SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(module, "_BATCH_FILES", 2)
    monkeypatch.setattr(module, "_AHEAD", 0)
    monkeypatch.setattr(module, "save_cache", lambda *a: (sizes.append(len(a[3])), save(*a)))
    take(root, tmp_path / "c.parquet", workers=1)
    assert len(sizes) > 2 and sizes == sorted(sizes) and sizes[-1] == 9


def test_a_table_that_cannot_be_written_stops_nothing(root, tmp_path):
    (tmp_path / "file").write_text("")
    lines = []
    found = take(root, tmp_path / "file" / "c.parquet", lines=lines)
    assert len(found) == 10
    assert sum("is not kept for the next inventory" in line for line in lines) == 1


def test_nothing_new_writes_nothing(root, tmp_path):
    (root / "s0/bad.wav").unlink()
    cache = tmp_path / "c.parquet"
    take(root, cache)
    before = cache.stat().st_mtime_ns
    take(root, cache)
    assert cache.stat().st_mtime_ns == before


def test_progress(root, monkeypatch):
    monkeypatch.setattr(module, "_REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(module, "_BATCH_FILES", 1)
    lines = []
    take(root, lines=lines)
    pattern = r"looking into audio files: (\d+) of 10 files, 0\.0 of 0\.0 GB, [\d,]+ x real time, about [\d.]+ \w+ left"
    counts = [int(re.fullmatch(pattern, line)[1]) for line in lines[:-1]]
    assert counts == sorted(counts) and len(counts) >= 5
    assert re.fullmatch(r"looked into 10 of 10 files, 0\.0 of 0\.0 GB, [\d,]+ x real time", lines[-1])


def test_progress_is_told_during_a_long_file(root, monkeypatch):
    monkeypatch.setattr(module, "_REPORT_EVERY_S", 0.0)
    examine, lines = module.examine, []
    monkeypatch.setattr(module, "examine", lambda path, check: (time.sleep(0.3), examine(path, check))[1])
    monkeypatch.setattr(module, "wait", lambda futures, timeout: time.sleep(0.05))
    survey(root, walk(root)[1:2], "full", workers=1, cache=None, progress=lines.append)
    assert len([line for line in lines if line.startswith("looking into audio files: 0 of 1")]) >= 2


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h")])
def test_times_left(seconds, text):
    assert module._span(seconds) == text


def test_batches_keep_the_order_and_are_small():
    sizes = [10, 10, 20_000_000, 5, 15_999_990, 10, *[1] * 100]
    files = [FoundFile(str(i), size, 0) for i, size in enumerate(sizes)]
    batches = list(module._batches(files))
    assert [file for batch in batches for file in batch] == files
    assert all(len(b) <= 32 and (len(b) == 1 or sum(f.size for f in b) <= 16_000_000) for b in batches)
    assert len(batches) == 7
