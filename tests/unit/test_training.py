"""Cuts, labels, augmentation, the loss, early stopping, resuming."""

import contextlib
import dataclasses
import itertools
import resource

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from otus.audio import inspect
from otus.config import AugmentationSettings, DecodingSettings, NetworkSettings, TrainingSettings
from otus.errors import DataError, MissingPartError, StageError
from otus.frontend import INPUT_RANGE, Frontend
from otus.selections import DecodingPoint
from otus.sides import Spans
from otus.stopping import StoppedError
from otus.tables import table
from otus.training import TrainingTables, cuts, loop, stage, train_fold
from otus.training.augmentation import augment
from otus.training.cuts import (
    Batch,
    ClipPosition,
    FeatureStore,
    LabelledRecording,
    counted_frames,
    draw_batches,
    frame_labels,
)
from otus.training.loop import TrainingMaterial, frame_loss, train_model
from otus.training.validation import score_store, validate

RATE = 8000
FRONTEND = Frontend(RATE, 80, 256, 16, 0.0, 4000.0, "linear")
POINT = DecodingPoint(off_threshold=0.3, onset_threshold=1.0, gap_s=0.0, smoothing_s=0.03, min_duration_s=0.05)
SETTINGS = TrainingSettings(
    network=NetworkSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1),
    epochs=3,
    cuts_per_epoch=12,
    batch_size=4,
    cut_frames=100,
)


def make_recording(folder, name, calls, seconds=6.0, seed=0):
    """Noise with a loud tone at every call."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    sound = 0.01 * rng.standard_normal(len(t))
    for start, end in calls:
        inside = (t >= start) & (t < end)
        sound[inside] += 0.2 * np.sin(2 * np.pi * 1000 * t[inside])
    soundfile.write(folder / f"{name}.wav", sound, RATE)
    times = np.array(calls, dtype=float).reshape(-1, 2)
    return LabelledRecording(
        name,
        folder / f"{name}.wav",
        inspect(folder / f"{name}.wav"),
        times[:, 0],
        times[:, 1],
        np.zeros(len(times), dtype=np.int64),
    )


def positions(recordings):
    return [
        ClipPosition(i, int(a * 100), int(b * 100), True)
        for i, r in enumerate(recordings)
        for a, b in zip(r.start_s, r.end_s, strict=True)
    ] + [ClipPosition(i, 10, 60, False) for i in range(len(recordings))]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these are slower on several threads, and much slower beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    train = [make_recording(folder, f"t{i}", [(1.0, 1.5), (3.0 + 0.1 * i, 3.6)], seed=i) for i in range(3)]
    val = [make_recording(folder, "v0", [(2.0, 2.4), (4.0, 4.5)], seed=9), make_recording(folder, "v1", [], seed=8)]
    return train, val


def never():
    return False


def after(calls):
    """A stop that is asked for at this call and from then on."""
    counter = itertools.count(1)
    return lambda: next(counter) >= calls


def fit(corpus, resume, *, settings=SETTINGS, digest="d", seed=1, stop=never, budget=10**8):
    train, val = corpus
    lines = []
    trained = train_model(
        TrainingMaterial(
            train=FeatureStore(train, FRONTEND, budget),
            val=FeatureStore(val, FRONTEND, budget),
            clips=positions(train),
            n_classes=1,
            decoding=[POINT],
            iou=0.4,
            onset_frames=2,
        ),
        settings=settings,
        seed=seed,
        device=torch.device("cpu"),
        resume_path=resume,
        digest=digest,
        stop=stop,
        progress=lines.append,
    )
    return trained, lines


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted training."""
    return fit(corpus, tmp_path_factory.mktemp("whole") / "r.pt")[0]


def weights(trained):
    return torch.cat([v.flatten().double() for v in trained.network.state_dict().values()])


