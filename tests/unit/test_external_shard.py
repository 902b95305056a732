"""Whole jobs of an external detector with programs of a few lines of shell."""

import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile

from otus.config import ExternalSettings
from otus.errors import MissingPartError, StageError
from otus.external import shard
from otus.external.journal import Entry, Journal
from otus.external.shard import run_shard
from otus.stopping import StoppedError
from otus.tables import table
from otus.telemetry.events import NO_JOURNAL

RATE = 8000
SECONDS = 20


@pytest.fixture
def corpus(tmp_path):
    return Corpus(tmp_path)


class Corpus:
    """Two recordings of 20 s in chunks of 10 s with 2 s of context, and a detector that the test writes."""

    def __init__(self, folder):
        self.folder, self.root = folder, folder / "tapes"
        self.root.mkdir()
        names = ["a, b.wav", "ü's.wav"]
        for name in names:
            soundfile.write(self.root / name, np.zeros(SECONDS * RATE, np.int16), RATE)
        facts = {"n_samples": SECONDS * RATE, "sample_rate": RATE, "channels": 1, "subtype": "PCM_16"}
        rows = [
            {"recording_id": f"r{i}", "path": name, "sha256": "0" * 64, "readable": True, "labelled": True, **facts}
            for i, name in enumerate(names)
        ]
        self.recordings = table("recordings", rows)
        pieces = [(r, k) for r in ("r0", "r1") for k in (0, 1)]
        self.chunks = table(
            "chunks",
            [
                {
                    "chunk_id": f"{r}_k{k:05d}",
                    "recording_id": r,
                    "start_sample": 10 * k * RATE,
                    "end_sample": 10 * (k + 1) * RATE,
                    "context_left": 2 * k * RATE,
                    "context_right": 2 * (1 - k) * RATE,
                    "sha256": "0" * 64,
                    "shard": 1,
                }
                for r, k in pieces
            ],
        )
        self.said = []

    def run(self, script, stop=lambda: False, chunks=None, programs=None, telemetry=NO_JOURNAL, **settings):
        """Run a detector: shell code that gets the sound file as $1, its output as $2 and this folder as $3."""
        command = ["sh", "-c", script, "sh", "{input}", "{output}", str(self.folder)]
        return run_shard(
            self.root,
            self.chunks if chunks is None else chunks,
            self.recordings,
            "toy",
            ExternalSettings(**{"runner": "command", "command": command, "labels": {"OWL": "owl"}, **settings}),
            targets=["owl"],
            programs=programs or {},
            journal=self.folder / "resume" / "shard1.jsonl",
            stop=stop,
            progress=self.said.append,
            telemetry=telemetry,
        )

    def runs(self):
        """The names of the sound files that the detector got, in order."""
        path = self.folder / "runs"
        return path.read_text().split() if path.exists() else []


HEADER = "start,end,label,score\n"
NOTE = 'echo "$(basename "$1")" >>"$3/runs"; '
NOTHING = NOTE + 'echo start,end,label,score >"$2"'
#: A call from 3 s to 4 s of every sound file, and a jay.
SLOW = 'if test -e "$3/slow"; then case "$1" in *r1_k00000*) sleep 60;; esac; fi; '
A_CALL = NOTE + SLOW + r'printf "start,end,label,score\n3,4,OWL,0.5\n5,6,JAY,0.9\n" >"$2"'
SECOND_FAILS = NOTE + 'case "$1" in *r0_k00001*) echo no memory >&2; exit 9;; esac; echo start,end,label,score >"$2"'


