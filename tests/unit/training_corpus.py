"""Recordings of noise with loud tones, the tables of a fold with them, and small trainings on them."""

import contextlib
import dataclasses
import itertools
import resource

import numpy as np
import pandas as pd
import soundfile
import torch

from otus.audio import inspect
from otus.config import AugmentationSettings, CrnnSettings, DenseResnetSettings, TcnSettings, TrainingSettings
from otus.frontend import Frontend
from otus.models import build_network
from otus.selections import DecodingPoint
from otus.sides import Spans
from otus.tables import table
from otus.training import TrainingTables
from otus.training.cuts import ClipPosition, CutPlan, FeatureStore, LabelledRecording
from otus.training.frames import FrameMaterial, FrameObjective, WindowObjective
from otus.training.loop import train_model

RATE = 8000
FRONTEND = Frontend(RATE, 80, 256, 16, 0.0, 4000.0, "linear")
POINT = DecodingPoint(off_threshold=0.3, onset_threshold=1.0, gap_s=0.0, smoothing_s=0.03, min_duration_s=0.05)
CPU = torch.device("cpu")
NOTHING = AugmentationSettings(gain_db=0, tilt_db=0, mix_probability=0, shift_bands=0, masks=0)
RESNET = DenseResnetSettings(channels=4, temporal_channels=8, dilations=[1, 2], frequency_blocks=1)
CRNN = CrnnSettings(channels=[4], temporal_channels=8, dilations=[1, 2], recurrent_channels=4)
SMALL = {"epochs": 3, "cuts_per_epoch": 12, "batch_size": 4, "cut_frames": 100}
SETTINGS = TrainingSettings(architecture="dense_resnet", dense_resnet=RESNET, **SMALL)
TCN = TrainingSettings(tcn=TcnSettings(channels=[4], temporal_channels=8, dilations=[1, 2]), **SMALL)
RECURRENT = TrainingSettings(architecture="crnn", crnn=CRNN, **SMALL)


def single_threaded():
    """For a fixture: networks as small as these are slower on several threads, and much slower beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def small_files_only(most_bytes):
    """No file can be written beyond this size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def make_corpus(folder):
    """Three recordings to train on, with two calls each, and two to validate on, of which one holds no call."""
    train = [make_recording(folder, f"t{i}", [(1.0, 1.5), (3.0 + 0.1 * i, 3.6)], seed=i) for i in range(3)]
    val = [make_recording(folder, "v0", [(2.0, 2.4), (4.0, 4.5)], seed=9), make_recording(folder, "v1", [], seed=8)]
    return train, val


def positions(recordings):
    """A clip for every call, and one of noise for every recording."""
    return [
        ClipPosition(i, int(a * 100), int(b * 100), 0)
        for i, r in enumerate(recordings)
        for a, b in zip(r.start_s, r.end_s, strict=True)
    ] + [ClipPosition(i, 10, 60, None) for i in range(len(recordings))]


def store(recordings, budget=10**8):
    return FeatureStore(recordings, FRONTEND, budget, CPU)


def plan(**changes):
    return dataclasses.replace(CutPlan(12, 4, 100, 0.6), **changes)


def never():
    return False


def after(calls):
    """A stop that is asked for at this call and from then on."""
    counter = itertools.count(1)
    return lambda: next(counter) >= calls


def objective_of(corpus, settings=SETTINGS, *, budget=10**8, clips=None, network=None):
    """What a network learns from the corpus."""
    train, val = corpus
    material = FrameMaterial(
        train=store(train, budget),
        val=store(val, budget),
        clips=clips or positions(train),
        n_classes=1,
        decoding=[POINT],
        iou=0.4,
        onset_frames=2,
    )
    how = settings.augmentation, settings.optimisation
    cuts = CutPlan(settings.cuts_per_epoch, settings.batch_size, settings.cut_frames, settings.target_share)
    if settings.objective == "frame":
        return FrameObjective(material, cuts, *how)
    margin = (network or new_network(settings)).context_frames
    return WindowObjective(material, dataclasses.replace(cuts, length=40, margin=margin), *how)


def new_network(settings=SETTINGS, seed=1):
    torch.manual_seed(seed)
    return build_network(settings.network, bands=FRONTEND.bands, n_classes=1)


def fit(corpus, resume, *, settings=SETTINGS, digest="d", seed=1, stop=never, budget=10**8, objective=None):
    """Train a small network; return it and the lines of progress."""
    lines = []
    trained = train_model(
        new_network(settings, seed),
        objective or objective_of(corpus, settings, budget=budget),
        settings=settings,
        seed=seed,
        device=CPU,
        resume_path=resume,
        digest=digest,
        stop=stop,
        progress=lines.append,
    )
    return trained, lines


def weights(trained):
    """All weights and buffers of what was trained as one vector."""
    return torch.cat([v.flatten().double() for v in trained.network.state_dict().values()])


def spans(*pairs):
    times = np.array(pairs, dtype=float).reshape(-1, 2)
    return Spans(times[:, 0], times[:, 1])


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
                clip |= {"group": r.recording_id, "start_sample": int(start * RATE), "end_sample": int(end * RATE)}
                rows["clips"].append({**one, **clip})
    return TrainingTables(**{name: table(name, found) for name, found in rows.items()})


def clip_row(recording_id, start_s, end_s, kind, label=None, **more):
    """A row of the clips table on the train side of fold 1."""
    row = {"recording_id": recording_id, "start_sample": int(start_s * RATE), "end_sample": int(end_s * RATE)}
    row |= {"clip_id": f"{recording_id}_{start_s}", "fold": 1, "split": "train", "class": kind, "label": label}
    return row | more


def plus(tables, **rows):
    """The tables with more rows."""
    grown = {
        name: pd.concat([getattr(tables, name), table(name, new)], ignore_index=True) for name, new in rows.items()
    }
    return dataclasses.replace(tables, **grown)
