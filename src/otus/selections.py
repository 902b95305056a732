"""From frame scores to selections. The same code serves evaluation, batch detection and streams.

A selection lasts while the smoothed score stays above an off-threshold (hysteresis: its peak must reach the
on-threshold as well), short gaps are closed, an onset peak inside a running selection starts a new one, and what
is too short is dropped. None of these steps but the last comparison depends on the on-threshold, so one decoding
gives the selections of every on-threshold: those whose `peak_score` reaches it.

Two older ways have one threshold only, and every threshold needs a decoding of its own: `threshold` (on and off are
the same) and `union` (each score stands for a window; the windows above the threshold are joined where they touch).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from otus.config import DecodingSettings

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: The logit of a frame that no window belongs to (at the edges of a recording).
NO_WINDOW = -30.0

#: Probabilities are kept this far from 0 and 1 in the mean over windows, so that no single window outweighs the rest.
_CLAMP = 1e-6


@dataclass(frozen=True)
class DecodingPoint:
    """How scores become selections, apart from the on-threshold. Thresholds are probabilities in [0, 1].

    In `union`, the score of frame f belongs to a window of `window_frames` frames with its middle in f.
    """

    off_threshold: float
    onset_threshold: float
    gap_s: float
    smoothing_s: float
    min_duration_s: float
    merge: Literal["hysteresis", "threshold", "union"] = "hysteresis"
    window_frames: int = 1

    @property
    def has_one_threshold(self) -> bool:
        """Whether the on-threshold is the off-threshold, so that everything that is decoded is selected."""
        return self.merge != "hysteresis"

    def name(self) -> str:
        """Return a short name, e.g. `off0.3_ons0.3_gap0.15_smo0.06_min0.32`; unique up to four digits.

        The first word tells how frames become selections: `off` (hysteresis), `thr` (threshold) or `uni` (union).
        """
        first = {"hysteresis": "off", "threshold": "thr", "union": "uni"}[self.merge]
        values = (self.off_threshold, self.onset_threshold, self.gap_s, self.smoothing_s, self.min_duration_s)
        words = [f"{k}{v:.4g}" for k, v in zip((first, "ons", "gap", "smo", "min"), values, strict=True)]
        return "_".join([*words, f"win{self.window_frames}"] if self.merge == "union" else words)


@dataclass(frozen=True)
class Segments:
    """Selections of one label in one recording, in time order. Scores are logits: mean and peak over the frames.

    Of a union the mean is over all windows that overlap the selection, weighted by how much they do.
    """

    start_s: Reals
    end_s: Reals
    score: Reals
    peak_score: Reals

    def __len__(self) -> int:
        return len(self.start_s)

    def above(self, threshold: float) -> "Segments":
        """Return the segments whose peak reaches the on-threshold (a probability)."""
        keep = self.peak_score >= logit(threshold)
        return Segments(self.start_s[keep], self.end_s[keep], self.score[keep], self.peak_score[keep])


def logit(probability: float) -> float:
    """Return ln(p / (1 - p)); minus and plus infinity at 0 and 1."""
    if probability <= 0.0:
        return -math.inf
    return math.inf if probability >= 1.0 else math.log(probability / (1.0 - probability))


def smooth(scores: Reals, width: int) -> Reals:
    """Return the centred moving average over `width` frames (made odd); edges average over what is there."""
    half = width // 2
    if half == 0 or len(scores) == 0:
        return scores
    total = np.concatenate([[0.0], np.cumsum(scores)])
    first = np.maximum(np.arange(len(scores)) - half, 0)
    last = np.minimum(np.arange(len(scores)) + half + 1, len(scores))
    return np.asarray((total[last] - total[first]) / (last - first))


def decode(
    activity: NDArray[np.floating], onset: NDArray[np.floating], frame_s: float, point: DecodingPoint
) -> Segments:
    """Return the selections in the frame logits `activity` and `onset` (one value per frame of `frame_s` seconds).

    Frame i covers [i, i + 1) * frame_s. `point.onset_threshold` 1 ignores the onsets.
    """
    raw = np.asarray(activity, dtype=np.float64)
    smoothed = smooth(raw, round(point.smoothing_s / frame_s))
    active = smoothed >= logit(point.off_threshold)
    if point.merge == "union":
        active = _covered(active & (raw > NO_WINDOW), point.window_frames)
    starts, ends = _runs(active)
    peaks = _onset_peaks(np.asarray(onset, dtype=np.float64), logit(point.onset_threshold))
    starts, ends = _close_gaps(starts, ends, peaks, round(point.gap_s / frame_s))
    starts, ends = _split_at(starts, ends, peaks, max(1, math.ceil(point.min_duration_s / frame_s - 1e-9)))
    long_enough = (ends - starts) * frame_s >= point.min_duration_s - 1e-9
    starts, ends = starts[long_enough], ends[long_enough]
    if len(starts) == 0:
        none = np.zeros(0)
        return Segments(none, none, none, none)
    if point.merge == "union":
        score, peak = _window_scores(raw, smoothed, starts, ends, point.window_frames)
    else:
        total = np.concatenate([[0.0], np.cumsum(raw)])
        score, peak = (total[ends] - total[starts]) / (ends - starts), _peaks(smoothed, starts, ends)
    return Segments(np.asarray(starts * frame_s), np.asarray(ends * frame_s), score, peak)


def _peaks(scores: Reals, starts: Indices, ends: Indices) -> Reals:
    """The largest score in [start, end) of each stretch; none is empty."""
    borders = np.stack([starts, ends], axis=1).ravel()
    padded = np.append(scores, -np.inf)  # reduceat needs every border inside the array
    return np.asarray(np.maximum.reduceat(padded, borders)[::2])


def _covered(active: NDArray[np.bool_], window: int) -> NDArray[np.bool_]:
    """Whether each frame lies in the window of an active frame; windows end where the recording does."""
    first = np.flatnonzero(active) - window // 2
    painted = np.zeros(len(active) + 1, dtype=np.int64)
    np.add.at(painted, np.maximum(first, 0), 1)
    np.add.at(painted, np.minimum(first + window, len(active)), -1)
    return np.cumsum(painted[:-1]) > 0


def _window_scores(raw: Reals, smoothed: Reals, starts: Indices, ends: Indices, window: int) -> tuple[Reals, Reals]:
    """Mean logit over the windows that overlap each stretch, weighted by their overlap, and the highest of them."""
    there = raw > NO_WINDOW
    limit = logit(1.0 - _CLAMP)
    logits = np.where(there, np.clip(raw, -limit, limit), 0.0)
    frame = np.arange(len(raw))
    ahead = window // 2  # a window begins so many frames before its own; frame t lies in those of first to last - 1
    first, last = np.maximum(frame + ahead - window + 1, 0), np.minimum(frame + ahead + 1, len(raw))
    sums = []
    for values in (logits, there.astype(np.float64)):
        total = np.concatenate([[0.0], np.cumsum(values)])
        over_windows = np.concatenate([[0.0], np.cumsum(total[last] - total[first])])
        sums.append(over_windows[ends] - over_windows[starts])
    overlapping = first[starts], last[ends - 1]
    return sums[0] / sums[1], _peaks(np.where(there, smoothed, -np.inf), *overlapping)


def _runs(active: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """First frame and one past the last frame of every run of True."""
    edges = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def _onset_peaks(onset: Reals, threshold: float) -> Indices:
    """Frames where the onset score has a local maximum of at least `threshold`; the first of equal neighbours."""
    if len(onset) == 0 or (math.isinf(threshold) and threshold > 0):
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.concatenate([[True], np.diff(onset) != 0]))  # a level stretch counts as one frame
    level = np.concatenate([[-np.inf], onset[first], [-np.inf]])
    here = level[1:-1]
    return first[(here >= threshold) & (here > level[:-2]) & (here > level[2:])]


def _close_gaps(starts: Indices, ends: Indices, peaks: Indices, gap: int) -> tuple[Indices, Indices]:
    """Join runs that are at most `gap` frames apart, unless an onset peak lies between them."""
    if len(starts) < 2 or gap < 1:
        return starts, ends
    peaks_between = np.searchsorted(peaks, starts[1:], side="right") - np.searchsorted(peaks, ends[:-1], side="left")
    apart = (starts[1:] - ends[:-1] > gap) | (peaks_between > 0)
    return starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]


def _split_at(starts: Indices, ends: Indices, peaks: Indices, shortest: int) -> tuple[Indices, Indices]:
    """Start a new run at every onset peak that leaves at least `shortest` frames on both sides."""
    out_starts, out_ends = [], []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        first, last = np.searchsorted(peaks, [start + shortest, end - shortest + 1])
        here = start
        for peak in peaks[first:last].tolist():
            if peak - here >= shortest:
                out_starts.append(here)
                out_ends.append(peak)
                here = peak
        out_starts.append(here)
        out_ends.append(end)
    return np.asarray(out_starts, dtype=np.int64), np.asarray(out_ends, dtype=np.int64)


def decoding_grid(
    settings: DecodingSettings, *, median_call_s: float, short_call_s: float, window_frames: int = 1
) -> list[DecodingPoint]:
    """Return every decoding point of the grid; durations scale with the calls that the network was trained on.

    `short_call_s` is the 5 % quantile of their durations. `window_frames` is the length of the window that each score
    of the network stands for; 1 for networks that score frames.
    """
    return [
        DecodingPoint(
            off_threshold=off,
            onset_threshold=onset,
            gap_s=gap * median_call_s,
            smoothing_s=settings.smoothing * median_call_s,
            min_duration_s=settings.min_duration * short_call_s,
            merge=settings.merge,
            window_frames=window_frames if settings.merge == "union" else 1,
        )
        for off in settings.off_thresholds
        for onset in settings.onset_thresholds
        for gap in settings.gaps
    ]
