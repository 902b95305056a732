"""What breaks at 3 a.m.: each scenario breaks one thing and looks at the tables. Nothing lost, nothing doubled.

A scenario mostly waits, so several run at a time, each in a working copy of its own; they share the clusters, and what
one does to a node is one more fault for the others.
"""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest
import yaml

from tests.slurm.conftest import FINAL, until

CARD = "results/models/grouped-a/fold1/card.json"
MODEL = ("models/grouped-a/fold1/model.safetensors",)
SCENARIOS = {}


def on(cluster):
    """Register a scenario that runs on the cluster of that name."""

    def register(scenario):
        SCENARIOS[scenario.__name__] = (cluster, scenario)
        return scenario

    return register


def submit(copy, faults, *arguments):
    """Start the driver with faults switched on."""
    return copy.start("snakemake", "--profile", "slurm", *arguments, OTUS_FAULTS=str(faults))


def job_id(cluster, copy, work):
    """The id and the node of the copy's job whose comment holds `work`, once it runs."""

    def found():
        rows = [r.split("|") for r in cluster.command("squeue", "-h", "-t", "R", "-o", "%i|%N|%k|%Z").splitlines()]
        return next(((i, node) for i, node, comment, at in rows if work in comment and at == str(copy.folder)), None)

    until(found, f"a running job of {work}")
    return found()


def log(copy):
    """The log of the training of model a."""
    return copy.log_of("train_model", "grouped-a.fold1")


def hurried(cluster, job, condition):
    """The condition, after a nudge to a requeued job."""
    cluster.hurry(job)
    return condition


def train_until(copy, epoch):
    """Wait until the training of model a has finished an epoch."""
    until(lambda: f"epoch {epoch}" in log(copy), f"epoch {epoch} of a")


def assert_model_a_is_the_local_one(copy, local):
    assert copy.digest(*MODEL) == local.digest(*MODEL)
    records = [
        [{k: v for k, v in json.loads(line).items() if not k.endswith("_s")} for line in c.splitlines()]
        for c in ((x.results / "models/grouped-a/fold1/metrics.jsonl").read_text() for x in (copy, local))
    ]
    assert records[0] == records[1]
    assert not (copy.results / "models/grouped-a/fold1/resume").exists()


def retrain(copy):
    """Leave a finished run whose model a is to be trained again."""
    copy.without("models/grouped-a", "scores/grouped-a")


@on("accounted")
def a_cancelled_training_goes_on_where_it_was(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, CARD)
    train_until(copy, 2)
    job, _ = job_id(cluster, copy, "train_model")
    cluster.command("scancel", job)
    until(lambda: "stopped by a signal" in copy.printed + log(copy), "the stop")
    (faults / "slow-a").unlink()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert "resum" in log(copy)
    assert_model_a_is_the_local_one(copy, local)


