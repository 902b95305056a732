"""What a job of the workflow has to handle: what its time grows with, and what it holds in memory.

Light: it runs while Snakemake is parsed. Every formula says in which stage the quantity comes up; what a unit costs
is measured by benchmarks/resources.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from otus.config import Config, DecodingSettings, TrainingSettings
from otus.resources.corpus_size import CorpusSize, corpus_size
from otus.resources.disk import disk_mb
from otus.resources.job_facts import HOUR_FRAMES, PROFILE_FRAMES, REFERENCE, JobFacts
from otus.resources.networks import NetworkCost

#: In scored frames (benchmarks/resources.py --parts): a frame trained on, one decoding of a frame.
_TRAINED, _DECODED = 1.8, 0.0013

#: Bytes of a weight or value; how often a network's values are held while it scores, and while it learns; how often
#: its weights are while it learns (network, average, best, gradient, two of the optimiser).
_FLOAT_BYTES, _HELD_SCORING, _HELD_LEARNING, _WEIGHTS_LEARNING = 4, 1.4, 3.0, 6

#: Cuts in an epoch of a small corpus, the most around calls for each call of a balanced one, samples whose spectra are
#: computed at once; as in otus.training.cuts, which is too heavy to import here.
_FEWEST_CUTS, _MOST_CUTS_PER_CALL, _BLOCK_SAMPLES = 160, 4, 2**22

#: Bytes held per unit (benchmarks/resources.py --parts): a sample while its spectrum is computed, a clip of a fold, a
#: count of a recording, a candidate selection, a row of the inventory, a frame whose scores are read, a logit.
_SAMPLE_BYTES, _CLIP_BYTES, _COUNT_BYTES, _SELECTION_BYTES, _ROW_BYTES = 30, 800, 1200, 3000, 3000
_READ_FRAME_BYTES, _LOGIT_BYTES = 45, 4

#: Samples that a prediction reads at once, as in otus.inference.steps, and bytes of each: floats and 16 bits.
_PIECE_SAMPLES, _PIECE_BYTES = 2**23, 6

#: Forests fitted per fold and label (five inner folds, and the one that is kept).
_FORESTS = 6

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
    "write_chunk_files": "hours of audio copied",
    "train_model": "hours of audio at a 10 ms hop through a dense_resnet of default size",
    "predict_shard": "hours of audio at a 10 ms hop through a dense_resnet of default size",
    "run_external": "hours of audio given to a program of others",
    "evaluate_model": "hours of audio at a 10 ms hop through one decoding",
    "evaluate_external": "thousand selections of all folds",
    "filter_selections": "forests of 300 trees fitted on 1000 selections",
    "measure_model": "thousand calls and selections that are tested",
    "export_model": "thousand selections of all folds and recordings",
    "merge_metrics": "thousand rows of counts and metrics",
    "write_model_card": "thousand rows of counts and metrics",
    "write_report": "thousand rows of counts and metrics",
}


def _make_demo_corpus(job: JobFacts) -> Load:
    demo = job.config.corpus.demo
    return Load(demo.recordings * demo.duration_s / 3600, 0.0, demo.duration_s * 4) if demo else Load(0.0, 0.0, 0.0)


def _take_inventory(job: JobFacts) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(job.size.hours, job.size.hours, rows * _ROW_BYTES / _MB)


def _make_dataset(job: JobFacts) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(job.clips / 1000, 0.0, (job.clips * _CLIP_BYTES + rows * _ROW_BYTES) / _MB)


def _describe_dataset(job: JobFacts) -> Load:
    """Lists and tables of all clips; what is drawn or cut out is read clip by clip."""
    files, rows = job.config.clip_files, job.size.recordings + job.size.rows
    made = job.clips / job.folds * ((files.spectrograms is not None) + files.audio)
    return Load(
        work=(job.clips + 75 * made) / 1000,
        read_h=made / 3600,
        data_mb=(job.clips * _CLIP_BYTES + rows * _ROW_BYTES) / _MB,
    )


def _write_inventory_page(job: JobFacts) -> Load:
    rows = job.size.recordings + job.size.rows
    return Load(rows / 1000, 0.0, rows * _ROW_BYTES / _MB)


def _build_soundscapes(job: JobFacts) -> Load:
    """Held are the clips of a part and a block of audio, whatever the length."""
    made = job.config.corpus.soundscapes
    return Load(job.size.hours, 0.0, 0.0) if made else Load(0.0, 0.0, 0.0)


def _make_chunks(job: JobFacts) -> Load:
    chunks = job.size.recordings + job.size.labelled_hours * 3600 / job.config.chunking.chunk_s
    return Load(job.size.labelled_hours, 0.0, chunks * _ROW_BYTES / _MB)


def _write_chunk_files(job: JobFacts) -> Load:
    """Held is a block of audio, whatever the length of a chunk, beside the tables."""
    hours = job.size.labelled_hours / job.shards
    return Load(hours, hours, _make_chunks(job).data_mb)


def _train_model(job: JobFacts) -> Load:
    """Cuts and, after an epoch, the validation recordings; what does not fit into the cache is read every time."""
    settings, size = job.training, job.size
    val_h = size.labelled_hours * job.val_share
    train_h = max(0.0, size.labelled_hours * (1 - job.val_share - job.test_share))
    cuts, judged = _learnt_from(job)
    more = settings.beats.unfreeze_epochs if settings.beats and settings.beats.unfreeze_blocks else 0
    epochs = settings.n_epochs(math.ceil(cuts / settings.batch_size)) + more
    trained = settings.members * epochs * cuts * job.cut_frames
    validations = math.ceil(epochs / settings.validate_every) + 1  # at last all members together
    validated = settings.members * validations * judged
    frame_mb = 2 * settings.frontend.bands / _MB
    train_mb, val_mb = job.frames(train_h) * frame_mb, job.frames(val_h) * frame_mb
    train_room, val_room = settings.cache_mb * 3 / 4, settings.cache_mb / 4  # as in otus.training.stage
    again = trained * _beyond(train_mb, train_room) + validated * _beyond(val_mb, val_room)
    read_h = job.with_profiles(train_h + val_h) + again * job.hop_s / 3600
    decodings = validated * job.classes * len(DecodingSettings().combinations()) * _DECODED
    block = min(3600 * size.longest_h * size.sample_rate, _BLOCK_SAMPLES)  # what is kept is computed block by block
    return Load(
        work=job.network(trained * _TRAINED + validated) + job.spectra(read_h) + decodings / HOUR_FRAMES,
        read_h=read_h,
        data_mb=min(train_mb, train_room)
        + min(val_mb, val_room)
        + max(_profile_mb(job), block * _SAMPLE_BYTES / _MB)
        + _learning_mb(job)
        + job.frames(val_h) * 2 * job.classes * _LOGIT_BYTES / _MB
        + job.clips * _CLIP_BYTES / _MB,
    )


def _learnt_from(job: JobFacts) -> tuple[float, float]:
    """Cuts in an epoch and frames of a validation; of a resnet18 windows, one of each clip.

    How unequal the strata of a balanced training are is not known: it is taken for the worst.
    """
    train_share = max(0.0, 1 - job.val_share - job.test_share)
    if job.training.architecture == "resnet18":
        clips = job.clips / job.folds
        return min(clips * train_share, job.training.cuts_per_epoch or math.inf), clips * job.val_share
    strata = {"none": 1, "labels": job.classes}.get(job.training.balance, _MOST_CUTS_PER_CALL)
    around_calls = job.size.calls * train_share * min(strata, _MOST_CUTS_PER_CALL)
    cuts = math.ceil(around_calls / max(job.training.target_share, 0.1))
    return job.training.cuts_per_epoch or max(_FEWEST_CUTS, cuts), job.frames(job.size.labelled_hours * job.val_share)


def _predict_shard(job: JobFacts) -> Load:
    """The val and test recordings of every fold; those that its network was trained on are skipped.

    A recording is decoded once for all folds, its spectrum is computed for each whose front end is its own.
    """
    of_fold_h = job.size.labelled_hours * (job.val_share + job.test_share) / job.shards
    read_h = min(job.folds * of_fold_h, job.size.labelled_hours / job.shards)
    recordings = job.size.recordings * read_h / job.size.hours if job.size.hours else 0.0
    profile_h = PROFILE_FRAMES * job.hop_s / 3600
    if read_h > recordings * profile_h:  # the band medians of shorter ones come from the samples that are scored
        read_h += recordings * profile_h
    networks = job.network(job.folds * job.training.members * job.frames(of_fold_h))
    return Load(
        work=networks + job.spectra(job.folds * of_fold_h),
        read_h=read_h,
        data_mb=_profile_mb(job) + _reading_mb(job) + _scoring_mb(job),
    )


def _evaluate_model(job: JobFacts) -> Load:
    """Every fold decodes its val and test recordings with the whole grid, and once more with the chosen point."""
    hours, folds = job.size.labelled_hours, job.folds
    scored_h = hours * (job.val_share + job.test_share)
    frames = job.frames(folds * scored_h * (len(job.decoding.combinations()) + 1))
    read = _READ_FRAME_BYTES * (1 + job.classes) + folds * 2 * job.classes * _LOGIT_BYTES
    return Load(
        work=job.classes * frames / HOUR_FRAMES,
        read_h=0.0,
        data_mb=(job.frames(scored_h) * read + folds * job.candidates * _SELECTION_BYTES) / _MB,
    )


def _run_external(job: JobFacts) -> Load:
    """All chunks, whatever the folds. What a program of others takes is a guess until it has been run."""
    hours = job.size.labelled_hours / job.shards
    chunk_s = min(job.config.chunking.chunk_s + 2 * job.config.chunking.context_s, 3600 * job.size.longest_h)
    return Load(hours, hours, chunk_s * job.size.sample_rate * _SAMPLE_BYTES / _MB)


def _evaluate_external(job: JobFacts) -> Load:
    found = job.folds * job.candidates
    return Load(found / 1000, 0.0, found * _SELECTION_BYTES / _MB)


def _filter_selections(job: JobFacts) -> Load:
    candidates = job.candidates
    forests = _FORESTS * job.folds * job.classes * max(1.0, job.config.forest.grown_trees / 1800)
    return Load(
        work=forests * (0.2 + candidates / job.classes / 1000),
        read_h=job.size.labelled_hours,
        data_mb=candidates * _SELECTION_BYTES / _MB,
    )


def _measure_model(job: JobFacts) -> Load:
    """Two layers; what was found on validation recordings is read, and no more."""
    read = 2 * job.folds * job.candidates
    return Load(2 * (job.size.calls + job.candidates) / 1000, 0.0, read * _SELECTION_BYTES / _MB)


def _export_model(job: JobFacts) -> Load:
    """Two layers, read as a whole; a file or more for every recording."""
    found = 2 * job.folds * job.candidates
    return Load((found + job.size.recordings) / 1000, 0.0, (found + job.size.rows) * _SELECTION_BYTES / _MB)


def _merge_metrics(job: JobFacts) -> Load:
    models = len(job.config.datasets) * (len(job.config.training) + len(job.config.external))
    rows = (job.counts() + job.metrics()) * models
    return Load(rows / 1000, 0.0, rows * _COUNT_BYTES / _MB)


_LOADS: dict[str, Callable[[JobFacts], Load]] = {
    "make_demo_corpus": _make_demo_corpus,
    "take_inventory": _take_inventory,
    "build_soundscapes": _build_soundscapes,
    "write_inventory_page": _write_inventory_page,
    "make_dataset": _make_dataset,
    "describe_dataset": _describe_dataset,
    "make_chunks": _make_chunks,
    "write_chunk_files": _write_chunk_files,
    "train_model": _train_model,
    "predict_shard": _predict_shard,
    "run_external": _run_external,
    "evaluate_external": _evaluate_external,
    "evaluate_model": _evaluate_model,
    "filter_selections": _filter_selections,
    "measure_model": _measure_model,
    "export_model": _export_model,
    "merge_metrics": _merge_metrics,
    "write_model_card": _merge_metrics,
    "write_report": _merge_metrics,
}


#: CPU threads of the rules that take more than one, as in rules/*.smk.
_THREADS = {"build_soundscapes": 2, "take_inventory": 2, "describe_dataset": 2}


def _beyond(needed_mb: float, room_mb: float) -> float:
    """The share that does not fit into the cache."""
    return max(0.0, 1 - room_mb / needed_mb) if needed_mb > 0 else 0.0


def _scoring_mb(job: JobFacts) -> float:
    """Weights of the networks of all folds, and the values of what one scores at once."""
    cost = job.cost
    at_once = (cost.block + 2 * cost.context) * _HELD_SCORING * cost.values
    return (job.folds * job.training.members * cost.weights + at_once) * _FLOAT_BYTES / _MB


def _reading_mb(job: JobFacts) -> float:
    """The pieces that are read ahead, being scored, and being decoded."""
    seconds = min(job.config.chunking.chunk_s, job.size.longest_h * 3600)
    pieces = 2 * job.config.prediction.readers + 2
    return pieces * min(seconds * job.size.sample_rate, _PIECE_SAMPLES) * _PIECE_BYTES / _MB


def _learning_mb(job: JobFacts) -> float:
    """What a network that learns takes more than the reference at the usual batch, which is in the fixed part."""
    usual = TrainingSettings()
    values = job.training.batch_size * job.cut_frames, usual.batch_size * usual.cut_frames
    own, fixed = (_learning_bytes(cost, n) for cost, n in zip((job.cost, REFERENCE), values, strict=True))
    return max(0.0, own - fixed) / _MB


def _learning_bytes(cost: NetworkCost, frames: float) -> float:
    """The network with what is kept of a batch, and all copies of the weights that it learns."""
    return (cost.weights + _WEIGHTS_LEARNING * cost.learnt + _HELD_LEARNING * cost.values * frames) * _FLOAT_BYTES


def _profile_mb(job: JobFacts) -> float:
    """What is held while the band medians of a recording are computed."""
    seconds = min(PROFILE_FRAMES * job.hop_s, job.size.longest_h * 3600)
    return seconds * job.size.sample_rate * _SAMPLE_BYTES / _MB


class Workload:
    """The loads of all jobs of one config; the size of the corpus is looked up when it is first needed.

    `shards` is the number of shards of the run; without it, what the config asks for at the size of the corpus.
    """

    def __init__(self, config: Config, shards: int | None = None) -> None:
        self.config, self._shards = config, shards
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

    @property
    def shards(self) -> int:
        """The number of shards."""
        return self._shards or self.config.chunking.shards_for(3600 * self.size().labelled_hours)

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
        return disk_mb(rule, self._job(wildcards))

    def _job(self, wildcards: Mapping[str, str]) -> JobFacts:
        """The job's model; the first one of the config for a job that is of none."""
        dataset = wildcards.get("dataset") or next(iter(self.config.datasets))
        named = wildcards.get("training")  # of the post-filter also a detector of others
        training = named if named in self.config.training else next(iter(self.config.training))
        evaluation = self.config.evaluation
        decoding = evaluation.decoding_of.get(training, evaluation.decoding)
        settings = self.config.training[training], decoding, self.config.datasets[dataset]
        return JobFacts(self.config, self.size(), *settings, self.shards)

    def names(self) -> set[str]:
        """Return the names of all dataset variants and models."""
        models = {f"{d}-{t}" for d in self.config.datasets for t in [*self.config.training, *self.config.external]}
        return models | set(self.config.datasets) | set(self.config.external)

    def device(self, rule: str, wildcards: Mapping[str, str]) -> str:
        """Return where a job wants to run: cpu, cuda or auto."""
        if rule == "predict_shard":
            return self.config.prediction.device
        if rule == "train_model" and "training" in wildcards:
            return self.config.training[wildcards["training"]].device
        if rule == "run_external" and "external" in wildcards:
            return "cuda" if self.config.external[wildcards["external"]].gpu else "cpu"
        return "cpu"

    def threads(self, rule: str, wildcards: Mapping[str, str]) -> int:
        """Return the CPU threads of a job; as in rules/*.smk."""
        if rule == "train_model":
            return self._job(wildcards).training.threads
        if rule == "run_external" and "external" in wildcards:
            return self.config.external[wildcards["external"]].threads
        return self.config.prediction.threads if rule == "predict_shard" else _THREADS.get(rule, 1)
