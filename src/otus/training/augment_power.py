"""What augmentation does to the power of cuts: other sounds mixed in, levels changed. One number per cut, (cuts,)."""

import math

import torch

from otus.training.cuts import Batch

_NEPERS_PER_DB = math.log(10.0) / 10.0


def mixed(
    batch: Batch, partner: torch.Tensor, chosen: torch.Tensor, level_db: torch.Tensor, nepers_per_unit: float
) -> Batch:
    """Return the batch with the power of cut `partner`, `level_db` louder, added to cuts that are `chosen`.

    Calls of both count, and only frames that count in both.
    """
    both = _sum(batch.features, partner, level_db * _NEPERS_PER_DB, nepers_per_unit)
    return _joined(batch, partner, chosen, both)


def noisy(
    batch: Batch,
    partner: torch.Tensor,
    chosen: torch.Tensor,
    snr_db: torch.Tensor,
    nepers_per_unit: float,
    *,
    relative: bool,
) -> Batch:
    """Return the batch with cut `partner`, as noise, added to cuts that are `chosen`, at a signal-to-noise ratio.

    The ratio is that of mean powers (over bands and frames that count): of the calls of a cut, or of all of it if it
    has none, to all of the noise. `relative`: the input is in units of the median power, and noise raises that.
    """
    counted = torch.where(batch.valid.any(dim=1, keepdim=True), batch.valid, 1.0)
    calls = batch.activity.amax(dim=1) * counted
    calls = torch.where(calls.any(dim=1, keepdim=True), calls, counted)
    margin = (batch.features.shape[-1] - batch.activity.shape[-1]) // 2
    own = batch.features[..., margin : margin + batch.activity.shape[-1]]
    power = (own * nepers_per_unit).exp().mean(dim=1)
    signal, noise = ((power * frames).sum(dim=1) / frames.sum(dim=1) for frames in (calls, counted))
    level = signal.log() - noise[partner].log() - snr_db * _NEPERS_PER_DB
    both = _sum(batch.features, partner, level, nepers_per_unit)
    if relative:
        both = both - _column(torch.nn.functional.softplus(level))  # ln(1 + e^level): the new median, if both were 1
    return _joined(batch, partner, chosen, both)


def _sum(x: torch.Tensor, partner: torch.Tensor, level: torch.Tensor, nepers_per_unit: float) -> torch.Tensor:
    """Every cut plus its partner, `level` nepers louder."""
    nepers = x * nepers_per_unit
    return torch.logaddexp(nepers, nepers[partner] + _column(level)) / nepers_per_unit


def _joined(batch: Batch, partner: torch.Tensor, chosen: torch.Tensor, features: torch.Tensor) -> Batch:
    """Where `chosen`, these features with the calls of both cuts and the frames that count in both."""
    of_both = {
        "features": features,
        "activity": torch.maximum(batch.activity, batch.activity[partner]),
        "onset": torch.maximum(batch.onset, batch.onset[partner]),
        "valid": batch.valid * batch.valid[partner],
    }
    return _where(chosen, batch, of_both)


def averaged(batch: Batch, partner: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor) -> Batch:
    """Return the batch with `chosen` cuts and their truths averaged with those of cut `partner` (mixup).

    A cut itself has that `weight`. Only frames that count in both do afterwards.
    """
    averages = {
        name: torch.lerp(value[partner], value, _column(weight))
        for name, value in batch.tensors().items()
        if name in ("features", "activity", "onset")
    }
    return _where(chosen, batch, averages | {"valid": batch.valid * batch.valid[partner]})


def _where(chosen: torch.Tensor, batch: Batch, tensors: dict[str, torch.Tensor]) -> Batch:
    """The batch with these tensors for the cuts that are chosen."""
    before = batch.tensors()
    return batch.having(
        {
            name: torch.where(_column(chosen) if value.dim() == 3 else chosen.unsqueeze(1), value, before[name])
            for name, value in tensors.items()
        }
    )


def tilted(x: torch.Tensor, gain_db: torch.Tensor, tilt_db: torch.Tensor, nepers_per_unit: float) -> torch.Tensor:
    """Return the features `gain_db` louder, and `tilt_db` more so in the highest band than in the lowest."""
    across = torch.linspace(-0.5, 0.5, x.shape[1], device=x.device).view(1, -1, 1)
    return x + (_column(gain_db) + _column(tilt_db) * across) * (_NEPERS_PER_DB / nepers_per_unit)


def _column(values: torch.Tensor) -> torch.Tensor:
    """One value per cut, shaped for (cuts, bands, frames)."""
    return values.view(-1, 1, 1)
