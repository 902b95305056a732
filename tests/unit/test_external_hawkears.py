"""The runner `hawkears` against a package with the same call as HawkEars 2.3's, which is too large to install here."""

import sys
import time

import numpy as np
import pytest
import soundfile

from otus.config import ExternalSettings
from otus.errors import MissingPartError, StageError
from otus.external import hawkears
from otus.external.hawkears import HawkEarsRunner
from otus.external.programs import InterruptedProgramError, ProgramError
from otus.external.results import Found

#: What hawkears.commands.analyze does, as far as a caller sees it (2.3.0: one thread, quiet, results by callback).
PACKAGE = """
import os
from collections import namedtuple
from pathlib import Path

import wave

Detection = namedtuple("Detection", "recording_path species start_time end_time score")
Result = namedtuple("Result", "recording_path detections")


class InferenceError(Exception):
    pass


def analyze(cfg_path=None, input_path="", output_path="", rtype="audacity", min_score=None, num_threads=None,
            segment_len=None, max_models=None, label_field=None, low_band=None, quiet=False, *, return_results=False,
            recording_callback=None, cancellation_callback=None, recording_paths=None, raise_errors=False,
            data_root=None):
    assert quiet and num_threads == 1 and raise_errors and rtype is None
    print("HawkEars talks on standard output")
    if not (Path(data_root) / "data" / "ckpt").exists():
        raise InferenceError("Model checkpoint files not found.")
    Path(output_path).mkdir(exist_ok=True)
    with open(Path(data_root) / "loads", "a") as file:
        file.write(f"{os.environ['OMP_NUM_THREADS']} {min_score} {segment_len} {label_field}\\n")
    for path in map(str, recording_paths):
        if cancellation_callback():
            break
        with wave.open(path) as sound:
            n, name = sound.getnframes(), sound.readframes(1)[0]
        if name == 13:
            raise InferenceError(f'Could not load recording "{path}": damaged')
        if name == 66:
            os._exit(3)
        if name == 99:
            import time
            time.sleep(60)
        found = (Detection(Path(path), "RUGR", 1.0, 2.5, 0.8125),) * (name % 3)
        recording_callback(Result(Path(path), found))
"""


@pytest.fixture
def installed(tmp_path):
    """An environment with a Python and that package, a folder of checkpoints, and a maker of sound files."""
    return Installed(tmp_path)


class Installed:
    def __init__(self, folder):
        self.folder, self.work, self.data = folder, folder / "work", folder / "data_root"
        package = folder / "env" / "lib" / "hawkears"
        for path in (package, folder / "env" / "bin", self.data / "data" / "ckpt", self.work):
            path.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "commands.py").write_text(PACKAGE)
        python = folder / "env" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec {sys.executable} -S "$@"\n')
        python.chmod(0o755)

    def runner(self, stop=lambda: False, **settings):
        values = {
            "runner": "hawkears",
            "environment": str(self.folder / "env"),
            "hawkears": {"data_root": str(self.data)},
            "min_score": 0.2,
            "labels": {"RUGR": "grouse"},
            "threads": 2,
        }
        return HawkEarsRunner(ExternalSettings(**{**values, **settings}), self.work, stop)

    def find(self, runner, kind):
        """Hand it a sound file whose first byte says what the package does with it."""
        path = self.work / f"chunk {kind}.wav"
        soundfile.write(path, np.full(8, kind, np.int16), 8000)
        return runner.find(path, self.work)

    def loads(self):
        path = self.data / "loads"
        return path.read_text().splitlines() if path.exists() else []


def test_the_networks_are_loaded_once_for_all_files(installed):
    runner = installed.runner()
    try:
        found = [installed.find(runner, kind) for kind in (1, 0, 2, 3, 4, 0)]
    finally:
        runner.close()
    one = Found(1.0, 2.5, "RUGR", 0.8125)
    assert found == [[one], [], [one, one], [], [one], []]
    assert installed.loads() == ["2 0.2 None codes"]
    assert not list(installed.work.glob("*.wav")), "sound files do not pile up"


