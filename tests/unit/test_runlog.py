import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otus.runs.log import latest_log, read_run

LOGS = Path(__file__).parent / "data" / "snakemake_logs"  # of Snakemake 9.27.1, with other paths and names
STAMP = "[Sat Nov 21 13:44:27 2026]\n"


def run_of(tmp_path, text):
    path = tmp_path / "x.snakemake.log"
    path.write_text(text, encoding="utf-8")
    return read_run(path)


def jobs_of(name):
    run = read_run(LOGS / f"{name}.log")
    return run, {(job.rule, *job.wildcards.values()): job for job in run.jobs}


def block(jobid, rule="make", local=""):
    return (
        f"{STAMP}{local}rule {rule}:\n    output: out/{jobid}.txt\n    log: logs/{jobid}.log\n    jobid: {jobid}\n"
        f"    reason: Missing output files: out/{jobid}.txt\n    resources: runtime=30\n"
    )


def error(jobid, rule="make", message="None"):
    return f"{STAMP}Error in rule {rule}:\n    message: {message}\n    jobid: {jobid}\n    output: out/{jobid}.txt\n"


def test_local_run_with_retries_spaces_and_unicode():
    run, jobs = jobs_of("local")
    assert run.complete and run.total == 13 and run.not_run == 2 and run.errors == () and run.slurm_run is None
    good = jobs["make", "ünï côdé", "1"]
    assert good.outputs == ("out/ünï côdé/1.txt", "out2/ünï côdé/1 two.txt")
    assert (good.status, good.attempts, good.log) == ("finished", 1, "logs/ünï côdé 1.log")
    assert good.benchmark == "bench/ünï côdé.1.tsv" and good.local and good.external_jobid is None
    assert good.submitted == datetime(2026, 11, 21, 13, 41, 40) == good.ended
    assert good.resources["runtime"] == "5" and good.resources["mem"] == "10 MB"
    bad = jobs["make", "bad", "1"]
    assert (bad.status, bad.attempts, bad.ended) == ("failed", 2, datetime(2026, 11, 21, 13, 41, 42))
    assert bad.message.endswith("returned non-zero exit status 3.")


def test_local_exceptions_go_to_their_jobs():
    _, jobs = jobs_of("local")
    assert "scr.py' died with <Signals.SIGKILL: 9>." in jobs["scr",].message
    assert "kill -9 $$' died with <Signals.SIGKILL: 9>." in jobs["killed",].message
    assert "[ 2 = 1 ]" in next(job for job in jobs.values() if job.says == "Saying 2").message


def test_missing_outputs_are_a_failure_without_an_error_block():
    _, jobs = jobs_of("local")
    job = jobs["miss",]
    assert (job.status, job.attempts, job.outputs) == ("failed", 2, ("miss.txt", "miss2.txt"))
    assert job.message.startswith("Job 8  completed successfully") and "miss.txt (missing locally" in job.message


def test_a_message_hides_what_only_an_error_tells():
    run, _ = jobs_of("local")
    said = {job.says: job for job in run.jobs if job.says}
    assert said["Saying 1"].rule == "msg" and said["Saying 1"].outputs == () and said["Saying 1"].wildcards == {}
    assert said["Saying 2"].outputs == ("msg-2.txt", "other msg-2.txt") and said["Saying 2"].log == "logs/msg-2.log"


def test_slurm_run_with_shown_logs():
    run, jobs = jobs_of("slurm")
    assert run.slurm_run == "otus_18bdc213-9c0a-46cb-a6ad-344d935cf21b" and run.complete and run.not_run == 2
    assert sorted(job.jobid for job in run.jobs) == [1, 2, 3, 4, 5, 6, 7, 8, 10]  # no job 0 of a Snakemake inside a job
    late = jobs["timeout", "x y"]
    assert late.message.startswith("SLURM-job '109' failed, SLURM status is: 'TIMEOUT'")
    assert "For further" not in late.message and not late.local and late.attempts == 2
    assert late.external_jobid == "109" and late.slurm_log.endswith("rule_timeout/x y/109.log")
    assert late.log == "logs/timeout-x y.log"
    refused = jobs["refused", "x y"]
    assert refused.message.startswith("SLURM sbatch failed.") and "sbatch call:" in refused.message
    assert not refused.local and refused.external_jobid is None
    assert jobs["local",].local and jobs["local",].status == "finished"
    assert jobs["script", "1"].status == "finished" and jobs["script", "1"].external_jobid == "100"
    assert jobs["script", "2"].status == "failed" and jobs["script", "2"].ended == datetime(2026, 11, 21, 13, 45)
    quiet = next(job for job in run.jobs if job.says)
    assert (quiet.rule, quiet.log, quiet.outputs) == ("quiet", "logs/quiet-1.log", ("quiet-1.txt",))


def test_error_message_of_many_lines():
    run, jobs = jobs_of("no_account")
    job = jobs["script", "1"]
    assert job.message.startswith("Job submission failed with exception: The 'sacctmgr'") and "fatal" in job.message
    assert job.outputs == ("out/script-1.txt",) and job.status == "failed" and not run.complete


def test_killed_driver_and_interrupted_run():
    run, jobs = jobs_of("killed")
    assert not run.complete and [job.status for job in run.unfinished] == ["unfinished"] * 2
    assert jobs["slow", "1"].ended is None and jobs["slow", "1"].external_jobid == "101"
    run, _ = jobs_of("interrupted")
    assert run.complete and run.stopped_early and len(run.failed) == 2


