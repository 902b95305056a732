import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.errors import DataError, MissingPartError
from otus.runs import driver
from otus.runs.driver import (
    ClusterJob,
    driver_file,
    driver_state,
    forget_driver,
    guard_text,
    locked,
    own_jobs,
    read_driver,
    record_driver,
    unforced,
    untargeted,
    with_targets,
    working_directory,
)

COMMAND = ["/x/snakemake", "--profile", "slurm", "train"]


def record(folder, **changes):
    record_driver(folder, COMMAND, ["train"], slurm=True)
    values = json.loads(driver_file(folder).read_text()) | changes
    driver_file(folder).write_text(json.dumps(values))


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A squeue that prints what it is given, or fails so many times before that."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_PARTITION", "none")

    def install(output, failures=0):
        (folder / "output").write_text(output)
        (folder / "calls").write_text("")
        script = folder / "squeue"
        script.write_text(
            f"#!{sys.executable}\nimport os, pathlib, sys\nhere = pathlib.Path({str(folder)!r})\n"
            "calls = here / 'calls'\n"
            "with calls.open('a') as f: print(sys.argv[1:], 'SQUEUE_PARTITION' in os.environ, file=f)\n"
            f"if len(calls.read_text().splitlines()) <= {failures}:\n"
            "    sys.exit('x\\nslurm_load_jobs error: Unable to contact slurm controller (connect failure)')\n"
            "print((here / 'output').read_text(), end='')\n"
        )
        script.chmod(0o755)
        return folder / "calls"

    return install


def test_record_and_end_of_this_process(tmp_path):
    assert driver_state(tmp_path) == "none" and read_driver(tmp_path) is None
    record(tmp_path)
    found = read_driver(tmp_path)
    assert (found.host, found.pid, found.command, found.targets) == (
        platform.node(),
        os.getpid(),
        tuple(COMMAND),
        ("train",),
    )
    assert found.slurm and found.launched_in == str(tmp_path) and found.ended is None
    assert driver_state(tmp_path) == "running"
    forget_driver(tmp_path)
    assert driver_state(tmp_path) == "none" and read_driver(tmp_path).command == tuple(COMMAND)


def test_a_recycled_pid_is_dead(tmp_path):
    record(tmp_path, process_start="another time")
    assert driver_state(tmp_path) == "dead"


def test_process_that_ended_and_one_that_nobody_reaped(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    record(tmp_path, pid=process.pid, process_start=driver._process_start(process.pid))
    assert driver_state(tmp_path) == "running"
    forget_driver(tmp_path)  # not ours to forget
    assert driver_state(tmp_path) == "running"
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but still in the process table
    assert driver_state(tmp_path) == "dead"
    process.wait()
    assert driver_state(tmp_path) == "dead"


def test_other_host(tmp_path):
    record(tmp_path, host="login2")
    assert driver_state(tmp_path) == "elsewhere"
    record(tmp_path, host="login2", ended="2026-11-21T13:00:00")
    assert driver_state(tmp_path) == "none"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to compare with")
def test_ps_tells_processes_apart_where_there_is_no_proc():
    mine = driver._process_start_by_ps(os.getpid())
    assert mine and mine == driver._process_start_by_ps(os.getpid())
    assert driver._process_start_by_ps(2**22 + 1) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1, "command": [], "targets": []}'])
def test_damaged_record(tmp_path, text):
    driver_file(tmp_path).parent.mkdir(parents=True)
    driver_file(tmp_path).write_text(text)
    with pytest.raises(DataError, match="delete it if no run is at work"):
        driver_state(tmp_path)


