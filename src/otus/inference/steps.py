"""From chunks to what one reading holds, and from what was read to the logits of every model that wants them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otus.audio import AudioInfo
from otus.dense import FrameRange, is_out_of_memory
from otus.errors import StageError
from otus.inference.reading import Answer, Request
from otus.inference.scorer import Scorer, Stretch
from otus.scores import Logits
from otus.telemetry.events import Recorder

#: A chunk is scored in pieces of at most so many samples, which bounds memory whatever the length of a chunk.
_PIECE_SAMPLES = 2**23

#: Short recordings are read together up to so many samples and pieces: handing them over one by one costs too much.
_UNIT_SAMPLES, _UNIT_STEPS = 2**20, 64

#: Fewer frames than these are not scored by themselves where memory runs out.
_FEWEST_FRAMES = 256

_NO_MEDIANS = torch.zeros(0)


@dataclass(frozen=True)
class Task:
    """A chunk (a row of the manifest) and the models, by number, that have still to score it."""

    chunk: Any
    models: tuple[int, ...]


@dataclass
class Heard:
    """A recording at hand: what the inventory says of it, and what is known of its sound.

    `profile_reads` are the stretches that the band medians are taken from, as the front end of that number counts them,
    `stretches` the same as they were read; `failed` is the answer that brought none. `profiles` has the medians.
    """

    path: Path
    info: AudioInfo
    profile_reads: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    stretches: tuple[Stretch, ...] = ()
    failed: Answer | None = None
    profiles: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A piece of a chunk: of every model that wants it, the frames and the samples [start, end) that they depend on.

    With `begins` the first request is for the recording's band medians, the last one is always for the piece.
    """

    task: Task
    heard: Heard
    frames: dict[int, FrameRange]
    reads: dict[int, tuple[int, int]]
    requests: tuple[Request, ...]
    begins: bool
    is_last: bool


def units(
    tasks: Sequence[Task], scorers: Sequence[Scorer], recordings: dict[str, tuple[Path, AudioInfo]]
) -> Iterator[list[Step]]:
    """Yield the steps of all tasks, in their order, by what is read together. Chunks of a recording are neighbours."""
    unit: list[Step] = []
    samples, fronts = 0, front_ends(scorers)
    for recording_id, own in itertools.groupby(tasks, key=lambda task: str(task.chunk.recording_id)):
        for step in _steps(list(own), scorers, fronts, Heard(*recordings[recording_id])):
            unit.append(step)
            samples += sum(b - a for request in step.requests for _, a, b in request.stretches)
            if samples >= _UNIT_SAMPLES or len(unit) >= _UNIT_STEPS:
                yield unit
                unit, samples = [], 0
    if unit:
        yield unit


def front_ends(scorers: Sequence[Scorer]) -> list[int]:
    """Return the number of each model's front end; those with equal ones have the same."""
    known: dict[Any, int] = {}
    return [known.setdefault(scorer.frontend, len(known)) for scorer in scorers]


