import shlex
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from otus.errors import DataError
from otus.joblog import job_log
from otus.runs.failures import failure_text, failures_of
from otus.runs.log import JobRun, RunLog, read_run

LOGS = Path(__file__).parent / "data" / "snakemake_logs"
NOW = datetime(2026, 11, 21, 13)
JOB = JobRun(
    rule="train_model",
    jobid=5,
    says=None,
    wildcards={"dataset": "birds", "training": "dense", "fold": "2"},
    outputs=("results/models/birds-dense/fold2/model.safetensors", "results/models/birds-dense/fold2/card.json"),
    log="results/logs/train_model/birds-dense.fold2.log",
    benchmark=None,
    resources={"mem_mb": "6000", "runtime": "240"},
    submitted=NOW,
    ended=NOW,
    status="failed",
    attempts=3,
    message=None,
    external_jobid="12",
    slurm_log="logs/slurm/rule_train_model/birds_dense_2/12.log",
    local=False,
)
SLURMSTEPD = "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-21T13:00:00 DUE TO "
HEADER = "\nSNAKEMAKE\n=========\n  Date: 2026-11-21 13:44:45\n"


def ended(status):
    return f"SLURM-job '12' failed, SLURM status is: '{status}'. Reason: Unknown."


def run_with(*jobs, **values):
    run = RunLog(Path("x.log"), jobs, True, False, None, None, ())
    return replace(run, **values)


def failure(folder, job=JOB, rule_log=None, slurm_log=None, command=("snakemake",), targets=(), **values):
    for name, text in ((job.log, rule_log), (job.slurm_log, slurm_log)):
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return failures_of(run_with(job, **values), folder, command, targets)[0]


def test_the_block_of_the_promise(tmp_path):
    job = replace(JOB, message=ended("TIMEOUT"))
    command = ["/x/snakemake/__main__.py", "--profile", "slurm", "all"]
    found = failure(tmp_path, job, "2026-11-21T13:00:00 epoch 3\n", "", command, ["all"])
    assert failure_text([found]).splitlines() == [
        "train_model  dataset birds, training dense, fold 2   (3 attempts)",
        "  reason   time limit reached (240 min): the training goes on from its last epoch when it is run again",
        "  log      results/logs/train_model/birds-dense.fold2.log",
        "  slurm    job 12, logs/slurm/rule_train_model/birds_dense_2/12.log",
        "  rerun    snakemake --profile slurm -- results/models/birds-dense/fold2/model.safetensors",
    ]