@on("plain")
def a_training_at_its_time_limit_saves_and_goes_on(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").write_text("8")
    limit = ("runtime=3", "slurm_extra=--signal=TERM@60", "slurm_partition=gpu")  # these replace all of the profile's
    driver = submit(copy, faults, CARD, "--set-resources", *(f"train_model:{value}" for value in limit))
    until(lambda: "stopped by a signal" in log(copy), "the signal before the limit")
    (faults / "slow-a").unlink()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert "resum" in log(copy)
    assert_model_a_is_the_local_one(copy, local)


@on("accounted")
def a_job_killed_for_its_memory_gets_more(cluster, copy, local, faults):
    retrain(copy)
    (faults / "hog-a").touch()
    little = ("mem_mb=1600*attempt", "slurm_partition=gpu")
    driver = submit(copy, faults, CARD, "--set-resources", *(f"train_model:{value}" for value in little))
    assert driver.wait(400) == 0, copy.printed[-5000:]
    assert len(copy.submissions()) == 2
    assert_model_a_is_the_local_one(copy, local)


@on("plain")
def a_preempted_training_is_requeued_and_goes_on(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, CARD)
    train_until(copy, 1)
    job, node = job_id(cluster, copy, "train_model")
    cluster.command("sbatch", "-p", "urgent", "--gpus=2", "-w", node, "-t", "1", "-o", "/dev/null", "--wrap", "sleep 5")
    until(lambda: "stopped by a signal" in log(copy), "the end of the first attempt")
    until(lambda: hurried(cluster, job, "resuming after" in log(copy)), "the restart", 300)
    (faults / "slow-a").unlink()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert len(copy.submissions()) == 1, "Slurm put it back itself"
    assert_model_a_is_the_local_one(copy, local)


@on("accounted")
def a_preempted_training_that_slurm_ends_is_submitted_again(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, CARD)
    train_until(copy, 1)
    _, node = job_id(cluster, copy, "train_model")
    cluster.command("sbatch", "-p", "urgent", "--gpus=2", "-w", node, "-t", "1", "-o", "/dev/null", "--wrap", "sleep 5")
    until(lambda: "stopped by a signal" in log(copy), "the end of the first attempt")
    (faults / "slow-a").unlink()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert len(copy.submissions()) == 2
    assert_model_a_is_the_local_one(copy, local)


@on("accounted")
def a_training_whose_node_fails_goes_on_elsewhere(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, CARD)
    train_until(copy, 1)
    job, node = job_id(cluster, copy, "train_model")
    other = f"SLURMD_NODENAME={({'gpu1', 'gpu2'} - {node}).pop()}"
    try:
        cluster.command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        until(lambda: "stopped by a signal" in log(copy), "the end on the failed node")
        time.sleep(15)  # until the node has let go of the job, too: started earlier, it would be held
        until(lambda: hurried(cluster, job, other in log(copy)), "the other node", 300)
        (faults / "slow-a").unlink()
        assert driver.wait(300) == 0, copy.printed[-5000:]
    finally:
        cluster.command("scontrol", "update", f"nodename={node}", "state=resume")
    assert_model_a_is_the_local_one(copy, local)


@on("plain")
def a_cancelled_prediction_keeps_its_finished_chunks(cluster, copy, local, faults):
    copy.without("scores/grouped-a")
    (faults / "slow-chunks").touch()
    shard = "scores/grouped-a/fold1/shard1"
    driver = submit(copy, faults, f"results/{shard}.scores.parquet")
    job, _ = job_id(cluster, copy, "predict_shard")
    until(lambda: "chunks" in copy.log_of("predict_shard", "grouped-a.fold1.shard1"), "the first chunks")
    cluster.command("scancel", job)
    until(
        lambda: "stopped by a signal" in copy.printed + copy.log_of("predict_shard", "grouped-a.fold1.shard1"), "stop"
    )
    (faults / "slow-chunks").unlink()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert copy.digest(f"{shard}.scores.parquet") == local.digest(f"{shard}.scores.parquet")
    items = [pq.read_table(c.results / f"{shard}.items.parquet").to_pandas() for c in (copy, local)]
    columns = ["chunk_id", "status", "audio_s"]
    assert items[0][columns].equals(items[1][columns])


def kill_driver_while_training(cluster, copy, faults):
    """Start a training whose outputs have no record of an earlier run, kill the driver; return the orphan's id."""
    outputs = [str(p.relative_to(copy.folder)) for p in (copy.results / "models/grouped-a/fold1").iterdir()]
    copy.run("snakemake", "--cleanup-metadata", *outputs)
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, CARD)
    train_until(copy, 1)
    job, _ = job_id(cluster, copy, "train_model")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    return job


def with_more_epochs(copy):
    """Change a setting of model a."""
    path = copy.folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["training"]["a"]["epochs"] += 1
    path.write_text(yaml.safe_dump(config))


@on("accounted")
def a_killed_driver(cluster, copy, local, faults):
    job = kill_driver_while_training(cluster, copy, faults)

    copy.run("snakemake", "--unlock")
    refused = copy.run("snakemake", "--profile", "slurm", CARD)
    assert copy.code == 1
    assert f"scancel {job}" in refused
    assert "otus resume --wait" in refused

    resumed = copy.start("otus", "resume", "--wait", "--profile", "slurm", CARD)
    time.sleep(5)
    (faults / "slow-a").unlink()
    assert resumed.wait(300) == 0, copy.printed[-5000:]
    assert len(copy.submissions()) == 1, "the job of the killed driver did the work; nothing ran twice"
    assert_model_a_is_the_local_one(copy, local)
    assert "Nothing to be done" in copy.run("snakemake", "--profile", "slurm", CARD)
    with_more_epochs(copy)
    assert "params have changed" in copy.run("snakemake", "-n", CARD).lower(), "its settings were recorded"


