"""Learning from the frames of cuts, or from whole windows of a network that scores frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from otus.config import (
    AugmentationSettings,
    DecodingSettings,
    OptimisationSettings,
    Resnet18Settings,
    TimmSettings,
    TrainingSettings,
)
from otus.frontend import Frontend, choose_frontend
from otus.models import Ensemble, FrameNetwork, FrameNetworkSettings, WindowMean, build_network
from otus.selections import DecodingPoint, decoding_grid
from otus.training.augmentation import augment, domain_of
from otus.training.cuts import Batch, ClipPosition, CutPlan, FeatureStore, draw_batches, draw_windows, n_cuts
from otus.training.learning import Learning
from otus.training.material import Material, clip_positions
from otus.training.objectives import Judgement
from otus.training.validation import validate

#: An onset is marked on frames within this share of the median call around it.
_ONSET_SHARE = 0.06

#: The smallest probability of being wrong in a focal loss: the slope of its root would be infinite at 0.
_SUREST = 1e-12


@dataclass(frozen=True)
class FrameMaterial:
    """What a network is trained on and judged by."""

    train: FeatureStore
    val: FeatureStore
    clips: list[ClipPosition]
    n_classes: int
    decoding: list[DecodingPoint]
    iou: float
    onset_frames: int


class FrameObjective:
    """Every frame learns whether it lies in a call, and whether one starts (strong labels)."""

    def __init__(
        self,
        material: FrameMaterial,
        plan: CutPlan,
        augmentation: AugmentationSettings,
        optimisation: OptimisationSettings,
    ) -> None:
        self.material, self.plan = material, plan
        self._augmentation, self._optimisation = augmentation, optimisation
        self._domain = domain_of(material.train.frontend)
        self.draw = 0.5 / max(1, sum(len(r.start_s) for r in material.val.recordings))
        self._n_batches = -(-n_cuts(material.clips, plan) // plan.batch_size)

    def n_batches(self) -> int:
        """Return the number of batches in an epoch."""
        return self._n_batches

    def batches(self, seed: int, skip: int) -> Iterator[Batch]:
        """Yield the batches of the epoch with that seed; the first `skip` are drawn, not read."""
        return draw_batches(
            self.material.train,
            self.material.clips,
            self.plan,
            n_classes=self.material.n_classes,
            onset_frames=self.material.onset_frames,
            generator=np.random.default_rng(seed),
            skip=skip,
        )

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with augmentation drawn from `generator`."""
        return augment(batch, self._augmentation, generator, self._domain)

    def weight(self, batch: Batch) -> float:
        """Return the number of truths: frames that count times activities and onsets."""
        return max(1.0, float(batch.valid.sum()) * 2 * self.material.n_classes)

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed binary cross-entropy over the frames that count."""
        return self.loss_of(network(batch.features), batch)

    def loss_of(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of logits (batch, 2 * classes, frames), with those of the margin on either side of a cut."""
        n_classes, length = batch.activity.shape[1:]
        own = logits.float()[..., self.plan.margin : self.plan.margin + length]
        truth = torch.cat([batch.activity, batch.onset], dim=1)
        how = self._optimisation
        weight = torch.tensor([how.positive_weight] * n_classes + [how.onset_weight] * n_classes)
        loss = weighted_cross_entropy(own, truth, weight.view(-1, 1), how.focal_gamma)
        return (loss * batch.valid.unsqueeze(1)).sum()

    def judge(self, network: nn.Module) -> Judgement:
        """Return best F1 and average precision on the validation recordings, and their mean as `detection`."""
        material = self.material
        assert isinstance(network, FrameNetwork)
        return validate(network, material.val, points=material.decoding, iou=material.iou, n_classes=material.n_classes)

    def kept(self) -> list[int]:
        """Return the recordings of the train side that are kept in memory."""
        return self.material.train.kept()

    def keep(self, indices: list[int]) -> None:
        """Keep the same recordings in memory as an earlier process did."""
        for index in indices:
            self.material.train.keep(index)


class WindowObjective(FrameObjective):
    """Whole windows learn whether they show a call: the mean of their frames' logits is judged (weak labels)."""

    def batches(self, seed: int, skip: int) -> Iterator[Batch]:
        """Yield the batches of the epoch with that seed; the first `skip` are drawn, not read."""
        return draw_windows(
            self.material.train,
            self.material.clips,
            self.plan,
            n_classes=self.material.n_classes,
            generator=np.random.default_rng(seed),
            skip=skip,
        )

    def weight(self, batch: Batch) -> float:
        """Return the number of truths: windows that count times labels."""
        return max(1.0, float(_counted(batch).sum()) * self.material.n_classes)

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed binary cross-entropy over the windows that count."""
        margin, n_classes = self.plan.margin, batch.activity.shape[1]
        frames = network(batch.features).float()[:, :n_classes, margin : margin + self.plan.length]
        weight = torch.full((n_classes,), self._optimisation.positive_weight)
        truth = batch.activity.mean(dim=-1)
        loss = weighted_cross_entropy(frames.mean(dim=-1), truth, weight, self._optimisation.focal_gamma)
        return (loss * _counted(batch)).sum()

    def judge(self, network: nn.Module) -> Judgement:
        """Return best F1 and average precision of the windows' scores on the validation recordings."""
        assert isinstance(network, FrameNetwork)
        return super().judge(network if isinstance(network, WindowMean) else WindowMean(network, self.plan.length))


