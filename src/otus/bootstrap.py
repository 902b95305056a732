"""Intervals by resampling whole groups, because recordings of one group resemble each other.

A resample draws as many groups as there are, with replacement; every count that adds up over groups then is a matrix
product (cluster bootstrap, Davison & Hinkley 1997, section 3.8).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.metrics import Interval

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class GroupDraws:
    """`weights[i, g]`: how often resample i holds group `groups[g]` (sorted names)."""

    groups: NDArray[np.str_]
    weights: Reals

    def sums(self, values: Reals, groups: NDArray[np.str_]) -> Reals:
        """Return the sums (resamples, ...) over the rows (rows, ...) of the groups that each resample holds.

        `groups` names the group of each row. Raises KeyError for a group that is not drawn from.
        """
        of_group = np.searchsorted(self.groups, groups)
        if len(groups) and (of_group.max() >= len(self.groups) or (self.groups[of_group] != groups).any()):
            raise KeyError("a row is of a group that is not drawn from")
        totals = np.zeros((len(self.groups), *values.shape[1:]))
        np.add.at(totals, of_group, values)
        return np.asarray(np.tensordot(self.weights, totals, axes=1))


def group_draws(groups: NDArray[np.str_], *, n: int, seed: int) -> GroupDraws:
    """Return `n` resamples of the distinct names in `groups`; none with fewer than two groups."""
    names = np.unique(groups.astype(str))
    if len(names) < 2 or n == 0:
        return GroupDraws(names, np.zeros((0, len(names))))
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    return GroupDraws(names, weights.astype(np.float64))


def percentile_interval(value: float, resampled: Reals) -> Interval:
    """Return `value` with the 2.5 and 97.5 % quantiles of its resamples; those where it is undefined do not count.

    Without a usable resample, or a value, the interval is NaN.
    """
    usable = resampled[np.isfinite(resampled)]
    if len(usable) == 0 or not np.isfinite(value):
        return Interval(value, np.nan, np.nan)
    low, high = np.percentile(usable, [2.5, 97.5])
    return Interval(value, float(low), float(high))
