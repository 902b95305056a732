"""From tables to what a network learns from: the recordings of each side with their calls, and the clips as frames."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from otus.audio import AudioInfo
from otus.errors import DataError
from otus.sides import NOWHERE, Spans, rows_inside, side_spans, union_by_recording, unknown_spans
from otus.training.cuts import ClipPosition, LabelledRecording

#: A clip lies within so many samples of the annotation that it was cut from.
_CUT_SAMPLES = 1.5


@dataclass(frozen=True)
class TrainingTables:
    """What a training reads: the corpus, and clips and splits of one fold of a dataset variant."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    clips: pd.DataFrame
    splits: pd.DataFrame

    def digest(self) -> str:
        """Return a SHA-256 over what training can see of the tables.

        That are the recordings, annotations, spans and clips of train and val, and the raw recordings in which some of
        the clips lie.
        """
        seen = self.splits[self.splits["split"] != "test"]
        clips = self.clips[self.clips["split"] != "test"]
        ids = set(seen["recording_id"]) | set(clips["recording_id"])
        parts = [
            self.recordings[self.recordings["recording_id"].isin(ids)][["recording_id", "sha256"]],
            self.annotations[self.annotations["recording_id"].isin(ids)],
            clips,
            seen,
        ]
        text = "\n".join(p.to_csv(index=False, float_format="%.10g") for p in parts)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Material:
    """The labelled recordings of the train and val sides of a fold, and the target calls to learn."""

    train: list[LabelledRecording]
    val: list[LabelledRecording]
    calls: pd.DataFrame

    @property
    def durations_s(self) -> np.ndarray:
        """How long the calls to learn are."""
        return np.asarray(self.calls["end_s"] - self.calls["start_s"], dtype=float)


def read_material(root: Path, tables: TrainingTables, targets: Sequence[str]) -> Material:
    """Return what a fold has to learn from and to be judged by; no recording is opened.

    Raises DataError if there is no call to learn, or no recording on one of the sides.
    """
    calls = _calls_to_learn(tables, targets)
    train = _labelled(root, tables, "train", calls, _not_learnt(tables, targets), targets)
    val_calls = _calls(tables, "val", targets)
    val = _labelled(root, tables, "val", val_calls, unknown_spans(tables.annotations), targets)
    if calls.empty or _train_clips(tables, "target").empty:
        raise DataError(
            f"train: no call of {', '.join(targets)} is left to learn on the train side; lower min_quality of the "
            "dataset variant or label more recordings."
        )
    return Material(train, val, calls)


def _spans(tables: TrainingTables, split: str) -> dict[str, Spans]:
    """The time of every recording on one side."""
    return side_spans(tables.splits, tables.recordings.set_index("recording_id")["sample_rate"], split)


def _calls(tables: TrainingTables, split: str, targets: Sequence[str]) -> pd.DataFrame:
    """The annotated target calls whose midpoints lie on one side."""
    rows = tables.annotations[tables.annotations["label"].isin(list(targets))]
    return rows[rows_inside(rows, _spans(tables, split))]


def _calls_to_learn(tables: TrainingTables, targets: Sequence[str]) -> pd.DataFrame:
    """The target calls of the train side, without those whose clips the dataset variant leaves out as unknown."""
    calls = _calls(tables, "train", targets)
    clips = dict(list(_train_clips(tables, "unknown").groupby("recording_id")))
    left_out = np.zeros(len(calls), dtype=bool)
    for recording_id, rows in calls.reset_index(drop=True).groupby("recording_id").indices.items():
        if recording_id in clips:
            left_out[rows] = _has_clip(calls.iloc[rows], clips[str(recording_id)])
    return calls[~left_out]


def _has_clip(calls: pd.DataFrame, clips: pd.DataFrame) -> np.ndarray:
    """Whether one of the clips (of the same recording) was cut from each call: at whole samples."""
    same = calls["label"].to_numpy()[:, None] == clips["label"].to_numpy()
    for edge in ("start_s", "end_s"):
        apart_s = np.abs(calls[edge].to_numpy(dtype=float)[:, None] - clips[edge].to_numpy(dtype=float))
        same &= apart_s <= _CUT_SAMPLES / clips["sample_rate"].to_numpy(dtype=float)
    return np.asarray(same.any(axis=1))


