"""The training loop: one-cycle AdamW on frames, running average of the weights, early stopping on detection."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otus.config import TrainingSettings
from otus.errors import StageError
from otus.models import DenseResnet, Ensemble, build_network
from otus.seeds import derive_seed
from otus.selections import DecodingPoint
from otus.stopping import StoppedError
from otus.training.augmentation import augment
from otus.training.cuts import Batch, ClipPosition, FeatureStore, cuts_per_epoch, draw_batches
from otus.training.resume import read_resume, write_resume
from otus.training.validation import Validation, validate

_GRADIENT_NORM = 5.0

#: The state is saved after every epoch and after so much time within one: a node that dies costs no more than that.
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class TrainingMaterial:
    """What a network is trained on and judged by."""

    train: FeatureStore
    val: FeatureStore
    clips: list[ClipPosition]
    n_classes: int
    decoding: list[DecodingPoint]
    iou: float
    onset_frames: int


@dataclass(frozen=True)
class TrainedModel:
    """The best averaged weights and how they came about (one record per epoch)."""

    network: DenseResnet
    best_epoch: int
    best: Validation
    epochs: list[dict[str, float]]


@dataclass
class _State:
    """All that changes from batch to batch. `losses` are those of the epoch under way, one for each batch done."""

    train: FeatureStore
    network: DenseResnet
    average: DenseResnet
    best: DenseResnet
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    records: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    augmentation: torch.Generator = field(default_factory=torch.Generator)

    def parts(self) -> tuple[Any, ...]:
        return self.network, self.average, self.best, self.optimiser, self.schedule

    def dump(self, device: torch.device) -> dict[str, Any]:
        return {
            "parts": [part.state_dict() for part in self.parts()],
            "records": self.records,
            "losses": self.losses,
            "augmentation": self.augmentation.get_state(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "kept": self.train.kept(),
        }

    def restore(self, saved: dict[str, Any], device: torch.device) -> None:
        for part, content in zip(self.parts(), saved["parts"], strict=True):
            part.load_state_dict(content)
        self.records, self.losses = saved["records"], saved["losses"]
        self.augmentation.set_state(saved["augmentation"])
        torch.set_rng_state(saved["random"])
        if device.type == "cuda" and saved["random_gpu"] is not None:
            torch.cuda.set_rng_state(saved["random_gpu"], device)
        for index in saved["kept"]:
            self.train.keep(index)


@dataclass
class _Checkpoint:
    """Saves the state: after every epoch, every minute within one, and when the job is asked to stop."""

    state: _State
    device: torch.device
    path: Path
    digest: str
    stop: Callable[[], bool]
    epochs: int
    saved_at: float = field(default_factory=time.monotonic)

    def save(self) -> None:
        write_resume(self.path, self.digest, self.state.dump(self.device))
        self.saved_at = time.monotonic()

    def pause(self) -> None:
        """Save if it is time to. Raises StoppedError, with everything saved, if the job is asked to stop."""
        asked = self.stop()
        if asked or time.monotonic() - self.saved_at > _SAVE_EVERY_S:
            self.save()
        if asked:
            raise StoppedError(f"{len(self.state.records)} of {self.epochs} epochs", self.path)


def train_model(
    material: TrainingMaterial,
    *,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    resume_path: Path,
    digest: str,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
) -> TrainedModel:
    """Train a network and return its best averaged weights by detection on the validation recordings.

    `stop` is asked after every batch and every epoch; if it says yes, the state is written to `resume_path` and
    StoppedError is raised. A call with the same `digest` goes on from there, within the epoch, and ends with the same
    weights and records as an uninterrupted one (same machine, CPU). Raises StageError if the loss is not finite and
    MissingPartError if `resume_path` cannot be written.
    """
    torch.manual_seed(seed % 2**63)
    torch.use_deterministic_algorithms(device.type == "cpu")
    state = _start(material, settings, device)
    if saved := read_resume(resume_path, digest, progress):
        state.restore(saved, device)
        within = f" and {len(state.losses)} batches of the next" if state.losses else ""
        progress(f"resuming after epoch {len(state.records)} of {settings.epochs}{within}")
    checkpoint = _Checkpoint(state, device, resume_path, digest, stop, settings.epochs)
    draw = 0.5 / max(1, sum(len(r.start_s) for r in material.val.recordings))
    began, done_before = time.monotonic(), len(state.records)
    while len(state.records) < settings.epochs and not _stalled(state.records, settings.patience, draw):
        checkpoint.pause()
        epoch = len(state.records) + 1
        loss = _one_epoch(checkpoint, material, settings, derive_seed(seed, "epoch", epoch))
        result = judge(state.average, material)
        if _as_good(result.detection, state.records, draw):
            state.best.load_state_dict(state.average.state_dict())
        state.records.append({"epoch": epoch, "loss": loss, "detection": result.detection, **asdict(result)})
        state.losses = []
        checkpoint.save()
        pace = (time.monotonic() - began) / (epoch - done_before)
        progress(
            f"epoch {epoch}/{settings.epochs} loss {loss:.4f} val F1 {result.f1:.3f} AP {result.average_precision:.3f} "
            f"({pace:.1f} s/epoch, at most {pace * (settings.epochs - epoch):.0f} s left)"
        )
    best = [r for i, r in enumerate(state.records) if _as_good(r["detection"], state.records[:i], draw)][-1]
    return TrainedModel(
        state.best, int(best["epoch"]), Validation(best["f1"], best["average_precision"]), state.records
    )


def judge(network: DenseResnet | Ensemble, material: TrainingMaterial) -> Validation:
    """Return how well a network, or several together, detect on the validation recordings."""
    return validate(
        network,
        material.val,
        context_frames=network.context_frames,
        points=material.decoding,
        iou=material.iou,
        n_classes=material.n_classes,
    )


def _start(material: TrainingMaterial, settings: TrainingSettings, device: torch.device) -> _State:
    """An untrained network and what trains it."""
    shape = {"bands": material.train.frontend.bands, "n_classes": material.n_classes}
    network = build_network(settings.architecture, **shape, settings=settings.network).to(device)
    _channels_last(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    steps = settings.epochs * math.ceil(cuts_per_epoch(material.clips, settings) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    return _State(material.train, network, copy.deepcopy(network), copy.deepcopy(network), optimiser, schedule)


def _as_good(detection: float, before: list[dict[str, float]], draw: float) -> bool:
    """Whether an epoch is as good as the best before it. A draw goes to the later epoch.

    Validation sets are small: half a call more or less says nothing, but the later epoch has seen more and has the
    lower learning rate.
    """
    return detection >= max((r["detection"] for r in before), default=0.0) - draw


def _channels_last(network: DenseResnet) -> None:
    """Order the weights of the convolutions channels-last, which processors like better."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _stalled(records: list[dict[str, float]], patience: int, draw: float) -> bool:
    """Whether none of the last `patience` epochs was as good as the best before it."""
    good = [i for i, r in enumerate(records) if _as_good(r["detection"], records[:i], draw)]
    return len(records) - 1 - (good[-1] if good else 0) >= patience


