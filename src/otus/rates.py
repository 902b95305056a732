"""Numbers for a field study: false alarms per hour, recall at a given rate of them, boundary errors, call counts.

What is no hit and mostly unknown is no false alarm: leave it out before (see `otus.sides.mostly_unknown`).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.metrics import Curve

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class RecallAtRate:
    """The most recall that a budget of false alarms allows: one value per budget.

    `threshold` is the lowest score that keeps the budget (inf if only reporting nothing does), and
    `false_alarms_per_hour` the rate there.
    """

    recall: Reals
    threshold: Reals
    false_alarms_per_hour: Reals


@dataclass(frozen=True)
class ErrorSummary:
    """Number of values, mean, median and 90th percentile; NaN without values."""

    n: int
    mean: float
    median: float
    p90: float


@dataclass(frozen=True)
class CountCorrelation:
    """How well the number of selections tells the number of calls over recordings; NaN if one of them never varies."""

    n: int
    pearson: float
    spearman: float


def false_alarms_per_hour(points: Curve, hours: float) -> Reals:
    """Return the false alarms per hour at every threshold of the curve; NaN if nothing was searched."""
    return np.asarray((points.n_pred - points.tp) / hours) if hours else np.full(len(points.tp), np.nan)


def recall_at_rate(points: Curve, n_gt: int, hours: float, budgets_per_hour: Reals) -> RecallAtRate:
    """Return the recall at the lowest threshold that keeps each budget of false alarms per hour (inclusive).

    Budgets are 0 or more. Recall is NaN without annotations, and all is NaN if nothing was searched.
    """
    if not hours:
        nothing = np.full(len(budgets_per_hour), np.nan)
        return RecallAtRate(nothing, nothing, nothing)
    rate = np.append(0.0, false_alarms_per_hour(points, hours))  # from reporting nothing on, it never falls
    recall = np.append(0.0, points.recall(n_gt)) if n_gt else np.full(len(rate), np.nan)
    threshold = np.append(np.inf, points.threshold)
    at = np.searchsorted(rate, budgets_per_hour * (1.0 + 1e-9), side="right") - 1
    return RecallAtRate(recall[at], threshold[at], rate[at])


def summarise_errors(error: Reals) -> ErrorSummary:
    """Return the summary of the boundary errors of hits (in the unit given), without regard to sign and to NaN."""
    size = np.abs(error[np.isfinite(error)])
    if len(size) == 0:
        return ErrorSummary(0, math.nan, math.nan, math.nan)
    median, p90 = np.percentile(size, [50, 90])
    return ErrorSummary(len(size), float(size.mean()), float(median), float(p90))


def count_correlation(n_gt: Counts, n_pred: Counts) -> CountCorrelation:
    """Return Pearson's and Spearman's correlation of calls and selections, given one count per recording each."""
    pearson = _correlation(n_gt.astype(np.float64), n_pred.astype(np.float64))
    return CountCorrelation(len(n_gt), pearson, _correlation(_mean_ranks(n_gt), _mean_ranks(n_pred)))


def _correlation(x: Reals, y: Reals) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _mean_ranks(values: Counts) -> Reals:
    """Ranks from 1; equal values share the mean of theirs."""
    _, which, n = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(n) - (n - 1) / 2)[which], dtype=np.float64)
