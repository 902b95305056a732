"""Training examples: stretches of recordings around clips, with a truth for every frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo
from otus.config import TrainingSettings
from otus.frontend import Frontend, band_medians, read_band_power, relative_log_power
from otus.sides import EVERYWHERE, NOWHERE, Spans

Labels = NDArray[np.float32]

#: Cuts in an epoch of a small corpus.
_FEWEST_CUTS = 160

#: A recording is transformed in blocks of about so many samples at the network's rate, some 30 bytes each. Blocks of
#: a multiple of so many frames give the same bits as one block, unless the recording has to be resampled.
_BLOCK_SAMPLES, _BLOCK_MULTIPLE = 2**22, 256


@dataclass(frozen=True)
class LabelledRecording:
    """A recording with its annotated calls: times in seconds and the index of their target label.

    Only its time on the `side` counts, less what is `unknown` (neither call nor noise). `clips_only`: nobody has
    labelled it, and nothing but its noise clips is ever read.
    """

    recording_id: str
    path: Path
    info: AudioInfo
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    target: NDArray[np.int64]
    side: Spans = EVERYWHERE
    unknown: Spans = NOWHERE
    clips_only: bool = False


@dataclass(frozen=True)
class ClipPosition:
    """Where a clip lies: index of its recording, frames of that recording, and whether it holds a target."""

    recording: int
    start_frame: int
    end_frame: int
    is_target: bool


@dataclass(frozen=True)
class Batch:
    """Network input (batch, bands, frames), truth (batch, classes, frames) and which frames count."""

    features: torch.Tensor
    activity: torch.Tensor
    onset: torch.Tensor
    valid: torch.Tensor


class FeatureStore:
    """Network inputs of recordings, kept in memory up to a budget and read again beyond it.

    Those that are read first are kept, in half precision. A resumed training has to keep the same ones, or its last
    bits would differ. Recordings of which only clips are read are never kept: most of them would not be needed.
    """

    def __init__(self, recordings: list[LabelledRecording], frontend: Frontend, budget_bytes: int) -> None:
        self.recordings = recordings
        self.frontend = frontend
        self._left = budget_bytes
        self._kept: dict[int, torch.Tensor | None] = {}  # None: not read yet
        self._medians: dict[int, torch.Tensor] = {}

    def n_frames(self, index: int) -> int:
        """Return the number of frames of recording `index`."""
        return self.frontend.n_frames(self.recordings[index].info)

    def read(self, index: int, start: int, end: int) -> torch.Tensor:
        """Return the network's input (bands, frames) for frames [start, end) of recording `index`."""
        if not self.keep(index):
            return self._compute(index, start, end)
        whole = self._kept[index]
        if whole is None:
            whole = self._kept[index] = self._compute_whole(index)
        return whole[:, start:end].float()

    def keep(self, index: int) -> bool:
        """Keep recording `index` in memory once it is read, if there is room; return whether it is kept."""
        size = 2 * self.frontend.bands * self.n_frames(index)
        if index not in self._kept and size <= self._left and not self.recordings[index].clips_only:
            self._left -= size
            self._kept[index] = None
        return index in self._kept

    def kept(self) -> list[int]:
        """Return the recordings that are kept, in the order in which that was decided."""
        return list(self._kept)

    def _compute_whole(self, index: int) -> torch.Tensor:
        """The input for all frames in half precision, block by block: memory hardly grows with the recording."""
        n_frames = self.n_frames(index)
        block = _BLOCK_MULTIPLE * max(1, _BLOCK_SAMPLES // (_BLOCK_MULTIPLE * self.frontend.hop_samples))
        whole = torch.empty((self.frontend.bands, n_frames), dtype=torch.float16)
        for start in range(0, n_frames, block):
            end = min(start + block, n_frames)
            whole[:, start:end] = self._compute(index, start, end)
        return whole

    def _compute(self, index: int, start: int, end: int) -> torch.Tensor:
        recording = self.recordings[index]
        if index not in self._medians:
            self._medians[index] = band_medians(recording.path, recording.info, self.frontend)
        power = read_band_power(recording.path, recording.info, self.frontend, start, end)
        return relative_log_power(power, self._medians[index])


def frame_labels(
    recording: LabelledRecording, frontend: Frontend, n_classes: int, start: int, end: int, onset_frames: int
) -> tuple[Labels, Labels]:
    """Return activity and onset truth, each (classes, frames), for frames [start, end) of a recording.

    A frame is active if its centre lies in a call; it is an onset if it is within `onset_frames` of the frame in
    which a call starts.
    """
    activity = np.zeros((n_classes, end - start), dtype=np.float32)
    onset = np.zeros_like(activity)
    first = np.ceil(recording.start_s / frontend.hop_s - 0.5).astype(np.int64)
    last = np.maximum(np.ceil(recording.end_s / frontend.hop_s - 0.5).astype(np.int64), first + 1)
    near = (last > start - onset_frames) & (first < end + onset_frames)
    for a, b, target in zip(first[near], last[near], recording.target[near], strict=True):
        activity[target, max(0, a - start) : max(0, b - start)] = 1.0
        onset[target, max(0, a - onset_frames - start) : max(0, a + onset_frames + 1 - start)] = 1.0
    return activity, onset


def counted_frames(recording: LabelledRecording, frontend: Frontend, start: int, end: int) -> Labels:
    """Return 1 for those of the frames [start, end) that count in the loss, 0 for the others.

    A frame counts if its centre lies on the side of the recording that is trained on and in nothing unknown.
    """
    centre_s = np.asarray((np.arange(start, end) + 0.5) * frontend.hop_s, dtype=np.float64)
    return (recording.side.hold(centre_s) & ~recording.unknown.hold(centre_s)).astype(np.float32)


def cuts_per_epoch(clips: list[ClipPosition], settings: TrainingSettings) -> int:
    """Return the number of cuts in an epoch: what the settings say, or enough for every target clip to come up."""
    n_targets = sum(c.is_target for c in clips)
    return settings.cuts_per_epoch or max(_FEWEST_CUTS, math.ceil(n_targets / max(settings.target_share, 0.1)))


def draw_batches(
    store: FeatureStore,
    clips: list[ClipPosition],
    settings: TrainingSettings,
    *,
    n_classes: int,
    onset_frames: int,
    generator: np.random.Generator,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of one epoch: every target clip comes up before any comes again, likewise noise clips.

    A cut holds its clip (or as much as fits) at a random place. The first `skip` batches are drawn, not read.
    """
    targets = _shuffled_forever([c for c in clips if c.is_target], generator)
    noise = _shuffled_forever([c for c in clips if not c.is_target] or [c for c in clips if c.is_target], generator)
    n_cuts = cuts_per_epoch(clips, settings)
    for first in range(0, n_cuts, settings.batch_size):
        size = min(settings.batch_size, n_cuts - first)
        chosen = [next(targets) if generator.random() < settings.target_share else next(noise) for _ in range(size)]
        starts = [_first_frame(store, clip, settings.cut_frames, generator) for clip in chosen]
        if first >= skip * settings.batch_size:
            yield _collate(
                [
                    _cut(store, clip, start, settings.cut_frames, n_classes, onset_frames)
                    for clip, start in zip(chosen, starts, strict=True)
                ]
            )


def _shuffled_forever(clips: list[ClipPosition], generator: np.random.Generator) -> Iterator[ClipPosition]:
    while True:
        for i in generator.permutation(len(clips)):
            yield clips[i]


def _first_frame(store: FeatureStore, clip: ClipPosition, length: int, generator: np.random.Generator) -> int:
    """Draw where a cut around `clip` starts."""
    lowest, highest = sorted((clip.end_frame - length, clip.start_frame))
    latest = max(0, store.n_frames(clip.recording) - length)
    return int(np.clip(generator.integers(lowest, highest + 1), 0, latest))


def _cut(store: FeatureStore, clip: ClipPosition, start: int, length: int, n_classes: int, onset_frames: int) -> Batch:
    recording = store.recordings[clip.recording]
    end = min(start + length, store.n_frames(clip.recording))
    activity, onset = frame_labels(recording, store.frontend, n_classes, start, end, onset_frames)
    counted = counted_frames(recording, store.frontend, start, end)
    short = length - (end - start)  # a recording shorter than a cut is filled with its median, which does not count
    return Batch(
        features=torch.nn.functional.pad(store.read(clip.recording, start, end), (0, short)),
        activity=torch.nn.functional.pad(torch.from_numpy(activity), (0, short)),
        onset=torch.nn.functional.pad(torch.from_numpy(onset), (0, short)),
        valid=torch.nn.functional.pad(torch.from_numpy(counted), (0, short)),
    )


def _collate(cuts: list[Batch]) -> Batch:
    return Batch(
        features=torch.stack([c.features for c in cuts]),
        activity=torch.stack([c.activity for c in cuts]),
        onset=torch.stack([c.onset for c in cuts]),
        valid=torch.stack([c.valid for c in cuts]),
    )
