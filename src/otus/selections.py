"""From frame scores to selections. The same code serves evaluation, batch detection and streams.

A selection lasts while the smoothed score stays above an off-threshold (hysteresis: its peak must reach the
on-threshold as well), short gaps are closed, an onset peak inside a running selection starts a new one, and what
is too short or too long is dropped. None of these steps but the last comparison depends on the on-threshold, so one
decoding gives the selections of every on-threshold: those whose `peak_score` reaches it.

Two older ways have one threshold only, and every threshold needs a decoding of its own: `threshold` (on and off are
the same) and `union` (each score stands for a window; the windows above the threshold are joined where they touch).

Scores are those of frames, or of windows: a window's score is the mean logit of its frames. The frames around its
middle, one hop of them, have that score, except in `union`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.config import Decoding, DecodingSettings
from otus.config.evaluation import Merge, Smoothing
from otus.errors import DataError
from otus.smoothing import smooth

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: The logit of a frame that no window belongs to (at the edges of a recording).
NO_WINDOW = -30.0

#: Probabilities are kept this far from 0 and 1 in the mean over windows, so that no single window outweighs the rest.
_CLAMP = 1e-6

#: Logits are cut here, so that sums over a recording stay finite; far beyond what a network says.
_FARTHEST = 1e4


@dataclass(frozen=True)
class DecodingPoint:
    """How scores become selections, apart from the on-threshold. Thresholds are probabilities in [0, 1].

    `window_s` and `hop_s` make windows of the frames; None: the scores as they are, and a window at every frame. In
    `union`, the score of frame f belongs to a window of `window_frames` frames with its middle in f: the windows of
    networks that score windows. The gap, the smoothing and the longest duration were given in units of
    `median_call_s`, the shortest duration in units of `short_call_s`.
    """

    off_threshold: float
    onset_threshold: float
    gap_s: float
    smoothing_s: float
    min_duration_s: float
    merge: Merge = "hysteresis"
    window_frames: int = 1
    smoothing_by: Smoothing = "mean"
    max_duration_s: float | None = None
    window_s: float | None = None
    hop_s: float | None = None
    median_call_s: float = 1.0
    short_call_s: float = 1.0

    @property
    def has_one_threshold(self) -> bool:
        """Whether the on-threshold is the off-threshold, so that everything that is decoded is selected."""
        return self.merge != "hysteresis"

    def name(self) -> str:
        """Return a short name, e.g. `off0.3_ons0.3_gap0.15_smo0.06_min0.32`; unique up to four digits.

        The first word tells how frames become selections: `off` (hysteresis), `thr` (threshold) or `uni` (union);
        the fourth how scores are smoothed: `smo` (mean), `med` or `ema`. Durations are in seconds.
        """
        own_windows = [f"win{self.window_frames}"] if self.merge == "union" and self.window_s is None else []
        durations = self.gap_s, self.smoothing_s, self.min_duration_s, self.max_duration_s
        return "_".join([*self._words(*durations), *own_windows])

    def name_in_calls(self) -> str:
        """Return such a name with the durations as the config has them, which is the same for every fold."""
        units = self.in_calls()
        return "_".join(self._words(units.gap, units.smoothing, units.min_duration, units.max_duration))

    def in_calls(self) -> Decoding:
        """Return the point in the units of the config."""

        def of(duration_s: float, call_s: float) -> float:
            return round(duration_s / call_s, 9)

        return Decoding(
            merge=self.merge,
            window_s=self.window_s,
            hop_s=self.hop_s,
            off_threshold=self.off_threshold,
            onset_threshold=self.onset_threshold,
            smoothing_by=self.smoothing_by,
            smoothing=of(self.smoothing_s, self.median_call_s),
            gap=of(self.gap_s, self.median_call_s),
            min_duration=of(self.min_duration_s, self.short_call_s),
            max_duration=None if self.max_duration_s is None else of(self.max_duration_s, self.median_call_s),
        )

    def _words(self, gap: float, smoothing: float, shortest: float, longest: float | None) -> list[str]:
        first = {"hysteresis": "off", "threshold": "thr", "union": "uni"}[self.merge]
        by = {"mean": "smo", "median": "med", "ema": "ema"}[self.smoothing_by]
        words = {first: self.off_threshold, "ons": self.onset_threshold, "gap": gap, by: smoothing, "min": shortest}
        windows = {"max": longest, "window": self.window_s, "hop": self.hop_s}
        return [f"{k}{v:.4g}" for k, v in (words | windows).items() if v is not None]


@dataclass(frozen=True)
class Segments:
    """Selections of one label in one recording, in time order. Scores are logits: mean and peak over the frames.

    Of a union the mean is over all windows that overlap the selection, weighted by how much they do. With windows the
    peak is the highest of theirs.
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


