"""What one layer found of one label, by group and by recording: the sums that measures and their resamples are made of.

Ways of counting: calls (as matched), onsets and onsets with offsets (within a collar), segments and frames (units of
time), and presence (whole recordings). Facts of several labels add up to those of all of them together (`micro`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus import activity
from otus.collars import onset_offset_pairs, onset_pairs
from otus.config import EvaluationSettings
from otus.matching import Intervals, most_pairs
from otus.measures.evidence import TestedLayer
from otus.measures.ranked import Ranked, ranked_events, together
from otus.sides import NOWHERE
from otus.tables import MICRO

Reals = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counted:
    """One way of counting: how much there is, how much was reported and how much of that is right, per group."""

    n_gt: Reals
    n_pred: Reals
    tp: Reals

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.n_gt + other.n_gt, self.n_pred + other.n_pred, self.tp + other.tp)


@dataclass(frozen=True)
class LabelFacts:
    """Counts at the chosen operating point per group, what is ranked, and what belongs to recordings or hits.

    `n_segments` and `n_frames` are the units that count, `recording_n_gt` and `recording_n_pred` the calls and
    selections of each recording of the layer, the errors those of the hits in s.
    """

    calls: Counted
    onset: Counted
    onset_offset: Counted
    segment: Counted
    frame: Counted
    presence: Counted
    ranked: Ranked
    ranked_segments: Ranked
    ranked_frames: Ranked
    n_segments: int
    n_frames: int
    recording_n_gt: Reals
    recording_n_pred: Reals
    onset_error_s: Reals
    offset_error_s: Reals


@dataclass(frozen=True)
class _Recording:
    """One label in one recording."""

    number: int
    group: int
    duration_s: float
    calls: Intervals
    found: Intervals
    rank: Reals
    selected: Mask
    unknown: Intervals

    @property
    def reported(self) -> Intervals:
        """The selected ones of what was found."""
        return Intervals(self.found.start_s[self.selected], self.found.end_s[self.selected])


@dataclass(frozen=True)
class _Units:
    """How time is cut into units, and when one is active."""

    unit_s: float
    active: Callable[[Intervals, int, float], Mask]
    highest: Callable[[Intervals, Reals, int, float], Reals]


def groups_of(layer: TestedLayer) -> tuple[NDArray[np.str_], Indices]:
    """Return the names of the groups, sorted, and the number of the group of each recording."""
    names, number = np.unique(layer.recordings["group"].to_numpy(dtype=str), return_inverse=True)
    return names, number.astype(np.int64)


def label_sets(labels: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the name of each row of a table and the labels that it pools: each by itself and, of several, micro."""
    rows: list[tuple[str, tuple[str, ...]]] = [(label, (label,)) for label in labels]
    return [*rows, (MICRO, tuple(labels))] if len(labels) > 1 else rows


def label_facts(layer: TestedLayer, label: str, settings: EvaluationSettings) -> LabelFacts:
    """Return the facts of one label of the layer.

    A selection that is no hit and mostly labelled unknown is not among those of the layer, and counts nowhere. Units
    of recordings of which only a part was tested are those from their beginning on, up to the last call or selection.
    """
    names, group_of = groups_of(layer)
    n_groups, n_recordings = len(names), len(group_of)
    matching = np.zeros((n_recordings, 2))
    sizes = np.zeros((n_recordings, 2))
    cuts = [
        _Units(settings.segment_s, activity.touched, activity.highest_touching),
        _Units(settings.frame_s, activity.centred, activity.highest_centred),
    ]
    counted_units = np.zeros((n_recordings, len(cuts), 4))
    ranked_units: list[list[Ranked]] = [[] for _ in cuts]
    unknown = np.zeros(n_recordings, dtype=bool)
    for own in _recordings(layer, label, group_of):
        reported = own.reported
        sizes[own.number] = len(own.calls), len(reported)
        unknown[own.number] = len(own.unknown) > 0
        if len(own.calls) and len(reported):
            near = onset_pairs(own.calls, reported, settings.collar_s)
            both = onset_offset_pairs(own.calls, reported, settings.collar_s, settings.collar_length_share)
            matching[own.number] = len(most_pairs(near)), len(most_pairs(both))
        for i, cut in enumerate(cuts):
            counted_units[own.number, i], ranked = _units(own, cut)
            ranked_units[i] += ranked

    def per_group(values: Reals) -> Reals:
        return np.bincount(group_of, weights=values, minlength=n_groups).astype(np.float64)

    n_gt, n_pred = per_group(sizes[:, 0]), per_group(sizes[:, 1])
    events = ranked_events(layer, [label])
    hits = layer.matches[(layer.matches["outcome"] == "hit") & (layer.matches["label"] == label)]
    units = [[per_group(counted_units[:, i, k]) for k in range(4)] for i in range(len(cuts))]
    present = _presence(sizes, unknown)
    return LabelFacts(
        calls=Counted(n_gt, n_pred, per_group(_selected_hits(layer, label))),
        onset=Counted(n_gt, n_pred, per_group(matching[:, 0])),
        onset_offset=Counted(n_gt, n_pred, per_group(matching[:, 1])),
        segment=Counted(*units[0][1:]),
        frame=Counted(*units[1][1:]),
        presence=Counted(*(per_group(values.astype(float)) for values in present)),
        ranked=events,
        ranked_segments=together(ranked_units[0]),
        ranked_frames=together(ranked_units[1]),
        n_segments=int(counted_units[:, 0, 0].sum()),
        n_frames=int(counted_units[:, 1, 0].sum()),
        recording_n_gt=sizes[:, 0],
        recording_n_pred=sizes[:, 1],
        onset_error_s=hits["onset_error_s"].to_numpy(dtype=float),
        offset_error_s=hits["offset_error_s"].to_numpy(dtype=float),
    )


