"""What the company of a candidate tells: its neighbours in time, and what was found with other labels.

Company is what the same model found in the same recording, on the same side of the same fold, less what the table of
selections lacks: what is no hit and labelled unknown. To that extent the truth has a say in it. Nothing here is the
same for all candidates of a recording and different between recordings: a forest that can tell recordings apart learns
recordings.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Reals = NDArray[np.float64]

NEIGHBOUR_NAMES = ("since_last_s", "until_next_s", "n_within_10s", "duration_ratio", "peak_difference", "rhythm")
RIVAL_NAMES = ("peak_above_rival",)

_NEAR_S = 10.0


def neighbour_features(candidates: pd.DataFrame) -> Reals:
    """Return the values of `NEIGHBOUR_NAMES` (candidates x names).

    - since_last_s, until_next_s: from the end of the candidate before, and until the start of the one behind;
      negative if they overlap, NaN for the first and the last one.
    - n_within_10s: how many others begin within 10 s of its start.
    - duration_ratio, peak_difference: how unlike both neighbours are, or the one that there is: mean of
      abs(log2(duration / its duration)), and of abs(peak score - its peak score); NaN without neighbours.
    - rhythm: the difference of the intervals from start to start before and after, over their sum: 0 in a steady
      series, near 1 beside a pause; NaN for the first and the last one.
    """
    found = np.full((len(candidates), len(NEIGHBOUR_NAMES)), np.nan)
    columns = candidates[["start_s", "end_s", "peak_score"]].to_numpy(dtype=float)
    for rows in candidates.groupby(["recording_id", "label", "fold", "split"]).indices.values():
        start_s, end_s, peak = columns[rows].T
        order = np.lexsort((peak, end_s, start_s))
        found[rows[order]] = _neighbours(start_s[order], end_s[order], peak[order])
    return found


def rival_features(candidates: pd.DataFrame) -> Reals:
    """Return the values of `RIVAL_NAMES` (candidates x names).

    - peak_above_rival: its peak score less the highest peak score of what overlaps it with another label; NaN if
      nothing does.
    """
    found = np.full((len(candidates), 1), np.nan)
    labels = candidates["label"].to_numpy(dtype=str)
    start_s, end_s, peak = (candidates[name].to_numpy(dtype=float) for name in ("start_s", "end_s", "peak_score"))
    for rows in candidates.groupby(["recording_id", "fold", "split"]).indices.values():
        ordered = rows[np.argsort(start_s[rows], kind="stable")]
        longest = (end_s[ordered] - start_s[ordered]).max()
        low = np.searchsorted(start_s[ordered], start_s[ordered] - longest)
        high = np.searchsorted(start_s[ordered], end_s[ordered])
        for row, a, b in zip(ordered, low, high, strict=True):
            near = ordered[a:b]
            rivals = near[(labels[near] != labels[row]) & (end_s[near] > start_s[row])]
            if len(rivals):
                found[row, 0] = peak[row] - peak[rivals].max()
    return found


def _neighbours(start_s: Reals, end_s: Reals, peak: Reals) -> Reals:
    last_near = np.searchsorted(start_s, start_s + _NEAR_S, side="right")
    near = last_near - np.searchsorted(start_s, start_s - _NEAR_S, side="left") - 1
    apart_s = start_s[1:] - end_s[:-1]
    interval_s = np.diff(start_s)
    before, behind = (np.concatenate(pair) for pair in (([np.nan], interval_s), (interval_s, [np.nan])))
    total = before + behind
    rhythm = np.abs(before - behind) / np.where(total > 0, total, np.nan)
    unlike = [_mean_of_two(np.abs(np.diff(values))) for values in (np.log2(end_s - start_s), peak)]
    since, until = np.concatenate([[np.nan], apart_s]), np.concatenate([apart_s, [np.nan]])
    return np.column_stack([since, until, near, *unlike, rhythm])


def _mean_of_two(steps: Reals) -> Reals:
    """Mean of the step before and the step behind each of len(steps) + 1 places, as far as they are there."""
    total = np.concatenate([[0.0], steps]) + np.concatenate([steps, [0.0]])
    sides = np.concatenate([[0], np.ones(len(steps))]) + np.concatenate([np.ones(len(steps)), [0]])
    mean: Reals = total / np.where(sides > 0, sides, np.nan)
    return mean
