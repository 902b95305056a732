"""Truth against selections by units of time instead of calls: frames, segments of a second, whole recordings.

A unit is active in the truth if a call is in it, and active in the result if a selection is. Counts of several
recordings may be added up; average precision needs the units of all of them in one array. A unit that holds no call
but something labelled unknown is neither hit nor false alarm: it does not count.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.matching import IOU_SLACK, Intervals
from otus.metrics import average_precision, curve

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class UnitCounts:
    """How many units count, are active in the truth, in the result, and in both: arrays of one value per label."""

    n: Indices
    n_gt: Indices
    n_pred: Indices
    tp: Indices


def n_segments(duration_s: float, segment_s: float) -> int:
    """Return the number of segments of a recording; the last one may be shorter."""
    return max(0, math.ceil(duration_s / segment_s - IOU_SLACK))


def touched(intervals: Intervals, n_units: int, unit_s: float) -> Mask:
    """Return (n_units,): whether an interval has any part of the segment, as sed_eval counts segments."""
    return _any(*_touched_range(intervals, n_units, unit_s), n_units)


def centred(intervals: Intervals, n_units: int, unit_s: float) -> Mask:
    """Return (n_units,): whether the centre of the frame lies in an interval, as in the frame targets of training.

    An interval that holds no centre has the frame of the next one, so that short calls are not lost.
    """
    return _any(*_centred_range(intervals, n_units, unit_s), n_units)


def highest_touching(intervals: Intervals, score: Reals, n_units: int, unit_s: float) -> Reals:
    """Return (n_units,): the highest score of the selections that have any part of the segment; -inf without one."""
    return _highest(*_touched_range(intervals, n_units, unit_s), score, n_units)


def highest_centred(intervals: Intervals, score: Reals, n_units: int, unit_s: float) -> Reals:
    """Return (n_units,): the highest score of the selections that hold the centre of the frame; -inf without one."""
    return _highest(*_centred_range(intervals, n_units, unit_s), score, n_units)


def highest_by_segment(score: Reals, frame_s: float, segment_s: float) -> Reals:
    """Return the highest score of the frames whose centres lie in each segment: (..., frames) -> (..., segments)."""
    segment = ((np.arange(score.shape[-1]) + 0.5) * frame_s / segment_s + IOU_SLACK).astype(np.int64)
    n = int(segment[-1]) + 1 if len(segment) else 0
    highest = np.full((*score.shape[:-1], n), -np.inf)
    begins = np.flatnonzero(np.diff(segment, prepend=-1))
    if n:
        highest[..., segment[begins]] = np.maximum.reduceat(score, begins, axis=-1)
    return highest


def unit_counts(truth: Mask, result: Mask, unknown: Mask) -> UnitCounts:
    """Return the counts of (..., units) over the last axis; `unknown` may lack the other axes.

    Recordings are units like all others: with one value per recording in each array this is the presence of calls.
    """
    counts = truth | ~unknown
    return UnitCounts(
        *(np.asarray(np.count_nonzero(active, axis=-1)) for active in (counts, truth, result & counts, truth & result))
    )


def unit_average_precision(truth: Mask, score: Reals, unknown: Mask) -> float:
    """Return the average precision of (units,) ranked by score; NaN if no unit is active in the truth.

    A unit of score -inf is one that no threshold reports.
    """
    ranked = (truth | ~unknown) & (score > -np.inf)
    return average_precision(curve(score[ranked], truth[ranked]), int(np.count_nonzero(truth)))


def _touched_range(intervals: Intervals, n_units: int, unit_s: float) -> tuple[Indices, Indices]:
    """The first unit that each interval touches and the one after the last, within 0..n_units."""
    first = np.floor(intervals.start_s / unit_s + IOU_SLACK)
    return _within(first, np.ceil(intervals.end_s / unit_s - IOU_SLACK), n_units)


def _centred_range(intervals: Intervals, n_units: int, unit_s: float) -> tuple[Indices, Indices]:
    """The first unit whose centre each interval holds and the one after the last, at least one, within 0..n_units."""
    first = np.ceil(intervals.start_s / unit_s - 0.5 - IOU_SLACK)
    last = np.ceil(intervals.end_s / unit_s - 0.5 - IOU_SLACK)
    return _within(first, np.maximum(last, first + 1), n_units)


def _within(first: Reals, last: Reals, n_units: int) -> tuple[Indices, Indices]:
    return np.clip(first, 0, n_units).astype(np.int64), np.clip(last, 0, n_units).astype(np.int64)


def _any(first: Indices, last: Indices, n_units: int) -> Mask:
    """Whether any range holds each unit."""
    depth = np.bincount(first, minlength=n_units + 1) - np.bincount(last, minlength=n_units + 1)
    return np.asarray(np.cumsum(depth)[:n_units] > 0)


def _highest(first: Indices, last: Indices, score: Reals, n_units: int) -> Reals:
    """The highest score of the ranges that hold each unit; -inf without one."""
    highest = np.full(n_units, -np.inf)
    for i in np.argsort(score, kind="stable").tolist():
        highest[first[i] : last[i]] = score[i]
    return highest
