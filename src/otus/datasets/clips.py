"""Clips that training starts from: target calls, labelled confusers, and noise mined from unlabelled time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.config import DatasetSettings
from otus.seeds import derive_seed
from otus.tables import table


def make_clips(
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    splits: pd.DataFrame,
    *,
    targets: Sequence[str],
    settings: DatasetSettings,
    seed: int,
) -> pd.DataFrame:
    """Return the `clips` table: every clip once per fold, on the side of its recording.

    Target calls are class target, all other annotations class noise (origin annotation), mined time class noise
    (origin mined).
    """
    used = recordings[recordings["recording_id"].isin(splits["recording_id"])].sort_values("recording_id")
    rows = annotations[annotations["recording_id"].isin(used["recording_id"])]
    clips = pd.concat([_annotated(rows, used, targets), _mined(rows, used, targets, settings, seed)], ignore_index=True)
    clips = clips.sort_values(["recording_id", "start_sample", "end_sample", "class", "label"], kind="stable")
    number = clips.groupby("recording_id").cumcount()
    clips["clip_id"] = clips["recording_id"] + "_c" + number.astype(str).str.zfill(5)
    return table("clips", clips.merge(splits, on="recording_id").sort_values(["fold", "clip_id"], ignore_index=True))


def _annotated(rows: pd.DataFrame, used: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """One clip per annotation, cut at whole samples."""
    rate = rows["recording_id"].map(used.set_index("recording_id")["sample_rate"]).to_numpy()
    length = rows["recording_id"].map(used.set_index("recording_id")["n_samples"]).to_numpy()
    start = np.floor(rows["start_s"].to_numpy() * rate).astype(np.int64)
    end = np.minimum(np.ceil(rows["end_s"].to_numpy() * rate).astype(np.int64), length)
    return pd.DataFrame(
        {
            "recording_id": rows["recording_id"],
            "start_sample": start,
            "end_sample": end,
            "class": np.where(rows["label"].isin(list(targets)), "target", "noise"),
            "label": rows["label"],
            "quality": rows["quality"],
            "origin": "annotation",
        }
    )


def _mined(
    rows: pd.DataFrame, used: pd.DataFrame, targets: Sequence[str], settings: DatasetSettings, seed: int
) -> pd.DataFrame:
    """Noise clips from free slots, drawn in proportion to the room that they leave; no two overlap.

    Durations are those of target calls, at least `min_noise_s`. There are fewer clips than asked for where the
    recordings have no more room.
    """
    calls = rows[rows["label"].isin(list(targets))]
    wanted = round(settings.noise_per_target * len(calls))
    generator = np.random.default_rng(derive_seed(seed, "noise"))
    durations = np.maximum(
        generator.choice((calls["end_s"] - calls["start_s"]).to_numpy(), size=wanted), settings.min_noise_s
    )
    owner, start_s, end_s = _free_slots(rows, used, settings.margin_s)
    found: list[tuple[int, float, float]] = []
    for duration in durations:
        room = np.maximum(end_s - start_s - duration, 0.0)
        total = np.cumsum(room)
        if len(total) == 0 or total[-1] <= 0:
            continue
        position = generator.uniform(0.0, total[-1])
        slot = min(int(np.searchsorted(total, position, side="right")), len(room) - 1)
        begin = start_s[slot] + position - (total[slot] - room[slot])
        found.append((int(owner[slot]), begin, begin + duration))
        owner = np.append(owner, owner[slot])  # what is left of the slot behind the clip becomes a slot of its own
        start_s, end_s = np.append(start_s, begin + duration), np.append(end_s, end_s[slot])
        end_s[slot] = begin
    rates, ids = used["sample_rate"].to_numpy(), used["recording_id"].to_numpy()
    return pd.DataFrame(
        {
            "recording_id": [ids[o] for o, _, _ in found],
            "start_sample": [int(np.ceil(a * rates[o])) for o, a, _ in found],
            "end_sample": [int(np.floor(b * rates[o])) for o, _, b in found],
            "class": "noise",
            "label": None,
            "quality": None,
            "origin": "mined",
        }
    )


def _free_slots(
    rows: pd.DataFrame, used: pd.DataFrame, margin_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Time that no annotation (of any label) touches within the margin: index of the recording, start, end."""
    owner, starts, ends = [], [], []
    by_recording = dict(list(rows.groupby("recording_id")))
    for index, (recording_id, duration_s) in enumerate(zip(used["recording_id"], used["duration_s"], strict=True)):
        here = by_recording.get(recording_id)
        taken = np.zeros((0, 2)) if here is None else here[["start_s", "end_s"]].sort_values("start_s").to_numpy()
        free_from = 0.0
        for start, end in taken:
            if start - margin_s > free_from:
                owner.append(index)
                starts.append(free_from)
                ends.append(start - margin_s)
            free_from = max(free_from, end + margin_s)
        if duration_s > free_from:
            owner.append(index)
            starts.append(free_from)
            ends.append(duration_s)
    return np.asarray(owner, dtype=np.int64), np.asarray(starts), np.asarray(ends)
