"""Learning with a BEATs: its head from what the frozen encoder hears, then, if it is asked for, its last blocks too."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from otus.config import BeatsSettings, TrainingSettings
from otus.errors import DataError
from otus.frontend import Frontend, beats_frontend
from otus.models.beats import Beats, beats_ensemble
from otus.training.cuts import Batch, CutPlan, drawn_cuts, read_cuts, read_padded
from otus.training.frames import FrameMaterial, FrameObjective, bands_in_words, frame_material
from otus.training.learning import Learning, SecondStage
from otus.training.material import Material
from otus.training.objectives import Judgement
from otus.training.validation import judge_scores

#: Blocks that a GPU encodes at once. A CPU encodes them one by one: it is as fast, and then no bit of a block's tokens
#: depends on which others come with it, so that a resumed training, which keeps others, ends with the same weights.
_ENCODED_BY_GPU = 16

#: Blocks of a recording that the head scores at once.
_SCORED = 16

#: Where a block lies: index of the recording, first frame.
Place = tuple[int, int]


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Whole blocks with their tokens (batch, steps, rows, channels) in half precision."""

    tokens: torch.Tensor


class TokenStore:
    """What a frozen encoder makes of blocks, in half precision: kept up to a budget, and made again beyond it.

    Those that are asked for first are kept.
    """

    def __init__(self, encoder: Beats, budget_bytes: int) -> None:
        self._encoder = encoder
        self._device = next(encoder.parameters()).device
        self._left = budget_bytes
        self._kept: dict[Place, torch.Tensor] = {}

    def tokens(self, places: Sequence[Place], fbank: torch.Tensor) -> torch.Tensor:
        """Return the tokens (batch, steps, rows, channels), on the CPU, of the blocks (batch, bands, frames) there."""
        missing = {place: i for i, place in enumerate(places) if place not in self._kept}
        made: dict[Place, torch.Tensor] = {}
        size = 1 if self._device.type == "cpu" else _ENCODED_BY_GPU
        for start in range(0, len(missing), size):
            some = list(missing)[start : start + size]
            heard = self._encoder.encode(fbank[[missing[place] for place in some]].to(self._device))
            made |= zip(some, heard.half().cpu(), strict=True)
        for place, tokens in made.items():
            self._keep(place, tokens)
        return torch.stack([made[place] if place in made else self._kept[place] for place in places])

    def _keep(self, place: Place, tokens: torch.Tensor) -> None:
        """Keep the tokens of a block if there is room."""
        bytes_ = tokens.numel() * tokens.element_size()
        if bytes_ <= self._left:
            self._left -= bytes_
            self._kept[place] = tokens.clone()


class TokenObjective(FrameObjective):
    """The frames of whole blocks, as they are scored in prediction, learn from tokens that were made once.

    Nothing is augmented: the encoder would have to hear it.
    """

    def __init__(
        self, material: FrameMaterial, plan: CutPlan, settings: TrainingSettings, train: TokenStore, val: TokenStore
    ) -> None:
        super().__init__(material, plan, settings.augmentation, settings.optimisation)
        self._train_tokens, self._val_tokens = train, val

    def batches(self, seed: int, skip: int) -> Iterator[TokenBatch]:
        """Yield the batches of the epoch with that seed; the first `skip` are drawn, not read."""
        material, plan = self.material, self.plan
        generator = np.random.default_rng(seed)
        for number, drawn in enumerate(drawn_cuts(material.train, material.clips, plan, generator)):
            if number >= skip:
                batch = read_cuts(material.train, drawn, plan, material.n_classes, material.onset_frames)
                places = [(clip.recording, start) for clip, start in drawn]
                tokens = self._train_tokens.tokens(places, batch.features)
                yield TokenBatch(**batch.tensors(), sources=batch.sources, tokens=tokens)

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch as it is."""
        return batch

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the summed binary cross-entropy over the frames of the blocks that count."""
        assert isinstance(network, Beats)
        assert isinstance(batch, TokenBatch)
        return self.loss_of(network.forward_tokens(batch.tokens, batch.features), batch)

    def judge(self, network: nn.Module) -> Judgement:
        """Return best F1 and average precision on the validation recordings, and their mean as `detection`."""
        material = self.material
        if not (isinstance(network, Beats) and network.is_frozen):  # several networks together, at last
            return super().judge(network)
        network.eval()
        scores = [self._scores(network, i) for i in range(len(material.val.recordings))]
        return judge_scores(
            scores, material.val, points=material.decoding, iou=material.iou, n_classes=material.n_classes
        )

    def _scores(self, network: Beats, index: int) -> np.ndarray:
        """The frame logits (2 * classes, frames) of one validation recording, as otus.dense scores it."""
        store, length, margin = self.material.val, self.plan.length, self.plan.margin
        device = next(network.parameters()).device
        n_frames = store.n_frames(index)
        starts = range(0, n_frames, length)
        blocks = []
        for first in range(0, len(starts), _SCORED):
            some = starts[first : first + _SCORED]
            fbank = torch.stack(read_padded(store, [(index, s - margin, s + length + margin) for s in some]))
            tokens = self._val_tokens.tokens([(index, s) for s in some], fbank)
            with torch.inference_mode():
                logits = network.forward_tokens(tokens.to(device), fbank.to(device))[..., margin : margin + length]
            blocks += list(logits.float().cpu())
        return torch.cat(blocks, dim=1)[:, :n_frames].numpy()


