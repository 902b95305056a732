"""The journal of a job: whole lines, every attempt, and no harm to the job."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus.errors import StageError
from otus.stopping import StoppedError
from otus.telemetry import NO_JOURNAL, journal, open_journal
from otus.telemetry.events import EVENTS, FIELDS, IDENTITY
from otus.telemetry.summary import read_journal


def opened(path, said=None, **more):
    return open_journal(
        path, stage="predict", rule="predict_shard", log=(said if said is not None else []).append, **more
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "telemetry" / "predict_shard" / "grouped-crnn.fold1.shard2.jsonl"


def test_every_record_says_which_run_of_which_job_on_which_node_it_is_of(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with opened(path, asked_mem_mb=4000, asked_min=60, threads=2) as writer:
        writer.write("plan", items_total=2, audio_s=240.0)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["event"] for r in records] == ["run_start", "plan", "run_end"]
    assert len({r["run_id"] for r in records}) == 1
    for record in records:
        assert set(record) <= set(IDENTITY) | set(FIELDS)
        assert (record["schema"], record["stage"], record["rule"]) == (1, "predict", "predict_shard")
        assert (record["job"], record["pid"], record["attempt"]) == ("grouped-crnn.fold1.shard2", os.getpid(), 1)
        assert (record["slurm_job_id"], record["slurm_array_task"]) == ("17", "3")
        assert record["host"] and len(record["versions_hash"]) == 12 and record["ts"].endswith("Z")
    assert (records[0]["asked_mem_mb"], records[0]["asked_min"], records[0]["threads"]) == (4000, 60, 2)
    assert records[-1]["status"] == "ok" and "gpu_uuid" not in records[-1]


def test_every_event_can_be_written_with_every_field(path):
    with opened(path) as writer:
        for event in EVENTS:
            writer.write(event, **dict.fromkeys(FIELDS, 1))
            NO_JOURNAL.write(event, **dict.fromkeys(FIELDS, 1))
    assert [r["event"] for r in read_journal(path)] == ["run_start", *EVENTS, "run_end"]


@pytest.mark.parametrize(("event", "fields"), [("item_done", {}), ("item_end", {"walls": 1}), ("plan", {"host": "x"})])
def test_names_that_do_not_exist_are_refused_whether_or_not_something_is_written(path, event, fields):
    with opened(path) as writer, pytest.raises(ValueError, match="telemetry"):
        writer.write(event, **fields)
    with pytest.raises(ValueError, match="telemetry"):
        NO_JOURNAL.write(event, **fields)
    assert [r["event"] for r in read_journal(path)] == ["run_start", "run_end"]


def test_what_is_not_known_is_left_out_and_numbers_of_numpy_are_numbers(path):
    with opened(path) as writer:
        unknown = {"wall_s": float("nan"), "gpu_s": np.float32("inf"), "batch_size": None, "error_class": ""}
        writer.write("item_end", items_total=np.int64(3), audio_s=np.float32(1.5), item_id=Path("a/b"), **unknown)
        writer.write("item_end", item_id='caf\udce9 \u2028 "\n', loss=np.zeros(3))
    records = read_journal(path)
    assert set(records[1]) & set(unknown) == set()
    assert (records[1]["items_total"], records[1]["audio_s"], records[1]["item_id"]) == (3, 1.5, "a/b")
    assert records[2]["item_id"] == 'caf\udce9 \u2028 "\n'
    assert len(path.read_bytes().splitlines()) == 4, "one line per record, whatever a name holds"


def test_progress_is_counted_from_items_and_told_by_heartbeats_and_at_the_end(path):
    with opened(path) as writer:
        writer.write("plan", items_total=5, items_done=2, audio_s=600.0)
        writer.write("item_end", status="ok", audio_s=120.0)
        writer.write("item_end", status="failed", audio_s=120.0, attempt=3)
        writer.write("heartbeat")
    *_, first, second, beat, end = read_journal(path)
    assert (first["items_done"], second["items_done"]) == (3, 4), "two were done by an earlier attempt"
    assert (first["attempt"], second["attempt"]) == (1, 3)
    for record in (beat, end):
        assert (record["items_done"], record["items_total"], record["items_failed"]) == (4, 5, 1)
        assert record["audio_s"] == 240.0 and record["rtf"] > 100 and record["wall_s"] >= 0
    assert 0 <= beat["idle_s"] <= beat["wall_s"] and "idle_s" not in end


def test_idle_time_is_that_since_the_last_work_not_the_last_sample(path, monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 10.0, 11.0])
    monkeypatch.setattr(journal.time, "monotonic", lambda: next(clock))
    with opened(path) as writer:  # 0, run_start 1
        writer.write("item_start", item_id="a")  # 2
        writer.write("sample", rss_mb=1)
        writer.write("heartbeat")  # 10
        monkeypatch.undo()
    beat = read_journal(path)[-2]
    assert (beat["idle_s"], beat["wall_s"]) == (8.0, 10.0)


def ended(path, error):
    with pytest.raises(type(error)), opened(path):
        raise error
    return read_journal(path)[-1]


def test_the_end_says_how_it_ended(path):
    failed = ended(path, StageError("too many chunks failed; look at items.csv."))
    assert (failed["status"], failed["error_class"]) == ("failed", "StageError")
    assert failed["error_tail"] == "too many chunks failed; look at items.csv."
    unexpected = ended(path, KeyError("x" * 2000))
    assert unexpected["status"] == "failed" and len(unexpected["error_tail"]) == 500
    assert unexpected["error_tail"].endswith("xxx'")
    stopped = ended(path, StoppedError("2 of 3 epochs", Path("resume")))
    assert (stopped["status"], stopped["error_class"]) == ("stopped", "StoppedError")
    assert ended(path, KeyboardInterrupt())["status"] == "stopped"


def test_attempts_are_counted_since_the_last_success(path):
    for error in (RuntimeError("a"), RuntimeError("b")):
        ended(path, error)
    with opened(path):
        pass
    with opened(path):
        pass
    starts = [r for r in read_journal(path) if r["event"] == "run_start"]
    assert [r["attempt"] for r in starts] == [1, 2, 3, 1]
    assert len({r["run_id"] for r in starts}) == 4


def test_a_killed_run_counts_as_an_attempt(path):
    script = (
        "import os, signal, sys; from otus.telemetry import open_journal\n"
        "with open_journal(sys.argv[1], stage='s', rule='r', log=print) as journal:\n"
        "    journal.write('item_start', item_id='a'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert [r["event"] for r in read_journal(path)] == ["run_start", "item_start"], "nothing waits in a buffer"
    with opened(path):
        pass
    assert read_journal(path)[2]["attempt"] == 2


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_line_that_was_cut_short_costs_no_other(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "j.jsonl"
    with opened(path):
        pass
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:cut])
    with opened(path) as writer:
        writer.write("item_end", item_id="a")
    assert [r["event"] for r in read_journal(path)][:2] == ["run_start", "run_end"]
    assert [r["event"] for r in read_journal(path)][-3:] == ["run_start", "item_end", "run_end"]


def test_other_lines_than_records_are_passed_over(path):
    with opened(path):
        pass
    other = [b"", b"[1]", b"null", b'{"schema": 1}', b'{"schema": 99, "run_id": "r", "event": "e", "ts": "t"}', b"\xff"]
    path.write_bytes(b"\n".join(other) + b"\n" + path.read_bytes())
    assert [r["event"] for r in read_journal(path)] == ["run_start", "run_end"]


def test_each_record_is_one_write_of_one_line(path, monkeypatch):
    written = []
    real = os.write
    monkeypatch.setattr(journal.os, "write", lambda fd, data: written.append(data) or real(fd, data))
    with opened(path) as writer:
        writer.write("item_end", item_id="a")
    assert len(written) == 3 and all(data.count(b"\n") == 1 and data.endswith(b"\n") for data in written)


def test_threads_do_not_mix_their_lines(path):
    with opened(path) as writer:

        def write():
            for i in range(50):
                writer.write("item_end", item_id=f"{i}" * 200, status="ok")

        threads = [threading.Thread(target=write) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert len(path.read_text().splitlines()) == len(read_journal(path)) == 402
    assert sorted(r["items_done"] for r in read_journal(path) if r["event"] == "item_end") == list(range(1, 401))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_said_once_and_stops_nothing(monkeypatch):
    said = []
    with opened(Path("/dev/full"), said) as writer:
        for _ in range(5):
            writer.write("heartbeat")
    assert len(said) == 1 and "No space left on device" in said[0] and "the job goes on" in said[0]


def test_a_disk_that_fills_up_within_a_line_harms_that_line_only(path, monkeypatch):
    said, real = [], os.write
    with opened(path, said) as writer:
        monkeypatch.setattr(journal.os, "write", lambda fd, data: real(fd, data[:20]))
        writer.write("heartbeat")
        monkeypatch.undo()
        writer.write("item_end", item_id="after")
    assert len(said) == 1 and "no room" in said[0]
    assert [r["event"] for r in read_journal(path)] == ["run_start", "item_end", "run_end"]


def test_a_folder_that_cannot_be_is_said_once_and_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    with opened(tmp_path / "file" / "j.jsonl", said) as writer:
        writer.write("heartbeat")
    assert len(said) == 1 and "j.jsonl cannot be written (" in said[0]


def test_nothing_is_written_after_the_end(path):
    with opened(path) as writer:
        pass
    writer.write("heartbeat")
    writer.keep(rss_mb=3)
    assert [r["event"] for r in read_journal(path)] == ["run_start", "run_end"]


def test_what_is_kept_is_told_at_the_end(path):
    with opened(path) as writer:
        writer.keep(rss_mb=3, energy_j=7.0)
        writer.keep(rss_mb=4)
        with pytest.raises(ValueError, match="no field"):
            writer.keep(rss=4)
    end = read_journal(path)[-1]
    assert (end["rss_mb"], end["energy_j"]) == (4, 7.0)


def test_the_contract_alone_imports_nothing_else():
    """What training and inference import of the telemetry is in their digest: the rest must not be."""
    from otus.provenance import _file_of, _imports

    assert _imports(_file_of(["telemetry", "events"])) == ()
