"""What augmentation does to the time and frequency of cuts. Factors and places come one per cut, shape (cuts,).

Features (cuts, bands, frames) may reach beyond the truth (cuts, classes, frames) by the same margin on either side.
"""

import torch

from otus.training.cuts import Batch


def stretched_in_time(batch: Batch, factor: torch.Tensor, outside: float) -> Batch:
    """Return the cuts with everything lasting `factor` times as long, around the middle of their calls.

    What lies beyond the cut's own sound is `outside` and does not count. Calls keep at least one frame, and onsets
    their width.
    """
    length = batch.activity.shape[-1]
    margin = (batch.features.shape[-1] - length) // 2
    anchor = _middle_of_calls(batch.activity)
    frame = torch.arange(-margin, batch.features.shape[-1] - margin, device=factor.device) + 0.5
    source = anchor.unsqueeze(1) + (frame - anchor.unsqueeze(1)) / factor.unsqueeze(1)  # frame i covers [i, i + 1)
    own = source[:, margin : margin + length]
    count = batch.valid.gather(1, own.long().clamp(0, length - 1))
    return batch.having(
        {
            "features": _resampled(batch.features, source - 0.5 + margin, 2, outside),
            "activity": _stretched_calls(batch.activity, anchor, factor),
            "onset": _moved_onsets(batch.onset, anchor, factor),
            "valid": torch.where((own >= 0) & (own < length), count, 0.0),
        }
    )


def _middle_of_calls(activity: torch.Tensor) -> torch.Tensor:
    """The mean place of the frames in calls, else the middle of the cut: what lies there stays in the cut."""
    length = activity.shape[-1]
    active = (activity.amax(dim=1) > 0).float()
    number = active.sum(dim=1)
    places = active @ (torch.arange(length, device=activity.device) + 0.5)
    return torch.where(number > 0, places / number.clamp(min=1), length / 2)


def _stretched_calls(activity: torch.Tensor, anchor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Activity with the edges of calls moved; a call that leaves the cut goes on outside."""
    length = activity.shape[-1]
    row, first, end = _runs(activity)
    cut = row // activity.shape[1]
    new_first = _moved(first, anchor[cut], factor[cut])
    new_end = torch.maximum(_moved(end, anchor[cut], factor[cut]), new_first + 1)
    new_first = torch.where(first == 0, 0, new_first)
    new_end = torch.where(end == length, length, new_end)
    return _of_runs(row, new_first, new_end, activity)


def _moved_onsets(onset: torch.Tensor, anchor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Onsets as wide as before, around the frame in which the call now starts."""
    row, first, end = _runs(onset)
    cut = row // onset.shape[1]
    before = (end - first - 1) // 2
    new_first = _moved(first + before, anchor[cut], factor[cut]) - before
    return _of_runs(row, new_first, new_first + end - first, onset)


def _moved(edge: torch.Tensor, anchor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The first frame whose centre lies behind the edge, once that has moved away from the anchor."""
    return torch.ceil(anchor + (edge - anchor) * factor - 0.5).long()


def _runs(truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stretches of true frames: row (cut and class, counted through), first frame, frame behind the last."""
    inside = torch.nn.functional.pad(truth.flatten(0, 1) > 0, (1, 1))
    edges = (inside[:, 1:] != inside[:, :-1]).nonzero()
    return edges[0::2, 0], edges[0::2, 1], edges[1::2, 1]


def _of_runs(row: torch.Tensor, first: torch.Tensor, end: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Truth shaped as `like` with these stretches of true frames, which may overlap and leave the cut."""
    length = like.shape[-1]
    steps = torch.zeros(like.shape[0] * like.shape[1], length + 1, dtype=torch.int32, device=like.device)
    for edge, step in ((first, 1), (end, -1)):
        one = torch.full_like(row, step, dtype=torch.int32)
        steps = steps.index_put((row, edge.clamp(0, length)), one, accumulate=True)
    return (steps.cumsum(dim=1)[:, :length] > 0).to(like.dtype).view_as(like)


def _resampled(x: torch.Tensor, position: torch.Tensor, dim: int, outside: float) -> torch.Tensor:
    """`x` along `dim` at positions (cuts, n), between whole indices by straight lines, `outside` beyond half an index.

    Every cut has its own positions.
    """
    length = x.shape[dim]
    at = position.clamp(0, length - 1).unsqueeze(3 - dim)
    left = at.floor()
    size = [x.shape[0], x.shape[1], x.shape[2]]
    size[dim] = position.shape[1]
    near = x.gather(dim, left.long().expand(size))
    far = x.gather(dim, (left.long() + 1).clamp(max=length - 1).expand(size))
    inside = (position >= -0.5) & (position < length - 0.5)
    return torch.where(inside.unsqueeze(3 - dim), torch.lerp(near, far, at - left), outside)


def scaled_in_pitch(x: torch.Tensor, factor: torch.Tensor, centres_hz: torch.Tensor, outside: float) -> torch.Tensor:
    """Return the features with all frequencies multiplied by `factor`; what comes from beyond the bands is `outside`.

    `centres_hz` (bands,) are the bands' centre frequencies, ascending, two at least.
    """
    source_hz = centres_hz / factor.unsqueeze(1)
    below = (torch.searchsorted(centres_hz, source_hz, right=True) - 1).clamp(0, len(centres_hz) - 2)
    share = (source_hz - centres_hz[below]) / (centres_hz[below + 1] - centres_hz[below])
    return _resampled(x, below + share, 1, outside)


def rotated(batch: Batch, by_frames: torch.Tensor) -> Batch:
    """Return the cuts with everything so many frames later; what leaves at one end comes in at the other.

    The margin stays where it is: the truth says nothing of what would come in from there.
    """
    margin = (batch.features.shape[-1] - batch.activity.shape[-1]) // 2
    before, own, after = batch.features.tensor_split((margin, batch.features.shape[-1] - margin), dim=-1)
    return batch.having(
        {
            "features": torch.cat([before, _rolled(own, by_frames), after], dim=-1),
            "activity": _rolled(batch.activity, by_frames),
            "onset": _rolled(batch.onset, by_frames),
            "valid": _rolled(batch.valid.unsqueeze(1), by_frames).squeeze(1),
        }
    )


def _rolled(x: torch.Tensor, by_frames: torch.Tensor) -> torch.Tensor:
    source = (torch.arange(x.shape[2], device=x.device) - by_frames.unsqueeze(1)).remainder(x.shape[2])
    return x.gather(2, source.unsqueeze(1).expand_as(x))


def shifted_in_bands(x: torch.Tensor, by_bands: torch.Tensor) -> torch.Tensor:
    """Return the features moved up by whole bands; the outermost band fills the gap."""
    source = (torch.arange(x.shape[1], device=x.device) - by_bands.unsqueeze(1)).clamp(0, x.shape[1] - 1)
    return x.gather(1, source.unsqueeze(2).expand_as(x))


def masked(x: torch.Tensor, start: torch.Tensor, width: torch.Tensor, dim: int, value: float) -> torch.Tensor:
    """Return the features with [start, start + width) along `dim`, in bands or frames, replaced by `value`."""
    position = torch.arange(x.shape[dim], device=x.device)
    inside = (position >= start.unsqueeze(1)) & (position < (start + width).unsqueeze(1))
    return x.masked_fill(inside.unsqueeze(3 - dim), value)
