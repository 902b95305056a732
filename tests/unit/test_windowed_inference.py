"""Scores of windows: the same as ANIMAL-SPOT's, wherever a recording is cut."""

import dataclasses
import math

import numpy as np
import pytest
import soundfile
import torch
from animal_spot_checkpoint import checkpoint, probabilities, windows

from otus.audio import AudioFile, inspect, read
from otus.config import Resnet18Settings
from otus.dense import FrameRange
from otus.errors import StageError
from otus.inference import acceleration
from otus.inference.scorer import Scorer, Stretch
from otus.inference.windowed import class_logits
from otus.models import WindowEnsemble, resnet18
from otus.models.animal_spot import import_checkpoint
from otus.models.card import ModelCard, load_model, save_model
from otus.selections import NO_WINDOW, DecodingPoint, decode

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
    for name, (samples, rate) in sounds.items():
        soundfile.write(folder / f"{name}.wav", samples, rate, subtype="FLOAT")
    return {name: folder / f"{name}.wav" for name in sounds}


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


def predicted(place, model, *, chunk_s=120.0, batch=None):
    """Logits of every recording, scored chunk by chunk."""
    scorer = Scorer(*model, torch.device("cpu"), batch=batch)
    return {name: scored(scorer, path, chunk_s) for name, path in place.items()}


def scored(scorer, path, chunk_s):
    with AudioFile(path) as file:
        info, step = file.info, max(1, round(chunk_s * file.info.sample_rate))
        pieces = []
        for start in range(0, info.n_samples, step):
            frames = scorer.frames(start, min(start + step, info.n_samples), info)
            first, last = scorer.reads(frames, info)
            samples = file.read_at_rate(first, last, scorer.sample_rate)
            stretch = Stretch(samples, first, scorer.sample_rate)
            pieces.append(scorer.score(stretch, frames, info, scorer.profile([], info)))
    return np.concatenate(pieces, axis=1)


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
    logits = predicted(place, model, chunk_s=1.3)["a"]
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
    logits = predicted(place, model)["a"]
    expected = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=HOP_S, min_max=True)[:, 1]
    found = 1 / (1 + np.exp(-at_windows(logits, len(expected), len(sound), model[1])[0].astype(float)))
    assert np.abs(found - expected.numpy()).max() < 1e-5


@pytest.mark.parametrize("n_samples", [1, 100, 511, 513, 3000, 6399, 6400, 6401])
def test_short_recordings(narrow, tmp_path, n_samples):
    content = checkpoint(widths=NARROW)
    model = converted(tmp_path, [content], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    sound = scene(1.0, 16_000)[:n_samples]
    place = corpus(tmp_path, {"a": (sound, 16_000)})
    logits = predicted(place, model)["a"]
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
    logits = predicted(place, model)["a"]
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
    whole = predicted(place, model)
    cut = predicted(place, model, chunk_s=chunk_s)
    assert np.array_equal(whole["a"], cut["a"])
    assert np.array_equal(whole["c"], cut["c"])
    assert np.array_equal(whole["b"], cut["b"])


def test_windows_that_nobody_asks_for_are_neither_read_nor_in_the_way(narrow, tmp_path):
    model = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    place = corpus(tmp_path, {"a": (scene(8.0, 16_000), 16_000)})
    whole = predicted(place, model)["a"]
    info, scorer = inspect(place["a"]), Scorer(*model, torch.device("cpu"))
    assert scorer.profile_reads(info) == []
    frames = FrameRange(50, 52)
    assert scorer.reads(frames, info) == (46 * 800, 47 * 800 + 6400)
    assert scorer.reads(FrameRange(0, 3), info) == (0, 0)  # no window is centred there
    samples = read(place["a"], 46 * 800, 47 * 800 + 6400)[0]
    found = scorer.score(Stretch(samples, 46 * 800, 16_000), frames, info, torch.zeros(0))
    assert np.array_equal(found, whole[:, 50:52])
    nothing = scorer.score(Stretch(samples[:0], 0, 16_000), FrameRange(0, 3), info, torch.zeros(0))
    assert (nothing == NO_WINDOW).all()


def test_fewer_windows_at_once_where_memory_runs_out(narrow, tmp_path, monkeypatch):
    model = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    place = corpus(tmp_path, {"a": (scene(4.0, 16_000), 16_000)})
    whole = predicted(place, model)["a"]
    seen, forward = [], WindowEnsemble.forward

    def crowded(network, x):
        seen.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(network, x)

    monkeypatch.setattr(WindowEnsemble, "forward", crowded)
    scorer, most = Scorer(*model, torch.device("cpu"), batch=64), 20
    np.testing.assert_allclose(scored(scorer, place["a"], 120.0), whole, atol=1e-5)
    assert seen == [64, 32, 16, 16, 16, 16, 9]
    assert scorer.batch == 16
    most = 0
    with pytest.raises(StageError, match=r"^memory ran out while a single window was scored;[^\n]*$"):
        scored(scorer, place["a"], 120.0)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_imported_networks_keep_the_scores_of_their_program(narrow, tmp_path, precision, monkeypatch):
    monkeypatch.setattr(acceleration, "native_bfloat16", lambda device: True)
    network, card = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings())
    assert (
        Scorer(network, card, torch.device("cpu"), precision=precision).about == "resnet18, float32, batch 64 windows"
    )
    own = dataclasses.replace(card, imported=None)
    about = Scorer(network, own, torch.device("cpu"), precision=precision).about
    assert about == f"resnet18, {'bfloat16' if precision == 'auto' else 'float32'}, batch 64 windows"


def test_bfloat16_changes_scores_little(narrow, tmp_path):
    network, card = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings(window_s=WINDOW_S, hop_s=HOP_S))
    place = corpus(tmp_path, {"a": (scene(3.0, 16_000), 16_000)})
    exact = scored(Scorer(network, card, torch.device("cpu")), place["a"], 120.0)[0]
    coarse = scored(Scorer(network, card, torch.device("cpu"), precision="bfloat16"), place["a"], 120.0)[0]
    assert not np.array_equal(exact, coarse)
    np.testing.assert_allclose(coarse, exact, atol=0.05, rtol=0.03)


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


def test_scores_that_are_not_finite_are_an_error(narrow, tmp_path):
    network, card = converted(tmp_path, [checkpoint(widths=NARROW)], Resnet18Settings())
    torch.nn.init.constant_(network.members[0].classifier.linear.bias, torch.nan)
    place = corpus(tmp_path, {"a": (scene(1.0, 16_000), 16_000)})
    with pytest.raises(FloatingPointError, match=r"^m: the network gave scores that are not finite\.$"):
        predicted(place, (network, card))


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
    activity, onset = predicted(place, model)["a"]
    p = probabilities(torch.from_numpy(sound), content, window_s=WINDOW_S, hop_s=HOP_S, min_max=True)[:, 1].numpy()
    bounds = windows(len(sound), content, WINDOW_S, HOP_S)
    for threshold in np.quantile(p, [0.0, 0.3, 0.6, 0.9]) - 2e-5:
        point = DecodingPoint(float(threshold), 1.0, 0.0, 0.0, 0.0, "union", model[1].window_frames)
        found = decode(activity, onset, HOP_S, point)
        expected = np.array(united(p, bounds, threshold, 16_000))
        np.testing.assert_allclose(found.start_s, expected[:, 0], atol=1e-9)
        np.testing.assert_allclose(found.end_s, expected[:, 1], atol=HOP_S * (seconds < WINDOW_S) + 1e-9)
