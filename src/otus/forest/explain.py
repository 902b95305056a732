"""What a forest looks at: which features it could not do without on groups that it never saw, and in which direction.

Importance is the drop of average precision (of hits among candidates) when a feature's values are dealt out anew among
the candidates of a fold: its tie to the truth and to all other features is cut, its distribution stays. They are dealt
over hits and false alarms together, because within each of the two a feature would keep what it tells them apart by,
and over groups, because most groups have a handful of candidates. Features that say the same share their
importance: each can be done without while the other is there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import difference_interval, group_draws
from otus.forest.estimators import BoostedTrees, Regression, hit_probability
from otus.seeds import derive_seed
from otus.tables import POOLED, table

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from otus.forest.estimators import Estimator

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A feature is dealt out so often that this many rows are judged for it, but 3 to 20 times.
_ROWS_PER_FEATURE = 2000
_DEALS = (3, 20)

_RESAMPLES = 100  # of the groups; they give a standard error only
_ROWS_AT_ONCE = 20000

#: Partial dependence: of so many features, at these quantiles of their values, over at most so many rows of a fold.
_TOP = 6
_SHARES = np.linspace(0.05, 0.95, 10)
_ROWS_AVERAGED = 300


@dataclass(frozen=True)
class Unseen:
    """The forest of one fold and label, the candidates (rows x features) that it judges, and those it was fitted on."""

    fold: int
    estimator: "Estimator"
    rows: Reals
    hit: Mask
    group: NDArray[np.str_]
    fitted_rows: Reals
    fitted_hit: Mask


@dataclass(frozen=True)
class Explanation:
    """Tables `importances` and `dependence` of one label."""

    importances: pd.DataFrame
    dependence: pd.DataFrame


@dataclass(frozen=True)
class _Drops:
    """Drop of each feature (features), and in each resample of the groups (features, resamples)."""

    value: Reals
    resampled: Reals


def explain(folds: Sequence[Unseen], names: Sequence[str], keys: Mapping[str, Any], seed: int) -> Explanation:
    """Return what the forests of one label look at; `names` are the features, `keys` further columns of both tables.

    importances: one row per fold and feature, and per feature for the mean over folds (fold `pooled`). `drop` is the
    loss of average precision on the judged candidates, its 95 % interval resamples their groups; `helps`: the interval
    lies above 0. A fold whose candidates are all hits or all false alarms has no rows. Of random forests, as a hint
    only, also `out_of_bag`, the same drop on the selections that the trees left out when they were fitted (but whose
    groups they saw), and `impurity`, the share of the splits' gain.

    dependence: of the six features with the largest mean drop, the probability of a hit when all judged candidates have
    that value, averaged over the folds, with 5 and 95 % quantiles over the folds. Without a fold both are empty.
    """
    usable = [one for one in folds if 0 < one.hit.sum() < len(one.hit)]
    if not usable:
        return Explanation(table("importances", []), table("dependence", []))
    drops = [_drops(one, names, derive_seed(seed, one.fold)) for one in usable]
    hints = [_hints(one, names, derive_seed(seed, one.fold, "out of bag")) for one in usable]
    pooled = _Drops(np.mean([own.value for own in drops], axis=0), np.mean([own.resampled for own in drops], axis=0))
    parts = [_rows(str(one.fold), [one], own, hint, names) for one, own, hint in zip(usable, drops, hints, strict=True)]
    parts.append(_rows(POOLED, usable, pooled, {k: np.mean([h[k] for h in hints], axis=0) for k in hints[0]}, names))
    importances = pd.concat(parts, ignore_index=True).assign(**keys)
    top = [int(i) for i in np.argsort(-pooled.value, kind="stable")[:_TOP]]
    dependence = [_dependence(usable, column, derive_seed(seed, "dependence")) for column in top]
    curves = [own.assign(feature=names[top[i]], rank=i + 1, **keys) for i, own in enumerate(dependence)]
    return Explanation(table("importances", importances), table("dependence", pd.concat(curves, ignore_index=True)))


def average_precisions(probability: Reals, hit: Mask, weights: Reals) -> Reals:
    """Return the average precision of hits among all for each row of `weights` (draws, rows); NaN without a hit."""
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.diff(probability[order]) != 0, True)
    weighed = weights[:, order]
    n_pred, tp = np.cumsum(weighed, axis=1)[:, last], np.cumsum(weighed * hit[order], axis=1)[:, last]
    precision = np.divide(tp, n_pred, out=np.zeros_like(tp), where=n_pred > 0)
    total = (precision * np.diff(tp, axis=1, prepend=0.0)).sum(axis=1)
    found: Reals = np.divide(total, tp[:, -1], out=np.full(len(tp), np.nan), where=tp[:, -1] > 0)
    return found


def _drops(one: Unseen, names: Sequence[str], seed: int) -> _Drops:
    """What each feature is worth on the judged candidates of a fold."""
    draws = group_draws(one.group, n=_RESAMPLES, seed=derive_seed(seed, "resamples"))
    weights = np.vstack([np.ones(len(one.group)), draws.weights[:, np.searchsorted(draws.groups, one.group)]])
    whole = average_precisions(hit_probability(one.estimator, one.rows), one.hit, weights)
    n_deals = int(np.clip(_ROWS_PER_FEATURE // len(one.rows), *_DEALS))
    used = _used_features(one.estimator)
    drops = np.zeros((len(names), len(weights)))
    for column, dealt in _dealt(one, [c for c in range(len(names)) if used[c]], names, n_deals, seed):
        drops[column] += (whole - average_precisions(dealt, one.hit, weights)) / n_deals
    return _Drops(drops[:, 0], drops[:, 1:])


def _dealt(
    one: Unseen, columns: Sequence[int], names: Sequence[str], n_deals: int, seed: int
) -> Iterator[tuple[int, Reals]]:
    """Each column with the probabilities when it is dealt out anew, several deals one after the other."""
    n = len(one.rows)
    deals = [(column, deal) for column in columns for deal in range(n_deals)]
    at_once = max(1, _ROWS_AT_ONCE // n)
    for begin in range(0, len(deals), at_once):
        part = deals[begin : begin + at_once]
        rows = np.tile(one.rows, (len(part), 1))
        for place, (column, deal) in enumerate(part):
            random = np.random.default_rng(derive_seed(seed, "deal", names[column], deal))
            rows[place * n : (place + 1) * n, column] = random.permutation(one.rows[:, column])
        probability = hit_probability(one.estimator, rows)
        yield from ((column, probability[i * n : (i + 1) * n]) for i, (column, _) in enumerate(part))


def _used_features(estimator: "Estimator") -> Mask:
    """Which features the estimator asks for at all."""
    if isinstance(estimator, Regression):
        return np.asarray(estimator.weight != 0.0)
    used = np.zeros(
        estimator.n_features if isinstance(estimator, BoostedTrees) else estimator.n_features_in_, dtype=bool
    )
    trees = (
        [estimator.feature] if isinstance(estimator, BoostedTrees) else [t.tree_.feature for t in estimator.estimators_]
    )
    for feature in trees:
        used[np.unique(feature[feature >= 0])] = True
    return used


def _hints(one: Unseen, names: Sequence[str], seed: int) -> dict[str, Reals]:
    """Out-of-bag and impurity importance of a random forest; NaN of the others, which have none."""
    if isinstance(one.estimator, BoostedTrees | Regression):
        unknown = np.full(len(names), np.nan)
        return {"out_of_bag": unknown, "impurity": unknown}
    return {
        "out_of_bag": _out_of_bag(one.estimator, one, names, seed),
        "impurity": np.asarray(one.estimator.feature_importances_, dtype=np.float64),
    }


def _out_of_bag(forest: "RandomForestClassifier", one: Unseen, names: Sequence[str], seed: int) -> Reals:
    """Drop of average precision on the fitting rows, each judged by the trees that left it out."""
    rows, n = one.fitted_rows.astype(np.float32), len(one.fitted_rows)
    trees = [tree.tree_ for tree in forest.estimators_]
    left_out = [np.setdiff1d(np.arange(n), samples) for samples in forest.estimators_samples_]
    judged = [tree.predict(rows[out])[:, 1] for tree, out in zip(trees, left_out, strict=True)]
    sums, times = np.zeros(n), np.zeros(n)
    for out, own in zip(left_out, judged, strict=True):
        sums[out] += own
        times[out] += 1
    known = times > 0
    hit, ones = one.fitted_hit[known], np.ones((1, int(known.sum())))
    whole = average_precisions(sums[known] / times[known], hit, ones)[0]
    asks = np.zeros((len(trees), len(names)), dtype=bool)
    for number, tree in enumerate(trees):
        asks[number, np.unique(tree.feature[tree.feature >= 0])] = True
    drops = np.zeros(len(names))
    for column in np.flatnonzero(asks.any(axis=0)).tolist():
        dealt = rows.copy()
        order = np.random.default_rng(derive_seed(seed, names[column])).permutation(n)
        dealt[:, column] = rows[order, column]
        other = sums.copy()
        for number in np.flatnonzero(asks[:, column]).tolist():
            out = left_out[number]
            other[out] += trees[number].predict(dealt[out])[:, 1] - judged[number]
        drops[column] = whole - average_precisions(other[known] / times[known], hit, ones)[0]
    return drops


def _rows(
    fold: str, folds: Sequence[Unseen], drops: _Drops, hints: Mapping[str, Reals], names: Sequence[str]
) -> pd.DataFrame:
    groups = np.concatenate([one.group for one in folds])
    hits = np.concatenate([one.hit for one in folds])
    n_groups = len(np.unique(groups))
    intervals = [
        difference_interval(float(value), resampled, n_groups)
        for value, resampled in zip(drops.value, drops.resampled, strict=True)
    ]
    return pd.DataFrame(
        {
            "fold": fold,
            "feature": list(names),
            "n_groups": n_groups,
            "n_hits": int(hits.sum()),
            "n_false_alarms": int((~hits).sum()),
            "drop": drops.value,
            "drop_low": [interval.low for interval in intervals],
            "drop_high": [interval.high for interval in intervals],
            "helps": [interval.low > 1e-12 for interval in intervals],
            **hints,
        }
    )


def _dependence(folds: Sequence[Unseen], column: int, seed: int) -> pd.DataFrame:
    """Mean probability over the candidates of each fold where the feature has one value after the other."""
    values = np.concatenate([one.rows[:, column] for one in folds])
    if not (known := np.isfinite(values)).any():
        return pd.DataFrame()
    grid, first = np.unique(np.quantile(values[known], _SHARES), return_index=True)
    means = np.empty((len(folds), len(grid)))
    for place, one in enumerate(folds):
        order = np.random.default_rng(derive_seed(seed, one.fold)).permutation(len(one.rows))[:_ROWS_AVERAGED]
        rows = np.tile(one.rows[order], (len(grid), 1))
        rows[:, column] = np.repeat(grid, len(order))
        means[place] = hit_probability(one.estimator, rows).reshape(len(grid), -1).mean(axis=1)
    low, high = np.quantile(means, [0.05, 0.95], axis=0)
    return pd.DataFrame(
        {
            "n_folds": len(folds),
            "share_below": _SHARES[first],
            "value": grid,
            "probability": means.mean(axis=0),
            "probability_low": low,
            "probability_high": high,
        }
    )
