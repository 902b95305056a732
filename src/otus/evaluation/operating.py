"""The choice of an operating point: decoding and on-threshold, from validation recordings alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from otus.errors import StageError
from otus.evaluation.scales import on_scale_of
from otus.evaluation.thresholds import ThresholdCurve
from otus.matching import Intervals
from otus.metrics import Curve, average_precision, curve
from otus.selections import DecodingPoint, decode, logit
from otus.sides import EVERYWHERE, NOWHERE, Spans, judge_on_side

#: Thresholds whose F1 is no further from the best than two calls are worth belong to its plateau, within limits.
_PLATEAU_CALLS = 2
_PLATEAU_F1 = (0.01, 0.05)

#: Thresholds of 0 and 1 lie here in logits where a middle is sought.
_FARTHEST = 20.0

#: At most so many thresholds of the validation curve are kept, besides the chosen one and the one with the best F1.
_CURVE_POINTS = 48


@dataclass(frozen=True)
class ScoredRecording:
    """Frame logits of one label in one recording, its annotated calls of that label, and the model's grid.

    Durations in the grid scale with the training calls of the model, so grids differ slightly from fold to fold.
    Selections count if their midpoint lies in `side`; no hit that lies in `unknown` is a false alarm. `network` is the
    fold whose network gave the logits.
    """

    activity: NDArray[np.float32]
    onset: NDArray[np.float32]
    frame_hop_s: float
    grid: Sequence[DecodingPoint]
    calls: Intervals
    side: Spans = EVERYWHERE
    unknown: Spans = NOWHERE
    network: int = 0


@dataclass(frozen=True)
class OperatingPoint:
    """Which decoding of the grid, the on-threshold (a probability), and what they reached on validation.

    `val_f1` is the best F1 of the curve, from whose plateau the threshold was taken.
    """

    decoding: int
    threshold: float
    val_f1: float
    val_average_precision: float
    n_calls: int
    curve: ThresholdCurve


def choose_operating_point(recordings: Sequence[ScoredRecording], *, iou: float, network: int = 0) -> OperatingPoint:
    """Return the decoding of the grid, and its threshold for the scores of `network`, that detects the calls best.

    What other networks gave is brought onto the scale of that network first (`on_scale_of`), except for decodings with
    one threshold: there it decides which frames belong to a selection.

    A decoding is judged by the mean of its best F1 and its average precision, which depends less on single calls
    than F1 alone; what is better by less than half a call is worth is a draw, and draws go to the earlier point of
    the grid. The threshold is the middle (in logits) of the plateau of the F1 curve around its maximum, so that it
    does not sit on the edge of one validation call. Decodings with one threshold that differ in nothing else count as
    one: their plateau is over the thresholds of the grid, and the one next to its middle is chosen.
    Without a call, or without a detection, there is nothing to choose by: the first decoding, and 0.5 or its own
    threshold.

    Raises StageError if there is no recording.
    """
    if not recordings:
        raise StageError("evaluate: no validation recording was scored; see the failed items of predict.")
    grid, n_calls = recordings[0].grid, sum(len(r.calls) for r in recordings)
    threshold = grid[0].off_threshold if grid[0].has_one_threshold else 0.5
    nothing = OperatingPoint(0, threshold, 0.0, 0.0, n_calls, ThresholdCurve())
    if n_calls == 0:
        return nothing
    best: OperatingPoint | None = None
    for numbers in _families(grid):
        if grid[numbers[0]].has_one_threshold:
            found = _best_of_grid(recordings, numbers, n_calls, iou)
        else:
            found = _best_on_threshold(recordings, numbers[0], n_calls, iou, network)
        if found is not None and (best is None or _quality(found) > _quality(best) + 1.0 / n_calls):
            best = found
    return best or nothing


def validation_hits(
    recordings: Sequence[ScoredRecording], decoding: int, *, iou: float, network: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return peak logit and hit of all selections that a decoding of the grid finds in `recordings` and that count.

    The peaks are on the scale of `network`, except for a decoding with one threshold.
    """
    peaks, hits, networks = [np.zeros(0)], [np.zeros(0, dtype=bool)], [np.zeros(0, dtype=np.int64)]
    for recording in recordings:
        found = decode(recording.activity, recording.onset, recording.frame_hop_s, recording.grid[decoding])
        peak, is_hit = judge_on_side(found, recording.calls, recording.side, recording.unknown, iou)
        peaks.append(peak)
        hits.append(is_hit)
        networks.append(np.full(len(peak), recording.network))
    peak, hit = np.concatenate(peaks), np.concatenate(hits)
    if recordings and recordings[0].grid[decoding].has_one_threshold:
        return peak, hit
    return on_scale_of(network, peak, hit, np.concatenate(networks)), hit