def learning_from_beats(
    material: Material,
    clips: pd.DataFrame,
    targets: Sequence[str],
    settings: TrainingSettings,
    *,
    iou: float,
    device: torch.device,
) -> Learning:
    """Return what a BEATs learns from. All networks that start from the checkpoint share one frozen encoder.

    Raises DataError if the calls lie above what it hears, or if its checkpoint cannot be used.
    """
    beats, frontend = settings.beats, beats_frontend()
    assert beats is not None
    _check_calls(material, frontend)
    hearing = Beats(bands=frontend.bands, n_classes=len(targets), settings=beats).to(device).eval()

    def new_network() -> Beats:
        network = Beats(bands=frontend.bands, n_classes=len(targets), settings=beats)
        network.encoder = hearing.encoder
        return network

    budget = settings.cache_mb * 2**20
    for_tokens = round(budget * _share_of_tokens(hearing, frontend)) if beats.cache_tokens else 0
    facts = frame_material(material, clips, targets, settings, frontend, budget - for_tokens, iou=iou, device=device)
    plan = CutPlan(
        settings.cuts_per_epoch,
        settings.batch_size,
        hearing.block_frames,
        settings.target_share,
        margin=hearing.context_frames,
    )
    cuts = FrameObjective(facts, plan, settings.augmentation, settings.optimisation)
    stores = TokenStore(hearing, for_tokens * 3 // 4), TokenStore(hearing, for_tokens // 4)
    tokens = TokenObjective(facts, replace(plan, on_grid=True), settings, *stores)
    return Learning(
        objective=tokens if beats.cache_tokens else cuts,
        new_network=new_network,
        together=beats_ensemble,
        frontend=frontend,
        inference="blocks",
        window_frames=1,
        hears=f"{bands_in_words(frontend)}, through the encoder in {Path(beats.checkpoint).name}",
        network=beats,
        second=_second_stage(cuts, settings, beats) if beats.unfreeze_blocks else None,
    )


def _second_stage(objective: FrameObjective, settings: TrainingSettings, beats: BeatsSettings) -> SecondStage:
    """The last blocks of the encoder learn as well, from augmented cuts."""
    rates = settings.optimisation.learning_rate, beats.unfreeze_learning_rate
    return SecondStage(
        objective=objective,
        settings=settings.model_copy(update={"epochs": beats.unfreeze_epochs}),
        begin=lambda network: network.unfrozen(beats.unfreeze_blocks),
        groups=lambda network: network.parameter_groups(*rates),
        min_gain=beats.min_gain,
    )


def _share_of_tokens(encoder: Beats, frontend: Frontend) -> float:
    """What share of the memory for a block and its tokens is that of the tokens."""
    tokens = math.prod(encoder.token_shape(encoder.block_frames + 2 * encoder.context_frames))
    return tokens / (tokens + frontend.bands * encoder.block_frames)


def _check_calls(material: Material, frontend: Frontend) -> None:
    """DataError if the calls, as far as their frequencies are known, reach above what the encoder hears."""
    high_hz = material.calls["high_hz"].to_numpy(dtype=float)
    known = high_hz[np.isfinite(high_hz)]
    if known.size and (median := float(np.median(known))) > frontend.high_hz:
        raise DataError(
            f"train: half of the calls reach above {median:g} Hz, but a BEATs hears nothing above "
            f"{frontend.high_hz:g} Hz; choose another architecture for this training."
        )