def test_labels_are_frames_whose_centre_lies_in_the_call(tmp_path):
    recording = make_recording(tmp_path, "a", [(0.10, 0.13)], seconds=1.0)
    activity, onset = frame_labels(recording, FRONTEND, 1, 0, 100, onset_frames=1)
    assert np.flatnonzero(activity[0]).tolist() == [10, 11, 12]
    assert np.flatnonzero(onset[0]).tolist() == [9, 10, 11]
    later, _ = frame_labels(recording, FRONTEND, 1, 12, 20, onset_frames=1)
    assert np.flatnonzero(later[0]).tolist() == [0]


def test_a_call_shorter_than_a_frame_still_has_one(tmp_path):
    recording = make_recording(tmp_path, "a", [(0.1010, 0.1030)], seconds=1.0)
    activity, _ = frame_labels(recording, FRONTEND, 1, 0, 100, onset_frames=1)
    assert activity.sum() == 1


def test_every_target_clip_comes_up_before_any_comes_again(corpus):
    train, _ = corpus
    store = FeatureStore(train, FRONTEND, 10**8)
    clips = positions(train)
    settings = SETTINGS.model_copy(update={"target_share": 1.0, "cuts_per_epoch": 6, "cut_frames": 70})
    batches = list(
        draw_batches(store, clips, settings, n_classes=1, onset_frames=2, generator=np.random.default_rng(0))
    )
    assert sum(len(b.features) for b in batches) == 6
    for batch in batches:
        assert (batch.activity.sum(dim=(1, 2)) >= 40).all(), "each cut holds its whole call (40 to 60 frames)"


def test_a_recording_shorter_than_a_cut_is_filled_with_frames_that_do_not_count(tmp_path):
    short = make_recording(tmp_path, "s", [(0.1, 0.2)], seconds=0.4)
    store = FeatureStore([short], FRONTEND, 10**8)
    (batch,) = draw_batches(
        store,
        positions([short]),
        SETTINGS.model_copy(update={"cuts_per_epoch": 2}),
        n_classes=1,
        onset_frames=2,
        generator=np.random.default_rng(0),
    )
    assert batch.valid.sum(dim=1).tolist() == [40.0, 40.0]


def test_features_are_the_same_with_and_without_memory(corpus):
    train, _ = corpus
    kept, read = FeatureStore(train, FRONTEND, 10**8), FeatureStore(train, FRONTEND, 0)
    torch.testing.assert_close(kept.read(1, 50, 150), read.read(1, 50, 150), atol=5e-3, rtol=0)


def test_augmentation_keeps_range_shape_and_truth_of_both_mixed_cuts():
    features = torch.randn(6, 16, 50)
    activity = torch.zeros(6, 1, 50)
    activity[0, 0, 10:20] = 1
    batch = Batch(features, activity, activity.clone(), torch.ones(6, 50))
    mixed = augment(batch, AugmentationSettings(mix_probability=1.0), torch.Generator().manual_seed(3))
    assert mixed.features.shape == features.shape
    assert INPUT_RANGE[0] <= mixed.features.min() and mixed.features.max() <= INPUT_RANGE[1]
    assert 1 <= int((mixed.activity.sum(dim=(1, 2)) > 0).sum()) <= 2
    nothing = AugmentationSettings(mix_probability=0.0, gain_db=0, tilt_db=0, masks=0, shift_bands=0)
    torch.testing.assert_close(augment(batch, nothing, torch.Generator()).features, features.clamp(*INPUT_RANGE))


def test_frames_that_do_not_count_do_not_move_the_loss():
    logits, truth = torch.randn(2, 2, 30), torch.zeros(2, 1, 30)
    valid = torch.ones(2, 30)
    valid[:, 20:] = 0
    batch = Batch(torch.zeros(2, 16, 30), truth, truth, valid)
    other = logits.clone()
    other[:, :, 20:] = 50.0
    assert frame_loss(logits, batch, SETTINGS) == frame_loss(other, batch, SETTINGS)


