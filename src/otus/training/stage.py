"""The train stage: tables in, a trained network and its card out."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from otus import __version__
from otus.audio import AudioInfo
from otus.config import DecodingSettings, TrainingSettings
from otus.errors import DataError, MissingPartError
from otus.frontend import Frontend, choose_frontend
from otus.models import Ensemble
from otus.models.card import ModelCard
from otus.provenance import code_digest
from otus.seeds import derive_seed
from otus.selections import decoding_grid
from otus.training.cuts import ClipPosition, FeatureStore, LabelledRecording
from otus.training.loop import TrainedModel, TrainingMaterial, judge, train_model
from otus.training.validation import Validation

#: An onset is marked on frames within this share of the median call around it.
_ONSET_SHARE = 0.06


@dataclass(frozen=True)
class TrainingTables:
    """What a training reads: the corpus and one fold of a dataset variant."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    clips: pd.DataFrame
    splits: pd.DataFrame

    def digest(self) -> str:
        """Return a SHA-256 over what training can see of the tables: train and val recordings, their rows, clips."""
        seen = self.splits[self.splits["split"] != "test"]
        ids = set(seen["recording_id"])
        parts = [
            self.recordings[self.recordings["recording_id"].isin(ids)][["recording_id", "sha256"]],
            self.annotations[self.annotations["recording_id"].isin(ids)],
            self.clips[self.clips["split"] == "train"],
            seen,
        ]
        text = "\n".join(p.to_csv(index=False, float_format="%.10g") for p in parts)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrainedFold:
    """The networks of one fold, their card, their validation together, and one record per network and epoch."""

    network: Ensemble
    card: ModelCard
    validation: Validation
    records: list[dict[str, float]]


def train_fold(
    root: Path,
    tables: TrainingTables,
    *,
    model: str,
    fold: int,
    targets: Sequence[str],
    settings: TrainingSettings,
    decoding: DecodingSettings,
    iou: float,
    seed: int,
    resume_folder: Path,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
) -> TrainedFold:
    """Train on the train recordings of a fold, validate on its val recordings; return the networks and their card.

    Test recordings are never opened. When `stop` says yes, everything is saved in `resume_folder` and StoppedError is
    raised; another call goes on from there. Networks that are finished are not trained again. Raises DataError if
    there is nothing to train or validate on, StageError if the training diverges.
    """
    device = choose_device(settings.device)
    torch.set_num_threads(settings.threads)
    material, call_durations_s = _material(root, tables, targets, settings, decoding, iou)
    train, frontend = material.train.recordings, material.train.frontend
    progress(
        f"{model} fold {fold}: {len(train)} recordings with {sum(len(r.start_s) for r in train)} calls to train on, "
        f"{len(material.val.recordings)} to validate; "
        f"{frontend.bands} {frontend.scale} bands {frontend.low_hz:g}-{frontend.high_hz:g} Hz, "
        f"hop {1000 * frontend.hop_s:g} ms, on {device} with {settings.threads} thread(s)"
    )
    data_sha256 = tables.digest()
    code = code_digest("training", "models"), torch.__version__
    belongs_to = (data_sha256, list(targets), settings, material.decoding, iou, frontend, code)
    members = [
        _train_member(material, repr(belongs_to), number, settings, seed, device, resume_folder, stop, progress)
        for number in range(1, settings.members + 1)
    ]
    network = Ensemble([m.network for m in members]).eval()
    card = _card(
        members,
        network,
        frontend,
        settings,
        call_durations_s=call_durations_s,
        data_sha256=data_sha256,
        model=model,
        fold=fold,
        targets=targets,
        seed=seed,
    )
    records = [{"member": number, **record} for number, m in enumerate(members, start=1) for record in m.epochs]
    return TrainedFold(network, card, judge(network, material), records)