def _families(grid: Sequence[DecodingPoint]) -> list[list[int]]:
    """Numbers of the points that differ in nothing but their one threshold; any other point stands alone."""
    families: dict[Hashable, list[int]] = {}
    for number, point in enumerate(grid):
        key = replace(point, off_threshold=0.0) if point.has_one_threshold else number
        families.setdefault(key, []).append(number)
    return list(families.values())


def _best_on_threshold(
    recordings: Sequence[ScoredRecording], number: int, n_calls: int, iou: float, network: int
) -> OperatingPoint | None:
    """One decoding with the best on-threshold; None if it finds nothing."""
    points = curve(*validation_hits(recordings, number, iou=iou, network=network))
    f1 = points.f1(n_calls)
    if len(f1) == 0:
        return None
    lowest = max(logit(recordings[0].grid[number].off_threshold), -_FARTHEST)
    first, last = plateau(f1, int(np.argmax(f1)), n_calls)
    top = points.threshold[first]
    bottom = points.threshold[last + 1] if last + 1 < len(f1) else min(lowest, points.threshold[last])
    middle = (top + bottom) / 2
    return OperatingPoint(
        decoding=number,
        threshold=min(_probability(middle), float(np.nextafter(1.0, 0.0))),  # at 1 nothing would be selected
        val_f1=float(f1.max()),
        val_average_precision=average_precision(points, n_calls),
        n_calls=n_calls,
        curve=thinned_curve(points, n_calls, middle),
    )


def _best_of_grid(
    recordings: Sequence[ScoredRecording], numbers: Sequence[int], n_calls: int, iou: float
) -> OperatingPoint | None:
    """The best of decodings that differ in their one threshold; None if none of them finds anything."""
    grid = recordings[0].grid
    found = {number: validation_hits(recordings, number, iou=iou) for number in numbers}
    if not any(len(hit) for _, hit in found.values()):
        return None
    falling = sorted(numbers, key=lambda number: -grid[number].off_threshold)
    points = Curve(
        threshold=np.array([logit(grid[number].off_threshold) for number in falling]),
        n_pred=np.array([len(found[number][1]) for number in falling], dtype=np.int64),
        tp=np.array([found[number][1].sum() for number in falling], dtype=np.int64),
    )
    f1 = points.f1(n_calls)
    earliest = min(np.flatnonzero(f1 == f1.max()), key=lambda i: falling[i])
    first, last = plateau(f1, int(earliest), n_calls)
    logits = np.clip(points.threshold, -_FARTHEST, _FARTHEST)
    off_middle = np.abs(logits[first : last + 1] - (logits[first] + logits[last]) / 2).round(9)
    chosen = min(range(first, last + 1), key=lambda i: (off_middle[i - first], falling[i]))
    return OperatingPoint(
        decoding=falling[chosen],
        threshold=grid[falling[chosen]].off_threshold,
        val_f1=float(f1.max()),
        val_average_precision=average_precision(curve(*found[falling[chosen]]), n_calls),
        n_calls=n_calls,
        curve=thinned_curve(points, n_calls, points.threshold[chosen]),
    )


def _quality(point: OperatingPoint) -> float:
    return point.val_f1 + point.val_average_precision


def plateau(f1: NDArray[np.float64], best: int, n_calls: int) -> tuple[int, int]:
    """First and last of the thresholds around the best one that do as well."""
    good = f1 >= f1[best] - float(np.clip(_PLATEAU_CALLS / n_calls, *_PLATEAU_F1))
    first, last = best, best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(f1) and good[last + 1]:
        last += 1
    return first, last


def thinned_curve(points: Curve, n_calls: int, chosen: float) -> ThresholdCurve:
    """The curve at the chosen threshold (a logit), at the best F1, and at some others, evenly spaced by factors.

    By factors of the number of selections: most of these are faint false alarms, and would take most of the points.
    """
    n = len(points.threshold)
    some = np.arange(n) if n <= _CURVE_POINTS else np.geomspace(1, n, _CURVE_POINTS).round().astype(int) - 1
    rows = np.unique([*some, int(np.argmax(points.f1(n_calls)))])
    reached = int(np.count_nonzero(points.threshold >= chosen)) - 1  # the lowest score that the threshold selects
    thresholds = np.append(points.threshold[rows], chosen)
    rows = np.append(rows, reached)
    order = np.unique(thresholds, return_index=True)[1][::-1]
    values = (points.precision(), points.recall(n_calls), points.f1(n_calls))
    return ThresholdCurve(
        tuple(round(_probability(thresholds[i]), 6) for i in order),
        *(tuple(round(float(value[rows[i]]), 4) for i in order) for value in values),
    )


def _probability(logit_value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-logit_value)))