def test_refused_run_says_why():
    run = read_run(LOGS / "refused.log")
    assert run.jobs == () and run.total == 3 and run.complete
    assert run.errors[0].splitlines()[1:3] == ["no", "way"]


def test_interleaved_jobs_and_restarts(tmp_path):
    run = run_of(
        tmp_path,
        block(1) + block(2) + error(1) + "Trying to restart job 1.\n" + block(3) + error(2) + block(1)
        + STAMP + "Finished jobid: 3 (Rule: make)\n" + STAMP + "Finished jobid: 1 (Rule: make)\n",
    )  # fmt: skip
    assert [(job.jobid, job.status, job.attempts) for job in run.jobs] == [
        (1, "finished", 2),
        (2, "failed", 1),
        (3, "finished", 1),
    ]
    assert run_of(tmp_path, block(1) + error(1) + "Trying to restart job 1.\n").unfinished[0].ended is None


def test_exceptions_of_two_threads_in_one_row(tmp_path):
    def died(rule, code):
        return f"RuleException:\nCalledProcessError in file x:\nCommand 'p/tmp.{rule}.py' returned exit {code}.\n"

    text = block(1, "one") + block(2, "two") + died("one", 1) + died("two", 2) + error(1, "one") + error(2, "two")
    run = run_of(tmp_path, text)
    assert [job.message[-7:] for job in run.jobs] == ["exit 1.", "exit 2."] and run.errors == ()


def test_a_job_log_cannot_forge_events(tmp_path):
    ruler = "=" * 20
    forged = f"{STAMP}Finished jobid: 1 (Rule: make)\n{ruler}\nepoch 1\nError in rule make:\n    jobid: 2\n"
    shown = f"Logfile logs/1.log:\n{ruler}\n{forged}{ruler}\n"
    lines = error(1).replace("    output", "    log: logs/1.log (check log file(s) for error details)\n    output")
    run = run_of(tmp_path, block(2) + block(1) + lines + shown + block(3))
    assert [(job.jobid, job.status) for job in run.jobs] == [(2, "unfinished"), (1, "failed"), (3, "unfinished")]


def test_shell_command_of_many_lines(tmp_path):
    shell = "    shell:\n        first\nrule x:\n    jobid: 9\n        (command exited with non-zero exit code)\n"
    run = run_of(tmp_path, block(1) + error(1) + shell + "    external_jobid: 7\n" + block(2))
    assert [(job.jobid, job.status, job.external_jobid) for job in run.jobs] == [
        (1, "failed", "7"),
        (2, "unfinished", None),
    ]


def test_quiet_log_still_tells_what_finished(tmp_path):
    text = "  Date: 2026-11-21 13:44:02\nJob 2 has been submitted with SLURM jobid 5 (log: /l/rule_make/a/5.log).\n"
    run = run_of(tmp_path, text + STAMP + "Finished jobid: 1 (Rule: make)\n")
    assert [(job.rule, job.status, job.attempts) for job in run.jobs] == [
        ("make", "unfinished", 1),
        ("make", "finished", 1),
    ]
    assert run.jobs[0].submitted == datetime(2026, 11, 21, 13, 44, 2)


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_a_log_may_break_off_anywhere(tmp_path, name):
    text = (LOGS / f"{name}.log").read_text()
    whole = {job.jobid for job in read_run(LOGS / f"{name}.log").jobs}
    for cut in range(0, len(text), 613):
        run = run_of(tmp_path, text[:cut])
        assert {job.jobid for job in run.jobs} <= whole
    assert run_of(tmp_path, "").jobs == ()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_text_is_read(tmp_path_factory, data):
    lines = (LOGS / "local.log").read_text().split("\n")
    chosen = data.draw(st.lists(st.sampled_from([*lines, "Logfile x:", "Job 1: ", "[Xxx Xxx 99 99:99:99 2026]"])))
    path = tmp_path_factory.mktemp("any") / "a.log"
    path.write_text("\n".join(chosen))
    run = read_run(path)
    assert all(job.attempts >= 1 for job in run.jobs) and run.not_run >= 0


def test_latest_log_is_of_a_run_that_started_jobs(tmp_path):
    assert latest_log(tmp_path) is None
    folder = tmp_path / ".snakemake" / "log"
    folder.mkdir(parents=True)
    for name, text in {
        "2026-11-20T235959.1": "Select jobs to execute...\nold",
        "2026-11-21T010000.1": "Select jobs to execute...\nnew",
        "2026-11-21T020000.1": "Unlocked working directory.\n",
    }.items():
        (folder / f"{name}.snakemake.log").write_text(text)
    os.utime(folder / "2026-11-20T235959.1.snakemake.log")  # a copied folder: the name counts
    assert latest_log(tmp_path).read_text().endswith("new")


def test_thousands_of_jobs_are_read_quickly(tmp_path):
    inputs = "    input: " + ", ".join(f"results/x/{i}.parquet" for i in range(30)) + "\n"
    text = "".join(
        block(i).replace("    output", inputs + "    output") + f"{STAMP}Finished jobid: {i} (Rule: make)\n"
        for i in range(5000)
    )
    started = time.perf_counter()
    assert len(run_of(tmp_path, text).jobs) == 5000
    assert time.perf_counter() - started < 2