def test_training_learns_a_loud_tone_and_says_how_far_it_is(corpus, tmp_path):
    trained, lines = fit(corpus, tmp_path / "r.pt", settings=SETTINGS.model_copy(update={"epochs": 12}))
    assert trained.best.f1 > 0.8
    assert len(lines) == len(trained.epochs) and "epoch 1/12" in lines[0] and "s left" in lines[0]
    assert trained.epochs[-1]["loss"] < trained.epochs[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(corpus, tmp_path):
    first, second, third = (weights(fit(corpus, tmp_path / f"{i}.pt", seed=s)[0]) for i, s in enumerate((1, 1, 2)))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_killed_training_resumes_and_ends_with_the_same_weights(corpus, whole, tmp_path, monkeypatch):
    real, calls = loop.validate, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "r.pt")
    monkeypatch.setattr(loop, "validate", real)
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == "resuming after epoch 1 of 3"
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.epochs == resumed.epochs


def test_the_state_of_another_training_is_not_taken_over(corpus, tmp_path):
    fit(corpus, tmp_path / "r.pt", digest="one")
    _, lines = fit(corpus, tmp_path / "r.pt", digest="two")
    assert lines[0].endswith("r.pt is the state of another training: starting anew")
    assert lines[1].startswith("epoch 1/3")


# Three epochs of three batches; a stop is asked for before each epoch and after each batch.
@pytest.mark.parametrize("calls", range(1, 13))
def test_a_stopped_training_ends_with_the_same_weights_and_records(corpus, whole, tmp_path, calls):
    epochs, batches = (calls - 1) // 4, (calls - 1) % 4
    with pytest.raises(StoppedError, match=rf"after {epochs} of 3 epochs; the state is saved in .*r\.pt and the next"):
        fit(corpus, tmp_path / "r.pt", stop=after(calls))
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == f"resuming after epoch {epochs} of 3" + (
        f" and {batches} batches of the next" if batches else ""
    )
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.epochs == resumed.epochs and whole.best_epoch == resumed.best_epoch


def test_a_training_stopped_after_every_batch_and_every_epoch_ends_the_same(corpus, whole, tmp_path):
    stops = 0
    while True:
        try:
            resumed, _ = fit(corpus, tmp_path / "r.pt", stop=after(2))
            break
        except StoppedError:
            stops += 1
    assert stops == 11  # nine batches, and before the second and the third epoch
    assert torch.equal(weights(whole), weights(resumed)) and whole.epochs == resumed.epochs


@pytest.mark.parametrize("calls", [2, 6])
def test_recordings_beyond_the_memory_budget_do_not_change_a_resumed_training(corpus, tmp_path, calls):
    one_recording = 2 * FRONTEND.bands * 600
    whole, _ = fit(corpus, tmp_path / "whole.pt", budget=one_recording)
    with pytest.raises(StoppedError):
        fit(corpus, tmp_path / "r.pt", stop=after(calls), budget=one_recording)
    resumed, _ = fit(corpus, tmp_path / "r.pt", budget=one_recording)
    assert torch.equal(weights(whole), weights(resumed))


def test_batches_that_were_done_are_drawn_again_but_not_read(corpus):
    train, _ = corpus
    drawn = []
    for skip in (0, 2):
        store = FeatureStore(train, FRONTEND, 0)
        real, store.reads = store.read, 0

        def counted(*args, store=store, real=real):
            store.reads += 1
            return real(*args)

        store.read = counted
        options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(5), "skip": skip}
        drawn.append(list(draw_batches(store, positions(train), SETTINGS, **options)))
        assert store.reads == 4 * (3 - skip)
    assert len(drawn[1]) == 1 and torch.equal(drawn[0][2].features, drawn[1][0].features)


