"""Learning as ANIMAL-SPOT does it: every clip is one example of a class, a window cut from its spectrogram."""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from otus.audio import read_at_rate
from otus.config import AugmentationSettings, TrainingSettings
from otus.errors import DataError
from otus.models import Resnet18, WindowEnsemble
from otus.models.animal_spot import import_checkpoint
from otus.seeds import derive_seed
from otus.training.cuts import LabelledRecording
from otus.training.learning import Learning
from otus.training.material import Material
from otus.training.objectives import Examples, Judgement
from otus.training.prefetch import several_at_once
from otus.windows import WindowFrontend, clip_power, compressed, network_input, window_frontend

#: The output that stands for noise; the targets follow.
_NOISE = 0

#: The lowest factor of a random change of pitch.
_LOWEST_PITCH = 0.25

#: Val clips that go through the network at once.
_JUDGED = 64


@dataclass(frozen=True)
class WindowClip:
    """A clip, in samples of its recording; `output` is that of the network that it is an example of."""

    recording: LabelledRecording
    start_sample: int
    end_sample: int
    output: int


@dataclass(frozen=True)
class WindowBatch(Examples):
    """Network input (batch, 1, frames, bands) and the output that is right (batch,)."""

    features: torch.Tensor
    output: torch.Tensor


class ClipSpectra:
    """Power spectra of clips; those that are read first are kept in memory, up to a budget.

    They are rounded to bfloat16, which is at most 0.02 dB, and zero in the bins that the network sees at no pitch: the
    lowest factor of a change of pitch is `lowest_pitch`. What is computed again has the same bits, so that a resumed
    training need not keep the same ones.
    """

    def __init__(
        self, clips: Sequence[WindowClip], frontend: WindowFrontend, budget_bytes: int, lowest_pitch: float = 1.0
    ) -> None:
        self.clips, self.frontend = clips, frontend
        self._bins = _seen_bins(frontend, lowest_pitch)
        self._left = budget_bytes
        self._kept: dict[int, torch.Tensor] = {}
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self.clips)

    def power(self, index: int) -> torch.Tensor:
        """Return the power spectra (frames, n_fft / 2 + 1) of clip `index`."""
        seen = self._kept[index] if index in self._kept else self._compute(index)
        return nn.functional.pad(seen.float(), (0, self.frontend.n_fft // 2 + 1 - self._bins))

    def keeps(self, index: int) -> bool:
        """Return whether clip `index` is in memory already."""
        return index in self._kept

    def _compute(self, index: int) -> torch.Tensor:
        clip = self.clips[index]
        ours, theirs = self.frontend.sample_rate, clip.recording.info.sample_rate
        stretch = clip.start_sample * ours // theirs, -(-clip.end_sample * ours // theirs)
        samples = read_at_rate(clip.recording.path, *stretch, ours, clip.recording.info)
        power = clip_power(torch.from_numpy(samples), self.frontend)
        seen = power[:, : self._bins].to(torch.bfloat16, memory_format=torch.contiguous_format)
        size = seen.numel() * seen.element_size()
        with self._keeping:
            if index not in self._kept and size <= self._left:
                self._left -= size
                self._kept[index] = seen
        return seen


class ClipObjective:
    """Windows cut from clips learn which class they show; judged by how many val clips are told right."""

    draw = 0.0

    def __init__(self, train: ClipSpectra, val: ClipSpectra, frames: int, settings: TrainingSettings) -> None:
        self.train, self.val, self.frames = train, val, frames
        self._size, self._augmentation = settings.batch_size, settings.augmentation
        self._n_clips = min(len(train), settings.cuts_per_epoch or len(train))
        self._noise = [i for i, clip in enumerate(train.clips) if clip.output == _NOISE]

    def n_batches(self) -> int:
        """Return the number of batches in an epoch; what is left over beyond whole batches waits for another one."""
        return max(1, self._n_clips // self._size)

    def batches(self, seed: int, skip: int) -> Iterator[WindowBatch]:
        """Yield the batches of the epoch with that seed, augmented; the first `skip` are drawn, not read."""
        order = np.random.default_rng(seed).permutation(len(self.train))[: self._n_clips]
        for number in range(skip, self.n_batches()):
            chosen = order[number * self._size : (number + 1) * self._size]
            yield _batch(self.train, chosen, self._examples(chosen.tolist(), seed))

    def vary(self, batch: WindowBatch, generator: torch.Generator) -> WindowBatch:
        """Return the batch as it is: what is augmented are whole clips, before windows are cut from them."""
        return batch

    def weight(self, batch: WindowBatch) -> float:
        """Return the number of examples."""
        return float(len(batch))

    def loss(self, network: nn.Module, batch: WindowBatch) -> torch.Tensor:
        """Return the summed cross-entropy."""
        return nn.functional.cross_entropy(network(batch.features).float(), batch.output, reduction="sum")

    def judge(self, network: nn.Module) -> Judgement:
        """Return accuracy (also as `detection`) and F1 of targets against noise on the middles of the val clips."""
        network.eval()
        device = next(network.parameters()).device
        right, hits, called, calls = 0, 0, 0, 0
        for start in range(0, len(self.val), _JUDGED):
            numbers = np.arange(start, min(start + _JUDGED, len(self.val)))
            batch = _batch(self.val, numbers, [self._middle(int(i)) for i in numbers]).to(device)
            with torch.inference_mode():
                said = network(batch.features).argmax(dim=1)
            said_call, is_call = said != _NOISE, batch.output != _NOISE
            right += int((said == batch.output).sum())
            hits += int((said_call & is_call).sum())
            called, calls = called + int(said_call.sum()), calls + int(is_call.sum())
        accuracy, f1 = right / max(1, len(self.val)), 2 * hits / max(1, called + calls)
        return {"detection": accuracy, "accuracy": accuracy, "f1": f1}

    def kept(self) -> list[int]:
        """Return nothing: a resumed training may keep other clips in memory."""
        return []

    def keep(self, indices: list[int]) -> None:
        """Do nothing, see `kept`."""

    def _examples(self, indices: list[int], seed: int) -> list[torch.Tensor]:
        """The windows of some clips; if any of these has to be read, several at once."""
        if all(map(self.train.keeps, indices)):
            return [self._example(i, seed) for i in indices]
        return several_at_once(lambda i: self._example(i, seed), indices)

    def _example(self, index: int, seed: int) -> torch.Tensor:
        """The window (1, frames, bands) that one clip gives in the epoch with that seed."""
        generator = np.random.default_rng(derive_seed(seed, "clip", index))
        power = stretched(
            amplified(self.train.power(index), self._augmentation, generator), self._augmentation, generator
        )
        bands = compressed(power, self.train.frontend)
        if self._noise and generator.random() < self._augmentation.noise_probability:
            bands = self._with_noise(bands, generator)
        window = network_input(bands, self.train.frontend)
        return fitted(window, self.frames, generator).unsqueeze(0)

    def _with_noise(self, bands: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """Band powers with those of a noise clip added, at a random ratio of their sums."""
        how = self._augmentation
        power = stretched(self.train.power(int(generator.choice(self._noise))), how, generator)
        noise = fitted(compressed(power, self.train.frontend), len(bands), generator)
        ratio_db = generator.uniform(how.noise_low_db, how.noise_high_db)
        total = float(noise.sum())
        return bands + noise * (float(bands.sum()) / total * 10.0 ** (-ratio_db / 10.0)) if total > 0 else bands

    def _middle(self, index: int) -> torch.Tensor:
        bands = compressed(self.val.power(index), self.val.frontend)
        return fitted(network_input(bands, self.val.frontend), self.frames, None).unsqueeze(0)


def amplified(power: torch.Tensor, how: AugmentationSettings, generator: np.random.Generator) -> torch.Tensor:
    """Return the power at another level: whole dB between -gain_db and a third of gain_db."""
    if how.gain_db == 0:
        return power
    level_db = generator.integers(-math.floor(how.gain_db), math.floor(how.gain_db / 3), endpoint=True)
    return power * math.pow(10.0, float(level_db) / 10.0)


def stretched(power: torch.Tensor, how: AugmentationSettings, generator: np.random.Generator) -> torch.Tensor:
    """Return the power spectra (frames, bins) scaled along frequency, then along time, by the nearest bin and frame.

    Pitch p scales by a factor between 2 - p (at least 1/4) and p, time t by one between 1 / t and t, both drawn on a
    logarithmic axis. Bins that nothing is left for get the median.
    """
    n_frames, n_bins = power.shape
    if how.stretch_pitch > 1:
        factor = _factor(_lowest_pitch(how), how.stretch_pitch, generator)
        median, n_scaled = power.median(), max(1, int(n_bins * factor))
        power = power[:, _nearest(n_bins, n_scaled)[:n_bins]]
        if n_scaled < n_bins:
            power = torch.cat([power, median.expand(n_frames, n_bins - n_scaled)], dim=1)
    if how.stretch_time > 1:
        factor = _factor(1.0 / how.stretch_time, how.stretch_time, generator)
        power = power[_nearest(n_frames, max(1, int(n_frames * factor)))]
    return power


def _lowest_pitch(how: AugmentationSettings) -> float:
    return max(_LOWEST_PITCH, 2.0 - how.stretch_pitch)


def _seen_bins(frontend: WindowFrontend, lowest_pitch: float) -> int:
    """How many bins of a spectrum, from the lowest on, the network sees once frequencies are scaled by that factor."""
    n_bins = frontend.n_fft // 2 + 1
    highest = math.ceil((frontend.n_fft + 1) * frontend.high_hz / frontend.sample_rate)
    if lowest_pitch < 1:
        highest = math.ceil((highest + 1) * n_bins / max(1, math.floor(n_bins * lowest_pitch) - 1))
    return min(n_bins, highest + 1)


def fitted(spectra: torch.Tensor, frames: int, generator: np.random.Generator | None) -> torch.Tensor:
    """Return `frames` of the spectra (n, bands): cut at a random place, or with zeros around a random place.

    Without a generator the place is the middle.
    """
    surplus = len(spectra) - frames
    place = abs(surplus) // 2 if generator is None else int(generator.integers(abs(surplus) + 1))
    if surplus >= 0:
        return spectra[place : place + frames]
    return nn.functional.pad(spectra, (0, 0, place, -surplus - place))


def learning_from_windows(
    material: Material, clips: pd.DataFrame, targets: Sequence[str], settings: TrainingSettings
) -> Learning:
    """Return what ANIMAL-SPOT's network learns from: the clips of the train side, judged by those of the val side.

    Raises DataError if a checkpoint to start from cannot be used, or if there is no clip to learn or to judge by.
    """
    imported = import_checkpoint(settings.resnet18, targets) if settings.resnet18.checkpoint else None
    how = imported.settings if imported else settings.resnet18
    frontend = imported.frontend if imported else window_frontend(how)
    budget = settings.cache_mb * 2**20
    lowest_pitch = _lowest_pitch(settings.augmentation)
    train = ClipSpectra(_clips(material.train, clips, "train", targets), frontend, budget * 3 // 4, lowest_pitch)
    val = ClipSpectra(_clips(material.val, clips, "val", targets), frontend, budget // 4)
    if settings.epochs != 0:
        _check_clips(train.clips, val.clips)

    def new_network() -> Resnet18:
        return imported.network() if imported else Resnet18(how, 1 + len(targets))

    return Learning(
        objective=ClipObjective(train, val, max(1, int(how.window_s * how.sample_rate / how.hop_samples)), settings),
        new_network=new_network,
        together=WindowEnsemble,
        frontend=frontend,
        inference="windowed",
        window_frames=frontend.window_frames,
        hears=f"windows of {how.window_s:g} s every {how.hop_s:g} s, {how.bins} {how.compression} bands "
        f"{how.low_hz:g}-{how.high_hz:g} Hz" + (f", weights of {imported.record['file']}" if imported else ""),
        network=how,
        imported=imported.record if imported else None,
    )


def _clips(
    recordings: Sequence[LabelledRecording], clips: pd.DataFrame, side: str, targets: Sequence[str]
) -> list[WindowClip]:
    """The target and noise clips of one side, as far as their recordings are among those of the side."""
    by_id = {r.recording_id: r for r in recordings}
    wanted = clips[(clips["split"] == side) & clips["class"].isin(["target", "noise"])]
    wanted = wanted[wanted["recording_id"].isin(list(by_id))].sort_values("clip_id")
    outputs = [
        1 + list(targets).index(label) if kind == "target" else _NOISE
        for label, kind in zip(wanted["label"], wanted["class"], strict=True)
    ]
    return [
        WindowClip(by_id[clip.recording_id], int(clip.start_sample), int(clip.end_sample), output)
        for clip, output in zip(wanted.itertuples(index=False), outputs, strict=True)
    ]


def _check_clips(train: Sequence[WindowClip], val: Sequence[WindowClip]) -> None:
    if all(clip.output != _NOISE for clip in train):
        raise DataError(
            "train: there is no noise clip, and a resnet18 learns targets against noise; raise noise_per_target of the "
            "dataset variant."
        )
    if not val:
        raise DataError("train: no clip lies on the val side to judge a resnet18 by; change the split in the config.")


def _batch(spectra: ClipSpectra, numbers: np.ndarray, windows: list[torch.Tensor]) -> WindowBatch:
    clips = [spectra.clips[int(i)] for i in numbers]
    return WindowBatch(
        features=torch.stack(windows),
        output=torch.tensor([clip.output for clip in clips]),
        sources=tuple(clip.recording.recording_id for clip in clips),
    )


def _factor(low: float, high: float, generator: np.random.Generator) -> float:
    """A random factor, drawn on a logarithmic axis."""
    return float(2.0 ** generator.uniform(math.log2(low), math.log2(high)))


def _nearest(n: int, n_scaled: int) -> torch.Tensor:
    """Which of `n` positions each of `n_scaled` positions along the same stretch takes."""
    return torch.arange(n_scaled) * n // n_scaled