def decode(
    activity: NDArray[np.floating], onset: NDArray[np.floating], frame_s: float, point: DecodingPoint
) -> Segments:
    """Return the selections in the frame logits `activity` and `onset` (one value per frame of `frame_s` seconds).

    Frame i covers [i, i + 1) * frame_s. `point.onset_threshold` 1 ignores the onsets.
    """
    return decode_all(activity, onset, frame_s, [point])[0]


def decode_all(
    activity: NDArray[np.floating], onset: NDArray[np.floating], frame_s: float, points: Sequence[DecodingPoint]
) -> list[Segments]:
    """Return what `decode` would for each of the points; what several of them need is computed once."""
    raw = np.clip(np.asarray(activity, dtype=np.float64), -_FARTHEST, _FARTHEST)
    onsets = _OnsetPeaks.of(onset if any(point.onset_threshold < 1.0 for point in points) else onset[:0])
    total = np.concatenate([[0.0], np.cumsum(raw)])
    found: dict[int, Segments] = {}
    ways: dict[tuple[object, ...], list[int]] = {}
    for number, point in enumerate(points):
        way = (point.merge == "union", point.window_frames, point.window_s, point.hop_s)
        ways.setdefault((*way, point.smoothing_by, point.smoothing_s), []).append(number)
    for numbers in ways.values():
        curve = _score_curve(raw, total, frame_s, points[numbers[0]])
        found |= {number: _segments(curve, onsets, frame_s, points[number]) for number in numbers}
    return [found[number] for number in range(len(points))]


@dataclass(frozen=True)
class _OnsetPeaks:
    """Frames where the onset score has a local maximum, the first of equal neighbours, and how high it is."""

    frame: Indices
    height: Reals

    @classmethod
    def of(cls, onset: NDArray[np.floating]) -> "_OnsetPeaks":
        if len(onset) == 0:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0))
        # A level stretch counts as one frame.
        first = np.flatnonzero(np.concatenate([[True], onset[1:] != onset[:-1]]))
        level = np.asarray(onset[first], dtype=np.float64)
        rises = np.concatenate([[True], level[1:] > level[:-1]])
        falls = np.concatenate([level[1:] < level[:-1], [True]])
        here = rises & falls & (level > -np.inf)
        return cls(first[here], level[here])

    def above(self, threshold: float) -> Indices:
        """The frames of the peaks of at least this logit."""
        if math.isinf(threshold) and threshold > 0:
            return self.frame[:0]
        return self.frame[self.height >= threshold]


@dataclass(frozen=True)
class _ScoreCurve:
    """Scores one after the other: of frames, or of windows.

    The window of score i is [i * hop - ahead, i * hop - ahead + window) in frames, cut to the `n_frames` of the
    recording; it stands for the frames [i * hop + lead, (i + 1) * hop + lead), the first and the last also for what is
    before and behind. `smoothed` has one more value, -inf, and -inf for windows that are not there. The score of a
    selection is a mean, the difference of `total` (n_frames + 1,) at its end and its start by that of `weight`.
    """

    smoothed: Reals
    total: Reals
    weight: Reals
    n_frames: int
    window: int
    hop: int
    ahead: int
    lead: int
    is_union: bool