def test_selections_and_items_of_a_job(corpus):
    result = corpus.run(A_CALL)
    assert corpus.runs() == ["r0_k00000.wav", "r0_k00001.wav", "r1_k00000.wav", "r1_k00001.wav"]
    found = result.selections
    assert found["start_s"].tolist() == [3.0, 11.0, 3.0, 11.0], "the second sound file begins at 8 s"
    assert set(found["layer"]) == {"external"} and set(found["model"]) == {"toy"} and found["selected"].all()
    assert found["selection_id"].is_unique
    assert found["score"].tolist() == [0.5] * 4 and found["peak_score"].abs().max() < 1e-9
    items = result.items
    assert items["chunk_id"].tolist() == corpus.chunks["chunk_id"].tolist()
    assert set(items["status"]) == {"ok"} and set(items["attempt"]) == {1}
    assert (result.audio_s, result.dropped) == (40.0, {"JAY": 4})


def test_the_sound_file_is_the_chunk_with_its_context(corpus):
    script = 'cp "$1" "$3/$(basename "$1")"; echo start,end,label,score >"$2"'
    corpus.run(script)
    for name, seconds in (("r0_k00000.wav", 12), ("r1_k00001.wav", 12)):
        info = soundfile.info(corpus.folder / name)
        assert (info.frames, info.samplerate, info.subtype) == (seconds * RATE, RATE, "PCM_16")
    corpus.run(script, sample_rate=16000)
    assert soundfile.info(corpus.folder / "r0_k00000.wav").samplerate == 16000


def test_nothing_found_is_an_item_and_no_selection(corpus):
    result = corpus.run(NOTHING)
    assert result.selections.empty and set(result.items["status"]) == {"ok"}


def test_a_failed_chunk_is_a_failed_item_and_the_others_go_on(corpus):
    result = corpus.run(SECOND_FAILS, max_failed_fraction=0.25)
    failed = result.items[result.items["status"] == "failed"]
    assert failed["chunk_id"].tolist() == ["r0_k00001"]
    assert failed["error"].tolist() == ["sh ended with exit code 9: no memory"]
    assert failed["error_class"].tolist() == ["ProgramError"] and failed["audio_s"].tolist() == [0.0]
    assert len(corpus.runs()) == 4


def test_too_many_failures_stop_the_job_with_the_first_reason(corpus):
    with pytest.raises(StageError) as caught:
        corpus.run(SECOND_FAILS)
    assert str(caught.value) == (
        "external: toy failed on 1 of 4 chunks, more than external.toy.max_failed_fraction 0 allows; "
        "the first (r0_k00001): sh ended with exit code 9: no memory"
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 0", "it wrote no found.csv, although it ended without an error"),
        (': >"$2"', r"its output cannot be used \(is empty: not even a header\)"),
        ("sleep 60", r"sh was stopped after 0.3 s \(timeout_s\)"),
        (r'printf "start,end,label,score\n3,4,OWL,7\n" >"$2"', "the score 7 is no probability"),
        (r'printf "start,end,label,score\n3000,4000,OWL,0.7\n" >"$2"', "times are to be in seconds from its start"),
    ],
)
def test_an_exit_code_of_zero_is_no_result(corpus, script, reason):
    with pytest.raises(StageError, match=f"failed on 1 of 1 chunks.*{reason}"):
        corpus.run(script, chunks=corpus.chunks[:1], timeout_s=0.3 if "sleep" in script else 60.0)


def many(corpus):
    """Each chunk four times, under other names."""
    return pd.concat([corpus.chunks.assign(chunk_id=corpus.chunks["chunk_id"] + f"_{i}") for i in range(4)])


def test_a_detector_that_never_works_is_given_up(corpus):
    with pytest.raises(StageError) as caught:
        corpus.run(NOTE + "echo no licence; exit 2", chunks=many(corpus), max_failed_fraction=0.3)
    assert str(caught.value) == (
        "external: toy failed on each of the first 5 of 16 chunks and was given up; "
        "the first (r0_k00000_0): sh ended with exit code 2: no licence"
    )
    assert len(corpus.runs()) == 5
    assert corpus.said[0] == "r0_k00000_0 failed: sh ended with exit code 2: no licence"
    with pytest.raises(StageError, match="failed on each of the first 5"):
        corpus.run(NOTE + "echo no licence; exit 2", chunks=many(corpus))
    assert "resuming after 0 of 16 chunks; 5 failed before" in corpus.said


