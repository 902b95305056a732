"""Signals that ask a job to stop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import otus
from otus.errors import StageError
from otus.stopping import StoppedError, stop_on_signals

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_however_often_it_comes(number):
    stop = stop_on_signals()
    assert stop() is False
    for _ in range(3):
        os.kill(os.getpid(), number)
        assert stop() is True
    assert stop_on_signals()() is False, "a new question starts anew"


def test_other_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    stop_on_signals()
    assert signal.getsignal(signal.SIGINT) is before


def test_only_the_main_thread_can_ask():
    refused = []

    def elsewhere():
        with pytest.raises(ValueError):
            stop_on_signals()
        refused.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert refused


def test_a_read_under_way_in_a_library_is_not_cut_short():
    """A library in C that does not expect an interruption would take it for a broken file."""
    body = (
        "import ctypes, os, signal, threading\n"
        "from otus.stopping import stop_on_signals\n"
        "stop = stop_on_signals()\n"
        "out, into = os.pipe()\n"
        "def later():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Event().wait(0.3)\n"
        "    os.write(into, b'sound')\n"
        "threading.Timer(0.3, later).start()\n"
        "read = ctypes.CDLL(None, use_errno=True).read\n"
        "print(read(out, ctypes.create_string_buffer(5), 5), stop())\n"
    )
    environment = {"PYTHONPATH": str(Path(otus.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "5 True\n", done.stderr


def test_the_sentence_says_how_far_it_came_and_what_to_do():
    error = StoppedError("3 of 30 epochs", Path("results/resume/member1.pt"))
    assert isinstance(error, StageError) and error.exit_code == 4
    assert str(error) == (
        "stopped by a signal (time limit, preemption or scancel) after 3 of 30 epochs; "
        "the state is saved in results/resume/member1.pt and the next start goes on from there."
    )