def test_a_killed_training_loses_no_more_than_the_time_between_two_saves(corpus, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    real, calls = loop.frame_loss, itertools.count(1)

    def killed(*args):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop, "frame_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "r.pt")
    monkeypatch.setattr(loop, "frame_loss", real)
    resumed, lines = fit(corpus, tmp_path / "r.pt")
    assert lines[0] == "resuming after epoch 1 of 3 and 2 batches of the next"
    assert torch.equal(weights(whole), weights(resumed)) and whole.epochs == resumed.epochs


def test_a_finished_training_is_not_trained_again(corpus, tmp_path, monkeypatch):
    first, _ = fit(corpus, tmp_path / "r.pt")
    monkeypatch.setattr(loop, "_one_epoch", None)
    again, lines = fit(corpus, tmp_path / "r.pt", stop=after(1))
    assert lines == ["resuming after epoch 3 of 3"]
    assert torch.equal(weights(first), weights(again)) and first.epochs == again.epochs


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-1],
    "a bit turned": lambda data: data[:9999] + bytes([data[9999] ^ 1]) + data[10000:],
    "garbage": lambda data: bytes(range(256)) * 40,
    "zeros": lambda data: bytes(len(data)),
    "without its first line": lambda data: data.partition(b"\n")[2],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_said_and_not_taken_over(corpus, tmp_path, damage):
    settings = SETTINGS.model_copy(update={"epochs": 1})
    path = tmp_path / "r.pt"
    whole, _ = fit(corpus, path, settings=settings)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again, lines = fit(corpus, path, settings=settings)
    assert lines[0] == f"{path} is damaged: starting anew" and lines[1].startswith("epoch 1/1")
    assert torch.equal(weights(whole), weights(again))
    assert fit(corpus, path, settings=settings)[1] == ["resuming after epoch 1 of 1"]


@contextlib.contextmanager
def small_files_only(most_bytes):
    """No file can be written beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_state_that_was_saved_before(corpus, whole, tmp_path):
    path = tmp_path / "r.pt"
    with pytest.raises(StoppedError):
        fit(corpus, path, stop=after(3))
    before = path.read_bytes()
    with small_files_only(1000), pytest.raises(MissingPartError, match=r"r\.pt: .*MB free.*nothing that was finished"):
        fit(corpus, path, stop=after(3))
    assert path.read_bytes() == before and {p.name for p in tmp_path.glob("*r.pt*")} == {"r.pt"}
    resumed, lines = fit(corpus, path)
    assert lines[0] == "resuming after epoch 0 of 3 and 2 batches of the next"
    assert torch.equal(weights(whole), weights(resumed))


def make_tables(corpus):
    """The tables of a fold with the corpus's train and val recordings."""
    rows = {"recordings": [], "annotations": [], "clips": [], "splits": []}
    for split, recordings in zip(("train", "val"), corpus, strict=True):
        for r in recordings:
            name = {"recording_id": r.recording_id}
            facts = {f: getattr(r.info, f) for f in ("duration_s", "n_samples", "sample_rate", "channels", "subtype")}
            rows["recordings"].append({**name, "path": r.path.name, "group": r.recording_id, "sha256": "0", **facts})
            side = {"fold": 1, "split": split, "start_sample": 0, "end_sample": r.info.n_samples, "leaky": False}
            rows["splits"].append({**name, "group": r.recording_id, **side})
            for i, (start, end) in enumerate(zip(r.start_s, r.end_s, strict=True)):
                one = {**name, "label": "hum"}
                call = {"annotation_id": f"{r.recording_id}{i}", "start_s": start, "end_s": end}
                rows["annotations"].append({**one, **call, "low_hz": 800.0, "high_hz": 1200.0})
                clip = {"clip_id": f"{r.recording_id}{i}", "fold": 1, "split": split, "class": "target"}
                rows["clips"].append({**one, **clip, "start_sample": int(start * RATE), "end_sample": int(end * RATE)})
    return TrainingTables(**{name: table(name, found) for name, found in rows.items()})


