"""Scores of windows: the same as ANIMAL-SPOT's, wherever a recording is cut."""

import math

import numpy as np
import pytest
import soundfile
import torch
from animal_spot_checkpoint import checkpoint, probabilities, windows

from otus.audio import inspect, sha256
from otus.chunks import make_chunks
from otus.config import ChunkSettings, Resnet18Settings
from otus.inference import predict_shard, windowed
from otus.inference.windowed import class_logits
from otus.models import WindowEnsemble, resnet18
from otus.models.animal_spot import import_checkpoint
from otus.models.card import ModelCard, load_model, save_model
from otus.scores import read_scores
from otus.selections import NO_WINDOW, DecodingPoint, decode
from otus.tables import table

NARROW = (4, 8, 8, 16)
WINDOW_S, HOP_S = 0.4, 0.05


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(resnet18, "_CHANNELS", NARROW)


def scene(seconds, rate, seed=0):
    """Noise of changing level with sweeps, and a stretch of nothing at all."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    sound = rng.standard_normal(n) * (0.01 + 0.02 * (1 + np.sin(2 * np.pi * 0.7 * t)))
    for start in np.arange(0.3, seconds, 0.9):
        inside = (t >= start) & (t < start + 0.25)
        sound[inside] += 0.3 * np.sin(2 * np.pi * (800 + 3000 * (t[inside] - start)) * (t[inside] - start))
    sound[int(0.62 * n) : int(0.8 * n)] = 0.0
    return sound.astype(np.float32)


def corpus(folder, sounds):
    """Recordings of these names -> (samples, rate)."""
    rows = []
    for name, (samples, rate) in sounds.items():
        path = folder / f"{name}.wav"
        soundfile.write(path, samples, rate, subtype="FLOAT")
        found = inspect(path)
        rows.append(
            {
                "recording_id": name,
                "path": path.name,
                "group": name,
                "duration_s": found.duration_s,
                "n_samples": found.n_samples,
                "sample_rate": rate,
                "channels": 1,
                "sha256": sha256(path),
                "labelled": True,
                "readable": True,
            }
        )
    return folder, table("recordings", rows)


def converted(folder, contents, settings, targets=("hum",)):
    """The networks of these checkpoints, written as a model of Otus and read again."""
    found = []
    for number, content in enumerate(contents):
        torch.save(content, folder / f"{number}.pk")
        found.append(
            import_checkpoint(settings.model_copy(update={"checkpoint": str(folder / f"{number}.pk")}), list(targets))
        )
    first = found[0]
    card = ModelCard(
        model="m",
        fold=1,
        architecture="resnet18",
        members=len(found),
        network=first.settings.model_dump(),
        frontend=first.frontend,
        classes=list(targets),
        context_frames=0,
        inference="windowed",
        objective="clip",
        window_frames=first.frontend.window_frames,
        median_call_s=0.3,
        short_call_s=0.2,
        training_data_sha256="0" * 64,
        training={},
        data={},
        best_epochs=[0],
        seed=1,
        versions={},
        imported=first.record,
    )
    save_model(folder / "m.safetensors", folder / "m.json", WindowEnsemble([f.network() for f in found]), card)
    return load_model(folder / "m.safetensors", folder / "m.json", torch.device("cpu"))


def predicted(place, model, out, *, chunk_s=120.0, context_s=0.0):
    """Logits of every recording, from the score store."""
    root, recordings = place
    network, card = model
    result = predict_shard(
        root,
        make_chunks(recordings, ChunkSettings(chunk_s=chunk_s, context_s=context_s)),
        recordings,
        network,
        card,
        skip=set(),
        scores_path=out,
        resume_folder=out.parent / f"{out.stem}.resume",
        device=torch.device("cpu"),
        max_failed_fraction=0.0,
        stop=lambda: False,
        progress=lambda line: None,
    )
    assert set(result.items["status"]) == {"ok"}
    scores, classes, hop_s = read_scores([out], only=set(recordings["recording_id"]))
    assert classes == card.classes
    assert hop_s == pytest.approx(card.frontend.hop_s)
    return scores


def at_windows(logits, number, n_samples, card):
    """The logits of the windows, from the frames that stand for them; all others must say never."""
    hop, ahead = card.frontend.hop_samples, card.frontend.window_frames // 2
    frames = logits.shape[1]
    assert frames == math.ceil(n_samples / hop)
    first = min(ahead, frames - 1) if n_samples < card.frontend.window_samples else ahead
    others = np.ones(frames, dtype=bool)
    others[first : first + number] = False
    assert (logits[:, others] == NO_WINDOW).all()
    n_classes = len(card.classes)
    assert (logits[n_classes:] == NO_WINDOW).all()
    assert (logits[:n_classes, ~others] > NO_WINDOW).all()
    return logits[:n_classes, ~others]


CASES = [
    {},
    {"freq_compression": "mel"},
    {"max_pool": 0},
    {"max_pool": 1, "kernel": 5},
    {"freq_compression": "mel", "max_pool": 1, "fmin": 0, "fmax": 8000},
    {"preemphases": 0.9, "hop_length": 128, "n_freq_bins": 100, "fmin": 0},
    {"fmax": 10_000},  # above half the sample rate
]


@pytest.mark.parametrize(
    ("case", "hop_s", "min_max"),
    [
        *((case, HOP_S, min_max) for case in CASES for min_max in (True, False)),
        *(({}, hop_s, True) for hop_s in (0.07, 0.0333)),
    ],
)
def test_scores_are_those_of_animal_spot(narrow, tmp_path, case, hop_s, min_max):
    content = checkpoint(widths=NARROW, **case)
    settings = Resnet18Settings(window_s=WINDOW_S, hop_s=hop_s, min_max_norm=min_max)
    model = converted(tmp_path, [content], settings)
    sound = scene(3.01, 16_000)
    place = corpus(tmp_path, {"a": (sound, 16_000)})
    logits = predicted(place, model, tmp_path / "s.parquet", chunk_s=1.3)["a"]
    expected = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=hop_s, min_max=min_max)[:, 1]
    found = 1 / (1 + np.exp(-at_windows(logits, len(expected), len(sound), model[1])[0].astype(float)))
    assert np.ptp(expected.numpy()) > 0.02  # the network tells the windows apart
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_scores_of_the_full_network_are_those_of_animal_spot(tmp_path):
    data = {"sr": 48_000, "n_fft": 2048, "hop_length": 1024, "n_freq_bins": 128, "fmin": 0, "fmax": 4000}
    content = checkpoint(widths=(64, 128, 256, 512), seed=4, **data)
    model = converted(tmp_path, [content], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    sound = scene(1.2, 48_000)
    place = corpus(tmp_path, {"a": (sound, 48_000)})
    logits = predicted(place, model, tmp_path / "s.parquet")["a"]
    expected = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=HOP_S, min_max=True)[:, 1]
    found = 1 / (1 + np.exp(-at_windows(logits, len(expected), len(sound), model[1])[0].astype(float)))
    assert np.abs(found - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("n_samples", [1, 100, 511, 513, 3000, 6399, 6400, 6401])
def test_short_recordings(narrow, tmp_path, n_samples):
    content = checkpoint(widths=NARROW)
    model = converted(tmp_path, [content], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    sound = scene(1.0, 16_000)[:n_samples]
    place = corpus(tmp_path, {"a": (sound, 16_000)})
    logits = predicted(place, model, tmp_path / "s.parquet")["a"]
    expected = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=HOP_S, min_max=True)[:, 1]
    assert len(expected) == 1
    found = 1 / (1 + np.exp(-at_windows(logits, 1, n_samples, model[1])[0].astype(float)))
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_many_classes_and_members(narrow, tmp_path):
    classes = {"bark": 0, "noise": 1, "hum": 2, "moo": 3}
    contents = [checkpoint(widths=NARROW, classes=classes, seed=seed) for seed in (1, 2)]
    model = converted(tmp_path, contents, Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S), targets=("hum", "bark"))
    sound = scene(2.0, 16_000)
    place = corpus(tmp_path, {"a": (sound, 16_000)})
    logits = predicted(place, model, tmp_path / "s.parquet")["a"]
    how = {"window_s": WINDOW_S, "hop_s": HOP_S, "min_max": True}
    both = [probabilities(torch.from_numpy(sound), content, **how).log() for content in contents]
    expected = torch.softmax((both[0] + both[1]) / 2, dim=1).numpy()  # logits are known up to a constant
    found = 1 / (1 + np.exp(-at_windows(logits, len(expected), len(sound), model[1]).astype(float)))
    assert np.abs(found - expected[:, [2, 0]].T).max() < 1e-5


@pytest.mark.parametrize("chunk_s", [0.31, 2.7])
def test_scores_do_not_depend_on_chunks(narrow, tmp_path, chunk_s):
    model = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    sounds = {"a": (scene(8.1, 16_000), 16_000), "b": (scene(6.0, 22_050), 22_050), "c": (scene(0.2, 16_000), 16_000)}
    place = corpus(tmp_path, sounds)
    whole = predicted(place, model, tmp_path / "whole.parquet")
    cut = predicted(place, model, tmp_path / "cut.parquet", chunk_s=chunk_s)
    assert np.array_equal(whole["a"], cut["a"])
    assert np.array_equal(whole["c"], cut["c"])
    np.testing.assert_allclose(cut["b"], whole["b"], atol=2e-4)  # resampled in other stretches


def test_long_stretches_are_read_in_parts(narrow, tmp_path, monkeypatch):
    model = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    place = corpus(tmp_path, {"a": (scene(12.0, 16_000), 16_000)})
    whole = predicted(place, model, tmp_path / "whole.parquet")["a"]
    read, lengths = windowed.read_windows, []
    monkeypatch.setattr(windowed, "_READ_SAMPLES", 10_000)  # less than one batch of windows
    monkeypatch.setattr(windowed, "read_windows", lambda *args: lengths.append(len(read(*args))) or read(*args))
    parts = predicted(place, model, tmp_path / "parts.parquet")["a"]
    assert np.array_equal(whole, parts)
    assert len(lengths) == 4  # 233 windows
    assert max(lengths) == 63 * 800 + 6400


def test_a_network_that_is_sure_never_looks_like_one_that_was_not_asked():
    outputs = torch.tensor([[100.0, -100.0], [-100.0, 100.0], [0.0, math.log(3.0)]])
    logits = class_logits(outputs, 1)
    assert logits[0, 0] == -29 > NO_WINDOW
    assert logits[1, 0] == 29
    assert logits[2, 0] == pytest.approx(math.log(3.0))


def test_logits_are_those_of_the_softmax():
    outputs = torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) * 4
    p = torch.softmax(outputs.double(), dim=1)[:, 1:4]
    torch.testing.assert_close(class_logits(outputs, 3), torch.log(p / (1 - p)).float(), atol=1e-5, rtol=1e-5)


def test_scores_that_are_not_finite_fail_their_chunk(narrow, tmp_path):
    network, card = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings())
    torch.nn.init.constant_(network.members[0].classifier.linear.bias, torch.nan)
    root, recordings = corpus(tmp_path, {"a": (scene(1.0, 16_000), 16_000)})
    result = predict_shard(
        root,
        make_chunks(recordings, ChunkSettings()),
        recordings,
        network,
        card,
        skip=set(),
        scores_path=tmp_path / "s.parquet",
        resume_folder=tmp_path / "resume",
        device=torch.device("cpu"),
        max_failed_fraction=1.0,
        stop=lambda: False,
        progress=lambda line: None,
    )
    assert result.items["error_class"].tolist() == ["FloatingPointError"]


def united(probability, bounds, threshold, rate):
    """ANIMAL-SPOT's merging: windows above the threshold are joined where they touch or overlap."""
    joined = []
    for p, (start, end) in zip(probability, bounds, strict=True):
        if p >= threshold:
            if joined and start <= joined[-1][1]:
                joined[-1][1] = end
            else:
                joined.append([start, end])
    return [(a / rate, b / rate) for a, b in joined]


@pytest.mark.parametrize("seconds", [6.0, 0.23])
def test_the_union_of_windows_is_that_of_animal_spot(narrow, tmp_path, seconds):
    content = checkpoint(widths=NARROW)
    model = converted(tmp_path, [content], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    sound = scene(seconds, 16_000)
    place = corpus(tmp_path, {"a": (sound, 16_000)})
    activity, onset = predicted(place, model, tmp_path / "s.parquet")["a"]
    p = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=HOP_S, min_max=True)[:, 1].numpy()
    bounds = windows(len(sound), content, WINDOW_S, HOP_S)
    for threshold in np.quantile(p, [0.0, 0.3, 0.6, 0.9]) - 2e-5:
        point = DecodingPoint(float(threshold), 1.0, 0.0, 0.0, 0.0, "union", model[1].window_frames)
        found = decode(activity, onset, HOP_S, point)
        expected = np.array(united(p, bounds, threshold, 16_000))
        np.testing.assert_allclose(found.start_s, expected[:, 0], atol=1e-9)
        np.testing.assert_allclose(found.end_s, expected[:, 1], atol=HOP_S * (seconds < WINDOW_S) + 1e-9)
