"""The number of shards that follows from the corpus, shards without chunks, and chunks as files of their own."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.workflow.conftest import DEMO, REPOSITORY, SMALL

RATE = 8000
#: FLAC of noise at this rate is much smaller than what is guessed for FLAC, so the inventory counts more audio.
LENGTHS_S = [40.0, 25.0, 30.5, 12.0]
GUESSED, COUNTED = 3, 11


@pytest.fixture
def flow(tmp_path, workflow):
    """A workflow on recordings whose length is not what their size suggests."""
    root = tmp_path / "corpus"
    root.mkdir()
    for n, length_s in enumerate(LENGTHS_S):
        noise = np.random.default_rng(n).integers(-9000, 9000, round(length_s * RATE), dtype=np.int16)
        soundfile.write(root / f"r{n}.flac", noise, RATE)
        (root / f"r{n}.txt").write_text("1.0\t1.5\thum\n")
    return workflow(
        {
            "corpus": {"root": str(root), "annotations": [{"files": "*.txt"}], "targets": ["hum"]},
            "chunking": {"shards": None, "shard_min": 10 / 60, "chunk_s": 4.0, "context_s": 0.25},
        }
    )


def shards_written(flow):
    return json.loads((flow.folder / "results/chunks/shards.json").read_text())["shards"]


def test_a_second_run_keeps_the_number_that_the_first_one_had_to_guess(flow):
    guessed = flow.planned()["predict_shard"]
    done = flow.run("-j1", "chunk")
    assert done.returncode == 0, done.stdout + done.stderr
    chunks = pd.read_parquet(flow.folder / "results/chunks/chunks.parquet")
    assert guessed == shards_written(flow) == chunks["shard"].max() == GUESSED
    assert flow.planned("chunk") == {}
    assert flow.planned()["predict_shard"] == GUESSED
    (flow.folder / "corpus" / "r0.flac").touch()
    assert flow.planned()["predict_shard"] == GUESSED
    (flow.folder / "results/chunks/shards.json").unlink()
    assert flow.planned()["predict_shard"] == COUNTED, "what an inventory without that record says"


def test_an_inventory_taken_first_gives_the_number(flow):
    done = flow.run("-j1", "take_inventory")
    assert done.returncode == 0, done.stdout + done.stderr
    assert flow.planned()["predict_shard"] == COUNTED


def test_the_jobs_of_a_cluster_write_the_files_of_the_shards_that_the_driver_counts(flow):
    flow = flow.layer({"chunking": {"files": True}})
    profile = str(REPOSITORY / "profiles" / "generic")
    done = flow.run("--profile", profile, "--seconds-between-status-checks", "1", "chunk")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = flow.folder / "results/chunks/files"
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "shard1.parquet",
        "shard2.parquet",
        "shard3.parquet",
    ]
    rows = pd.concat([pd.read_csv(path) for path in sorted(folder.glob("*.csv"))])
    chunks = pd.read_parquet(flow.folder / "results/chunks/chunks.parquet")
    assert sorted(rows["chunk_id"]) == sorted(chunks["chunk_id"])
    assert rows["error"].isna().all()
    for row in rows.itertuples():
        heard = soundfile.read(folder / row.path, dtype="int16")[0]
        first = round(row.offset_s * RATE)
        original = soundfile.read(flow.folder / "corpus" / f"{row.recording_id}.flac", dtype="int16")[0]
        assert np.array_equal(heard, original[first : first + len(heard)])
    assert flow.planned("chunk") == {}


def test_files_are_written_only_when_asked_for_and_make_nothing_else_anew(flow):
    done = flow.run("-j1", "chunk")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (flow.folder / "results/chunks/files").exists()
    more = flow.layer({"chunking": {"files": True}})
    assert more.planned("chunk") == {"chunk": 1, "write_chunk_files": GUESSED}


@pytest.mark.slow
def test_shards_without_chunks_do_no_harm(workflow):
    more_shards = {
        "split": {"folds": None},
        "training": {"default": {"members": 1, "epochs": 1, "cuts_per_epoch": 16}},
        "chunking": {"shards": 14, "chunk_s": 20.0},
    }
    flow = workflow(DEMO, SMALL, more_shards)
    done = flow.run("-j2", "evaluate")
    assert done.returncode == 0, done.stdout + done.stderr
    chunks = pd.read_parquet(flow.folder / "results/chunks/chunks.parquet")
    assert chunks["shard"].nunique() == len(chunks) == 12
    items = [pd.read_parquet(path) for path in (flow.folder / "results/scores").rglob("*.items.parquet")]
    assert sorted(map(len, items)) == [0] * 2 + [1] * 12
    assert set(pd.concat(items)["status"]) == {"ok", "skipped"}
