"""The choice of an operating point: decoding and on-threshold, from validation recordings alone."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from otus.config import ChoiceSettings
from otus.criterion import chance, in_words, merit
from otus.errors import StageError
from otus.evaluation.scales import on_scale_of
from otus.evaluation.thresholds import Reached, ThresholdCurve
from otus.matching import Intervals
from otus.metrics import Curve, average_precision, curve
from otus.selections import DecodingPoint, decode_all, logit
from otus.sides import EVERYWHERE, NOWHERE, Spans, judge_on_side

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Thresholds of 0 and 1 lie here in logits where a middle is sought.
_FARTHEST = 20.0

#: At most so many thresholds of the validation curve are kept, besides the chosen one and the best one.
_CURVE_POINTS = 48

_SECONDS = 3600.0


@dataclass(frozen=True)
class ScoredRecording:
    """Frame logits of one label in one recording, its annotated calls of that label, and the model's grid.

    Durations in the grid scale with the training calls of the model, so grids differ slightly from fold to fold.
    Selections count if their midpoint lies in `side`, of which there are `duration_s`; no hit that lies in `unknown` is
    a false alarm. `network` is the fold whose network gave the logits.
    """

    activity: NDArray[np.float32]
    onset: NDArray[np.float32]
    frame_hop_s: float
    grid: Sequence[DecodingPoint]
    calls: Intervals
    duration_s: float
    side: Spans = EVERYWHERE
    unknown: Spans = NOWHERE
    network: int = 0
    group: str = ""


@dataclass(frozen=True)
class JudgedRecording:
    """What every decoding of the grid finds in a recording: peak logit and hit of the selections that count there."""

    found: Sequence[tuple[Reals, Mask]]
    grid: Sequence[DecodingPoint]
    n_calls: int
    duration_s: float
    network: int
    group: str


@dataclass(frozen=True)
class Ground:
    """What a threshold is chosen by, the number of annotated calls and the hours of sound it is chosen on."""

    choice: ChoiceSettings
    n_calls: int
    hours: float

    def merit(self, points: Curve) -> Reals:
        """Return how good each threshold of a curve is, see otus.criterion."""
        return merit(self.choice, points.tp, points.n_pred, self.n_calls, self.hours)

    def false_alarms_per_hour(self, points: Curve) -> Reals:
        """Return the rate at each threshold of a curve; 0 without any time."""
        return np.asarray((points.n_pred - points.tp) / self.hours if self.hours else np.zeros(len(points.tp)))


@dataclass(frozen=True)
class OperatingPoint:
    """Which decoding of the grid, the on-threshold (a probability), and what they reached on validation.

    `val_f1` is the best F1 of the curve, `val_merit` the best of what was chosen by, from whose plateau the threshold
    was taken.
    """

    decoding: int
    threshold: float
    reached: Reached
    val_merit: float
    val_f1: float
    val_average_precision: float
    n_calls: int
    curve: ThresholdCurve


def judge_recording(recording: ScoredRecording, iou: float) -> JudgedRecording:
    """Return the recording with what each decoding of its grid finds, matched at `iou`; every decoding is done once."""
    segments = decode_all(recording.activity, recording.onset, recording.frame_hop_s, recording.grid)
    found = [judge_on_side(one, recording.calls, recording.side, recording.unknown, iou) for one in segments]
    n_calls, where = len(recording.calls), (recording.network, recording.group)
    return JudgedRecording(found, recording.grid, n_calls, recording.duration_s, *where)


def choose_operating_point(
    recordings: Sequence[JudgedRecording], *, choice: ChoiceSettings, network: int = 0
) -> OperatingPoint:
    """Return the decoding of the grid, and its threshold for the scores of `network`, that is best by `choice`.

    What other networks gave is brought onto the scale of that network first (`on_scale_of`), except for decodings with
    one threshold: there it decides which frames belong to a selection.

    A decoding is judged by its best merit (otus.criterion); where that is F1, by the mean of it and of the average
    precision, which depends less on single calls than F1 alone. What is better by less than half a call is worth is a
    draw, and draws go to the earlier point of the grid. The threshold is the middle (in logits) of the plateau of the
    curve of merit around its maximum, so that it does not sit on the edge of one validation call; on the plateau of a
    budget the budget is kept. Decodings with one threshold that differ in nothing else count as one: their plateau is
    over the thresholds of the grid, and the one next to its middle is chosen.
    Without a call, or without a detection, there is nothing to choose by: the first decoding, and 0.5 or its own
    threshold. Where no threshold of any decoding keeps a budget, the one with the least excess is chosen.

    Raises StageError if there is no recording.
    """
    if not recordings:
        raise StageError("evaluate: no validation recording was scored; see the failed items of predict.")
    ground = Ground(choice, sum(r.n_calls for r in recordings), sum(r.duration_s for r in recordings) / _SECONDS)
    best: OperatingPoint | None = None
    for numbers in _families(recordings[0].grid) if ground.n_calls else []:
        if recordings[0].grid[numbers[0]].has_one_threshold:
            found = _best_of_grid(recordings, numbers, ground)
        else:
            found = _best_on_threshold(recordings, numbers[0], ground, network)
        better_by = 1.0 / ground.n_calls
        if found is not None and (best is None or _quality(found, choice) > _quality(best, choice) + better_by):
            best = found
    return best or _first_of_grid(recordings, ground, network)


def validation_hits(recordings: Sequence[JudgedRecording], decoding: int, *, network: int = 0) -> tuple[Reals, Mask]:
    """Return peak logit and hit of all selections that a decoding of the grid finds in `recordings` and that count.

    The peaks are on the scale of `network`, except for a decoding with one threshold.
    """
    if not recordings:
        return np.zeros(0), np.zeros(0, dtype=bool)
    peaks, hits = zip(*(recording.found[decoding] for recording in recordings), strict=True)
    peak, hit = np.concatenate(peaks), np.concatenate(hits)
    if recordings[0].grid[decoding].has_one_threshold:
        return peak, hit
    networks = np.repeat([recording.network for recording in recordings], [len(own) for own in peaks])
    return on_scale_of(network, peak, hit, networks), hit


def reached(peak: Reals, hit: Mask, threshold: float, ground: Ground) -> Reached:
    """Return what the selections whose peak reaches a logit are worth on validation."""
    above = peak >= threshold
    points = Curve(np.array([threshold]), np.array([above.sum()]), np.array([(above & hit).sum()]))
    n_calls, rate = ground.n_calls, float(ground.false_alarms_per_hour(points)[0])
    budget = ground.choice.false_alarms_per_hour
    if n_calls == 0:
        note = "no annotated call on validation: nothing to choose by"
    elif len(peak) == 0:
        note = "nothing was found on validation: nothing to choose by"
    elif budget is not None and ground.merit(points)[0] < 0:
        note = "no threshold keeps the budget on validation: this is the least excess"
    else:
        note = ""
    return Reached(
        criterion=in_words(ground.choice),
        hours=round(ground.hours, 6),
        n_pred=int(points.n_pred[0]),
        tp=int(points.tp[0]),
        precision=round(float(points.precision()[0]), 4),
        recall=round(float(points.recall(n_calls)[0]), 4) if n_calls else 0.0,
        f1=round(float(points.f1(n_calls)[0]), 4),
        false_alarms_per_hour=round(rate, 4),
        note=note,
    )


def _first_of_grid(recordings: Sequence[JudgedRecording], ground: Ground, network: int) -> OperatingPoint:
    """The first decoding, where there is nothing to choose by."""
    first = recordings[0].grid[0]
    threshold = first.off_threshold if first.has_one_threshold else 0.5
    lowest = -np.inf if first.has_one_threshold else logit(threshold)
    found = reached(*validation_hits(recordings, 0, network=network), lowest, ground)
    return OperatingPoint(0, threshold, found, 0.0, 0.0, 0.0, ground.n_calls, ThresholdCurve())


def _families(grid: Sequence[DecodingPoint]) -> list[list[int]]:
    """Numbers of the points that differ in nothing but their one threshold; any other point stands alone."""
    families: dict[Hashable, list[int]] = {}
    for number, point in enumerate(grid):
        key = replace(point, off_threshold=0.0) if point.has_one_threshold else number
        families.setdefault(key, []).append(number)
    return list(families.values())


def _best_on_threshold(
    recordings: Sequence[JudgedRecording], number: int, ground: Ground, network: int
) -> OperatingPoint | None:
    """One decoding with the best on-threshold; None if it finds nothing."""
    peak, hit = validation_hits(recordings, number, network=network)
    points = curve(peak, hit)
    if len(points.threshold) == 0:
        return None
    merits = ground.merit(points)
    lowest = max(logit(recordings[0].grid[number].off_threshold), -_FARTHEST)
    first, last = plateau(merits, int(np.argmax(merits)), ground.n_calls)
    top = points.threshold[first]
    bottom = points.threshold[last + 1] if last + 1 < len(merits) else min(lowest, points.threshold[last])
    middle = (top + bottom) / 2
    threshold = selecting_threshold(middle)
    return OperatingPoint(
        decoding=number,
        threshold=threshold,
        reached=reached(peak, hit, logit(threshold), ground),
        val_merit=float(merits.max()),
        val_f1=float(points.f1(ground.n_calls).max()),
        val_average_precision=average_precision(points, ground.n_calls),
        n_calls=ground.n_calls,
        curve=thinned_curve(points, ground, middle),
    )


def _best_of_grid(
    recordings: Sequence[JudgedRecording], numbers: Sequence[int], ground: Ground
) -> OperatingPoint | None:
    """The best of decodings that differ in their one threshold; None if none of them finds anything."""
    grid = recordings[0].grid
    found = {number: validation_hits(recordings, number) for number in numbers}
    if not any(len(hit) for _, hit in found.values()):
        return None
    falling = sorted(numbers, key=lambda number: -grid[number].off_threshold)
    points = Curve(
        threshold=np.array([logit(grid[number].off_threshold) for number in falling]),
        n_pred=np.array([len(found[number][1]) for number in falling], dtype=np.int64),
        tp=np.array([found[number][1].sum() for number in falling], dtype=np.int64),
    )
    merits = ground.merit(points)
    earliest = min(np.flatnonzero(merits == merits.max()), key=lambda i: falling[i])
    first, last = plateau(merits, int(earliest), ground.n_calls)
    logits = np.clip(points.threshold, -_FARTHEST, _FARTHEST)
    off_middle = np.abs(logits[first : last + 1] - (logits[first] + logits[last]) / 2).round(9)
    chosen = min(range(first, last + 1), key=lambda i: (off_middle[i - first], falling[i]))
    own = found[falling[chosen]]
    return OperatingPoint(
        decoding=falling[chosen],
        threshold=grid[falling[chosen]].off_threshold,
        reached=reached(*own, -np.inf, ground),
        val_merit=float(merits.max()),
        val_f1=float(points.f1(ground.n_calls).max()),
        val_average_precision=average_precision(curve(*own), ground.n_calls),
        n_calls=ground.n_calls,
        curve=thinned_curve(points, ground, points.threshold[chosen]),
    )


def _quality(point: OperatingPoint, choice: ChoiceSettings) -> float:
    """Twice the worth of a decoding. The area says little of that end of the curve that a budget or a cost is about."""
    return point.val_merit + (point.val_average_precision if choice.by == "f1" else point.val_merit)


def plateau(merits: Reals, best: int, n_calls: int) -> tuple[int, int]:
    """Return the first and the last of the thresholds around the best one that do as well, but for chance.

    Where the best merit is that of a kept budget, so is every one of them: broken budgets have merits of -1 and less.
    """
    good = merits >= merits[best] - chance(n_calls)
    first, last = best, best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(merits) and good[last + 1]:
        last += 1
    return first, last


def thinned_curve(points: Curve, ground: Ground, chosen: float) -> ThresholdCurve:
    """Return the curve at the chosen threshold (a logit), at the best one and at some others, evenly spaced by factors.

    By factors of the number of selections: most of these are faint false alarms, and would take most of the points.
    """
    n, n_calls = len(points.threshold), ground.n_calls
    some = np.arange(n) if n <= _CURVE_POINTS else np.geomspace(1, n, _CURVE_POINTS).round().astype(int) - 1
    rows = np.unique([*some, int(np.argmax(ground.merit(points)))])
    lowest = int(np.count_nonzero(points.threshold >= chosen)) - 1  # the lowest score that the threshold selects
    thresholds = np.append(points.threshold[rows], chosen)
    rows = np.append(rows, lowest)
    order = np.unique(thresholds, return_index=True)[1][::-1]
    values = (points.precision(), points.recall(n_calls), points.f1(n_calls), ground.false_alarms_per_hour(points))
    return ThresholdCurve(
        tuple(round(_probability(thresholds[i]), 6) for i in order),
        *(tuple(round(float(value[rows[i]]), 4) for i in order) for value in values),
    )


def selecting_threshold(logit_value: float) -> float:
    """Return the probability of a logit, but less than 1, at which nothing would be selected."""
    return min(_probability(logit_value), float(np.nextafter(1.0, 0.0)))


def _probability(logit_value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-logit_value)))
