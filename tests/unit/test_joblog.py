import re
import subprocess
import sys
from pathlib import Path

import pytest

import otus

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


def run(tmp_path, body, **environment):
    """Run a job script of these lines; return the lines of its log, those of stderr, and the exit status."""
    script = tmp_path / "job.py"
    start = "from otus.errors import DataError\nfrom otus.joblog import job_log\nlog = job_log('logs/deep/job.log')\n"
    script.write_text(start + body)
    sources = str(Path(otus.__file__).parents[1])
    options = {"cwd": tmp_path, "env": {"PATH": "", "PYTHONPATH": sources, **environment}}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, **options)
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
