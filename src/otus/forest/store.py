"""Keep a forest on disk: skops beside a JSON card. Loading trusts neither.

A skops file names the types to build, and skops builds only those that are known or listed here. It does not look
into scikit-learn's trees, whose node numbers are followed without bounds checks, so that is done here.
"""

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import otus
from otus.atomic import read_json, replacing, write_json
from otus.errors import DataError

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

#: What a forest may hold beyond the types that skops knows to be harmless; `_check_tree` looks into it.
TRUSTED_TYPES = ("sklearn.tree._tree.Tree",)

#: A forest of a thousand deep trees is a tenth of this when unpacked.
_MAX_UNPACKED_BYTES = 2**30


def save_forest(path: str | Path, forest: "RandomForestClassifier", card: dict[str, Any]) -> None:
    """Write the forest to `path` (.skops) and its card to the same name with .json.

    The card is the caller's, and `sha256` of the forest file and `versions` of the packages are added to it. The
    forest is written first: if the second write fails, an older card does not fit and loading says so.
    Raises ValueError if the name does not end in .skops or the card holds NaN.
    """
    import sklearn
    import skops
    import skops.io

    target = _checked_name(path)
    content: bytes = skops.io.dumps(forest, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    versions = {"otus": otus.__version__, "scikit-learn": sklearn.__version__, "skops": skops.__version__}
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    write_json(
        target.with_suffix(".json"), card | {"sha256": hashlib.sha256(content).hexdigest(), "versions": versions}
    )


def load_forest(path: str | Path) -> tuple["RandomForestClassifier", dict[str, Any]]:
    """Return the forest that `save_forest` wrote, and its card.

    Raises DataError if either file is missing, the forest's bytes are not those that the card tells of, it holds
    any type that is not trusted, or it is not a sound forest (every tree is walked before it can be used).
    """
    target = _checked_name(path)
    card, content = _read_card(target.with_suffix(".json")), _read_forest(target)
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise DataError(f"{target}: was altered after its card was written: fit the forest again or get both files.")
    forest = _build(target, content)
    try:
        _check_forest(forest)
    except (_UnsoundError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{target}: is not a sound forest ({error}): fit it again.") from error
    forest.set_params(n_jobs=1, verbose=0)
    names = card.get("feature_names")
    if not isinstance(names, list) or len(names) != forest.n_features_in_:
        raise DataError(f"{target}: its card does not name its {forest.n_features_in_} features: fit it again.")
    return forest, card


class _UnsoundError(Exception):
    """What is wrong with a forest, in a few words."""


def _checked_name(path: str | Path) -> Path:
    target = Path(path)
    if target.suffix != ".skops":
        raise ValueError(f"{target}: the name of a forest file ends in .skops")
    return target


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the forest's card cannot be read ({error}): fit the forest again.") from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
        raise DataError(f"{path}: is not the card of a forest (it tells no sha256): fit the forest again.")
    return card


def _read_forest(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the forest cannot be read ({error}): fit it again.") from error


def _build(path: Path, content: bytes) -> Any:
    """What the bytes describe, if only trusted types are in it."""
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_UNPACKED_BYTES:
            raise DataError(f"{path}: unpacks to {unpacked} bytes, which no forest does: fit it again.")
        foreign = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
        if foreign:
            raise DataError(f"{path}: holds types that no forest has ({', '.join(foreign)}): fit it again.")
        with warnings.catch_warnings():
            # One for each tree from another version; the card tells the versions, and what could differ is checked.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            return skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except DataError:
        raise
    except Exception as error:  # a crafted file can fail anywhere inside skops or scikit-learn
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: is not a forest that this version reads ({reason}): fit it again.") from error


def _check_forest(forest: Any) -> None:
    """Raise _UnsoundError unless this is a two-class forest of sound trees, with its own methods."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    _check_plain(forest, RandomForestClassifier)
    n_features, trees = getattr(forest, "n_features_in_", None), getattr(forest, "estimators_", None)
    if not isinstance(n_features, int) or not isinstance(trees, list) or not trees:
        raise _UnsoundError("it is not fitted")
    for estimator in (forest, *trees):
        if estimator is not forest:
            _check_plain(estimator, DecisionTreeClassifier)
        classes = getattr(estimator, "classes_", None)
        n_classes, n_outputs = getattr(estimator, "n_classes_", None), getattr(estimator, "n_outputs_", None)
        shape = (getattr(estimator, "n_features_in_", None), n_outputs, n_classes)
        if shape != (n_features, 1, 2) or not np.array_equal(np.asarray(classes), [0, 1]):
            raise _UnsoundError("it does not tell hits from false alarms")
    for number, estimator in enumerate(trees):
        try:
            _check_tree(getattr(estimator, "tree_", None), n_features)
        except _UnsoundError as error:
            raise _UnsoundError(f"tree {number}: {error}") from error


def _check_plain(estimator: Any, kind: type) -> None:
    """An instance of exactly this class, none of whose attributes hides a method."""
    if type(estimator) is not kind:
        raise _UnsoundError(f"a {type(estimator).__name__} where a {kind.__name__} belongs")
    if set(vars(estimator)) & set(dir(kind)):
        raise _UnsoundError("it hides its own methods")


def _check_tree(tree: Any, n_features: int) -> None:
    """Raise _UnsoundError unless every node but the root is the child of exactly one earlier node.

    So every walk from the root ends in a leaf, inside the arrays.
    """
    from sklearn.tree._tree import Tree

    if type(tree) is not Tree or (tree.n_features, tree.n_outputs, tree.max_n_classes) != (n_features, 1, 2):
        raise _UnsoundError("another kind of tree")
    count = tree.node_count
    if count < 1 or count != tree.capacity:  # the arrays are views of `capacity` nodes
        raise _UnsoundError("its number of nodes is wrong")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = np.flatnonzero((left != -1) | (right != -1))
    children = np.concatenate([left[inner], right[inner]])
    if not np.array_equal(np.sort(children), np.arange(1, count)) or (children <= np.tile(inner, 2)).any():
        raise _UnsoundError("its nodes do not form a tree")
    if (feature[inner] < 0).any() or (feature[inner] >= n_features).any():
        raise _UnsoundError("it asks for a feature that does not exist")
    if not np.isfinite(tree.threshold[inner]).all():
        raise _UnsoundError("a threshold is not finite")
    if not ((tree.value >= 0) & (tree.value <= 1)).all():
        raise _UnsoundError("a leaf is not a probability")
