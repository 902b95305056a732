"""One model at work: which samples it needs, what it sees of them, and its scores. Samples in, arrays out."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo, resampled_length
from otus.dense import FrameRange, frames_to_read, piece_frames, score_stretch
from otus.frontend import (
    Frontend,
    band_power,
    medians_of,
    network_input,
    profile_frames,
    relative_log_power,
    samples_of_frames,
)
from otus.inference.acceleration import Precision, accelerated, chosen_precision
from otus.inference.batch_cache import fastest_batch, remembered_batch
from otus.inference.dense import frames_of_chunk
from otus.inference.windowed import samples_of_windows, score_windows, windows_of_frames
from otus.models import FrameNetwork, WindowEnsemble
from otus.models.card import ModelCard
from otus.windows import WindowFrontend, window_inputs

#: Windows that go through a network at once on a CPU: more leave its cache, fewer keep it waiting.
_CPU_WINDOWS = 64

#: A network that scores frames takes so many of them for a window.
_FRAMES_FOR_A_WINDOW = 16


@dataclass(frozen=True)
class Stretch:
    """Samples (n,) of a recording, mono float32 in [-1, 1]; `start` is the position of the first, counted at `rate`."""

    samples: torch.Tensor | NDArray[np.float32]
    start: int
    rate: int


class Scorer:
    """One model of a prediction job: a network with its card, made ready for a device.

    `device` is where it computes, `about` says in words how; `numerics` is what its scores depend on besides the model
    and the sound. `batch` windows are scored at once; it falls where memory runs out. On a CPU scores are the same to
    the last bit however a recording is cut.
    """

    def __init__(
        self,
        network: FrameNetwork | WindowEnsemble,
        card: ModelCard,
        device: torch.device,
        *,
        precision: Precision = "auto",
        batch: int | None = None,
        batch_cache: Path | None = None,
    ) -> None:
        """Make a copy of the network ready; on a GPU without `batch` try some, or take what `batch_cache` knows."""
        self.card, self.classes, self.frontend = card, card.classes, card.frontend
        self.sample_rate = card.frontend.sample_rate
        self.device = device
        self._dtype = chosen_precision(network, device, precision, imported=card.imported is not None)
        self._network = accelerated(network, device, self._dtype)
        self._whole: tuple[torch.Tensor, torch.Tensor] | None = None
        if batch is None and device.type == "cuda":
            batch = remembered_batch(batch_cache, self._key(), lambda: fastest_batch(self._seconds))
        self.batch = batch or self._cpu_batch()
        self.numerics = f"{device.type}, {self._precision}" + (f", {self._at_once}" if device.type == "cpu" else "")
        self.about = f"{card.architecture}, {self._precision}, batch {self._at_once}"

    def frames(self, start_sample: int, end_sample: int, info: AudioInfo) -> FrameRange:
        """Return the frames that a chunk owns: samples [start, end), counted at the recording's own rate."""
        return frames_of_chunk(start_sample, end_sample, info, self.frontend)

    def sees(self, frames: FrameRange, info: AudioInfo) -> FrameRange:
        """Return the frames of the recording, or its windows, that scores of `frames` are made of."""
        if isinstance(self.frontend, WindowFrontend):
            return windows_of_frames(frames, info, self.frontend)
        return frames_to_read(self._dense, frames, self.frontend.n_frames(info))

    def reads(self, frames: FrameRange, info: AudioInfo) -> tuple[int, int]:
        """Return the samples [start, end), at `sample_rate`, that scores of frames are made of; all in the recording.

        For a network with band medians those are needed besides, see `profile_reads`.
        """
        seen = self.sees(frames, info)
        if isinstance(self.frontend, WindowFrontend):
            return samples_of_windows(seen, info, self.frontend)
        return self._within(samples_of_frames(self.frontend, seen.start, seen.end), info)

    def profile_reads(self, info: AudioInfo) -> list[tuple[int, int]]:
        """Return the stretches [start, end), at `sample_rate`, that the band medians are taken from; [] if none are."""
        frontend = self.frontend
        if isinstance(frontend, WindowFrontend):
            return []
        return [self._within(samples_of_frames(frontend, *f), info) for f in profile_frames(info, frontend)]

    def profile(self, stretches: Sequence[Stretch], info: AudioInfo) -> torch.Tensor:
        """Return the band medians (bands,) of a recording; `stretches` hold what `profile_reads` says, in its order."""
        frontend = self.frontend
        if isinstance(frontend, WindowFrontend):
            return torch.zeros(0)
        parts = zip(stretches, profile_frames(info, frontend), strict=True)
        powers = [self._power(stretch, FrameRange(*frames), info) for stretch, frames in parts]
        medians = medians_of(powers)
        whole = [(0, frontend.n_frames(info))] == profile_frames(info, frontend)
        self._whole = (medians, powers[0]) if whole else None
        return medians

    def features(self, stretch: Stretch, frames: FrameRange, info: AudioInfo, profile: torch.Tensor) -> torch.Tensor:
        """Return the network's input (bands, frames) for all that scores of `frames` depend on, on the device.

        Networks with equal `frontend` that see the same frames (`sees`) may share it. A windowed network makes its
        input batch by batch: shape (0,).
        """
        frontend = self.frontend
        if isinstance(frontend, WindowFrontend):
            return torch.zeros(0)
        seen = self.sees(frames, info)
        with torch.inference_mode():
            if self._whole is not None and self._whole[0] is profile:  # all of a short recording is known already
                return relative_log_power(self._whole[1][:, seen.start : seen.end], profile)
            samples = self._samples(stretch, *samples_of_frames(frontend, seen.start, seen.end), info)
            return network_input(samples, frontend, seen.start, profile.to(self.device))

    def score(
        self,
        stretch: Stretch,
        frames: FrameRange,
        info: AudioInfo,
        profile: torch.Tensor,
        features: torch.Tensor | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits (2 * classes, frames) of frames of a recording: activity of every class, then onsets.

        `stretch` holds at least what `reads` says; `features` are those of these frames if they are known. Raises
        FloatingPointError if a score is not finite, StageError if the memory does not suffice for the fewest frames.
        """
        if not len(frames):
            return np.zeros((2 * len(self.classes), 0), dtype=np.float32)
        if isinstance(self.frontend, WindowFrontend):
            scores = self._windowed(self.frontend, stretch, frames, info)
        else:
            known = self.features(stretch, frames, info, profile) if features is None else features
            scores = self._frame_scores(self.frontend, known, frames, info)
        if not np.isfinite(scores).all():
            raise FloatingPointError(f"{self.card.model}: the network gave scores that are not finite.")
        return scores

    def _frame_scores(
        self, frontend: Frontend, features: torch.Tensor, frames: FrameRange, info: AudioInfo
    ) -> NDArray[np.float32]:
        first = self.sees(frames, info).start
        return score_stretch(
            self._dense,
            lambda a, b: features[:, a - first : b - first],
            frames,
            n_frames=frontend.n_frames(info),
            outside=frontend.outside,
            at_once=_FRAMES_FOR_A_WINDOW * self.batch,
            on_less=lambda at_once: self._lower(at_once // _FRAMES_FOR_A_WINDOW),
        )

    def _windowed(
        self, frontend: WindowFrontend, stretch: Stretch, frames: FrameRange, info: AudioInfo
    ) -> NDArray[np.float32]:
        assert isinstance(self._network, WindowEnsemble)
        return score_windows(
            self._network,
            lambda a, b: self._samples(stretch, a, b, info),
            info,
            frontend,
            frames,
            n_classes=len(self.classes),
            batch=self.batch,
            on_less=self._lower,
        )

    def _lower(self, batch: int) -> None:
        """Take fewer windows at once from now on."""
        self.batch = max(1, batch)

    def _power(self, stretch: Stretch, frames: FrameRange, info: AudioInfo) -> torch.Tensor:
        assert isinstance(self.frontend, Frontend)
        with torch.inference_mode():
            samples = self._samples(stretch, *samples_of_frames(self.frontend, frames.start, frames.end), info)
            return band_power(samples, self.frontend, frames.start)

    def _samples(self, stretch: Stretch, start: int, end: int, info: AudioInfo) -> torch.Tensor:
        """Samples [start, end) on the device, zeros outside the recording. ValueError if the stretch lacks some."""
        first, last = self._within((start, end), info)
        have = stretch.start, stretch.start + len(stretch.samples)
        if stretch.rate != self.sample_rate or first < have[0] or last > have[1]:
            raise ValueError(f"samples {first} to {last} at {self.sample_rate} Hz are not in the stretch {have}")
        own = torch.as_tensor(stretch.samples[first - stretch.start : last - stretch.start])
        samples = own.to(self.device, non_blocking=True)  # while this goes on, if the memory is pinned
        return torch.nn.functional.pad(samples, (first - start, end - last))

    def _within(self, bounds: tuple[int, int], info: AudioInfo) -> tuple[int, int]:
        """As much of samples [start, end) as is in the recording."""
        n_samples = resampled_length(info.n_samples, info.sample_rate, self.sample_rate)
        start = min(max(0, bounds[0]), n_samples)
        return start, max(start, min(bounds[1], n_samples))

    @property
    def _dense(self) -> FrameNetwork:
        assert isinstance(self._network, FrameNetwork)
        return self._network

    @property
    def _precision(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    @property
    def _at_once(self) -> str:
        if isinstance(self._network, WindowEnsemble):
            return f"{self.batch} windows"
        return f"{piece_frames(self._network, _FRAMES_FOR_A_WINDOW * self.batch)} frames"

    def _cpu_batch(self) -> int:
        if isinstance(self._network, WindowEnsemble):
            return _CPU_WINDOWS
        return -(-piece_frames(self._network, None) // _FRAMES_FOR_A_WINDOW)

    def _key(self) -> str:
        """The device and all that the size of a network depends on."""
        card = self.card
        facts = card.architecture, card.members, sorted(card.network.items()), card.frontend, self._precision
        return f"{torch.cuda.get_device_name(self.device)} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"

    def _seconds(self, batch: int) -> float:
        """How long a GPU takes for so many windows."""
        inputs = self._example(batch)
        with torch.inference_mode():
            for _ in range(2):  # the first time choices are made and memory is taken
                torch.cuda.synchronize(self.device)
                began = time.perf_counter()
                self._network(inputs)
                torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def _example(self, batch: int) -> torch.Tensor:
        """Silence as the network's input, so many windows of it."""
        frontend, network = self.frontend, self._network
        if isinstance(frontend, WindowFrontend):
            length = frontend.window_samples + (batch - 1) * frontend.hop_samples
            return window_inputs(torch.zeros(length, device=self.device), frontend).to(self._dtype)
        assert isinstance(network, FrameNetwork)
        frames, context = piece_frames(network, _FRAMES_FOR_A_WINDOW * batch), network.context_frames
        block = network.block_frames or frames
        shape = frames // block, frontend.bands, block + 2 * context
        return torch.zeros(shape, device=self.device, dtype=self._dtype)
