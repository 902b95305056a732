"""Which intervals overlap others, in one recording or anywhere in the raw recording that extracts were cut from."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def overlaps(
    keys: NDArray[np.object_],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    other_keys: NDArray[np.object_],
    other_start: NDArray[np.float64],
    other_end: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return, per interval [start, end), whether it overlaps one of the others with the same key; starts are >= 0."""
    n = len(keys)
    if n == 0 or len(other_keys) == 0:
        return np.zeros(n, dtype=bool)
    code = pd.factorize(np.concatenate([keys, other_keys]))[0].astype(float)
    apart = float(max(end.max(), other_end.max())) + 1.0  # puts what belongs to one key behind what belongs to another
    order = np.argsort(code[n:] * apart + other_start, kind="stable")
    begins = (code[n:] * apart + other_start)[order]
    reach = np.maximum.accumulate((code[n:] * apart + other_end)[order])
    before = np.searchsorted(begins, code[:n] * apart + end, side="left")
    found: NDArray[np.bool_] = (before > 0) & (reach[np.maximum(before, 1) - 1] > code[:n] * apart + start)
    return found


def annotations_heard(recordings: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """Return recording_id, start_s and end_s of everything annotated that is heard in each recording.

    Two extracts of one raw recording may overlap, and the raw recording holds them all: what is annotated in one of
    them is heard in the others too, whether or not anybody has annotated it there.
    """
    rows = annotations[["recording_id", "start_s", "end_s"]]
    members = _members(recordings)
    if members.empty:
        return rows
    placed = rows.merge(members[["recording_id", "raw", "offset_s"]], on="recording_id")
    both = placed.merge(members, on="raw", suffixes=("", "_other"))
    both = both[both["recording_id"] != both["recording_id_other"]]
    shift_s = both["offset_s"] - both["offset_s_other"]
    start_s, end_s = both["start_s"] + shift_s, both["end_s"] + shift_s
    heard = (end_s > 0) & (start_s < both["duration_s"])
    seen = pd.DataFrame({"recording_id": both["recording_id_other"], "start_s": start_s, "end_s": end_s})[heard]
    return pd.concat([rows, seen], ignore_index=True)


def raw_time(recordings: pd.DataFrame) -> pd.DataFrame:
    """Return `raw` and `offset_s` by recording_id: where in which raw recording each recording begins.

    One that is no extract, or whose place is not known, is its own raw recording.
    """
    facts = recordings.set_index("recording_id")
    placed = facts["raw"].notna() & facts["parent_start_s"].notna()
    raw = facts["raw"].where(placed, pd.Series(facts.index, index=facts.index))
    return pd.DataFrame({"raw": raw, "offset_s": facts["parent_start_s"].where(placed, 0.0).astype(float)})


def _members(recordings: pd.DataFrame) -> pd.DataFrame:
    """The recordings that share a raw recording, with their place in it: recording_id, raw, offset_s, duration_s."""
    found = raw_time(recordings).assign(duration_s=recordings["duration_s"].to_numpy()).reset_index()
    return found[found.duplicated("raw", keep=False)]