def test_launch_folder_under_directory_option(tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("PWD", str(tmp_path))
    record_driver(work, ["snakemake", "--directory", "work"], [], slurm=False)
    assert read_driver(work).launched_in == str(tmp_path)
    record_driver(work, ["snakemake", "--directory", "elsewhere"], [], slurm=False)
    assert read_driver(work).launched_in == str(work)
    record_driver(work, ["snakemake"], [], slurm=False)
    assert read_driver(work).launched_in == str(work)


def test_no_squeue_no_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_jobs(tmp_path) == []


def test_own_jobs_are_of_this_folder_alive_and_ours(tmp_path, squeue):
    here = tmp_path / "a | b"
    here.mkdir()
    (tmp_path / "link").symlink_to(here)
    rows = [
        f"12|otus_ab|RUNNING|rule_train_model_wildcards_birds_dense_2|{here}",
        f"13|otus_ab|PENDING|rule_make_chunks|{tmp_path / 'link'}",
        f"14|otus_ab|COMPLETING||{here}/",
        f"15|otus_ab|RESV_DEL_HOLD|rule_x|{here}",
        f"16|otus_ab|COMPLETED|rule_x|{here}",
        f"17|otus_ab|OUT_OF_MEMORY|rule_x|{here}",
        f"18|other|RUNNING|rule_x|{here}",
        f"19|otus_ab|RUNNING|rule_x|{tmp_path}",
        "CLUSTER: big",
        "",
    ]
    calls = squeue("\n".join(rows) + "\n")
    jobs = own_jobs(here, sleep=pytest.fail)
    assert [(job.id, job.work) for job in jobs] == [
        ("12", "train_model birds_dense_2"),
        ("13", "make_chunks"),
        ("14", "otus_ab"),
        ("15", "x"),
    ]
    assert calls.read_text() == f"{['--me', '-h', '--states=all', '-o', '%i|%j|%T|%k|%Z']} False\n"


def test_controller_that_answers_late_or_never(tmp_path, squeue):
    squeue(f"12|otus_ab|RUNNING|rule_x|{tmp_path}\n", failures=2)
    pauses = []
    assert len(own_jobs(tmp_path, sleep=pauses.append)) == 1 and pauses == [5.0, 5.0]
    squeue("", failures=3)
    with pytest.raises(MissingPartError, match=r"does not answer squeue \(slurm_load_jobs error: Unable to contact"):
        own_jobs(tmp_path, sleep=pauses.append)


def test_squeue_that_hangs(tmp_path, squeue, monkeypatch):
    squeue("")
    script = tmp_path / "bin" / "squeue"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(driver, "_SQUEUE_TIMEOUT_S", 0.05)
    with pytest.raises(MissingPartError, match="no answer within"):
        own_jobs(tmp_path, sleep=lambda s: None)


def test_guard_text_names_jobs_and_choices():
    jobs = [ClusterJob(str(i), f"otus_{i % 2}", "RUNNING", f"rule_predict_shard_wildcards_a_{i}") for i in range(12)]
    text = guard_text(jobs[:1], [*COMMAND, "--config", "a=b c"])
    assert text.startswith("1 Slurm job of an earlier run still works in this folder")
    assert "  0  predict_shard a_0  (running)" in text and "`scancel 0`" in text
    assert text.endswith("`otus resume --wait --profile slurm train --config 'a=b c'`.")
    text = guard_text(jobs, COMMAND)
    assert text.startswith("12 Slurm jobs of an earlier run still work") and "  and 2 more\n" in text
    assert "`scancel --name=otus_0,otus_1`" in text


def test_locked(tmp_path):
    assert not locked(tmp_path)
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    assert not locked(tmp_path)
    (tmp_path / ".snakemake" / "locks" / "0.input.lock").touch()
    assert locked(tmp_path)


@pytest.mark.parametrize(
    ("words", "directory"),
    [(["-d", "x"], "x"), (["--directory=x y"], "x y"), (["--directory", "x"], "x"), (["-d"], None), ([], None)],
)
def test_working_directory(words, directory):
    assert working_directory(["snakemake", *words]) == directory


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("-c4 -F train", "-c4 train"),
        ("--forceall --profile slurm", "--profile slurm"),
        ("-R train_model make_chunks --profile slurm", "--profile slurm"),
        ("--forcerun=train_model x", "x"),
        ("-kF -c1", "-k -c1"),
        ("-fF -c1", "-c1"),
        ("--until train --rerun-incomplete", "--until train --rerun-incomplete"),
    ],
)
def test_nothing_is_forced_a_second_time(words, kept):
    assert unforced(words.split()) == kept.split()


@pytest.mark.parametrize(
    ("words", "targets", "left"),
    [
        ("train -c4", "train", "-c4"),
        ("--profile slurm train predict", "train predict", "--profile slurm"),
        ("train --until train", "train", "--until train"),
        ("--until train -c1 train", "train", "--until train -c1"),
        ("-k train", "train", "-k"),
        ("-c1 -- train", "train", "-c1"),
        ("a -c1 -- b", "a b", "-c1"),
        ("-c1", "train", "-c1"),
        ("-c1", "", "-c1"),
    ],
)
def test_old_targets_are_dropped(words, targets, left):
    assert untargeted(words.split(), targets.split()) == left.split()


@given(st.lists(st.sampled_from(["-c1", "-k", "--profile", "slurm", "x=1"])), st.lists(st.sampled_from(["a", "b"])))
def test_new_targets_are_found_again(words, targets):
    command = with_targets(words, targets)
    assert untargeted(command, targets) == words
