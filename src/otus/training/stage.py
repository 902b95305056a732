"""The train stage: tables in, a trained network and its card out."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
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
from otus.sides import NOWHERE, Spans, rows_inside, side_spans, union_by_recording, unknown_spans
from otus.training.cuts import ClipPosition, FeatureStore, LabelledRecording
from otus.training.loop import TrainedModel, TrainingMaterial, judge, train_model
from otus.training.validation import Validation

#: An onset is marked on frames within this share of the median call around it.
_ONSET_SHARE = 0.06

#: A clip lies within so many samples of the annotation that it was cut from.
_CUT_SAMPLES = 1.5


@dataclass(frozen=True)
class TrainingTables:
    """What a training reads: the corpus, and clips and splits of one fold of a dataset variant."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    clips: pd.DataFrame
    splits: pd.DataFrame

    def digest(self) -> str:
        """Return a SHA-256 over what training can see of the tables.

        That are the recordings, annotations and spans of train and val, the train clips, and the raw recordings in
        which some of these lie.
        """
        seen = self.splits[self.splits["split"] != "test"]
        clips = self.clips[self.clips["split"] == "train"]
        ids = set(seen["recording_id"]) | set(clips["recording_id"])
        parts = [
            self.recordings[self.recordings["recording_id"].isin(ids)][["recording_id", "sha256"]],
            self.annotations[self.annotations["recording_id"].isin(ids)],
            clips,
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
    """Train on the train side of a fold, validate on its val side; return the networks and their card.

    Recordings that are only tested are never opened. When `stop` says yes, everything is saved in `resume_folder` and
    StoppedError is raised; another call goes on from there. Networks that are finished are not trained again. Raises
    DataError if there is nothing to train or validate on, StageError if the training diverges.
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
    calls = _calls_to_learn(tables, targets)
    train = _labelled(root, tables, "train", calls, _not_learnt(tables, targets), targets)
    val_calls = _calls(tables, "val", targets)
    val = _labelled(root, tables, "val", val_calls, unknown_spans(tables.annotations), targets)
    if calls.empty or _train_clips(tables, "target").empty:
        raise DataError(
            f"train: no call of {', '.join(targets)} is left to learn on the train side; lower min_quality of the "
            "dataset variant or label more recordings."
        )
    durations_s = (calls["end_s"] - calls["start_s"]).to_numpy(dtype=float)
    frontend = choose_frontend(
        settings.frontend,
        sample_rates=[r.info.sample_rate for r in train if not r.clips_only],
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


def _spans(tables: TrainingTables, split: str) -> dict[str, Spans]:
    """The time of every recording on one side."""
    return side_spans(tables.splits, tables.recordings.set_index("recording_id")["sample_rate"], split)


def _calls(tables: TrainingTables, split: str, targets: Sequence[str]) -> pd.DataFrame:
    """The annotated target calls whose midpoints lie on one side."""
    rows = tables.annotations[tables.annotations["label"].isin(list(targets))]
    return rows[rows_inside(rows, _spans(tables, split))]


def _calls_to_learn(tables: TrainingTables, targets: Sequence[str]) -> pd.DataFrame:
    """The target calls of the train side, without those whose clips the dataset variant leaves out as unknown."""
    calls = _calls(tables, "train", targets)
    clips = dict(list(_train_clips(tables, "unknown").groupby("recording_id")))
    left_out = np.zeros(len(calls), dtype=bool)
    for recording_id, rows in calls.reset_index(drop=True).groupby("recording_id").indices.items():
        if recording_id in clips:
            left_out[rows] = _has_clip(calls.iloc[rows], clips[str(recording_id)])
    return calls[~left_out]


def _has_clip(calls: pd.DataFrame, clips: pd.DataFrame) -> np.ndarray:
    """Whether one of the clips (of the same recording) was cut from each call: at whole samples."""
    same = calls["label"].to_numpy()[:, None] == clips["label"].to_numpy()
    for edge in ("start_s", "end_s"):
        apart_s = np.abs(calls[edge].to_numpy(dtype=float)[:, None] - clips[edge].to_numpy(dtype=float))
        same &= apart_s <= _CUT_SAMPLES / clips["sample_rate"].to_numpy(dtype=float)
    return np.asarray(same.any(axis=1))


def _train_clips(tables: TrainingTables, kind: str) -> pd.DataFrame:
    """The train clips of one class, with their times in s."""
    clips = tables.clips[(tables.clips["split"] == "train") & (tables.clips["class"] == kind)]
    rate = clips["recording_id"].map(tables.recordings.set_index("recording_id")["sample_rate"]).astype(float)
    times = {"start_s": clips["start_sample"] / rate, "end_s": clips["end_sample"] / rate}
    return clips.assign(**times, sample_rate=rate)


def _not_learnt(tables: TrainingTables, targets: Sequence[str]) -> dict[str, Spans]:
    """The time of every recording that is no example of anything: unknown clips, and calls of the other sides.

    A call of another side may reach into train time, and is no noise there.
    """
    rows = tables.annotations[tables.annotations["label"].isin(list(targets))]
    elsewhere = rows[~rows_inside(rows, _spans(tables, "train"))]
    columns = ["recording_id", "start_s", "end_s"]
    return union_by_recording(pd.concat([_train_clips(tables, "unknown")[columns], elsewhere[columns]]))


def _labelled(
    root: Path,
    tables: TrainingTables,
    split: str,
    calls: pd.DataFrame,
    unknown: Mapping[str, Spans],
    targets: Sequence[str],
) -> list[LabelledRecording]:
    """The recordings of one side with their calls; those of train with the raw recordings that lend noise clips."""
    by_recording = dict(list(calls.sort_values("start_s").groupby("recording_id")))
    facts = tables.recordings.set_index("recording_id")
    labelled = _spans(tables, split)
    if not labelled:
        raise DataError(f"train: the fold has no {split} recordings; change the split in the config.")
    noise = _train_clips(tables, "noise")
    raw = union_by_recording(noise[~noise["recording_id"].isin(list(labelled))]) if split == "train" else {}
    found = []
    for recording_id, side in (labelled | raw).items():
        row, own = facts.loc[recording_id], by_recording.get(recording_id, calls.iloc[:0])
        info = AudioInfo(int(row["n_samples"]), int(row["sample_rate"]), int(row["channels"]), str(row["subtype"]))
        found.append(
            LabelledRecording(
                recording_id,
                root / row["path"],
                info,
                own["start_s"].to_numpy(dtype=float),
                own["end_s"].to_numpy(dtype=float),
                np.array([list(targets).index(label) for label in own["label"]], dtype=np.int64),
                side=side,
                unknown=unknown.get(recording_id, NOWHERE),
                clips_only=recording_id in raw,
            )
        )
    return found


def _positions(recordings: list[LabelledRecording], clips: pd.DataFrame, frontend: Frontend) -> list[ClipPosition]:
    """The target and noise clips of the train side as frames of their recordings.

    A clip is left out if its recording is not opened: where calls coincide, a leaky variant may give their time to
    another side.
    """
    number = {r.recording_id: i for i, r in enumerate(recordings)}
    wanted = clips[(clips["split"] == "train") & clips["class"].isin(["target", "noise"])]
    wanted = wanted[wanted["recording_id"].isin(list(number))]
    positions = []
    for clip in wanted.sort_values("clip_id").itertuples(index=False):
        index = number[clip.recording_id]
        per_frame = frontend.hop_s * recordings[index].info.sample_rate
        start, end = int(clip.start_sample / per_frame), int(np.ceil(clip.end_sample / per_frame))
        positions.append(ClipPosition(index, start, end, clip[wanted.columns.get_loc("class")] == "target"))
    return positions
