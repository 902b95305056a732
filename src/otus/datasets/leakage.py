"""The proof that nothing stands on two sides of a split, or the account of what does."""

from itertools import combinations

import numpy as np
import pandas as pd

from otus.datasets.splits import SPLITS
from otus.tables import table


def leakage_table(recordings: pd.DataFrame, clips: pd.DataFrame, splits: pd.DataFrame, *, dataset: str) -> pd.DataFrame:
    """Return the `leakage` table: per fold and pair of sides, what both hold.

    Counted are groups, recordings, contents (recordings of the same sound, whatever their file), raw recordings (an
    extract counts as its raw recording) and clips that overlap a clip of the other side. `example` names one.
    """
    facts = recordings.set_index("recording_id")
    rows = pd.concat([splits[_SIDE], clips[_SIDE]], ignore_index=True).drop_duplicates()
    content = facts["content_sha256"].fillna(facts["sha256"])
    rows["content"] = rows["recording_id"].map(content)
    parents = rows["recording_id"].map(facts["parent"])
    rows["raw"] = parents.where(parents.notna(), rows["recording_id"])
    found = []
    for fold, own in rows.groupby("fold", sort=True):
        here = clips[clips["fold"] == fold]
        for one, other in combinations(SPLITS, 2):
            sides = own[own["split"] == one], own[own["split"] == other]
            shared = {
                name: sorted(set(sides[0][column].dropna()) & set(sides[1][column].dropna()))
                for name, column in _SHARED.items()
            }
            overlapping = _overlapping(here[here["split"] == one], here[here["split"] == other])
            first = next((f"{name}: {values[0]}" for name, values in shared.items() if values), None)
            found.append(
                {
                    "dataset": dataset, "fold": fold, "side": one, "other_side": other,
                    **{f"shared_{name}": len(values) for name, values in shared.items()},
                    "overlapping_clips": overlapping, "example": first,
                    "leaky": bool(first or overlapping),
                }
            )  # fmt: skip
    return table("leakage", found)


def verdict(leakage: pd.DataFrame) -> str:
    """Return in one sentence whether anything of a variant stands on two sides."""
    leaky = leakage[leakage["leaky"].astype(bool)]
    folds = leakage["fold"].nunique()
    if leaky.empty:
        return f"no group, recording or content stands on two sides in any of {folds} fold(s)"
    worst = leaky.sort_values(["shared_recordings", "shared_groups"], ascending=False, kind="stable").iloc[0]
    return (
        f"LEAKY: in fold {worst['fold']}, {worst['side']} and {worst['other_side']} share "
        f"{worst['shared_groups']} groups and {worst['shared_recordings']} recordings ({worst['example']})"
    )


_SIDE = ["recording_id", "group", "fold", "split"]
_SHARED = {"groups": "group", "recordings": "recording_id", "contents": "content", "raw_recordings": "raw"}


def _overlapping(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many clips of one side overlap a clip of the other in the same recording."""
    both = pd.concat([one, other], ignore_index=True)
    number = pd.factorize(both["recording_id"])[0].astype(np.int64)
    apart = int(both["end_sample"].max()) + 1 if len(both) else 1  # puts all recordings one after another
    start = both["start_sample"].to_numpy(dtype=np.int64) + number * apart
    end = both["end_sample"].to_numpy(dtype=np.int64) + number * apart
    n = len(one)
    begun = np.searchsorted(np.sort(start[n:]), end[:n], side="left")
    over = np.searchsorted(np.sort(end[n:]), start[:n], side="right")
    return int((begun > over).sum())