def fit_fold(corpus, folder, tables, *, stop=never, targets=("hum",)):
    lines = []
    trained = train_fold(
        corpus[0][0].path.parent,
        tables,
        model="m",
        fold=1,
        targets=list(targets),
        settings=SETTINGS.model_copy(update={"members": 2, "epochs": 2}),
        decoding=DecodingSettings(),
        iou=0.4,
        seed=3,
        resume_folder=folder,
        stop=stop,
        progress=lines.append,
    )
    return trained, lines


@pytest.fixture(scope="module")
def whole_fold(corpus, tmp_path_factory):
    return fit_fold(corpus, tmp_path_factory.mktemp("fold"), make_tables(corpus))[0]


# Two networks, each two epochs of three batches.
@pytest.mark.parametrize("calls", [2, 8, 9, 10, 13, 16])
def test_a_stopped_ensemble_ends_the_same_and_finished_networks_are_left_alone(
    corpus, whole_fold, tmp_path, monkeypatch, calls
):
    tables, whole = make_tables(corpus), whole_fold
    with pytest.raises(StoppedError, match=rf"member{1 + (calls > 8)}\.pt"):
        fit_fold(corpus, tmp_path / "resume", tables, stop=after(calls))
    steps, real = [], loop._one_batch
    monkeypatch.setattr(loop, "_one_batch", lambda *args: steps.append(1) or real(*args))
    resumed, lines = fit_fold(corpus, tmp_path / "resume", tables)
    assert len(steps) == 12 - (calls - 1) // 4 * 3 - (calls - 1) % 4
    assert lines[1].startswith("network 1 of 2: resuming after epoch")
    assert torch.equal(weights(whole), weights(resumed))
    assert (whole.card, whole.records, whole.validation) == (resumed.card, resumed.records, resumed.validation)


def test_a_change_of_the_targets_or_the_clips_starts_an_ensemble_anew(corpus, tmp_path):
    tables = make_tables(corpus)
    with pytest.raises(StoppedError):
        fit_fold(corpus, tmp_path, tables, stop=after(2))
    fewer = dataclasses.replace(tables, clips=tables.clips.iloc[1:])
    for altered, targets in ((fewer, ["hum"]), (tables, ["hum", "buzz"])):
        with pytest.raises(StoppedError):
            fit_fold(corpus, tmp_path, altered, targets=targets, stop=after(2))
        _, lines = fit_fold(corpus, tmp_path, tables)
        assert lines[1].endswith("is the state of another training: starting anew")


# Sides that are parts of recordings, unknown intervals, raw recordings


def spans(*pairs):
    times = np.array(pairs, dtype=float).reshape(-1, 2)
    return Spans(times[:, 0], times[:, 1])


def material_of(corpus, tables):
    folder = corpus[0][0].path.parent
    return stage._material(folder, tables, ["hum"], SETTINGS, DecodingSettings(), 0.4)[0]


def clip_row(recording_id, start_s, end_s, kind, label=None, **more):
    row = {"recording_id": recording_id, "start_sample": int(start_s * RATE), "end_sample": int(end_s * RATE)}
    return {
        **row,
        "clip_id": f"{recording_id}_{start_s}",
        "fold": 1,
        "split": "train",
        "class": kind,
        "label": label,
        **more,
    }


def plus(tables, **rows):
    """The tables with more rows."""
    grown = {
        name: pd.concat([getattr(tables, name), table(name, new)], ignore_index=True) for name, new in rows.items()
    }
    return dataclasses.replace(tables, **grown)