@pytest.mark.parametrize(
    ("script", "allowed"),
    [("exit 2", 1.0), ('case "$1" in *r1_k00001_3*) echo start,end,label,score >"$2";; *) exit 2;; esac', 0.95)],
)
def test_a_detector_that_may_fail_so_often_goes_on(corpus, script, allowed):
    result = corpus.run(NOTE + script, chunks=many(corpus), max_failed_fraction=allowed)
    assert len(corpus.runs()) == len(result.items) == 16


def test_one_that_has_worked_goes_on_over_failures(corpus):
    script = NOTE + 'case "$1" in *r0_k00000_0*) echo start,end,label,score >"$2";; *) exit 2;; esac'
    with pytest.raises(StageError, match="failed on 15 of 16 chunks"):
        corpus.run(script, chunks=many(corpus))
    assert len(corpus.runs()) == 16


def test_recordings_that_cannot_be_read_are_no_fault_of_the_detector(corpus):
    (corpus.root / "a, b.wav").unlink()
    with pytest.raises(StageError, match="failed on 8 of 16 chunks"):
        corpus.run(NOTHING, chunks=many(corpus))
    assert len(corpus.runs()) == 8


def test_what_happens_is_in_the_telemetry(corpus):
    events = []

    class Recorder:
        def write(self, event, **fields):
            NO_JOURNAL.write(event, **fields)
            events.append((event, fields))

    corpus.run(SECOND_FAILS, max_failed_fraction=0.25, telemetry=Recorder())
    assert events[0] == ("plan", {"items_total": 4, "items_done": 0, "audio_s": 40.0})
    ends = [fields for event, fields in events if event == "item_end"]
    assert [fields["item_id"] for fields in ends] == corpus.chunks["chunk_id"].tolist()
    assert [fields["status"] for fields in ends] == ["ok", "failed", "ok", "ok"]
    assert [fields["audio_s"] for fields in ends] == [10.0, 0.0, 10.0, 10.0]
    assert ends[1]["error_tail"] == "sh ended with exit code 9: no memory"


def test_a_recording_that_vanished_is_a_failed_item(corpus):
    (corpus.root / "a, b.wav").unlink()
    result = corpus.run(NOTHING, max_failed_fraction=0.5)
    assert result.items["status"].tolist() == ["failed", "failed", "ok", "ok"]
    assert "a, b.wav" in result.items["error"].iloc[0]
    assert corpus.runs() == ["r1_k00000.wav", "r1_k00001.wav"], "no program without sound"


def test_a_stopped_job_goes_on_where_it_was(corpus):
    whole = corpus.run(A_CALL)
    (corpus.folder / "resume" / "shard1.jsonl").unlink()
    (corpus.folder / "runs").unlink()
    (corpus.folder / "slow").touch()
    with pytest.raises(StoppedError, match="2 of 4 chunks"):
        corpus.run(A_CALL, stop=lambda: len(corpus.runs()) > 2)
    assert len(corpus.runs()) == 3, "the third was cut short"
    (corpus.folder / "slow").unlink()
    again = corpus.run(A_CALL)
    assert corpus.runs()[3:] == ["r1_k00000.wav", "r1_k00001.wav"]
    pd.testing.assert_frame_equal(again.selections, whole.selections)
    pd.testing.assert_frame_equal(again.items.drop(columns="wall_s"), whole.items.drop(columns="wall_s"))
    assert "resuming after 2 of 4 chunks" in corpus.said
    corpus.run(A_CALL)
    assert len(corpus.runs()) == 5, "a third run does nothing"


