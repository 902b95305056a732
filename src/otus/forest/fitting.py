"""Fit the forest on selections that matching has labelled, judge others, and choose its threshold.

Everything is by group: the rows to judge come from other groups than the rows to fit on (the caller's folds), and
the probabilities that the threshold is chosen from are out-of-fold over the groups of the fitting rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otus.config import ForestSettings
from otus.seeds import derive_seed

if TYPE_CHECKING:  # scikit-learn takes a second to import, and who only wants features does not need it
    from sklearn.ensemble import RandomForestClassifier

Reals = NDArray[np.float64]

#: Fewer hits or fewer false alarms than this say too little about 90 features.
MIN_ROWS_PER_CLASS = 5
_INNER_FOLDS = 5

#: Differences of F1 below this do not matter to the choice of the threshold.
_F1_TOLERANCE = 0.01


@dataclass(frozen=True)
class FoldForest:
    """A forest and its judgement: the probability that a selection is a hit.

    `inner_probability` belongs to the fitting rows; each was judged by a forest that saw nothing of its group.
    `probability` belongs to the rows to judge. Without a forest both are NaN and `reason` is a sentence.
    """

    forest: "RandomForestClassifier | None"
    inner_probability: Reals
    probability: Reals
    reason: str


def fit_fold(
    features: ArrayLike,
    hits: ArrayLike,
    groups: Sequence[str] | NDArray[Any],
    judged_features: ArrayLike,
    *,
    settings: ForestSettings,
    seed: int,
) -> FoldForest:
    """Return a random forest fitted on all rows, their out-of-fold probabilities, and those of the judged rows.

    Classes weigh the same in every tree (`class_weight="balanced"` over the fitting rows, so that a tree whose
    bootstrap sample has few hits does not blow these up). The inner cross-validation has up to five grouped,
    stratified folds; fewer, if otherwise some fold would leave only hits or only false alarms to fit on. The same
    seed and rows in the same order give the same probabilities. One thread.

    There is no forest, but a reason, if the rows come from fewer than two groups, hold fewer than five hits or
    fewer than five false alarms, or if every way of leaving groups out leaves one class only.
    """
    rows = np.asarray(features, dtype=np.float64)
    is_hit = np.asarray(hits, dtype=bool)
    judged = np.asarray(judged_features, dtype=np.float64)
    _, group_index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(rows) == len(is_hit) == len(group_index):
        raise ValueError(f"{len(rows)} rows of features, {len(is_hit)} hits and {len(group_index)} groups")
    folds, reason = _inner_folds(is_hit, group_index, derive_seed(seed, "inner folds"))
    if reason:
        return FoldForest(None, np.full(len(rows), np.nan), np.full(len(judged), np.nan), reason)
    inner = np.empty(len(rows))
    for number, (fit_rows, test_rows) in enumerate(folds):
        forest = _fit(rows[fit_rows], is_hit[fit_rows], settings, derive_seed(seed, "inner forest", number))
        inner[test_rows] = hit_probability(forest, rows[test_rows])
    forest = _fit(rows, is_hit, settings, derive_seed(seed, "forest"))
    return FoldForest(forest, inner, hit_probability(forest, judged), "")


def hit_probability(forest: "RandomForestClassifier", features: ArrayLike) -> Reals:
    """Return the forest's probability that each row is a hit; an empty array for no rows."""
    rows = np.asarray(features, dtype=np.float64)
    if not len(rows):
        return np.empty(0)
    probability: Reals = forest.predict_proba(rows)[:, 1]
    return probability


