import csv
import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.config import Config
from otus.resources.usage import KEPT_PER_RULE, Usage, add_usage, collect_usage, median_wait_s, read_usage, update_usage
from otus.resources.workload import Load, Workload

ROW = Usage(
    rule="train_model",
    job="results/benchmarks/train_model/grouped-default.fold1.tsv",
    model="grouped-default",
    device="cpu",
    work=5.0,
    read_h=0.4,
    data_mb=89.1,
    wall_s=66.2,
    cpu_s=30.3,
    max_rss_mb=953.4,
    wait_s=None,
    attempts=1,
    host="node, 1",
    finished="2026-03-01T12:00:00",
    version="0.1.0",
)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20)
amounts = st.floats(0, 1e9)
rows = st.builds(
    Usage,
    rule=st.sampled_from(["train_model", "predict_shard"]),
    job=texts,
    model=texts,
    device=st.sampled_from(["cpu", "cuda"]),
    work=amounts,
    read_h=amounts,
    data_mb=amounts,
    wall_s=amounts,
    cpu_s=amounts,
    max_rss_mb=amounts,
    wait_s=st.none() | amounts,
    attempts=st.integers(1, 9),
    host=texts,
    finished=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda t: t.isoformat(timespec="seconds")),
    version=texts,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(rows, max_size=8, unique_by=lambda row: (row.rule, row.job, row.finished)))
def test_what_is_added_is_read_again(tmp_path_factory, new):
    path = tmp_path_factory.mktemp("usage") / "usage.csv"
    assert add_usage(path, new) == len(new)
    assert set(read_usage(path)) == set(new)
    assert add_usage(path, new) == 0


def test_no_table_is_no_rows(tmp_path):
    assert read_usage(tmp_path / "usage.csv") == []
    assert read_usage(tmp_path) == []  # a folder
    assert add_usage(tmp_path / "usage.csv", []) == 0
    assert not (tmp_path / "usage.csv").exists()


def test_adding_keeps_what_is_there_and_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "usage.csv"
    add_usage(path, [ROW])
    before = path.stat().st_ino
    assert add_usage(path, [ROW, replace(ROW, job="other")]) == 1
    assert path.stat().st_ino != before
    assert {row.job for row in read_usage(path)} == {ROW.job, "other"}
    assert [p.name for p in tmp_path.iterdir()] == ["usage.csv"]


