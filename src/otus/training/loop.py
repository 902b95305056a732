"""The training loop: steps of an optimiser, running average of the weights, early stopping on validation."""

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from otus.config import OptimisationSettings, TrainingSettings
from otus.dense import is_out_of_memory
from otus.devices import native_bfloat16
from otus.errors import StageError
from otus.models.network import learnt_state
from otus.seeds import derive_seed
from otus.stopping import StoppedError
from otus.telemetry.events import NO_JOURNAL, Recorder
from otus.training.objectives import E, Examples, Judgement, Objective
from otus.training.prefetch import prefetched
from otus.training.resume import read_resume, write_resume

#: The state is saved after every epoch and after so much time within one: a node that dies costs no more than that.
_SAVE_EVERY_S = 60.0

#: A validation has to be better by this before a plateau is over (ANIMAL-SPOT).
_PLATEAU = 1e-3

#: What the rate of a cosine starts from and ends at, as a share of its peak.
_COSINE_START, _COSINE_END = 0.04, 1e-5

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class TrainedModel:
    """The best averaged weights and how they came about (one record per epoch), in which of two stages, if any."""

    network: nn.Module
    best_epoch: int
    best: Judgement
    records: list[dict[str, float]]
    stage: int | None = None


@dataclass
class _State:
    """All that changes from batch to batch. `losses` are those of the epoch under way, one for each batch done.

    `parts`: a batch goes through the network in so many parts, because more does not fit into memory at once.
    """

    network: nn.Module
    average: nn.Module
    best: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    records: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    augmentation: torch.Generator = field(default_factory=torch.Generator)
    parts: int = 1

    def networks(self) -> tuple[nn.Module, ...]:
        return self.network, self.average, self.best

    def dump(self, device: torch.device) -> dict[str, Any]:
        return {
            "networks": [learnt_state(network) for network in self.networks()],
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "records": self.records,
            "losses": self.losses,
            "parts": self.parts,
            "augmentation": self.augmentation.get_state(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, saved: dict[str, Any], device: torch.device) -> None:
        for network, content in zip(self.networks(), saved["networks"], strict=True):
            network.load_state_dict(content, strict=False)
        self.optimiser.load_state_dict(saved["optimiser"])
        self.schedule.load_state_dict(saved["schedule"])
        self.records, self.losses, self.parts = saved["records"], saved["losses"], saved["parts"]
        self.augmentation.set_state(saved["augmentation"])
        torch.set_rng_state(saved["random"])
        if device.type == "cuda" and saved["random_gpu"] is not None:
            torch.cuda.set_rng_state(saved["random_gpu"], device)


@dataclass
class _Checkpoint:
    """Saves the state: after every epoch, every minute within one, and when the job is asked to stop."""

    state: _State
    objective: Objective[Any]
    device: torch.device
    path: Path
    digest: str
    stop: Callable[[], bool]
    epochs: int
    journal: Recorder
    saved_at: float = field(default_factory=time.monotonic)

    def save(self) -> None:
        write_resume(self.path, self.digest, self.state.dump(self.device) | {"kept": self.objective.kept()})
        self.saved_at = time.monotonic()

    def end_epoch(self, record: dict[str, float], wall_s: float) -> None:
        """Add the record of an epoch, save, and tell the journal."""
        self.state.records.append(record)
        self.state.losses = []
        self.save()
        found = {"loss": record["loss"], "detection": record.get("detection")}
        self.journal.write("epoch", item_id=self.path.stem, items_done=len(self.state.records), wall_s=wall_s, **found)

    def pause(self) -> None:
        """Save if it is time to. Raises StoppedError, with everything saved, if the job is asked to stop."""
        asked = self.stop()
        if asked or time.monotonic() - self.saved_at > _SAVE_EVERY_S:
            self.save()
        if asked:
            raise StoppedError(f"{len(self.state.records)} of {self.epochs} epochs", self.path)


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    """StageError, in a sentence, where memory runs out for what cannot be divided any further."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise StageError(
            "training: the memory, that of the GPU if there is one, does not suffice; lower training.<name>.batch_size "
            "or the size of the network, or train on a device with more memory."
        ) from error


@_memory_explained()
def train_model(
    network: nn.Module,
    objective: Objective[E],
    *,
    settings: TrainingSettings,
    seed: int,
    device: torch.device,
    resume_path: Path,
    digest: str,
    stop: Callable[[], bool],
    progress: Callable[[str], None],
    groups: list[dict[str, Any]] | None = None,
    journal: Recorder = NO_JOURNAL,
) -> TrainedModel:
    """Train a network, which is on its device, and return its best averaged weights by the objective's judgement.

    Parameters that need no gradient stay as they are and are shared, not copied. `groups` divides the others as torch's
    optimisers take it, each group with the peak `lr` of its own; without it all have that of the settings. `stop` is
    asked after every batch and every epoch; if it says yes, the state is written to `resume_path` and StoppedError is
    raised. A call with the same `digest` goes on from there, within the epoch, and ends with the same weights and
    records as an uninterrupted one (same machine, CPU). A batch that does not fit into memory goes through in parts;
    that is said, also to the `journal`, as is every epoch. Raises StageError if the loss or its gradient is not finite,
    or if a single example or anything else does not fit, and MissingPartError if `resume_path` cannot be written.
    """
    torch.manual_seed(seed % 2**63)
    torch.use_deterministic_algorithms(device.type == "cpu")
    epochs = settings.n_epochs(objective.n_batches())
    state = _start(network, groups, settings, steps=epochs * objective.n_batches())
    if saved := read_resume(resume_path, digest, progress):
        state.restore(saved, device)
        objective.keep(saved["kept"])
        within = f" and {len(state.losses)} batches of the next" if state.losses else ""
        progress(f"resuming after epoch {len(state.records)} of {epochs}{within}")
    checkpoint = _Checkpoint(state, objective, device, resume_path, digest, stop, epochs, journal)
    journal.write("plan", item_id=resume_path.stem, items_done=len(state.records), items_total=epochs)
    began, done_before = time.monotonic(), len(state.records)
    while len(state.records) < epochs and not _stalled(state.records, settings.patience, objective.draw):
        checkpoint.pause()
        epoch, epoch_began = len(state.records) + 1, time.monotonic()
        loss = _one_epoch(checkpoint, settings, derive_seed(seed, "epoch", epoch), progress)
        rate = float(state.optimiser.param_groups[0]["lr"])
        record: dict[str, float] = {"epoch": epoch, "loss": loss, "learning_rate": rate}
        if epoch % settings.validate_every == 0 or epoch == epochs:
            record |= objective.judge(state.average)
            if _as_good(record["detection"], state.records, objective.draw):
                state.best.load_state_dict(learnt_state(state.average), strict=False)
            if isinstance(state.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                state.schedule.step(record["detection"])
        checkpoint.end_epoch(record, time.monotonic() - epoch_began)
        pace = (time.monotonic() - began) / (epoch - done_before)
        progress(_line(record, epochs, pace))
    best = state.records[_good(state.records, objective.draw)[-1]]
    judgement = {k: v for k, v in best.items() if k not in ("epoch", "loss", "learning_rate")}
    return TrainedModel(state.best, int(best["epoch"]), judgement, state.records)


def _start(network: nn.Module, groups: list[dict[str, Any]] | None, settings: TrainingSettings, steps: int) -> _State:
    """The network and what trains it."""
    _channels_last(network)
    how = settings.optimisation
    learnt = groups or [{"params": [p for p in network.parameters() if p.requires_grad]}]
    betas = (how.beta1, how.beta2)
    optimiser: torch.optim.Optimizer
    if how.method == "adam":
        optimiser = torch.optim.Adam(learnt, lr=how.learning_rate, betas=betas)
    else:
        optimiser = torch.optim.AdamW(learnt, lr=how.learning_rate, betas=betas, weight_decay=how.weight_decay)
    schedule = _schedule(optimiser, how, steps)
    return _State(network, _twin(network), _twin(network), optimiser, schedule)


def _twin(network: N) -> N:
    """A copy of a network that shares what is not learnt."""
    fixed = [p for p in network.parameters() if not p.requires_grad]
    return copy.deepcopy(network, {id(p): p for p in fixed})


def _schedule(
    optimiser: torch.optim.Optimizer, how: OptimisationSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """What changes the learning rate: after every step, or after validations."""
    if how.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            mode="max",
            factor=how.plateau_factor,
            patience=how.plateau_patience,
            threshold=_PLATEAU,
            threshold_mode="abs",
        )
    rise = how.warm_up * steps

    def share(step: int) -> float:
        if step < rise:
            return _between(_COSINE_START, 1.0, step / rise)
        return _between(1.0, _COSINE_END, (step - rise) / max(1.0, steps - rise))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, share)


def _between(start: float, end: float, done: float) -> float:
    """A value on the half cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def _line(record: dict[str, float], epochs: int, pace_s: float) -> str:
    """What a person is told of an epoch."""
    found = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in record.items() if k not in _TOLD_OTHERWISE)
    epoch = int(record["epoch"])
    left_s = pace_s * (epochs - epoch)
    validation = f" validation {found}" if found else ""
    left = f"{pace_s:.1f} s/epoch, at most {left_s:.0f} s left"
    return f"epoch {epoch}/{epochs} loss {record['loss']:.4f}{validation} ({left})"


