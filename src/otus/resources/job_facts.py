"""What the load of a job follows from: the corpus, the config, and the model that it is about.

Light: it runs while Snakemake is parsed.
"""

import math
from dataclasses import dataclass

from otus.config import Config, DatasetSettings, DecodingSettings, TrainingSettings
from otus.resources.corpus_size import CorpusSize
from otus.resources.networks import NetworkCost, network_cost

#: The unit of networks: an hour of audio at this frame hop, scored once by a dense_resnet of default size.
_HOP_S = 0.01
HOUR_FRAMES = 3600 / _HOP_S
REFERENCE = network_cost(TrainingSettings(architecture="dense_resnet"), 1)

#: Time grows with this power of the multiplications of a network; a frame of a recurrent layer takes so many scored
#: frames more, however few multiplications it has.
_SUBLINEAR, _RECURRENT = 0.8, 0.3

#: The spectrum of a frame and of a sample, in scored frames (benchmarks/resources.py --parts).
_FRAME_SPECTRUM, _SAMPLE_SPECTRUM = 0.3, 0.0008

#: Selections that may turn out to be hits, per call.
_CANDIDATES = 2.0

#: Frames that a band median is taken from, and whose spectra are held at once; as in otus.frontend.
PROFILE_FRAMES = 12_000


@dataclass(frozen=True)
class JobFacts:
    """Everything that a load depends on; `training`, `decoding` and `dataset` are those of the model at hand."""

    config: Config
    size: CorpusSize
    training: TrainingSettings
    decoding: DecodingSettings
    dataset: DatasetSettings
    shards: int

    @property
    def folds(self) -> int:
        """Folds of the cross-validation, 1 without."""
        return self.config.split.folds or 1

    @property
    def classes(self) -> int:
        """Labels that a network tells apart."""
        return len(self.config.corpus.targets)

    @property
    def val_share(self) -> float:
        """Share of the recordings that a fold validates on; with folds of groups another fold's part."""
        split = self.config.split
        of_others = split.folds is None or split.by != "group"
        return (1 - self.test_share) * split.val_fraction if of_others else self.test_share

    @property
    def test_share(self) -> float:
        """Share of the recordings that a fold tests on."""
        split = self.config.split
        return 1 / split.folds if split.folds else split.test_fraction

    @property
    def hop_s(self) -> float:
        """The frame hop: the architecture's, as set, a sixth of a short call as otus.frontend chooses it, or 10 ms."""
        if self.training.architecture == "resnet18":
            return self.training.resnet18.hop_s
        if self.training.architecture == "beats":
            return _HOP_S
        if self.training.frontend.hop_s:
            return self.training.frontend.hop_s
        if self.size.short_call_s and math.isfinite(self.size.short_call_s):
            return min(max(self.size.short_call_s / 6, 0.001), 0.02)
        return _HOP_S

    def frames(self, hours: float) -> float:
        """Frames (windows of a resnet18) in so many hours."""
        return hours * 3600 / self.hop_s

    def with_profiles(self, hours: float) -> float:
        """So many hours of recordings, and again what their band medians are computed from."""
        recordings = self.size.recordings * hours / self.size.hours if self.size.hours else 0.0
        return hours + min(hours, recordings * PROFILE_FRAMES * self.hop_s / 3600)

    def spectra(self, hours: float) -> float:
        """The work of computing the network's input of so many hours."""
        samples = hours * 3600 * self.size.sample_rate
        return (self.frames(hours) * _FRAME_SPECTRUM + samples * _SAMPLE_SPECTRUM) / HOUR_FRAMES

    @property
    def cost(self) -> NetworkCost:
        """What one network of the model takes."""
        return network_cost(self.training, self.classes)

    def network(self, frames: float) -> float:
        """The work of scoring so many frames (windows of a resnet18) with one network."""
        cost = self.cost
        share = math.pow(cost.multiplications / REFERENCE.multiplications, _SUBLINEAR)
        return frames / HOUR_FRAMES * (share + (_RECURRENT if cost.recurrent else 0.0))

    @property
    def cut_frames(self) -> float:
        """Frames of a training cut; with the clip objective a window and what the network sees around it."""
        if self.training.architecture == "resnet18":
            return 1.0
        if self.training.objective == "clip" and self.training.clip_s:
            return self.training.clip_s / self.hop_s + 2 * self.cost.context
        return self.training.cut_frames

    @property
    def clips(self) -> float:
        """Clips of all folds: target calls, labelled confusers, mined noise."""
        return self.folds * (self.size.rows + self.dataset.noise_share * self.size.calls)

    @property
    def candidates(self) -> float:
        """Selections of all recordings, as one fold would find them."""
        return _CANDIDATES * self.size.calls

    def counts(self) -> float:
        """Rows of the counts of one model: recordings of all folds at the chosen points, of both layers."""
        labels = self.classes + (self.classes > 1)
        judged = self.size.recordings * (self.folds * (self.val_share + self.test_share) + 1)
        return 2 * labels * len(self.config.evaluation.iou) * judged

    def metrics(self) -> float:
        """Rows of the metrics of one model: chosen and fixed points of both layers, the grid before the forest."""
        settings = self.config.evaluation
        points = 2 * len(settings.iou) * (2 + len(settings.thresholds))
        points += len(self.decoding.combinations()) * len(settings.thresholds)
        return (self.classes + (self.classes > 1)) * (self.folds + 1) * points