def test_the_newest_rows_of_every_rule_are_kept(tmp_path):
    start = datetime(2026, 1, 1)
    many = [replace(ROW, finished=(start + timedelta(hours=i)).isoformat()) for i in range(KEPT_PER_RULE + 5)]
    add_usage(tmp_path / "usage.csv", [replace(ROW, rule="merge_metrics", finished="2020-01-01T00:00:00"), *many])
    kept = read_usage(tmp_path / "usage.csv")
    assert [row.rule for row in kept].count("train_model") == KEPT_PER_RULE
    assert "merge_metrics" in {row.rule for row in kept}
    assert min(row.finished for row in kept if row.rule == "train_model") == many[5].finished


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("wall_s", "-1"),
        ("wall_s", "nan"),
        ("max_rss_mb", "inf"),
        ("cpu_s", "much"),
        ("work", ""),
        ("wait_s", "-5"),
        ("device", "toaster"),
        ("rule", ""),
        ("finished", "yesterday"),
        ("attempts", "1.5"),
    ],
)
def test_a_row_that_makes_no_sense_is_left_out(tmp_path, column, value):
    path = tmp_path / "usage.csv"
    add_usage(path, [ROW, replace(ROW, job="good")])
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    table[0 if table[0]["job"] == ROW.job else 1][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    assert [row.job for row in read_usage(path)] == ["good"]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_file_stops_the_reader_or_the_writer(tmp_path_factory, content, behind):
    path = tmp_path_factory.mktemp("usage") / "usage.csv"
    add_usage(path, [ROW])
    path.write_bytes(path.read_bytes() + content if behind else content)
    assert all(row.wall_s >= 0 for row in read_usage(path))
    assert add_usage(path, [replace(ROW, job="new")]) == 1
    assert "new" in {row.job for row in read_usage(path)}


def test_a_table_of_another_version_is_not_believed(tmp_path):
    path = tmp_path / "usage.csv"
    path.write_text("rule,job,wall_s\ntrain_model,x,5\n")
    assert read_usage(path) == []


def test_the_median_wait_counts_cluster_jobs_only():
    past = [replace(ROW, wait_s=wait) for wait in (None, 10.0, 90.0, 20.0)] + [replace(ROW, rule="x", wait_s=1e6)]
    assert median_wait_s(past, ["train_model"]) == 20.0
    assert median_wait_s([ROW], ["train_model"]) is None


# What a run leaves behind ---------------------------------------------------------------------------------------------

NOW = datetime(2026, 3, 1, 12, 0, 0)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A working directory; `job` writes the benchmark and log of a job and returns how the run log tells of it."""
    monkeypatch.chdir(tmp_path)
    config = {"corpus": {"root": "r", "targets": ["hum"], "demo": {}}, "chunking": {"shards": 3}}
    workload = Workload(Config.model_validate(config))

    def job(rule, name, *, values=("66.2", "953.4", "30.3"), log="", age_s=5.0, **told):
        benchmark = tmp_path / "results" / "benchmarks" / name
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n{}\t0:01:06\t{}\t{}\n".format(*values))
        written = (NOW - timedelta(seconds=age_s)).timestamp()
        os.utime(benchmark, (written, written))
        if log:
            path = tmp_path / "results" / "logs" / name.replace(".tsv", ".log")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(log)
        facts = {
            "rule": rule,
            "says": None,
            "wildcards": {},
            "log": None,
            "benchmark": None,
            "submitted": NOW - timedelta(seconds=100),
            "ended": NOW,
            "status": "finished",
            "attempts": 1,
            "local": True,
        }
        return SimpleNamespace(**{**facts, **told})

    return SimpleNamespace(job=job, workload=workload, collect=lambda *jobs: collect_usage(run_of(jobs), workload))


def run_of(jobs):
    return SimpleNamespace(jobs=tuple(jobs))


def test_a_finished_job_is_measured_by_its_benchmark_and_its_log(made):
    log = "2026-03-01T11:58:20 otus 0.1.0 on node7, Python 3.11.7, pid 1\n... hop 20 ms, on cuda with 1 thread(s)\n"
    job = made.job(
        "train_model",
        "train_model/grouped-default.fold1.tsv",
        log=log,
        says="Training grouped-default, fold 1",
        local=False,
    )
    (row,) = made.collect(job)
    load = made.workload.load("train_model", {})
    assert (row.rule, row.model, row.device, row.host) == ("train_model", "grouped-default", "cuda", "node7")
    assert (row.wall_s, row.max_rss_mb, row.cpu_s) == (66.2, 953.4, 30.3)
    assert row.wait_s == pytest.approx(100 - 66.2)
    assert row.load == Load(round(load.work, 6), round(load.read_h, 6), round(load.data_mb, 3))
    assert (row.attempts, row.finished) == (1, "2026-03-01T12:00:00")


def test_jobs_are_told_apart_by_their_messages_or_wildcards(made):
    jobs = [
        made.job(
            "predict_shard",
            f"predict_shard/grouped-default.shard{n}.tsv",
            values=(str(n), "1", "1"),
            **(
                {"says": f"Scoring shard {n} with grouped-default"}
                if n < 3
                else {"wildcards": {"dataset": "grouped", "training": "default", "shard": "3"}}
            ),
        )
        for n in (1, 2, 3)
    ]
    assert sorted((row.job[-10:], row.wall_s) for row in made.collect(*jobs)) == [
        ("shard1.tsv", 1.0),
        ("shard2.tsv", 2.0),
        ("shard3.tsv", 3.0),
    ]


def test_jobs_of_a_quiet_run_are_told_by_the_time_of_their_files(made):
    jobs = [
        made.job(
            "train_model",
            f"train_model/grouped-default.fold{n}.tsv",
            values=(str(n), "1", "1"),
            age_s=100 * n,
            ended=NOW - timedelta(seconds=100 * n - 2),
            submitted=NOW - timedelta(seconds=100 * n - 2),  # the log only tells the end
        )
        for n in (1, 2, 3)
    ]
    found = made.collect(*reversed(jobs))
    assert {row.job[-9:]: row.finished[-8:] for row in found} == {
        "fold1.tsv": "11:58:22",
        "fold2.tsv": "11:56:42",
        "fold3.tsv": "11:55:02",
    }
    assert {row.wait_s for row in found} == {None}


@pytest.mark.parametrize("status", ["failed", "unfinished"])
def test_jobs_that_did_not_finish_are_left_out(made, status):
    assert made.collect(made.job("merge_metrics", "merge_metrics.tsv", status=status)) == []


def test_a_benchmark_of_an_earlier_run_is_left_out(made):
    assert made.collect(made.job("merge_metrics", "merge_metrics.tsv", age_s=3600)) == []
    assert len(made.collect(made.job("merge_metrics", "merge_metrics.tsv", age_s=120))) == 1  # clocks differ


@pytest.mark.parametrize("values", [("0.4", "NA", "NA"), ("0.4", "-", "-"), ("nan", "1", "1"), ("", "", "")])
def test_jobs_too_short_to_be_measured_are_left_out(made, values):
    assert made.collect(made.job("merge_metrics", "merge_metrics.tsv", values=values)) == []


def test_a_job_without_a_benchmark_file_is_left_out(made, tmp_path):
    job = made.job("merge_metrics", "merge_metrics.tsv")
    (tmp_path / "results" / "benchmarks" / "merge_metrics.tsv").unlink()
    assert made.collect(job) == []
    (tmp_path / "results" / "benchmarks" / "merge_metrics.tsv").write_text("")
    assert made.collect(job) == []


def test_the_time_of_a_resumed_job_is_marked_as_not_the_whole(made):
    log = "resuming after epoch 7 of 30\n"
    says = "Training grouped-default, fold 1"
    resumed = made.job("train_model", "train_model/grouped-default.fold1.tsv", log=log, says=says, local=False)
    assert made.collect(resumed)[0].attempts == 2
    retried = made.job("merge_metrics", "merge_metrics.tsv", attempts=3, local=False)
    assert (made.collect(retried)[0].attempts, made.collect(retried)[0].wait_s) == (3, None)


def test_a_run_is_added_once(made, tmp_path):
    run = run_of([made.job("merge_metrics", "merge_metrics.tsv")])
    assert update_usage(tmp_path / "usage.csv", run, made.workload) == 1
    assert update_usage(tmp_path / "usage.csv", run, made.workload) == 0
    assert [row.rule for row in read_usage(tmp_path / "usage.csv")] == ["merge_metrics"]


def test_the_logs_still_say_what_is_looked_for():
    """Device and resumption are read off the logs: the sentences have to stay."""
    root = Path(__file__).parents[2]
    assert "on {device}" in (root / "scripts" / "predict_shard.py").read_text()
    assert "on {device} with" in (root / "src" / "otus" / "training" / "stage.py").read_text()
    assert "resuming after epoch" in (root / "src" / "otus" / "training" / "loop.py").read_text()
    assert "otus {__version__} on {platform.node()}, Python " in (root / "src" / "otus" / "joblog.py").read_text()
