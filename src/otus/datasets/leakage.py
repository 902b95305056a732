"""The proof that nothing stands on two sides of a split, or the account of what does."""

from itertools import combinations

import pandas as pd

from otus.datasets.overlaps import overlaps, raw_time
from otus.datasets.splits import SPLITS
from otus.tables import table


def leakage_table(recordings: pd.DataFrame, clips: pd.DataFrame, splits: pd.DataFrame, *, dataset: str) -> pd.DataFrame:
    """Return the `leakage` table: per fold and pair of sides, what both hold.

    Counted are groups, recordings, contents (recordings of the same sound, whatever their file; null if they were not
    compared), raw recordings (an extract counts as its raw recording) and clips in which one hears a part of a clip of
    the other side, be it in the same recording or in another extract. `example` names one.
    """
    facts = recordings.set_index("recording_id")
    rows = pd.concat([splits[_SIDE], clips[_SIDE]], ignore_index=True).drop_duplicates()
    rows["content"] = rows["recording_id"].map(facts["content_sha256"])
    compared = bool(rows["content"].notna().all())
    known = rows["recording_id"].map(facts["raw"])
    rows["raw"] = known.where(known.notna(), rows["recording_id"])
    every = _places(recordings, clips)
    found = []
    for fold, own in rows.groupby("fold", sort=True):
        here = clips[clips["fold"] == fold]
        places = every[clips["fold"] == fold]
        for one, other in combinations(SPLITS, 2):
            sides = own[own["split"] == one], own[own["split"] == other]
            shared = {
                name: sorted(set(sides[0][column].dropna()) & set(sides[1][column].dropna()))
                for name, column in _SHARED.items()
            }
            overlapping = _overlapping(places[here["split"] == one], places[here["split"] == other])
            counts: dict[str, int | None] = {f"shared_{name}": len(values) for name, values in shared.items()}
            if not compared:
                counts["shared_contents"] = None
            first = next((f"{name}: {values[0]}" for name, values in shared.items() if values), None)
            found.append(
                {
                    "dataset": dataset, "fold": fold, "side": one, "other_side": other, **counts,
                    "overlapping_clips": overlapping, "example": first, "leaky": bool(first or overlapping),
                }
            )  # fmt: skip
    return table("leakage", found)


def verdict(leakage: pd.DataFrame) -> str:
    """Return in one sentence whether anything of a variant stands on two sides."""
    leaky = leakage[leakage["leaky"].astype(bool)]
    folds = leakage["fold"].nunique()
    where = "in any fold" if folds > 1 else "of the split"
    if leaky.empty and leakage["shared_contents"].isna().any():
        return f"no group or recording stands on two sides {where}; contents were not compared (corpus.audio_check)"
    if leaky.empty:
        return f"no group, recording or content stands on two sides {where}"
    worst = leaky.sort_values(["shared_recordings", "shared_groups"], ascending=False, kind="stable").iloc[0]
    return (
        f"LEAKY: in fold {worst['fold']}, {worst['side']} and {worst['other_side']} share "
        f"{worst['shared_groups']} groups and {worst['shared_recordings']} recordings ({worst['example']})"
    )


_SIDE = ["recording_id", "group", "fold", "split"]
_SHARED = {"groups": "group", "recordings": "recording_id", "contents": "content", "raw_recordings": "raw"}


def _places(recordings: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """The raw recording of each clip, and its start and end in it (s)."""
    place = raw_time(recordings).loc[clips["recording_id"]]
    rate = recordings.set_index("recording_id")["sample_rate"].loc[clips["recording_id"]].to_numpy(dtype=float)
    start_s, end_s = (clips[name].to_numpy(dtype=float) / rate for name in ("start_sample", "end_sample"))
    offset_s = place["offset_s"].to_numpy(dtype=float)
    return pd.DataFrame(
        {"raw": place["raw"].to_numpy(), "start_s": start_s + offset_s, "end_s": end_s + offset_s}, index=clips.index
    )


def _overlapping(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many places of one side overlap one of the other."""
    sides = [frame[name].to_numpy() for frame in (one, other) for name in ("raw", "start_s", "end_s")]
    return int(overlaps(*sides).sum())
