"""What makes one operating point better than another: F1, recall under a budget of false alarms, or cost.

Whoever chooses uses it: the network's threshold, that of a detector of others, and the forest's.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otus.config import ChoiceSettings

Reals = NDArray[np.float64]

#: What is worth less than two calls is chance, within these limits of merit.
_CHANCE_CALLS = 2
_CHANCE_LIMITS = (0.01, 0.05)


def merit(choice: ChoiceSettings, tp: ArrayLike, n_pred: ArrayLike, n_gt: int, hours: float) -> Reals:
    """Return how good operating points are, given their hits and selections on `n_gt` calls in `hours` of sound.

    f1: F1. recall: the recall where the budget of false alarms is kept; elsewhere how many times the budget the rate
    is, as a negative number, so that the least excess is best where nothing keeps it. cost: the share of the cost of
    finding nothing that is saved, which is negative where false alarms cost more than hits save. A merit of 1 is
    perfect. NaN without a call; `hours` must be positive for a budget.
    """
    hits, found = np.asarray(tp, dtype=np.float64), np.asarray(n_pred, dtype=np.float64)
    if n_gt == 0:
        return np.full(hits.shape, np.nan)
    false_alarms = found - hits
    if choice.by == "recall":
        excess = false_alarms / hours / _given(choice.false_alarms_per_hour)
        return np.where(excess <= 1.0 + 1e-9, hits / n_gt, -excess)
    if choice.by == "cost":
        lost = _given(choice.miss_cost) * (n_gt - hits) + _given(choice.false_alarm_cost) * false_alarms
        return np.asarray(1.0 - lost / (_given(choice.miss_cost) * n_gt))
    return np.asarray(2.0 * hits / (found + n_gt))


def chance(n_gt: int) -> float:
    """Return the difference of merit that chance alone may make: what two calls are worth, but 0.01 to 0.05."""
    return float(np.clip(_CHANCE_CALLS / max(n_gt, 1), *_CHANCE_LIMITS))


def in_words(choice: ChoiceSettings) -> str:
    """Return the criterion as the end of a sentence: 'chosen by ...'."""
    if choice.by == "recall":
        return f"the best recall with at most {choice.false_alarms_per_hour:g} false alarms per hour"
    if choice.by == "cost":
        return f"the least cost ({choice.miss_cost:g} per miss, {choice.false_alarm_cost:g} per false alarm)"
    return "the best F1"


def _given(value: float | None) -> float:
    if value is None:
        raise ValueError("the criterion lacks a number that its settings require")
    return value
