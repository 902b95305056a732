"""A large corpus: jobs by models and shards alone, and one walk through its folder per process."""

import json
import os

import numpy as np
import pytest
import soundfile

from tests.workflow.conftest import REPOSITORY

SNAKEMAKE = "snakemake/__main__.py"

#: Put on the path of every process: at its end, how often it opened the corpus folder, and its largest memory.
METER = """
import atexit, json, os, pathlib, sys

walks = 0

def count(event, arguments):
    global walks
    if event == "os.scandir" and str(arguments[0]) == os.environ["TEST_CORPUS"]:
        walks += 1

def note(path=os.environ["TEST_NOTES"]):
    status = pathlib.Path("/proc/self/status").read_text()
    peak_kb = status.partition("VmHWM:")[2].split()[0]
    with open(path, "a") as file:
        file.write(json.dumps({"program": sys.argv[0], "walks": walks, "peak_mb": int(peak_kb) / 1024}) + chr(10))

sys.addaudithook(count)
atexit.register(note)
"""

JOBS = {
    "take_inventory": 1,
    "write_inventory_page": 1,
    "make_dataset": 1,
    "describe_dataset": 1,
    "make_chunks": 1,
    "train_model": 5,
    "predict_shard": 320,
    "evaluate_model": 5,
    "filter_selections": 5,
    "measure_model": 5,
    "merge_metrics": 1,
    "write_model_card": 1,
    "write_report": 1,
    "all": 1,
}


@pytest.fixture
def large(tmp_path, workflow):
    """Make a workflow of 5 models and 64 shards on so many short recordings, in folders of 20."""

    def make(recordings):
        root = tmp_path / "corpus"
        for n in range(recordings):
            folder = root / f"site_{n // 20}"
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / f"r{n}.wav", np.full(400, n / 1000), 8000)
            (folder / f"r{n}.txt").write_text("0.01\t0.04\thum\n")
        return workflow(
            {
                "corpus": {"root": str(root), "annotations": [{"files": "**/*.txt"}], "targets": ["hum"]},
                "training": {f"net{n}": {} for n in range(5)},
                "chunking": {"shards": 64},
            }
        )

    return make


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Meter every process from now on; return what those that ended since the last call noted."""
    (tmp_path / "meter").mkdir()
    (tmp_path / "meter" / "sitecustomize.py").write_text(METER)
    path = tmp_path / "notes.jsonl"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "meter"), prepend=os.pathsep)
    monkeypatch.setenv("TEST_CORPUS", str(tmp_path / "corpus"))
    monkeypatch.setenv("TEST_NOTES", str(path))

    def read():
        found = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        return found

    return read


def walks(notes, program):
    """How often each process of a program walked through the corpus, sorted."""
    return sorted(note["walks"] for note in notes if note["program"].endswith(program))


@pytest.mark.parametrize("recordings", [2, 200])
def test_models_and_shards_decide_on_the_jobs_and_recordings_do_not(large, notes, recordings):
    assert large(recordings).planned() == JOBS
    (dry_run,) = notes()
    assert dry_run["walks"] == 1
    assert dry_run["peak_mb"] < 500


def test_a_local_run_walks_through_the_corpus_once_beside_the_inventory(large, notes):
    done = large(40).run("-j1", "inventory")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = notes()
    assert walks(seen, ".take_inventory.py") == [1]
    assert walks(seen, SNAKEMAKE) == [1]


def test_the_jobs_of_a_cluster_neither_walk_through_the_corpus_nor_take_the_inventory_again(large, notes):
    flow = large(100)
    profile = str(REPOSITORY / "profiles" / "generic")
    done = flow.run("--profile", profile, "--seconds-between-status-checks", "1", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = notes()
    assert walks(seen, ".take_inventory.py") == [1]
    assert walks(seen, ".make_dataset.py") == [0]
    # make_dataset and describe_dataset; take_inventory, which guesses what to ask for; the driver
    assert walks(seen, SNAKEMAKE) == [0, 0, 1, 1]
    assert flow.planned("prepare") == {}
    assert walks(notes(), SNAKEMAKE) == [1]
