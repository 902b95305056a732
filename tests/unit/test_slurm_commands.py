"""The patient sbatch, squeue and sacct against pretended Slurm commands; tests/slurm has the real ones."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otus.slurm import choices, patient, status_command, use_patient_commands

RUN = "otus_1234"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Make pretended commands on a PATH of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)

    def make(name, script):
        path = folder / name
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        return str(path)

    for name in ("sbatch", "squeue", "sacct", "srun"):
        make(name, "echo no answer >&2; exit 1\n")
    return make


def book(*rows):
    path = Path(".snakemake/otus/slurm") / RUN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# host 1 start\n" + "".join(f"{job} {at:.0f}\n" for job, at in rows))


def reported(capsys, program="squeue"):
    assert patient.report(program, RUN, sleep=lambda s: None, query_s=0.0) == 0
    return dict(line.split("|") for line in capsys.readouterr().out.splitlines())


ARGUMENTS = ["--parsable", "--job-name", RUN, "--comment", "rule_train_model_wildcards_a", "--wrap=true"]


def test_an_accepted_job_is_printed_and_written_down(commands, capsys):
    sbatch = commands("sbatch", "echo '17;cluster'\n")
    assert patient.submit(sbatch, ARGUMENTS, sleep=lambda s: None) == 0
    assert capsys.readouterr().out == "17;cluster\n"
    assert "17 " in (Path(".snakemake/otus/slurm") / RUN).read_text().splitlines()[1]


@pytest.mark.parametrize("said", ["Socket timed out on send/recv operation", "QOSMaxSubmitJobPerUserLimit"])
def test_a_busy_controller_is_asked_again(commands, capsys, tmp_path, said):
    count = tmp_path / "count"
    sbatch = commands(
        "sbatch", f'echo x >>{count}\n[ $(wc -l <{count}) -ge 4 ] && echo 9 || {{ echo "{said}" >&2; exit 1; }}\n'
    )
    waits = []
    assert patient.submit(sbatch, ARGUMENTS, sleep=waits.append) == 0
    assert waits == [5.0, 10.0, 20.0]
    assert capsys.readouterr().out == "9\n"
    assert "trying again" in Path(".snakemake/otus/slurm/patience.log").read_text()


def test_a_refusal_for_good_is_not_repeated(commands, capsys):
    sbatch = commands("sbatch", "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1\n")
    assert patient.submit(sbatch, ARGUMENTS, sleep=lambda s: pytest.fail("waited")) == 1
    assert "invalid partition" in capsys.readouterr().err


def test_patience_ends(commands, capsys):
    sbatch = commands("sbatch", "echo 'Unable to contact slurm controller' >&2; exit 1\n")
    waits = []
    assert patient.submit(sbatch, ARGUMENTS, sleep=waits.append, patience_s=100.0) == 1
    assert 100.0 <= sum(waits) < 160.0
    assert "Unable to contact" in capsys.readouterr().err


def test_a_job_that_was_taken_in_spite_of_a_time_out_is_not_submitted_twice(commands, capsys, tmp_path):
    calls = tmp_path / "calls"
    sbatch = commands("sbatch", f"echo x >>{calls}; echo 'Socket timed out' >&2; exit 1\n")
    commands("squeue", "echo '40|rule_train_model_wildcards_b'; echo '41|rule_train_model_wildcards_a'\n")
    assert patient.submit(sbatch, ARGUMENTS, sleep=lambda s: None) == 0
    assert capsys.readouterr().out == "41\n"
    assert calls.read_text().count("x") == 1


def test_states_are_handed_on_in_one_word(commands, capsys):
    commands("squeue", "printf '1|RUNNING\\n2|COMPLETED\\n'\n")
    commands("sacct", "printf '1|RUNNING\\n2|CANCELLED by 1000\\n'\n")
    assert reported(capsys) == {"1": "RUNNING", "2": "COMPLETED"}
    assert reported(capsys, "sacct") == {"1": "RUNNING", "2": "CANCELLED"}


def test_where_the_database_is_silent_squeue_answers(commands, capsys):
    commands("squeue", "printf '1|TIMEOUT\\n'\n")
    assert reported(capsys, "sacct") == {"1": "TIMEOUT"}


def test_where_nobody_answers_jobs_are_taken_to_be_running(commands, capsys):
    book(("1", time.time()), ("2", time.time()))
    assert reported(capsys) == {"1": "RUNNING", "2": "RUNNING"}


def test_a_preempted_job_that_is_not_requeued_has_ended(commands, capsys):
    commands(
        "squeue",
        'case "$*" in *states=all*) printf "1|PREEMPTED\\n2|PREEMPTED\\n3|NODE_FAIL\\n";; *) echo "2|PENDING";; esac\n',
    )
    assert reported(capsys) == {"1": "CANCELLED", "2": "PENDING", "3": "FAILED"}


def test_a_job_that_slurm_has_forgotten_is_looked_at_by_its_files(commands, capsys):
    commands("squeue", "printf '1|RUNNING\\n'\n")
    book(("1", time.time() - 900), ("2", time.time() - 900), ("3", time.time()))
    assert reported(capsys) == {"1": "RUNNING", "2": "UNKNOWN"}, "3 may not have arrived yet"


def test_a_doubt_is_not_settled_while_squeue_is_silent(commands, capsys):
    commands("sacct", "printf '1|PREEMPTED\\n'\n")
    assert reported(capsys, "sacct") == {"1": "PREEMPTED"}


def run(program, *arguments, **environment):
    command = [str(choices.COMMANDS / program), *arguments]
    env = {**os.environ, "OTUS_PYTHON": sys.executable, **environment}
    env["PATH"] = f"{choices.COMMANDS}:{env['PATH']}"
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("program", ["sbatch", "squeue", "sacct", "srun"])
def test_other_calls_reach_the_real_command(commands, program):
    commands(program, 'echo "real: $*"; exit 4\n')
    done = run(program, "--me", "-h")
    assert (done.returncode, done.stdout) == (4, "real: --me -h\n")


def test_a_command_that_is_not_installed_says_so(commands, tmp_path):
    (tmp_path / "bin" / "sacct").unlink()
    done = run("sacct", "-X", PATH=str(tmp_path / "bin") + ":/bin")
    if done.returncode != 127:
        pytest.skip("a real sacct lies in /bin")
    assert "command not found" in done.stderr


def test_the_executors_question_is_answered_by_the_patient_command(commands):
    commands("squeue", "printf '7|COMPLETED\\n'\n")
    done = run("squeue", "--format=%i|%T", "--states=all", "--noheader", "--name", RUN)
    assert (done.returncode, done.stdout) == (0, "7|COMPLETED\n")


def test_srun_gets_slurm_conf_back(commands):
    commands("srun", 'echo "$SLURM_CONF"\n')
    assert run("srun", OTUS_KEPT_SLURM_CONF="/etc/other.conf").stdout == "/etc/other.conf\n"


def test_the_patient_commands_come_first_only_where_slurm_is(commands, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", "/etc/other.conf")
    for name in ("OTUS_PYTHON", "OTUS_DRIVER", "OTUS_KEPT_SLURM_CONF"):
        monkeypatch.setenv(name, "")
    assert use_patient_commands()
    assert os.environ["PATH"].split(":")[0] == str(choices.COMMANDS)
    assert use_patient_commands(), "twice is as good as once"
    assert os.environ["PATH"].split(":").count(str(choices.COMMANDS)) == 1
    assert os.environ["OTUS_KEPT_SLURM_CONF"] == "/etc/other.conf"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert not use_patient_commands()
    assert os.environ["PATH"] == str(tmp_path / "empty")


def test_sacct_is_chosen_only_if_the_database_answers(commands):
    assert status_command() == "squeue"
    commands("sacct", "exit 0\n")
    assert status_command() == "sacct"
    assert status_command("squeue") == "squeue"
