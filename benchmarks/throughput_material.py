"""What benchmarks/throughput.py measures on: recordings that it makes itself, and models with random weights."""

import contextlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
from numpy.typing import NDArray

from otus.audio import inspect
from otus.config import (
    CrnnSettings,
    DenseResnetSettings,
    FrontendSettings,
    Resnet18Settings,
    TcnSettings,
    TrainingSettings,
)
from otus.frontend import Frontend, choose_frontend
from otus.models import Ensemble, FrameNetwork, Resnet18, WindowEnsemble, build_network
from otus.models.card import ModelCard
from otus.resources.networks import network_cost
from otus.tables import table
from otus.windows import WindowFrontend, window_frontend

RATE = 48_000
#: Pink noise at this level, and a call of some harmonics every few seconds.
_NOISE_DBFS, _CALL_S, _CALL_EVERY_S = -45.0, 0.3, 2.5
_PIECE_S = 10
CLASSES = ["call"]


@dataclass(frozen=True)
class Row:
    """A model of the table: its network and card, how it is to compute, and what it multiplies in a second of audio."""

    name: str
    network: FrameNetwork | WindowEnsemble
    card: ModelCard
    precision: str
    multiplications_per_s: float


class NoNetwork(FrameNetwork):
    """Scores everything alike: what is left is everything but the network."""

    context_frames = 0

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits of zero, shape (batch, 2, frames)."""
        return self.level.expand(features.shape[0], 2 * len(CLASSES), features.shape[-1])


def make_recordings(folder: Path, seconds: int) -> tuple[Path, Path]:
    """Write the same noise with calls as WAV and as FLAC, mono, 48 kHz, 16 bits; the same samples every time."""
    wav, flac = folder / "recording.wav", folder / "recording.flac"
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(soundfile.SoundFile(p, "w", RATE, 1, "PCM_16")) for p in (wav, flac)]
        for first in range(0, seconds, _PIECE_S):
            piece = _sound(first, min(_PIECE_S, seconds - first))
            for file in files:
                file.write(piece)
    return wav, flac


def _sound(first_s: int, seconds: int) -> NDArray[np.int16]:
    """Samples of a piece of the recording."""
    rng = np.random.default_rng(first_s)
    n_samples = seconds * RATE
    spectrum = rng.normal(size=n_samples // 2 + 1) + 1j * rng.normal(size=n_samples // 2 + 1)
    pink = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), n_samples)
    samples = pink * (10 ** (_NOISE_DBFS / 20) / pink.std())
    t = np.arange(round(_CALL_S * RATE)) / RATE
    for begin_s in np.arange(0.5, seconds - _CALL_S, _CALL_EVERY_S):
        base_hz = rng.uniform(600, 900)
        call = sum(np.sin(2 * np.pi * base_hz * k * t) / k for k in (1, 2, 3, 4)) * np.hanning(len(t))
        start = round(begin_s * RATE)
        samples[start : start + len(t)] += rng.uniform(0.01, 0.1) * call
    return np.round(samples * 2**15).astype(np.int16)


def make_short_files(folder: Path, files: int) -> pd.DataFrame:
    """Write so many files of one second; return their table of recordings."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, RATE + files)
    for n in range(files):
        soundfile.write(folder / f"r{n:05d}.wav", noise[n : n + RATE], RATE, subtype="PCM_16")
    return recordings_of([folder / f"r{n:05d}.wav" for n in range(files)])


def make_silent_day(path: Path, hours: float) -> None:
    """Write a recording of silence that takes no room on the disk: RF64, for a WAV file holds no 24 h at 48 kHz."""
    n_samples = round(hours * 3600 * RATE)
    size = 2 * n_samples
    sizes = struct.pack("<QQQI", size + 72, size, n_samples, 0)
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    unknown = struct.pack("<I", 2**32 - 1)
    head = b"RF64" + unknown + b"WAVE" + b"ds64" + struct.pack("<I", len(sizes)) + sizes
    head += b"fmt " + struct.pack("<I", len(form)) + form + b"data" + unknown
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def recordings_of(paths: Sequence[Path]) -> pd.DataFrame:
    """Return the table of recordings for files of one folder."""
    rows = []
    for path in paths:
        info = inspect(path)
        rows.append(
            {
                "recording_id": path.name, "path": path.name, "group": "g", "duration_s": info.duration_s,
                "n_samples": info.n_samples, "sample_rate": info.sample_rate, "channels": info.channels,
                "subtype": info.subtype, "sha256": f"{zlib.crc32(path.name.encode()):064x}", "labelled": True,
                "readable": True,
            }
        )  # fmt: skip
    return table("recordings", rows)


