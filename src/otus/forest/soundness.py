"""Whether what a file holds may be used as a post-filter: every node and number is looked at before it is followed."""

from typing import Any

import numpy as np

from otus.forest.estimators import BoostedTrees, Regression


class UnsoundError(Exception):
    """What is wrong with a forest, in a few words."""


def check_forest(forest: Any) -> None:
    """Raise UnsoundError unless this is a two-class random forest of sound trees, with its own methods."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    _check_plain(forest, RandomForestClassifier)
    n_features, trees = getattr(forest, "n_features_in_", None), getattr(forest, "estimators_", None)
    if not isinstance(n_features, int) or not isinstance(trees, list) or not trees:
        raise UnsoundError("it is not fitted")
    for estimator in (forest, *trees):
        if estimator is not forest:
            _check_plain(estimator, DecisionTreeClassifier)
        classes = getattr(estimator, "classes_", None)
        n_classes, n_outputs = getattr(estimator, "n_classes_", None), getattr(estimator, "n_outputs_", None)
        shape = (getattr(estimator, "n_features_in_", None), n_outputs, n_classes)
        if shape != (n_features, 1, 2) or not np.array_equal(np.asarray(classes), [0, 1]):
            raise UnsoundError("it does not tell hits from false alarms")
    for number, estimator in enumerate(trees):
        try:
            _check_tree(getattr(estimator, "tree_", None), n_features)
        except UnsoundError as error:
            raise UnsoundError(f"tree {number}: {error}") from error


def check_boosting(trees: BoostedTrees) -> None:
    """Raise UnsoundError unless every walk from a root ends in a leaf of the same tree, and every leaf is finite."""
    count = len(trees.feature)
    arrays = {
        "feature": np.int64,
        "left": np.int64,
        "right": np.int64,
        "threshold": np.float64,
        "value": np.float64,
        "nan_left": np.bool_,
    }
    for name, kind in arrays.items():
        _check_array(getattr(trees, name), name, kind, count)
    _check_array(trees.roots, "roots", np.int64, None)
    if type(trees.n_features) is not int or type(trees.baseline) is not float:
        raise UnsoundError("n_features or baseline is not the number that it should be")
    roots = trees.roots
    if count < 1 or len(roots) < 1 or roots[0] != 0 or (np.diff(roots) < 1).any() or roots[-1] >= count:
        raise UnsoundError("its trees do not begin where they should")
    if trees.n_features < 1 or (trees.feature < -1).any() or (trees.feature >= trees.n_features).any():
        raise UnsoundError("it asks for a feature that does not exist")
    leaf = trees.feature < 0
    inner = np.flatnonzero(~leaf)
    children = np.concatenate([trees.left[inner], trees.right[inner]])
    others = np.setdiff1d(np.arange(count), roots)
    same_tree = np.searchsorted(roots, np.tile(inner, 2), "right") == np.searchsorted(roots, children, "right")
    if not np.array_equal(np.sort(children), others) or (children <= np.tile(inner, 2)).any() or not same_tree.all():
        raise UnsoundError("its nodes do not form a tree")
    if np.isnan(trees.threshold[inner]).any():  # infinite ones tell NaN from everything else
        raise UnsoundError("a threshold is not a number")
    _check_finite(trees.value, np.array([trees.baseline]))


def check_regression(regression: Regression) -> None:
    """Raise UnsoundError unless all numbers are finite, one of each kind per feature, and spreads are positive."""
    for name in ("median", "mean", "spread", "weight"):
        _check_array(getattr(regression, name), name, np.float64, regression.n_features)
    if type(regression.intercept) is not float:
        raise UnsoundError("intercept is not the number that it should be")
    _check_finite(
        regression.median, regression.mean, regression.spread, regression.weight, np.array([regression.intercept])
    )
    if regression.n_features < 1 or not (regression.spread > 0).all():
        raise UnsoundError("it cannot be applied to any feature")


def _check_array(array: Any, name: str, kind: type, length: int | None) -> None:
    if type(array) is not np.ndarray or array.dtype != kind or array.ndim != 1 or len(array) != (length or len(array)):
        raise UnsoundError(f"{name} is not the array that it should be")


def _check_finite(*arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise UnsoundError("a number is not finite")


def _check_plain(estimator: Any, kind: type) -> None:
    """An instance of exactly this class, none of whose attributes hides a method."""
    if type(estimator) is not kind:
        raise UnsoundError(f"a {type(estimator).__name__} where a {kind.__name__} belongs")
    if set(vars(estimator)) & set(dir(kind)):
        raise UnsoundError("it hides its own methods")


def _check_tree(tree: Any, n_features: int) -> None:
    """Raise UnsoundError unless every node but the root is the child of exactly one earlier node.

    So every walk from the root ends in a leaf, inside the arrays.
    """
    from sklearn.tree._tree import Tree

    if type(tree) is not Tree or (tree.n_features, tree.n_outputs, tree.max_n_classes) != (n_features, 1, 2):
        raise UnsoundError("another kind of tree")
    count = tree.node_count
    if count < 1 or count != tree.capacity:  # the arrays are views of `capacity` nodes
        raise UnsoundError("its number of nodes is wrong")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = np.flatnonzero((left != -1) | (right != -1))
    children = np.concatenate([left[inner], right[inner]])
    if not np.array_equal(np.sort(children), np.arange(1, count)) or (children <= np.tile(inner, 2)).any():
        raise UnsoundError("its nodes do not form a tree")
    if (feature[inner] < 0).any() or (feature[inner] >= n_features).any():
        raise UnsoundError("it asks for a feature that does not exist")
    if np.isnan(tree.threshold[inner]).any():  # infinite ones tell NaN from everything else
        raise UnsoundError("a threshold is not a number")
    if not ((tree.value >= 0) & (tree.value <= 1)).all():
        raise UnsoundError("a leaf is not a probability")
