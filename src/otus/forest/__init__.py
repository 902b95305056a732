"""The post-filter: features of selections, a forest judged only on groups it never saw, its explanation, its file."""

from otus.forest.choosing import choose_filter, choose_threshold
from otus.forest.estimators import fit_estimator, hit_probability
from otus.forest.features import FEATURE_NAMES, feature_names, selection_features
from otus.forest.fitting import FoldForest, fit_fold
from otus.forest.store import load_forest, save_forest

__all__ = [
    "FEATURE_NAMES",
    "FoldForest",
    "choose_filter",
    "choose_threshold",
    "feature_names",
    "fit_estimator",
    "fit_fold",
    "hit_probability",
    "load_forest",
    "save_forest",
    "selection_features",
]
