"""From frame scores to selections. The same code serves evaluation, batch detection and streams.

A selection lasts while the smoothed score stays above an off-threshold (hysteresis: its peak must reach the
on-threshold as well), short gaps are closed, an onset peak inside a running selection starts a new one, and what
is too short is dropped. None of these steps but the last comparison depends on the on-threshold, so one decoding
gives the selections of every on-threshold: those whose `peak_score` reaches it.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from otus.config import DecodingSettings

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DecodingPoint:
    """How scores become selections, apart from the on-threshold. Thresholds are probabilities in [0, 1]."""

    off_threshold: float
    onset_threshold: float
    gap_s: float
    smoothing_s: float
    min_duration_s: float

    def name(self) -> str:
        """Return a short name, e.g. `off0.3_ons0.3_gap0.15_smo0.06_min0.32`; unique up to four digits."""
        values = asdict(self).values()
        return "_".join(f"{k}{v:.4g}" for k, v in zip(("off", "ons", "gap", "smo", "min"), values, strict=True))


@dataclass(frozen=True)
class Segments:
    """Selections of one label in one recording, in time order. Scores are logits: mean and peak over the frames."""

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
    smoothed = smooth(np.asarray(activity, dtype=np.float64), round(point.smoothing_s / frame_s))
    starts, ends = _runs(smoothed >= logit(point.off_threshold))
    peaks = _onset_peaks(np.asarray(onset, dtype=np.float64), logit(point.onset_threshold))
    starts, ends = _close_gaps(starts, ends, peaks, round(point.gap_s / frame_s))
    starts, ends = _split_at(starts, ends, peaks, max(1, math.ceil(point.min_duration_s / frame_s - 1e-9)))
    long_enough = (ends - starts) * frame_s >= point.min_duration_s - 1e-9
    starts, ends = starts[long_enough], ends[long_enough]
    if len(starts) == 0:
        none = np.zeros(0)
        return Segments(none, none, none, none)
    total = np.concatenate([[0.0], np.cumsum(np.asarray(activity, dtype=np.float64))])
    borders = np.stack([starts, ends], axis=1).ravel()
    padded = np.append(smoothed, -np.inf)  # reduceat needs every border inside the array
    return Segments(
        start_s=np.asarray(starts * frame_s),
        end_s=np.asarray(ends * frame_s),
        score=(total[ends] - total[starts]) / (ends - starts),
        peak_score=np.maximum.reduceat(padded, borders)[::2],
    )


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


def decoding_grid(settings: DecodingSettings, *, median_call_s: float, short_call_s: float) -> list[DecodingPoint]:
    """Return every decoding point of the grid; durations scale with the calls that the network was trained on.

    `short_call_s` is the 5 % quantile of their durations.
    """
    return [
        DecodingPoint(
            off_threshold=off,
            onset_threshold=onset,
            gap_s=gap * median_call_s,
            smoothing_s=settings.smoothing * median_call_s,
            min_duration_s=settings.min_duration * short_call_s,
        )
        for off in settings.off_thresholds
        for onset in settings.onset_thresholds
        for gap in settings.gaps
    ]
