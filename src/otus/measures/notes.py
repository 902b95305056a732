"""What a reader must know of the truth behind a number: too little of it, or none that a number can be told from."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from otus.sides import union_by_recording

LEAKY_NOTE = "leaky: clips of one recording stand on both sides"
TUNED_NOTE = "chosen on the test recordings themselves: tuning, not performance"

#: Fewer calls, or groups, than this are worth a warning.
FEW_CALLS, FEW_GROUPS = 10, 10

#: Fewer groups than this give intervals that say next to nothing.
_FEWEST_GROUPS = 4

#: Half of the calls cover this share of their recordings, or more: they are labels of files, not of calls.
_AS_LONG_AS_THE_FILE = 0.8

#: Calls that cover more than this share of the time leave little to be wrong about.
_MOSTLY_CALLS = 0.5


@dataclass(frozen=True)
class Truth:
    """What numbers of one label (or of several together) rest on.

    `n_without_calls`: recordings without a call; `silent_hours`: time that no call covers (NaN if nobody knows);
    `median_share`: which share of its recording the median call covers; `covered_share`: which share of all time calls
    cover (both NaN if nobody knows).
    """

    n_gt: int
    n_groups: int
    n_groups_with_calls: int
    n_recordings: int
    n_without_calls: int
    silent_hours: float = np.nan
    median_share: float = np.nan
    covered_share: float = np.nan


def truth_of(calls: pd.DataFrame, recordings: pd.DataFrame) -> Truth:
    """Return the facts of `calls` (recording_id, start_s, end_s) in `recordings` (recording_id, group, duration_s).

    Each recording once. Calls that overlap, whatever their labels, cover their time once.
    """
    duration_s = recordings.set_index("recording_id")["duration_s"]
    total_s = float(duration_s.sum())
    share = (calls["end_s"] - calls["start_s"]).to_numpy(dtype=float) / duration_s.reindex(
        calls["recording_id"]
    ).to_numpy(dtype=float)
    holds = recordings["recording_id"].isin(calls["recording_id"])
    covered_s = sum(float((s.end_s - s.start_s).sum()) for s in union_by_recording(calls).values())
    return Truth(
        n_gt=len(calls),
        n_groups=int(recordings["group"].nunique()),
        n_groups_with_calls=int(recordings.loc[holds, "group"].nunique()),
        n_recordings=len(recordings),
        n_without_calls=int((~holds).sum()),
        silent_hours=max(total_s - covered_s, 0.0) / 3600.0,
        median_share=float(np.median(share)) if len(share) else np.nan,
        covered_share=covered_s / total_s if total_s else np.nan,
    )


def row_notes(truth: Truth, *, leaky: bool) -> str | None:
    """Return what must be read beside numbers that rest on this truth, as one line; None if there is nothing."""
    notes = [LEAKY_NOTE] if leaky else []
    notes += _thin_ground(truth)
    if truth.n_gt:
        notes += _no_negatives(truth)
    return "; ".join(notes) or None


def _thin_ground(truth: Truth) -> list[str]:
    notes = []
    if truth.n_gt == 0:
        notes.append("no annotated call: recall is undefined")
    elif truth.n_gt < FEW_CALLS:
        notes.append(f"only {truth.n_gt} annotated call{'s' * (truth.n_gt > 1)}")
    if truth.n_groups < 2:
        notes.append(f"only {truth.n_groups} group{'s' * (truth.n_groups != 1)}: no interval can be given")
    elif truth.n_groups < _FEWEST_GROUPS:
        notes.append(f"only {truth.n_groups} groups: the interval says next to nothing")
    elif truth.n_groups < FEW_GROUPS:
        notes.append(f"only {truth.n_groups} groups, which the interval takes as typical")
    if truth.n_groups > truth.n_groups_with_calls > 0 and truth.n_groups_with_calls < FEW_GROUPS:
        notes.append(f"calls in only {truth.n_groups_with_calls} of {truth.n_groups} groups")
    return notes


def _no_negatives(truth: Truth) -> list[str]:
    notes = []
    if truth.n_without_calls == 0:
        little = truth.silent_hours < 1.0
        less = f", and only {60.0 * truth.silent_hours:.0f} min between calls" if little else ""
        notes.append(f"no recording without calls{less}: false alarms may be underestimated")
    if truth.median_share >= _AS_LONG_AS_THE_FILE:
        notes.append(
            f"labels as long as the file (the median call covers {100 * truth.median_share:.0f} % of its recording): "
            "F1 tells whether a recording holds the call, not when"
        )
    elif truth.covered_share > _MOSTLY_CALLS:
        notes.append(
            f"calls cover {100 * truth.covered_share:.0f} % of the time: a detector that reports everything does well"
        )
    return notes
