import re
import subprocess
import sys
from pathlib import Path

import pytest

import otus

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


def start(tmp_path, body, **environment):
    """Run a job script of these lines."""
    script = tmp_path / "job.py"
    first = "from otus.errors import DataError\nfrom otus.joblog import job_log\nlog = job_log('logs/deep/job.log')\n"
    script.write_text(first + body)
    sources = str(Path(otus.__file__).parents[1])
    options = {"cwd": tmp_path, "env": {"PATH": "", "PYTHONPATH": sources, **environment}}
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, **options)


def run(tmp_path, body, **environment):
    """The same; return the lines of its log, which are those of stderr, and the exit status."""
    done = start(tmp_path, body, **environment)
    log = (tmp_path / "logs" / "deep" / "job.log").read_text(encoding="utf-8")
    assert log == done.stderr
    assert done.stdout == ""
    return log.splitlines(), done.returncode


def test_a_good_job(tmp_path):
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "job.log").write_text("of an earlier attempt\n")
    lines, status = run(tmp_path, "log('3 recordings of é')\n", SLURM_JOB_ID="77", PYTHONUTF8="1")
    assert status == 0
    assert re.fullmatch(rf"{STAMP} otus \S+ on \S+, Python 3\.\S+, pid \d+ SLURM_JOB_ID=77", lines[0])
    assert re.fullmatch(rf"{STAMP} 3 recordings of é", lines[1]) and len(lines) == 2


def test_an_expected_failure_is_one_line(tmp_path):
    body = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise DataError('a.wav: truncated.') from error\n"
    lines, status = run(tmp_path, body)
    assert status == 1
    assert len(lines) == 2 and re.fullmatch(rf"{STAMP} FAILED: a\.wav: truncated\.", lines[1])


@pytest.mark.parametrize(
    ("body", "environment", "last"),
    [
        ("{}['key']\n", {}, "FAILED: KeyError: 'key'"),
        ("raise DataError('a.wav: truncated.')\n", {"OTUS_DEBUG": "1"}, "FAILED: a.wav: truncated."),
    ],
)
def test_an_unexpected_failure_or_debugging_shows_the_traceback(tmp_path, body, environment, last):
    lines, status = run(tmp_path, body, **environment)
    assert status == 1
    assert lines[1].endswith("Traceback (most recent call last):")
    assert any("job.py" in line and "line 4" in line for line in lines[2:])
    assert lines[-1].endswith(last)


def test_warnings_are_in_the_log(tmp_path):
    lines, status = run(tmp_path, "import warnings\nwarnings.warn('odd file')\nlog('went on')\n")
    assert status == 0
    assert lines[1].endswith(" warning: UserWarning: odd file (job.py:5)") and lines[2].endswith(" went on")


def test_a_name_that_is_no_text_does_not_stop_a_job(tmp_path):
    lines, status = run(tmp_path, "log('caf\\udce9.wav')\n", PYTHONUTF8="1")
    assert status == 0 and lines[1].endswith("caf\\udce9.wav")


def test_the_first_line_says_where_slurm_put_the_job(tmp_path):
    where = {
        "SLURM_JOB_ID": "77",
        "SLURMD_NODENAME": "gpu3",
        "SLURM_STEP_GPUS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    lines, _ = run(tmp_path, "", **where, OTHER="x")
    assert lines[0].split("pid ")[1].split(" ", 1)[1] == " ".join(f"{k}={v}" for k, v in where.items())


FULL = "import errno\nraise OSError(errno.ENOSPC, 'No space left on device', 'big.npy')\n"


def test_a_full_disk_outside_atomic_writing_is_one_sentence_too(tmp_path):
    lines, status = run(tmp_path, FULL)
    assert status == 1 and len(lines) == 2
    assert re.search(
        r"FAILED: big\.npy: the disk has no room for it \([\d,]+ MB free on /.*\); free space or quota", lines[1]
    )
    lines, _ = run(tmp_path, FULL, OTUS_DEBUG="1")
    assert lines[1].endswith("Traceback (most recent call last):") and "the disk has no room for it" in lines[-1]


def test_a_missing_file_is_no_matter_of_the_disk(tmp_path):
    lines, _ = run(tmp_path, "open('gone.txt')\n")
    assert lines[-1].endswith("FAILED: FileNotFoundError: [Errno 2] No such file or directory: 'gone.txt'")


def said(done):
    return [re.sub(rf"^{STAMP} ", "", line) for line in done.stderr.splitlines()]


def test_a_log_that_cannot_be_started_hides_nothing(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    done = start(tmp_path, "log('at work')\nraise DataError('a.wav: truncated.')\n")
    lines = said(done)
    assert done.returncode == 1 and len(lines) == 4
    assert re.fullmatch(r"warning: the log logs/deep/job\.log cannot be written \(.+\); it goes on here\.", lines[0])
    assert lines[1].startswith("otus ") and lines[2:] == ["at work", "FAILED: a.wav: truncated."]


@pytest.mark.parametrize("body", ["raise DataError('a.wav: truncated.')\n", FULL, "1 / 0\n"])
def test_a_disk_that_becomes_full_hides_nothing(tmp_path, body):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
    done = start(tmp_path, limit + "log('at work')\n" + body)
    lines = said(done)
    assert done.returncode == 1
    assert lines[1] == "at work" and lines[2].startswith("warning: the log logs/deep/job.log cannot be written")
    assert lines[-1].startswith("FAILED: ")
    assert done.stderr.count("cannot be written") == 1 and "Error in sys.excepthook" not in done.stderr
    assert len((tmp_path / "logs" / "deep" / "job.log").read_text().splitlines()) == 1


def test_a_closed_stderr_does_not_keep_the_reason_from_the_log(tmp_path):
    start(tmp_path, "import os\nos.close(2)\nraise DataError('a.wav: truncated.')\n")
    assert (tmp_path / "logs" / "deep" / "job.log").read_text().endswith("FAILED: a.wav: truncated.\n")
