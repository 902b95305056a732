"""The polyphonic sound detection score: calls are found by how much of them is covered, not one to one.

A detection is valid if annotations of its own label cover enough of it (`dtc`, detection tolerance criterion); a call
is found if valid detections cover enough of it (`gtc`, ground truth intersection criterion). What is not valid is a
false alarm, and a cross-trigger of every other label whose annotations cover enough of it (`cttc`). The score is the
area below the recall (mean over labels, less `alpha_st` standard deviations) against the false alarms per hour (plus
`alpha_ct` times the mean rate of cross-triggers), up to `max_rate_per_hour` (Bilen et al. 2020; psds_eval).

Coverage is that of all intervals together, so that overlapping ones count once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.matching import IOU_SLACK, pairs_of_ranges

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Shares are compared with this much slack, so that 0.7 in floating point counts as 0.7.
_SLACK = IOU_SLACK


@dataclass(frozen=True)
class Coverage:
    """Shares of a length, above 0 and at most 1, that make a detection valid, a call found, and a cross-trigger."""

    dtc: float
    gtc: float
    cttc: float


@dataclass(frozen=True)
class Weighting:
    """How rates become one score: weights of cross-triggers and of the spread over labels, and the end of the axis."""

    alpha_ct: float
    alpha_st: float
    max_rate_per_hour: float = 100.0


#: The two settings of DCASE task 4: the first asks for exact times, the second for no mix-ups of labels.
PSDS1 = (Coverage(dtc=0.7, gtc=0.7, cttc=0.3), Weighting(alpha_ct=0.0, alpha_st=1.0))
PSDS2 = (Coverage(dtc=0.1, gtc=0.1, cttc=0.3), Weighting(alpha_ct=0.5, alpha_st=1.0))


@dataclass(frozen=True)
class Events:
    """Labelled intervals of many recordings: number of the recording, number of the label, times in s; end > start."""

    recording: Indices
    label: Indices
    start_s: Reals
    end_s: Reals

    def __len__(self) -> int:
        return len(self.start_s)

    def at(self, chosen: Mask) -> "Events":
        """Return the chosen ones."""
        return Events(self.recording[chosen], self.label[chosen], self.start_s[chosen], self.end_s[chosen])


@dataclass(frozen=True)
class Verdicts:
    """What coverage says of every call and detection.

    `found_from`, per call: the highest score such that the detections with it or more find the call; -inf if none do.
    `alarm`, per detection: whether it is a false alarm. `crossing`, (labels, detections): whether a false alarm is a
    cross-trigger of each label.
    """

    found_from: Reals
    alarm: Mask
    crossing: Mask


@dataclass(frozen=True)
class Rates:
    """Per label and operating point, (labels, points): recall, false alarms and mean cross-triggers, both per hour.

    The first point is the one at which nothing is detected. A label without annotations has NaN everywhere, and does
    not count; false alarms are NaN if nothing was searched.
    """

    recall: Reals
    false_alarms: Reals
    cross_triggers: Reals


@dataclass(frozen=True)
class Roc:
    """Recall over labels (less the spread) against the false alarms per hour, as steps: recall[i] from rate[i] on."""

    rate_per_hour: Reals
    recall: Reals


def verdicts(
    calls: Events, found: Events, score: Reals, excused: Mask, *, n_labels: int, coverage: Coverage
) -> Verdicts:
    """Return which calls are found, from which score on, and which detections are false alarms and cross-triggers.

    `calls` has no annotation labelled unknown; `excused` says which detections are no false alarms if they are not
    valid (see `otus.sides.mostly_unknown`).
    """
    share = np.zeros((n_labels, len(found)))
    for label in range(n_labels):
        share[label] = _share_covered(calls.at(calls.label == label), found)
    each = np.arange(len(found))
    valid = share[found.label, each] >= coverage.dtc - _SLACK
    alarm = ~valid & ~excused
    crossing = (share >= coverage.cttc - _SLACK) & alarm
    crossing[found.label, each] = False
    found_from = np.full(len(calls), -np.inf)
    for label in np.unique(calls.label).tolist():
        own, valid_own = calls.label == label, valid & (found.label == label)
        found_from[own] = _critical_score(calls.at(own), found.at(valid_own), score[valid_own], coverage.gtc)
    return Verdicts(found_from, alarm, crossing)


def crossing_rates(calls: Events, found: Events, judged: Verdicts) -> Reals:
    """Return by how much each detection raises the mean rate of cross-triggers of its label per hour of other calls."""
    n_labels = len(judged.crossing)
    n = np.bincount(calls.label, minlength=n_labels)
    seconds = np.bincount(calls.label, weights=calls.end_s - calls.start_s, minlength=n_labels)
    with np.errstate(divide="ignore"):
        per_call_hour = np.where(seconds > 0, 3600.0 / seconds, 0.0)
    others = np.maximum((n > 0).sum() - (n > 0), 1)  # labels that a detection of each label may be mixed up with
    return np.asarray(per_call_hour @ judged.crossing / others[found.label])


def rates(
    calls: Events, found: Events, score: Reals, excused: Mask, *, hours: float, n_labels: int, coverage: Coverage
) -> Rates:
    """Return the rates of no detection, and then, at every score from the highest down, of those with it or more.

    `calls` and `excused` as in `verdicts`. If other thresholds need other detections, give those of one threshold with
    one score, and put the rates of all thresholds together with `joined`.
    """
    thresholds = np.append(np.unique(score), np.inf)[::-1]
    point = np.searchsorted(-thresholds, -score)
    judged = verdicts(calls, found, score, excused, n_labels=n_labels, coverage=coverage)
    mixed_up = crossing_rates(calls, found, judged)
    n = np.bincount(calls.label, minlength=n_labels)
    counted = np.full((3, n_labels, len(thresholds)), np.nan)
    for label in np.flatnonzero(n).tolist():
        own, critical = found.label == label, judged.found_from[calls.label == label]
        reached = np.searchsorted(-thresholds, -critical[np.isfinite(critical)])
        counted[0, label] = np.bincount(reached, minlength=len(thresholds)) / n[label]
        if hours:
            counted[1, label] = np.bincount(point[own & judged.alarm], minlength=len(thresholds)) / hours
        counted[2, label] = np.bincount(point[own], weights=mixed_up[own], minlength=len(thresholds))
    return Rates(*np.cumsum(counted, axis=2))


def joined(parts: Sequence[Rates]) -> Rates:
    """Return the operating points of all parts (of the same labels) together."""
    return Rates(
        *(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in Rates.__dataclass_fields__)
    )


def roc(points: Rates, weighting: Weighting) -> Roc:
    """Return the steps that the score is the area of; they begin at no false alarm. Empty if no label counts.

    At every rate, a label is at the best of its operating points that have no higher rate.
    """
    labels = np.flatnonzero(~np.isnan(points.recall + points.false_alarms).any(axis=1))
    if len(labels) == 0:
        return Roc(np.zeros(0), np.zeros(0))
    rate = points.false_alarms[labels] + weighting.alpha_ct * points.cross_triggers[labels]
    grid = np.unique(rate)
    best = np.zeros((len(labels), len(grid)))
    for i, label in enumerate(labels):
        np.maximum.at(best[i], np.searchsorted(grid, rate[i]), points.recall[label])
    best = np.maximum.accumulate(best, axis=1)
    return Roc(grid, np.maximum(best.mean(axis=0) - weighting.alpha_st * best.std(axis=0), 0.0))


def psds(points: Rates, weighting: Weighting) -> float:
    """Return the polyphonic sound detection score in 0..1; NaN if no label has annotations or nothing was searched."""
    curve = roc(points, weighting)
    if len(curve.rate_per_hour) == 0:
        return math.nan
    borders = np.minimum(np.append(curve.rate_per_hour, weighting.max_rate_per_hour), weighting.max_rate_per_hour)
    return float(np.sum(np.diff(borders) * curve.recall) / weighting.max_rate_per_hour)


def _share_covered(calls: Events, found: Events) -> Reals:
    """Which share of each detection the calls cover together; their labels do not matter."""
    ranks, length = _cells([calls, found])
    (first, last), (start, end) = ranks
    depth = np.bincount(first, minlength=len(length) + 1) - np.bincount(last, minlength=len(length) + 1)
    covered = np.where(np.cumsum(depth)[:-1] > 0, length, 0.0)
    total = np.concatenate([[0.0], np.cumsum(covered)])
    return np.asarray((total[end] - total[start]) / (found.end_s - found.start_s))


def _critical_score(calls: Events, found: Events, score: Reals, share: float) -> Reals:
    """The highest score such that the detections with it or more cover `share` of each call; -inf if none do."""
    ranks, length = _cells([calls, found])
    (first, last), (start, end) = ranks
    best = np.full(len(length), -np.inf)
    for i in np.argsort(score, kind="stable").tolist():
        best[start[i] : end[i]] = score[i]
    call, cell = pairs_of_ranges(first, last)
    call, cell = call[best[cell] > -np.inf], cell[best[cell] > -np.inf]
    order = np.lexsort((-best[cell], call))
    call, cell = call[order], cell[order]
    total = np.concatenate([[0.0], np.cumsum(length[cell])])
    begins = np.searchsorted(call, np.arange(len(calls)))
    wanted = (share - _SLACK) * (calls.end_s - calls.start_s)
    enough = np.flatnonzero(total[1:] - total[begins[call]] >= wanted[call])
    critical = np.full(len(calls), -np.inf)
    reached, earliest = np.unique(call[enough], return_index=True)
    critical[reached] = best[cell[enough[earliest]]]
    return critical


def _cells(parts: Sequence[Events]) -> tuple[list[tuple[Indices, Indices]], Reals]:
    """Cut the time of all recordings wherever an interval starts or ends: cells in order of recording and time.

    Returns, per part, the first cell of each interval and the one after its last, and the length of each cell in s.
    """
    recording = np.concatenate([np.tile(part.recording, 2) for part in parts])
    time_s = np.concatenate([np.concatenate([part.start_s, part.end_s]) for part in parts])
    order = np.lexsort((time_s, recording))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(recording[order]) != 0) | (np.diff(time_s[order]) != 0)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(new) - 1
    cuts = order[new]
    length = np.where(np.diff(recording[cuts]) == 0, np.diff(time_s[cuts]), 0.0)
    ends = np.cumsum([2 * len(part) for part in parts])[:-1]
    halves = [np.split(own, 2) for own in np.split(rank, ends)]
    return [(start, end) for start, end in halves], length
