"""The random-forest post-filter: features of selections, a forest judged only on groups it never saw, its file."""

from otus.forest.features import FEATURE_NAMES, feature_names, selection_features
from otus.forest.fitting import FoldForest, choose_threshold, fit_fold, hit_probability, importances
from otus.forest.store import load_forest, save_forest

__all__ = [
    "FEATURE_NAMES",
    "FoldForest",
    "choose_threshold",
    "feature_names",
    "fit_fold",
    "hit_probability",
    "importances",
    "load_forest",
    "save_forest",
    "selection_features",
]
