"""The shape of the score curve under every selection and around it, computed where the frame scores are at hand."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.selections import NO_WINDOW, Segments

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: The neighbourhood on either side of a selection is as long as the selection, and no longer than this.
_LONGEST_SIDE_S = 1.0


@dataclass(frozen=True)
class _Stretches:
    """The scored frames of all segments one after the other; `owner` is the segment of each, `frame` its number."""

    owner: Indices
    frame: Indices
    n_segments: int

    def mean(self, values: Reals) -> Reals:
        """Mean of the values over each segment; NaN without values."""
        return _ratio(self._sums(values), self._sums(np.ones(len(values))))

    def _sums(self, values: Reals) -> Reals:
        return np.asarray(np.bincount(self.owner, weights=values, minlength=self.n_segments), dtype=np.float64)

    def highest(self, values: Reals) -> Reals:
        """Largest of the values over each segment; NaN without values."""
        found = np.full(self.n_segments, np.nan)
        if len(values):
            heads = np.flatnonzero(np.diff(self.owner, prepend=-1))
            found[self.owner[heads]] = np.maximum.reduceat(values, heads)
        return found

    def first_frame_of(self, is_sought: Flags) -> Reals:
        """The first frame of each segment for which this holds; NaN without one."""
        found = np.full(self.n_segments, np.nan)
        owners, places = np.unique(self.owner[is_sought], return_index=True)
        found[owners] = self.frame[is_sought][places]
        return found


def score_shapes(
    activity: NDArray[np.floating], onset: NDArray[np.floating], frame_s: float, segments: Segments
) -> dict[str, Reals]:
    """Return the columns of table score_shapes but selection_id, one value per segment of one recording and label.

    `activity` and `onset` are the frame logits that the segments were decoded from (one value per frame of `frame_s`
    seconds). Frames that no window belongs to, or without a finite logit, are not looked at.

    - peak_position: where the highest frame lies, from 0 (start) to 1 (end); its middle, the first of equals.
    - mean_logit, std_logit: of the frames inside; std with ddof 0, so that one frame has 0.
    - rise_per_s, fall_per_s: logits per second from the first frame up to the highest, and from there down to the
      last; both at least 0; NaN if the highest frame is that first or last one.
    - before_logit, after_logit: mean over as long a stretch as the selection, at most 1 s, before and after it, or
      what the recording has of it; NaN at the very edge.
    - contrast_logit: mean_logit less the mean of before_logit and after_logit, or less the one that there is.
    - share_above_half: share of the frames inside with a probability above 0.5.
    - onset_logit: the highest onset inside.

    All are NaN where there is nothing to make them of, and never infinite.
    """
    raw, onsets = (np.asarray(values, dtype=np.float64) for values in (activity, onset))
    heard = np.isfinite(raw) & (raw > NO_WINDOW)
    starts, ends = _frames(segments, frame_s, len(raw))
    inside = _stretches(starts, ends, heard)
    logits = raw[inside.frame]
    mean, peak = inside.mean(logits), inside.highest(logits)
    peak_frame = inside.first_frame_of(logits == peak[inside.owner])
    before, after = _sides(raw, heard, starts, ends, max(1, round(_LONGEST_SIDE_S / frame_s)))
    struck = _stretches(starts, ends, np.isfinite(onsets))
    return {
        "peak_position": (peak_frame + 0.5 - starts) / np.maximum(ends - starts, 1),
        "mean_logit": mean,
        "std_logit": np.sqrt(inside.mean((logits - mean[inside.owner]) ** 2)),
        "rise_per_s": _slope(peak, peak_frame, _at(raw, heard, starts), starts, frame_s),
        "fall_per_s": _slope(peak, peak_frame, _at(raw, heard, ends - 1), ends - 1, frame_s),
        "before_logit": before,
        "after_logit": after,
        "contrast_logit": mean
        - np.where(np.isnan(before), after, np.where(np.isnan(after), before, (before + after) / 2)),
        "share_above_half": inside.mean((logits > 0).astype(np.float64)),
        "onset_logit": struck.highest(onsets[struck.frame]),
    }


def _frames(segments: Segments, frame_s: float, n_frames: int) -> tuple[Indices, Indices]:
    """First frame and one past the last frame of every segment; one frame at least, where the recording has any."""
    starts = np.clip(np.rint(segments.start_s / frame_s).astype(np.int64), 0, max(n_frames - 1, 0))
    ends = np.rint(segments.end_s / frame_s).astype(np.int64)
    return starts, np.clip(ends, np.minimum(starts + 1, n_frames), n_frames)


def _stretches(starts: Indices, ends: Indices, usable: Flags) -> _Stretches:
    lengths = ends - starts
    owner = np.repeat(np.arange(len(starts)), lengths)
    frame = np.arange(int(lengths.sum())) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    keep = usable[frame]
    return _Stretches(owner[keep], frame[keep], len(starts))


def _sides(raw: Reals, heard: Flags, starts: Indices, ends: Indices, longest: int) -> tuple[Reals, Reals]:
    """Mean logit before and after each segment."""
    reach = np.minimum(ends - starts, longest)
    total, count = (
        np.concatenate([[0.0], np.cumsum(values)]) for values in (np.where(heard, raw, 0.0), heard.astype(np.float64))
    )
    left, right = np.maximum(starts - reach, 0), np.minimum(ends + reach, len(raw))
    before = _ratio(total[starts] - total[left], count[starts] - count[left])
    after = _ratio(total[right] - total[ends], count[right] - count[ends])
    return before, after


def _slope(peak: Reals, peak_frame: Reals, edge: Reals, edge_frame: Indices, frame_s: float) -> Reals:
    return _ratio(peak - edge, np.abs(peak_frame - edge_frame) * frame_s)


def _at(raw: Reals, heard: Flags, frames: Indices) -> Reals:
    """The logits of these frames; NaN where there is none."""
    return np.where(heard[frames], raw[frames], np.nan) if len(raw) else np.full(len(frames), np.nan)


def _ratio(over: Reals, under: Reals) -> Reals:
    """The quotient; NaN where there is nothing to divide by."""
    quotient: Reals = np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)
    return quotient
