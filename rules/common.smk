"""Settings, names and resources that the stages share."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from otus.config import parse_config
    from otus.errors import OtusError
    from otus.fingerprint import corpus_fingerprint
    from otus.provenance import code_digest, share_sources
except ImportError as error:
    raise WorkflowError(
        f"Otus is not installed in this environment ({error}); see README.md."
    )

try:
    CFG = parse_config(config)
except OtusError as error:
    raise WorkflowError(str(error))

share_sources()

RESULTS = CFG.results_dir
ROOT = CFG.corpus.root
TARGETS = CFG.corpus.targets
FOLDS = list(range(1, (CFG.split.folds or 1) + 1))
SHARDS = list(range(1, CFG.chunking.shards + 1))
MODELS = [f"{d}-{t}" for d in CFG.datasets for t in CFG.training]


wildcard_constraints:
    dataset="|".join(CFG.datasets),
    training="|".join(CFG.training),
    model="|".join(MODELS),
    fold="|".join(map(str, FOLDS)),
    shard="|".join(map(str, SHARDS)),


def corpus_state():
    """What the inventory depends on besides its settings: the files of the corpus, or how the demo is made."""
    if CFG.corpus.demo is not None:
        return CFG.corpus.demo.model_dump(mode="json")
    try:
        return corpus_fingerprint(Path(ROOT), CFG.corpus)
    except OtusError as error:
        raise WorkflowError(str(error))


def training_of(wildcards):
    """The training settings of a model."""
    return CFG.training[wildcards.training].model_dump(mode="json")


def training_threads(wildcards):
    """CPU threads of a training."""
    return CFG.training[wildcards.training].threads


def gpu_of(device):
    """One GPU for a job that may use one."""
    return 0 if device == "cpu" else 1


def training_gpu(wildcards):
    """One GPU for a training that may use one."""
    return gpu_of(CFG.training[wildcards.training].device)


def memory(base_mb):
    """Memory that grows with every attempt."""

    def with_attempt(wildcards, attempt):
        return base_mb * attempt

    return with_attempt


def minutes(base_min):
    """Run time that grows with every attempt."""

    def with_attempt(wildcards, attempt):
        return base_min * attempt

    return with_attempt
