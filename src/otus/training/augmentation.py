"""Augmentation of training cuts, batched, on the device: which kinds there are, in which order, and what is drawn.

What the kinds do is in `augment_geometry` (time and frequency) and `augment_power` (mixing and levels).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from otus.config import AugmentationSettings
from otus.frontend import FBANK_SILENCE, FBANK_SPREAD, INPUT_RANGE, Frontend
from otus.training.augment_geometry import masked, rotated, scaled_in_pitch, shifted_in_bands, stretched_in_time
from otus.training.augment_power import averaged, mixed, noisy, tilted
from otus.training.cuts import Batch

#: Largest width of a mask: share of the cut's frames, and of the bands.
_MASK_SHARE = 0.06


@dataclass(frozen=True)
class Domain:
    """What the numbers of a network's input mean.

    A step of one is a step of `nepers_per_unit` in ln power. Values lie in [`low`, `high`]; `outside` is what the
    network sees where nothing is. `centres_hz` are the centre frequencies of the bands. `relative`: power is in units
    of the recording's own band medians, so that steady noise is always at 0, however loud it is.
    """

    nepers_per_unit: float
    low: float
    high: float
    outside: float
    centres_hz: tuple[float, ...]
    relative: bool


def domain_of(frontend: Frontend) -> Domain:
    """Return what the input that `frontend` makes means."""
    edges = np.linspace(frontend.low_hz, frontend.high_hz, frontend.bands + 2)
    if frontend.scale == "mel":
        low, high = (math.log1p(hz / 700.0) for hz in (frontend.low_hz, frontend.high_hz))
        edges = 700.0 * np.expm1(np.linspace(low, high, frontend.bands + 2))
    centres_hz = tuple(edges[1:-1].tolist())
    if frontend.kind == "fbank":
        return Domain(FBANK_SPREAD, FBANK_SILENCE, math.inf, frontend.outside, centres_hz, relative=False)
    return Domain(1.0, *INPUT_RANGE, frontend.outside, centres_hz, relative=True)


@dataclass(frozen=True)
class _Draws:
    """Random numbers, one for every cut, from a generator on the CPU: a GPU gets the same ones."""

    generator: torch.Generator
    n: int
    device: torch.device

    def between(self, low: float, high: float) -> torch.Tensor:
        return (low + (high - low) * torch.rand(self.n, generator=self.generator)).to(self.device)

    def factor(self, most: float) -> torch.Tensor:
        """Log-uniform in [1 / most, most]."""
        return self.between(-math.log(most), math.log(most)).exp()

    def whole(self, most: int) -> torch.Tensor:
        """Whole numbers from -most to most."""
        return torch.randint(-most, most + 1, (self.n,), generator=self.generator).to(self.device)

    def chosen(self, probability: float) -> torch.Tensor:
        return self.between(0.0, 1.0) < probability

    def partner(self) -> torch.Tensor:
        """Another cut for every cut, each once; some get themselves."""
        return torch.randperm(self.n, generator=self.generator).to(self.device)

    def partner_of(self, allowed: torch.Tensor) -> torch.Tensor:
        """One of the cuts that are allowed, (cuts, cuts), for every cut; any if none is."""
        rank = torch.rand(self.n, self.n, generator=self.generator).to(self.device)
        return torch.where(allowed, rank, -1.0).argmax(dim=1)


def augment(batch: Batch, settings: AugmentationSettings, generator: torch.Generator, domain: Domain) -> Batch:
    """Return the batch, on its device, with augmentation drawn from `generator` (on the CPU).

    A kind that is switched off draws nothing, so that it makes no difference to the others. Time and frequency change
    first, so that cuts which are then mixed with one another have changed differently. The inputs stay as they are.
    """
    draws = _Draws(generator, len(batch), batch.features.device)
    varied = _in_place_and_time(batch, settings, draws, domain)
    varied = _with_others(varied, settings, draws, domain)
    return varied.having({"features": _alone(varied.features, settings, draws, domain)})


def _in_place_and_time(batch: Batch, settings: AugmentationSettings, draws: _Draws, domain: Domain) -> Batch:
    """Every cut stretched in time, scaled in frequency and rotated."""
    if settings.stretch_time > 1:
        batch = stretched_in_time(batch, draws.factor(settings.stretch_time), domain.outside)
    if settings.stretch_pitch > 1:
        centres = torch.tensor(domain.centres_hz, device=draws.device)
        factor = draws.factor(settings.stretch_pitch)
        batch = batch.having({"features": scaled_in_pitch(batch.features, factor, centres, domain.outside)})
    if settings.shift_time:
        share = draws.between(-settings.shift_time, settings.shift_time)
        batch = rotated(batch, (share * batch.activity.shape[-1]).round().long())
    return batch


def _with_others(batch: Batch, settings: AugmentationSettings, draws: _Draws, domain: Domain) -> Batch:
    """Noise, other cuts and mixup: in this order, as noise clips have to be free of the calls of other cuts."""
    if settings.noise_probability:
        snr_db = draws.between(settings.noise_low_db, settings.noise_high_db)
        chosen = draws.chosen(settings.noise_probability)
        others = ~torch.eye(draws.n, dtype=torch.bool, device=draws.device)
        allowed = (batch.noise > 0) & others
        partner, chosen = draws.partner_of(allowed), chosen & allowed.any(dim=1)
        batch = noisy(batch, partner, chosen, snr_db, domain.nepers_per_unit, relative=domain.relative)
    if settings.mix_probability:
        partner, level_db = draws.partner(), draws.between(settings.mix_low_db, settings.mix_high_db)
        batch = mixed(batch, partner, draws.chosen(settings.mix_probability), level_db, domain.nepers_per_unit)
    if settings.mixup_probability:
        # The squared sine of a uniform angle follows Beta(0.5, 0.5); Zhang et al. (2018) have Beta(0.4, 0.4).
        partner, weight = draws.partner(), (draws.between(0.0, 1.0) * (math.pi / 2)).sin().square()
        batch = averaged(batch, partner, draws.chosen(settings.mixup_probability), weight)
    return batch


def _alone(x: torch.Tensor, settings: AugmentationSettings, draws: _Draws, domain: Domain) -> torch.Tensor:
    """Bands shifted, level and slope changed, small masks put on, and values kept in their range."""
    if settings.shift_bands:
        x = shifted_in_bands(x, draws.whole(settings.shift_bands))
    if settings.gain_db or settings.tilt_db:
        gain_db, tilt_db = (
            draws.between(-most, most) if most else torch.zeros(draws.n, device=draws.device)
            for most in (settings.gain_db, settings.tilt_db)
        )
        x = tilted(x, gain_db, tilt_db, domain.nepers_per_unit)
    for dim in (2, 1):
        for _ in range(settings.masks):
            width = draws.between(0.0, _MASK_SHARE * x.shape[dim])
            middle = draws.between(0.0, float(x.shape[dim]))
            x = masked(x, middle - width / 2, width, dim, domain.outside)
    return x.clamp(domain.low, domain.high)