def choose_threshold(probability: ArrayLike, hits: ArrayLike, n_gt: int) -> float:
    """Return the threshold t such that keeping the selections with probability >= t gives the best F1.

    F1 = 2 TP / (kept + n_gt): TP are the hits kept, and recall counts all `n_gt` annotations, also those that no
    selection ever hit. On few events the best threshold is an accident, so F1 within 0.01 of the best, or within
    what losing one hit costs there, counts as equally good, and the result is the middle of the widest run of such
    thresholds that holds a best one. But nothing worse than keeping everything (t = 0) counts: on these selections
    the filter never looks worse than no filter. 0 if there is nothing to choose from (no hits).

    `probability` has to be out-of-fold. Raises ValueError for NaN or if there are more hits than annotations.
    """
    shares, is_hit = np.asarray(probability, dtype=np.float64), np.asarray(hits, dtype=bool)
    if not np.isfinite(shares).all():
        raise ValueError("probabilities have to be finite to choose a threshold")
    total_hits = int(is_hit.sum())
    if total_hits > n_gt:
        raise ValueError(f"{total_hits} hits but only {n_gt} annotations")
    if not total_hits:
        return 0.0
    # Any threshold in (edges[j], edges[j + 1]] keeps the same selections; j = 0 keeps all, as t = 0 does.
    values, index = np.unique(shares, return_inverse=True)
    edges = np.concatenate([[0.0], values])
    dropped, dropped_hits = (
        np.concatenate([[0], np.cumsum(np.bincount(index, weights=weights, minlength=len(values)))[:-1]])
        for weights in (np.ones(len(shares)), is_hit.astype(np.float64))
    )
    kept, kept_hits = len(shares) - dropped, total_hits - dropped_hits
    f1 = 2 * kept_hits / (kept + n_gt)
    best = int(np.argmax(f1))
    one_hit_fewer = 2 * (kept_hits[best] - 1) / (kept[best] - 1 + n_gt)
    floor = max(f1[0], min(f1[best] - _F1_TOLERANCE, one_hit_fewer))
    low, high = _widest_run(f1 >= floor, f1 == f1[best], edges)
    middle = float((edges[low] + edges[high + 1]) / 2)
    return middle if middle > edges[low] else float(edges[high + 1])  # the middle of neighbouring floats is one of them


def importances(forest: "RandomForestClassifier", names: Sequence[str]) -> list[tuple[str, float]]:
    """Return (name, impurity importance) of every feature, most important first; they sum to 1.

    Impurity importance is divided among correlated features, and the 90 are: read it as a hint.
    """
    pairs = zip(names, map(float, forest.feature_importances_), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def _fit(rows: Reals, is_hit: NDArray[np.bool_], settings: ForestSettings, seed: int) -> "RandomForestClassifier":
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        settings.trees,
        min_samples_leaf=settings.min_samples_leaf,
        class_weight="balanced",
        n_jobs=1,
        random_state=seed % 2**32,
    )
    return forest.fit(rows, is_hit.astype(np.int64))


def _inner_folds(
    is_hit: NDArray[np.bool_], group_index: NDArray[np.int64], seed: int
) -> tuple[list[tuple[NDArray[np.int64], NDArray[np.int64]]], str]:
    """Rows to fit on and rows to judge of each inner fold; or no folds and the reason."""
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups, n_hits = len(np.unique(group_index)), int(is_hit.sum())
    counts = f"{n_hits} hits and {len(is_hit) - n_hits} false alarms in {n_groups} group{'s' * (n_groups != 1)}"
    if n_groups < 2:
        return [], f"There are only {counts}, and two groups are needed."
    if min(n_hits, len(is_hit) - n_hits) < MIN_ROWS_PER_CLASS:
        return [], f"There are only {counts}, and {MIN_ROWS_PER_CLASS} of each kind are needed."
    for n_folds in range(min(_INNER_FOLDS, n_groups), 1, -1):
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed % 2**32)
        folds = list(splitter.split(group_index, is_hit, group_index))
        if all(len(test) and 0 < is_hit[fit].sum() < len(fit) for fit, test in folds):
            return folds, ""
    return [], f"There are {counts}, but leaving groups out would leave only one kind to fit on."


def _widest_run(good: NDArray[np.bool_], best: NDArray[np.bool_], edges: Reals) -> tuple[int, int]:
    """First and last index of the run of good places that holds a best one and spans the most between edges."""
    changes = np.diff(np.concatenate([[0], good.astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1) - 1, strict=True)
    held = [(int(low), int(high)) for low, high in runs if best[low : high + 1].any()]
    return max(held, key=lambda run: edges[run[1] + 1] - edges[run[0]])