def _steps(tasks: list[Task], scorers: Sequence[Scorer], fronts: list[int], heard: Heard) -> Iterator[Step]:
    """The steps of the chunks of one recording."""
    used = {fronts[number]: scorers[number] for task in tasks for number in task.models}
    info = heard.info
    heard.profile_reads.update({front: scorer.profile_reads(info) for front, scorer in used.items()})
    profile = sorted({(used[f].sample_rate, a, b) for f, reads in heard.profile_reads.items() for a, b in reads})
    begins = bool(profile)
    for task in tasks:
        start, end = int(task.chunk.start_sample), int(task.chunk.end_sample)
        n_pieces = max(1, -(-(end - start) // _PIECE_SAMPLES))
        borders = [start + i * (end - start) // n_pieces for i in range(n_pieces + 1)]
        for i, (a, b) in enumerate(itertools.pairwise(borders)):
            frames = {n: scorers[n].frames(a, b, info) for n in task.models}
            reads = {n: scorers[n].reads(own, info) for n, own in frames.items() if len(own)}
            requests = [Request(heard.path, info, tuple(profile))] if begins else []
            requests.append(Request(heard.path, info, _wanted(reads, scorers, profile)))
            yield Step(task, heard, frames, reads, tuple(requests), begins, i == n_pieces - 1)
            begins = False


def _wanted(
    reads: dict[int, tuple[int, int]], scorers: Sequence[Scorer], known: Sequence[tuple[int, int, int]]
) -> tuple[tuple[int, int, int], ...]:
    """One stretch for each sample rate that holds what all models need, unless one of `known` does."""
    needed: dict[int, tuple[int, int]] = {}
    for number, (start, end) in reads.items():
        if start < end:  # frames that no window belongs to need nothing
            rate = scorers[number].sample_rate
            before = needed.get(rate, (start, end))
            needed[rate] = min(start, before[0]), max(end, before[1])
    wanted = [(rate, *bounds) for rate, bounds in sorted(needed.items())]
    return tuple(w for w in wanted if not any(k[0] == w[0] and k[1] <= w[1] and w[2] <= k[2] for k in known))


class Scoring:
    """The models of a job at work on one piece after another; those with the same front end share the spectrogram."""

    def __init__(self, scorers: Sequence[Scorer], journal: Recorder) -> None:
        self._scorers, self._fronts, self._journal = scorers, front_ends(scorers), journal
        self._step: Step | None = None
        self._features: dict[tuple[int, int, int], torch.Tensor] = {}

    def logits(self, number: int, step: Step, stretches: Sequence[Stretch]) -> Logits:
        """Return the logits (2 * classes, frames) of a model for a step, from the stretches that were read for it.

        Raises FloatingPointError if a score is not finite, StageError if the memory does not suffice for the fewest
        frames or a score is missing.
        """
        scorer, front, heard, frames = self._scorers[number], self._fronts[number], step.heard, step.frames[number]
        shape = 2 * len(scorer.classes), len(frames)
        if not len(frames):
            return np.zeros(shape, dtype=np.float32)
        if step is not self._step:
            self._step, self._features = step, {}
        near = [*heard.stretches, *stretches]
        if front not in heard.profiles:
            parts = [_covering(near, scorer.sample_rate, a, b) for a, b in heard.profile_reads[front]]
            heard.profiles[front] = scorer.profile(parts, heard.info) if parts else _NO_MEDIANS
        stretch = _covering(near, scorer.sample_rate, *step.reads[number])
        found = self._scored(number, stretch, frames, heard)
        if found.shape != shape:
            raise StageError(
                f"{heard.path}: scores of {found.shape[1]} frames instead of {shape[1]}; report this error."
            )
        return found

    def _scored(self, number: int, stretch: Stretch, frames: FrameRange, heard: Heard) -> Logits:
        """Score frames; where the memory does not suffice for their spectrogram, one half after the other."""
        scorer = self._scorers[number]
        batch = scorer.batch
        try:
            found = self._at_once(number, stretch, frames, heard)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(frames) <= _FEWEST_FRAMES:
                raise StageError(
                    f"memory ran out at the spectrogram of {len(frames)} frames, and it cannot be fewer at a time; "
                    "take a device with more memory."
                ) from error
        else:
            if scorer.batch < batch:
                self._journal.write("oom_backoff", batch_size=scorer.batch)
            return found
        # Only here is the error gone, and with it what it held in memory.
        self._features.clear()
        torch.cuda.empty_cache()
        self._journal.write("oom_backoff", batch_size=scorer.batch)
        middle = (frames.start + frames.end) // 2
        halves = FrameRange(frames.start, middle), FrameRange(middle, frames.end)
        return np.concatenate([self._scored(number, stretch, half, heard) for half in halves], axis=1)

    def _at_once(self, number: int, stretch: Stretch, frames: FrameRange, heard: Heard) -> Logits:
        """Score frames from one spectrogram, which models that see the same frames of it share."""
        scorer, front = self._scorers[number], self._fronts[number]
        profile, seen = heard.profiles[front], scorer.sees(frames, heard.info)
        key = front, seen.start, seen.end
        if key not in self._features:
            self._features[key] = scorer.features(stretch, frames, heard.info, profile)
        return scorer.score(stretch, frames, heard.info, profile, self._features[key])


def _covering(stretches: Sequence[Stretch], rate: int, start: int, end: int) -> Stretch:
    """A stretch that holds samples [start, end) at the rate."""
    if start >= end:
        return Stretch(np.zeros(0, dtype=np.float32), 0, rate)
    for stretch in stretches:
        if stretch.rate == rate and stretch.start <= start and end <= stretch.start + len(stretch.samples):
            return stretch
    raise StageError(f"samples {start} to {end} at {rate} Hz were not read; report this error.")