def _one_epoch(
    checkpoint: _Checkpoint, material: TrainingMaterial, settings: TrainingSettings, epoch_seed: int
) -> float:
    """Train on the batches of an epoch, after those that are done already, and return the mean loss of all."""
    state = checkpoint.state
    if not state.losses:
        torch.manual_seed(epoch_seed)
        state.augmentation.manual_seed(epoch_seed)
    batches = draw_batches(
        material.train,
        material.clips,
        settings,
        n_classes=material.n_classes,
        onset_frames=material.onset_frames,
        generator=np.random.default_rng(epoch_seed),
        skip=len(state.losses),
    )
    state.network.train()
    for batch in batches:
        state.losses.append(_one_batch(state, batch, settings, checkpoint.device))
        checkpoint.pause()
    return float(np.mean(state.losses))


def _one_batch(state: _State, batch: Batch, settings: TrainingSettings, device: torch.device) -> float:
    """Take one step of the optimiser and return the loss before it."""
    on_device = Batch(*(getattr(batch, f).to(device) for f in ("features", "activity", "onset", "valid")))
    varied = augment(on_device, settings.augmentation, state.augmentation)
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(settings.precision, device)):
        logits = state.network(varied.features)
    loss = frame_loss(logits.float(), varied, settings)
    if not torch.isfinite(loss):
        raise StageError(
            f"training: the loss is {loss.item()} in epoch {len(state.records) + 1}, batch {len(state.losses) + 1}; "
            "lower training.<name>.learning_rate."
        )
    state.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(state.network.parameters(), _GRADIENT_NORM)
    state.optimiser.step()
    state.schedule.step()
    _follow(state.average, state.network, settings.averaging, state.schedule.last_epoch)
    return float(loss.detach())


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether to train in bfloat16: as the settings say, or where it is done in hardware."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def frame_loss(logits: torch.Tensor, batch: Batch, settings: TrainingSettings) -> torch.Tensor:
    """Return the binary cross-entropy over the frames that count, onsets and calls weighted against their rarity."""
    n_classes = batch.activity.shape[1]
    truth = torch.cat([batch.activity, batch.onset], dim=1)
    weight = torch.tensor([settings.positive_weight] * n_classes + [settings.onset_weight] * n_classes)
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits, truth, pos_weight=weight.to(logits.device).view(-1, 1), reduction="none"
    )
    valid = batch.valid.unsqueeze(1)
    return (loss * valid).sum() / (valid.sum() * truth.shape[1]).clamp(min=1.0)


def _follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the running average towards the network; early steps count more, so that the start is forgotten."""
    share = 1.0 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)


def records_as_jsonl(records: list[dict[str, float]]) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(r, sort_keys=True) + "\n" for r in records)
