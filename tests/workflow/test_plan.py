"""Golden numbers of jobs, named targets, and every mistake that the workflow must refuse with one sentence."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from tests.workflow.conftest import DEMO, REPOSITORY

STAGES = ["inventory", "prepare", "chunk", "train", "predict", "evaluate", "forest", "measure", "merge", "export"]


def test_the_demo_is_eighteen_jobs(workflow):
    assert workflow(DEMO).planned() == {
        "make_demo_corpus": 1,
        "take_inventory": 1,
        "write_inventory_page": 1,
        "make_dataset": 1,
        "describe_dataset": 1,
        "make_chunks": 1,
        "train_model": 4,
        "predict_shard": 1,
        "evaluate_model": 1,
        "filter_selections": 1,
        "measure_model": 1,
        "merge_metrics": 1,
        "write_model_card": 1,
        "write_report": 1,
        "all": 1,
    }


@pytest.mark.real
def test_boobook_is_eighteen_jobs(workflow, otus_data):
    planned = workflow(REPOSITORY / "config" / "boobook.yaml").planned()
    assert (planned["train_model"], planned["predict_shard"], planned.total()) == (5, 1, 18)


def test_jobs_grow_with_models_and_shards_and_never_with_files(workflow):
    more = {
        "datasets": {"grouped": {}, "quiet": {"noise_per_target": 1}},
        "training": {"default": {}, "wide": {"tcn": {"temporal_channels": 96}}},
        "chunking": {"shards": 3},
    }
    planned = workflow(DEMO, more).planned()
    assert (planned["train_model"], planned["predict_shard"], planned["evaluate_model"]) == (16, 12, 4)
    assert (planned["filter_selections"], planned["measure_model"], planned["merge_metrics"]) == (4, 4, 1)
    assert (planned["make_dataset"], planned["describe_dataset"]) == (2, 2)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_target(workflow, stage):
    assert workflow(DEMO).planned(stage)[stage] == 1


def test_a_config_without_corpus_is_a_layer_over_the_demo(workflow):
    assert workflow({"split": {"folds": 3}}).planned()["train_model"] == 3


def test_the_slurm_profile_dry_runs_without_slurm():
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "slurm", "-n", "-q", "all"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def refused(flow, sentence, *arguments):
    """The run fails and says `sentence`, without a Python traceback."""
    done = flow.run(*(arguments or ("-n",)))
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert sentence in " ".join(text.split()), text
    assert "Traceback" not in text, text


def test_a_misspelt_key_names_the_nearest_one(workflow):
    refused(workflow(DEMO, {"trainig": {}}), "unknown key 'trainig'; did you mean 'training'?")
    refused(workflow(DEMO, {"training": {"default": {"epoch": 3}}}), "did you mean 'epochs'?")


def test_a_missing_folder_is_named(workflow, tmp_path):
    corpus = {"root": str(tmp_path / "nowhere"), "targets": ["hum"], "annotations": [{"files": "*.txt"}]}
    refused(workflow({"corpus": corpus}), "does not exist; set it to the folder that holds the recordings")


def test_an_unset_variable_is_named(workflow):
    corpus = {"root": "${OTUS_NO_SUCH_VARIABLE}/x", "targets": ["hum"], "annotations": [{"files": "*.txt"}]}
    refused(workflow({"corpus": corpus}), "the environment variable OTUS_NO_SUCH_VARIABLE is not set")


@pytest.fixture
def tiny(tmp_path):
    """Six short recordings with Audacity labels in a folder, and the config for them."""
    folder = tmp_path / "tiny corpus"  # a blank in the path, as users have them
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        soundfile.write(folder / f"r{i}.wav", 0.1 * rng.standard_normal(16_000), 8000)
        (folder / f"r{i}.txt").write_text("0.5\t0.9\thum\n1.2\t1.5\thum\n")
    return folder, {
        "corpus": {"root": str(folder), "annotations": [{"files": "*.txt"}], "targets": ["hum"]},
        "split": {"folds": 3},
        "results_dir": str(tmp_path / "out"),
    }


def test_the_layer_of_animal_spot_is_planned_beside_the_default(workflow, tiny):
    _, config = tiny
    planned = workflow(config, REPOSITORY / "config" / "animal_spot.yaml").planned()
    assert (planned["train_model"], planned["evaluate_model"]) == (2 * 3, 2)


def test_an_empty_corpus_is_refused(workflow, tiny):
    folder, config = tiny
    for path in folder.glob("*.wav"):
        path.unlink()
    refused(workflow(config), "audio", "-j1", "inventory")


def test_no_positive_label_lists_what_there_is(workflow, tiny):
    _, config = tiny
    config["corpus"]["targets"] = ["bark"]
    flow = workflow(config)
    refused(flow, "hum", "-j1", "inventory")
    assert "FAILED" in (flow.folder / "out" / "logs" / "take_inventory.log").read_text()


def test_a_group_on_both_sides_of_a_split_names_group_and_files(workflow, tiny):
    folder, config = tiny
    rows = [f"r{i}.wav,{'g' if i < 2 else i},{'test' if i in (0, 5) else 'train'}" for i in range(6)]
    (folder / "sheet.csv").write_text("recording,group,split\n" + "\n".join(rows) + "\n")
    config["corpus"]["sheet"] = "sheet.csv"
    del config["split"]
    refused(workflow(config), "group 'g' stands on both sides of the split", "-j1", "prepare")


def test_bad_files_and_rows_go_to_quarantine_and_the_rest_goes_on(workflow, tiny):
    folder, config = tiny
    (folder / "r5.wav").write_bytes(b"RIFF nonsense")
    (folder / "r4.txt").write_text("0.5\t0.9\thum\n1.9\t7.0\thum\n")
    (folder / "nobody.txt").write_text("0.5\t0.9\thum\n")
    soundfile.write(folder / "unlabelled.wav", np.zeros(8000), 8000)
    flow = workflow(config)
    done = flow.run("-j1", "prepare")
    assert done.returncode == 0, done.stderr
    quarantine = (flow.folder / "out" / "inventory" / "quarantine.csv").read_text()
    for name in ("r5.wav", "r4.txt", "nobody.txt", "unlabelled.wav"):
        assert name in quarantine
