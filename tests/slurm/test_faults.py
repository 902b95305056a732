"""What breaks at 3 a.m.: each scenario breaks one thing and looks at the tables. Nothing lost, nothing doubled.

A scenario mostly waits, so several run at a time, each in a working copy of its own. Those that disturb a whole cluster
have it to themselves.
"""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import FINAL, Copy, until

CARD = "results/models/grouped-a/fold1/card.json"
MODEL = "models/grouped-a/fold1/model.safetensors"
SHARD = "scores/grouped-a/fold1/shard1"
SCENARIOS = {}


def on(cluster, alone=False):
    """Register a scenario that runs on the cluster of that name."""

    def register(scenario):
        SCENARIOS[scenario.__name__] = (cluster, alone, scenario)
        return scenario

    return register


@dataclass
class Stage:
    """Where a scenario plays: a cluster, a copy of a finished run, that run, and a folder of switches for faults."""

    cluster: Cluster
    copy: Copy
    local: Copy
    faults: Path

    def start(self, *arguments):
        """Start the driver with faults switched on."""
        self.driver = self.copy.start("snakemake", "--profile", "slurm", *arguments, OTUS_FAULTS=str(self.faults))

    def train(self, *arguments, seconds_per_batch="3", target=CARD):
        """Start to train model a again, slowly, and wait for its first epoch; its job and node are known then."""
        self.copy.without("models/grouped-a", "scores/grouped-a")
        (self.faults / "slow-a").write_text(seconds_per_batch)
        self.start(target, *arguments)
        until(lambda: "epoch 1" in self.log, "the first epoch of a")
        self.job, self.node = self.running("train_model")

    @property
    def log(self):
        """The log of the training of model a."""
        return self.copy.log_of("train_model", "grouped-a.fold1")

    def running(self, work):
        """The id and the node of the job whose comment holds `work`, once it runs."""

        def found():
            rows = [
                r.split("|") for r in self.cluster.command("squeue", "-h", "-t", "R", "-o", "%i|%N|%k|%Z").splitlines()
            ]
            here = str(self.copy.folder)
            return next(((i, node) for i, node, comment, at in rows if work in comment and at == here), None)

        until(found, f"a running job of {work}")
        return found()

    def stopped(self):
        """Wait until the training has saved its state and stopped."""
        until(lambda: "stopped by a signal" in self.copy.printed + self.log, "the stop")

    def preempt(self):
        """Give both GPUs of the training's node to somebody more important."""
        where = ("-p", "urgent", "--gpus=2", "-w", self.node, "-t", "1", "-o", "/dev/null")
        self.cluster.command("sbatch", *where, "--wrap", "sleep 5")

    def restarted(self, sign):
        """Wait until Slurm has started the requeued job again."""

        def again():
            self.cluster.hurry(self.job)
            return sign in self.log

        until(again, "the restart", 300)

    def ends_well(self, submissions=None, driver=None):
        """Switch the slowness off; the driver must end with success and model a be the local one."""
        (self.faults / "slow-a").unlink(missing_ok=True)
        assert (driver or self.driver).wait(400) == 0, self.copy.printed[-5000:]
        assert submissions is None or len(self.copy.submissions()) == submissions
        assert self.copy.digest(MODEL) == self.local.digest(MODEL)
        assert records(self.copy) == records(self.local)
        assert not (self.copy.results / "models/grouped-a/fold1/resume").exists()


def records(copy):
    """What the training of model a noted of its epochs, apart from times."""
    lines = (copy.results / "models/grouped-a/fold1/metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_s")} for line in lines]


@on("accounted")
def a_cancelled_training_goes_on_where_it_was(stage):
    stage.train()
    stage.cluster.command("scancel", stage.job)
    stage.stopped()
    stage.ends_well(submissions=2)
    assert "resuming after" in stage.log


@on("plain")
def a_training_at_its_time_limit_saves_and_goes_on(stage):
    limit = ("runtime=3", "slurm_extra=--signal=TERM@60", "slurm_partition=gpu")  # these replace all of the profile's
    stage.train("--set-resources", *(f"train_model:{value}" for value in limit), seconds_per_batch="8")
    stage.stopped()
    stage.ends_well(submissions=2)
    assert "resuming after" in stage.log


