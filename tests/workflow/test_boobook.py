"""The real boobook recordings through the whole workflow, with a short training: is their untidiness handled?"""

import pandas as pd
import pytest

from otus.tables import read_table
from tests.workflow.conftest import REPOSITORY, Workflow

pytestmark = [pytest.mark.slow, pytest.mark.real]

SHORT = {
    "results_dir": "results",
    "training": {"default": {"members": 1, "epochs": 8, "cuts_per_epoch": 96}},
    "evaluation": {"bootstrap": 200},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory, otus_data):
    flow = Workflow(tmp_path_factory.mktemp("boobook"), REPOSITORY / "config" / "boobook.yaml", SHORT)
    done = flow.run("-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    return flow.folder / "results"


def test_duplicates_are_one_recording_with_the_tables_of_both(results):
    recordings = read_table(results / "inventory" / "recordings.parquet", "recordings")
    annotations = read_table(results / "inventory" / "annotations.parquet", "annotations")
    assert len(recordings) == 33 and recordings["labelled"].all()
    assert annotations["label"].value_counts().to_dict() == {"boobook": 49, "other": 32}
    both = annotations.groupby("recording_id")["label"].nunique()
    assert (both == 2).sum() == 3


def test_the_zero_length_row_and_the_copies_are_in_quarantine(results):
    quarantine = read_table(results / "inventory" / "quarantine.parquet", "quarantine")
    assert quarantine["kind"].value_counts().to_dict() == {"duplicate": 4, "row": 1}


def test_every_recording_is_judged_once_out_of_fold(results):
    metrics = pd.read_csv(results / "metrics.csv", dtype={"fold": str})
    pooled = metrics[(metrics["fold"] == "pooled") & (metrics["split"] == "test") & metrics["selected"]]
    assert pooled["n_recordings"].tolist() == [33, 33]
    assert pooled["n_gt"].tolist() == [49, 49]
    per_recording = pd.read_csv(results / "metrics_per_recording.csv", dtype={"fold": str})
    own = per_recording[(per_recording["fold"] == "pooled") & (per_recording["layer"] == "cnn")]
    assert own["recording_id"].is_unique


def test_even_a_short_training_finds_most_calls(results):
    metrics = pd.read_csv(results / "metrics.csv", dtype={"fold": str})
    pooled = metrics[(metrics["fold"] == "pooled") & (metrics["split"] == "test") & (metrics["layer"] == "cnn")]
    assert pooled["average_precision"].max() > 0.3  # chance is below 0.05
