"""Intervals by resampling whole groups, because recordings of one group resemble each other.

A resample draws as many groups as there are, with replacement; every count that adds up over groups then is a matrix
product (cluster bootstrap, Davison & Hinkley 1997, section 3.8). Quantiles of the resamples are too narrow as limits
where groups are few, and miss on one side where the measure is near an end of its range: with 12 groups they hold the
truth in 85 to 89 of 100 cases, with 4 groups in 72 to 79. So the resamples give the standard error only, on the scale
on which the measure is about symmetric (logit of a share, logarithm of a rate, Fisher's z of a correlation), and the
limits are Student's t (Davison & Hinkley, chapter 5; the factor for few groups is that of Hesterberg 2015). Its degrees
of freedom are the number of groups less one, where groups that hold little count little (Kish's effective number 1965;
compare Carter, Schnepel & Steigerwald 2017, who count clusters of unlike size in such a way).

In simulated corpora with overdispersed counts these limits hold F1, recall, precision and false alarms per hour in 93
to 97 of 100 cases with 12 to 40 groups, and in 95 to 98 with 4 to 11. They hold the truth more often, and are wider
than they need be, where half of the groups have no calls. With 2 or 3 groups they say next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, gammaincinv, logit, stdtrit

from otus.metrics import Interval

Reals = NDArray[np.float64]
Scale = Callable[[Reals], Reals]

#: One of 40 intervals misses the truth on each side.
_TAIL = 0.025

#: No resample counts as nearer to the end of a range than this share of the value's own distance from an end.
_NEAREST = 0.25


@dataclass(frozen=True)
class GroupDraws:
    """`weights[i, g]`: how often resample i holds group `groups[g]` (sorted names)."""

    groups: NDArray[np.str_]
    weights: Reals

    def totals(self, values: Reals, groups: NDArray[np.str_]) -> Reals:
        """Return the sums (groups, ...) over the rows (rows, ...) of each group; `groups` names that of each row.

        Raises KeyError for a group that is not drawn from.
        """
        of_group = np.searchsorted(self.groups, groups)
        if len(groups) and (of_group.max() >= len(self.groups) or (self.groups[of_group] != groups).any()):
            raise KeyError("a row is of a group that is not drawn from")
        totals = np.zeros((len(self.groups), *values.shape[1:]))
        np.add.at(totals, of_group, values)
        return totals

    def sums(self, values: Reals, groups: NDArray[np.str_]) -> Reals:
        """Return the sums (resamples, ...) over the rows (rows, ...) of the groups that each resample holds.

        `groups` names the group of each row. Raises KeyError for a group that is not drawn from.
        """
        return np.asarray(np.tensordot(self.weights, self.totals(values, groups), axes=1))


def group_draws(groups: NDArray[np.str_], *, n: int, seed: int) -> GroupDraws:
    """Return `n` resamples of the distinct names in `groups`; none with fewer than two groups."""
    names = np.unique(groups.astype(str))
    if len(names) < 2 or n == 0:
        return GroupDraws(names, np.zeros((0, len(names))))
    rng, chances = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    weights = np.empty((n, len(names)))
    for resample in weights:  # one by one, as all at once take twice the memory
        resample[:] = rng.multinomial(len(names), chances)
    return GroupDraws(names, weights)


def effective_groups(amount: Reals) -> float:
    """Return how many groups of equal size tell as much as these, given what each holds (of what a measure divides by).

    Kish's effective number, but at least 2 if at least 2 groups hold anything; 1 or 0 otherwise.
    """
    n = np.count_nonzero(amount)
    return max(2.0, float(amount.sum() ** 2 / (amount**2).sum())) if n > 1 else float(n)


def share_interval(value: float, resampled: Reals, n_groups: float) -> Interval:
    """Return the 95 % interval of a measure between 0 and 1: recall, precision, F1, average precision, PSDS.

    `resampled` holds its values in the resamples; undefined ones (NaN) do not count. `n_groups` is the effective number
    of groups that tell of it; below two there is no interval (NaN). Where it is the same in all groups, above all 0 or
    1, resamples do not differ: then each group counts as one trial (Clopper & Pearson), which is more than wide enough.
    """
    if n_groups < 2 or len(resampled) == 0 or not np.isfinite(value):
        return Interval(value, np.nan, np.nan)
    if value <= 0.0 or value >= 1.0 or _all_the_same(resampled):
        found, rest = value * n_groups, (1.0 - value) * n_groups
        low = float(betaincinv(found, rest + 1.0, _TAIL)) if value > 0.0 else 0.0
        high = float(betaincinv(found + 1.0, rest, 1.0 - _TAIL)) if value < 1.0 else 1.0
        return Interval(value, low, high)
    nearest = _NEAREST * min(value, 1.0 - value)
    return _student(value, np.clip(resampled, nearest, 1.0 - nearest), n_groups, logit, expit)


def rate_interval(value: float, resampled: Reals, n_groups: float, hours: float) -> Interval:
    """Return the 95 % interval of events per hour, from 0 on, of which `hours` were searched.

    As in `share_interval`. Where there was no event at all, or as many per hour in all groups, it is that of events
    that come alone (Poisson; Garwood 1936): without any, it reaches to the rate that would be met with none in one of
    40 cases.
    """
    if n_groups < 2 or len(resampled) == 0 or not np.isfinite(value):
        return Interval(value, np.nan, np.nan)
    if value <= 0.0 or _all_the_same(resampled):
        events = value * hours
        low = float(gammaincinv(events, _TAIL)) if events > 0.0 else 0.0
        return Interval(value, low / hours, float(gammaincinv(events + 1.0, 1.0 - _TAIL)) / hours)
    return _student(value, np.maximum(resampled, _NEAREST * value), n_groups, np.log, np.exp)


def correlation_interval(value: float, resampled: Reals, n_groups: float) -> Interval:
    """Return the 95 % interval of a correlation; none (NaN) with fewer than 4 groups or at 1 or -1."""
    if n_groups < 4 or len(resampled) == 0 or not abs(value) < 1.0:
        return Interval(value, np.nan, np.nan)
    farthest = 1.0 - _NEAREST * (1.0 - abs(value))
    return _student(value, np.clip(resampled, -farthest, farthest), n_groups, np.arctanh, np.tanh)


def difference_interval(value: float, resampled: Reals, n_groups: float) -> Interval:
    """Return the 95 % interval of a difference; `resampled` holds the differences in the resamples of both together."""
    if n_groups < 2 or len(resampled) == 0 or not np.isfinite(value):
        return Interval(value, np.nan, np.nan)
    same = partial(np.asarray, dtype=np.float64)
    return _student(value, resampled, n_groups, same, same)


def _all_the_same(resampled: Reals) -> bool:
    """Whether resamples differ by rounding alone, which few and small groups may do by chance."""
    usable = resampled[np.isfinite(resampled)]
    return len(usable) > 1 and bool(np.ptp(usable) <= 1e-12 * np.abs(usable).max())


def _student(value: float, resampled: Reals, n_groups: float, there: Scale, back: Scale) -> Interval:
    """The value plus and minus Student's t times the standard error of the resamples, on another scale."""
    usable = resampled[np.isfinite(resampled)]
    if len(usable) < 2:
        return Interval(value, np.nan, np.nan)
    error = float(np.std(there(usable))) * np.sqrt(n_groups / (n_groups - 1))
    reach = float(-stdtrit(n_groups - 1, _TAIL)) * error
    centre = there(np.array([value]))
    low, high = (float(back(centre + way * reach)[0]) for way in (-1.0, 1.0))
    return Interval(value, low, high)
