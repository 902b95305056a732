"""What a model card tells about a model, read from the files that its training, evaluation and jobs left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from otus.atomic import read_json
from otus.audio import sha256
from otus.config import DatasetSettings
from otus.evaluation.thresholds import ChosenPoint, read_thresholds
from otus.resources.benchmark import read_benchmark

#: What is stored with the weights but not learnt: statistics of the batch norms.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class FoldFacts:
    """One training: the content and the digest of its card.json, and what its job took.

    `parameters`: learnt and stored weights of all its networks together. `wall_s` and `cpu_s` are those of the last
    attempt, None if unknown. `points` are the operating points by label.
    """

    card: Mapping[str, Any]
    card_sha256: str
    parameters: int
    wall_s: float | None
    cpu_s: float | None
    points: Mapping[str, ChosenPoint]


@dataclass(frozen=True)
class ModelFacts:
    """One model: its folds by number, its rows of the metrics, and the tables that it was trained and tested on.

    `by` is split.by of the config: what a fold tests everything of, such as `site`, or `group`.
    """

    model: str
    folds: Mapping[int, FoldFacts]
    dataset: str
    settings: DatasetSettings
    by: str
    metrics: pd.DataFrame
    recordings: pd.DataFrame
    annotations: pd.DataFrame
    splits: pd.DataFrame


def read_folds(folders: Sequence[Path], thresholds: Path, benchmarks: Path) -> dict[int, FoldFacts]:
    """Return the trainings of a model by fold, given the folders <model>/fold<k> with their cards and weights.

    `benchmarks` is the folder of Snakemake's benchmark files of the trainings, which may be missing. Raises DataError
    if `thresholds` is no thresholds.yaml.
    """
    chosen = read_thresholds(thresholds)
    found = {}
    for folder in folders:
        fold = int(folder.name.removeprefix("fold"))
        took = read_benchmark(benchmarks / f"{folder.parent.name}.{folder.name}.tsv")
        found[fold] = FoldFacts(
            card=read_json(folder / "card.json"),
            card_sha256=sha256(folder / "card.json"),
            parameters=_parameters(folder / "model.safetensors"),
            wall_s=took.wall_s,
            cpu_s=took.cpu_s,
            points=chosen.get(fold, {}),
        )
    return dict(sorted(found.items()))


def _parameters(weights: Path) -> int:
    """The number of learnt weights in a file, from its header alone."""
    with safe_open(weights, framework="numpy") as file:
        names = list(file.keys())
        learnt = [name for name in names if not name.endswith(_STATISTICS)]
        return sum(math.prod(file.get_slice(name).get_shape()) for name in learnt)
