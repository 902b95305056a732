import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeRegressor

from otus.config.forest import Candidate
from otus.errors import DataError
from otus.forest import fit_estimator, hit_probability, load_forest, save_forest
from otus.forest.estimators import BoostedTrees, Regression

NAMES = ["a", "b", "c"]
CARD = {"feature_names": NAMES, "threshold": 0.4, "rows": 60}


def fitted(kind=RandomForestClassifier, n_features=3, **settings):
    random = np.random.default_rng(0)
    features = random.normal(size=(60, n_features))
    return kind(12, random_state=1, **settings).fit(features, (features[:, 0] > 0).astype(int))


def rows():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 3))
    hits = features[:, 0] > 0
    features[::9, 1:] = np.nan
    return features, hits


def plain(kind):
    """Boosted trees or a regression."""
    features, hits = rows()
    logistic = kind == "logistic"
    candidate = Candidate(None if logistic else 12, None if logistic else 2, 1.0 if logistic else None, None, "none")
    return fit_estimator(kind, candidate, features, hits, 1)


def as_kept(estimator, **changes):
    return {"kind": type(estimator).__name__, **asdict(estimator), **changes}


def store(folder, content, card=CARD):
    """A file and a card that fit each other, as an attacker would make them."""
    path = folder / "bad.skops"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": hashlib.sha256(content).hexdigest()}))
    return path


def write_by_hand(folder, thing, card=CARD):
    return store(folder, skops.io.dumps(thing), card)


def test_round_trip(tmp_path):
    forest = fitted(min_samples_leaf=2, class_weight="balanced")
    path = tmp_path / "sub" / "fold.0.skops"
    save_forest(path, forest, CARD)
    loaded, card = load_forest(path)
    points = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_array_equal(loaded.predict_proba(points), forest.predict_proba(points))
    assert {name: card[name] for name in CARD} == CARD
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(card["versions"]) == {"otus", "scikit-learn", "skops"}
    assert sorted(file.name for file in path.parent.iterdir()) == ["fold.0.json", "fold.0.skops"]


def test_a_forest_of_stumps_is_sound(tmp_path):
    forest = fitted(min_samples_leaf=40)  # every tree is a single leaf
    save_forest(tmp_path / "f.skops", forest, CARD)
    assert load_forest(tmp_path / "f.skops")[0].estimators_[0].tree_.node_count == 1


def test_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "f.skops"
    save_forest(path, fitted(), CARD)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="altered"):
        load_forest(path)


def test_missing_and_foreign_cards_are_refused(tmp_path):
    path = tmp_path / "f.skops"
    with pytest.raises(DataError, match="card cannot be read"):
        load_forest(path)
    for text in ("not json", "[]", "{}", '{"sha256": 3}'):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(DataError, match="card"):
            load_forest(path)
    path.with_suffix(".json").write_text('{"sha256": "00"}')
    with pytest.raises(DataError, match="forest cannot be read"):
        load_forest(path)


def test_names_must_count_the_features(tmp_path):
    with pytest.raises(DataError, match="does not name its 3 features"):
        load_forest(write_by_hand(tmp_path, fitted(), {"feature_names": ["a"]}))


def test_only_skops_names(tmp_path):
    with pytest.raises(ValueError, match=r"\.skops"):
        save_forest(tmp_path / "f.pkl", fitted(), CARD)
    with pytest.raises(ValueError, match=r"\.skops"):
        load_forest(tmp_path / "f.pkl")


class _Foreign:
    def __setstate__(self, state):
        raise AssertionError("a foreign type was built")

    def __getstate__(self):
        return {"a": 1}


def test_foreign_types_are_refused_before_they_are_built(tmp_path):
    forest = fitted()
    forest.extra = _Foreign()
    with pytest.raises(DataError, match="types that no forest has"):
        load_forest(write_by_hand(tmp_path, forest))
    with pytest.raises(DataError, match="types that no forest has"):
        load_forest(write_by_hand(tmp_path, _Foreign()))


@pytest.mark.parametrize("thing", [OrderedDict(a=1), [1, 2], Fraction(1, 2), np.arange(3)])
def test_other_things_are_refused(tmp_path, thing):
    with pytest.raises(DataError):
        load_forest(write_by_hand(tmp_path, thing))


def test_not_a_zip_is_refused(tmp_path):
    path = store(tmp_path, b"\x80\x04 a pickle, perhaps")
    with pytest.raises(DataError, match="not a forest that this version reads"):
        load_forest(path)


