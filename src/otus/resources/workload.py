"""What a job of the workflow has to handle: what its time grows with, and what it holds in memory.

Light: it runs while Snakemake is parsed. Every formula says in which stage the quantity comes up; what a unit costs
is measured by benchmarks/resources.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from otus.config import Config, DatasetSettings, NetworkSettings, TrainingSettings
from otus.resources.corpus_size import CorpusSize, corpus_size

#: The unit of networks: an hour of audio at this frame hop, scored once by the default network.
_HOP_S = 0.01
_HOUR_FRAMES = 3600 / _HOP_S

#: What else costs time, in scored frames (benchmarks/resources.py --parts): a frame trained on; the spectrum of a
#: frame and of a sample; one decoding of a frame.
_TRAINED = 1.8
_FRAME_SPECTRUM, _SAMPLE_SPECTRUM = 0.3, 0.0008
_DECODED = 0.0013

#: Bytes on disk: scores of a frame and class (otus.scores), a row of another table; weights of the default network.
_SCORE_BYTES, _TABLE_ROW_BYTES, _WEIGHTS_MB = 6, 100, 0.55

#: Time grows with this power of the multiplications of a network, and these are the activations of the default one.
_SUBLINEAR = 0.7
_ACTIVATION_MB = 150.0

#: Cuts in an epoch of a small corpus, samples whose spectra are computed at once; as in otus.training.cuts, which is
#: too heavy to import here.
_FEWEST_CUTS, _BLOCK_SAMPLES = 160, 2**22

#: Bytes held per unit (benchmarks/resources.py --parts): a sample while its spectrum is computed, a clip of a fold, a
#: count of a recording, a candidate selection, a row of the inventory, a frame whose scores are read, a logit.
_SAMPLE_BYTES, _CLIP_BYTES, _COUNT_BYTES, _SELECTION_BYTES, _ROW_BYTES = 30, 800, 700, 3000, 3000
_READ_FRAME_BYTES, _LOGIT_BYTES = 45, 4

#: Frames that a band median is taken from, and whose spectra are held at once; as in otus.frontend.
_PROFILE_FRAMES = 12_000

#: Candidate selections per call, and forests fitted per fold and label (five inner folds, and the one that is kept).
_CANDIDATES, _FORESTS = 2.0, 6

_MB = 2**20


@dataclass(frozen=True)
class Load:
    """What one job handles.

    `work` is what its time grows with (hours of audio; each rule has its own unit, see WORK_UNITS), `read_h` the
    hours of audio that it reads from disk, `data_mb` the data that it holds at once.
    """

    work: float
    read_h: float
    data_mb: float


#: The unit of `work` of every rule.
WORK_UNITS = {
    "make_demo_corpus": "hours of audio made",
    "take_inventory": "hours of audio inspected",
    "make_dataset": "thousand clips of all folds",
    "describe_dataset": "thousand clips of all folds; a picture or sound counts for 75",
    "write_inventory_page": "thousand recordings and annotations",
    "build_soundscapes": "hours of audio made",
    "make_chunks": "hours of audio divided",
    "train_model": "hours of audio at a 10 ms hop through the default network",
    "predict_shard": "hours of audio at a 10 ms hop through the default network",
    "evaluate_model": "hours of audio at a 10 ms hop through one decoding",
    "filter_selections": "forests of 300 trees fitted on 1000 selections",
    "merge_metrics": "thousand counts (one recording at one threshold)",
    "write_report": "thousand counts (one recording at one threshold)",
}


@dataclass(frozen=True)
class _Job:
    """Everything that a load depends on; `training` and `dataset` are those of the model at hand."""

    config: Config
    size: CorpusSize
    training: TrainingSettings
    dataset: DatasetSettings

    @property
    def folds(self) -> int:
        return self.config.split.folds or 1

    @property
    def classes(self) -> int:
        return len(self.config.corpus.targets)

    @property
    def val_share(self) -> float:
        """Share of the recordings that a fold validates on; with folds another fold's part, see otus.datasets."""
        split = self.config.split
        return 1 / split.folds if split.folds else (1 - split.test_fraction) * split.val_fraction

    @property
    def test_share(self) -> float:
        """Share of the recordings that a fold tests on."""
        split = self.config.split
        return 1 / split.folds if split.folds else split.test_fraction

    @property
    def hop_s(self) -> float:
        """The frame hop: as set, else a sixth of a short call as otus.frontend chooses it, else 10 ms."""
        if self.training.frontend.hop_s:
            return self.training.frontend.hop_s
        if self.size.short_call_s and math.isfinite(self.size.short_call_s):
            return min(max(self.size.short_call_s / 6, 0.001), 0.02)
        return _HOP_S

    def frames(self, hours: float) -> float:
        return hours * 3600 / self.hop_s

    def with_profiles(self, hours: float) -> float:
        """So many hours of recordings, and again what their band medians are computed from."""
        recordings = self.size.recordings * hours / self.size.hours if self.size.hours else 0.0
        return hours + min(hours, recordings * _PROFILE_FRAMES * self.hop_s / 3600)

    def spectra(self, hours: float) -> float:
        """The work of computing the network's input of so many hours."""
        samples = hours * 3600 * self.size.sample_rate
        return (self.frames(hours) * _FRAME_SPECTRUM + samples * _SAMPLE_SPECTRUM) / _HOUR_FRAMES

    def network(self, frames: float) -> float:
        """The work of scoring so many frames with one network."""
        shape = self.training.network, self.training.frontend.bands
        default = NetworkSettings(), 64
        return frames / _HOUR_FRAMES * math.pow(_multiplications(*shape) / _multiplications(*default), _SUBLINEAR)

    @property
    def clips(self) -> float:
        """Clips of all folds: target calls, labelled confusers, mined noise."""
        return self.folds * (self.size.rows + self.dataset.noise_share * self.size.calls)

    def counts(self) -> float:
        """Rows of the counts of one model: recordings of all folds at all thresholds, of both layers."""
        labels = self.classes + (self.classes > 1)
        points = len(self.config.evaluation.iou) * (1 + len(self.config.evaluation.thresholds))
        judged = self.size.recordings * (self.folds * (self.val_share + self.test_share) + 1)
        return 2 * labels * points * judged