_TOLD_OTHERWISE = ("epoch", "loss", "learning_rate", "detection")


def _as_good(detection: float, before: list[dict[str, float]], draw: float) -> bool:
    """Whether an epoch is as good as the best before it. A draw goes to the later epoch.

    Validation sets are small: half a call more or less says nothing, but the later epoch has seen more and has the
    lower learning rate.
    """
    return detection >= max((r["detection"] for r in before if "detection" in r), default=0.0) - draw


def _good(records: list[dict[str, float]], draw: float) -> list[int]:
    """The epochs that were as good as the best before them."""
    return [i for i, r in enumerate(records) if "detection" in r and _as_good(r["detection"], records[:i], draw)]


def _stalled(records: list[dict[str, float]], patience: int, draw: float) -> bool:
    """Whether none of the last `patience` validations was as good as the best before it."""
    judged = [r for r in records if "detection" in r]
    good = _good(judged, draw)
    return bool(judged) and len(judged) - 1 - good[-1] >= patience


def _channels_last(network: nn.Module) -> None:
    """Order the weights of the convolutions channels-last, which processors like better."""
    for weight in network.parameters():
        if weight.dim() == 4 and weight.requires_grad:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _one_epoch(
    checkpoint: _Checkpoint, settings: TrainingSettings, epoch_seed: int, progress: Callable[[str], None]
) -> float:
    """Train on the batches of an epoch, after those that are done already, and return the mean loss of all."""
    state, objective = checkpoint.state, checkpoint.objective
    if not state.losses:
        torch.manual_seed(epoch_seed)
        state.augmentation.manual_seed(epoch_seed)
    state.network.train()
    for batch in prefetched(objective.batches(epoch_seed, len(state.losses))):
        state.losses.append(_one_batch(checkpoint, batch, settings, progress))
        checkpoint.pause()
    return float(np.mean(state.losses))


