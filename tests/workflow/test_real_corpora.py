"""The other real sets through the workflow by config alone, with a training of seconds: do all stages take them?"""

import pandas as pd
import pytest

from otus.config import load_config
from otus.inventory import take_inventory
from otus.tables import read_table
from tests.workflow.conftest import REPOSITORY, Workflow

pytestmark = [pytest.mark.slow, pytest.mark.real]

SHORT = {
    "results_dir": "results",
    "split": {"folds": None},
    "training": {"default": {"members": 1, "epochs": 4, "cuts_per_epoch": 96}},
    "evaluation": {"bootstrap": 200},
    "report": {"examples": 2},
}


def finished(folder, name, *layers):
    flow = Workflow(folder, REPOSITORY / "config" / f"{name}.yaml", SHORT, *layers)
    done = flow.run("-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert flow.planned() == {}
    return folder / "results"


def selected(results, split="test"):
    """The rows of the chosen operating points on tested recordings."""
    metrics = pd.read_csv(results / "metrics.csv", dtype={"fold": str})
    return metrics[metrics["selected"] & (metrics["split"] == split) & (metrics["layer"] == "cnn")]


def test_the_songs_of_a_finch(tmp_path, otus_data):
    """Notes of 50 to 130 ms with pauses of 20 to 50 ms, two of them targets."""
    results = finished(tmp_path, "koumura")
    annotations = read_table(results / "inventory" / "annotations.parquet", "annotations")
    assert annotations["label"].value_counts().to_dict() == {"other": 1108, "intro": 533, "trill": 347}
    quarantine = read_table(results / "inventory" / "quarantine.parquet", "quarantine")
    assert quarantine["n_rows"].sum() == 5664  # songs that are not in this slice
    found = selected(results)
    assert set(found["label"]) == {"intro", "trill", "micro"}
    assert found.set_index("label")["average_precision"].loc[["intro", "trill"]].min() > 0.2


def test_soundscapes_of_esc10(tmp_path, otus_data):
    """The folds of the clips are the wall between train and test."""
    results = finished(tmp_path, "soundscapes", {"corpus": {"root": "soundscapes"}})
    corpus = tmp_path / "soundscapes"
    splits = read_table(results / "datasets" / "grouped" / "splits.parquet", "splits")
    events = pd.read_csv(corpus / "events.csv")
    sides = dict(zip(splits["group"], splits["split"], strict=True))
    assert set(sides) == {f"part_{n}" for n in range(1, 6)} and set(sides.values()) == {"train", "val", "test"}
    folds = events["clip"].str.extract(r"/(\d)-")[0]
    assert (folds == events["part"].astype(str)).all()
    annotations = read_table(results / "inventory" / "annotations.parquet", "annotations")
    assert len(annotations) == len(events)
    assert read_table(results / "inventory" / "quarantine.parquet", "quarantine").empty
    assert selected(results)["n_gt"].min() > 0


@pytest.mark.parametrize(
    ("name", "recordings", "labels", "homeless"),
    [("usv", 7, {"usv": 195}, 50), ("esc10", 400, dict.fromkeys(("Dog bark", "Rooster", "Rain"), 40), 0)],
)
def test_sets_that_are_read_by_config_alone(otus_data, name, recordings, labels, homeless):
    config = load_config([REPOSITORY / "config" / f"{name}.yaml"])
    inventory = take_inventory(otus_data / name, config.corpus, workers=2, cache=None, progress=lambda line: None)
    assert len(inventory.recordings) == recordings
    assert labels.items() <= inventory.annotations["label"].value_counts().to_dict().items()
    assert inventory.quarantine["n_rows"].sum() == homeless
    files = inventory.annotation_files
    assert files["n_rows"].sum() == len(inventory.annotations) + homeless
