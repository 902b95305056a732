"""Counts to numbers: precision, recall, F1, precision-recall curves; a number with its interval."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Pooled counts at every distinct score, from the highest down."""

    threshold: Reals
    n_pred: Counts
    tp: Counts

    def precision(self) -> Reals:
        """Return true positives per selection at each threshold."""
        return np.asarray(self.tp / np.maximum(self.n_pred, 1))

    def recall(self, n_gt: int) -> Reals:
        """Return true positives per annotation at each threshold; NaN without annotations."""
        return np.asarray(self.tp / n_gt) if n_gt else np.full(len(self.tp), np.nan)

    def f1(self, n_gt: int) -> Reals:
        """Return 2 tp / (n_pred + n_gt) at each threshold."""
        return np.asarray(2.0 * self.tp / np.maximum(self.n_pred + n_gt, 1))


def ratio(numerator: float, denominator: float) -> float:
    """Return numerator / denominator; NaN if the denominator is zero."""
    return numerator / denominator if denominator else math.nan


def curve(score: Reals, hit: NDArray[np.bool_]) -> Curve:
    """Return the counts at every distinct score, given for each selection its score and whether it is a hit."""
    order = np.argsort(-score, kind="stable")
    sorted_score = score[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(sorted_score) != 0, True)) if len(score) else np.zeros(0, int)
    return Curve(
        threshold=sorted_score[last_of_tie],
        n_pred=(last_of_tie + 1).astype(np.int64),
        tp=np.cumsum(hit[order])[last_of_tie].astype(np.int64),
    )


def average_precision(points: Curve, n_gt: int) -> float:
    """Return the sum over thresholds of precision x gain in recall (no interpolation); NaN without annotations."""
    if n_gt == 0:
        return math.nan
    gain = np.diff(np.concatenate([[0.0], points.recall(n_gt)]))
    return float(np.sum(points.precision() * gain))