def _counted(batch: Batch) -> torch.Tensor:
    """1 for the windows (batch, 1) that count: half of their frames do, whatever augmentation left of them."""
    return (batch.valid.mean(dim=-1, keepdim=True) >= 0.5).float()


def weighted_cross_entropy(
    logits: torch.Tensor, truth: torch.Tensor, positive_weight: torch.Tensor, focal_gamma: float
) -> torch.Tensor:
    """Return the binary cross-entropy of every logit, weighted where the truth is positive.

    With `focal_gamma` above 0, each is multiplied with (1 - p)^gamma, p the probability of what is true (Lin et al.
    2017).
    """
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits, truth, pos_weight=positive_weight.to(logits.device), reduction="none"
    )
    if focal_gamma:
        wrong = truth * torch.sigmoid(-logits) + (1 - truth) * torch.sigmoid(logits)
        loss = loss * wrong.clamp(min=_SUREST).pow(focal_gamma)
    return loss


def learning_from_frames(
    material: Material,
    clips: pd.DataFrame,
    targets: Sequence[str],
    settings: TrainingSettings,
    *,
    iou: float,
    device: torch.device,
) -> Learning:
    """Return what a network that scores frames learns from: its frames, or the windows of its clips."""
    frontend = _frontend(material, settings)
    budget = settings.cache_mb * 2**20
    facts = frame_material(material, clips, targets, settings, frontend, budget, iou=iou, device=device)
    window_frames = 1
    if settings.objective == "clip":
        window_frames = max(1, round((settings.clip_s or np.median(material.durations_s)) / frontend.hop_s))
    network = settings.network
    assert not isinstance(network, Resnet18Settings)  # it scores windows

    def new_network() -> FrameNetwork:
        return build_network(network, bands=frontend.bands, n_classes=len(targets))

    def together(networks: Sequence[FrameNetwork]) -> FrameNetwork:
        all_of_them = Ensemble(networks)
        return WindowMean(all_of_them, window_frames) if settings.objective == "clip" else all_of_them

    return Learning(
        objective=_objective(facts, settings, window_frames, new_network),
        new_network=new_network,
        together=together,
        frontend=frontend,
        inference="dense" if new_network().block_frames is None else "blocks",
        window_frames=window_frames,
        hears=bands_in_words(frontend),
        network=_as_stored(network),
    )


def _as_stored(network: FrameNetworkSettings) -> FrameNetworkSettings:
    """The settings with which a network is made again: what started from a file of weights is stored completely."""
    if isinstance(network, TimmSettings):
        return network.model_copy(update={"weights": None, "sha256": None})
    return network


def frame_material(
    material: Material,
    clips: pd.DataFrame,
    targets: Sequence[str],
    settings: TrainingSettings,
    frontend: Frontend,
    budget_bytes: int,
    *,
    iou: float,
    device: torch.device,
) -> FrameMaterial:
    """Return what the frames of a fold are: 3/4 of the budget is for the network's input of train, 1/4 for val."""
    median_call_s = float(np.median(material.durations_s))
    return FrameMaterial(
        train=FeatureStore(material.train, frontend, budget_bytes * 3 // 4, device),
        val=FeatureStore(material.val, frontend, budget_bytes // 4, device),
        clips=clip_positions(material.train, clips, hop_s=frontend.hop_s, targets=targets, balance=settings.balance),
        n_classes=len(targets),
        decoding=decoding_grid(
            DecodingSettings(),
            median_call_s=median_call_s,
            short_call_s=float(np.quantile(material.durations_s, 0.05)),
        ),
        iou=iou,
        onset_frames=max(1, round(_ONSET_SHARE * median_call_s / frontend.hop_s)),
    )


def bands_in_words(frontend: Frontend) -> str:
    """Return what a person is told of a front end."""
    limits = f"{frontend.low_hz:g}-{frontend.high_hz:g} Hz"
    return f"{frontend.bands} {frontend.scale} bands {limits}, hop {1000 * frontend.hop_s:g} ms"


def _objective(
    facts: FrameMaterial, settings: TrainingSettings, window_frames: int, new_network: Callable[[], FrameNetwork]
) -> FrameObjective:
    """Frames of long cuts, or windows of the clip objective with all that the network sees around them."""
    plan = CutPlan(settings.cuts_per_epoch, settings.batch_size, settings.cut_frames, settings.target_share)
    how = settings.augmentation, settings.optimisation
    if settings.objective == "frame":
        return FrameObjective(facts, plan, *how)
    margin = new_network().context_frames
    return WindowObjective(facts, replace(plan, length=window_frames, margin=margin), *how)


def _frontend(material: Material, settings: TrainingSettings) -> Frontend:
    return choose_frontend(
        settings.frontend,
        sample_rates=[r.info.sample_rate for r in material.train if not r.clips_only],
        call_durations_s=material.durations_s,
        call_low_hz=material.calls["low_hz"].to_numpy(dtype=float),
        call_high_hz=material.calls["high_hz"].to_numpy(dtype=float),
    )