def test_the_sentence_of_the_job_itself_comes_first(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("warnings.showwarning", None)
    job_log(tmp_path / JOB.log)
    sys.excepthook(DataError, DataError("clips.parquet: no target clips; annotate some."), None)
    found = failure(tmp_path, replace(JOB, message=ended("FAILED")), slurm_log="srun: error: oom-kill\n")
    assert found.reason == "clips.parquet: no target clips; annotate some." and found.log == JOB.log
    found = failure(tmp_path, replace(JOB, message=ended("OUT_OF_MEMORY")))
    assert found.reason == "out of memory (it had 6000 MB): clips.parquet: no target clips; annotate some."


def test_a_reason_of_an_earlier_start_is_not_this_one(tmp_path):
    log = (
        "2026-11-21T13:00:00 otus 0.1.0 on n1, Python 3.11.7, pid 1\n2026-11-21T13:00:01 FAILED: stopped by a signal\n"
        "2026-11-21T14:00:00 otus 0.1.0 on n2, Python 3.11.7, pid 2\n2026-11-21T14:00:01 epoch 4\n"
    )
    found = failure(tmp_path, replace(JOB, message=ended("FAILED")), log)
    assert found.reason == "it stopped without giving a reason; its log ends with: epoch 4"


@pytest.mark.parametrize(
    ("status", "slurm_log", "reason"),
    [
        ("OUT_OF_MEMORY", "", "out of memory (it had 6000 MB): each attempt gets more"),
        ("FAILED", "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=12.0.\n", "out of memory"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0.\n", "out of memory"),
        ("FAILED", "slurmstepd: error: StepId=12.0 exceeded memory limit (11 > 10), being killed\n", "out of memory"),
        ("FAILED", "slurmstepd: error: Exceeded job memory limit\n", "out of memory"),
        ("FAILED", SLURMSTEPD + "TIME LIMIT ***\n", "time limit reached (240 min)"),
        ("CANCELLED", "", "cancelled, by you"),
        ("CANCELLED", SLURMSTEPD + "PREEMPTION ***\n", "pushed aside by a job of higher priority"),
        ("CANCELLED", SLURMSTEPD + "PREEMPTION ***\n" + HEADER + "later start\n", "cancelled, by you"),
        ("PREEMPTED", "", "pushed aside"),
        ("NODE_FAIL", "", "the node that it ran on failed"),
        ("BOOT_FAIL", "", "the node that it was to run on did not start"),
        ("DEADLINE", "", "its deadline passed"),
        ("NEW_STATE", "", "Slurm ended it with the status NEW_STATE"),
        ("FAILED", "", "it stopped without giving a reason (Slurm says FAILED)"),
        (
            "FAILED",
            HEADER + "Traceback:\n  File x\nModuleNotFoundError: No module named 'otus'\nRuleException:\n"
            "[Sat Nov 21 13:44:46 2026]\nError in rule train_model:\n    jobid: 0\nWorkflowError:\n"
            "At least one job did not complete successfully.\n",
            "it stopped without giving a reason; its Slurm log ends with: ModuleNotFoundError: No module named 'otus'",
        ),
    ],
)
def test_what_slurm_says(tmp_path, status, slurm_log, reason):
    found = failure(tmp_path, replace(JOB, message=ended(status)), slurm_log=slurm_log)
    assert found.reason.startswith(reason)
    assert "--set-resources" not in found.reason
    if slurm_log:
        assert found.log == JOB.slurm_log


def test_time_limit_of_a_job_that_does_not_resume(tmp_path):
    job = replace(JOB, rule="predict_shard", message=ended("TIMEOUT"), resources={})
    assert (
        failure(tmp_path, job).reason == "time limit reached: each attempt gets more, so run it again with --retries 4"
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Command 'x' died with <Signals.SIGKILL: 9>.", "killed by the system (signal 9), most likely because memory"),
        ("Command 'x' returned non-zero exit status 137.", "killed by the system (signal 9)"),
        ("Command 'x' returned non-zero exit status 139.", "ended by signal 11 (SIGSEGV)"),
        ("Command 'x' died with <Signals.SIGINT: 2>.", "stopped together with the run"),
        ("Command 'x' died with <Signals.SIGTERM: 15>.", "ended by signal 15 (SIGTERM)"),
        ("Command 'x\ny' returned non-zero exit status 3.", "it stopped without giving a reason (exit status 3)"),
        ("Command 'x' returned non-zero exit status 255.", "it stopped without giving a reason (exit status 255)"),
        (None, "it stopped without giving a reason"),
    ],
)
def test_what_is_known_of_a_local_job(tmp_path, message, reason):
    job = replace(JOB, message=message, external_jobid=None, slurm_log=None, local=True)
    assert failure(tmp_path, job).reason.startswith(reason)


def test_a_local_job_that_ends_with_the_run(tmp_path):
    job = replace(JOB, message="Command 'x' died with <Signals.SIGTERM: 15>.", slurm_log=None)
    assert failure(tmp_path, job, stopped_early=True).reason.startswith("stopped together with the run")


def test_recorded_local_run(tmp_path):
    run = read_run(LOGS / "local.log")
    reasons = {f.rule: f for f in failures_of(run, tmp_path, ["snakemake", "-c2"])}
    assert reasons["miss"].reason.startswith("it ended well, but miss.txt could not be seen within 1 s")
    assert reasons["msg"].work == "Saying 2" and reasons["scr"].reason.startswith("killed by the system")
    assert failure_text(list(reasons.values()), run).endswith(
        "2 jobs were not run, because they depend on what failed."
    )


def test_recorded_slurm_run(tmp_path):
    run = read_run(LOGS / "slurm.log")
    found = {f.rule: f for f in failures_of(run, tmp_path)}
    assert found["refused"].reason == (
        "sbatch did not take the job: Batch job submission failed: "
        "Invalid account or account/partition combination specified"
    )
    assert found["node"].reason == "the node that it ran on failed: run it again"
    words = shlex.split(found["oom"].rerun)
    assert words == ["snakemake", "--", "out/oom-x y.txt"]
    job = next(f for f in failures_of(read_run(LOGS / "no_account.log"), tmp_path) if f.rule == "script")
    assert job.reason.startswith("the job could not be handed to Slurm: The 'sacctmgr' reported")


def test_rerun_command_neither_forces_nor_keeps_old_targets(tmp_path):
    command = ["snakemake", "train", "--forceall", "-R", "train_model", "--config", "a=b c"]
    found = failure(tmp_path, command=command, targets=["train"])
    assert shlex.split(found.rerun) == ["snakemake", "--config", "a=b c", "--", JOB.outputs[0]]
    assert failure(tmp_path, replace(JOB, outputs=())).rerun is None


def test_paths_inside_the_folder_are_short(tmp_path):
    job = replace(JOB, slurm_log=str(tmp_path / JOB.slurm_log), message=ended("FAILED"))
    (tmp_path / JOB.slurm_log).parent.mkdir(parents=True)
    (tmp_path / JOB.slurm_log).write_text("x\n")
    assert failure(tmp_path, job).log == JOB.slurm_log


def test_many_failures_are_counted(tmp_path):
    jobs = [replace(JOB, jobid=i, log=None, slurm_log=None, external_jobid=None) for i in range(25)]
    run = run_with(*jobs, total=37)
    failures = failures_of(run, tmp_path)
    text = failure_text(failures, run)
    assert text.count("  reason ") == 20 and "... and 5 more: otus failures --all" in text
    assert text.endswith("12 jobs were not run, because they depend on what failed.")
    assert failure_text(failures, limit=None).count("  reason ") == 25
    assert failure_text(failures, replace(run, stopped_early=True)).endswith("because the run stopped early.")
    assert "not run" not in failure_text(failures, replace(run, complete=False))
    assert failure_text([]) == "" == failure_text([], run)


def test_a_log_that_is_no_text_or_cannot_be_read(tmp_path):
    (tmp_path / JOB.log).mkdir(parents=True)
    (tmp_path / JOB.slurm_log).parent.mkdir(parents=True)
    (tmp_path / JOB.slurm_log).write_bytes(b"\xff\xfe\x00 broken\n")
    assert failure(tmp_path, replace(JOB, message=ended("FAILED"))).reason.endswith("broken")
