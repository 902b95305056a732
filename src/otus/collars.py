"""Pairs of annotation and selection by how close their onsets, or onsets and offsets, are (as in sed_eval).

Which of the pairs are taken is the business of `otus.matching`: `most_pairs` for one operating point, `hits_among`
for every threshold at once. As everywhere there, all is within one recording and one label, and `unknown` is no
label: leave out what is no hit and mostly unknown (`otus.sides.mostly_unknown`) before false alarms are counted.
"""

import numpy as np

from otus.matching import IOU_SLACK, Intervals, Pairs, pairs_of_ranges

#: Distances in s are compared with this much slack, so that 0.2 in floating point counts as 0.2.
_SLACK_S = IOU_SLACK


def onset_pairs(annotations: Intervals, selections: Intervals, collar_s: float) -> Pairs:
    """Return every pair whose onsets are at most `collar_s` apart (inclusive), and its IoU, which may be 0."""
    order = np.argsort(selections.start_s, kind="stable")
    starts = selections.start_s[order]
    first = np.searchsorted(starts, annotations.start_s - collar_s - _SLACK_S, side="left")
    last = np.searchsorted(starts, annotations.start_s + collar_s + _SLACK_S, side="right")
    a, found = pairs_of_ranges(first, last)
    s = order[found].astype(np.int64)
    start_s, end_s = selections.start_s[s], selections.end_s[s]
    shared = np.minimum(annotations.end_s[a], end_s) - np.maximum(annotations.start_s[a], start_s)
    joint = np.maximum(annotations.end_s[a], end_s) - np.minimum(annotations.start_s[a], start_s)
    return Pairs(a, s, np.maximum(shared, 0.0) / joint)


def onset_offset_pairs(annotations: Intervals, selections: Intervals, collar_s: float, length_share: float) -> Pairs:
    """Return the pairs of `onset_pairs` whose offsets are close as well.

    They may be `collar_s` apart, or `length_share` of the annotation's length if that is more (inclusive).
    """
    pairs = onset_pairs(annotations, selections, collar_s)
    end_s = annotations.end_s[pairs.annotation]
    length_s = end_s - annotations.start_s[pairs.annotation]
    apart_s = np.abs(end_s - selections.end_s[pairs.selection])
    close = apart_s <= np.maximum(collar_s, length_share * length_s) + _SLACK_S
    return Pairs(pairs.annotation[close], pairs.selection[close], pairs.iou[close])