def _material(
    root: Path,
    tables: TrainingTables,
    targets: Sequence[str],
    settings: TrainingSettings,
    decoding: DecodingSettings,
    iou: float,
) -> tuple[TrainingMaterial, tuple[float, float]]:
    """What the networks of a fold are trained on and judged by, and how long a median and a short training call is."""
    train = _labelled(root, tables, "train", targets)
    val = _labelled(root, tables, "val", targets)
    calls = _calls(tables, "train", targets)
    durations_s = (calls["end_s"] - calls["start_s"]).to_numpy(dtype=float)
    frontend = choose_frontend(
        settings.frontend,
        sample_rates=[r.info.sample_rate for r in train],
        call_durations_s=durations_s,
        call_low_hz=calls["low_hz"].to_numpy(dtype=float),
        call_high_hz=calls["high_hz"].to_numpy(dtype=float),
    )
    median_call_s, short_call_s = float(np.median(durations_s)), float(np.quantile(durations_s, 0.05))
    budget = settings.cache_mb * 2**20
    material = TrainingMaterial(
        train=FeatureStore(train, frontend, budget * 3 // 4),
        val=FeatureStore(val, frontend, budget // 4),
        clips=_positions(train, tables.clips, frontend),
        n_classes=len(targets),
        decoding=decoding_grid(decoding, median_call_s=median_call_s, short_call_s=short_call_s),
        iou=iou,
        onset_frames=max(1, round(_ONSET_SHARE * median_call_s / frontend.hop_s)),
    )
    return material, (median_call_s, short_call_s)


def _train_member(
    material: TrainingMaterial,
    belongs_to: str,
    number: int,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    resume_folder: Path,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
) -> TrainedModel:
    """Train one of the networks of a fold, from a seed of its own; its state is good only where `belongs_to` holds."""
    member_seed = derive_seed(seed, "member", number)
    return train_model(
        material,
        settings=settings,
        seed=member_seed,
        device=device,
        resume_path=resume_folder / f"member{number}.pt",
        digest=hashlib.sha256(f"{belongs_to} {member_seed}".encode()).hexdigest(),
        stop=stop,
        progress=_as_member(progress, number, settings.members),
    )


def _card(
    members: Sequence[TrainedModel],
    network: Ensemble,
    frontend: Frontend,
    settings: TrainingSettings,
    *,
    call_durations_s: tuple[float, float],
    data_sha256: str,
    model: str,
    fold: int,
    targets: Sequence[str],
    seed: int,
) -> ModelCard:
    """The card of the networks; `call_durations_s` are a median and a short training call."""
    median_call_s, short_call_s = call_durations_s
    return ModelCard(
        model=model,
        fold=fold,
        architecture=settings.architecture,
        members=settings.members,
        network=settings.network.model_dump(),
        frontend=frontend,
        classes=list(targets),
        context_frames=network.context_frames,
        inference="dense",
        median_call_s=median_call_s,
        short_call_s=short_call_s,
        training_data_sha256=data_sha256,
        training=settings.model_dump(mode="json"),
        best_epochs=[m.best_epoch for m in members],
        seed=seed,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    packages = ("torch", "torchaudio", "numpy", "soundfile")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"otus": __version__, "python": platform.python_version(), **found}


def _as_member(progress: Callable[[str], None], number: int, of: int) -> Callable[[str], None]:
    """Progress lines that say which network they are about."""
    return progress if of == 1 else lambda line: progress(f"network {number} of {of}: {line}")


def choose_device(wanted: str) -> torch.device:
    """Return the device that the config asks for; auto takes a GPU if one is visible.

    Raises MissingPartError if a GPU is asked for and none is visible.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingPartError("device: cuda is set but no GPU is visible; use device: auto or cpu.")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _ids(tables: TrainingTables, split: str) -> list[str]:
    return sorted(tables.splits.loc[tables.splits["split"] == split, "recording_id"])


def _calls(tables: TrainingTables, split: str, targets: Sequence[str]) -> pd.DataFrame:
    rows = tables.annotations
    return rows[rows["recording_id"].isin(_ids(tables, split)) & rows["label"].isin(list(targets))]


def _labelled(root: Path, tables: TrainingTables, split: str, targets: Sequence[str]) -> list[LabelledRecording]:
    """The recordings of one split with their target calls."""
    by_recording = dict(list(_calls(tables, split, targets).sort_values("start_s").groupby("recording_id")))
    facts = tables.recordings.set_index("recording_id")
    none = tables.annotations.iloc[:0]
    found = []
    for recording_id in _ids(tables, split):
        row, calls = facts.loc[recording_id], by_recording.get(recording_id, none)
        info = AudioInfo(int(row["n_samples"]), int(row["sample_rate"]), int(row["channels"]), str(row["subtype"]))
        found.append(
            LabelledRecording(
                recording_id,
                root / row["path"],
                info,
                calls["start_s"].to_numpy(dtype=float),
                calls["end_s"].to_numpy(dtype=float),
                np.array([list(targets).index(label) for label in calls["label"]], dtype=np.int64),
            )
        )
    if not found:
        raise DataError(f"train: the fold has no {split} recordings; change the split in the config.")
    return found


def _positions(recordings: list[LabelledRecording], clips: pd.DataFrame, frontend: Frontend) -> list[ClipPosition]:
    """The train clips as frames of their recordings."""
    number = {r.recording_id: i for i, r in enumerate(recordings)}
    positions = []
    for clip in clips[clips["split"] == "train"].sort_values("clip_id").itertuples(index=False):
        index = number[clip.recording_id]
        per_frame = frontend.hop_s * recordings[index].info.sample_rate
        start, end = int(clip.start_sample / per_frame), int(np.ceil(clip.end_sample / per_frame))
        positions.append(ClipPosition(index, start, end, clip[clips.columns.get_loc("class")] == "target"))
    return positions