def _score_curve(raw: Reals, total: Reals, frame_s: float, point: DecodingPoint) -> _ScoreCurve:
    """The scores that a point decodes; `total` are the sums of the logits `raw` up to each frame."""
    n, is_union = len(raw), point.merge == "union"
    weight = np.arange(n + 1, dtype=np.float64)
    window, hop = point.window_frames, 1
    ahead, lead, score = window // 2 if is_union else 0, 0, raw
    if point.window_s is not None and n:
        window = max(1, round(point.window_s / frame_s))
        hop = 1 if point.hop_s is None else max(1, round(point.hop_s / frame_s))
        number = np.arange(max(1, (n - window) // hop + 1)) * hop
        if point.window_frames > 1:  # the scores are those of windows already
            ahead, score = 0, raw[np.minimum(number + window // 2, n - 1)]
        else:
            end = np.minimum(number + window, n)
            ahead, score = 0, (total[end] - total[number]) / (end - number)
        lead = window // 2 - hop // 2
    smoothed = np.append(smooth(score, round(point.smoothing_s / (hop * frame_s)), point.smoothing_by), -np.inf)
    if is_union:
        there = score > NO_WINDOW
        smoothed[:-1][~there] = -np.inf
        total, weight = _window_totals(score, there, n, window, hop, ahead)
    return _ScoreCurve(smoothed, total, weight, n, window, hop, ahead, lead, is_union)


def _window_totals(
    score: Reals, there: NDArray[np.bool_], n: int, window: int, hop: int, ahead: int
) -> tuple[Reals, Reals]:
    """Sums over the frames up to each of the scores of the windows that hold a frame, and of the number of these."""
    limit = logit(1.0 - _CLAMP)
    start = np.flatnonzero(there) * hop - ahead
    first, last = np.maximum(start, 0), np.minimum(start + window, n)
    sums = []
    for values in (np.clip(score[there], -limit, limit), np.ones(len(first))):
        steps = np.bincount(first, values, n + 1) - np.bincount(last, values, n + 1)
        sums.append(np.concatenate([[0.0], np.cumsum(np.cumsum(steps[:-1]))]))
    return sums[0], sums[1]


def _segments(curve: _ScoreCurve, onsets: _OnsetPeaks, frame_s: float, point: DecodingPoint) -> Segments:
    """The selections of one point in its scores."""
    active = curve.smoothed[:-1] >= max(logit(point.off_threshold), -_FARTHEST)
    starts, ends = _windows_joined(curve, active) if curve.is_union else _stretches(curve, active)
    peaks = onsets.above(logit(point.onset_threshold))
    starts, ends = _close_gaps(starts, ends, peaks, round(point.gap_s / frame_s))
    starts, ends = _split_at(starts, ends, peaks, max(1, math.ceil(point.min_duration_s / frame_s - 1e-9)))
    kept = (ends - starts) * frame_s >= point.min_duration_s - 1e-9
    if point.max_duration_s is not None:
        kept &= (ends - starts) * frame_s <= point.max_duration_s + 1e-9
    starts, ends = starts[kept], ends[kept]
    if len(starts) == 0:
        none = np.zeros(0)
        return Segments(none, none, none, none)
    score = (curve.total[ends] - curve.total[starts]) / (curve.weight[ends] - curve.weight[starts])
    return Segments(np.asarray(starts * frame_s), np.asarray(ends * frame_s), score, _peaks(curve, starts, ends))


def _windows_joined(curve: _ScoreCurve, active: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """What the windows of active scores cover, as stretches of frames; windows that touch are joined."""
    start = np.flatnonzero(active) * curve.hop - curve.ahead
    first, last = np.maximum(start, 0), np.minimum(start + curve.window, curve.n_frames)
    begins = np.ones(len(first) + 1, dtype=bool)
    begins[1:-1] = first[1:] > last[:-1]
    return first[begins[:-1]], last[begins[1:]]


def _stretches(curve: _ScoreCurve, active: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """The frames that every run of active scores stands for."""
    padded = np.zeros(len(active) + 2, dtype=bool)
    padded[1:-1] = active
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    frames = edges * curve.hop + curve.lead
    frames[edges == 0] = 0
    frames[edges == len(active)] = curve.n_frames
    return frames[::2], frames[1::2]


def _peaks(curve: _ScoreCurve, starts: Indices, ends: Indices) -> Reals:
    """The highest score in each stretch (none is empty); of a union that of the windows that overlap it."""
    n = len(curve.smoothed) - 1
    if curve.is_union:
        ahead = curve.ahead - curve.window  # score i ends at i * hop - ahead, and begins at i * hop - curve.ahead
        first, last = (starts + ahead) // curve.hop + 1, -(-(ends + curve.ahead) // curve.hop)
    else:
        first, last = (starts - curve.lead) // curve.hop, -(-(ends - curve.lead) // curve.hop)
    borders = np.empty(2 * len(first), dtype=np.int64)
    borders[::2] = np.minimum(np.maximum(first, 0), n - 1)
    borders[1::2] = np.minimum(np.maximum(last, borders[::2] + 1), n)
    return np.asarray(np.maximum.reduceat(curve.smoothed, borders)[::2])


def _close_gaps(starts: Indices, ends: Indices, peaks: Indices, gap: int) -> tuple[Indices, Indices]:
    """Join runs that are at most `gap` frames apart, unless an onset peak lies between them."""
    if len(starts) < 2 or gap < 1:
        return starts, ends
    peaks_between = np.searchsorted(peaks, starts[1:], side="right") - np.searchsorted(peaks, ends[:-1], side="left")
    apart = (starts[1:] - ends[:-1] > gap) | (peaks_between > 0)
    return starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]


def _split_at(starts: Indices, ends: Indices, peaks: Indices, shortest: int) -> tuple[Indices, Indices]:
    """Start a new run at every onset peak that leaves at least `shortest` frames on both sides."""
    if len(peaks) == 0:
        return starts, ends
    here, last = np.searchsorted(peaks, starts + shortest), np.searchsorted(peaks, ends - shortest + 1)
    here, last = here[here < last], last[here < last]
    borders = [starts[:0]]
    while len(here):  # the next split of every run at once
        borders.append(peaks[here])
        here = np.searchsorted(peaks, peaks[here] + shortest)
        here, last = here[here < last], last[here < last]
    new = np.concatenate(borders)
    return np.sort(np.concatenate([starts, new])), np.sort(np.concatenate([new, ends]))


def decoding_grid(
    settings: DecodingSettings, *, median_call_s: float, short_call_s: float, window_frames: int = 1
) -> list[DecodingPoint]:
    """Return every decoding point of the grid; durations scale with the calls that the network was trained on.

    `short_call_s` is the 5 % quantile of their durations. `window_frames` is the length of the window that each score
    of the network stands for; 1 for networks that score frames.
    """
    return [
        DecodingPoint(
            off_threshold=one.off_threshold,
            onset_threshold=one.onset_threshold,
            gap_s=one.gap * median_call_s,
            smoothing_s=one.smoothing * median_call_s,
            min_duration_s=one.min_duration * short_call_s,
            merge=one.merge,
            window_frames=window_frames if one.merge == "union" else 1,
            smoothing_by=one.smoothing_by,
            max_duration_s=None if one.max_duration is None else one.max_duration * median_call_s,
            window_s=one.window_s,
            hop_s=one.hop_s,
            median_call_s=median_call_s,
            short_call_s=short_call_s,
        )
        for one in settings.combinations()
    ]


def check_windows(settings: DecodingSettings, frame_s: float, window_frames: int) -> None:
    """Raise DataError if windows of the grid cannot be made of a network's scores.

    A window or a hop must be a frame or more. A network that scores windows (of `window_frames` frames each) has those
    windows and no others, and in `union` only.
    """
    for one in settings.combinations():
        for key, value in {"windows_s": one.window_s, "hops_s": one.hop_s}.items():
            if value is not None and value < frame_s - 1e-9:
                raise DataError(
                    f"evaluation.decoding.{key}: {value:g} s is less than a frame of this network ({frame_s:g} s); "
                    "make it longer, or null."
                )
        if window_frames == 1 or one.window_s is None:
            continue
        if one.merge != "union":
            raise DataError(
                f"evaluation.decoding.windows_s: this network scores windows already; set it to null for {one.merge}."
            )
        if round(one.window_s / frame_s) != window_frames:
            raise DataError(
                f"evaluation.decoding.windows_s: this network scores windows of {window_frames * frame_s:g} s, not of "
                f"{one.window_s:g} s; set it to null."
            )
