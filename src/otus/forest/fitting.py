"""Fit the post-filter on selections that matching has labelled, and judge others.

Everything is by group: the rows to judge come from other groups than the rows to fit on (the caller's folds), and
every fitting row has a probability from an estimator that saw nothing of its group (the inner folds).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from otus.config import ForestSettings
from otus.config.forest import INNER_FOLDS, Candidate
from otus.forest.estimators import fit_estimator, hit_probability, thinned
from otus.metrics import average_precision, curve
from otus.seeds import derive_seed

if TYPE_CHECKING:
    from otus.forest.estimators import Estimator

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]

#: Fewer hits or fewer false alarms than this say too little about a hundred features.
MIN_ROWS_PER_CLASS = 5


@dataclass(frozen=True)
class FoldForest:
    """An estimator and its judgement: the probability that a selection is a hit.

    `candidate` is the way of fitting that was chosen, `fitted_rows` are the rows that it was fitted on (all, if it does
    not thin them). `inner_probability` and `inner_fold` belong to the fitting rows: the row was judged by an estimator
    that saw nothing of its inner fold, which holds all of its group. `probability` belongs to the rows to judge.
    Without an estimator the probabilities are NaN, the folds -1, and `reason` is a sentence.
    """

    forest: "Estimator | None"
    candidate: Candidate | None
    fitted_rows: Indices
    inner_probability: Reals
    inner_fold: Indices
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
    """Return an estimator fitted on all rows, their out-of-fold probabilities, and those of the judged rows.

    The inner cross-validation has up to five grouped, stratified folds; fewer, if otherwise some fold would leave only
    hits or only false alarms to fit on. It chooses among `settings.candidates()` by average precision on the groups
    that were left out (`simplest_good`). The rows of an inner fold get their probability from the candidate that
    the other inner folds choose, so no row has a say in which candidate judges it. (It has taken part in fitting the
    estimators that those folds were judged by: exact nesting would cost five times as many fits, and as the same
    estimators stand for all candidates, that favours none of them.)

    Features may be NaN. The same seed and rows in the same order give the same probabilities.

    There is no estimator, but a reason, if the rows come from fewer than two groups, hold fewer than five hits or
    fewer than five false alarms, or if every way of leaving groups out leaves one class only.
    """
    rows, judged = np.asarray(features, dtype=np.float64), np.asarray(judged_features, dtype=np.float64)
    is_hit = np.asarray(hits, dtype=bool)
    _, group_index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(rows) == len(is_hit) == len(group_index):
        raise ValueError(f"{len(rows)} rows of features, {len(is_hit)} hits and {len(group_index)} groups")
    fold_of, reason = _inner_folds(is_hit, group_index, derive_seed(seed, "inner folds"))
    if reason:
        unknown = np.full(len(rows), np.nan), fold_of, np.full(len(judged), np.nan)
        return FoldForest(None, None, np.zeros(0, dtype=np.int64), *unknown, reason)
    candidates = settings.candidates()
    found = np.empty((len(candidates), len(rows)))
    for number in range(int(fold_of.max()) + 1):
        out, own_seed = fold_of == number, derive_seed(seed, "inner forest", number)
        others = np.flatnonzero(~out)
        for probability, candidate in zip(found, candidates, strict=True):
            kept = others[thinned(is_hit[others], group_index[others], candidate.negatives_per_hit, own_seed)]
            inner = fit_estimator(settings.kind, candidate, rows[kept], is_hit[kept], own_seed)
            probability[out] = hit_probability(inner, rows[out])
    number, inner_probability = _chosen(found, is_hit, fold_of)
    chosen, own_seed = candidates[number], derive_seed(seed, "forest")
    kept = thinned(is_hit, group_index, chosen.negatives_per_hit, own_seed)
    forest = fit_estimator(settings.kind, chosen, rows[kept], is_hit[kept], own_seed)
    return FoldForest(forest, chosen, kept, inner_probability, fold_of, hit_probability(forest, judged), "")


def simplest_good(scores: Reals) -> int:
    """Return the first candidate that is as good as the best one; `scores` is (candidates, folds), simplest first.

    The one standard error rule, paired: a candidate is as good if what the best one is ahead by, on the average of the
    folds, is no more than the standard error of that. Folds with NaN do not count; without any it is the first.
    """
    usable = scores[:, np.isfinite(scores).all(axis=0)]
    n_folds = usable.shape[1]
    if n_folds == 0:
        return 0
    ahead = usable[int(np.argmax(usable.mean(axis=1)))] - usable
    error = ahead.std(axis=1, ddof=1) / np.sqrt(n_folds) if n_folds > 1 else np.zeros(len(scores))
    return int(np.argmax(ahead.mean(axis=1) <= error + 1e-12))


def _chosen(found: Reals, is_hit: Mask, fold_of: Indices) -> tuple[int, Reals]:
    """The candidate that all inner folds choose, and the probabilities that a row has by that of the other folds."""
    n_folds = int(fold_of.max()) + 1
    scores = np.array([[_score(p[fold_of == k], is_hit[fold_of == k]) for k in range(n_folds)] for p in found])
    inner = np.empty(len(is_hit))
    for number in range(n_folds):
        own = fold_of == number
        inner[own] = found[simplest_good(np.delete(scores, number, axis=1)), own]
    return simplest_good(scores), inner


def _score(probability: Reals, is_hit: Mask) -> float:
    """Average precision of hits among all; NaN where there is one kind only."""
    if is_hit.all():
        return float("nan")
    return average_precision(curve(probability, is_hit), int(is_hit.sum()))


def _inner_folds(is_hit: Mask, group_index: Indices, seed: int) -> tuple[Indices, str]:
    """The inner fold of every row; or -1 and the reason."""
    from sklearn.model_selection import StratifiedGroupKFold

    none = np.full(len(is_hit), -1)
    n_groups, n_hits = len(np.unique(group_index)), int(is_hit.sum())
    amounts = ((n_hits, "hit"), (len(is_hit) - n_hits, "false alarm"), (n_groups, "group"))
    counts = "{} and {} in {}".format(*(f"{n} {noun}{'s' * (n != 1)}" for n, noun in amounts))
    if n_groups < 2:
        return none, f"Two groups are needed: there are {counts}."
    if min(n_hits, len(is_hit) - n_hits) < MIN_ROWS_PER_CLASS:
        return none, f"{MIN_ROWS_PER_CLASS} hits and {MIN_ROWS_PER_CLASS} false alarms are needed: there are {counts}."
    for n_folds in range(min(INNER_FOLDS, n_groups), 1, -1):
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed % 2**32)
        folds = list(splitter.split(group_index, is_hit, group_index))
        if all(len(test) and 0 < is_hit[fit].sum() < len(fit) for fit, test in folds):
            fold_of = none.copy()
            for number, (_, test) in enumerate(folds):
                fold_of[test] = number
            return fold_of, ""
    return none, f"Leaving groups out leaves only hits or only false alarms to fit on: there are {counts}."