def test_a_failed_chunk_is_tried_again(corpus):
    script = NOTE + 'test -e "$3/mended" || case "$1" in *r0_k00001*) exit 1;; esac; echo start,end,label >"$2"'
    with pytest.raises(StageError):
        corpus.run(script)
    (corpus.folder / "mended").touch()
    result = corpus.run(script)
    assert corpus.runs()[4:] == ["r0_k00001.wav"]
    assert result.items.set_index("chunk_id")["attempt"].to_dict() == {
        "r0_k00000": 1, "r0_k00001": 2, "r1_k00000": 1, "r1_k00001": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"labels": {"OWL": "owl", "JAY": "owl"}}, True),
        ({"min_score": 0.1}, True),
        ({"programs": {"detect": [1, 2]}}, True),
        ({"timeout_s": 9.0, "threads": 2, "gap_s": 1.0, "low_hz": 5.0, "max_failed_fraction": 0.5}, False),
    ],
)
def test_other_work_begins_anew(corpus, change, anew):
    corpus.run(NOTHING)
    corpus.run(NOTHING, **change)
    assert len(corpus.runs()) == (8 if anew else 4)


def test_a_kill_costs_the_chunk_under_way_alone(corpus):
    """Whatever the last line of the journal has become."""
    corpus.run(NOTHING)
    journal = corpus.folder / "resume" / "shard1.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, len(lines[-1]) // 2, len(lines[-1]) - 1):
        journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
        (corpus.folder / "runs").unlink()
        result = corpus.run(NOTHING)
        assert len(corpus.runs()) <= 1, cut
        assert set(result.items["status"]) == {"ok"} and len(result.items) == 4
        assert len(Journal(journal, json.loads(lines[0])["digest"]).entries) == 4


def test_a_journal_survives_any_cut(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, "x")
    for number in range(3):
        journal.add(Entry({"chunk_id": f"c{number}", "status": "ok"}, [{"start_s": 1.5}], {}))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(path, "x")
        found = dict(again.entries)
        assert set(found) <= {"c0", "c1", "c2"}
        again.add(Entry({"chunk_id": "c9", "status": "ok"}, [], {}))
        assert set(Journal(path, "x").entries) == {*found, "c9"}


def test_a_full_disk_stops_the_job_with_a_sentence(corpus, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2]))
    with pytest.raises(MissingPartError, match=r"shard1.jsonl: the disk has no room for it"):
        corpus.run(NOTHING)


def test_a_program_that_is_not_there_stops_the_job(corpus):
    with pytest.raises(MissingPartError, match="no-such-detector cannot be started"):
        corpus.run("", command=["no-such-detector", "{input}", "{output}"])
    assert not corpus.runs()


def test_a_script_of_the_working_folder_is_run_with_its_threads(corpus, monkeypatch):
    monkeypatch.chdir(corpus.folder)
    script = corpus.folder / "detect.py"
    script.write_text(
        "import os, sys\nassert os.environ['OMP_NUM_THREADS'] == sys.argv[3] == '3' and os.listdir('.') == ['.said']\n"
        "open(sys.argv[2], 'w').write('start\\tend\\tlabel\\n')\n"
    )
    command = [sys.executable, "detect.py", "{input}", "{output}", "{threads}"]
    result = corpus.run("", command=command, threads=3, chunks=corpus.chunks[:1])
    assert result.items["status"].tolist() == ["ok"]


def test_an_output_that_the_program_names_itself(corpus):
    script = r'printf "3\t4\tOWL;0.5\n" >"$2/$(basename "$1" .wav)_scores.txt"'
    command = ["sh", "-c", script, "sh", "{input}", "{folder}"]
    result = corpus.run("", command=command, output="*_scores.txt", format="audacity")
    assert result.selections["start_s"].tolist() == [3.0, 11.0, 3.0, 11.0]


def test_an_empty_shard_is_empty_tables(corpus):
    result = corpus.run(NOTHING, chunks=corpus.chunks[:0])
    assert result.selections.empty and result.items.empty and result.audio_s == 0


def test_no_sound_file_is_left(corpus, monkeypatch):
    monkeypatch.setattr(shard.tempfile, "tempdir", str(corpus.folder / "tmp"))
    (corpus.folder / "tmp").mkdir()
    corpus.run(SECOND_FAILS, max_failed_fraction=1.0)
    assert not list((corpus.folder / "tmp").iterdir())
