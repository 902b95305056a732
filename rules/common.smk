"""Settings, names and resources that the stages share."""

import math
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from otus.config import parse_config
    from otus.errors import OtusError
    from otus.external.programs import program_files
    from otus.fingerprint import check_root, shared_fingerprint
    from otus.provenance import code_digest, share_sources
    from otus.resources.requests import request_mb, request_min
    from otus.resources.shards import sharding_of
    from otus.site import load_site
    from otus.resources.usage import read_usage
    from otus.resources.workload import Workload
except ImportError as error:
    raise WorkflowError(
        f"Otus is not installed in this environment ({error}); see README.md."
    )

try:
    CFG = parse_config(config)
    SITE = load_site()
    SOURCE = CFG.corpus.source
    if CFG.corpus.demo is None:
        key = "corpus.soundscapes.clips" if CFG.corpus.is_made else "corpus.root"
        check_root(Path(SOURCE.root), key)
except OtusError as error:
    raise WorkflowError(str(error))

share_sources()

RESULTS = CFG.results_dir
ROOT = CFG.corpus.root
TARGETS = CFG.corpus.targets
FOLDS = list(range(1, (CFG.split.folds or 1) + 1))
MODELS = [f"{d}-{t}" for d in CFG.datasets for t in CFG.training]
JUDGED = MODELS + [f"{d}-{x}" for d in CFG.datasets for x in CFG.external]
PAST_JOBS = read_usage(Path(SITE.usage))


@cache
def fingerprint():
    """The digest of the files that somebody has brought: the driver walks through them once and tells its jobs."""
    return shared_fingerprint(
        Path(SOURCE.root), SOURCE, asks_driver=not workflow.is_main_process
    )


try:
    if CFG.chunking.shards is None and CFG.corpus.demo is None:
        fingerprint()  # first, so that the number of shards needs no second walk
    SHARDING = sharding_of(CFG, asks_driver=not workflow.is_main_process)
except OtusError as error:
    raise WorkflowError(str(error))
SHARDS = list(range(1, SHARDING.shards + 1))
WORKLOAD = Workload(CFG, len(SHARDS))


wildcard_constraints:
    dataset="|".join(CFG.datasets),
    training="|".join(CFG.training),
    external="|".join(CFG.external) or "(?!)",  # no name at all
    model="|".join(MODELS),
    fold="|".join(map(str, FOLDS)),
    shard="|".join(map(str, SHARDS)),


def file_of(output):
    """The path of another rule's output, and no more than the path.

    The output itself would bring along whatever makes it, into the DAG of every job that reads it. If code is edited
    during a run, each job on a cluster would then do that stage again inside its own allocation.
    """
    return str(output)


def corpus_state(wildcards):
    """What the inventory depends on besides its settings: the files of the corpus, or how it is made."""
    if CFG.corpus.demo is not None:
        return CFG.corpus.demo.model_dump(mode="json")
    if CFG.corpus.soundscapes is not None:
        return [CFG.corpus.soundscapes.model_dump(mode="json"), fingerprint()]
    return fingerprint()


def hard_negatives_of(wildcards):
    """The selections of an earlier model that a dataset variant takes its hard negatives from."""
    found = CFG.datasets[wildcards.dataset].hard_negatives
    return found.selections if found else []


def dataset_of(wildcards):
    """The settings of a dataset variant."""
    return CFG.datasets[wildcards.dataset].model_dump(mode="json")


def training_of(wildcards):
    """The training settings of a model."""
    return CFG.training[wildcards.training].model_dump(mode="json")


def training_files(name):
    """One file of the trainings of all models and folds, model by model."""
    folders = f"{RESULTS}/models/{{model}}/fold{{fold}}"
    return expand(f"{folders}/{name}", model=MODELS, fold=FOLDS)


def evaluation_of(wildcards):
    """The evaluation settings of a model, with the decoding of its training configuration."""
    settings = CFG.evaluation
    decoding = settings.decoding_of.get(wildcards.training, settings.decoding)
    own = settings.model_copy(update={"decoding": decoding})
    keys = {"iou", "thresholds", "decoding", "choice", "choice_of", "calibration"}
    return own.model_dump(mode="json", include=keys)


def measured(table):
    """One table of the measures of all models and detectors of others."""
    return expand(f"{RESULTS}/measures/{{model}}/{table}.parquet", model=JUDGED)


def of_both_layers(table):
    """A table of what was found before the forest, and of what the forest left."""
    stages = (f"{RESULTS}/evaluation", f"{RESULTS}/forest")
    return [f"{stage}/{{dataset}}-{{training}}/{table}.parquet" for stage in stages]


def training_threads(wildcards):
    """CPU threads of a training."""
    return CFG.training[wildcards.training].threads


def gpu_of(device):
    """One GPU for a job that may use one."""
    return 0 if device == "cpu" else 1


def training_gpu(wildcards):
    """One GPU for a training that may use one."""
    return gpu_of(CFG.training[wildcards.training].device)


def card_of_judged(wildcards):
    """The card of a network's first fold; a detector of others has none."""
    if wildcards.training in CFG.external:
        return []
    model = f"{wildcards.dataset}-{wildcards.training}"
    return [f"{RESULTS}/models/{model}/fold{FOLDS[0]}/card.json"]


def band_of_judged(wildcards):
    """The band that a detector of others listens to; the card of a network tells its own."""
    if wildcards.training in CFG.training:
        return None
    return CFG.external[wildcards.training].model_dump(include={"low_hz", "high_hz"})


def external_settings(wildcards):
    """What a job of a detector depends on; gaps are closed when it is judged, the band is the forest's."""
    return CFG.external[wildcards.external].model_dump(
        mode="json", exclude={"gap_s", "low_hz", "high_hz"}
    )


def external_programs(wildcards):
    """The files that the command of a detector names, with size and time of change."""
    return program_files(CFG.external[wildcards.external].command)


def external_threads(wildcards):
    """CPU threads of a detector."""
    return CFG.external[wildcards.external].threads


def external_gpu(wildcards):
    """One GPU for a detector that needs one."""
    return int(CFG.external[wildcards.external].gpu)


def external_gap_s(wildcards):
    """How far apart selections are still one."""
    return CFG.external[wildcards.external].gap_s


@cache
def asked(request, rule, load, device, attempt):
    """A request; a job on `auto` asks for what it takes on a GPU, because it asks for one."""
    return request(rule, load, "cpu" if device == "cpu" else "cuda", PAST_JOBS, attempt)


def request_of(request, rule):
    """What a job asks for, growing with its audio, its model and every attempt."""

    def of_job(wildcards, attempt):
        names = dict(wildcards.items())
        load, device = WORKLOAD.load(rule, names), WORKLOAD.device(rule, names)
        return asked(request, rule, load, device, attempt)

    return of_job


def memory(rule):
    """Memory in MB of a job of the rule."""
    return request_of(request_mb, rule)


def minutes(rule):
    """Run time in minutes of a job of the rule, no longer than the site allows."""
    asked_min = request_of(request_min, rule)

    def allowed_min(wildcards, attempt):
        return min(asked_min(wildcards, attempt), SITE.longest_min or math.inf)

    return allowed_min
