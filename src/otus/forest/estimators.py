"""What tells hits from false alarms: a random forest, boosted trees, or a logistic regression.

Of boosted trees and of the regression only numbers are kept, in classes of our own: they are stored and checked as
plain arrays, and their predictions do not depend on the insides of another version of scikit-learn.
All three take NaN for what is not known of a selection.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from otus.config.forest import Candidate

if TYPE_CHECKING:  # scikit-learn takes a second to import, and who only wants features does not need it
    from sklearn.ensemble import RandomForestClassifier

    Estimator: TypeAlias = "RandomForestClassifier | BoostedTrees | Regression"

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]
Kind = Literal["forest", "boosting", "logistic"]

#: A step of boosting, and the most leaves of one of its trees: small ones, for some hundred selections.
_LEARNING_RATE = 0.05
_LEAVES = 8

_STEPS = 2000  # of the regression's solver; it needs some tens


@dataclass(frozen=True)
class BoostedTrees:
    """Trees whose values add up to the log odds of a hit; the nodes of all trees lie one after the other.

    roots: first node of each tree; feature: column that a node asks for, -1 in leaves; threshold: values up to it go
    to `left`, others to `right` (numbers of nodes); nan_left: whether NaN goes to the left; value: what a leaf adds.
    """

    baseline: float
    n_features: int
    roots: Indices
    feature: Indices
    threshold: Reals
    left: Indices
    right: Indices
    nan_left: Mask
    value: Reals

    def probability(self, rows: Reals) -> Reals:
        """Return the probability of a hit for each row."""
        total = np.full(len(rows), self.baseline)
        number = np.arange(len(rows))
        for root in self.roots:
            node = np.full(len(rows), root)
            while (inner := self.feature[node] >= 0).any():
                here, row = node[inner], number[inner]
                asked = rows[row, self.feature[here]]
                goes_left = np.where(np.isnan(asked), self.nan_left[here], asked <= self.threshold[here])
                node[inner] = np.where(goes_left, self.left[here], self.right[here])
            total += self.value[node]
        return np.asarray(expit(total))


@dataclass(frozen=True)
class Regression:
    """A logistic regression: NaN becomes the median, and every feature is (x - mean) / spread."""

    median: Reals
    mean: Reals
    spread: Reals
    weight: Reals
    intercept: float

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.weight)

    def probability(self, rows: Reals) -> Reals:
        """Return the probability of a hit for each row."""
        known = np.where(np.isnan(rows), self.median, rows)
        return np.asarray(expit((known - self.mean) / self.spread @ self.weight + self.intercept))


def fit_estimator(kind: Kind, candidate: Candidate, rows: Reals, is_hit: Mask, seed: int) -> "Estimator":
    """Return the estimator that is fitted on these rows (selections x features; NaN where not known).

    The same rows in the same order and the same seed give the same estimator. `thinned` chooses the rows.
    """
    if kind == "forest":
        return _forest(candidate, rows, is_hit, seed)
    if kind == "boosting":
        return _boosting(candidate, rows, is_hit, seed)
    return _regression(candidate, rows, is_hit)


def hit_probability(estimator: "Estimator", features: ArrayLike) -> Reals:
    """Return the probability that each row is a hit; an empty array for no rows."""
    rows = np.asarray(features, dtype=np.float64)
    if not len(rows):
        return np.empty(0)
    if isinstance(estimator, BoostedTrees | Regression):
        return estimator.probability(rows)
    probability: Reals = estimator.predict_proba(rows)[:, 1]
    return probability


def thinned(is_hit: Mask, group_index: Indices, negatives_per_hit: float | None, seed: int) -> Indices:
    """Return the rows to fit on: all hits, and at most so many false alarms per hit (five at least; None = all).

    No group keeps more false alarms than any other could: the groups with the most lose first. Which ones of a group
    stay is a matter of the seed. The rows keep their order.
    """
    negatives = np.flatnonzero(~is_hit)
    if negatives_per_hit is None:
        return np.arange(len(is_hit))
    wanted = max(5, round(negatives_per_hit * int(is_hit.sum())))
    if len(negatives) <= wanted:
        return np.arange(len(is_hit))
    lot = np.random.default_rng(seed).random(len(negatives))
    order = np.lexsort((lot, group_index[negatives]))
    _, first, sizes = np.unique(group_index[negatives[order]], return_index=True, return_counts=True)
    turn = np.arange(len(order)) - np.repeat(first, sizes)  # the first of every group stay before any second one does
    kept = negatives[order[np.lexsort((lot[order], turn))][:wanted]]
    return np.sort(np.concatenate([np.flatnonzero(is_hit), kept]))


def _weight(candidate: Candidate) -> str | None:
    return "balanced" if candidate.class_weight == "balanced" else None


def _forest(candidate: Candidate, rows: Reals, is_hit: Mask, seed: int) -> "RandomForestClassifier":
    from sklearn.ensemble import RandomForestClassifier

    # The weights are those of all rows, so that a tree whose bootstrap sample has few hits does not blow these up.
    forest = RandomForestClassifier(
        candidate.trees,
        min_samples_leaf=candidate.min_samples_leaf,
        class_weight=_weight(candidate),
        n_jobs=1,
        random_state=seed % 2**32,
    )
    return forest.fit(rows, is_hit.astype(np.int64))


def _boosting(candidate: Candidate, rows: Reals, is_hit: Mask, seed: int) -> BoostedTrees:
    from sklearn.ensemble import HistGradientBoostingClassifier

    boosting = HistGradientBoostingClassifier(
        max_iter=candidate.trees,
        min_samples_leaf=candidate.min_samples_leaf,
        class_weight=_weight(candidate),
        learning_rate=_LEARNING_RATE,
        max_leaf_nodes=_LEAVES,
        early_stopping=False,
        random_state=seed % 2**32,
    )
    known = np.where(np.isnan(rows).all(axis=0), 0.0, rows)  # scikit-learn 1.9 has no bins for a column of NaN
    boosting.fit(known, is_hit.astype(np.int64))
    trees = [stage[0].nodes for stage in boosting._predictors]
    nodes = np.concatenate(trees)
    roots = np.cumsum([0, *map(len, trees[:-1])])
    shift = np.repeat(roots, list(map(len, trees)))
    leaf = nodes["is_leaf"].astype(bool)
    return BoostedTrees(
        baseline=float(boosting._baseline_prediction.item()),
        n_features=rows.shape[1],
        roots=roots.astype(np.int64),
        feature=np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
        threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
        left=np.where(leaf, -1, nodes["left"] + shift).astype(np.int64),
        right=np.where(leaf, -1, nodes["right"] + shift).astype(np.int64),
        nan_left=nodes["missing_go_to_left"].astype(bool),
        value=np.where(leaf, nodes["value"], 0.0),
    )


def _regression(candidate: Candidate, rows: Reals, is_hit: Mask) -> Regression:
    from sklearn.linear_model import LogisticRegression

    known = ~np.isnan(rows)
    median = np.array([np.median(column[k]) if k.any() else 0.0 for column, k in zip(rows.T, known.T, strict=True)])
    filled = np.where(known, rows, median)
    mean, spread = filled.mean(axis=0), filled.std(axis=0)
    spread = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(mean)), spread, 1.0)
    penalty = candidate.penalty or 1.0
    fitted = LogisticRegression(C=1.0 / penalty, class_weight=_weight(candidate), max_iter=_STEPS)
    fitted.fit((filled - mean) / spread, is_hit.astype(np.int64))
    return Regression(median, mean, spread, fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0]))