def rows() -> dict[str, Callable[[], Row]]:
    """Return how each model of the table is made, by name."""
    every_50_ms, own_hop = FrontendSettings(hop_s=0.05), FrontendSettings()
    members = TrainingSettings().members
    return {
        "resnet18, spectra every 1024, float32": lambda: _windowed("float32"),
        "resnet18, spectra every 1024, bfloat16": lambda: _windowed("bfloat16"),
        "resnet18, spectra every 480, float32": lambda: _windowed("float32", hop_samples=480),
        "resnet18, spectra every 480, bfloat16": lambda: _windowed("bfloat16", hop_samples=480),
        "resnet18, max pooling, float32": lambda: _windowed("float32", max_pool=1),
        "resnet18, max pooling, bfloat16": lambda: _windowed("bfloat16", max_pool=1),
        "dense_resnet, 50 ms": lambda: _dense(DenseResnetSettings(), every_50_ms),
        "tcn, 50 ms, 1 member": lambda: _dense(TcnSettings(), every_50_ms),
        f"tcn, 50 ms, {members} members": lambda: _dense(TcnSettings(), every_50_ms, members=members),
        "tcn, 10 ms, 1 member": lambda: _dense(TcnSettings(), own_hop),
        f"tcn, 10 ms, {members} members": lambda: _dense(TcnSettings(), own_hop, members=members),
        "crnn, 50 ms": lambda: _dense(CrnnSettings(), every_50_ms),
        "no network, 50 ms": _without_network,
    }


def full_name(short: str) -> str:
    """Return the name of a row of the table, given its beginning."""
    return next(name for name in rows() if name.startswith(short))


def _windowed(precision: str, **settings: Any) -> Row:
    """ANIMAL-SPOT's network on its windows: 0.4 s every 0.05 s at 48 kHz."""
    windows = Resnet18Settings(**settings)
    torch.manual_seed(1)
    network = WindowEnsemble([Resnet18(windows, 1 + len(CLASSES))]).eval()
    card = _card("resnet18", windows.model_dump(mode="json"), window_frontend(windows), inference="windowed")
    cost = network_cost(TrainingSettings(architecture="resnet18", resnet18=windows), len(CLASSES))
    name = (
        f"resnet18, {'max pooling' if windows.max_pool == 1 else f'spectra every {windows.hop_samples}'}, {precision}"
    )
    return Row(name, network, card, precision, cost.multiplications / windows.hop_s)


def _dense(
    settings: TcnSettings | CrnnSettings | DenseResnetSettings, asked: FrontendSettings, *, members: int = 1
) -> Row:
    """A network with the front end that calls of 60 ms at 0.5 to 8 kHz ask for."""
    kind = {TcnSettings: "tcn", CrnnSettings: "crnn", DenseResnetSettings: "dense_resnet"}[type(settings)]
    calls = {"call_durations_s": [0.06], "call_low_hz": [500.0], "call_high_hz": [8000.0]}
    frontend = choose_frontend(asked, sample_rates=[RATE], **{k: np.array(v) for k, v in calls.items()})
    torch.manual_seed(1)
    networks = [build_network(settings, bands=frontend.bands, n_classes=len(CLASSES)) for _ in range(members)]
    network = Ensemble(networks).eval()
    inference = "dense" if network.block_frames is None else "blocks"
    card = _card(kind, settings.model_dump(mode="json"), frontend, inference=inference)
    card = replace(card, members=members, context_frames=network.context_frames)
    cost = network_cost(TrainingSettings(architecture=kind, **{kind: settings}), len(CLASSES))
    name = f"{kind}, {1000 * frontend.hop_s:.0f} ms"
    if kind == "tcn":
        name += f", {members} member{'s' * (members > 1)}"
    return Row(name, network, card, "auto", members * cost.multiplications / frontend.hop_s)


def _without_network() -> Row:
    tcn = _dense(TcnSettings(), FrontendSettings(hop_s=0.05))
    return Row("no network, 50 ms", NoNetwork().eval(), replace(tcn.card, context_frames=0), "float32", 0.0)


def _card(
    architecture: str, network: dict[str, Any], frontend: Frontend | WindowFrontend, *, inference: str
) -> ModelCard:
    return ModelCard(
        model="throughput",
        fold=1,
        architecture=architecture,
        members=1,
        network=network,
        frontend=frontend,
        classes=CLASSES,
        context_frames=0,
        inference=inference,
        objective="frame",
        window_frames=1,
        median_call_s=0.3,
        short_call_s=0.06,
        training_data_sha256="0",
        training={},
        data={},
        best_epochs=[1],
        seed=1,
        versions={},
    )
