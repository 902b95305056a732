"""What operating points that nobody chose reach on the test side: counts by group, for comparison (table points)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.evaluation.operating import JudgedRecording
from otus.evaluation.tally import Judged
from otus.selections import DecodingPoint, logit
from otus.tables import table

FIXED, GRID = "fixed", "grid"

Counts = NDArray[np.int64]


def threshold_name(threshold: float) -> str:
    """Return the name of a fixed threshold: two digits, or as many as it has."""
    return max(f"{threshold:.2f}", f"{threshold:g}", key=len)


def fixed_points(
    judged: Judged, hits: NDArray[np.bool_], thresholds: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """Return the rows of fixed thresholds, one per threshold and group of the recordings.

    `judged` and `hits` are as otus.evaluation.tally.settle returns them. `thresholds` gives for each name the lowest
    rank that is selected, and the threshold as the table shall say it. Columns: role, operating_point, threshold,
    group and the counts. The rows of a threshold add up to what `count_per_recording` gives.
    """
    groups = judged.recordings["group"].to_numpy(dtype=str)
    names, of_recording = np.unique(groups, return_inverse=True)
    ids = judged.recordings["recording_id"]
    number = pd.Series(of_recording, index=ids)
    of_call = number.reindex(judged.annotations["recording_id"]).to_numpy(dtype=np.int64)
    of_selection = number.reindex(judged.selections["recording_id"]).to_numpy(dtype=np.int64)
    duration_s = judged.recordings["duration_s"].to_numpy(dtype=float)
    rank = judged.selections["rank"].to_numpy(dtype=float)
    described, n_pred, tp = [], [], []
    for name, (lowest, shown) in thresholds.items():
        above = rank >= lowest
        described.append({"role": FIXED, "operating_point": name, "threshold": shown})
        n_pred.append(np.bincount(of_selection[above], minlength=len(names)))
        tp.append(np.bincount(of_selection[above & hits], minlength=len(names)))
    n_gt = np.bincount(of_call, minlength=len(names))
    return _rows(described, _groups(names, of_recording, duration_s, n_gt), n_pred, tp)


def grid_points(recordings: Sequence[JudgedRecording], thresholds: Sequence[float]) -> pd.DataFrame:
    """Return the rows of every decoding of the grid at every threshold, one per group of the recordings.

    A decoding with one threshold has rows for that one only. Columns: role, operating_point, threshold, the decoding
    in units of the config, group and the counts. Decodings of one name stand there once.
    """
    names, of_recording = np.unique([recording.group for recording in recordings], return_inverse=True)
    described, n_pred, tp = [], [], []
    seen: set[str] = set()
    for decoding, point in enumerate(recordings[0].grid if recordings else []):
        if point.name_in_calls() in seen:
            continue
        seen.add(point.name_in_calls())
        peaks, hits = zip(*(recording.found[decoding] for recording in recordings), strict=True)
        peak, hit = np.concatenate(peaks), np.concatenate(hits)
        of_selection = np.repeat(of_recording, [len(own) for own in peaks])
        for name, threshold in _thresholds(point, thresholds).items():
            above = peak >= (-np.inf if point.has_one_threshold else logit(threshold))
            described.append(decoding_columns(point) | {"role": GRID, "operating_point": name, "threshold": threshold})
            n_pred.append(np.bincount(of_selection[above], minlength=len(names)))
            tp.append(np.bincount(of_selection[above & hit], minlength=len(names)))
    duration_s = np.array([recording.duration_s for recording in recordings])
    calls = np.repeat(of_recording, [recording.n_calls for recording in recordings])
    n_gt = np.bincount(calls, minlength=len(names))
    return _rows(described, _groups(names, of_recording, duration_s, n_gt), n_pred, tp)


def decoding_columns(point: DecodingPoint) -> dict[str, Any]:
    """Return the columns of table points that tell of a decoding, in units of the config."""
    return asdict(point.in_calls())


def as_table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return rows of several makings as one table `points`."""
    filled = [part for part in parts if len(part)]
    return table("points", pd.concat(filled, ignore_index=True) if filled else [])


def _groups(
    names: NDArray[np.str_], of_recording: Counts, duration_s: NDArray[np.float64], n_gt: Counts
) -> dict[str, NDArray[Any]]:
    """What every point has: the groups, and what was searched and annotated there."""
    return {
        "group": names.astype(object),
        "n_recordings": np.bincount(of_recording, minlength=len(names)),
        "duration_s": np.bincount(of_recording, weights=duration_s, minlength=len(names)),
        "n_gt": n_gt,
    }


def _rows(
    described: Sequence[Mapping[str, Any]],
    groups: Mapping[str, NDArray[Any]],
    n_pred: Sequence[Counts],
    tp: Sequence[Counts],
) -> pd.DataFrame:
    """One row per point and group."""
    n_groups = len(groups["group"])
    if not described or not n_groups:
        return pd.DataFrame()
    points = pd.DataFrame(list(described)).astype(object)
    columns = {name: np.repeat(points[name].to_numpy(), n_groups) for name in points}
    columns |= {name: np.tile(values, len(described)) for name, values in groups.items()}
    return pd.DataFrame(columns | {"n_pred": np.concatenate(n_pred), "tp": np.concatenate(tp)})


def _thresholds(point: DecodingPoint, thresholds: Sequence[float]) -> dict[str, float]:
    """The names of the points of one decoding, and their thresholds."""
    if point.has_one_threshold:
        return {point.name_in_calls(): point.off_threshold}
    return {f"{point.name_in_calls()}_on{threshold_name(t)}": t for t in thresholds}