@on("accounted")
def a_job_killed_for_its_memory_gets_more(stage):
    stage.copy.without("models/grouped-a", "scores/grouped-a")
    (stage.faults / "hog-a").touch()
    little = ("mem_mb=1600*attempt", "slurm_partition=gpu")
    stage.start(CARD, "--set-resources", *(f"train_model:{value}" for value in little))
    stage.ends_well(submissions=2)


@on("plain", alone=True)
def a_preempted_training_is_requeued_and_goes_on(stage):
    stage.train()
    stage.preempt()
    stage.stopped()
    stage.restarted("resuming after")
    stage.ends_well(submissions=1)


@on("accounted", alone=True)
def a_preempted_training_that_slurm_ends_is_submitted_again(stage):
    stage.train()
    stage.preempt()
    stage.stopped()
    stage.ends_well(submissions=2)
    assert "resuming after" in stage.log


@on("accounted", alone=True)
def a_training_whose_node_fails_goes_on_elsewhere(stage):
    stage.train()
    other = ({"gpu1", "gpu2"} - {stage.node}).pop()
    try:
        stage.cluster.command("scontrol", "update", f"nodename={stage.node}", "state=down", "reason=test")
        stage.stopped()
        time.sleep(15)  # until the node has let go of the job, too: started earlier, it would be held
        stage.restarted(f"SLURMD_NODENAME={other}")
        stage.ends_well(submissions=1)
    finally:
        stage.cluster.command("scontrol", "update", f"nodename={stage.node}", "state=resume")


@on("plain")
def a_cancelled_prediction_keeps_its_finished_chunks(stage):
    copy, log = stage.copy.without("scores/grouped-a"), ("predict_shard", "grouped-a.shard1")
    (stage.faults / "slow-chunks").touch()
    stage.start(f"results/{SHARD}.scores.parquet")
    job, _ = stage.running("predict_shard")
    until(lambda: "chunks" in copy.log_of(*log), "the first chunks")
    stage.cluster.command("scancel", job)
    until(lambda: "stopped by a signal" in copy.printed + copy.log_of(*log), "the stop")
    (stage.faults / "slow-chunks").unlink()
    assert stage.driver.wait(300) == 0, copy.printed[-5000:]
    assert copy.digest(f"{SHARD}.scores.parquet") == stage.local.digest(f"{SHARD}.scores.parquet")
    items = [pq.read_table(c.results / f"{SHARD}.items.parquet").to_pandas() for c in (copy, stage.local)]
    columns = ["chunk_id", "status", "audio_s"]
    assert items[0][columns].equals(items[1][columns])


@on("accounted")
def a_killed_driver(stage):
    copy = stage.copy
    outputs = [str(p.relative_to(copy.folder)) for p in (copy.results / "models/grouped-a/fold1").iterdir()]
    copy.run("snakemake", "--cleanup-metadata", *outputs)  # as if these had never been made before
    stage.train()
    os.killpg(stage.driver.pid, signal.SIGKILL)
    stage.driver.wait()

    copy.run("snakemake", "--unlock")
    refused = copy.run("snakemake", "--profile", "slurm", CARD)
    assert copy.code == 1
    assert f"scancel {stage.job}" in refused
    assert "otus resume --wait" in refused

    resumed = copy.start("otus", "resume", "--wait", "--profile", "slurm", CARD)
    time.sleep(5)
    stage.ends_well(submissions=1, driver=resumed)  # the job of the killed driver did the work; nothing ran twice
    assert "Nothing to be done" in copy.run("snakemake", "--profile", "slurm", CARD)
    path = copy.folder / "config" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["training"]["a"]["epochs"] += 1
    path.write_text(yaml.safe_dump(config))
    assert "params have changed" in copy.run("snakemake", "-n", CARD).lower(), "the job recorded its settings"