@on("plain")
def the_controller_is_away_for_30_s(cluster, copy, local, faults):
    retrain(copy)
    (faults / "slow-a").touch()
    driver = submit(copy, faults, "results/scores/grouped-a/fold1/shard1.scores.parquet")
    train_until(copy, 1)
    cluster.stop_controller()
    try:
        time.sleep(30)
        (faults / "slow-a").unlink()
    finally:
        cluster.start_controller()
    assert driver.wait(300) == 0, copy.printed[-5000:]
    assert len(copy.submissions()) == 2
    assert_model_a_is_the_local_one(copy, local)


@on("accounted")
def one_failing_model_among_three(cluster, copy, local, faults):
    copy.without("models", "scores", "evaluation", "forest")
    (faults / "broken-b").touch()
    driver = submit(copy, faults, "--retries", "1")
    assert driver.wait(600) == 1
    for model in ("a", "c"):
        assert (copy.results / f"forest/grouped-{model}/selections.parquet").exists()
    block = copy.printed[copy.printed.index("train_model  dataset grouped, training b, fold 1") :]
    assert "a fault of the test" in block
    assert "results/logs/train_model/grouped-b.fold1.log" in block
    assert re.search(r"rerun +snakemake --profile slurm .*results/models/grouped-b/fold1/", block)
    (faults / "broken-b").unlink()
    again = copy.run("otus", "rerun", "--failed")
    assert copy.code == 0, again
    assert copy.digest(*MODEL) == local.digest(*MODEL)
    copy.run("snakemake", "--profile", "slurm")
    assert copy.code == 0
    assert copy.digest(*FINAL) == local.digest(*FINAL)


@on("plain")
def a_busy_controller_is_asked_again(cluster, copy, local, faults):
    copy.without("scores/grouped-a")
    busy = copy.folder.parent / "bin"
    busy.mkdir()
    (busy / "sbatch").write_text(
        f"#!/bin/sh\nif [ ! -e {busy}/refused ]; then touch {busy}/refused\n"
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; fi\n'
        'exec /usr/bin/sbatch "$@"\n'
    )
    (busy / "sbatch").chmod(0o755)
    copy.environment["PATH"] = f"{busy}:{copy.environment['PATH']}"
    scores = "scores/grouped-a/fold1/shard1.scores.parquet"
    printed = copy.run("snakemake", "--profile", "slurm", "--retries", "0", f"results/{scores}")
    assert copy.code == 0, printed
    assert (busy / "refused").exists()
    assert copy.digest(scores) == local.digest(scores)


@pytest.fixture(scope="module")
def outcomes(request, local, tmp_path_factory):
    """The scenarios that are asked for, under way; the controller goes away when the others are done."""
    asked = {item.callspec.params["name"] for item in request.session.items if item.function is test_fault}
    alone = "the_controller_is_away_for_30_s"

    def play(name):
        where, scenario = SCENARIOS[name]
        cluster, folder = clusters[where], tmp_path_factory.mktemp(name[:30])
        copy = local.copied(folder / "otus", cluster.environment)
        (folder / "faults").mkdir()
        try:
            scenario(cluster, copy, local, folder / "faults")
        finally:
            copy.end()

    clusters = {name: request.getfixturevalue(name) for name in sorted({SCENARIOS[n][0] for n in asked})}
    with ThreadPoolExecutor(4) as pool:
        running = {name: pool.submit(play, name) for name in SCENARIOS if name in asked - {alone}}
        for future in running.values():
            future.exception()
        if alone in asked:
            running[alone] = pool.submit(play, alone)
        yield running


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault(name, outcomes):
    outcomes[name].result()