def test_other_estimators_are_refused(tmp_path):
    with pytest.raises(DataError, match="ExtraTreesClassifier"):
        load_forest(write_by_hand(tmp_path, fitted(ExtraTreesClassifier)))
    with pytest.raises(DataError, match="not fitted"):
        load_forest(write_by_hand(tmp_path, RandomForestClassifier()))
    mixed = fitted()
    mixed.estimators_[1] = DecisionTreeRegressor().fit(np.zeros((4, 3)), np.arange(4))
    with pytest.raises(DataError, match="DecisionTreeRegressor"):
        load_forest(write_by_hand(tmp_path, mixed))
    shadowed = fitted()
    shadowed.predict_proba = np.sin
    with pytest.raises(DataError, match="hides"):
        load_forest(write_by_hand(tmp_path, shadowed))
    narrow = fitted()
    narrow.estimators_[3] = fitted(n_features=2).estimators_[0]
    with pytest.raises(DataError, match="does not tell"):
        load_forest(write_by_hand(tmp_path, narrow))
    narrow = fitted()
    narrow.estimators_[3].tree_ = fitted(n_features=5).estimators_[0].tree_
    with pytest.raises(DataError, match="tree 3: another kind"):
        load_forest(write_by_hand(tmp_path, narrow))


def set_node(field, index, value):
    def change(state):
        state["nodes"][field][index] = value

    return change


def _loop_beside_the_tree(state):
    """The root's inner child becomes its own child, and the root takes over that one's child."""
    nodes = state["nodes"]
    side = next(name for name in ("left_child", "right_child") if nodes["left_child"][nodes[name][0]] != -1)
    child = nodes[side][0]
    nodes[side][0] = nodes["left_child"][child]
    nodes["left_child"][child] = child


def _values_too_large(state):
    state["values"][0] = 7.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_node("left_child", 0, 10**6), "do not form a tree"),
        (set_node("right_child", 0, -7), "do not form a tree"),
        (set_node("right_child", 0, -1), "do not form a tree"),
        (set_node("left_child", 0, 0), "do not form a tree"),  # a cycle
        (set_node("right_child", 0, 1), "do not form a tree"),  # one child twice
        (set_node("feature", 0, 3), "a feature that does not exist"),
        (set_node("feature", 0, -2), "a feature that does not exist"),
        (set_node("threshold", 0, np.nan), "threshold is not a number"),
        (_loop_beside_the_tree, "do not form a tree"),
        (_values_too_large, "not a probability"),
    ],
)
def test_unsound_trees_are_refused(tmp_path, change, words):
    forest = fitted()
    tree = forest.estimators_[2].tree_
    state = tree.__getstate__()
    state = state | {"nodes": state["nodes"].copy(), "values": state["values"].copy()}
    change(state)
    tree.__setstate__(state)
    with pytest.raises(DataError, match=f"tree 2: .*{words}"):
        load_forest(write_by_hand(tmp_path, forest))


@pytest.mark.parametrize("count", [1, 0, -1])
def test_wrong_node_count_is_refused(tmp_path, count):
    # Changed inside the file: asking such a tree for its nodes would already crash. (Too large a count is cut to
    # the nodes that are there by scikit-learn.)
    content = io.BytesIO(skops.io.dumps(fitted()))
    changed = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                tree = schema["content"]["content"]["estimators_"]["content"][2]["content"]["content"]["tree_"]
                tree["content"]["content"]["node_count"] |= {"content": str(count), "__id__": 1}
                data = json.dumps(schema).encode()
            new.writestr(name, data)
    with pytest.raises(DataError, match="tree 2: its number of nodes is wrong"):
        load_forest(store(tmp_path, changed.getvalue()))


@pytest.mark.parametrize("kind", ["boosting", "logistic"])
def test_the_other_kinds_come_back_as_they_were(tmp_path, kind):
    estimator, (features, _) = plain(kind), rows()
    path = tmp_path / "f.skops"
    save_forest(path, estimator, CARD)
    loaded, card = load_forest(path)
    assert type(loaded) is type(estimator) and card["feature_names"] == NAMES
    for name, value in asdict(estimator).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    np.testing.assert_array_equal(hit_probability(loaded, features), hit_probability(estimator, features))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="altered"):
        load_forest(path)


def test_a_forest_that_knew_nan_is_sound(tmp_path):
    random = np.random.default_rng(0)
    features = random.normal(size=(80, 3))
    features[random.random(features.shape) < 0.4] = np.nan
    forest = RandomForestClassifier(12, random_state=1).fit(features, np.isnan(features[:, 0]).astype(int))
    assert any(np.isinf(tree.tree_.threshold).any() for tree in forest.estimators_), "a split between NaN and the rest"
    save_forest(tmp_path / "f.skops", forest, CARD)
    loaded, _ = load_forest(tmp_path / "f.skops")
    np.testing.assert_array_equal(loaded.predict_proba(features), forest.predict_proba(features))


def inner_node(trees):
    """A node with two children that is no root, and its tree's other nodes lie before and after it."""
    return next(int(k) for k in np.flatnonzero(trees.feature >= 0) if k not in trees.roots)


