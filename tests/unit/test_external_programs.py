import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import otus
from otus.errors import MissingPartError
from otus.external.programs import (
    InterruptedProgramError,
    ProgramError,
    absolute_words,
    child_environment,
    filled_words,
    program_files,
    run_program,
    start,
)


def run(folder, script, timeout_s=20.0, stop=lambda: False):
    run_program(["sh", "-c", script], folder, child_environment(1, None), timeout_s, stop)


def gone(pid):
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def waited(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_a_program_that_ends_well_says_nothing(tmp_path):
    run(tmp_path, "touch made; echo fine >&2")
    assert (tmp_path / "made").exists(), "it runs in the folder"


def test_an_exit_code_comes_with_the_last_lines(tmp_path):
    with pytest.raises(ProgramError) as caught:
        run(tmp_path, "for i in 1 2 3 4 5 6 7; do echo line $i; done; printf 'no\\033 model\\n' >&2; exit 3")
    assert str(caught.value) == "sh ended with exit code 3: line 4 | line 5 | line 6 | line 7 | no? model"


def test_lines_without_a_word_are_not_worth_their_place(tmp_path):
    with pytest.raises(ProgramError) as caught:
        run(tmp_path, "for i in 1 2 3; do echo line $i; echo '  ^^^^'; echo ----; done; exit 1")
    assert str(caught.value) == "sh ended with exit code 1: line 1 | line 2 | line 3"


def test_a_signal_is_named(tmp_path):
    with pytest.raises(ProgramError, match="sh was ended by SIGKILL"):
        run(tmp_path, "kill -KILL $$")


def test_after_the_time_limit_nothing_of_the_group_is_left(tmp_path):
    script = "trap '' TERM; (trap '' TERM; echo $$ >leader; sleep 60) & echo $! >child; echo busy; wait"
    began = time.monotonic()
    with pytest.raises(ProgramError, match=r"sh was stopped after 0.5 s \(timeout_s\): busy"):
        run(tmp_path, script, timeout_s=0.5)
    assert time.monotonic() - began < 30
    assert waited(lambda: gone(int((tmp_path / "child").read_text())))


def test_what_a_program_leaves_running_ends_with_it(tmp_path):
    run(tmp_path, "sleep 60 & echo $! >left")
    assert waited(lambda: gone(int((tmp_path / "left").read_text())))


def test_a_job_that_is_to_stop_ends_its_program(tmp_path):
    with pytest.raises(InterruptedProgramError):
        run(tmp_path, "echo $$ >pid; sleep 60", stop=lambda: (tmp_path / "pid").exists())  # noqa: PLW0108
    pid = (tmp_path / "pid").read_text().strip()
    assert not pid or waited(lambda: gone(int(pid)))


def test_a_job_that_is_killed_leaves_no_program(tmp_path):
    job = (
        "import sys; from pathlib import Path; from otus.external.programs import run_program; import os\n"
        "script = 'sleep 60 & echo $! >child.new; mv child.new child; sleep 60'\n"
        "run_program(['sh', '-c', script], Path(sys.argv[1]), os.environ, 60.0, lambda: False)"
    )
    process = subprocess.Popen([sys.executable, "-c", job, str(tmp_path)])
    assert waited((tmp_path / "child").exists)
    process.kill()
    process.wait()
    assert waited(lambda: gone(int((tmp_path / "child").read_text())))


def test_an_interruption_while_a_program_is_ended_leaves_none(tmp_path, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    script = "trap '' TERM; sleep 60 & echo $! >child.new; mv child.new child; wait; wait; wait"
    child = start(["sh", "-c", script], tmp_path, tmp_path / ".said", child_environment(1, None), talks=False)
    assert waited((tmp_path / "child").exists)
    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        child.end()
    monkeypatch.undo()
    assert child.end() == -signal.SIGKILL
    assert waited(lambda: gone(int((tmp_path / "child").read_text())))


@pytest.mark.parametrize("word", ["no-such-program-here", "/nowhere/at/all"])
def test_a_program_that_is_missing_stops_the_job(tmp_path, word):
    with pytest.raises(MissingPartError, match=f"{word} cannot be started \\(no such file or directory\\)"):
        run_program([word], tmp_path, child_environment(1, None), 5.0, lambda: False)


def test_a_program_gets_its_threads_and_the_gpu_that_the_job_has(monkeypatch):
    own = str(Path(otus.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", f"{own}{os.pathsep}/mine")
    for visible in ("3", "", "MIG-1c2d"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert child_environment(4, None)["CUDA_VISIBLE_DEVICES"] == visible
    found = child_environment(4, None)
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("4", "4")
    assert found["PYTHONPATH"] == "/mine"
    monkeypatch.setenv("PYTHONPATH", own)
    assert "PYTHONPATH" not in child_environment(1, None)


def test_an_environment_comes_first_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/of/the/job")
    folder = tmp_path / "env"
    (folder / "bin").mkdir(parents=True)
    found = child_environment(1, str(folder))
    assert found["PATH"].startswith(f"{folder}/bin{os.pathsep}") and found["VIRTUAL_ENV"] == str(folder)
    (folder / "conda-meta").mkdir()
    found = child_environment(1, str(folder))
    assert found["CONDA_PREFIX"] == str(folder) and "VIRTUAL_ENV" not in found
    with pytest.raises(MissingPartError, match="has no folder bin"):
        child_environment(1, str(tmp_path / "none"))


def test_a_program_of_the_environment_is_the_one_that_runs(tmp_path):
    program = tmp_path / "env" / "bin" / "detector-of-others"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o755)
    run_program(["detector-of-others"], tmp_path, child_environment(1, str(tmp_path / "env")), 20.0, lambda: False)
    assert (tmp_path / "ran").exists()


def test_words_are_filled_once_and_other_brackets_stay():
    values = {"input": "/a/{output}.wav", "output": "/b c/$HOME;ls", "threads": "2", "folder": "/b"}
    command = ["p", "--in={input}", "{output}", "{x}", "{threads}{threads}"]
    assert filled_words(command, values) == ["p", "--in=/a/{output}.wav", "/b c/$HOME;ls", "{x}", "22"]


def test_files_of_the_working_folder_are_found_from_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools").mkdir()
    for name in ("energy.py", "tools/net", "csv"):
        (tmp_path / name).write_text("x")
    words = ["python", "energy.py", "tools/net", "csv", "none.py", "{input}", "1.5"]
    assert absolute_words(words) == [
        "python", f"{tmp_path}/energy.py", f"{tmp_path}/tools/net", "csv", "none.py", "{input}", "1.5",
    ]  # fmt: skip
    before = program_files(words)
    assert sorted(before) == [f"{tmp_path}/energy.py", f"{tmp_path}/tools/net"]
    (tmp_path / "energy.py").write_text("another detector")
    assert program_files(words) != before


def test_a_link_to_a_python_stays_a_link(tmp_path):
    """The place of the link is what makes it the Python of an environment."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert absolute_words([str(link)]) == [str(link)]
