"""Which candidates a post-filter keeps, and whether it is used at all: by the criterion of the evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from otus.config import ChoiceSettings
from otus.criterion import chance, merit

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

#: Where candidates begin between the permissive threshold (0) and that of the layer before (1), in logits.
STEPS = (1.0, 0.5, 0.0)


#: Share of a normal distribution that lies below one standard error.
_ONE_ERROR = 0.8413

_NAMES = {"f1": "F1", "recall": "recall within the budget", "cost": "share of the cost saved"}


@dataclass(frozen=True)
class Fitting:
    """The candidates that a filter was fitted on, and the truth there.

    Of each candidate: probability (of an estimator that saw nothing of its inner fold), step (where the layer before
    puts it), hit, and the number of its group. Of each group: n_calls, hours, and inner_fold (-1 without a candidate).
    """

    probability: Reals
    step: Reals
    hit: Mask
    group: Indices
    n_calls: Indices
    hours: Reals
    inner_fold: Indices


@dataclass(frozen=True)
class Filter:
    """Candidates from `step` on are kept if their probability reaches `threshold`.

    `alone` and `filtered` are the merit of the layer before and of the filter on the fitting side, where every group
    was filtered by what the others had chosen; `reason` says why the filter is not to be used, if so.
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
    """
    own = fitting.step >= 1.0
    fold = fitting.inner_fold[fitting.group]
    kept = np.zeros(len(own), dtype=bool)
    for number in range(int(fitting.inner_fold.max()) + 1):
        step, threshold = _best(fitting, fitting.inner_fold != number, choice)
        kept |= (fold == number) & (fitting.step >= step) & (fitting.probability >= threshold)
    all_groups = np.ones(len(fitting.n_calls), dtype=bool)
    alone, filtered = (_merit(fitting, rows, all_groups, choice) for rows in (own, kept))
    step, threshold = _best(fitting, all_groups, choice)
    n_calls = int(fitting.n_calls.sum())
    reason = ""
    if not filtered - alone > max(chance(n_calls), _error(fitting, own, kept, choice)):
        reason = (
            f"On groups that it did not see it is no better than chance allows: {_told(filtered, choice)} with it and "
            f"{_told(alone, choice)} without, on {n_calls} calls."
        )
    return Filter(step, threshold, alone, filtered, reason)


def _merit(fitting: Fitting, kept: Mask, groups: Mask, choice: ChoiceSettings) -> float:
    """The merit of keeping these candidates in some of the groups."""
    rows = kept & groups[fitting.group]
    n_calls, hours = int(fitting.n_calls[groups].sum()), float(fitting.hours[groups].sum())
    return float(merit(choice, fitting.hit[rows].sum(), rows.sum(), n_calls, hours))


def _error(fitting: Fitting, own: Mask, kept: Mask, choice: ChoiceSettings) -> float:
    """Standard error of the gain, from leaving out one group at a time; infinite where all calls are in one group.

    Few groups tell little of it: as many as there are, Student's t has as much probability beyond it as a normal
    distribution has beyond one standard error.
    """
    gains = np.empty(len(fitting.n_calls))
    groups = np.ones(len(gains), dtype=bool)
    for number in range(len(gains)):
        groups[number] = False
        gains[number] = _merit(fitting, kept, groups, choice) - _merit(fitting, own, groups, choice)
        groups[number] = True
    error = np.sqrt((len(gains) - 1) * gains.var()) * stdtrit(max(len(gains) - 1, 1), _ONE_ERROR)
    return float(error) if np.isfinite(error) else np.inf


def _told(value: float, choice: ChoiceSettings) -> str:
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
