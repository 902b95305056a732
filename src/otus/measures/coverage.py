"""PSDS1 and PSDS2 of a layer, over all its labels and for each alone, with resamples over groups."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.bootstrap import effective_groups
from otus.measures.evidence import TestedLayer
from otus.measures.facts import groups_of
from otus.measures.ranked import thinned
from otus.psds import PSDS1, PSDS2, Events, Rates, Verdicts, Weighting, crossing_rates, psds, rates, verdicts
from otus.sides import mostly_unknown

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: The area below a curve is taken for each resample, so there are fewer of them, and fewer thresholds, than elsewhere.
N_RESAMPLES, _N_THRESHOLDS = 200, 128


@dataclass(frozen=True)
class Estimate:
    """A value, its values in the resamples (NaN where undefined), and the effective number of groups behind it."""

    value: float
    resampled: Reals
    n_groups: float


@dataclass(frozen=True)
class LayerPsds:
    """Of each of PSDS1 and PSDS2: the score of all labels together, and of each label in the order of the layer."""

    together: tuple[Estimate, Estimate]
    alone: tuple[tuple[Estimate, Estimate], ...]


@dataclass(frozen=True)
class _GroupCounts:
    """Per label, group and threshold, counts of everything with the threshold or more; the first has none.

    `crossing` is the mean rate of cross-triggers per hour of other calls, whose hours are those of all groups together.
    """

    n_gt: Reals
    hours: Reals
    found: Reals
    alarms: Reals
    crossing: Reals

    def rates(self, weights: Reals) -> Rates:
        """Return the rates of the groups, each as often as its weight says."""
        n_gt, hours = self.n_gt @ weights, float(self.hours @ weights)
        found, alarms, crossing = (np.einsum("lgt,g->lt", c, weights) for c in (self.found, self.alarms, self.crossing))
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = found / n_gt[:, None]  # NaN without calls, so that the label does not count
            return Rates(recall, alarms / hours, crossing)


def layer_psds(layer: TestedLayer, weights: Reals) -> LayerPsds:
    """Return the scores of the layer; `weights` (resamples, groups) are drawn over its groups, 200 of them are used.

    Calls of a label are found by its own selections, so that the score of a label alone needs no other one. The
    resamples take the seconds of other calls, which cross-triggers are counted by, as they are in all groups.
    """
    calls, found, score, excused = _events(layer)
    _, group_of = groups_of(layer)
    n_labels = len(layer.labels)
    hours = layer.recordings["duration_s"].to_numpy(dtype=float) / 3600.0
    n_groups = weights.shape[1]
    hours_of = np.bincount(group_of, weights=hours, minlength=n_groups).astype(np.float64)
    n_gt = np.zeros((n_labels, n_groups), dtype=np.float64)
    np.add.at(n_gt, (calls.label, group_of[calls.recording]), 1.0)
    all_labels, single = [], []
    for coverage, weighting in (PSDS1, PSDS2):
        exact = rates(calls, found, score, excused, hours=layer.hours, n_labels=n_labels, coverage=coverage)
        judged = verdicts(calls, found, score, excused, n_labels=n_labels, coverage=coverage)
        counts = _group_counts(calls, found, score, judged, n_gt, hours_of, group_of)
        drawn = [counts.rates(own) for own in weights[:N_RESAMPLES]]
        telling = [effective_groups(own) for own in n_gt]
        all_labels.append(_estimate(exact, drawn, weighting, effective_groups(n_gt.sum(axis=0))))
        each = [(_of_label(exact, i), [_of_label(one, i) for one in drawn]) for i in range(n_labels)]
        single.append([_estimate(*own, weighting, n) for own, n in zip(each, telling, strict=True)])
    first, second = all_labels
    return LayerPsds((first, second), tuple(zip(*single, strict=True)))


def _estimate(exact: Rates, drawn: list[Rates], weighting: Weighting, n_groups: float) -> Estimate:
    return Estimate(psds(exact, weighting), np.array([psds(one, weighting) for one in drawn]), n_groups)


def _of_label(points: Rates, label: int) -> Rates:
    """The rates of one label as if there were no other."""
    own = slice(label, label + 1)
    return Rates(points.recall[own], points.false_alarms[own], np.zeros_like(points.recall[own]))


def _group_counts(
    calls: Events, found: Events, score: Reals, judged: Verdicts, n_gt: Reals, hours: Reals, group_of: Indices
) -> _GroupCounts:
    """Cumulated counts at a thinned set of thresholds."""
    thresholds = np.append(np.inf, thinned(score, _N_THRESHOLDS))
    shape = (*n_gt.shape, len(thresholds))

    def counted(events: Events, since: Reals, amount: Reals) -> Reals:
        counts = np.zeros(shape)
        at = np.searchsorted(-thresholds, -since)
        np.add.at(counts, (events.label, group_of[events.recording], at), amount)
        return np.cumsum(counts, axis=2)

    reached = np.isfinite(judged.found_from)
    return _GroupCounts(
        n_gt=n_gt,
        hours=hours,
        found=counted(calls.at(reached), judged.found_from[reached], np.ones(int(reached.sum()))),
        alarms=counted(found.at(judged.alarm), score[judged.alarm], np.ones(int(judged.alarm.sum()))),
        crossing=counted(found, score, crossing_rates(calls, found, judged)),
    )


def _events(layer: TestedLayer) -> tuple[Events, Events, Reals, Mask]:
    """The calls and the selections by number of recording and label, the rank of the latter, and which are excused."""
    recordings, labels = pd.Index(layer.recordings["recording_id"]), pd.Index(layer.labels)
    calls, found = (
        Events(
            recordings.get_indexer(rows["recording_id"]).astype(np.int64),
            labels.get_indexer(rows["label"]).astype(np.int64),
            rows["start_s"].to_numpy(dtype=float),
            rows["end_s"].to_numpy(dtype=float),
        )
        for rows in (layer.calls, layer.selections)
    )
    excused = np.zeros(len(found), dtype=bool)
    for number in np.unique(found.recording).tolist():
        unknown = layer.unknown.get(str(recordings[number]))
        if unknown is not None:
            own = found.recording == number
            excused[own] = mostly_unknown(unknown, found.start_s[own], found.end_s[own])
    return calls, found, layer.selections["rank"].to_numpy(dtype=float), excused
