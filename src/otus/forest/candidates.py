"""The table of features that a forest is fitted on: what is heard of every candidate, and its context."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.audio import AudioInfo
from otus.columns import SCHEMAS
from otus.forest.context import NEIGHBOUR_NAMES, RIVAL_NAMES, neighbour_features, rival_features
from otus.forest.contrast import CONTRAST_NAMES, surrounded_features
from otus.forest.features import check_selections, feature_names, selection_features

Reals = NDArray[np.float64]

SHAPE_NAMES = tuple(name for name in SCHEMAS["score_shapes"] if name != "selection_id")

_NEEDED = ["start_s", "end_s", "score", "peak_score"]

#: The context features by family, in the order of the columns.
CONTEXT_FAMILIES: dict[str, tuple[str, ...]] = {
    "score shape": (*SHAPE_NAMES, "peak_score", "duration_s"),
    "contrast": CONTRAST_NAMES,
    "neighbours": NEIGHBOUR_NAMES,
    "rivals": RIVAL_NAMES,
}


def candidate_names(features: Literal["alpaca", "all"], n_mfcc: int) -> tuple[str, ...]:
    """Return the names of the features in the order of the columns of `candidate_features`."""
    context = [name for names in CONTEXT_FAMILIES.values() for name in names] if features == "all" else []
    return (*feature_names(n_mfcc), *context)


def candidate_features(
    root: Path,
    candidates: pd.DataFrame,
    shapes: pd.DataFrame,
    recordings: pd.DataFrame,
    *,
    features: Literal["alpaca", "all"],
    n_mfcc: int,
    window_s: float,
    low_hz: float,
    high_hz: float,
) -> pd.DataFrame:
    """Return one column per feature (`candidate_names`) and one row per candidate, with the index of `candidates`.

    `candidates` are rows of table selections, all that the forest of a model will fit on or judge, and `shapes` their
    rows of table score_shapes; `root` is the folder of the corpus. "alpaca" are the features of the alpaca
    post-filter, all finite. "all" adds context, which is NaN where it is not defined (at the edge of a recording,
    without neighbours, without score shapes) but never infinite. No feature names the recording or
    the group. Every recording is read once, forwards, and everything that is heard comes from one grid of spectra.

    Raises DataError if a recording cannot be read or has changed since the inventory, or if a candidate is not inside
    its recording or has no finite score.
    """
    facts = recordings.set_index("recording_id")
    describe, heard_names = selection_features, feature_names(n_mfcc)
    if features == "all":
        describe, heard_names = surrounded_features, (*heard_names, *CONTRAST_NAMES)
    heard = np.full((len(candidates), len(heard_names)), np.nan)
    for recording_id, rows in sorted(candidates.groupby("recording_id").indices.items()):
        fact, part = facts.loc[recording_id], candidates.iloc[rows]
        info = AudioInfo(int(fact["n_samples"]), int(fact["sample_rate"]), int(fact["channels"]), str(fact["subtype"]))
        path, (start_s, end_s, score, peak) = root / fact["path"], part[_NEEDED].to_numpy(dtype=float).T
        check_selections(path, info, start_s, end_s, peak)
        heard[rows] = describe(
            path,
            info,
            start_s,
            np.minimum(end_s, info.duration_s),
            score,
            window_s=window_s,
            low_hz=low_hz,
            high_hz=min(high_hz, info.sample_rate / 2),
            n_mfcc=n_mfcc,
        )
    columns = pd.DataFrame(heard, columns=list(heard_names), index=candidates.index)
    if features == "all":
        columns = pd.concat([columns, _context(candidates, shapes)], axis=1)
    return columns[list(candidate_names(features, n_mfcc))]


def _context(candidates: pd.DataFrame, shapes: pd.DataFrame) -> pd.DataFrame:
    """All context features but the contrast."""
    shape = shapes.set_index("selection_id").reindex(candidates["selection_id"])[list(SHAPE_NAMES)]
    own = candidates[["peak_score"]].assign(duration_s=candidates["end_s"] - candidates["start_s"])
    values = [
        shape.to_numpy(dtype=float),
        own.to_numpy(dtype=float),
        neighbour_features(candidates),
        rival_features(candidates),
    ]
    names = [name for family, part in CONTEXT_FAMILIES.items() if family != "contrast" for name in part]
    return pd.DataFrame(np.hstack(values), columns=names, index=candidates.index)