def _one_batch(
    checkpoint: _Checkpoint, batch: Examples, settings: TrainingSettings, progress: Callable[[str], None]
) -> float:
    """Take one step of the optimiser and return the loss before it."""
    state, device = checkpoint.state, checkpoint.device
    varied = checkpoint.objective.vary(batch.to(device), state.augmentation)
    while (loss := _gradients(checkpoint, varied, settings)) is None:
        if state.parts >= len(varied):
            raise StageError(
                "training: not even one example at a time fits into memory; lower training.<name>.cut_frames or the "
                "size of the network."
            )
        state.parts = min(2 * state.parts, len(varied))
        progress(
            f"out of memory: batches of {len(varied)} go through the network in {state.parts} parts from now on; "
            "lower training.<name>.batch_size to avoid this."
        )
        checkpoint.journal.write("oom_backoff", batch_size=math.ceil(len(varied) / state.parts))
    learnt = [p for p in state.network.parameters() if p.requires_grad]
    slope = float(nn.utils.clip_grad_norm_(learnt, settings.optimisation.gradient_norm))
    if not math.isfinite(loss + slope):
        what = f"gradient of the loss is {slope}" if math.isfinite(loss) else f"loss is {loss}"
        raise StageError(
            f"training: the {what} in epoch {len(state.records) + 1}, batch {len(state.losses) + 1} "
            f"({_where(batch)}); lower training.<name>.optimisation.learning_rate, or look at these recordings."
        )
    state.optimiser.step()
    if not isinstance(state.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
        state.schedule.step()
    _follow(state, settings.optimisation.averaging, steps=len(state.records) * checkpoint.objective.n_batches())
    return loss


def _gradients(checkpoint: _Checkpoint, batch: Examples, settings: TrainingSettings) -> float | None:
    """Leave the gradients of the loss in the network and return the loss; None if memory does not suffice."""
    state, objective, device = checkpoint.state, checkpoint.objective, checkpoint.device
    state.optimiser.zero_grad(set_to_none=True)
    random, buffers = torch.get_rng_state(), [b.clone() for b in state.network.buffers()]
    total = objective.weight(batch)
    size = math.ceil(len(batch) / state.parts)
    loss = 0.0
    try:
        for start in range(0, len(batch), size):
            with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(settings.precision, device)):
                share = objective.loss(state.network, batch.part(start, start + size)) / total
            loss += float(share.detach())
            torch.autograd.backward(share)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return loss
    torch.set_rng_state(random)
    for buffer, before in zip(state.network.buffers(), buffers, strict=True):
        buffer.copy_(before)  # parts that fitted have moved running means, and will again
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _where(batch: Examples) -> str:
    """The recordings that the examples of a batch come from."""
    names = sorted(set(batch.sources))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether to train in bfloat16: as the settings say, or where it is done in hardware."""
    return native_bfloat16(device) if precision == "auto" else precision == "bf16"


def _follow(state: _State, decay: float, steps: int) -> None:
    """Move the running average towards the network; early steps count more, so that the start is forgotten."""
    step = steps + len(state.losses) + 1
    share = 1.0 - min(decay, (1 + step) / (10 + step))
    averages, values = learnt_state(state.average), learnt_state(state.network)
    with torch.no_grad():
        for name, mean in averages.items():
            if mean.is_floating_point():
                mean.lerp_(values[name], share)
            else:
                mean.copy_(values[name])


def records_as_jsonl(records: list[dict[str, float]]) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(r, sort_keys=True) + "\n" for r in records)