def changed(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


BAD_TREES = {
    "a child beyond the end": lambda t: {"left": changed(t.left, 0, len(t.left))},
    "a negative child": lambda t: {"right": changed(t.right, 0, -5)},
    "no child": lambda t: {"right": changed(t.right, 0, -1)},
    "a cycle": lambda t: {"left": changed(t.left, inner_node(t), 0)},
    "its own child": lambda t: {"left": changed(t.left, inner_node(t), inner_node(t))},
    "one child twice": lambda t: {"right": changed(t.right, 0, t.left[0])},
    "a child in another tree": lambda t: {
        "left": changed(changed(t.left, 0, t.left[t.roots[1]]), t.roots[1], t.left[0])
    },
}


@pytest.mark.parametrize("change", BAD_TREES.values(), ids=BAD_TREES)
def test_unsound_boosted_trees_are_refused(tmp_path, change):
    trees = plain("boosting")
    with pytest.raises(DataError, match="do not form a tree"):
        load_forest(write_by_hand(tmp_path, as_kept(trees, **change(trees))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"feature": changed(t.feature, 0, 3)}, "a feature that does not exist"),
        (lambda t: {"feature": changed(t.feature, 0, -2)}, "a feature that does not exist"),
        (lambda t: {"n_features": 0}, "a feature that does not exist"),
        (lambda t: {"roots": t.roots[1:]}, "do not begin where they should"),
        (lambda t: {"roots": t.roots[::-1].copy()}, "do not begin where they should"),
        (lambda t: {"roots": np.append(t.roots, len(t.left))}, "do not begin where they should"),
        (lambda t: {"roots": t.roots[:0]}, "do not begin where they should"),
        (lambda t: {"threshold": changed(t.threshold, 0, np.nan)}, "threshold is not a number"),
        (lambda t: {"value": changed(t.value, -1, np.inf)}, "a number is not finite"),
        (lambda t: {"baseline": float("nan")}, "a number is not finite"),
        (lambda t: {"value": t.value[:-1]}, "value is not the array"),
        (lambda t: {"left": t.left.astype(float)}, "left is not the array"),
        (lambda t: {"nan_left": t.nan_left.astype(np.int64)}, "nan_left is not the array"),
        (lambda t: {"threshold": list(t.threshold)}, "threshold is not the array"),
        (lambda t: {"baseline": "low"}, "baseline is not the number"),
        (lambda t: {"baseline": np.zeros(2)}, "baseline is not the number"),
        (lambda t: {"n_features": "many"}, "n_features or baseline is not the number"),
        (lambda t: {"n_features": np.array([3])}, "n_features or baseline is not the number"),
        (lambda t: {"more": 1}, "neither a forest nor the arrays"),
        (lambda t: {"kind": "Regression"}, "neither a forest nor the arrays"),
    ],
)
def test_other_arrays_than_those_of_boosted_trees_are_refused(tmp_path, change, words):
    trees = plain("boosting")
    with pytest.raises(DataError, match=words):
        load_forest(write_by_hand(tmp_path, as_kept(trees, **change(trees))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spread": np.array([1.0, 0.0, 1.0])}, "cannot be applied"),
        ({"spread": np.array([1.0, np.inf, 1.0])}, "not finite"),
        ({"mean": np.zeros(2)}, "mean is not the array"),
        ({"weight": np.array([1.0, np.nan, 1.0])}, "not finite"),
        ({"weight": np.zeros((3, 3))}, "weight is not the array"),
        ({"median": np.zeros(3, dtype=int)}, "median is not the array"),
        ({"intercept": float("inf")}, "not finite"),
        ({"intercept": "one"}, "intercept is not the number"),
        ({"intercept": np.zeros((2, 4))}, "intercept is not the number"),
    ],
)
def test_unsound_regressions_are_refused(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        load_forest(write_by_hand(tmp_path, as_kept(plain("logistic"), **change)))


def test_the_card_names_the_features_of_every_kind(tmp_path):
    for kind in ("boosting", "logistic"):
        with pytest.raises(DataError, match="does not name its 3 features"):
            load_forest(write_by_hand(tmp_path, as_kept(plain(kind)), {"feature_names": ["a", "b"]}))


def test_trees_of_one_leaf_are_sound(tmp_path):
    one = np.zeros(1, dtype=np.int64)
    stump = BoostedTrees(0.5, 3, one, one - 1, np.zeros(1), one - 1, one - 1, np.zeros(1, dtype=bool), np.array([0.25]))
    save_forest(tmp_path / "f.skops", stump, CARD)
    loaded, _ = load_forest(tmp_path / "f.skops")
    np.testing.assert_allclose(hit_probability(loaded, np.zeros((2, 3))), 1 / (1 + np.exp(-0.75)))
    assert isinstance(plain("logistic"), Regression) and replace(stump, baseline=1.0) != stump
