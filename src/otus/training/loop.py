"""The training loop: one-cycle AdamW on frames, running average of the weights, early stopping on detection."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otus.atomic import replacing
from otus.config import TrainingSettings
from otus.errors import StageError
from otus.models import DenseResnet, build_network
from otus.seeds import derive_seed
from otus.selections import DecodingPoint
from otus.training.augmentation import augment
from otus.training.cuts import Batch, ClipPosition, FeatureStore, cuts_per_epoch, draw_batches
from otus.training.validation import Validation, validate

_GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class TrainedModel:
    """The best averaged weights and how they came about (one record per epoch)."""

    network: DenseResnet
    best_epoch: int
    best: Validation
    epochs: list[dict[str, float]]


@dataclass
class _State:
    """All that changes from epoch to epoch, as it is written to the resume file."""

    network: DenseResnet
    average: DenseResnet
    best: DenseResnet
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    records: list[dict[str, float]]

    def save(self, path: Path, digest: str) -> None:
        parts = (self.network, self.average, self.best, self.optimiser, self.schedule)
        with replacing(path) as temporary:
            torch.save({"digest": digest, "parts": [p.state_dict() for p in parts], "records": self.records}, temporary)

    def load(self, path: Path, digest: str) -> bool:
        """Take over the state in `path` if it belongs to this very training; say whether it did."""
        if not path.exists():
            return False
        saved = torch.load(path, weights_only=True)
        if saved["digest"] != digest:
            return False
        parts: tuple[Any, ...] = (self.network, self.average, self.best, self.optimiser, self.schedule)
        for part, state in zip(parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        self.records = saved["records"]
        return True


def train_model(
    train: FeatureStore,
    clips: list[ClipPosition],
    val: FeatureStore,
    *,
    settings: TrainingSettings,
    n_classes: int,
    decoding: list[DecodingPoint],
    iou: float,
    onset_frames: int,
    seed: int,
    device: torch.device,
    resume_path: Path,
    digest: str,
    progress: Callable[[str], None],
) -> TrainedModel:
    """Train a network and return its best averaged weights by detection on the validation recordings.

    After each epoch everything is written to `resume_path`; a call with the same `digest` goes on from there and
    ends with the same weights as an uninterrupted one (same machine, CPU). Raises StageError if the loss is not
    finite.
    """
    torch.manual_seed(seed % 2**63)
    torch.use_deterministic_algorithms(device.type == "cpu")
    network = build_network(
        settings.architecture, bands=train.frontend.bands, n_classes=n_classes, settings=settings.network
    ).to(device)
    _channels_last(network)
    state = _start(network, settings, cuts_per_epoch(clips, settings))
    if state.load(resume_path, digest):
        progress(f"resuming after epoch {len(state.records)} of {settings.epochs}")
    draw = 0.5 / max(1, sum(len(r.start_s) for r in val.recordings))
    began, done_before = time.monotonic(), len(state.records)
    for epoch in range(len(state.records) + 1, settings.epochs + 1):
        if _stalled(state.records, settings.patience, draw):
            break
        epoch_seed = derive_seed(seed, "epoch", epoch)
        torch.manual_seed(epoch_seed)
        batches = draw_batches(
            train,
            clips,
            settings,
            n_classes=n_classes,
            onset_frames=onset_frames,
            generator=np.random.default_rng(epoch_seed),
        )
        loss = _one_epoch(state, batches, settings, epoch, torch.Generator().manual_seed(epoch_seed), device)
        result = validate(
            state.average,
            val,
            context_frames=network.context_frames,
            points=decoding,
            iou=iou,
            n_classes=n_classes,
        )
        record = {"epoch": epoch, "loss": loss, "detection": result.detection, **asdict(result)}
        if _as_good(result.detection, state.records, draw):
            state.best.load_state_dict(state.average.state_dict())
        state.records.append(record)
        state.save(resume_path, digest)
        pace = (time.monotonic() - began) / (epoch - done_before)
        progress(
            f"epoch {epoch}/{settings.epochs} loss {loss:.4f} val F1 {result.f1:.3f} AP {result.average_precision:.3f} "
            f"({pace:.1f} s/epoch, at most {pace * (settings.epochs - epoch):.0f} s left)"
        )
    best = [r for i, r in enumerate(state.records) if _as_good(r["detection"], state.records[:i], draw)][-1]
    return TrainedModel(
        state.best, int(best["epoch"]), Validation(best["f1"], best["average_precision"]), state.records
    )


def _start(network: DenseResnet, settings: TrainingSettings, cuts: int) -> _State:
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99)
    )
    steps = settings.epochs * math.ceil(cuts / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=settings.learning_rate, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    return _State(network, copy.deepcopy(network), copy.deepcopy(network), optimiser, schedule, [])


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
    state: _State,
    batches: Any,
    settings: TrainingSettings,
    epoch: int,
    generator: torch.Generator,
    device: torch.device,
) -> float:
    """Train on `batches` and return the mean loss."""
    state.network.train()
    low_precision = uses_bf16(settings.precision, device)
    losses = []
    for number, batch in enumerate(batches, start=1):
        on_device = Batch(*(getattr(batch, f).to(device) for f in ("features", "activity", "onset", "valid")))
        varied = augment(on_device, settings.augmentation, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
            logits = state.network(varied.features)
        loss = frame_loss(logits.float(), varied, settings)
        if not torch.isfinite(loss):
            raise StageError(
                f"training: the loss is {loss.item()} in epoch {epoch}, batch {number}; "
                "lower training.<name>.learning_rate."
            )
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), _GRADIENT_NORM)
        state.optimiser.step()
        state.schedule.step()
        _follow(state.average, state.network, settings.averaging, state.schedule.last_epoch)
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


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
