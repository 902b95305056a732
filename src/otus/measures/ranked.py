"""What is ranked by a score, and its counts at thresholds, by group: curves, their resamples and average precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import effective_groups, share_interval
from otus.measures.evidence import TestedLayer
from otus.metrics import Curve, Interval, average_precision

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Resamples are taken at no more thresholds than this. They serve the spread alone: values come from all scores.
N_THRESHOLDS = 256


@dataclass(frozen=True)
class Ranked:
    """Rows of one score each: how many selections (or units of time) have it, how many of them are right, which group.

    `group` is the number of the group in sorted order.
    """

    score: Reals
    n: Reals
    tp: Reals
    group: Indices

    def curve(self) -> Curve:
        """Return the counts at every distinct score, from the highest down."""
        values, which = np.unique(-self.score, return_inverse=True)
        n, tp = (np.bincount(which, weights=weights, minlength=len(values)) for weights in (self.n, self.tp))
        return Curve(-values, *(np.cumsum(counts).round().astype(np.int64) for counts in (n, tp)))


@dataclass(frozen=True)
class GroupCurves:
    """Counts (groups or resamples, thresholds) of everything with each threshold or more, from the highest down."""

    threshold: Reals
    n_pred: Reals
    tp: Reals

    def drawn(self, weights: Reals) -> "GroupCurves":
        """Return the counts (resamples, thresholds) of groups drawn with the weights (resamples, groups)."""
        return GroupCurves(self.threshold, weights @ self.n_pred, weights @ self.tp)

    def average_precision(self, n_gt: Reals) -> Reals:
        """Return the average precision of each row that has `n_gt` calls; NaN without one."""
        gain = np.diff(self.tp, axis=1, prepend=0.0)
        precision = self.tp / np.maximum(self.n_pred, 1e-12)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((precision * gain).sum(axis=1) / n_gt)


def together(parts: Sequence[Ranked]) -> Ranked:
    """Return the rows of all parts."""
    if not parts:
        return Ranked(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    return Ranked(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("score", "n", "tp", "group")))


def ranked_events(layer: TestedLayer, labels: Sequence[str]) -> Ranked:
    """Return everything that the layer found of the labels, one row per selection, ranked by its score.

    Several labels are all labels, ranked in one order (`otus.measures.evidence.ranks_of_all`).
    """
    own = layer.selections[layer.selections["label"].isin(labels)]
    group = pd.Series(
        np.unique(layer.recordings["group"].to_numpy(dtype=str), return_inverse=True)[1],
        index=layer.recordings["recording_id"],
    )
    return Ranked(
        score=own["rank" if len(labels) == 1 else "rank_of_all"].to_numpy(dtype=float),
        n=np.ones(len(own)),
        tp=own["hit"].to_numpy(dtype=float),
        group=group.reindex(own["recording_id"]).to_numpy(dtype=np.int64),
    )


def thinned(scores: Reals, n_thresholds: int = N_THRESHOLDS) -> Reals:
    """Return at most so many of the distinct scores, evenly among them, from the highest down, with both ends."""
    values = np.unique(scores)[::-1]
    if len(values) <= n_thresholds:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, n_thresholds).round().astype(np.int64))]


def group_curves(rows: Ranked, n_groups: int, threshold: Reals) -> GroupCurves:
    """Return the counts of every group at the thresholds, which fall; the last is no higher than any score."""
    at = np.searchsorted(-threshold, -rows.score)
    size = n_groups * len(threshold)
    cell = rows.group * len(threshold) + at
    counts = np.stack([np.bincount(cell, weights=weights, minlength=size) for weights in (rows.n, rows.tp)])
    n_pred, tp = counts.astype(np.float64).reshape(2, n_groups, len(threshold)).cumsum(axis=2)
    return GroupCurves(threshold, n_pred, tp)


def drawn_average_precision(rows: Ranked, n_gt: Reals, weights: Reals) -> tuple[float, Reals]:
    """Return the average precision of the rows, and that of every resample; `n_gt` holds the calls of each group."""
    value = average_precision(rows.curve(), int(n_gt.sum()))
    if len(weights) == 0:
        return value, np.zeros(0)
    drawn = group_curves(rows, len(n_gt), thinned(rows.score)).drawn(weights)
    return value, drawn.average_precision(weights @ n_gt)


def average_precision_interval(rows: Ranked, n_gt: Reals, weights: Reals) -> Interval:
    """Return the average precision with its interval; `n_gt` holds the calls of each group."""
    return share_interval(*drawn_average_precision(rows, n_gt, weights), effective_groups(n_gt))
