"""Training examples: stretches of recordings around clips, with a truth for every frame."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo
from otus.frontend import Frontend, band_medians, read_features
from otus.sides import EVERYWHERE, NOWHERE, Spans
from otus.training.objectives import Examples
from otus.training.prefetch import several_at_once

Labels = NDArray[np.float32]

#: Cuts in an epoch of a small corpus.
_FEWEST_CUTS = 160

#: However unequal the strata are, an epoch has so many cuts around calls for each call and no more.
_MOST_CUTS_PER_CALL = 4

#: Index of a recording, first frame, frame behind the last.
Stretch = tuple[int, int, int]

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
    """Where a clip lies: index of its recording, frames of that recording, and the index of its target label.

    `target` is None for noise. Clips of one `stratum` come up as often as those of any other.
    """

    recording: int
    start_frame: int
    end_frame: int
    target: int | None
    stratum: int = 0


@dataclass(frozen=True)
class Batch(Examples):
    """Network input (batch, bands, frames), truth (batch, classes, frames), which frames count, which are noise clips.

    `noise` is 1 for a cut around a noise clip.
    """

    features: torch.Tensor
    activity: torch.Tensor
    onset: torch.Tensor
    valid: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class CutPlan:
    """How cuts are drawn: their number in an epoch (None: enough for every target clip) and in a batch, their length.

    A cut holds its clip at a random place, and `margin` frames on either side of that, which may lie outside the
    recording. `on_grid`: cuts start at multiples of their length, and each is one of those that its clip reaches into.
    """

    cuts_per_epoch: int | None
    batch_size: int
    length: int
    target_share: float
    margin: int = 0
    on_grid: bool = False


class FeatureStore:
    """Network inputs of recordings, kept in memory up to a budget and read again beyond it.

    Those that are read first are kept, in half precision. A resumed training has to keep the same ones, or its last
    bits would differ. Recordings of which only clips are read are never kept: most of them would not be needed.
    """

    def __init__(
        self, recordings: list[LabelledRecording], frontend: Frontend, budget_bytes: int, device: torch.device
    ) -> None:
        self.recordings = recordings
        self.frontend = frontend
        self.device = device  # where spectra are computed
        self._left = budget_bytes
        self._kept: dict[int, torch.Tensor | None] = {}  # None: not read yet
        self._medians: dict[int, torch.Tensor] = {}

    def n_frames(self, index: int) -> int:
        """Return the number of frames of recording `index`."""
        return self.frontend.n_frames(self.recordings[index].info)

    def read(self, index: int, start: int, end: int) -> torch.Tensor:
        """Return the network's input (bands, frames) for frames [start, end) of recording `index`."""
        return self.read_all([(index, start, end)])[0]

    def read_all(self, stretches: Sequence[Stretch]) -> list[torch.Tensor]:
        """Return what `read` does for every stretch; those that are not kept are read several at once."""
        beyond = [stretch for stretch in stretches if not self.keep(stretch[0])]
        for index in sorted({index for index, _, _ in beyond} - set(self._medians)):
            self._medians_of(index)  # one after the other: each takes much memory
        computed = iter(several_at_once(lambda stretch: self._compute(*stretch), beyond))
        return [self._from_kept(*s) if s[0] in self._kept else next(computed) for s in stretches]

    def _from_kept(self, index: int, start: int, end: int) -> torch.Tensor:
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
        recording, medians = self.recordings[index], self._medians_of(index)
        return read_features(recording.path, recording.info, self.frontend, start, end, medians, self.device).cpu()

    def _medians_of(self, index: int) -> torch.Tensor:
        if index not in self._medians:
            recording = self.recordings[index]
            self._medians[index] = band_medians(recording.path, recording.info, self.frontend)
        return self._medians[index]


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


def n_cuts(clips: list[ClipPosition], plan: CutPlan) -> int:
    """Return the number of cuts in an epoch: what the plan says, or enough for every target clip to come up.

    Where strata are very unequal, that would be too many: then it is four cuts for each target clip.
    """
    strata = Counter(c.stratum for c in clips if c.target is not None)
    n_targets = min(max(strata.values(), default=0) * len(strata), _MOST_CUTS_PER_CALL * strata.total())
    return plan.cuts_per_epoch or max(_FEWEST_CUTS, math.ceil(n_targets / max(plan.target_share, 0.1)))


