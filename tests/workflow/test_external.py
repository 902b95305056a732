"""A detector of others as a model of the workflow: a program of a few lines (toy_detector.py), run for real."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from otus.tables import read_table
from otus.telemetry.jobs import summarise_jobs
from tests.workflow.conftest import DEMO, SMALL, Workflow

TOY = Path(__file__).with_name("toy_detector.py")
JUDGED = ("results/evaluation/grouped-toy/counts.parquet", "results/forest/grouped-toy/counts.parquet")


def external(**more):
    command = [sys.executable, str(TOY), "{input}", "{output}"]
    settings = {"runner": "command", "command": command, "labels": {"loud": "hum"}, "scores": "number"}
    return {"external": {"toy": {**settings, "low_hz": 200, "high_hz": 3000, **more}}}


def test_a_detector_is_a_job_per_shard_and_one_per_dataset_variant(workflow):
    variants = {"datasets": {"grouped": {}, "quiet": {"noise_per_target": 1}}, "chunking": {"shards": 3}}
    without = workflow(DEMO, variants).planned()
    planned = workflow(DEMO, variants, external()).planned()
    per_variant = ("evaluate_external", "filter_selections", "measure_model")
    assert planned - without == {"run_external": 3, **dict.fromkeys(per_variant, 2)}
    assert not without - planned


def test_without_detectors_there_is_no_job_of_theirs(workflow):
    assert not {"run_external", "evaluate_external"} & set(workflow(DEMO).planned())
    assert workflow(DEMO).planned("external") == {"external": 1}


def test_a_detector_with_a_gpu_asks_for_one(workflow):
    done = workflow(DEMO, external(gpu=True, threads=2)).run("-n", "external")
    asked = next(line for line in done.stdout.splitlines() if "resources:" in line and "gpu" in line)
    assert "gpu=1" in asked and "gpu_jobs=1" in asked


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"command": []}, "command: name the program"),
        ({"labels": {"loud": "him"}}, "external.toy.labels.loud: 'him' is no target; there are hum"),
        ({"time_out": 3}, "unknown key 'external.toy.time_out'; did you mean 'timeout_s'?"),
    ],
)
def test_wrong_settings_are_one_sentence(workflow, more, sentence):
    done = workflow(DEMO, external(**more)).run("-n")
    said = done.stdout + done.stderr
    assert done.returncode != 0 and sentence in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The toy on the small demo, judged and filtered, without any network."""
    flow = Workflow(tmp_path_factory.mktemp("external"), DEMO, SMALL, external(gap_s=0.1))
    done = flow.run("-j1", *JUDGED)
    assert done.returncode == 0, done.stdout + done.stderr
    return flow


@pytest.mark.slow
def test_its_selections_are_judged_like_those_of_a_network(judged):
    results = judged.folder / "results"
    chunks = read_table(results / "chunks" / "chunks.parquet", "chunks")
    items = pd.concat([read_table(p, "items") for p in sorted((results / "external" / "toy").glob("*.items.parquet"))])
    assert sorted(items["chunk_id"]) == sorted(chunks["chunk_id"]) and set(items["status"]) == {"ok"}
    counts = read_table(results / "evaluation" / "grouped-toy" / "counts.parquet", "counts")
    tested = counts[counts["selected"] & counts["split"].eq("test")]
    annotations = read_table(results / "inventory" / "annotations.parquet", "annotations")
    assert tested["n_gt"].sum() == annotations["label"].eq("hum").sum()
    assert tested["tp"].sum() > tested["n_gt"].sum() / 2, "it does find hums"
    assert set(counts["layer"]) == {"external"}
    forest = read_table(results / "forest" / "grouped-toy" / "counts.parquet", "counts")
    assert set(forest["layer"]) == {"external+rf"}
    assert not (results / "models").exists(), "nothing was trained for it"
    jobs = summarise_jobs(results, datetime.now(UTC)).set_index("rule").loc[["run_external"]]
    assert set(jobs["status"]) == {"ok"} and jobs["items_ok"].sum() == len(chunks)
    assert not (results / "external" / "toy" / "resume" / "shard1.jsonl").exists()


@pytest.mark.slow
def test_only_another_detector_runs_it_again(judged):
    again = {"run_external": 2, "evaluate_external": 1, "filter_selections": 1}
    assert judged.planned(*JUDGED) == {}
    assert judged.layer({"evaluation": {"thresholds": [0.5]}}).planned(*JUDGED) == {
        "evaluate_external": 1, "filter_selections": 1,
    }  # fmt: skip
    assert judged.layer(external(gap_s=0.2)).planned(*JUDGED) == {"evaluate_external": 1, "filter_selections": 1}
    assert judged.layer(external(gap_s=0.1, min_score=6)).planned(*JUDGED) == again
    assert judged.layer({"datasets": {"grouped": {"noise_per_target": 2}}}).planned(*JUDGED).get("run_external") is None


@pytest.mark.slow
def test_an_edited_program_is_another_detector(judged):
    script = judged.folder / "own.py"
    script.write_text(TOY.read_text())
    flow = judged.layer({"external": {"toy": {"command": [sys.executable, "own.py", "{input}", "{output}"]}}})
    assert flow.run("-j1", *JUDGED).returncode == 0
    assert flow.planned(*JUDGED) == {}
    script.write_text(TOY.read_text().replace("5.0", "6.0"))
    assert flow.planned(*JUDGED)["run_external"] == 2


@pytest.mark.slow
def test_a_chunk_that_fails_is_named_and_the_next_run_does_the_rest(judged):
    flow = judged.layer({"results_dir": "again"})
    target = "again/external/toy/shard1.items.parquet"
    chunks = read_table(judged.folder / "results" / "chunks" / "chunks.parquet", "chunks")
    bad = chunks.loc[chunks["shard"] == 1, "chunk_id"].sort_values().iloc[0]
    done = flow.run("-j1", target, TOY_FAILS_ON=bad)
    assert done.returncode != 0
    assert (
        f"the first ({bad}): python ended with exit code 7".replace("python", Path(sys.executable).name) in done.stderr
    )
    assert not (judged.folder / target).exists()
    done = flow.run("-j1", target)
    assert done.returncode == 0, done.stderr
    log = (judged.folder / "again" / "logs" / "run_external" / "toy.shard1.log").read_text()
    n = int((chunks["shard"] == 1).sum())
    assert f"resuming after {n - 1} of {n} chunks" in log
    items = read_table(judged.folder / target, "items")
    assert items.set_index("chunk_id")["attempt"].to_dict() == {c: 1 + (c == bad) for c in items["chunk_id"]}


@pytest.mark.slow
def test_it_stands_on_the_leader_board_beside_the_networks(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished[0].folder, folder, symlinks=True)  # other tests want the finished run as it is
    flow = Workflow(folder, *map(Path, finished[0].configs), external())
    planned = flow.planned()
    assert not {"train_model", "predict_shard", "evaluate_model"} & set(planned)
    done = flow.run("-j2")
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = pd.read_csv(flow.folder / "results" / "metrics.csv", dtype={"fold": str})
    assert {"cnn", "cnn+rf", "external", "external+rf"} == set(metrics["layer"])
    page = (flow.folder / "results" / "report.html").read_text()
    assert "grouped-toy" in page and "a detector of others" in page
    assert "grouped-toy" in done.stdout
