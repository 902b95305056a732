"""What a dataset variant holds, in numbers: counts and lengths of its clips, who is on which side, what leaks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from otus.clipfiles.lists import SPLITS

Row = dict[str, Any]

_CLASSES = ("target", "noise", "unknown")


def clip_statistics(clips: pd.DataFrame, sides: pd.DataFrame) -> dict[str, list[Row]]:
    """Return the counts and lengths of clips as rows, by class, label, origin, quality, group, and fold and split.

    `clips` and `sides` are the tables of numbered_clips. Every row names its values and has `clips`, `total_s`,
    `median_s`, `min_s` and `max_s`. A clip counts once, but once per fold in `fold_split`. What is missing is null.
    """
    once = clips.assign(length_s=clips["end_s"] - clips["start_s"])
    dealt = sides.merge(once, on="uid")
    return {
        "class": _lengths(once, ["class"]),
        "label": _lengths(once, ["class", "label"]),
        "origin": _lengths(once, ["class", "origin"]),
        "quality": _lengths(once, ["class", "label", "quality"]),
        "group": _lengths(once, ["group", "class"]),
        "fold_split": _lengths(dealt, ["fold", "split", "class", "label", "origin"]),
    }


def side_statistics(
    recordings: pd.DataFrame, splits: pd.DataFrame, clips: pd.DataFrame, sides: pd.DataFrame
) -> list[Row]:
    """Return one row per fold and split: groups, recordings, hours, and clips and seconds of each class.

    `part` is what the fold tests, null if that is a share of the groups. The hours are those of the spans in `splits`.
    Raw recordings that only lend noise are no part of them.
    """
    rates = splits["recording_id"].map(recordings.set_index("recording_id")["sample_rate"]).astype(float)
    spans = splits.assign(hours=(splits["end_sample"] - splits["start_sample"]) / rates / 3600)
    held = spans.groupby(["fold", "split"]).agg(
        groups=("group", "nunique"), recordings=("recording_id", "nunique"), hours=("hours", "sum")
    )
    lengths = clips[["uid", "class"]].assign(length_s=clips["end_s"] - clips["start_s"])
    dealt = sides.merge(lengths, on="uid").groupby(["fold", "split", "class"])["length_s"].agg(["size", "sum"])
    part_of = splits[["fold", "part"]].dropna().drop_duplicates("fold").set_index("fold")["part"].to_dict()
    per_side, per_class = held.to_dict("index"), dealt.to_dict("index")
    nothing = {"groups": 0, "recordings": 0, "hours": 0.0}
    rows = []
    for fold in sorted(set(splits["fold"]) | set(sides["fold"])):
        for split in SPLITS:
            own = per_side.get((fold, split), nothing)
            row: Row = {"fold": int(fold), "part": part_of.get(fold), "split": split, **own}
            row["hours"] = round(float(own["hours"]), 6)
            for kind in _CLASSES:
                found = per_class.get((fold, split, kind), {"size": 0, "sum": 0.0})
                row[f"{kind}_clips"] = int(found["size"])
                row[f"{kind}_s"] = round(float(found["sum"]), 6)
            rows.append(row)
    return rows


def group_sides(splits: pd.DataFrame) -> list[Row]:
    """Return one row per group, sorted: its recordings, and the folds in which it stands in train, val and test."""
    recordings = splits.groupby("group", sort=True)["recording_id"].nunique()
    places: dict[tuple[str, str], list[int]] = {}
    once = splits[["group", "split", "fold"]].drop_duplicates().sort_values("fold")
    for group, split, fold in zip(once["group"], once["split"], once["fold"], strict=True):
        places.setdefault((str(group), split), []).append(int(fold))
    return [
        {"group": group, "recordings": int(n), **{split: places.get((group, split), []) for split in SPLITS}}
        for group, n in zip(map(str, recordings.index), recordings, strict=True)
    ]


def histogram(clips: pd.DataFrame, bins: int = 24) -> Row:
    """Return the numbers of clips by length: `edges_s` (bins + 1) and a list of counts for every class.

    The bins are equally wide on a logarithmic scale if the longest clip is more than eight times the shortest.
    """
    lengths = (clips["end_s"] - clips["start_s"]).to_numpy(dtype=float)
    if len(lengths) == 0:
        return {"edges_s": [], **{kind: [] for kind in _CLASSES}}
    low, high = float(lengths.min()), float(lengths.max())
    if high > 8 * low > 0:
        edges = np.geomspace(low, high, bins + 1)
    else:
        edges = np.linspace(low, high if high > low else low * 1.01 + 1e-6, bins + 1)
    edges[-1] = max(edges[-1], high)  # rounding must not leave the longest clip out
    edges[0] = min(edges[0], low)
    counts = {k: np.histogram(lengths[clips["class"].eq(k).to_numpy()], edges)[0].tolist() for k in _CLASSES}
    return {"edges_s": [round(float(e), 6) for e in edges], **counts}


def _lengths(clips: pd.DataFrame, keys: Sequence[str]) -> list[Row]:
    """A row for every combination of values of `keys` that occurs, with the lengths of its clips, targets first."""
    if clips.empty:
        return []
    found = clips.groupby(list(keys), dropna=False, sort=True)["length_s"]
    table = found.agg(clips="size", total_s="sum", median_s="median", min_s="min", max_s="max").reset_index()
    rows = []
    for row in table.to_dict("records"):
        values = {key: None if pd.isna(row[key]) else row[key] for key in keys}
        times = {name: round(float(row[name]), 6) for name in ("total_s", "median_s", "min_s", "max_s")}
        rows.append({**values, "clips": int(row["clips"]), **times})
    if keys[0] == "class":
        rows.sort(key=lambda row: _CLASSES.index(row["class"]))
    return rows