def test_frames_that_are_unknown_or_of_another_side_do_not_count(corpus):
    recording = dataclasses.replace(corpus[0][0], side=spans((-np.inf, 2.0)), unknown=spans((0.5, 0.754)))
    counted = counted_frames(recording, FRONTEND, 40, 220)
    assert counted.dtype == np.float32 and set(counted) == {0.0, 1.0}
    assert np.flatnonzero(counted == 0).tolist() == [*range(10, 35), *range(160, 180)], "by the centres of the frames"
    assert counted_frames(corpus[0][0], FRONTEND, 0, 700).all()
    store = FeatureStore([recording], FRONTEND, 10**8)
    settings = SETTINGS.model_copy(update={"cuts_per_epoch": 4, "cut_frames": 580})
    clips = [ClipPosition(0, 100, 150, True)]
    options = {"n_classes": 1, "onset_frames": 2, "generator": np.random.default_rng(0)}
    (batch,) = draw_batches(store, clips, settings, **options)
    assert (batch.valid.sum(dim=1) <= 175).all() and (batch.valid.sum(dim=1) >= 150).all()


def test_whole_recordings_count_from_end_to_end(corpus):
    material = material_of(corpus, make_tables(corpus))
    for store, own in ((material.train, corpus[0]), (material.val, corpus[1])):
        for i, (recording, before) in enumerate(zip(store.recordings, own, strict=True)):
            np.testing.assert_array_equal(recording.start_s, before.start_s)
            assert counted_frames(recording, store.frontend, 0, store.n_frames(i)).all()
            assert not recording.clips_only


def test_training_sees_the_train_time_of_a_recording_and_validation_the_val_time(corpus):
    tables = make_tables(corpus)
    whole = tables.splits["recording_id"] == "t0"
    first = tables.splits[whole].assign(end_sample=2 * RATE)
    second = tables.splits[whole].assign(start_sample=2 * RATE, split="val")
    tables = dataclasses.replace(tables, splits=pd.concat([tables.splits[~whole], second, first], ignore_index=True))
    material = material_of(corpus, tables)
    train, val = ({r.recording_id: r for r in s.recordings} for s in (material.train, material.val))
    assert train["t0"].start_s.tolist() == [1.0] and val["t0"].start_s.tolist() == [3.0]
    assert train["t0"].side.hold(np.array([1.9, 2.0])).tolist() == [True, False]
    assert val["t0"].side.hold(np.array([1.9, 2.0, 99.0])).tolist() == [False, True, True]
    assert len(train) == 3 and len(val) == 3


def test_a_call_of_another_side_that_reaches_into_train_time_is_no_noise(corpus):
    tables = make_tables(corpus)
    border = int(3.2 * RATE)  # the call lasts from 3.0 to 3.6 s
    whole = tables.splits["recording_id"] == "t0"
    parts = [
        tables.splits[whole].assign(end_sample=border),
        tables.splits[whole].assign(start_sample=border, split="test"),
    ]
    tables = dataclasses.replace(tables, splits=pd.concat([tables.splits[~whole], *parts], ignore_index=True))
    train = material_of(corpus, tables).train
    (recording,) = (r for r in train.recordings if r.recording_id == "t0")
    assert recording.start_s.tolist() == [1.0]
    centres = np.array([2.99, 3.01, 3.19, 3.21])
    assert recording.unknown.hold(centres).tolist() == [False, True, True, True]


def test_calls_and_intervals_whose_clips_are_unknown_are_not_learnt(corpus):
    tables = make_tables(corpus)
    faint = (tables.clips["recording_id"] == "t1") & (tables.clips["start_sample"] == RATE)
    clips = tables.clips.assign(**{"class": tables.clips["class"].mask(faint, "unknown")})
    clips.loc[faint, "start_sample"] -= 1  # cut at whole samples, one more or less
    strange = clip_row("t2", 5.0, 5.5, "unknown", "unknown")
    tables = plus(dataclasses.replace(tables, clips=clips), clips=[strange])
    material = material_of(corpus, tables)
    train = {r.recording_id: r for r in material.train.recordings}
    assert [train[k].start_s.tolist() for k in ("t0", "t1", "t2")] == [[1.0, 3.0], [3.1], [1.0, 3.2]]
    assert train["t1"].unknown.hold(np.array([0.9, 1.2, 1.6])).tolist() == [False, True, False]
    assert train["t2"].unknown.hold(np.array([4.9, 5.2])).tolist() == [False, True]
    assert len(material.clips) == 5 and all(c.is_target for c in material.clips), "no cut is drawn around the unknown"
    val = [clip_row("v0", 2.0, 2.4, "unknown", "hum", split="val")]
    assert material_of(corpus, plus(tables, clips=val)).val.recordings[0].start_s.tolist() == [2.0, 4.0]