def draw_batches(
    store: FeatureStore,
    clips: list[ClipPosition],
    plan: CutPlan,
    *,
    n_classes: int,
    onset_frames: int,
    generator: np.random.Generator,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of one epoch: every target clip of a stratum comes up before any comes again, likewise noise.

    The first `skip` batches are drawn, not read.
    """
    for number, drawn in enumerate(drawn_cuts(store, clips, plan, generator)):
        if number >= skip:
            yield read_cuts(store, drawn, plan, n_classes, onset_frames)


def draw_windows(
    store: FeatureStore,
    clips: list[ClipPosition],
    plan: CutPlan,
    *,
    n_classes: int,
    generator: np.random.Generator,
    skip: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of one epoch of whole windows: all frames of a cut bear the same labels."""
    for number, drawn in enumerate(drawn_cuts(store, clips, plan, generator)):
        if number >= skip:
            sound = _sound_of(store, drawn, plan)
            yield _collate([_window(store, *cut, plan, n_classes, x) for cut, x in zip(drawn, sound, strict=True)])


def drawn_cuts(
    store: FeatureStore, clips: list[ClipPosition], plan: CutPlan, generator: np.random.Generator
) -> Iterator[list[tuple[ClipPosition, int]]]:
    """Yield the clips of every batch of an epoch, and the frame at which each cut starts (without its margin)."""
    targets = _in_turn([c for c in clips if c.target is not None] or clips, generator)
    noise = _shuffled_forever([c for c in clips if c.target is None] or clips, generator)
    total = n_cuts(clips, plan)
    around_calls = generator.permutation(total) < round(plan.target_share * total)  # by chance some would not come up
    for first in range(0, total, plan.batch_size):
        chosen = [next(targets if call else noise) for call in around_calls[first : first + plan.batch_size]]
        yield [(clip, _first_frame(store, clip, plan, generator)) for clip in chosen]


def _in_turn(clips: list[ClipPosition], generator: np.random.Generator) -> Iterator[ClipPosition]:
    """A clip of every stratum in turn, in an order that changes every time; each stratum is shuffled forever."""
    strata: dict[int, list[ClipPosition]] = {}
    for clip in clips:
        strata.setdefault(clip.stratum, []).append(clip)
    sources = [_shuffled_forever(strata[s], generator) for s in sorted(strata)]
    if len(sources) == 1:
        yield from sources[0]
    while True:
        for i in generator.permutation(len(sources)):
            yield next(sources[i])


def _shuffled_forever(clips: list[ClipPosition], generator: np.random.Generator) -> Iterator[ClipPosition]:
    while True:
        for i in generator.permutation(len(clips)):
            yield clips[i]


def _first_frame(store: FeatureStore, clip: ClipPosition, plan: CutPlan, generator: np.random.Generator) -> int:
    """Draw where a cut around `clip` starts."""
    n_frames, length = store.n_frames(clip.recording), plan.length
    if plan.on_grid:
        last_frame = max(clip.start_frame, min(clip.end_frame, n_frames) - 1)
        return length * int(generator.integers(clip.start_frame // length, last_frame // length + 1))
    lowest, highest = sorted((clip.end_frame - length, clip.start_frame))
    return int(np.clip(generator.integers(lowest, highest + 1), 0, max(0, n_frames - length)))


def read_cuts(
    store: FeatureStore, drawn: list[tuple[ClipPosition, int]], plan: CutPlan, n_classes: int, onset_frames: int
) -> Batch:
    """Return the batch of the cuts around these clips that start at these frames, with the truth of every frame."""
    sound = _sound_of(store, drawn, plan)
    return _collate([_cut(store, *cut, plan, n_classes, onset_frames, x) for cut, x in zip(drawn, sound, strict=True)])


def _sound_of(store: FeatureStore, drawn: list[tuple[ClipPosition, int]], plan: CutPlan) -> list[torch.Tensor]:
    """The network's input for every cut with its margins."""
    before, after = plan.margin, plan.length + plan.margin
    return read_padded(store, [(clip.recording, start - before, start + after) for clip, start in drawn])


def _cut(
    store: FeatureStore,
    clip: ClipPosition,
    start: int,
    plan: CutPlan,
    n_classes: int,
    onset_frames: int,
    features: torch.Tensor,
) -> Batch:
    """A cut with the truth of every frame; what is not in the recording is its median, and does not count."""
    recording = store.recordings[clip.recording]
    end = min(start + plan.length, store.n_frames(clip.recording))
    activity, onset = frame_labels(recording, store.frontend, n_classes, start, end, onset_frames)
    counted = counted_frames(recording, store.frontend, start, end)
    short = plan.length - (end - start)
    return Batch(
        features=features,
        activity=torch.nn.functional.pad(torch.from_numpy(activity), (0, short)),
        onset=torch.nn.functional.pad(torch.from_numpy(onset), (0, short)),
        valid=torch.nn.functional.pad(torch.from_numpy(counted), (0, short)),
        noise=torch.tensor(float(clip.target is None)),
        sources=(recording.recording_id,),
    )


def _window(
    store: FeatureStore, clip: ClipPosition, start: int, plan: CutPlan, n_classes: int, features: torch.Tensor
) -> Batch:
    """A cut of which every frame bears the label of its clip, and those of calls that fill half of it.

    A window counts if half of it does.
    """
    recording = store.recordings[clip.recording]
    end = start + plan.length
    calls, _ = frame_labels(recording, store.frontend, n_classes, start, end, 0)
    present = calls.mean(axis=1) >= 0.5
    if clip.target is not None:
        present[clip.target] = True
    activity = torch.from_numpy(present).float().unsqueeze(1).expand(n_classes, plan.length)
    counted = counted_frames(recording, store.frontend, start, end).mean() >= 0.5
    return Batch(
        features=features,
        activity=activity,
        onset=torch.zeros_like(activity),
        valid=torch.full((plan.length,), float(counted)),
        noise=torch.tensor(float(clip.target is None)),
        sources=(recording.recording_id,),
    )


def read_padded(store: FeatureStore, stretches: Sequence[Stretch]) -> list[torch.Tensor]:
    """Return the input (bands, frames) for every stretch, of which parts may lie outside the recording."""
    inside = [(index, max(0, start), min(end, store.n_frames(index))) for index, start, end in stretches]
    return [
        torch.nn.functional.pad(x, (first - start, end - last), value=store.frontend.outside)
        for x, (_, first, last), (_, start, end) in zip(store.read_all(inside), inside, stretches, strict=True)
    ]


def _collate(cuts: list[Batch]) -> Batch:
    stacked = {name: torch.stack([c.tensors()[name] for c in cuts]) for name in cuts[0].tensors()}
    return Batch(**stacked, sources=tuple(c.sources[0] for c in cuts))