@on("plain", alone=True)
def the_controller_is_away_for_30_s(stage):
    stage.train(target=f"results/{SHARD}.scores.parquet")
    stage.cluster.stop_controller()
    try:
        time.sleep(30)
        (stage.faults / "slow-a").unlink()
    finally:
        stage.cluster.start_controller()
    stage.ends_well(submissions=2)
    assert stage.copy.digest(f"{SHARD}.scores.parquet") == stage.local.digest(f"{SHARD}.scores.parquet")


@on("accounted")
def one_failing_model_among_three(stage):
    copy = stage.copy.without("models", "scores", "evaluation", "forest")
    (stage.faults / "broken-b").touch()
    stage.start("--retries", "1")
    assert stage.driver.wait(600) == 1
    for model in ("a", "c"):
        assert (copy.results / f"forest/grouped-{model}/selections.parquet").exists()
    block = copy.printed[copy.printed.index("train_model  dataset grouped, training b, fold 1") :]
    assert "a fault of the test" in block
    assert "results/logs/train_model/grouped-b.fold1.log" in block
    assert re.search(r"rerun +snakemake --profile slurm .*results/models/grouped-b/fold1/", block)
    (stage.faults / "broken-b").unlink()
    again = copy.run("otus", "rerun", "--failed")
    assert copy.code == 0, again
    assert copy.digest(MODEL) == stage.local.digest(MODEL)
    copy.run("snakemake", "--profile", "slurm")
    assert copy.code == 0
    assert copy.digest(*FINAL) == stage.local.digest(*FINAL)


@on("plain")
def a_busy_controller_is_asked_again(stage):
    copy = stage.copy.without("scores/grouped-a")
    busy = copy.folder.parent / "bin"
    busy.mkdir()
    (busy / "sbatch").write_text(
        f"#!/bin/sh\nif [ ! -e {busy}/refused ]; then touch {busy}/refused\n"
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; fi\n'
        'exec /usr/bin/sbatch "$@"\n'
    )
    (busy / "sbatch").chmod(0o755)
    copy.environment["PATH"] = f"{busy}:{copy.environment['PATH']}"
    printed = copy.run("snakemake", "--profile", "slurm", "--retries", "0", f"results/{SHARD}.scores.parquet")
    assert copy.code == 0, printed
    assert (busy / "refused").exists()
    assert copy.digest(f"{SHARD}.scores.parquet") == stage.local.digest(f"{SHARD}.scores.parquet")


@on("plain")
def a_job_of_another_run_in_the_folder_is_no_orphan(stage):
    """Two drivers may share a folder if their results differ; the living one's jobs are its own affair."""
    stage.train()
    other = stage.copy.folder / "other.yaml"
    other.write_text("results_dir: other\n")
    printed = stage.copy.run(
        "snakemake", "--profile", "slurm", "inventory", "--configfile", "config/config.yaml", str(other)
    )
    assert stage.copy.code == 0, printed
    assert (stage.copy.folder / "other" / "inventory" / "recordings.parquet").exists()
    stage.ends_well()


@pytest.fixture(scope="module")
def outcomes(request, local, tmp_path_factory):
    """The scenarios that are asked for, under way: four at a time, then one at a time on each cluster."""
    asked = [item.callspec.params["name"] for item in request.session.items if item.function is test_fault]
    clusters = {name: request.getfixturevalue(name) for name in sorted({SCENARIOS[n][0] for n in asked})}

    def play(name):
        where, _, scenario = SCENARIOS[name]
        folder = tmp_path_factory.mktemp(name[:30])
        (folder / "faults").mkdir()
        copy = local.copied(folder / "otus", clusters[where].environment)
        try:
            scenario(Stage(clusters[where], copy, local, folder / "faults"))
        finally:
            copy.end()

    with ThreadPoolExecutor(4) as pool:
        playing = {name: pool.submit(play, name) for name in asked if not SCENARIOS[name][1]}
    for where in clusters:
        one_at_a_time = ThreadPoolExecutor(1)
        playing |= {n: one_at_a_time.submit(play, n) for n in asked if SCENARIOS[n][:2] == (where, True)}
    return playing


@pytest.mark.parametrize("name", SCENARIOS)
def test_fault(name, outcomes):
    outcomes[name].result()
