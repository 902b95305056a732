"""The baselines of the table of detectors, and the sums behind that table."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from otus.audio import inspect
from otus.config import DecodingSettings, EvaluationSettings
from otus.evaluation import evaluate_model
from otus.frontend import Frontend
from otus.models.card import ModelCard
from otus.tables import table
from otus.training import TrainingTables

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import baselines
import detector_tables
from detector_tables import Record

RATE = 8000
FRONTEND = Frontend(RATE, 160, 512, 16, 0.0, 4000.0, "linear")
CALLS = {"a": [(1.0, 1.5), (4.0, 4.6)], "b": [(2.0, 2.5)], "c": [(3.0, 3.5), (6.0, 6.5)]}
SIDES = {"a": "train", "b": "val", "c": "test", "d": "test"}


def make_corpus(folder, tone_hz=1000.0):
    """Noise with a tone at every call and, as loud, a higher tone that is no call; d has none of both."""
    recordings, annotations = [], []
    t = np.arange(8 * RATE) / RATE
    for number, name in enumerate(SIDES):
        sound = 0.01 * np.random.default_rng(number).standard_normal(len(t))
        for start_s, end_s in CALLS.get(name, []):
            sound += 0.2 * np.sin(2 * np.pi * tone_hz * t) * ((t >= start_s) & (t < end_s))
            sound += 0.2 * np.sin(2 * np.pi * 3000 * t) * ((t >= start_s - 0.8) & (t < end_s - 0.8))
            annotations.append({"recording_id": name, "start_s": start_s, "end_s": end_s, "label": "hum"})
        soundfile.write(folder / f"{name}.wav", sound, RATE, subtype="PCM_16")
        info = inspect(folder / f"{name}.wav")
        facts = {"recording_id": name, "path": f"{name}.wav", "group": name, "duration_s": 8.0, "subtype": info.subtype}
        recordings.append(facts | {"n_samples": info.n_samples, "sample_rate": RATE, "channels": 1})
    limits = {"low_hz": 600.0, "high_hz": 1400.0}
    rows = [a | limits | {"annotation_id": f"a{i}"} for i, a in enumerate(annotations)]
    clip = {"recording_id": "a", "start_sample": RATE, "end_sample": 3 * RATE // 2, "class": "target", "label": "hum"}
    span = {"fold": 1, "start_sample": 0, "end_sample": 8 * RATE, "leaky": False}
    return TrainingTables(
        table("recordings", recordings),
        table("annotations", rows),
        table("clips", [clip | {"clip_id": "c", "split": "train", "fold": 1, "group": "a"}]),
        table("splits", [{"recording_id": n, "group": n, "split": s} | span for n, s in SIDES.items()]),
    )


CARD = ModelCard(
    model="grouped-default", fold=1, architecture="crnn", members=1, network={}, frontend=FRONTEND, classes=["hum"],
    context_frames=0, inference="dense", objective="frame", window_frames=1, median_call_s=0.5, short_call_s=0.5,
    training_data_sha256="", training={}, data={}, best_epochs=[1], seed=1, versions={},
)  # fmt: skip


def scores(folder, method, seed=1):
    tables = make_corpus(folder)
    found, cpu_s, wall_s = baselines.score_fold(
        folder, tables, CARD, method=method, decoding=DecodingSettings(), seed=seed
    )
    assert cpu_s > 0 and wall_s > 0
    return tables, found


@pytest.mark.parametrize("method", ["energy", "gradient_boosting"])
def test_a_tone_is_found_and_one_of_another_pitch_is_not(tmp_path, method):
    tables, found = scores(tmp_path, method)
    assert set(found.logits) == {"b", "c", "d"}
    assert all(logits.shape == (2, 400) and logits.dtype == np.float32 for logits in found.logits.values())
    evaluation = evaluate_model(
        [found], tables.annotations, classes=["hum"], settings=EvaluationSettings(), model=method
    )
    tested = evaluation.counts.query("split == 'test' and selected")
    assert tested[["tp", "fp", "fn"]].sum().tolist() == [2, 0, 0]


def test_the_same_seed_gives_the_same_scores(tmp_path):
    first, second = (scores(tmp_path, "gradient_boosting")[1].logits for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_without_a_frame_of_a_call_nothing_is_found():
    inputs = [np.zeros((4, 30), dtype=np.float32)]
    silent = np.zeros((1, 30), dtype=bool)
    frames = baselines.TrainingFrames(inputs, [silent], [~silent[0]])
    assert (baselines.boosting_scorer(frames, 1, 1)(inputs[0]) == -15.0).all()
    assert (baselines.energy_scorer(frames, [np.ones(4, dtype=bool)], 3)(inputs[0]) == -15.0).all()


def test_frames_that_do_not_count_are_not_learnt_from():
    inputs = [np.arange(12, dtype=np.float32).reshape(2, 6)]
    counted = np.array([True, False, True, True, False, True])
    frames = baselines.TrainingFrames(inputs, [inputs[0] > 7], [counted])
    assert frames.rows(np.transpose)[:, 0].tolist() == [0, 2, 3, 5]
    assert frames.truth(1).tolist() == [False, True, True, True]


def test_context_is_the_mean_of_frames_around():
    features = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    found = baselines.in_context(features)
    assert found.shape == (40, 27)
    padded = np.pad(features, ((0, 0), (15, 15)))
    blocks = [(0, 0), (-1, -1), (1, 1), (-3, -2), (2, 3), (-7, -4), (4, 7), (-15, -8), (8, 15)]
    for number, (first, last) in enumerate(blocks):
        for frame in (0, 7, 39):
            expected = padded[:, frame + 15 + first : frame + 15 + last + 1].mean(axis=1)
            assert np.allclose(found[frame, 3 * number : 3 * number + 3], expected, atol=1e-5)


def test_the_band_of_the_calls():
    calls = pd.DataFrame({"low_hz": [600.0, 700.0, np.nan], "high_hz": [1400.0, 1300.0, np.nan]})
    assert baselines.bands_of_calls(calls, FRONTEND).all()  # too few of them have limits
    inside = baselines.bands_of_calls(calls.dropna(), FRONTEND)
    centres_hz = np.linspace(0, 4000, 18)[1:-1]
    assert np.array_equal(inside, (centres_hz > 640) & (centres_hz < 1360))
    nowhere = pd.DataFrame({"low_hz": [100.0], "high_hz": [101.0]})
    assert baselines.bands_of_calls(nowhere, FRONTEND).all()


def record(method="default", seed=1, recordings=(), false_alarms=()):
    n_gt, n_pred, tp = (sum(r[i] for r in recordings) for i in (2, 3, 4))
    return Record(
        corpus="owls", method=method, seed=seed, layer={}, f1=2 * tp / max(1, n_gt + n_pred), f1_low=0.1, f1_high=0.9,
        precision=0.5, recall=0.5, average_precision=None, tp=tp, fp=n_pred - tp, fn=n_gt - tp, by_label={},
        train_cpu_s=1.0, train_wall_s=1.0, resampled="groups", recordings=[list(r) for r in recordings],
        false_alarms=[list(a) for a in false_alarms], date="", versions={},
    )  # fmt: skip


def test_a_record_survives_a_file_whose_end_was_cut_off(tmp_path):
    path = tmp_path / "results.jsonl"
    first = record(recordings=[("r1", "g1", 2, 2, 1)])
    path.write_text(first.line() + record(seed=2).line()[:50])
    assert detector_tables.read_records(path) == [first]
    assert detector_tables.read_records(tmp_path / "none.jsonl") == []


def test_paired_difference():
    better = record("clip", recordings=[(f"r{i}", f"g{i}", 2, 2, 2) for i in range(20)])
    worse = record(recordings=[(f"r{i}", f"g{i}", 2, 2, 1) for i in range(20)])
    assert detector_tables.paired_difference([(better, worse)]) == pytest.approx((0.5, 0.5, 0.5))
    other = record(recordings=[(f"r{i}", f"g{i}", 2, 2, 2 * (i % 2)) for i in range(20)])
    difference, low, high = detector_tables.paired_difference([(other, worse), (worse, worse)])
    assert difference == pytest.approx(0.0) and -0.2 < low < -0.05 and 0.05 < high < 0.2


def test_suspects_are_found_by_most_seeds_and_louder_than_most_hits(capsys):
    twice = ["x.wav", "owl", 1.0, 2.0, 0.9, ""], ["x.wav", "owl", 1.2, 2.2, 0.8, "other"]
    faint = ["x.wav", "owl", 5.0, 6.0, 0.9, ""], ["x.wav", "owl", 5.1, 6.0, 0.4, ""]
    ends_missed = ["y.wav", "owl", 1.0, 2.0, 0.9, "owl"], ["y.wav", "owl", 1.0, 2.0, 1.0, ""]
    alarms = [*zip(twice, faint, ends_missed, strict=True), [["x.wav", "dove", 1.0, 2.0, 1.0, ""]]]
    detector_tables.print_suspects([record(seed=i, false_alarms=a) for i, a in enumerate(alarms, start=1)])
    rows = [line for line in capsys.readouterr().out.splitlines() if ".wav" in line]
    assert rows == ["| x.wav | owl | 1.10 | 2.10 | 1: 90 %, 2: 80 % | other |"]


def test_the_table(capsys):
    calls = [(f"r{i}", f"g{i}", 2, 2, 1) for i in range(10)]
    detector_tables.print_table("owls", [record(recordings=calls), record("energy", recordings=calls)])
    text = capsys.readouterr().out
    assert "owls: 20 calls, 10 recordings" in text and "resample 10 groups" in text
    assert "| energy threshold | 1 | 0.500 |" in text and "| +0.000 (+0.000 to +0.000) |" in text
