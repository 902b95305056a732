"""One dataset variant: clips, splits, and the proof of what they share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from otus.config import DatasetSettings, SplitSettings
from otus.datasets.clip_splits import split_clips
from otus.datasets.clips import collect_clips
from otus.datasets.hard_negatives import Selections
from otus.datasets.leakage import leakage_table, verdict
from otus.datasets.noise import NoiseReport
from otus.datasets.splits import make_splits
from otus.errors import StageError
from otus.seeds import derive_seed
from otus.tables import table


@dataclass(frozen=True)
class Variant:
    """The tables clips, splits and leakage of a dataset variant, and what became of its noise."""

    clips: pd.DataFrame
    splits: pd.DataFrame
    leakage: pd.DataFrame
    noise: NoiseReport


def make_variant(
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    selections: Selections | None = None,
    *,
    dataset: str,
    targets: Sequence[str],
    split: SplitSettings,
    settings: DatasetSettings,
    seed: int,
) -> Variant:
    """Return the dataset variant named `dataset`; `selections` are false alarms of an earlier model to learn from.

    Variants with the same seed and the same way to split have the same groups on each side, so that their results
    can be compared pair by pair. Raises DataError if there is nothing to train, validate or test on.
    """
    own_seed = seed if settings.seed is None else settings.seed
    if settings.leaky:
        clips, noise = collect_clips(
            recordings, annotations, selections, targets=targets, settings=settings, seed=own_seed
        )
        dealt, splits = split_clips(recordings, clips, settings=split, dataset=settings, seed=own_seed)
    else:
        splits = make_splits(recordings, annotations, targets=targets, settings=split, dataset=settings, seed=own_seed)
        clips, noise = collect_clips(
            recordings, annotations, selections, targets=targets, settings=settings, seed=own_seed
        )
        dealt = _dealt_by_group(clips, splits)
    balanced = table("clips", _balanced(dealt, settings, own_seed).sort_values(["fold", "clip_id"], ignore_index=True))
    leakage = leakage_table(recordings, balanced, splits, dataset=dataset)
    if not settings.leaky and leakage["leaky"].any():
        raise StageError(f"prepare: {dataset}: {verdict(leakage)}; please report this.")
    return Variant(balanced, splits, leakage, noise)


def _dealt_by_group(clips: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Every clip once per fold, on the side of its group (that of a raw recording is the group of its extracts)."""
    sides = splits[["group", "fold", "split"]].drop_duplicates()
    return clips.merge(sides, on="group").assign(leaky=False)


def _balanced(clips: pd.DataFrame, settings: DatasetSettings, seed: int) -> pd.DataFrame:
    """The clips without those train clips of a target label that are too many beside the rarest label's."""
    if settings.class_balance is None:
        return clips
    train = clips[(clips["class"] == "target") & (clips["split"] == "train")].sort_values(["fold", "clip_id"])
    counts = train.groupby(["fold", "label"]).size()
    limit = np.ceil(counts.groupby("fold").min() * settings.class_balance)
    generator = np.random.default_rng(derive_seed(seed, "class balance"))
    shuffled = train.iloc[generator.permutation(len(train))]
    place = shuffled.groupby(["fold", "label"]).cumcount()
    return clips.drop(index=shuffled.index[(place >= shuffled["fold"].map(limit)).to_numpy()])
