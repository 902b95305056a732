"""The train stage: tables in, a trained network and its card out."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otus import __version__
from otus.config import TrainingSettings
from otus.devices import choose_device
from otus.models.card import ModelCard
from otus.provenance import code_digest
from otus.seeds import derive_seed
from otus.telemetry.events import NO_JOURNAL, Recorder
from otus.training.beats import learning_from_beats
from otus.training.frames import learning_from_frames
from otus.training.learning import Learning, SecondStage
from otus.training.loop import TrainedModel, train_model
from otus.training.material import Material, TrainingTables, read_material
from otus.training.objectives import Judgement, Objective
from otus.training.windows import learning_from_windows


@dataclass(frozen=True)
class TrainedFold:
    """The networks of one fold, their card, their validation together, and one record per network and epoch."""

    network: nn.Module
    card: ModelCard
    validation: Judgement
    records: list[dict[str, float]]


def train_fold(
    root: Path,
    tables: TrainingTables,
    *,
    model: str,
    fold: int,
    targets: Sequence[str],
    settings: TrainingSettings,
    iou: float,
    seed: int,
    resume_folder: Path,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
    journal: Recorder = NO_JOURNAL,
) -> TrainedFold:
    """Train on the train side of a fold, validate on its val side; return the networks and their card.

    Recordings that are only tested are never opened. When `stop` says yes, everything is saved in `resume_folder` and
    StoppedError is raised; another call goes on from there. Networks that are finished are not trained again. `journal`
    is told what there is to do, of every epoch, and of batches that memory does not suffice for. Raises DataError if
    there is nothing to train or validate on, StageError if the training diverges.
    """
    device = choose_device(settings.device)
    torch.set_num_threads(settings.threads)
    material = read_material(root, tables, targets)
    learning = _learning(material, tables, targets, settings, iou, device)
    progress(
        f"{model} fold {fold}: {len(material.train)} recordings with {len(material.calls)} calls to train on, "
        f"{len(material.val)} to validate; {learning.hears}, {settings.architecture} on {device} with "
        f"{settings.threads} thread(s)"
    )
    data_sha256 = tables.digest()
    code = code_digest("training", "models"), torch.__version__
    belongs_to = repr((data_sha256, list(targets), settings, iou, learning.frontend, learning.imported, code))
    trainer = _Trainer(belongs_to, device, resume_folder, stop, journal)
    members = [
        _train_member(trainer, learning, number, settings, seed, _as_member(progress, number, settings.members))
        for number in range(1, (1 if settings.epochs == 0 else settings.members) + 1)
    ]
    network = learning.together([m.network for m in members]).eval()
    task = _Task(model, fold, targets, settings, seed, data_sha256)
    card = _card(task, material, learning, members, network)
    records = [{"member": number, **record} for number, m in enumerate(members, start=1) for record in m.records]
    return TrainedFold(network, card, learning.objective.judge(network), records)


def _learning(
    material: Material,
    tables: TrainingTables,
    targets: Sequence[str],
    settings: TrainingSettings,
    iou: float,
    device: torch.device,
) -> Learning:
    """What the architecture learns from."""
    if settings.architecture == "resnet18":
        return learning_from_windows(material, tables.clips, targets, settings)
    if settings.architecture == "beats":
        return learning_from_beats(material, tables.clips, targets, settings, iou=iou, device=device)
    return learning_from_frames(material, tables.clips, targets, settings, iou=iou, device=device)


@dataclass(frozen=True)
class _Task:
    """What was trained, to find what, how, and from which data."""

    model: str
    fold: int
    targets: Sequence[str]
    settings: TrainingSettings
    seed: int
    data_sha256: str


@dataclass(frozen=True)
class _Trainer:
    """Trains the networks of a fold. Their states are good only where `belongs_to` holds."""

    belongs_to: str
    device: torch.device
    resume_folder: Path
    stop: Callable[[], bool]
    journal: Recorder

    def train(
        self,
        network: nn.Module,
        objective: Objective[Any],
        settings: TrainingSettings,
        name: str,
        seed: int,
        progress: Callable[[str], None],
        groups: list[dict[str, Any]] | None = None,
    ) -> TrainedModel:
        """Train a network; its state is kept under `name`."""
        return train_model(
            network,
            objective,
            settings=settings,
            seed=seed,
            device=self.device,
            resume_path=self.resume_folder / f"{name}.pt",
            digest=hashlib.sha256(f"{self.belongs_to} {seed}".encode()).hexdigest(),
            stop=self.stop,
            progress=progress,
            groups=groups,
            journal=self.journal,
        )


def _train_member(
    trainer: _Trainer,
    learning: Learning,
    number: int,
    settings: TrainingSettings,
    seed: int,
    progress: Callable[[str], None],
) -> TrainedModel:
    """Train one of the networks of a fold, from a seed of its own.

    With no epochs it is the network of a checkpoint, as it is.
    """
    member_seed, name = derive_seed(seed, "member", number), f"member{number}"
    torch.manual_seed(member_seed)
    network = learning.new_network().to(trainer.device)
    if settings.epochs == 0:
        return TrainedModel(network, 0, {}, [])
    first = trainer.train(network, learning.objective, settings, name, member_seed, progress)
    return _go_on(trainer, first, learning.second, name, member_seed, progress) if learning.second else first


def _go_on(
    trainer: _Trainer,
    first: TrainedModel,
    second: SecondStage,
    name: str,
    seed: int,
    progress: Callable[[str], None],
) -> TrainedModel:
    """Let a trained network go on learning and return the better of both; their epochs are counted through."""
    network = second.begin(first.network)
    later = trainer.train(
        network,
        second.objective,
        second.settings,
        f"{name}_stage2",
        derive_seed(seed, "stage", 2),
        lambda line: progress(f"stage 2: {line}"),
        second.groups(network),
    )
    before, after = first.best["detection"], later.best["detection"]
    kept = after > before + second.min_gain
    progress(
        f"stage 2 is {'kept' if kept else 'not kept'}: detection {after:.3f} in validation, {before:.3f} after stage 1 "
        f"(beats.min_gain: {second.min_gain:g})"
    )
    done = len(first.records)
    records = [{**record, "stage": 1} for record in first.records]
    records += [{**record, "stage": 2, "epoch": record["epoch"] + done} for record in later.records]
    if kept:
        return TrainedModel(later.network, later.best_epoch + done, later.best, records, stage=2)
    return TrainedModel(first.network, first.best_epoch, first.best, records, stage=1)


def _card(
    task: _Task, material: Material, learning: Learning, members: Sequence[TrainedModel], network: nn.Module
) -> ModelCard:
    """The card of the networks."""
    settings, stages = task.settings, [m.stage for m in members if m.stage]
    return ModelCard(
        model=task.model,
        fold=task.fold,
        architecture=settings.architecture,
        members=len(members),
        network=learning.network.model_dump(),
        frontend=learning.frontend,
        classes=list(task.targets),
        context_frames=int(getattr(network, "context_frames", 0)),
        inference=learning.inference,
        objective="clip" if learning.inference == "windowed" else settings.objective,
        window_frames=learning.window_frames,
        median_call_s=float(np.median(material.durations_s)),
        short_call_s=float(np.quantile(material.durations_s, 0.05)),
        training_data_sha256=task.data_sha256,
        training=settings.model_dump(mode="json"),
        data=_data(material, task.targets, trained=settings.epochs != 0),
        best_epochs=[m.best_epoch for m in members],
        seed=task.seed,
        versions=_versions(),
        imported=learning.imported,
        best_stages=stages if learning.second else None,
    )


def _data(material: Material, targets: Sequence[str], *, trained: bool) -> dict[str, Any]:
    """What the networks were trained and validated on, in numbers; nothing of train if they were only imported."""
    sides = {}
    for side, recordings in (("train", material.train if trained else []), ("val", material.val)):
        whole = [r for r in recordings if not r.clips_only]
        calls = np.concatenate([r.target for r in whole]) if whole else np.zeros(0, dtype=np.int64)
        sides[side] = {
            "recordings": len(whole),
            "hours": round(sum(r.info.duration_s for r in whole) / 3600, 6),
            "calls": {label: int((calls == i).sum()) for i, label in enumerate(targets)},
        }
    return sides


def _versions() -> dict[str, str]:
    packages = ("torch", "torchaudio", "numpy", "soundfile")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"otus": __version__, "python": platform.python_version(), **found}


def _as_member(progress: Callable[[str], None], number: int, of: int) -> Callable[[str], None]:
    """Progress lines that say which network they are about."""
    return progress if of == 1 else lambda line: progress(f"network {number} of {of}: {line}")