def added_up(parts: Sequence[LabelFacts]) -> LabelFacts:
    """Return the facts of all labels together: sums of counts, and everything ranked in one order."""
    joined: dict[str, Any] = {}
    for name in (field.name for field in fields(LabelFacts)):
        values = [getattr(part, name) for part in parts]
        if name.startswith("ranked"):
            joined[name] = together(values)
        elif name.endswith("_error_s"):
            joined[name] = np.concatenate(values)
        else:
            joined[name] = sum(values[1:], start=values[0])
    return LabelFacts(**joined)


def _presence(sizes: Reals, unknown: Mask) -> tuple[Mask, Mask, Mask]:
    """Per recording: whether it holds a call, whether something is reported in it, and both.

    `sizes`: number of calls and of selections per recording. One without a call in which something is labelled unknown
    is not reported: nobody knows whether it holds one.
    """
    truth, result = sizes[:, 0] > 0, sizes[:, 1] > 0
    return truth, result & (truth | ~unknown), truth & result


def _selected_hits(layer: TestedLayer, label: str) -> Reals:
    """The number of selected hits of each recording."""
    own = layer.selections[
        (layer.selections["label"] == label)
        & layer.selections["selected"].astype(bool)
        & layer.selections["hit"].astype(bool)
    ]
    return np.bincount(_numbers(layer, own), minlength=len(layer.recordings)).astype(np.float64)


def _numbers(layer: TestedLayer, rows: pd.DataFrame) -> Indices:
    """The number of the recording of each row."""
    return np.asarray(pd.Index(layer.recordings["recording_id"]).get_indexer(rows["recording_id"]), dtype=np.int64)


def _recordings(layer: TestedLayer, label: str, group_of: Indices) -> Iterator[_Recording]:
    """One label in every recording of the layer."""
    calls = _by_recording(layer, layer.calls[layer.calls["label"] == label])
    found = _by_recording(layer, layer.selections[layer.selections["label"] == label])
    times = [(rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)) for rows, _ in (calls, found)]
    rank, selected = found[0]["rank"].to_numpy(dtype=float), found[0]["selected"].to_numpy(dtype=bool)
    duration_s = layer.recordings["duration_s"].to_numpy(dtype=float)
    for number, recording_id in enumerate(layer.recordings["recording_id"].tolist()):
        call, one = (slice(*borders[number : number + 2]) for _, borders in (calls, found))
        unknown = layer.unknown.get(recording_id, NOWHERE)
        yield _Recording(
            number=number,
            group=int(group_of[number]),
            duration_s=float(duration_s[number]),
            calls=Intervals(times[0][0][call], times[0][1][call]),
            found=Intervals(times[1][0][one], times[1][1][one]),
            rank=rank[one],
            selected=selected[one],
            unknown=Intervals(unknown.start_s, unknown.end_s),
        )


def _by_recording(layer: TestedLayer, rows: pd.DataFrame) -> tuple[pd.DataFrame, Indices]:
    """The rows in order of the recordings, and where those of each recording begin (and where the last ones end)."""
    number = _numbers(layer, rows)
    order = np.argsort(number, kind="stable")
    return rows.iloc[order], np.searchsorted(number[order], np.arange(len(layer.recordings) + 1))


def _units(own: _Recording, cut: _Units) -> tuple[Reals, list[Ranked]]:
    """How many units of one recording count, hold a call, are reported and both; and what ranks those reported."""
    ends_s = [own.duration_s]
    for times in (own.calls, own.found):
        beyond = times.start_s >= own.duration_s
        ends_s.append(float(times.end_s[beyond].max(initial=0.0)))
    n = activity.n_segments(max(ends_s), cut.unit_s)
    if not len(own.calls) and not len(own.found) and not len(own.unknown):
        return np.array([n, 0.0, 0.0, 0.0]), []
    truth = cut.active(own.calls, n, cut.unit_s)
    unknown = cut.active(own.unknown, n, cut.unit_s)
    counts = activity.unit_counts(truth, cut.active(own.reported, n, cut.unit_s), unknown)
    score = cut.highest(own.found, own.rank, n, cut.unit_s)
    units = np.flatnonzero((score > -np.inf) & (truth | ~unknown))
    values, which = np.unique(score[units], return_inverse=True)
    ranked = Ranked(
        score=values,
        n=np.bincount(which, minlength=len(values)).astype(np.float64),
        tp=np.bincount(which, weights=truth[units], minlength=len(values)).astype(np.float64),
        group=np.full(len(values), own.group, dtype=np.int64),
    )
    return np.array([counts.n, counts.n_gt, counts.n_pred, counts.tp], dtype=np.float64), [ranked]
