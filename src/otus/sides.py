"""Which time of which recording belongs to a side (train, val or test) of a fold, and what is neither call nor noise.

Usually a side holds whole recordings. Dataset variants that deal single clips divide the time of a recording among the
sides; whatever is counted there belongs to the side in which its midpoint lies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.config import UNKNOWN
from otus.matching import Intervals, hits_in_order
from otus.selections import Segments

Reals = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A selection that lies in unknown intervals with this share of its length, or more, is no false alarm.
_UNKNOWN_SHARE = 0.5
_SLACK = 1e-9  # so that exactly half counts as half in floating point


@dataclass(frozen=True)
class Spans:
    """Disjoint stretches of one recording in s, in order of time; the start belongs to a stretch, the end does not."""

    start_s: Reals
    end_s: Reals

    def hold(self, time_s: Reals) -> Mask:
        """Return, per time, whether it lies in one of the stretches."""
        if len(self.start_s) == 0:
            return np.zeros(len(time_s), dtype=bool)
        last = np.searchsorted(self.start_s, time_s, side="right") - 1
        return np.asarray((last >= 0) & (time_s < self.end_s[np.maximum(last, 0)]))


EVERYWHERE = Spans(np.array([-np.inf]), np.array([np.inf]))
NOWHERE = Spans(np.zeros(0), np.zeros(0))


def side_spans(splits: pd.DataFrame, sample_rates: "pd.Series[int]", side: str) -> dict[str, Spans]:
    """Return the stretches of every recording of one side; `splits` are the rows of one fold.

    `sample_rates` is indexed by recording_id. What begins or ends with the recording is open there, because the last
    frame of a recording may reach beyond its last sample.
    """
    n_samples = splits.groupby("recording_id")["end_sample"].transform("max").to_numpy(dtype=np.int64)
    wanted = (splits["split"] == side).to_numpy(dtype=bool)
    rows, n_samples = splits[wanted].reset_index(drop=True), n_samples[wanted]
    rate = rows["recording_id"].map(sample_rates).to_numpy(dtype=float)
    first, last = (rows[name].to_numpy(dtype=np.int64) for name in ("start_sample", "end_sample"))
    start_s = np.where(first <= 0, -np.inf, first / rate)
    end_s = np.where(last >= n_samples, np.inf, last / rate)
    found = {}
    for recording_id, own in sorted(rows.groupby("recording_id").indices.items()):
        order = own[np.argsort(first[own], kind="stable")]
        found[str(recording_id)] = Spans(start_s[order], end_s[order])
    return found


def recordings_by_side(splits: pd.DataFrame, sample_rates: "pd.Series[int]") -> pd.DataFrame:
    """Return recording_id, group, split and duration_s (the time on that side), one row per recording and side.

    `splits` are the rows of one fold; the rows keep their order.
    """
    n_samples = splits["end_sample"] - splits["start_sample"]
    keys = ["recording_id", "group", "split"]
    sides = splits.assign(n_samples=n_samples).groupby(keys, sort=False, as_index=False)["n_samples"].sum()
    rate = sides["recording_id"].map(sample_rates).to_numpy(dtype=float)
    return sides.assign(duration_s=sides["n_samples"].to_numpy(dtype=float) / rate).drop(columns="n_samples")


def centre_inside(spans: Spans, start_s: Reals, end_s: Reals) -> Mask:
    """Return, per interval, whether its midpoint lies in one of the stretches."""
    return spans.hold((start_s + end_s) / 2)


def rows_inside(rows: pd.DataFrame, spans: Mapping[str, Spans]) -> Mask:
    """Return, per row (recording_id, start_s, end_s), whether its midpoint lies in the stretches of its recording."""
    inside = np.zeros(len(rows), dtype=bool)
    start_s, end_s = rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)
    for recording_id, own in rows.reset_index(drop=True).groupby("recording_id").indices.items():
        if (here := spans.get(str(recording_id))) is not None:
            inside[own] = centre_inside(here, start_s[own], end_s[own])
    return inside


def union(start_s: Reals, end_s: Reals) -> Spans:
    """Return the time that any of the intervals covers."""
    if len(start_s) == 0:
        return NOWHERE
    order = np.argsort(start_s, kind="stable")
    start, end = start_s[order], np.maximum.accumulate(end_s[order])
    begins = np.flatnonzero(np.concatenate([[True], start[1:] > end[:-1]]))
    return Spans(start[begins], end[np.append(begins[1:], len(start)) - 1])


def union_by_recording(rows: pd.DataFrame) -> dict[str, Spans]:
    """Return the time of every recording that any of its rows (recording_id, start_s, end_s) covers."""
    start_s, end_s = rows["start_s"].to_numpy(dtype=float), rows["end_s"].to_numpy(dtype=float)
    groups = rows.reset_index(drop=True).groupby("recording_id").indices
    return {str(recording_id): union(start_s[own], end_s[own]) for recording_id, own in sorted(groups.items())}


def unknown_spans(annotations: pd.DataFrame) -> dict[str, Spans]:
    """Return the time of every recording that is labelled unknown: neither target nor noise."""
    return union_by_recording(annotations[annotations["label"] == UNKNOWN])


def mostly_unknown(unknown: Spans, start_s: Reals, end_s: Reals) -> Mask:
    """Return, per interval, whether half of its length or more lies in the stretches `unknown`.

    A selection that is no hit and lies there is no false alarm either: nobody knows what it is.
    """
    return np.asarray(_share_inside(unknown, start_s, end_s) >= _UNKNOWN_SHARE - _SLACK)


def judge_on_side(found: Segments, calls: Intervals, side: Spans, unknown: Spans, iou: float) -> tuple[Reals, Mask]:
    """Return peak score and hit (see `hits_in_order`) of the segments of one recording that count on a side.

    `calls` are those of that side. Segments of another side, and those that are no hit and mostly unknown, are left
    out.
    """
    here = np.flatnonzero(centre_inside(side, found.start_s, found.end_s))
    start_s, end_s, peak = found.start_s[here], found.end_s[here], found.peak_score[here]
    hits = hits_in_order(calls, Intervals(start_s, end_s), np.argsort(-peak, kind="stable"), iou)
    counts = hits | ~mostly_unknown(unknown, start_s, end_s)
    return peak[counts], hits[counts]


def _share_inside(spans: Spans, start_s: Reals, end_s: Reals) -> Reals:
    """Which share of each interval lies in the stretches."""
    if len(start_s) == 0 or len(spans.start_s) == 0:
        return np.zeros(len(start_s))
    limits = float(start_s.min()), float(end_s.max())
    first, last = np.clip(spans.start_s, *limits), np.clip(spans.end_s, *limits)
    covered = np.concatenate([[0.0], np.cumsum(last - first)])

    def below(time_s: Reals) -> Reals:
        number = np.maximum(np.searchsorted(first, time_s, side="right") - 1, 0)
        reached = np.clip(time_s - first[number], 0.0, last[number] - first[number])
        return np.asarray(covered[number] + reached)

    return np.asarray((below(end_s) - below(start_s)) / (end_s - start_s))
