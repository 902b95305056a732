"""Keep a post-filter on disk: skops beside a JSON card. Loading trusts neither.

A skops file names the types to build, and skops builds only those that are known or listed here: a random forest of
scikit-learn, or plain arrays for boosted trees and a logistic regression. It does not look into trees, whose node
numbers are followed without bounds checks, so otus.forest.soundness does.
"""

import hashlib
import io
import warnings
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otus
from otus.atomic import read_json, replacing, write_json
from otus.errors import DataError
from otus.forest.estimators import BoostedTrees, Regression
from otus.forest.soundness import UnsoundError, check_boosting, check_forest, check_regression

if TYPE_CHECKING:
    from otus.forest.estimators import Estimator

#: What a forest may hold beyond the types that skops knows to be harmless; `check_forest` looks into it.
TRUSTED_TYPES = ("sklearn.tree._tree.Tree",)

#: What is kept as a mapping of plain arrays and numbers.
_PLAIN = (BoostedTrees, Regression)

#: A forest of a thousand deep trees is a tenth of this when unpacked.
_MAX_UNPACKED_BYTES = 2**30


def save_forest(path: str | Path, forest: "Estimator", card: dict[str, Any]) -> None:
    """Write the forest to `path` (.skops) and its card to the same name with .json.

    The card is the caller's, and `sha256` of the forest file and `versions` of the packages are added to it. The
    forest is written first: if the second write fails, an older card does not fit and loading says so.
    Raises ValueError if the name does not end in .skops or the card holds NaN.
    """
    import sklearn
    import skops
    import skops.io

    target = _checked_name(path)
    kept = {"kind": type(forest).__name__, **asdict(forest)} if isinstance(forest, _PLAIN) else forest
    content: bytes = skops.io.dumps(kept, compression=zipfile.ZIP_DEFLATED, compresslevel=6)
    versions = {"otus": otus.__version__, "scikit-learn": sklearn.__version__, "skops": skops.__version__}
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    write_json(
        target.with_suffix(".json"), card | {"sha256": hashlib.sha256(content).hexdigest(), "versions": versions}
    )


def load_forest(path: str | Path) -> tuple["Estimator", dict[str, Any]]:
    """Return the forest that `save_forest` wrote, and its card.

    Raises DataError if either file is missing, the forest's bytes are not those that the card tells of, it holds
    any type that is not trusted, or it is not a sound forest (every tree is walked before it can be used).
    """
    target = _checked_name(path)
    card, content = _read_card(target.with_suffix(".json")), _read_forest(target)
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise DataError(f"{target}: was altered after its card was written: fit the forest again or get both files.")
    held = _build(target, content)
    try:
        forest, n_features = _checked(held)
    except (UnsoundError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{target}: is not a sound forest ({error}): fit it again.") from error
    names = card.get("feature_names")
    if not isinstance(names, list) or len(names) != n_features:
        raise DataError(f"{target}: its card does not name its {n_features} features: fit it again.")
    return forest, card


def _checked(held: Any) -> tuple["Estimator", int]:
    """The sound post-filter that a file holds, and its number of features."""
    if not isinstance(held, dict):
        check_forest(held)
        held.set_params(n_jobs=1, verbose=0)
        return held, held.n_features_in_
    kind = next((kind for kind in _PLAIN if kind.__name__ == held.get("kind")), None)
    if kind is None or set(held) != {"kind", *(field.name for field in fields(kind))}:
        raise UnsoundError("it is neither a forest nor the arrays of another kind")
    found = kind(**{name: value for name, value in held.items() if name != "kind"})
    if isinstance(found, BoostedTrees):
        check_boosting(found)
    else:
        check_regression(found)
    return found, found.n_features


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
