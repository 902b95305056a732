import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from otus import fingerprint
from otus.config import Config
from otus.resources.shards import Sharding, record_file, sharding_of
from otus.resources.workload import Workload

RECORD = record_file(Path("results"))


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    """No driver has said anything, and there are no results."""
    monkeypatch.setenv("OTUS_SHARDS", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()


def wav(name, seconds):
    soundfile.write(f"corpus/{name}", np.zeros(round(seconds * 8000), dtype=np.int16), 8000)


def config(corpus=None, **chunking):
    return Config.model_validate(
        {
            "corpus": {"root": "corpus", "targets": ["hum"]} | (corpus or {}),
            "chunking": {"shards": None, "shard_min": 1.0, "chunk_s": 20.0} | chunking,
        }
    )


def found(corpus=None, *, asks_driver=False, **chunking):
    """What a process that has just started finds."""
    fingerprint._selected.cache_clear()
    return sharding_of(config(corpus, **chunking), asks_driver=asks_driver)


def count(seconds):
    """An inventory of one recording of so many seconds."""
    folder = Path("results", "inventory")
    folder.mkdir(parents=True, exist_ok=True)
    row = f"True,True,{seconds},8000"
    (folder / "recordings.csv").write_text(f"readable,labelled,duration_s,sample_rate\n{row}\n")
    (folder / "annotations.csv").write_text("label,start_s,end_s\n")


def make_chunks(sharding):
    """What the job of that name leaves."""
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(asdict(sharding)))


def test_a_number_in_the_config_is_that_number():
    assert found(shards=7, shard_min=None) == Sharding(7)


def test_a_guess_from_the_files_and_then_the_count_of_the_inventory():
    wav("a.wav", 290)
    assert found().shards == 5
    count(100)
    assert found().shards == 2


def test_a_number_stays_once_chunks_were_made_with_it():
    wav("a.wav", 290)
    guess = found()
    make_chunks(guess)
    count(100)
    assert found() == guess
    Path("corpus/a.wav").touch()
    assert found() == guess, "a file that was only touched is the same"
    (Path("corpus") / "labels.txt").write_text("1\t2\thum\n")
    assert found() == guess, "labels have no length"


def test_another_target_is_counted_and_other_recordings_are_guessed():
    wav("a.wav", 290)
    make_chunks(found())
    count(100)
    assert found(shard_min=0.5).shards == 4
    assert found(chunk_s=100.0).shards == 1, "no shard is shorter than a chunk"
    wav("b.wav", 290)
    assert found().shards == 10, "the inventory is out of date"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"shards": 0}', '{"shards": "5"}', '{"shards": 3, "more": 1}'])
def test_a_record_that_makes_no_sense_is_none(text):
    wav("a.wav", 290)
    make_chunks(found())
    RECORD.write_text(text)
    count(100)
    assert found().shards == 2


def test_chunks_made_with_a_number_in_the_config_bind_nothing():
    wav("a.wav", 290)
    make_chunks(Sharding(9))
    assert found().shards == 5
    count(100)
    assert found().shards == 2


def test_jobs_take_the_number_of_their_driver_and_nobody_else_does():
    wav("a.wav", 290)
    driver = found()
    count(100)
    assert found(asks_driver=True) == driver
    assert found().shards == 2


def test_a_job_that_was_told_nothing_looks_for_itself():
    wav("a.wav", 290)
    assert found(asks_driver=True).shards == 5


def test_the_demo_needs_no_files_and_a_corpus_that_is_not_there_is_one_shard():
    demo = {"demo": {"recordings": 12, "duration_s": 60.0}}
    first = found(demo)
    assert first.shards == 12
    make_chunks(first)
    wav("made.wav", 1)
    assert found(demo) == first, "what the workflow has made itself changes nothing"
    assert found({"root": "nowhere"}).shards == 1


def test_loads_are_those_of_a_shard():
    work = {shards: Workload(config({"demo": {}}), shards).load("predict_shard", {}).work for shards in (None, 1, 4)}
    assert work[4] == pytest.approx(work[1] / 4)
    assert work[None] == pytest.approx(work[1] / Workload(config({"demo": {}})).shards)