def test_nothing_left_to_learn_is_said_in_one_sentence(corpus):
    tables = make_tables(corpus)
    for clips in (tables.clips.assign(**{"class": "unknown"}), tables.clips.assign(**{"class": "noise"})):
        with pytest.raises(DataError, match="no call of hum is left to learn on the train side; lower min_quality"):
            material_of(corpus, dataclasses.replace(tables, clips=clips))


def test_a_raw_recording_lends_its_noise_clips_and_nothing_else(corpus, tmp_path):
    raw = make_recording(corpus[0][0].path.parent, "raw", [(2.0, 5.0)], seconds=20.0, seed=33)
    tables = make_tables(corpus)
    facts = {f: getattr(raw.info, f) for f in ("duration_s", "n_samples", "sample_rate", "channels", "subtype")}
    row = {"recording_id": "raw", "path": raw.path.name, "sha256": "1", "labelled": False, **facts}
    noise = [clip_row("raw", a, a + 1.0, "noise", origin="mined_raw") for a in (7.0, 11.0)]
    noise.append(clip_row("raw", 15.0, 16.0, "noise", origin="mined_raw", split="val"))
    tables = plus(tables, recordings=[row], clips=noise)
    material = material_of(corpus, tables)
    assert [r.recording_id for r in material.train.recordings] == ["t0", "t1", "t2", "raw"]
    lent = material.train.recordings[3]
    assert len(lent.start_s) == 0 and lent.clips_only
    centres = np.array([2.5, 6.9, 7.1, 11.9, 12.1, 15.5])
    assert lent.side.hold(centres).tolist() == [False, False, True, True, False, False]
    assert [c for c in material.clips if c.recording == 3 and not c.is_target] != []
    assert not material.train.keep(3) and material.train.keep(0)
    assert [r.recording_id for r in material.val.recordings] == ["v0", "v1"]
    trained, lines = fit_fold(corpus, tmp_path / "resume", tables)
    assert "4 recordings with 6 calls" in lines[0] and all(np.isfinite(r["loss"]) for r in trained.records)


@pytest.mark.parametrize("change", ["spans", "raw", "unknown"])
def test_a_training_belongs_to_its_spans_its_raw_recordings_and_what_is_unknown(corpus, change):
    tables = make_tables(corpus)
    noise = clip_row("raw", 1.0, 2.0, "noise", origin="mined_raw")
    tables = plus(tables, recordings=[{"recording_id": "raw", "sha256": "1"}], clips=[noise])
    tested = {"recording_id": "x", "fold": 1, "split": "test", "start_sample": 0, "end_sample": 5}
    unseen = plus(tables, splits=[tested], clips=[clip_row("x", 0.0, 1.0, "target", "hum", split="test")])
    assert unseen.digest() == tables.digest(), "what is only tested plays no part"
    if change == "spans":
        other = dataclasses.replace(tables, splits=tables.splits.assign(end_sample=tables.splits["end_sample"] - 1))
    elif change == "raw":
        recordings = tables.recordings.assign(sha256=tables.recordings["sha256"].replace("1", "2"))
        other = dataclasses.replace(tables, recordings=recordings)
    else:
        other = plus(tables, clips=[clip_row("t0", 1.0, 1.2, "unknown", "unknown")])
    assert other.digest() != tables.digest()


