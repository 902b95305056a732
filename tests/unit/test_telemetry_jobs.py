"""What becomes of journals: the figures of a run, the table of the jobs, and what a person is told."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from otus.cli import main
from otus.cli.jobs import jobs_text
from otus.tables import read_table
from otus.telemetry import open_journal
from otus.telemetry.jobs import summarise_jobs, write_jobs
from otus.telemetry.summary import read_journal, runs_of, summarise

BEGAN = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(hours=1)
START = {"asked_mem_mb": 4000, "asked_min": 60, "threads": 2}
GPU = {"gpu_uuid": "GPU-a", "gpu_name": "NVIDIA H200"}


def event(kind, at_s, run="r1", attempt=1, **fields):
    ts = (BEGAN + timedelta(seconds=at_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    names = {"stage": "predict", "rule": "predict_shard", "job": "m.fold1.shard1", "host": "n1", "pid": 1}
    return {"schema": 1, "ts": ts, "run_id": run, "event": kind, **names, "attempt": attempt, **fields}


def item(at_s, status="ok", **fields):
    return event("item_end", at_s, item_id=f"c{at_s}", **{"status": status, "audio_s": 120.0, **fields})


def journal(results, events, job="m.fold1.shard1", rule="predict_shard"):
    path = results / "telemetry" / rule / f"{job}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(e) + "\n" for e in events))
    return path


def benchmark(results, wall_s=110.0, cpu_s=90.0, rss_mb=900.0, job="m.fold1.shard1", rule="predict_shard", at_s=100):
    path = results / "benchmarks" / rule / f"{job}.tsv" if job else results / "benchmarks" / f"{rule}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{wall_s}\t0:01:50\t{rss_mb}\t{cpu_s}\n")
    when = BEGAN.timestamp() + at_s
    os.utime(path, (when, when))


def whole(**end):
    """A run of 100 s on a GPU."""
    return [
        event("run_start", 0, **START),
        event("sample", 10, rss_mb=500, cpu_s=8, gpu_util_mean=20, gpu_util_p95=30, vram_peak_mb=70, energy_j=1, **GPU),
        item(20, data_wait_s=5.0, gpu_s=4.0),
        event("oom_backoff", 25, batch_size=16),
        item(30, data_wait_s=5.0, gpu_s=6.0, attempt=3),
        item(40, "failed", error_class="DataError"),
        item(45, "skipped"),
        event("sample", 50, rss_mb=800, cpu_s=40, gpu_util_mean=60, gpu_util_p95=90, vram_peak_mb=50, energy_j=7200),
        event("run_end", 100, **{"status": "ok", "gpu_util_mean": 45, "gpu_util_p95": 88, "cpu_s": 80, **GPU, **end}),
    ]


def test_a_run_adds_up():
    found = summarise(whole(), NOW)
    assert (found.status, found.wall_s, found.cpu_s, found.rss_peak_mb) == ("ok", 100, 80, 800)
    assert (found.items_ok, found.items_failed, found.items_skipped) == (2, 1, 1)
    assert (found.retries, found.oom_backoffs) == (2, 1)
    assert found.audio_h == 240 / 3600, "what failed or was skipped was not done"
    assert found.rtf == 2.4 and found.data_wait_s == 10 and found.data_wait_share == 0.1 and found.gpu_s == 10
    assert (found.gpu_util_mean, found.gpu_util_p95, found.vram_peak_mb, found.energy_wh) == (45, 88, 70, 2)
    assert (found.gpu_uuid, found.asked_mem_mb, found.asked_min, found.threads) == ("GPU-a", 4000, 60, 2)
    assert found.error_class is None and found.started == whole()[0]["ts"] and found.ended == whole()[-1]["ts"]


def test_totals_of_parts_go_before_the_sum_over_items():
    events = whole()
    events[-1:-1] = [event("stage_end", 90, data_wait_s=30.0), event("stage_end", 91, data_wait_s=20.0)]
    found = summarise(events, NOW)
    assert found.data_wait_share == 0.5 and found.gpu_s == 10


def test_a_run_that_was_killed_is_told_from_its_samples_and_is_lost_once_it_is_silent():
    events = whole()[:-1]
    assert summarise(events, BEGAN + timedelta(seconds=60)).status == "running"
    found = summarise(events, NOW)
    assert (found.status, found.wall_s, found.cpu_s) == ("lost", 50, 40)
    assert (found.gpu_util_mean, found.gpu_util_p95, found.energy_wh) == (40, 90, 2)


def test_a_run_of_which_only_the_start_is_known():
    found = summarise([event("run_start", 0)], NOW)
    assert (found.status, found.wall_s, found.items_ok) == ("lost", 0, 0)
    assert (found.rtf, found.audio_h, found.cpu_s, found.gpu_util_mean, found.data_wait_share) == (None,) * 5


def test_runs_are_told_apart():
    events = [event("run_start", 0), event("run_start", 5, "r2", 2), event("run_end", 9, "r2", 2, status="ok")]
    assert [[e["event"] for e in run] for run in runs_of(events)] == [["run_start"], ["run_start", "run_end"]]


def test_what_a_journal_writes_can_be_summed_up(tmp_path):
    with open_journal(tmp_path / "j.jsonl", stage="train", rule="train_model", log=print) as writer:
        writer.write("item_end", status="ok", audio_s=3600.0)
        writer.keep(rss_mb=5.0, no_gpu="no GPU: none")
    found = summarise(read_journal(tmp_path / "j.jsonl"), datetime.now(UTC))
    assert (found.status, found.items_ok, found.audio_h, found.rss_peak_mb) == ("ok", 1, 1.0, 5.0)
    assert found.no_gpu == "no GPU: none" and 0 <= found.wall_s < 60


def row(results, now=NOW):
    jobs = summarise_jobs(results, now)
    assert len(jobs) == 1
    return jobs.iloc[0]


def test_a_row_holds_journal_and_benchmark_file(tmp_path):
    journal(tmp_path, whole())
    benchmark(tmp_path)
    found = row(tmp_path)
    assert (found["rule"], found["job"], found["status"]) == ("predict_shard", "m.fold1.shard1", "ok")
    assert (found["wall_s"], found["cpu_s"], found["rss_peak_mb"]) == (110, 90, 900), "with the start of Python"
    assert (found["asked_mem_mb"], found["asked_min"], found["gpu_util_mean"]) == (4000, 60, 45)


def test_a_benchmark_file_of_an_earlier_run_does_not_count(tmp_path):
    journal(tmp_path, whole())
    benchmark(tmp_path, at_s=-3600)
    assert row(tmp_path)["wall_s"] == 100


def test_a_benchmark_file_does_not_count_for_a_run_that_failed(tmp_path):
    journal(tmp_path, whole(status="failed", error_class="StageError", error_tail="it diverged."))
    benchmark(tmp_path)
    found = row(tmp_path)
    assert (found["wall_s"], found["status"], found["error_class"]) == (100, "failed", "StageError")


def test_the_last_start_of_a_job_is_its_row(tmp_path):
    second = [event("run_start", 200, "r2", 2), event("run_end", 260, "r2", 2, status="ok")]
    journal(tmp_path, [*whole(status="failed"), *second])
    found = row(tmp_path)
    assert (found["status"], found["attempt"], found["wall_s"], found["items_ok"]) == ("ok", 2, 60, 0)


def test_jobs_without_a_journal_are_rows_too(tmp_path):
    benchmark(tmp_path, rule="merge_metrics", job="")
    found = row(tmp_path)
    assert (found["rule"], found["job"], found["status"]) == ("merge_metrics", "merge_metrics", "ok")
    assert found["wall_s"] == 110 and found["ended"] == "2026-03-01T03:01:40Z"


@pytest.mark.parametrize("text", ["", "s\n", "s\tmax_rss\tcpu_time\n-\tNA\t-\n", "\0\xff", "s\tcpu_time\nnan\t3\n"])
def test_files_that_say_nothing_are_passed_over(tmp_path, text):
    benchmark(tmp_path)
    (tmp_path / "benchmarks" / "predict_shard" / "m.fold1.shard1.tsv").write_text(text, encoding="latin-1")
    journal(tmp_path, [], job="other").write_text(text, encoding="latin-1")
    (tmp_path / "telemetry" / "predict_shard" / "folder.jsonl").mkdir()
    assert summarise_jobs(tmp_path, NOW).empty and summarise_jobs(tmp_path / "nowhere", NOW).empty


def test_the_order_is_that_of_the_names(tmp_path):
    for job in ("b", "a.fold10", "a.fold1"):
        journal(tmp_path, whole(), job=job)
    benchmark(tmp_path, rule="evaluate_model", job="a")
    jobs = summarise_jobs(tmp_path, NOW)
    assert list(zip(jobs["rule"], jobs["job"], strict=True)) == [
        ("evaluate_model", "a"),
        ("predict_shard", "a.fold1"),
        ("predict_shard", "a.fold10"),
        ("predict_shard", "b"),
    ]


def test_the_table_is_written_beside_the_benchmark_files_and_again_in_the_same_way(tmp_path):
    write_jobs(tmp_path, NOW)
    assert list(tmp_path.iterdir()) == [], "nothing of nothing"
    journal(tmp_path, whole())
    write_jobs(tmp_path, NOW)
    first = (tmp_path / "benchmarks" / "jobs.csv").read_bytes()
    assert read_table(tmp_path / "benchmarks" / "jobs.parquet", "jobs")["energy_wh"].tolist() == [2.0]
    write_jobs(tmp_path, NOW)
    assert (tmp_path / "benchmarks" / "jobs.csv").read_bytes() == first


def cells(text, rule):
    line = next(line for line in text.splitlines() if line.split()[0] == rule)
    return " ".join(line.split())


def test_a_person_reads_a_line_per_rule(tmp_path):
    journal(tmp_path, whole(status="failed", error_class="DataError", error_tail="a.wav: is empty."), job="a")
    journal(tmp_path, whole(), job="b")
    benchmark(tmp_path, rule="evaluate_model", job="m", wall_s=7300, cpu_s=14_600, rss_mb=2048)
    text = jobs_text(summarise_jobs(tmp_path, NOW))
    assert cells(text, "predict_shard") == "predict_shard 1 ok, 1 failed 3 min 3 % 0.8 800 MB 20 % 2.4 10 % 45 %"
    assert cells(text, "evaluate_model") == "evaluate_model 1 ok 2.0 h - 2 2.0 GB - - - -"
    assert "failed: predict_shard a on n1, start 1: a.wav: is empty.\n" in text and "otus failures" in text
    assert "predict_shard: memory ran out 2 times" in text
    assert max(map(len, text.split("\n\n", maxsplit=1)[0].splitlines())) <= 110


def test_an_idle_gpu_and_tight_memory_are_pointed_out_and_a_job_for_the_cpu_is_not(tmp_path):
    events = whole(gpu_util_mean=12, no_gpu="no GPU: the job computes on cpu")
    events[-1:-1] = [event("stage_end", 99, data_wait_s=80.0), event("sample", 99, rss_mb=3900)]
    journal(tmp_path, events)
    journal(tmp_path, whole(no_gpu="no GPU: CUDA_VISIBLE_DEVICES is empty"), job="other")
    text = jobs_text(summarise_jobs(tmp_path, NOW))
    assert "the GPU was 12 % busy and waited for data 80 % of the time (m.fold1.shard1)" in text
    assert "m.fold1.shard1 took 98 % of the memory that it asked for" in text
    assert "no GPU: CUDA_VISIBLE_DEVICES is empty." in text and "computes on cpu" not in text


def test_a_lost_job_is_told_although_it_said_nothing(tmp_path):
    journal(tmp_path, whole()[:3])
    text = jobs_text(summarise_jobs(tmp_path, NOW))
    assert "lost: predict_shard m.fold1.shard1 on n1, start 1: ended without a word" in text


def test_the_command_prints_the_table(tmp_path, capsys):
    journal(tmp_path, whole())
    assert main(["jobs", str(tmp_path)]) == 0
    assert "predict_shard" in capsys.readouterr().out
    assert main(["jobs", str(tmp_path / "none")]) == 3
    error = capsys.readouterr().err
    assert "no job has left anything there" in error and error.count("\n") == 1
