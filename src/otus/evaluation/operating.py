"""The choice of an operating point: decoding and on-threshold, from validation recordings alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.errors import StageError
from otus.matching import Intervals
from otus.metrics import Curve, average_precision, curve
from otus.selections import DecodingPoint, decode, logit
from otus.sides import EVERYWHERE, NOWHERE, Spans, judge_on_side

#: Thresholds whose F1 is no further from the best than two calls are worth belong to its plateau, within limits.
_PLATEAU_CALLS = 2
_PLATEAU_F1 = (0.01, 0.05)


@dataclass(frozen=True)
class ScoredRecording:
    """Frame logits of one label in one recording, its annotated calls of that label, and the model's grid.

    Durations in the grid scale with the training calls of the model, so grids differ slightly from fold to fold.
    Selections count if their midpoint lies in `side`; no hit that lies in `unknown` is a false alarm.
    """

    activity: NDArray[np.float32]
    onset: NDArray[np.float32]
    frame_hop_s: float
    grid: Sequence[DecodingPoint]
    calls: Intervals
    side: Spans = EVERYWHERE
    unknown: Spans = NOWHERE


@dataclass(frozen=True)
class OperatingPoint:
    """Which decoding of the grid, the on-threshold (a probability), and what they reached on validation."""

    decoding: int
    threshold: float
    val_f1: float
    val_average_precision: float
    n_calls: int


def choose_operating_point(recordings: Sequence[ScoredRecording], *, iou: float) -> OperatingPoint:
    """Return the decoding of the grid, and its threshold, that detects the calls of `recordings` best.

    A decoding is judged by the mean of its best F1 and its average precision, which depends less on single calls
    than F1 alone; what is better by less than half a call is worth is a draw, and draws go to the earlier point of
    the grid. The threshold is the middle (in logits) of the plateau of the F1 curve around its maximum, so that it
    does not sit on the edge of one validation call.
    Without a call, or without a detection, there is nothing to choose by: the first decoding and 0.5.

    Raises StageError if there is no recording.
    """
    if not recordings:
        raise StageError("evaluate: no validation recording was scored; see the failed items of predict.")
    best: OperatingPoint | None = None
    total = sum(len(r.calls) for r in recordings)
    if total == 0:
        return OperatingPoint(0, 0.5, 0.0, 0.0, 0)
    for number, point in enumerate(recordings[0].grid):
        points, n_calls = _val_curve(recordings, number, iou)
        f1 = points.f1(n_calls)
        if len(f1) == 0:
            continue
        found = OperatingPoint(
            decoding=number,
            threshold=_plateau_middle(
                points,
                f1,
                lowest=max(logit(point.off_threshold), -20.0),
                tolerance=float(np.clip(_PLATEAU_CALLS / n_calls, *_PLATEAU_F1)),
            ),
            val_f1=float(f1.max()),
            val_average_precision=average_precision(points, n_calls),
            n_calls=n_calls,
        )
        if best is None or _quality(found) > _quality(best) + 1.0 / n_calls:
            best = found
    if best is None:
        return OperatingPoint(0, 0.5, 0.0, 0.0, total)
    return best


def _quality(point: OperatingPoint) -> float:
    return point.val_f1 + point.val_average_precision


def _val_curve(recordings: Sequence[ScoredRecording], number: int, iou: float) -> tuple[Curve, int]:
    peaks, hits = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for recording in recordings:
        found = decode(recording.activity, recording.onset, recording.frame_hop_s, recording.grid[number])
        peak, is_hit = judge_on_side(found, recording.calls, recording.side, recording.unknown, iou)
        peaks.append(peak)
        hits.append(is_hit)
    return curve(np.concatenate(peaks), np.concatenate(hits)), sum(len(r.calls) for r in recordings)


def _plateau_middle(points: Curve, f1: NDArray[np.float64], *, lowest: float, tolerance: float) -> float:
    """The probability in the middle of the stretch of thresholds around the best F1 that do as well."""
    best = int(np.argmax(f1))
    good = f1 >= f1[best] - tolerance
    first, last = best, best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(f1) and good[last + 1]:
        last += 1
    top = points.threshold[first]
    bottom = points.threshold[last + 1] if last + 1 < len(f1) else min(lowest, points.threshold[last])
    middle = (top + bottom) / 2
    return min(float(1.0 / (1.0 + np.exp(-middle))), float(np.nextafter(1.0, 0.0)))  # at 1 nothing would be selected
