"""Augmentation of training cuts, batched, on the device, in units of log power relative to the band medians."""

import math

import torch

from otus.config import AugmentationSettings
from otus.frontend import INPUT_RANGE
from otus.training.cuts import Batch

_NEPERS_PER_DB = math.log(10.0) / 10.0

#: Largest width of a mask: share of the cut's frames, and of the bands.
_MASK_SHARE = 0.06


def augment(batch: Batch, settings: AugmentationSettings, generator: torch.Generator) -> Batch:
    """Return the batch with mixing, level, slope and masks applied, drawn from `generator` (on the CPU)."""
    mixed = _mix(batch, settings, generator)
    x = _shift(mixed.features, settings.shift_bands, generator)
    x = _level_and_slope(x, settings, generator)
    x = _mask(x, settings.masks, generator)
    return Batch(x.clamp(*INPUT_RANGE), mixed.activity, mixed.onset, mixed.valid)


def _uniform(shape: tuple[int, ...], low: float, high: float, like: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return (low + (high - low) * torch.rand(shape, generator=g)).to(like.device)


def _mix(batch: Batch, settings: AugmentationSettings, generator: torch.Generator) -> Batch:
    """Add the power of another cut of the batch; calls of both count."""
    n = len(batch.features)
    partner = torch.randperm(n, generator=generator).to(batch.features.device)
    level_db = _uniform((n, 1, 1), settings.mix_low_db, settings.mix_high_db, batch.features, generator)
    chosen = _uniform((n, 1, 1), 0.0, 1.0, batch.features, generator) < settings.mix_probability
    both = torch.logaddexp(batch.features, batch.features[partner] + level_db * _NEPERS_PER_DB)
    return Batch(
        features=torch.where(chosen, both, batch.features),
        activity=torch.where(chosen, torch.maximum(batch.activity, batch.activity[partner]), batch.activity),
        onset=torch.where(chosen, torch.maximum(batch.onset, batch.onset[partner]), batch.onset),
        valid=torch.where(chosen[:, :, 0], batch.valid * batch.valid[partner], batch.valid),
    )


def _shift(x: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Move every cut up or down by whole bands; the outermost band fills the gap."""
    n, bands, _ = x.shape
    by = torch.randint(-most, most + 1, (n, 1), generator=generator).to(x.device)
    source = (torch.arange(bands, device=x.device) - by).clamp(0, bands - 1)
    return x.gather(1, source.unsqueeze(-1).expand_as(x))


def _level_and_slope(x: torch.Tensor, settings: AugmentationSettings, generator: torch.Generator) -> torch.Tensor:
    n, bands, _ = x.shape
    gain = _uniform((n, 1, 1), -settings.gain_db, settings.gain_db, x, generator)
    slope = _uniform((n, 1, 1), -settings.tilt_db, settings.tilt_db, x, generator)
    across = torch.linspace(-0.5, 0.5, bands, device=x.device).view(1, bands, 1)
    return x + (gain + slope * across) * _NEPERS_PER_DB


def _mask(x: torch.Tensor, masks: int, generator: torch.Generator) -> torch.Tensor:
    """Replace small stretches of time and of frequency by the median level (0)."""
    n, bands, frames = x.shape
    for length, shape in ((frames, (n, 1, frames)), (bands, (n, bands, 1))):
        position = torch.arange(length, device=x.device).expand(n, length)
        for _ in range(masks):
            width = _uniform((n, 1), 0.0, _MASK_SHARE * length, x, generator)
            start = _uniform((n, 1), 0.0, float(length), x, generator) - width / 2
            inside = (position >= start) & (position < start + width)
            x = x.masked_fill(inside.view(shape), 0.0)
    return x
