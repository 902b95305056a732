"""Counts to numbers: precision, recall, F1, false alarms per hour, precision-recall curves, bootstrap intervals."""

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
class Scores:
    """Precision, recall and F1 of pooled counts with intervals over groups."""

    precision: Interval
    recall: Interval
    f1: Interval


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


def precision_recall_f1(tp: int, n_pred: int, n_gt: int) -> tuple[float, float, float]:
    """Return precision, recall and F1 of counts; NaN where a denominator is zero."""
    return ratio(tp, n_pred), ratio(tp, n_gt), ratio(2 * tp, n_pred + n_gt)


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


def bootstrap_scores(
    tp: Counts, n_pred: Counts, n_gt: Counts, groups: NDArray[np.str_], *, n: int, seed: int
) -> Scores:
    """Return pooled precision, recall and F1 with 95 % percentile intervals from resampling whole groups.

    `tp`, `n_pred` and `n_gt` hold one value per recording. A resample in which a ratio is undefined does not count
    for that ratio; with fewer than two groups the interval is NaN (cluster bootstrap, Davison & Hinkley 1997, 3.8).
    """
    _, of_group = np.unique(groups, return_inverse=True)
    n_groups = int(of_group.max(initial=-1)) + 1
    sums = np.stack([np.bincount(of_group, weights=c, minlength=n_groups) for c in (tp, n_pred, n_gt)], axis=1)
    values = precision_recall_f1(*(int(v) for v in sums.sum(axis=0))) if n_groups else (math.nan,) * 3
    if n_groups < 2 or n == 0:
        return Scores(*(Interval(v, math.nan, math.nan) for v in values))
    draws = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n) @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (
            draws[:, 0] / draws[:, 1],
            draws[:, 0] / draws[:, 2],
            2 * draws[:, 0] / (draws[:, 1] + draws[:, 2]),
        )
    return Scores(*(_interval(v, r) for v, r in zip(values, resampled, strict=True)))


def _interval(value: float, resampled: Reals) -> Interval:
    usable = resampled[np.isfinite(resampled)]
    if len(usable) == 0 or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.percentile(usable, [2.5, 97.5])
    return Interval(value, float(low), float(high))
