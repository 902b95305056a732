"""How well the number of selections tells the number of calls over recordings, in resamples of groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.rates import count_correlation

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: So many resamples are ranked at a time, so that memory stays small with many recordings.
_BLOCK = 64


@dataclass(frozen=True)
class Counts:
    """Calls, selections and the number of the group of each recording."""

    n_gt: Reals
    n_pred: Reals
    group: Indices


def drawn_correlations(counts: Counts, weights: Reals) -> tuple[tuple[float, Reals], tuple[float, Reals]]:
    """Return Pearson's and Spearman's correlation, each with its values in the resamples (weights over groups).

    NaN where calls or selections never vary.
    """
    exact = count_correlation(counts.n_gt.astype(np.int64), counts.n_pred.astype(np.int64))
    pearson, spearman = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    if len(counts.group):
        for first in range(0, len(weights), _BLOCK):
            own = slice(first, first + _BLOCK)
            each = weights[own][:, counts.group]
            pearson[own] = _weighted_correlation(counts.n_gt, counts.n_pred, each)
            spearman[own] = _weighted_correlation(_ranks(counts.n_gt, each), _ranks(counts.n_pred, each), each)
    return (exact.pearson, pearson), (exact.spearman, spearman)


def _weighted_correlation(x: Reals, y: Reals, weights: Reals) -> Reals:
    """Correlation of x and y ((recordings,) or (resamples, recordings)) of each resample (resamples, recordings)."""
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x - (weights * x).sum(axis=1, keepdims=True) / total
        y = y - (weights * y).sum(axis=1, keepdims=True) / total
        squares = (weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1)
        return np.asarray((weights * x * y).sum(axis=1) / np.sqrt(np.where(squares > 1e-12, squares, np.nan)))


def _ranks(values: Reals, weights: Reals) -> Reals:
    """Ranks (resamples, recordings), where a recording stands as often as its weight says; equal ones share theirs."""
    distinct, which = np.unique(values, return_inverse=True)
    of_value = np.stack([weights[:, which == k].sum(axis=1) for k in range(len(distinct))], axis=1)
    return np.asarray((np.cumsum(of_value, axis=1) - (of_value - 1.0) / 2.0)[:, which])
