"""Clips before they are dealt to sides: target calls, labelled confusers, what is left out, noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from otus.config import UNKNOWN, DatasetSettings
from otus.datasets.hard_negatives import Selections
from otus.datasets.noise import NoiseReport, checked, mine_noise
from otus.datasets.overlaps import overlaps
from otus.seeds import derive_seed

#: A time in seconds that was a whole number of samples is off by less than this many samples.
_ROUNDING = 1e-3

#: What a clip is before it is dealt; the other columns of the table come with its side.
COLUMNS = ["recording_id", "start_sample", "end_sample", "class", "label", "quality", "group", "origin"]


def collect_clips(
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    selections: Selections | None,
    *,
    targets: Sequence[str],
    settings: DatasetSettings,
    seed: int,
) -> tuple[pd.DataFrame, NoiseReport]:
    """Return every clip of the labelled recordings once (clip_id and COLUMNS), and what became of the noise.

    Target calls are class target; labels that are no target, mined time and false alarms (`selections` of an earlier
    model) are class noise; the label unknown and calls below the lowest quality are class unknown, which is neither.
    A confuser that overlaps a call or something unknown is no clip: it is no clean example of noise.
    """
    used = labelled_recordings(recordings)
    rows = annotations[annotations["recording_id"].isin(used["recording_id"])]
    every = _annotated(rows, used, targets, settings)
    clean = _without_mixtures(every)
    annotated = _limited(clean, settings, seed)
    calls = annotated[annotated["class"] == "target"]
    noise, report = mine_noise(recordings, rows, calls, selections, settings=settings, seed=seed)
    unrated = calls["quality"].notna() & quality_number(calls["quality"]).isna()
    report = replace(
        report,
        confusers_left_out=len(every) - len(clean),
        unrated_calls=0 if settings.min_quality is None else int(unrated.sum()),
    )
    clips = pd.concat([annotated, noise], ignore_index=True)
    clips["group"] = clips["recording_id"].map(recordings.set_index("recording_id")["group"])
    order = ["recording_id", "start_sample", "end_sample", "class", "label", "origin"]
    clips = clips.sort_values(order, kind="stable", ignore_index=True)
    number = clips.groupby("recording_id").cumcount().astype(str).str.zfill(5)
    clips["clip_id"] = clips["recording_id"] + "_c" + number
    return clips[["clip_id", *COLUMNS]], checked(report, clips)


def labelled_recordings(recordings: pd.DataFrame) -> pd.DataFrame:
    """Return the recordings that can be trained and tested on, sorted by id."""
    usable = recordings["labelled"].astype(bool) & recordings["readable"].astype(bool)
    return recordings[usable].sort_values("recording_id", ignore_index=True)


def quality_number(quality: "pd.Series[str]") -> "pd.Series[float]":
    """Return the first number in each quality (`Q2`, `2`, `2 of 4` are 2.0), NaN where there is none."""
    return quality.astype("string").str.extract(r"(\d+(?:\.\d+)?)", expand=False).astype(float)


def _annotated(
    rows: pd.DataFrame, used: pd.DataFrame, targets: Sequence[str], settings: DatasetSettings
) -> pd.DataFrame:
    """One clip per annotation, cut at whole samples."""
    facts = used.set_index("recording_id")
    rate, length = (rows["recording_id"].map(facts[c]).to_numpy(dtype=float) for c in ("sample_rate", "n_samples"))
    start = np.floor(rows["start_s"].to_numpy(dtype=float) * rate + _ROUNDING).astype(np.int64)
    end = np.minimum(np.ceil(rows["end_s"].to_numpy(dtype=float) * rate - _ROUNDING), length).astype(np.int64)
    kind = np.where(rows["label"].isin(list(targets)), "target", "noise")
    left_out = (rows["label"] == UNKNOWN).to_numpy()
    if settings.min_quality is not None:
        left_out = left_out | (kind == "target") & (quality_number(rows["quality"]) < settings.min_quality).to_numpy(
            dtype=bool
        )
    return pd.DataFrame(
        {
            "recording_id": rows["recording_id"].to_numpy(),
            "start_sample": np.minimum(start, end - 1),
            "end_sample": end,
            "class": np.where(left_out, "unknown", kind),
            "label": rows["label"].to_numpy(),
            "quality": rows["quality"].to_numpy(),
            "origin": "annotation",
        }
    )


def _without_mixtures(clips: pd.DataFrame) -> pd.DataFrame:
    """The clips without confusers in which a call, or something unknown, is heard as well."""
    confuser = (clips["class"] == "noise").to_numpy()
    keys, start, end = (clips[name].to_numpy() for name in ("recording_id", "start_sample", "end_sample"))
    inner = start[confuser] + 1, end[confuser] - 1  # what ends where a call begins shares a sample by rounding only
    mixed = np.zeros(len(clips), dtype=bool)
    mixed[confuser] = overlaps(keys[confuser], *inner, keys[~confuser], start[~confuser], end[~confuser])
    return clips[~mixed].reset_index(drop=True)


def _limited(clips: pd.DataFrame, settings: DatasetSettings, seed: int) -> pd.DataFrame:
    """The clips with at most so many target clips of a label and recording, drawn at random."""
    if settings.max_per_recording is None:
        return clips
    ordered = clips.sort_values(["recording_id", "start_sample", "end_sample", "label"], kind="stable")
    shuffled = ordered.iloc[np.random.default_rng(derive_seed(seed, "per recording")).permutation(len(ordered))]
    place = shuffled.groupby(["recording_id", "class", "label"]).cumcount()
    kept = (shuffled["class"] != "target") | (place < settings.max_per_recording)
    return shuffled[kept].sort_index(ignore_index=True)