@pytest.mark.parametrize("budget", [10**8, 0])
def test_features_in_blocks_are_the_same_bits(corpus, monkeypatch, budget):
    train, _ = corpus
    frontend = dataclasses.replace(FRONTEND, hop_samples=16)  # 3000 frames
    monkeypatch.setattr(cuts, "_BLOCK_SAMPLES", 2**22)
    whole = FeatureStore(train, frontend, budget).read(0, 0, 3000)
    sizes, real = [], FeatureStore._compute
    monkeypatch.setattr(cuts, "_BLOCK_SAMPLES", 16 * 700)
    monkeypatch.setattr(FeatureStore, "_compute", lambda s, i, a, b: sizes.append(b - a) or real(s, i, a, b))
    assert torch.equal(FeatureStore(train, frontend, budget).read(0, 0, 3000), whole)
    assert sizes == ([512] * 5 + [440] if budget else [3000])


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "frame_loss", lambda logits, batch, settings: logits.sum() * float("nan"))
    with pytest.raises(StageError, match="epoch 1, batch 1"):
        fit(corpus, tmp_path / "r.pt")
    assert not (tmp_path / "r.pt").exists()


def test_a_draw_goes_to_the_later_epoch_and_patience_counts_from_there():
    records = [{"detection": d} for d in (0.50, 0.70, 0.69, 0.60, 0.60)]
    assert loop._as_good(0.69, records[:2], draw=0.02)
    assert not loop._as_good(0.60, records[:3], draw=0.02)
    assert loop._stalled(records, patience=2, draw=0.02)
    assert not loop._stalled(records, patience=3, draw=0.02)


class Oracle(torch.nn.Module):
    """Hears every loud tone."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        loud = (x.amax(dim=1, keepdim=True) > 4.0).float() * 10 - 5
        return torch.cat([loud, loud], dim=1)


def test_validation_sees_perfect_scores_as_perfect(corpus):
    _, val = corpus

    result = validate(
        Oracle(), FeatureStore(val, FRONTEND, 10**8), context_frames=5, points=[POINT], iou=0.4, n_classes=1
    )
    assert dataclasses.astuple(result) == (1.0, 1.0)


def test_validation_leaves_out_what_is_unknown_or_on_another_side(tmp_path):
    one = make_recording(tmp_path, "v", [(1.0, 1.5), (2.0, 2.4), (4.0, 4.5)])
    called = dataclasses.replace(one, start_s=one.start_s[1:2], end_s=one.end_s[1:2], target=one.target[1:2])

    def judged(**changes):
        store = FeatureStore([dataclasses.replace(called, **changes)], FRONTEND, 10**8)
        return dataclasses.astuple(validate(Oracle(), store, context_frames=5, points=[POINT], iou=0.4, n_classes=1))

    assert judged()[0] < 0.6, "two false alarms"
    assert judged(unknown=spans((0.5, 1.3), (4.1, 4.6))) == (1.0, 1.0)
    assert judged(side=spans((1.8, 3.0))) == (1.0, 1.0)
    assert judged(unknown=spans((0.0, 6.0))) == (1.0, 1.0), "a hit stays a hit"
    assert judged(unknown=spans((0.5, 1.2)))[0] < 0.7, "less than half"


def test_scoring_in_blocks_equals_scoring_at_once(corpus, monkeypatch):
    from otus.models import build_network
    from otus.training import validation

    train, _ = corpus
    net = build_network("dense_resnet", bands=16, n_classes=1, settings=SETTINGS.network).eval()
    store = FeatureStore(train, FRONTEND, 10**8)
    whole = score_store(net, store, 0, net.context_frames, torch.device("cpu"))
    monkeypatch.setattr(validation, "_BLOCK_FRAMES", 64)
    np.testing.assert_allclose(score_store(net, store, 0, net.context_frames, torch.device("cpu")), whole, atol=1e-5)