def test_a_file_that_fails_does_not_cost_the_others(installed):
    runner = installed.runner()
    try:
        assert len(installed.find(runner, 1)) == 1
        with pytest.raises(ProgramError, match="HawkEars failed: InferenceError: Could not load recording"):
            installed.find(runner, 13)
        assert len(installed.find(runner, 2)) == 2
        assert installed.find(runner, 3) == []
    finally:
        runner.close()
    assert len(installed.loads()) == 2


def test_a_process_that_dies_is_started_again(installed):
    runner = installed.runner()
    try:
        with pytest.raises(ProgramError, match=r"HawkEars ended on its own.*talks on standard output"):
            installed.find(runner, 66)
        assert len(installed.find(runner, 1)) == 1
    finally:
        runner.close()


def test_a_file_that_takes_too_long_is_given_up(installed):
    runner = installed.runner(timeout_s=3.0)
    began = time.monotonic()
    try:
        with pytest.raises(ProgramError, match=r"stopped after 3 s \(timeout_s\)"):
            installed.find(runner, 99)
        assert time.monotonic() - began < 30
        assert len(installed.find(runner, 1)) == 1
    finally:
        runner.close()


def test_a_job_that_is_to_stop_does_not_wait(installed):
    asked = []
    runner = installed.runner(stop=lambda: len(asked) > 0)
    try:
        assert len(installed.find(runner, 1)) == 1
        asked.append(True)
        with pytest.raises(InterruptedProgramError):
            installed.find(runner, 99)
    finally:
        runner.close()


def test_what_makes_every_file_fail_stops_the_job(installed):
    (installed.data / "data" / "ckpt").rmdir()
    runner = installed.runner()
    with pytest.raises(StageError, match="HawkEars cannot work: InferenceError: Model checkpoint files not found"):
        installed.find(runner, 1)
    (installed.folder / "env" / "lib" / "hawkears" / "commands.py").write_text("import polars_of_tomorrow\n")
    runner = installed.runner()
    with pytest.raises(StageError, match=r"the package hawkears cannot be imported .*polars_of_tomorrow"):
        installed.find(runner, 1)


def test_an_older_hawkears_is_told_so(installed):
    text = PACKAGE.replace("recording_callback=None, ", "")
    (installed.folder / "env" / "lib" / "hawkears" / "commands.py").write_text(text)
    with pytest.raises(StageError, match="unexpected keyword argument 'recording_callback'"):
        installed.find(installed.runner(), 1)


def test_more_files_than_one_process_takes(installed, monkeypatch):
    monkeypatch.setattr(hawkears, "_FILES_AT_ONCE", 2)
    runner = installed.runner()
    try:
        assert [len(installed.find(runner, kind)) for kind in (1, 2, 0, 1, 2)] == [1, 2, 0, 1, 2]
    finally:
        runner.close()
    assert len(installed.loads()) == 3


def test_its_options_are_passed_on(installed):
    options = {"data_root": str(installed.data), "segment_s": 3.0, "label_field": "names"}
    runner = installed.runner(hawkears=options, min_score=None)
    try:
        installed.find(runner, 1)
    finally:
        runner.close()
    assert installed.loads() == ["2 0.0 3.0 names"]


def test_missing_parts_are_said_before_anything_runs(installed):
    with pytest.raises(MissingPartError, match=r"data_root .* is no folder"):
        installed.runner(hawkears={"data_root": str(installed.folder / "none")})
    with pytest.raises(MissingPartError, match="has no folder bin"):
        installed.runner(environment=str(installed.folder / "none"))
    (installed.folder / "env" / "bin" / "python").unlink()
    runner = installed.runner()
    with pytest.raises(MissingPartError, match="cannot be started"):
        installed.find(runner, 1)