def _train_clips(tables: TrainingTables, kind: str) -> pd.DataFrame:
    """The train clips of one class, with their times in s."""
    clips = tables.clips[(tables.clips["split"] == "train") & (tables.clips["class"] == kind)]
    rate = clips["recording_id"].map(tables.recordings.set_index("recording_id")["sample_rate"]).astype(float)
    times = {"start_s": clips["start_sample"] / rate, "end_s": clips["end_sample"] / rate}
    return clips.assign(**times, sample_rate=rate)


def _not_learnt(tables: TrainingTables, targets: Sequence[str]) -> dict[str, Spans]:
    """The time of every recording that is no example of anything: unknown clips, and calls of the other sides.

    A call of another side may reach into train time, and is no noise there.
    """
    rows = tables.annotations[tables.annotations["label"].isin(list(targets))]
    elsewhere = rows[~rows_inside(rows, _spans(tables, "train"))]
    columns = ["recording_id", "start_s", "end_s"]
    return union_by_recording(pd.concat([_train_clips(tables, "unknown")[columns], elsewhere[columns]]))


def _labelled(
    root: Path,
    tables: TrainingTables,
    split: str,
    calls: pd.DataFrame,
    unknown: Mapping[str, Spans],
    targets: Sequence[str],
) -> list[LabelledRecording]:
    """The recordings of one side with their calls; those of train with the raw recordings that lend noise clips."""
    by_recording = dict(list(calls.sort_values("start_s").groupby("recording_id")))
    facts = tables.recordings.set_index("recording_id")
    labelled = _spans(tables, split)
    if not labelled:
        raise DataError(f"train: the fold has no {split} recordings; change the split in the config.")
    noise = _train_clips(tables, "noise")
    raw = union_by_recording(noise[~noise["recording_id"].isin(list(labelled))]) if split == "train" else {}
    found = []
    for recording_id, side in (labelled | raw).items():
        row, own = facts.loc[recording_id], by_recording.get(recording_id, calls.iloc[:0])
        info = AudioInfo(int(row["n_samples"]), int(row["sample_rate"]), int(row["channels"]), str(row["subtype"]))
        found.append(
            LabelledRecording(
                recording_id,
                root / row["path"],
                info,
                own["start_s"].to_numpy(dtype=float),
                own["end_s"].to_numpy(dtype=float),
                np.array([list(targets).index(label) for label in own["label"]], dtype=np.int64),
                side=side,
                unknown=unknown.get(recording_id, NOWHERE),
                clips_only=recording_id in raw,
            )
        )
    return found


def clip_positions(
    recordings: list[LabelledRecording],
    clips: pd.DataFrame,
    *,
    hop_s: float,
    targets: Sequence[str],
    balance: str,
) -> list[ClipPosition]:
    """Return the target and noise clips of the train side as frames of their recordings.

    `balance` says which target clips come up equally often: those of every label, of every group, of both, or all
    (none). A clip is left out if its recording is not opened: where calls coincide, a leaky variant may give their
    time to another side.
    """
    number = {r.recording_id: i for i, r in enumerate(recordings)}
    wanted = clips[(clips["split"] == "train") & clips["class"].isin(["target", "noise"])]
    wanted = wanted[wanted["recording_id"].isin(list(number))].sort_values("clip_id")
    kinds = {"none": [], "labels": ["label"], "groups": ["group"], "both": ["label", "group"]}[balance]
    strata = wanted.groupby(kinds, dropna=False).ngroup().tolist() if kinds else [0] * len(wanted)
    positions = []
    for clip, stratum, kind in zip(wanted.itertuples(index=False), strata, wanted["class"], strict=True):
        index = number[clip.recording_id]
        per_frame = hop_s * recordings[index].info.sample_rate
        start, end = int(clip.start_sample / per_frame), int(np.ceil(clip.end_sample / per_frame))
        target = list(targets).index(clip.label) if kind == "target" else None
        positions.append(ClipPosition(index, start, end, target, stratum if kind == "target" else 0))
    return positions
