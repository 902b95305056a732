"""Two results on the same recordings, group by group: resamples of both together, and what swapping them would give."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from otus.bootstrap import GroupDraws, difference_interval, effective_groups
from otus.measures.notes import FEW_GROUPS, LEAKY_NOTE
from otus.seeds import derive_seed

Reals = NDArray[np.float64]

#: Two results are swapped in every possible way if there are no more ways than this.
_ALL_WAYS = 4096


@dataclass(frozen=True)
class Sums:
    """Sums over groups, one row per way of summing (or per group): calls, selections, hits and hours (rows,).

    `curve_n_pred` and `curve_tp` (rows, thresholds) count everything with a threshold or more; without a curve they
    have no thresholds.
    """

    n_gt: Reals
    n_pred: Reals
    tp: Reals
    hours: Reals
    curve_n_pred: Reals
    curve_tp: Reals

    def drawn(self, weights: Reals) -> "Sums":
        """Return the sums of groups drawn with the weights (rows, groups)."""
        return Sums(*(weights @ getattr(self, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Measure:
    """`of`: from sums of two results to the values of both, one per row; `telling`: how much each group has to tell."""

    of: Callable[[Sums, Sums], tuple[Reals, Reals]]
    telling: Callable[[Sums, Sums], Reals]


@dataclass(frozen=True)
class Compared:
    """The two values of one measure, the interval of their difference, and the p-value (NaN: not to be had)."""

    value: float
    other_value: float
    low: float
    high: float
    p_value: float

    def moved_to(self, value: float, other_value: float) -> "Compared":
        """Return the same with other values, and the interval of the difference moved along with them."""
        by = (value - other_value) - (self.value - self.other_value)
        return Compared(value, other_value, self.low + by, self.high + by, self.p_value)


def compare(
    first: Sums, other: Sums, measures: Mapping[str, Measure], draws: GroupDraws, seed: int
) -> dict[str, Compared]:
    """Return what the measures say of two results whose sums are given per group.

    The interval resamples groups, both results together. The p-value is two-sided and from a randomisation test: if
    neither were better, each group's results could as well be the other's. So the two are swapped in every possible
    way, or in as many random ways as there are resamples, and the p-value is the share of ways, the true one among
    them, that give a difference as large.
    """
    whole = np.ones((1, len(first.n_gt)))
    sums = first.drawn(whole), other.drawn(whole)
    drawn = first.drawn(draws.weights), other.drawn(draws.weights)
    exchanged = _exchanged(first, other, _swaps(_unlike(first, other), len(draws.weights), seed))
    found = {}
    for name, measure in measures.items():
        value, other_value = (float(v[0]) for v in measure.of(*sums))
        n_groups = effective_groups(measure.telling(first, other))
        interval = difference_interval(value - other_value, np.subtract(*measure.of(*drawn)), n_groups)
        enough = n_groups > 1 and math.isfinite(value - other_value)
        p_value = _p_value(value - other_value, np.subtract(*measure.of(*exchanged))) if enough else math.nan
        found[name] = Compared(value, other_value, interval.low, interval.high, p_value)
    return found


def pair_note(n_groups: int, *, leaky: bool) -> str | None:
    """Return what must be read beside a difference over so many groups; None if there is nothing."""
    notes = [LEAKY_NOTE] if leaky else []
    if n_groups < 2:
        notes.append(f"only {n_groups} group{'s' * (n_groups != 1)}: no interval can be given")
    elif n_groups < FEW_GROUPS:
        notes.append(f"only {n_groups} groups: the p-value cannot be below {2.0 ** (1 - n_groups):.2g}")
    return "; ".join(notes) or None


def row_of(compared: Compared, measure: str) -> dict[str, Any]:
    """Return the columns of table `differences` that hold the result."""
    return {
        "measure": measure,
        "value": compared.value,
        "other_value": compared.other_value,
        "difference": compared.value - compared.other_value,
        "difference_low": compared.low,
        "difference_high": compared.high,
        "p_value": compared.p_value,
    }


def _unlike(first: Sums, other: Sums) -> NDArray[np.bool_]:
    """Which groups differ between the two; swapping the others changes nothing."""
    unlike = np.zeros(len(first.n_gt), dtype=bool)
    for field in fields(first):
        difference = getattr(first, field.name) != getattr(other, field.name)
        unlike |= difference.any(axis=tuple(range(1, difference.ndim)))
    return unlike


def _swaps(unlike: NDArray[np.bool_], n: int, seed: int) -> Reals:
    """Ways to swap (ways, groups), 1 where a group is swapped; the first way swaps none."""
    where = np.flatnonzero(unlike)
    if 2 ** len(where) <= _ALL_WAYS:
        ways = np.arange(2 ** len(where))[:, None] >> np.arange(len(where)) & 1
    else:
        drawn = np.random.default_rng(derive_seed(seed, "swaps")).integers(0, 2, size=(n, len(where)))
        ways = np.concatenate([np.zeros((1, len(where)), dtype=drawn.dtype), drawn])
    swaps = np.zeros((len(ways), len(unlike)))
    swaps[:, where] = ways
    return swaps


def _exchanged(first: Sums, other: Sums, swaps: Reals) -> tuple[Sums, Sums]:
    """The sums of both after each way of swapping."""
    kept = 1.0 - swaps
    one, two, back, forth = first.drawn(kept), other.drawn(swaps), first.drawn(swaps), other.drawn(kept)
    return _added(one, two), _added(back, forth)


def _added(a: Sums, b: Sums) -> Sums:
    return Sums(*(getattr(a, field.name) + getattr(b, field.name) for field in fields(Sums)))


def _p_value(difference: float, swapped: Reals) -> float:
    """The share of all ways (the first is the true one) whose difference is as large; NaN if there is only that one."""
    defined = swapped[np.isfinite(swapped)]
    if len(swapped) == 1 and difference != 0.0:
        return math.nan
    return float(np.count_nonzero(np.abs(defined) >= abs(difference) - 1e-12)) / len(defined)
