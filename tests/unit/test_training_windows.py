"""Training as ANIMAL-SPOT does it: clips, windows cut from them, augmentation, judging, going on, importing."""

import contextlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from animal_spot_checkpoint import checkpoint

from otus.audio import inspect
from otus.config import AugmentationSettings, TrainingSettings, load_config
from otus.errors import DataError
from otus.models import Resnet18, WindowEnsemble, resnet18
from otus.models.card import load_model, save_model
from otus.stopping import StoppedError
from otus.tables import table
from otus.training import TrainingTables, train_fold
from otus.training.material import read_material
from otus.training.windows import ClipObjective, amplified, fitted, learning_from_windows, stretched

RATE = 8000
NARROW = (4, 8, 8, 16)
QUIET = AugmentationSettings(gain_db=0)
WINDOWS = {
    "window_s": 0.2,
    "hop_s": 0.05,
    "sample_rate": RATE,
    "n_fft": 256,
    "hop_samples": 80,
    "bins": 32,
    "high_hz": 3000,
}
SETTINGS = TrainingSettings(
    architecture="resnet18",
    objective="clip",
    resnet18=WINDOWS,
    members=1,
    epochs=3,
    batch_size=4,
    precision="fp32",
    optimisation={"method": "adam", "learning_rate": 0.003, "schedule": "plateau", "averaging": 0},
    augmentation={"gain_db": 6, "stretch_pitch": 1.5, "stretch_time": 2},
)
SIDES = {"r0": "train", "r1": "train", "r2": "val", "r3": "test"}
CALLS = [(0.5, 0.8), (1.5, 1.62), (2.5, 3.1), (4.0, 4.3)]
NOISE = [(0.9, 1.2), (1.9, 2.4), (3.3, 3.9), (4.5, 4.6)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Networks of few channels on one thread: more threads make such networks slower."""
    monkeypatch.setattr(resnet18, "_CHANNELS", NARROW)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four recordings: noise with a tone at every call; the one of the test side does not exist."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, name in enumerate(SIDES):
        rng = np.random.default_rng(number)
        t = np.arange(6 * RATE) / RATE
        sound = 0.01 * rng.standard_normal(len(t))
        for start, end in CALLS:
            inside = (t >= start) & (t < end)
            sound[inside] += 0.2 * np.sin(2 * np.pi * 1000 * t[inside])
        if SIDES[name] != "test":
            soundfile.write(folder / f"{name}.wav", sound, RATE)
    return folder


def make_tables(root, *, noise=NOISE, labels=("hum",), sides=SIDES):
    recordings, annotations, clips, splits = [], [], [], []
    for name, side in sides.items():
        n_samples = 6 * RATE
        recordings.append(
            {
                "recording_id": name,
                "path": f"{name}.wav",
                "group": name,
                "duration_s": 6.0,
                "n_samples": n_samples,
                "sample_rate": RATE,
                "channels": 1,
                "subtype": "PCM_16",
                "sha256": name,
                "labelled": True,
                "readable": True,
            }
        )
        splits.append(
            {
                "recording_id": name,
                "group": name,
                "fold": 1,
                "split": side,
                "start_sample": 0,
                "end_sample": n_samples,
                "leaky": False,
            }
        )
        for i, (start, end) in enumerate(CALLS):
            label = labels[i % len(labels)]
            annotations.append(
                {"annotation_id": f"{name}a{i}", "recording_id": name, "start_s": start, "end_s": end, "label": label}
            )
            clips.append(clip(f"{name}c{i}", name, start, end, "target", label, side))
        for i, (start, end) in enumerate(noise):
            clips.append(clip(f"{name}n{i}", name, start, end, "noise", None, side))
    rows = {"recordings": recordings, "annotations": annotations, "clips": clips, "splits": splits}
    return TrainingTables(**{name: table(name, found) for name, found in rows.items()})


def clip(clip_id, recording, start, end, kind, label, side):
    return {
        "clip_id": clip_id,
        "recording_id": recording,
        "start_sample": int(start * RATE),
        "end_sample": int(end * RATE),
        "class": kind,
        "label": label,
        "group": recording,
        "fold": 1,
        "split": side,
        "origin": "annotation",
        "leaky": False,
    }


def never():
    return False


def after(calls):
    counter = itertools.count(1)
    return lambda: next(counter) >= calls


def learning(root, settings=SETTINGS, *, targets=("hum",), **tables):
    given = make_tables(root, **tables)
    return learning_from_windows(read_material(root, given, list(targets)), given.clips, list(targets), settings)


def fit(root, resume, *, settings=SETTINGS, stop=never, targets=("hum",), lines=None, **tables):
    return train_fold(
        root,
        make_tables(root, **tables),
        model="grouped-animal_spot",
        fold=1,
        targets=list(targets),
        settings=settings,
        iou=0.4,
        seed=5,
        resume_folder=resume,
        stop=stop,
        progress=(lines if lines is not None else []).append,
    )


def having(settings=SETTINGS, **values):
    """Other settings, checked."""
    return TrainingSettings.model_validate(settings.model_dump() | values)


def test_every_clip_of_a_side_is_one_example(root):
    objective = learning(root).objective
    assert [c.output for c in objective.train.clips] == [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4
    assert {c.recording.recording_id for c in objective.train.clips} == {"r0", "r1"}
    assert {c.recording.recording_id for c in objective.val.clips} == {"r2"}
    assert len(objective.val) == 8


def test_labels_are_outputs_in_the_order_of_the_targets(root):
    objective = learning(root, targets=("hum", "bark"), labels=("bark", "hum")).objective
    assert [c.output for c in objective.val.clips] == [2, 1, 2, 1, 0, 0, 0, 0]


def test_the_length_is_that_of_animal_spot(root):
    assert learning(root).objective.frames == 20  # 0.2 s of 10 ms; a window of the prediction has 17 spectra
    batch = next(learning(root).objective.batches(1, 0))
    assert batch.features.shape == (4, 1, 20, 32)
    assert batch.output.dtype == torch.int64


def test_an_epoch_shows_every_clip_once_in_another_order(root):
    objective = learning(root).objective
    assert objective.n_batches() == 4
    first, second = ([b.output.tolist() for b in objective.batches(seed, 0)] for seed in (1, 2))
    assert sum(map(sum, first)) == sum(map(sum, second)) == 8
    assert first != second


def test_what_does_not_fill_a_batch_is_left_out_unless_there_is_no_other(root):
    assert learning(root, having(batch_size=5)).objective.n_batches() == 3
    few = learning(root, having(batch_size=64)).objective
    assert few.n_batches() == 1
    assert [len(b) for b in few.batches(1, 0)] == [16]


def test_batches_that_are_skipped_change_nothing(root):
    objective = learning(root).objective
    whole, rest = list(objective.batches(3, 0)), list(objective.batches(3, 2))
    assert len(rest) == 2
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.output, b.output)
        assert a.sources == b.sources


@pytest.mark.parametrize("noise_probability", [0.0, 1.0])
def test_memory_changes_no_bit(root, noise_probability):
    how = SETTINGS.augmentation.model_copy(update={"noise_probability": noise_probability})
    kept, read = (learning(root, having(cache_mb=mb, augmentation=how.model_dump())).objective for mb in (100, 0))
    for seed in (1, 2):
        for a, b in zip(kept.batches(seed, 0), read.batches(seed, 0), strict=True):
            assert torch.equal(a.features, b.features)
    assert len(kept.train._kept) == 16
    assert not read.train._kept


def test_memory_ends_with_the_budget(root):
    objective = learning(root, having(cache_mb=1)).objective
    list(objective.batches(1, 0))
    used = sum(power.numel() * power.element_size() for power in objective.train._kept.values())
    assert 0 < used <= 0.75 * 2**20


@pytest.mark.parametrize("pitch", [1.0, 1.2, 1.5, 4.0])
@pytest.mark.parametrize("compression", ["linear", "mel"])
def test_only_what_the_network_sees_is_kept(root, pitch, compression):
    """The windows are the same as those of whole spectra."""
    how = QUIET.model_dump() | {"stretch_pitch": pitch}
    changed = having(augmentation=how, resnet18=WINDOWS | {"high_hz": 800, "compression": compression})
    objective, whole = (learning(root, changed).objective for _ in range(2))
    whole.train._bins = 129
    for seed in range(20):
        assert torch.equal(objective._example(seed % 16, seed), whole._example(seed % 16, seed))
    kept = objective.train._kept[0]
    assert kept.element_size() == 2 and kept.shape[1] == objective.train._bins
    assert objective.train._bins < 129
    assert objective.val._bins < 30, "val clips keep their pitch"


def test_an_epoch_takes_as_many_clips_as_are_asked_for_and_all_in_time(root):
    objective = learning(root, having(cuts_per_epoch=6, batch_size=3)).objective
    assert objective.n_batches() == 2
    seen = set()
    objective._example = lambda index, seed: seen.add(index) or torch.zeros(1, 20, 32)
    assert sum(map(len, objective.batches(1, 0))) == len(seen) == 6, "no clip twice"
    for seed in range(20):
        list(objective.batches(seed, 0))
    assert seen == set(range(16))
    assert learning(root, having(cuts_per_epoch=1000)).objective.n_batches() == 4


def test_augmentation_follows_its_settings(root):
    plain = learning(root, having(augmentation=QUIET.model_dump())).objective
    whole = plain.train.power(2)  # longer than a window, so that only the place is drawn
    index = [c.output for c in plain.train.clips].index(1)
    windows = [plain._example(index, seed) for seed in range(4)]
    assert any(not torch.equal(windows[0], w) for w in windows[1:])  # the place
    assert all(w.min() == 0.0 for w in windows)
    assert len(whole) > plain.frames
    noisy = learning(root, having(augmentation=QUIET.model_dump() | {"noise_probability": 1.0})).objective
    assert not torch.equal(noisy._example(index, 0), windows[0])


def test_levels_are_whole_decibels_as_documented():
    power = torch.ones(2, 3)
    found = {
        round(
            10 * math.log10(float(amplified(power, AugmentationSettings(gain_db=6), np.random.default_rng(s))[0, 0])), 6
        )
        for s in range(300)
    }
    assert found == {-6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0}
    assert torch.equal(amplified(power, QUIET, np.random.default_rng(0)), power)


def test_time_is_stretched_by_up_to_two():
    how = QUIET.model_copy(update={"stretch_time": 2.0})
    power = torch.arange(40.0).unsqueeze(1).expand(40, 5)
    lengths = []
    for seed in range(300):
        found = stretched(power, how, np.random.default_rng(seed))
        lengths.append(len(found))
        assert (found.diff(dim=0) >= 0).all()
        assert found[0, 0] == 0
        assert found[-1, 0] >= 38
    assert 20 <= min(lengths) < 22
    assert 77 < max(lengths) <= 80
    assert 35 < np.median(lengths) < 45  # as often shorter as longer


def test_pitch_is_scaled_by_half_to_one_and_a_half():
    how = QUIET.model_copy(update={"stretch_pitch": 1.5})
    power = torch.full((3, 100), 7.0)
    power[:, 20] = 100.0
    peaks = []
    for seed in range(300):
        found = stretched(power, how, np.random.default_rng(seed))
        assert found.shape == power.shape
        peaks.append(float((found[0] == 100).nonzero().float().mean()) if (found[0] == 100).any() else math.nan)
        assert set(found.unique().tolist()) <= {7.0, 100.0}  # the gap at the top is the median
    assert 9 <= np.nanmin(peaks) < 11
    assert 29 < np.nanmax(peaks) <= 31


def test_noise_is_mixed_at_the_ratio_that_is_asked_for(root):
    how = QUIET.model_dump() | {"noise_probability": 1.0, "noise_low_db": 3.0, "noise_high_db": 3.0}
    objective = learning(root, having(augmentation=how)).objective
    bands = torch.rand(30, 32)
    mixed = objective._with_noise(bands, np.random.default_rng(0))
    assert ((mixed - bands) >= 0).all()
    assert 10 * math.log10(bands.sum() / (mixed - bands).sum()) == pytest.approx(3.0, abs=1e-3)


def test_windows_are_cut_or_filled_up():
    short, long = torch.ones(3, 2), torch.arange(10.0).unsqueeze(1).expand(10, 2)
    assert fitted(short, 8, None)[:, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert fitted(long, 5, None)[:, 0].tolist() == [2, 3, 4, 5, 6]
    assert torch.equal(fitted(long, 10, np.random.default_rng(0)), long)
    places = {tuple(fitted(short, 5, np.random.default_rng(s))[:, 0].tolist()) for s in range(50)}
    assert places == {(1, 1, 1, 0, 0), (0, 1, 1, 1, 0), (0, 0, 1, 1, 1)}
    assert {float(fitted(long, 8, np.random.default_rng(s))[0, 0]) for s in range(50)} == {0.0, 1.0, 2.0}


class Said(torch.nn.Module):
    """A network that gives these outputs, one window after another."""

    def __init__(self, outputs, n):
        super().__init__()
        self.outputs, self.weight = iter(outputs), torch.nn.Parameter(torch.zeros(1))
        self.n = n

    def forward(self, x):
        return torch.nn.functional.one_hot(torch.tensor([next(self.outputs) for _ in x]), self.n).float()


def test_judged_are_accuracy_and_f1_against_noise(root):
    objective = learning(root, targets=("hum", "bark"), labels=("hum", "bark")).objective  # 1 2 1 2 0 0 0 0
    found = objective.judge(Said([1, 2, 2, 0, 0, 0, 1, 0], 3))
    assert found == {"detection": 5 / 8, "accuracy": 5 / 8, "f1": pytest.approx(2 * 3 / (4 + 4))}
    assert objective.judge(Said([0] * 8, 3))["f1"] == 0.0


def test_the_loss_is_that_of_the_batch_however_it_is_divided(root):
    objective = learning(root).objective
    torch.manual_seed(0)
    network = Resnet18(SETTINGS.resnet18, 2).eval()
    batch = next(objective.batches(1, 0))
    assert objective.weight(batch) == 4
    whole = objective.loss(network, batch)
    parts = objective.loss(network, batch.part(0, 1)) + objective.loss(network, batch.part(1, 4))
    torch.testing.assert_close(whole, parts)
    expected = torch.nn.functional.cross_entropy(network(batch.features), batch.output) * 4
    torch.testing.assert_close(whole, expected)


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet18, "_CHANNELS", NARROW)
        torch.set_num_threads(1)
        return fit(root, tmp_path_factory.mktemp("fold"), settings=having(epochs=20))


def test_a_tone_is_learnt(trained):
    assert trained.validation["accuracy"] >= 0.85
    assert trained.validation["f1"] >= 0.85
    assert [r["epoch"] for r in trained.records] == list(range(1, len(trained.records) + 1))


def test_the_card_tells_what_prediction_needs(trained, tmp_path):
    card = trained.card
    assert (card.architecture, card.inference, card.objective) == ("resnet18", "windowed", "clip")
    assert (card.window_frames, card.context_frames, card.members, card.imported) == (4, 0, 1, None)
    assert card.frontend.window_samples == 1600
    assert card.data["train"]["calls"] == {"hum": 8}
    save_model(tmp_path / "m.safetensors", tmp_path / "card.json", trained.network, card)
    again, read = load_model(tmp_path / "m.safetensors", tmp_path / "card.json", torch.device("cpu"))
    assert read == card
    x = torch.randn(2, 1, 17, 32)
    torch.testing.assert_close(again(x), trained.network(x))


@pytest.mark.parametrize("stops", [[3], [5, 4]])
def test_a_training_that_was_stopped_ends_with_the_same_weights(root, tmp_path, stops):
    settings = having(members=2, epochs=2)
    whole = fit(root, tmp_path / "whole", settings=settings)
    for calls in stops:
        with pytest.raises(StoppedError):
            fit(root, tmp_path / "cut", settings=settings, stop=after(calls))
    resumed = fit(root, tmp_path / "cut", settings=settings)
    assert resumed.records == whole.records
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_other_val_clips_start_a_training_anew(root, tmp_path):
    with contextlib.suppress(StoppedError):
        fit(root, tmp_path, stop=after(7))
    lines = []
    with contextlib.suppress(StoppedError):
        fit(root, tmp_path, stop=after(2), lines=lines, noise=NOISE[:3])
    assert any("the state of another training" in line for line in lines)


def imported(tmp_path, *, epochs, **changes):
    data = {"sr": RATE, "n_fft": 256, "hop_length": 80, "n_freq_bins": 24, "fmin": 0, "fmax": 3000, "seed": 6}
    content = checkpoint(widths=NARROW, **(data | changes))
    torch.save(content, tmp_path / "ANIMAL-SPOT.pk")
    windows = WINDOWS | {"checkpoint": str(tmp_path / "ANIMAL-SPOT.pk")}
    return content, having(resnet18=windows, epochs=epochs, members=3)


def test_a_checkpoint_is_taken_as_it_is(root, tmp_path):
    content, settings = imported(tmp_path, epochs=0)
    lines = []
    found = fit(root, tmp_path / "resume", settings=settings, lines=lines)
    assert isinstance(found.network, WindowEnsemble)
    state = found.network.members[0].state_dict()
    for name, value in content["encoderState"].items():
        assert torch.equal(state[f"encoder.{name}"], value)
    card = found.card
    assert (card.members, card.best_epochs, found.records) == (1, [0], [])
    assert card.frontend.bands == card.network["bins"] == 24
    assert card.imported["file"] == "ANIMAL-SPOT.pk"
    assert "Nothing is known of the recordings" in card.imported["note"]
    assert card.data["train"] == {"recordings": 0, "hours": 0, "calls": {"hum": 0}}
    assert set(found.validation) == {"detection", "accuracy", "f1"}
    assert "weights of ANIMAL-SPOT.pk" in lines[0]
    assert not (tmp_path / "resume").exists()


def test_a_checkpoint_needs_no_clips_to_be_taken_as_it_is(root, tmp_path):
    _, settings = imported(tmp_path, epochs=0)
    assert fit(root, tmp_path / "resume", settings=settings, noise=[]).card.imported


def test_a_checkpoint_is_a_start(root, tmp_path, monkeypatch):
    content, settings = imported(tmp_path, epochs=1)
    starts = []
    original = ClipObjective.loss

    def note(self, network, batch):
        starts.append(network.encoder.conv1.weight.detach().clone())
        return original(self, network, batch)

    monkeypatch.setattr(ClipObjective, "loss", note)
    found = fit(root, tmp_path / "resume", settings=settings.model_copy(update={"members": 1}))
    assert torch.equal(starts[0], content["encoderState"]["conv1.weight"])
    assert not torch.equal(found.network.members[0].encoder.conv1.weight, content["encoderState"]["conv1.weight"])
    assert found.card.imported["file"] == "ANIMAL-SPOT.pk"
    assert found.card.best_epochs == [1]


def test_a_training_without_noise_or_val_clips_is_refused(root):
    with pytest.raises(DataError, match="no noise clip"):
        learning(root, noise=[])
    given = make_tables(root)
    material = read_material(root, given, ["hum"])
    with pytest.raises(DataError, match="no clip lies on the val side"):
        learning_from_windows(material, given.clips[given.clips["split"] == "train"], ["hum"], SETTINGS)


def test_the_preset_is_animal_spot(tmp_path):
    (tmp_path / "corpus.yaml").write_text("corpus: {root: x, annotations: [{files: '*.txt'}], targets: [hum]}\n")
    preset = Path(__file__).parents[2] / "config" / "animal_spot.yaml"
    config = load_config([tmp_path / "corpus.yaml", preset])
    assert list(config.training) == ["default", "animal_spot"] and config.training["default"] == TrainingSettings()
    found = config.training["animal_spot"]
    assert (found.optimisation.method, found.optimisation.schedule) == ("adam", "plateau")
    assert found.optimisation.learning_rate == pytest.approx(1e-5 * found.batch_size)
    assert (found.optimisation.beta1, found.optimisation.beta2) == (0.5, 0.999)
    assert (found.resnet18.window_s, found.resnet18.hop_s, found.resnet18.sample_rate) == (0.4, 0.05, 48_000)
    decoding = config.evaluation.decoding_of["animal_spot"]
    assert (decoding.merge, decoding.gaps, decoding.smoothing, decoding.min_duration) == (
        ["union"],
        [0.0],
        [0.0],
        [0.0],
    )
    assert sorted(decoding.off_thresholds) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_recordings_of_another_rate_are_resampled(root, tmp_path):
    soundfile.write(tmp_path / "a.wav", soundfile.read(root / "r0.wav")[0], RATE // 2)
    assert inspect(tmp_path / "a.wav").duration_s == 12.0
    objective = learning(root, having(resnet18=WINDOWS | {"sample_rate": 2 * RATE, "n_fft": 512})).objective
    clip = objective.train.clips[0]
    assert len(objective.train.power(0)) == 1 + (2 * (clip.end_sample - clip.start_sample) - 512) // 80
