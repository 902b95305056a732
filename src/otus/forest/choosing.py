"""Which candidates a post-filter keeps, and whether it is used at all: by the criterion of the evaluation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, stdtrit

from otus.config import ChoiceSettings
from otus.criterion import chance, merit

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

#: The merit of the layer before and that of the filter on some of the groups.
Worth = Callable[[Mask], tuple[float, float]]

#: Where candidates begin between the permissive threshold (0) and that of the layer before (1), in logits.
STEPS = (1.0, 0.5, 0.0)


#: Share of a normal distribution that lies below one standard error.
_ONE_ERROR = 0.8413

_NAMES = {"f1": "F1", "recall": "recall within the budget", "cost": "share of the cost saved"}


@dataclass(frozen=True)
class Fitting:
    """The candidates that a filter was fitted on, and the truth there.

    Of each candidate: probability (of an estimator that saw nothing of its inner fold), step (where the layer before
    puts it), lead (its peak score above the threshold of that layer, in logits), hit, and the number of its group. Of
    each group: n_calls, hours, and inner_fold (-1 without a candidate).
    """

    probability: Reals
    step: Reals
    lead: Reals
    hit: Mask
    group: Indices
    n_calls: Indices
    hours: Reals
    inner_fold: Indices


@dataclass(frozen=True)
class Filter:
    """Candidates from `step` on are kept if their probability reaches `threshold`.

    `alone` and `filtered` are the merit of the layer before and of the filter on the fitting side, as `choose_filter`
    compares them; `reason` says why the filter is not to be used, if so.
    """

    step: float
    threshold: float
    alone: float
    filtered: float
    reason: str


def choose_filter(fitting: Fitting, choice: ChoiceSettings) -> Filter:
    """Return where candidates begin and from which probability on they are kept, by the criterion on the fitting side.

    The best of many thresholds looks better than it is, on few calls by more than any filter gains. So the filter is
    judged as a stranger would: on each inner fold it uses the step and threshold that the others chose. It is to be
    used only if it then is better than no filter by more than chance: two calls, and one standard error of the gain
    (jackknife over groups).

    A budget is another matter: strangers keep it or break it by accident, and where the layer before breaks it, or
    leaves some of it, even dropping selections at random gains. There the filter and the layer before each take the
    threshold that keeps the budget best on the fitting side, and their recalls are compared.
    """
    worth = _worth_within_budget(fitting, choice) if choice.by == "recall" else _worth_unseen(fitting, choice)
    all_groups = np.ones(len(fitting.n_calls), dtype=bool)
    alone, filtered = worth(all_groups)
    step, threshold = _best(fitting, all_groups, choice)
    n_calls = int(fitting.n_calls.sum())
    reason = ""
    if not filtered - alone > max(chance(n_calls), _error(worth, len(all_groups))):
        reason = (
            f"On groups that it did not see, it gains no more than chance might: {told(filtered, choice)} with it and "
            f"{told(alone, choice)} without, on {n_calls} calls."
        )
    return Filter(step, threshold, alone, filtered, reason)


def _worth_unseen(fitting: Fitting, choice: ChoiceSettings) -> Worth:
    """The filter takes on each inner fold what the others choose, the layer before the threshold that it has."""
    own, fold = fitting.step >= 1.0, fitting.inner_fold[fitting.group]
    kept = np.zeros(len(own), dtype=bool)
    for number in range(int(fitting.inner_fold.max()) + 1):
        step, threshold = _best(fitting, fitting.inner_fold != number, choice)
        kept |= (fold == number) & (fitting.step >= step) & (fitting.probability >= threshold)
    return lambda groups: (_merit(fitting, own, groups, choice), _merit(fitting, kept, groups, choice))


def _worth_within_budget(fitting: Fitting, choice: ChoiceSettings) -> Worth:
    """The filter and the layer before take the threshold that is best on the groups that they are judged on."""
    before = replace(fitting, probability=expit(fitting.lead), step=np.ones(len(fitting.step)))

    def best_merit(rows: Fitting, groups: Mask) -> float:
        step, threshold = _best(rows, groups, choice)
        return _merit(rows, (rows.step >= step) & (rows.probability >= threshold), groups, choice)

    return lambda groups: (best_merit(before, groups), best_merit(fitting, groups))


def _merit(fitting: Fitting, kept: Mask, groups: Mask, choice: ChoiceSettings) -> float:
    """The merit of keeping these candidates in some of the groups."""
    rows = kept & groups[fitting.group]
    n_calls, hours = int(fitting.n_calls[groups].sum()), float(fitting.hours[groups].sum())
    return float(merit(choice, fitting.hit[rows].sum(), rows.sum(), n_calls, hours))


def _error(worth: Worth, n_groups: int) -> float:
    """Standard error of the gain, from leaving out one group at a time; infinite where all calls are in one group.

    Few groups tell little of it: as many as there are, Student's t has as much probability beyond it as a normal
    distribution has beyond one standard error.
    """
    gains = np.empty(n_groups)
    groups = np.ones(n_groups, dtype=bool)
    for number in range(n_groups):
        groups[number] = False
        alone, filtered = worth(groups)
        gains[number] = filtered - alone
        groups[number] = True
    error = np.sqrt((n_groups - 1) * gains.var()) * stdtrit(max(n_groups - 1, 1), _ONE_ERROR)
    return float(error) if np.isfinite(error) else np.inf


def told(value: float, choice: ChoiceSettings) -> str:
    """Return a merit (otus.criterion) in words."""
    if choice.by == "recall" and value < 0:
        return f"{-value:.1f} times the budget of false alarms"
    return f"{_NAMES[choice.by]} {value:.2f}"


def _best(fitting: Fitting, groups: Mask, choice: ChoiceSettings) -> tuple[float, float]:
    """The best step with its threshold on some of the groups; no filter (step 1, threshold 0) if none is better."""
    best, found = -np.inf, (1.0, 0.0)
    n_calls, hours = int(fitting.n_calls[groups].sum()), float(fitting.hours[groups].sum())
    for step in STEPS:
        rows = groups[fitting.group] & (fitting.step >= step)
        threshold = choose_threshold(fitting.probability[rows], fitting.hit[rows], n_calls, hours, choice)
        value = _merit(fitting, rows & (fitting.probability >= threshold), groups, choice)
        if value > best + 1e-9:
            best, found = value, (step, threshold)
    return found


def choose_threshold(
    probability: ArrayLike, hits: ArrayLike, n_calls: int, hours: float, choice: ChoiceSettings
) -> float:
    """Return the threshold t such that keeping the selections with probability >= t is best by the criterion.

    Recall counts all `n_calls`, also those that no selection ever hit. On few events the best threshold is an accident,
    so what is worse than the best by no more than chance counts as equally good, and the result is the middle of the
    widest run of such thresholds that holds a best one. But nothing that is worse than keeping everything (t = 0)
    counts, and nothing that breaks a budget that can be kept. 0 if there is nothing to choose from (no hits).

    `probability` has to be out-of-fold. Raises ValueError for NaN or if there are more hits than calls.
    """
    shares, is_hit = np.asarray(probability, dtype=np.float64), np.asarray(hits, dtype=bool)
    if not np.isfinite(shares).all():
        raise ValueError("probabilities have to be finite to choose a threshold")
    total_hits = int(is_hit.sum())
    if total_hits > n_calls:
        raise ValueError(f"{total_hits} hits but only {n_calls} annotations")
    if not total_hits:
        return 0.0
    # Any threshold in (edges[j], edges[j + 1]] keeps the same selections; j = 0 keeps all, as t = 0 does.
    values, index = np.unique(shares, return_inverse=True)
    edges = np.concatenate([[0.0], values])
    dropped, dropped_hits = (
        np.concatenate([[0], np.cumsum(np.bincount(index, weights=weights, minlength=len(values)))[:-1]])
        for weights in (np.ones(len(shares)), is_hit.astype(np.float64))
    )
    worth = merit(choice, total_hits - dropped_hits, len(shares) - dropped, n_calls, hours)
    best = float(worth.max())
    floor = max(float(worth[0]), best - chance(n_calls))
    if choice.by == "recall":
        floor = max(floor, 0.0) if best >= 0 else best
    low, high = _widest_run(worth >= floor, worth == best, edges)
    middle = float((edges[low] + edges[high + 1]) / 2)
    return middle if middle > edges[low] else float(edges[high + 1])  # the middle of neighbouring floats is one of them


def _widest_run(good: Mask, best: Mask, edges: Reals) -> tuple[int, int]:
    """First and last index of the run of good places that holds a best one and spans the most between edges."""
    changes = np.diff(np.concatenate([[0], good.astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1) - 1, strict=True)
    held = [(int(low), int(high)) for low, high in runs if best[low : high + 1].any()]
    return max(held, key=lambda run: edges[run[1] + 1] - edges[run[0]])
