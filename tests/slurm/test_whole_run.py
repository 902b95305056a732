"""The whole workflow by the literal command, on a cluster without and with an accounting database."""

import re
from collections import Counter
from datetime import datetime

import pyarrow.parquet as pq
import pytest

from tests.slurm.conftest import FINAL

GPU_JOBS = {"train_model": 3, "predict_shard": 6}


@pytest.fixture(scope="module", params=["plain", "accounted"])
def whole(request, local, tmp_path_factory):
    """A run of everything, from nothing but the clone, on one of the clusters."""
    from tests.slurm.conftest import SMALL, Copy, copy_repository

    cluster = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp(request.param) / "otus"
    copy_repository(folder, SMALL)
    copy = Copy(folder, cluster.environment)
    printed = copy.run("snakemake", "--profile", "slurm")
    assert copy.code == 0, printed
    return cluster, copy


def test_the_tables_are_those_of_a_local_run(whole, local):
    _, copy = whole
    assert copy.digest(*FINAL) == local.digest(*FINAL)
    scores = [str(p.relative_to(local.results)) for p in local.results.glob("scores/**/*.scores.parquet")]
    assert len(scores) == 6
    assert copy.digest(*scores) == local.digest(*scores)


def test_every_chunk_is_an_item_once(whole):
    _, copy = whole
    chunks = Counter(pq.read_table(copy.results / "chunks" / "chunks.parquet")["chunk_id"].to_pylist())
    for model in ("a", "b", "c"):
        tables = [pq.read_table(p) for p in copy.results.glob(f"scores/grouped-{model}/fold1/*.items.parquet")]
        assert Counter(c for t in tables for c in t["chunk_id"].to_pylist()) == chunks
        assert {s for t in tables for s in t["status"].to_pylist()} == {"ok", "skipped"}


def test_the_corrupt_recording_is_in_quarantine(whole):
    _, copy = whole
    reasons = pq.read_table(copy.results / "inventory" / "quarantine.parquet").to_pylist()
    assert any(row["path"].endswith(".wav") for row in reasons)


def test_every_gpu_job_saw_one_device_and_no_two_at_a_time_the_same(whole):
    _, copy = whole
    uses = []
    for rule, count in GPU_JOBS.items():
        logs = sorted((copy.results / "logs" / rule).glob("*.log"))
        assert len(logs) == count
        for log in logs:
            lines = log.read_text().splitlines()
            node = re.search(r"SLURMD_NODENAME=(\S+)", lines[0]).group(1)
            device = re.search(r"CUDA_VISIBLE_DEVICES=(\S+)", lines[0]).group(1)
            assert re.fullmatch(r"[01]", device), "one index, not a list"
            assert node in ("gpu1", "gpu2")
            times = [datetime.fromisoformat(line.split()[0]) for line in (lines[0], lines[-1])]
            uses.append((node, device, *times))
    for i, (node, device, start, end) in enumerate(uses):
        for other_node, other_device, other_start, other_end in uses[:i]:
            if (node, device) == (other_node, other_device):
                assert end <= other_start or other_end <= start, "two jobs on one device at a time"


def test_cpu_jobs_went_to_the_cpu_partition_and_small_ones_nowhere(whole):
    _, copy = whole
    log = copy.log_of("evaluate_model", "grouped-a").splitlines()[0]
    assert re.search(r"SLURMD_NODENAME=cpu[12]", log)
    for small in ("make_chunks", "merge_metrics", "write_inventory_page", "write_model_card", "write_report"):
        assert "SLURM_JOB_ID" not in (copy.results / "logs" / f"{small}.log").read_text().splitlines()[0]


def test_status_is_asked_of_the_command_that_answers(whole):
    cluster, copy = whole
    assert "No SLURM account" not in copy.printed if cluster.accounting else True
    assert not cluster.command("squeue", "-h"), "no job is left"


def test_what_the_jobs_took_is_in_the_table(whole):
    _, copy = whole
    rows = (copy.folder / "usage.csv").read_text().splitlines()
    counts = Counter(row.split(",")[0] for row in rows[1:])
    assert counts["train_model"] == 3
    assert counts["predict_shard"] == 6


def test_a_second_run_does_nothing(whole):
    _, copy = whole
    printed = copy.run("snakemake", "--profile", "slurm")
    assert copy.code == 0
    assert "Nothing to be done" in printed


def test_a_lost_shard_is_one_job(whole, local):
    _, copy = whole
    lost = "scores/grouped-b/fold1/shard2.scores.parquet"
    (copy.results / lost).unlink()
    printed = copy.run("snakemake", "--profile", "slurm", f"results/{lost}")
    assert copy.code == 0, printed
    assert len(re.findall("has been submitted", printed)) == 1
    assert copy.digest(lost) == local.digest(lost)