def _multiplications(network: NetworkSettings, bands: int) -> int:
    """Multiplications per frame; see otus.models.dense_resnet."""
    widths = [round(network.channels * 1.5**i) for i in range(network.frequency_blocks + 1)]
    rows = -(-bands // 2)
    total = 15 * widths[0] * rows
    for narrow, wide in pairwise(widths):
        rows = -(-rows // 2)
        total += rows * (10 * narrow * wide + 9 * wide**2)
    width = network.temporal_channels
    return total + rows * widths[-1] * width + 4 * len(network.dilations) * width**2


def _make_demo_corpus(job: _Job) -> Load:
    demo = job.config.corpus.demo
    return Load(demo.recordings * demo.duration_s / 3600, 0.0, demo.duration_s * 4) if demo else Load(0.0, 0.0, 0.0)


def _take_inventory(job: _Job) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(job.size.hours, job.size.hours, rows * _ROW_BYTES / _MB)


def _make_dataset(job: _Job) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(job.clips / 1000, 0.0, (job.clips * _CLIP_BYTES + rows * _ROW_BYTES) / _MB)


def _describe_dataset(job: _Job) -> Load:
    """Lists and tables of all clips; what is drawn or cut out is read clip by clip."""
    files, rows = job.config.clip_files, job.size.recordings + job.size.rows
    made = job.clips / job.folds * ((files.spectrograms is not None) + files.audio)
    return Load(
        work=(job.clips + 75 * made) / 1000,
        read_h=made / 3600,
        data_mb=(job.clips * _CLIP_BYTES + rows * _ROW_BYTES) / _MB,
    )


def _write_inventory_page(job: _Job) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(rows / 1000, 0.0, rows * _ROW_BYTES / _MB)


def _build_soundscapes(job: _Job) -> Load:
    """Held are the clips of a part and a block of audio, whatever the length."""
    made = job.config.corpus.soundscapes
    return Load(job.size.hours, 0.0, 0.0) if made else Load(0.0, 0.0, 0.0)


def _make_chunks(job: _Job) -> Load:
    chunks = job.size.recordings + job.size.labelled_hours * 3600 / job.config.chunking.chunk_s
    return Load(job.size.labelled_hours, 0.0, chunks * _ROW_BYTES / _MB)


def _train_model(job: _Job) -> Load:
    """Cuts and, after every epoch, the validation recordings; what does not fit into the cache is read every time."""
    settings, size = job.training, job.size
    val_h = size.labelled_hours * job.val_share
    train_h = max(0.0, size.labelled_hours * (1 - job.val_share - job.test_share))
    calls = size.calls * (1 - job.val_share - job.test_share)
    cuts = settings.cuts_per_epoch or max(_FEWEST_CUTS, math.ceil(calls / max(settings.target_share, 0.1)))
    trained = settings.members * settings.epochs * cuts * settings.cut_frames
    validated = settings.members * settings.epochs * job.frames(val_h)
    frame_mb = 2 * settings.frontend.bands / _MB
    train_mb, val_mb = job.frames(train_h) * frame_mb, job.frames(val_h) * frame_mb
    train_room, val_room = settings.cache_mb * 3 / 4, settings.cache_mb / 4  # as in otus.training.stage
    again = trained * _beyond(train_mb, train_room) + validated * _beyond(val_mb, val_room)
    read_h = job.with_profiles(train_h + val_h) + again * job.hop_s / 3600
    decodings = validated * job.classes * _grid(job.config) * _DECODED
    block = min(3600 * size.longest_h * size.sample_rate, _BLOCK_SAMPLES)  # what is kept is computed block by block
    return Load(
        work=job.network(trained * _TRAINED + validated) + job.spectra(read_h) + decodings / _HOUR_FRAMES,
        read_h=read_h,
        data_mb=min(train_mb, train_room)
        + min(val_mb, val_room)
        + max(_profile_mb(job), block * _SAMPLE_BYTES / _MB)
        + job.frames(val_h) * 2 * job.classes * _LOGIT_BYTES / _MB
        + job.clips * _CLIP_BYTES / _MB,
    )


def _predict_shard(job: _Job) -> Load:
    """The val and test recordings of a fold; those that its network was trained on are skipped."""
    scored_h = job.size.labelled_hours * (job.val_share + job.test_share) / job.config.chunking.shards
    read_h = job.with_profiles(scored_h)
    return Load(
        work=job.network(job.training.members * job.frames(scored_h)) + job.spectra(read_h),
        read_h=read_h,
        data_mb=_profile_mb(job) + _ACTIVATION_MB * job.network(_HOUR_FRAMES),
    )


def _evaluate_model(job: _Job) -> Load:
    """The point of a fold is chosen on the val recordings of all folds; every fold decodes its own once more."""
    hours, folds = job.size.labelled_hours, job.folds
    scored_h = hours * (job.val_share + job.test_share)
    frames = job.frames(folds**2 * hours * job.val_share * _grid(job.config) + 2 * folds * scored_h)
    read = _READ_FRAME_BYTES * (1 + job.classes) + folds * 2 * job.classes * _LOGIT_BYTES
    return Load(
        work=job.classes * frames / _HOUR_FRAMES,
        read_h=0.0,
        data_mb=(job.frames(scored_h) * read + folds * _CANDIDATES * job.size.calls * _SELECTION_BYTES) / _MB,
    )


def _filter_selections(job: _Job) -> Load:
    candidates = _CANDIDATES * job.size.calls
    forests = _FORESTS * job.folds * job.classes * job.config.forest.trees / 300
    return Load(
        work=forests * (0.2 + candidates / job.classes / 1000),
        read_h=job.size.labelled_hours,
        data_mb=candidates * _SELECTION_BYTES / _MB,
    )


def _merge_metrics(job: _Job) -> Load:
    counts = job.counts() * len(job.config.datasets) * len(job.config.training)
    return Load(counts / 1000, 0.0, counts * _COUNT_BYTES / _MB)


def _disk_mb(rule: str, job: _Job) -> float:
    """What the outputs of a job take on disk, at most."""
    if rule == "make_demo_corpus" and job.config.corpus.demo is not None:
        return job.size.hours * 3600 * 2 * job.size.sample_rate / _MB
    if rule == "build_soundscapes":
        return job.size.hours * 3600 * 2 * job.size.sample_rate / _MB
    if rule == "describe_dataset" and (job.config.clip_files.audio or job.config.clip_files.spectrograms):
        return job.clips / job.folds * 2 * job.size.sample_rate / _MB
    if rule == "train_model":  # weights, and while it lasts the state to resume from
        return job.training.members * job.network(_HOUR_FRAMES) * _WEIGHTS_MB * 7
    if rule == "predict_shard":
        hours = job.size.labelled_hours * (job.val_share + job.test_share) / job.config.chunking.shards
        return job.frames(hours) * job.classes * _SCORE_BYTES / _MB
    rows = {
        "take_inventory": job.size.recordings + job.size.rows,
        "make_dataset": job.clips,
        "describe_dataset": 2 * job.clips,
        "evaluate_model": job.counts() / 2 + job.folds * _CANDIDATES * job.size.calls,
        "filter_selections": job.counts() / 2 + _CANDIDATES * job.size.calls,
        "merge_metrics": job.counts(),
    }
    return rows.get(rule, 0.0) * _TABLE_ROW_BYTES / _MB


_LOADS: dict[str, Callable[[_Job], Load]] = {
    "make_demo_corpus": _make_demo_corpus,
    "take_inventory": _take_inventory,
    "build_soundscapes": _build_soundscapes,
    "write_inventory_page": _write_inventory_page,
    "make_dataset": _make_dataset,
    "describe_dataset": _describe_dataset,
    "make_chunks": _make_chunks,
    "train_model": _train_model,
    "predict_shard": _predict_shard,
    "evaluate_model": _evaluate_model,
    "filter_selections": _filter_selections,
    "merge_metrics": _merge_metrics,
    "write_report": _merge_metrics,
}


#: CPU threads of the rules that take more than one, as in rules/*.smk.
_THREADS = {"build_soundscapes": 2, "take_inventory": 2, "describe_dataset": 2}


def _grid(config: Config) -> int:
    decoding = config.evaluation.decoding
    return len(decoding.off_thresholds) * len(decoding.onset_thresholds) * len(decoding.gaps)


def _beyond(needed_mb: float, room_mb: float) -> float:
    """The share that does not fit into the cache."""
    return max(0.0, 1 - room_mb / needed_mb) if needed_mb > 0 else 0.0


def _profile_mb(job: _Job) -> float:
    """What is held while the band medians of a recording are computed."""
    seconds = min(_PROFILE_FRAMES * job.hop_s, job.size.longest_h * 3600)
    return seconds * job.size.sample_rate * _SAMPLE_BYTES / _MB


class Workload:
    """The loads of all jobs of one config; the size of the corpus is looked up when it is first needed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._inventory = Path(config.results_dir, "inventory")
        self._size: tuple[int | None, CorpusSize] | None = None
        self._loads: dict[tuple[str, str, str], Load] = {}

    def size(self) -> CorpusSize:
        """Return the size of the corpus; looked up again only once the inventory is there or has changed."""
        try:
            changed: int | None = (self._inventory / "recordings.csv").stat().st_mtime_ns
        except OSError:
            changed = None
        if self._size is None or self._size[0] != changed:
            self._size = (changed, corpus_size(self._inventory, self.config.corpus))
            self._loads.clear()
        return self._size[1]

    def load(self, rule: str, wildcards: Mapping[str, str]) -> Load:
        """Return the load of a job: its rule and its wildcards `dataset` and `training`, where it has them.

        A rule that is not known has no load.
        """
        if rule not in _LOADS:
            return Load(0.0, 0.0, 0.0)
        job = self._job(wildcards)
        key = (rule, wildcards.get("dataset", ""), wildcards.get("training", ""))
        if key not in self._loads:
            self._loads[key] = _LOADS[rule](job)
        return self._loads[key]

    def disk_mb(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """Return what the outputs of a job take on disk, at most."""
        return _disk_mb(rule, self._job(wildcards))

    def _job(self, wildcards: Mapping[str, str]) -> _Job:
        """The job's model; the first one of the config for a job that is of none."""
        dataset = wildcards.get("dataset") or next(iter(self.config.datasets))
        training = wildcards.get("training") or next(iter(self.config.training))
        return _Job(self.config, self.size(), self.config.training[training], self.config.datasets[dataset])

    def names(self) -> set[str]:
        """Return the names of all dataset variants and models."""
        return {f"{d}-{t}" for d in self.config.datasets for t in self.config.training} | set(self.config.datasets)

    def device(self, rule: str, wildcards: Mapping[str, str]) -> str:
        """Return where a job wants to run: cpu, cuda or auto."""
        if rule == "predict_shard":
            return self.config.prediction.device
        if rule == "train_model" and "training" in wildcards:
            return self.config.training[wildcards["training"]].device
        return "cpu"

    def threads(self, rule: str, wildcards: Mapping[str, str]) -> int:
        """Return the CPU threads of a job; as in rules/*.smk."""
        if rule == "train_model":
            return self._job(wildcards).training.threads
        return self.config.prediction.threads if rule == "predict_shard" else _THREADS.get(rule, 1)
