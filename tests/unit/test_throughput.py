"""The benchmark of throughput measures what it says: the same work as a prediction, on recordings that it makes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from otus.audio import AudioFile, inspect
from otus.inference import ShardModel
from otus.inference.scorer import Scorer
from otus.scores import read_scores

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import throughput
import throughput_material as material
import throughput_tables as tables
from throughput import Job, Took, measured

CPU = torch.device("cpu")
TCN = material.full_name("tcn, 50 ms, 1 member")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The folder of a short WAV and the same as FLAC."""
    folder = tmp_path_factory.mktemp("recordings")
    material.make_recordings(folder, 4)
    return folder


def job(folder, name, file="recording.wav"):
    return Job(material.rows()[name](), folder, material.recordings_of([folder / file]), CPU, readers=1)


def test_both_files_hold_the_same_noise_with_calls_every_time(recordings, tmp_path):
    wav, rate = soundfile.read(recordings / "recording.wav", dtype="int16")
    flac, _ = soundfile.read(recordings / "recording.flac", dtype="int16")
    assert rate == 48_000 and len(wav) == 4 * rate
    assert np.array_equal(wav, flac)
    material.make_recordings(tmp_path, 4)
    assert (tmp_path / "recording.wav").read_bytes() == (recordings / "recording.wav").read_bytes()
    quiet, call = wav[: rate // 3] / 2**15, wav[round(0.55 * rate) : round(0.75 * rate)] / 2**15
    assert -50 < 20 * np.log10(quiet.std()) < -40
    assert call.std() > 1.5 * quiet.std()
    assert (recordings / "recording.flac").stat().st_size < 0.8 * (recordings / "recording.wav").stat().st_size


def test_a_silent_day_takes_no_room(tmp_path):
    path = tmp_path / "day.wav"
    material.make_silent_day(path, 24.0)
    info = inspect(path)
    assert (info.duration_s, info.sample_rate, info.channels, info.subtype) == (86_400.0, 48_000, 1, "PCM_16")
    assert path.stat().st_size > 2**32
    assert path.stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("name", material.rows())
def test_every_model_is_what_its_name_says(name):
    row = material.rows()[name]()
    assert row.name == name
    assert (row.multiplications_per_s > 0) == (not name.startswith("no network"))
    assert ("50 ms" in name or name.startswith("resnet18")) == (row.card.frontend.hop_s == 0.05)
    assert row.card.members == (2 if "2 members" in name else 1)


def test_the_stages_together_are_the_work_of_a_prediction(recordings, tmp_path, monkeypatch):
    of_tcn = job(recordings, TCN)
    found = []
    monkeypatch.setattr(of_tcn, "_write", found.extend)
    stages = of_tcn.stages()
    assert set(stages) == set(tables.STAGES)
    assert all(took.cpu_s >= 0 for took in stages.values())
    model = ShardModel("m", of_tcn.scorer, "0", set(), tmp_path / "scores.parquet", tmp_path / "resume")
    of_tcn._predict(model)
    scores, _, hop_s = read_scores([tmp_path / "scores.parquet"], only={"recording.wav"})
    ((chunk, logits),) = found
    assert (chunk.n_frames, hop_s) == (80, 0.05)
    assert np.abs(scores["recording.wav"] - logits).max() < 1e-4


def test_many_files_are_all_scored(tmp_path):
    found = throughput.many_files(TCN, tmp_path / "many", 5, CPU, repeats=1)
    assert (found["files"], found["audio_s"], found["repeats"]) == (5, 5.0, 1)
    assert found["share_outside"] == pytest.approx(found["shares"]["write"] + found["shares"]["rest"])


class Fake:
    """A job whose stages take what the test says."""

    def __init__(self, device="cpu", **cpu_s):
        self.device, self.audio_s, self.scorer = torch.device(device), 100.0, None
        self.counts_cpu = self.device.type == "cpu"
        self.row = material.rows()["no network, 50 ms"]()
        self.cpu_s, self.runs = cpu_s, 0

    def stages(self):
        self.runs += 1
        return {stage: Took(self.cpu_s[stage], 2 * self.cpu_s[stage]) for stage in tables.STAGES}

    def end_to_end(self):
        return Took(10.0, 40.0), {stage: cpu_s / 10 for stage, cpu_s in self.cpu_s.items()}


def test_shares_are_of_the_whole_and_the_largest_is_the_bound():
    found = measured(Fake(decode=1.0, spectrogram=5.0, network=2.0, write=0.5), repeats=3, long_s=60)
    assert found["shares"] == pytest.approx(
        {"decode": 0.1, "spectrogram": 0.5, "network": 0.2, "write": 0.05, "rest": 0.15}
    )
    assert found["bound"] == "spectrogram"
    assert (found["x_real_time_per_core"], found["x_real_time_wall"]) == (10.0, 2.5)
    assert found["x_real_time_of_stage"]["decode"] == 100.0
    assert found["repeats"] == 3


def test_decoding_beside_a_gpu_is_no_part_of_the_rest():
    found = measured(Fake("cuda", decode=9.0, spectrogram=1.0, network=6.0, write=0.5), repeats=1, long_s=60)
    assert found["bound"] == "decode"
    assert found["shares"]["rest"] == pytest.approx(0.25)


def test_the_clock_tells_stages_and_threads_apart(recordings, tmp_path):
    took, shares = job(recordings, TCN).end_to_end()
    assert took.cpu_s > 0
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) < 1
    _, shares = job(recordings, material.full_name("resnet18, max pooling, float32")).end_to_end()
    assert shares["network"] > shares["spectrogram"] > 0
    assert (AudioFile.read_at_rate.__name__, Scorer.score.__name__) == ("read_at_rate", "score"), (
        "it is taken off again"
    )


def test_what_takes_long_is_run_once():
    slow = Fake(decode=1.0, spectrogram=1.0, network=60.0, write=0.0)
    assert measured(slow, repeats=3, long_s=60)["repeats"] == slow.runs == 1


def test_the_tables_are_whole(recordings):
    row = measured(Fake(decode=1.0, spectrogram=5.0, network=2.0, write=0.5), repeats=1, long_s=60)
    windows = material.rows()[material.full_name("resnet18, max pooling, float32")]()
    surroundings = {
        "cpu": "EPYC", "cores": 2, "gpu": None, "threads": 1, "readers": 1, "python": "3.11", "load": 0.5,
        "versions": {"torch": "2"}, "date": "2026-01-01",
    }  # fmt: skip
    loop = throughput.window_loop(windows, recordings / "recording.wav", 1.0)
    assert loop["windows"] == 13
    text = tables.as_markdown(
        {
            "surroundings": surroundings,
            "rows": [{"model": "m", "file": "WAV"} | row],
            "others": {"loop": loop},
            "many": row | {"files": 2000, "model": "m", "share_outside": 0.04},
            "day": {"hours": 24.0, "model": "m", "peak_mb": 900.0, "peak_mb_before": 500.0, "x_real_time_per_core": 9},
        }
    )
    lines = text.splitlines()
    rules = [i for i, line in enumerate(lines) if line.startswith("|---")]
    assert len(rules) == 2
    for rule in rules:
        end = lines.index("", rule)
        assert {line.count("|") for line in lines[rule - 1 : end]} == {lines[rule].count("|")}
        assert end > rule + 1
    assert "4.0 % of them outside" in text and "900 MB at the peak" in text
