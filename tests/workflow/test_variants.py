"""Dataset variants through the whole DAG: what each is, what it shares, and that leaky ones are marked to the end."""

import csv
import json

import pandas as pd
import pytest

from otus.annotations import read_annotations
from otus.config import AnnotationSource
from otus.tables import read_table
from tests.workflow.conftest import DEMO, SMALL, Workflow

VARIANTS = {
    "datasets": {
        "grouped": {},
        "tapes": {"strategy": "proportional_by_tape", "fractions": [0.5, 0.25, 0.25], "seed": 3},
        "random": {"strategy": "random", "noise_per_target": 1.5},
    },
    "split": {"folds": None},
    "training": {"default": {"members": 1, "epochs": 2, "cuts_per_epoch": 32}},
    "clip_files": {"spectrograms": {"max_per_class": 3}, "audio": True},
}


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    flow = Workflow(tmp_path_factory.mktemp("variants"), DEMO, SMALL, VARIANTS)
    done = flow.run("-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    return flow


@pytest.fixture(scope="module")
def results(flow):
    return flow.folder / "results"


def test_a_second_run_does_nothing(flow):
    assert flow.planned() == {}


def test_only_the_leaky_variant_shares_anything(results):
    for name in VARIANTS["datasets"]:
        leakage = read_table(results / "datasets" / name / "leakage.parquet", "leakage")
        assert len(leakage) == 3 and leakage["dataset"].eq(name).all()
        assert leakage["leaky"].any() == (name == "random")
        shared = leakage[["shared_groups", "shared_recordings", "shared_contents", "shared_raw_recordings"]]
        assert (shared.to_numpy() > 0).any() == (name == "random")


@pytest.mark.parametrize("name", ["metrics", "metrics_per_recording", "curves", "matches"])
def test_every_table_marks_what_is_leaky(results, name):
    found = read_table(results / f"{name}.parquet", name)
    assert (found["leaky"] == found["model"].str.startswith("random")).all()
    assert set(found["model"]) == {f"{variant}-default" for variant in VARIANTS["datasets"]}


def test_the_report_marks_what_is_leaky(results):
    page = (results / "report.html").read_text()
    assert "random-default" in page and "leaky" in page
    assert "LEAKY" in (results / "datasets" / "random" / "files" / "dataset.html").read_text()
    assert "LEAKY" not in (results / "datasets" / "grouped" / "files" / "dataset.html").read_text()


@pytest.mark.parametrize("name", VARIANTS["datasets"])
def test_the_files_of_a_variant(results, name):
    folder = results / "datasets" / name / "files"
    clips = read_table(results / "datasets" / name / "clips.parquet", "clips")
    index = json.loads((folder / "fold1" / "variant_index.json").read_text())
    used = clips[clips["class"] != "unknown"]
    assert index["meta"]["n_total"] == len(used) == len(index["entries"])
    for split, own in used.groupby("split"):
        listed = [row[0] for row in csv.reader((folder / "fold1" / f"{split}.csv").open(newline=""))]
        assert len(listed) == len(own) == index["meta"]["split_counts"][split]
        assert all((folder / "audio" / file).is_file() for file in listed)
    rows = 0
    for path in (folder / "selection_tables").iterdir():
        content = read_annotations(path, AnnotationSource(files="*", label="noise"))
        assert not content.problems
        rows += len(content.rows)
    assert rows == len(clips)
    assert len(list((folder / "spectrograms" / "hum").iterdir())) == 3
    assert (folder / "contact_sheet_hum.png").read_bytes()[:4] == b"\x89PNG"


def test_another_picture_makes_no_dataset_again(flow):
    planned = flow.layer({"clip_files": {"spectrograms": {"colours": "viridis"}}}).planned()
    assert planned == {"describe_dataset": 3, "write_report": 1, "all": 1}


def test_one_more_variant_is_all_that_is_made(flow):
    planned = flow.layer({"datasets": {"quiet": {"noise_per_target": 1}}}).planned()
    assert (planned["make_dataset"], planned["train_model"], planned["evaluate_model"]) == (1, 1, 1)
    assert not {"take_inventory", "make_chunks"} & set(planned)


def test_hard_negatives_come_from_a_table_of_selections(flow, results):
    """Every third stretch of mined noise, and a target call, as another program might have detected them."""
    clips = read_table(results / "datasets" / "grouped" / "clips.parquet", "clips")
    recordings = read_table(results / "inventory" / "recordings.parquet", "recordings").set_index("recording_id")
    found = pd.concat([clips[clips["origin"] == "mined"].iloc[::3], clips[clips["class"] == "target"].head(1)])
    rate = found["recording_id"].map(recordings["sample_rate"])
    rows = {"file": found["recording_id"].map(recordings["path"]), "start_s": found["start_sample"] / rate}
    pd.DataFrame(rows | {"end_s": found["end_sample"] / rate}).to_csv(flow.folder / "detected.csv", index=False)
    again = flow.layer({"datasets": {"hard": {"hard_negatives": {"selections": "detected.csv", "per_target": 2}}}})
    done = again.run("-j1", "results/datasets/hard/clips.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    made = read_table(results / "datasets" / "hard" / "clips.parquet", "clips")
    alarms = made[made["origin"] == "false_alarm"]
    keys = ["recording_id", "start_sample", "end_sample"]
    assert sorted(alarms[keys].itertuples(index=False, name=None)) == sorted(
        found[keys].iloc[:-1].itertuples(index=False, name=None)
    )
    assert json.loads((results / "datasets" / "hard" / "noise.json").read_text())["false_alarms"] == len(alarms)
    with (flow.folder / "detected.csv").open("a") as file:
        file.write("gone.wav,1,2\n")
    assert again.planned("results/datasets/hard/clips.parquet")["make_dataset"] == 1


def test_the_counts_of_a_leaky_variant_are_those_of_its_own_time(results):
    splits = read_table(results / "datasets" / "random" / "splits.parquet", "splits")
    recordings = read_table(results / "inventory" / "recordings.parquet", "recordings").set_index("recording_id")
    tested = splits[splits["split"] == "test"]
    seconds = (tested["end_sample"] - tested["start_sample"]) / tested["recording_id"].map(recordings["sample_rate"])
    metrics = pd.read_csv(results / "metrics.csv")
    own = metrics[(metrics["model"] == "random-default") & (metrics["split"] == "test")]
    assert own["hours"].to_numpy() == pytest.approx(seconds.sum() / 3600)
