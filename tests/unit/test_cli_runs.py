import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from otus.cli import main, runs
from otus.errors import MissingPartError
from otus.runs.driver import ClusterJob, driver_file, record_driver

LOGS = Path(__file__).parent / "data" / "snakemake_logs"
COMMAND = ["/x/snakemake", "--profile", "slurm", "-F", "train"]


class Replaced(Exception):
    """This process would have become another one."""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory; becoming Snakemake raises Replaced with its arguments."""

    def execv(path, words):
        assert words[:3] == [sys.executable, "-m", "snakemake"] and path == sys.executable
        raise Replaced(words[3:])

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(runs, "own_jobs", lambda folder, sleep: [])
    monkeypatch.delenv("OTUS_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use_log(folder, name):
    (folder / ".snakemake" / "log").mkdir(parents=True, exist_ok=True)
    shutil.copy(LOGS / f"{name}.log", folder / ".snakemake" / "log" / "2026-11-21T134427.snakemake.log")


def record(folder, **changes):
    record_driver(folder, COMMAND, ["train"], slurm=True)
    values = json.loads(driver_file(folder).read_text()) | {"process_start": "long ago"} | changes
    driver_file(folder).write_text(json.dumps(values))


def running(folder):
    record_driver(folder, COMMAND, ["train"], slurm=True)


def lock(folder):
    (folder / ".snakemake" / "locks").mkdir(parents=True, exist_ok=True)
    (folder / ".snakemake" / "locks" / "0.input.lock").touch()


def becomes(*words):
    with pytest.raises(Replaced) as replaced:
        main(words)
    return replaced.value.args[0]


def refused(capsys, code, *words):
    assert main(words) == code
    return capsys.readouterr().err


def test_help_of_commands_that_pass_words_on(capsys):
    for command, flag in (("rerun", "--failed"), ("resume", "--wait")):
        with pytest.raises(SystemExit) as end:
            main([command, "--profile", "slurm", "-h"])
        assert end.value.code == 0 and f"\n  {flag} " in capsys.readouterr().out


def test_failures_of_the_last_run(work, capsys):
    assert main(["failures"]) == 0 and "No run has left a log here" in capsys.readouterr().out
    use_log(work, "slurm")
    record(work, ended="2026-11-21T13:50:00")
    assert main(["failures"]) == 0
    text = capsys.readouterr().out
    assert text.count("  reason ") == 7
    assert "  rerun    snakemake --profile slurm -- 'out/timeout-x y.txt'\n" in text


def test_failures_of_a_given_log_all_of_them(work, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "failure_text", lambda failures, run, limit: seen.append(limit) or "")
    assert main(["failures", "--log", str(LOGS / "local.log")]) == 0
    assert main(["failures", "--all", "--log", str(LOGS / "local.log")]) == 0
    assert seen == [20, None]
    assert main(["failures", "--log", "nowhere.log"]) == 5


def test_runs_that_ended_otherwise(work, capsys):
    use_log(work, "killed")
    main(["failures"])
    assert capsys.readouterr().out == "The log of the last run breaks off, with 2 jobs unfinished: otus resume\n"
    running(work)
    main(["failures"])
    assert capsys.readouterr().out == "The run is still at work on 2 jobs.\n"
    main(["failures", "--log", str(LOGS / "refused.log")])
    assert "no\nway" in capsys.readouterr().out
    log = work / "good.log"
    log.write_text("Complete log(s): x\n")
    main(["failures", "--log", str(log)])
    assert capsys.readouterr().out == "The last run had no failures (good.log).\n"


def test_rerun_makes_the_first_outputs_of_failed_jobs(work):
    use_log(work, "local")
    record(work, ended="2026-11-21T13:50:00")
    first = ["out/bad/1.txt", "killed.txt", "miss.txt", "msg-2.txt", "scr.txt"]
    words = becomes("rerun", "--failed")
    assert words[:3] == ["--profile", "slurm", "--"] and sorted(words[3:]) == sorted(first)
    words = becomes("rerun", "-n", "--failed", "-c1", "--config", "a=b c")
    assert words[:5] == ["--dry-run", "-c1", "--config", "a=b c", "--"] and sorted(words[5:]) == sorted(first)


def test_rerun_with_nothing_to_do_or_nothing_known(work, capsys):
    with pytest.raises(SystemExit) as end:
        main(["rerun"])
    assert end.value.code == 2
    assert "no run has left a log here" in refused(capsys, 3, "rerun", "--failed")
    use_log(work, "killed")
    assert main(["rerun", "--failed"]) == 0 and capsys.readouterr().out.startswith("Nothing failed in the last run")
    use_log(work, "local")
    assert "the arguments of the last run are not known" in refused(capsys, 3, "rerun", "--failed")
    lock(work)
    record(work)
    assert "otus resume" in refused(capsys, 4, "rerun", "--failed")
    running(work)
    assert "is still at work here" in refused(capsys, 4, "rerun", "--failed")


def test_rerun_never_falls_back_on_the_default_target(work, capsys):
    use_log(work, "local")
    record(work, ended="2026-11-21T13:50:00")
    log = next((work / ".snakemake" / "log").iterdir())
    kept = [
        line for line in log.read_text().split("\n") if not line.startswith("    output:") and "(missing" not in line
    ]
    log.write_text("\n".join(kept))
    error = refused(capsys, 3, "rerun", "--failed")
    assert "Left out" in error and "names no output of the failed jobs" in error


def test_resume_of_a_dead_run(work, capsys):
    record(work)
    assert becomes("resume") == ["--rerun-incomplete", "--profile", "slurm", "train"]
    assert becomes("resume", "--wait", "--profile", "slurm", "--rerun-incomplete") == [
        "--profile",
        "slurm",
        "--rerun-incomplete",
    ]
    assert "snakemake --rerun-incomplete --profile slurm train\n" in capsys.readouterr().out


def test_resume_starts_where_the_command_was_typed(work, monkeypatch):
    (work / "here").mkdir()
    record(work, launched_in=str(work / "here"))
    becomes("resume")
    assert Path.cwd() == work / "here"


def test_resume_follows_the_directory_option(work, capsys):
    (work / "run").mkdir()
    running(work / "run")
    assert "is still at work" in refused(capsys, 4, "resume", "--directory", "run")


def test_dry_run_changes_nothing(work):
    lock(work)
    running(work)
    assert becomes("resume", "--wait", "--profile", "slurm", "-n") == ["--dry-run", "--profile", "slurm"]
    assert (work / ".snakemake" / "locks" / "0.input.lock").exists()


def test_resume_refuses_what_may_be_alive(work, capsys):
    assert "no run is known here" in refused(capsys, 3, "resume")
    running(work)
    assert f"process {os.getpid()}" in refused(capsys, 4, "resume", "--force")
    record(work, host="login2")
    error = refused(capsys, 4, "resume")
    assert "was started on login2" in error and error.endswith("otus resume --force.\n")
    assert becomes("resume", "--force") == ["--rerun-incomplete", "--profile", "slurm", "train"]


def test_lock_of_an_unknown_run(work, capsys):
    lock(work)
    assert "locked by a run of which nothing else is known" in refused(capsys, 4, "resume", "-c1")
    record(work, ended="2026-11-21T13:50:00")
    assert "nothing else is known" in refused(capsys, 4, "resume")


def test_resume_unlocks_a_folder(work, monkeypatch, capsys):
    calls = []

    def run(code, words, cwd, check):
        calls.append((words[3:], cwd))
        return subprocess.CompletedProcess(words, code)

    lock(work)
    record(work)
    monkeypatch.setattr(subprocess, "run", partial(run, 0))
    becomes("resume")
    assert calls == [(["--unlock", "--profile", "slurm", "train"], str(work))]
    monkeypatch.setattr(subprocess, "run", partial(run, 1))
    assert "could not unlock" in refused(capsys, 4, "resume")


def test_jobs_that_are_left_are_waited_for(work, monkeypatch, capsys):
    record(work)
    three = [ClusterJob(str(i), "otus_a", "RUNNING", f"rule_predict_shard_wildcards_a_{i}") for i in range(3)]
    silence = MissingPartError("The Slurm controller does not answer.")
    answers = iter([three, three, three, three[:1], silence, silence, three[:1], []])

    def own_jobs(folder, sleep):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(runs, "own_jobs", own_jobs)
    error = refused(capsys, 4, "resume")
    assert "3 Slurm jobs of an earlier run" in error and "`otus resume --wait --profile slurm train`" in error
    pauses = []
    with pytest.raises(Replaced):
        runs.resume(None, ["--wait"], sleep=pauses.append)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and pauses == [20.0] * 6
    shown = ", ".join(f"{i} predict_shard a_{i} (running)" for i in range(3))
    assert lines[0].endswith(f" waiting for {shown}")
    assert lines[1].endswith("waiting for 0 predict_shard a_0 (running)") and lines[2].endswith("Still waiting.")


def test_waiting_can_be_stopped(work, monkeypatch, capsys):
    def sleep(seconds):
        raise KeyboardInterrupt

    record(work)
    monkeypatch.setattr(runs, "own_jobs", lambda folder, sleep: [ClusterJob("1", "otus_a", "RUNNING", "rule_x")])
    assert runs.resume(None, ["--wait"], sleep=sleep) == 130
    assert "the Slurm jobs go on" in capsys.readouterr().err


def test_a_local_run_asks_no_slurm(work, monkeypatch):
    def own_jobs(folder, sleep):
        pytest.fail("asked")

    monkeypatch.setattr(runs, "own_jobs", own_jobs)
    record(work, slurm=False)
    becomes("resume")
