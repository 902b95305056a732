"""Group-wise splits: no group ever stands on two sides of one fold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from otus.config import DatasetSettings, SplitSettings
from otus.datasets.clips import labelled_recordings
from otus.datasets.dealing import deal
from otus.errors import DataError
from otus.seeds import derive_seed
from otus.tables import table

SPLITS = ("train", "val", "test")

#: How often whole tapes are drawn again when a side has got no call.
_DRAWS = 100


def make_splits(
    recordings: pd.DataFrame,
    annotations: pd.DataFrame,
    *,
    targets: Sequence[str],
    settings: SplitSettings,
    dataset: DatasetSettings,
    seed: int,
) -> pd.DataFrame:
    """Return the `splits` table of a group-wise strategy: one row per fold and labelled recording, over its length.

    With `settings.folds`, the groups are dealt into as many parts; fold k tests part k, validates on the next one
    and trains on the rest, so that every group is tested once and validates once. `grouped` deals groups so that
    calls of each target label, hours and recordings are shared out evenly; `proportional_by_tape` deals them at random
    in the given proportion. Raises DataError if a group stands on both sides of a given split, or if a side would hold
    no target call.
    """
    usable = labelled_recordings(recordings)
    calls = annotations[annotations["label"].isin(list(targets))]
    if usable.empty or calls.empty:
        raise DataError(f"prepare: no labelled recording holds a call of {', '.join(targets)}; nothing to train on.")
    loads = _group_loads(usable, calls, targets)
    given = usable["given_split"].notna() & (usable["given_split"] != "")
    if given.any():
        sides = [_given_sides(usable, given, loads, settings, dataset, seed)]
    elif dataset.strategy == "proportional_by_tape":
        sides = _sides_by_tape(loads, settings, dataset, seed)
    else:
        sides = _even_sides(loads, settings, dataset, seed)
    rows = []
    for fold, side in enumerate(sides, start=1):
        split = usable["group"].map(side)
        rows.append(usable[["recording_id", "group"]].assign(fold=fold, split=split, start_sample=0))
        rows[-1] = rows[-1].assign(end_sample=usable["n_samples"], leaky=False)
        check_calls(fold, split[usable["recording_id"].isin(calls["recording_id"])])
    return table("splits", pd.concat(rows, ignore_index=True))


def shares_of(settings: SplitSettings, dataset: DatasetSettings) -> list[float]:
    """Return the shares of the parts that are dealt: equal ones for folds, else those of train, val and test."""
    if settings.folds:
        return [1 / settings.folds] * settings.folds
    if dataset.fractions is not None:
        return list(dataset.fractions)
    rest = 1 - settings.test_fraction
    return [rest * (1 - settings.val_fraction), rest * settings.val_fraction, settings.test_fraction]


def side_of_part(part: int, fold: int, settings: SplitSettings) -> str:
    """Return the side on which part number `part` (from 0) stands in fold number `fold` (from 0)."""
    if not settings.folds:
        return SPLITS[part]
    return "test" if part == fold else "val" if part == (fold + 1) % settings.folds else "train"


def check_calls(fold: int, sides: "pd.Series[str]") -> None:
    """Raise DataError if one of train, val and test is not among `sides`, the sides of what holds target calls."""
    for side in SPLITS:
        if not (sides == side).any():
            raise DataError(
                f"prepare: fold {fold} has no target call in its {side} recordings; "
                "label more recordings, lower split.folds or choose a finer corpus.group."
            )


def _group_loads(usable: pd.DataFrame, calls: pd.DataFrame, targets: Sequence[str]) -> pd.DataFrame:
    """Calls of each target, hours and recordings of every group (index: group, sorted)."""
    group_of = usable.set_index("recording_id")["group"]
    by_group = usable.groupby("group")
    loads = pd.DataFrame({"recordings": by_group.size(), "duration_s": by_group["duration_s"].sum()})
    groups_of_calls = calls["recording_id"].map(group_of)
    for label in targets:
        counts = groups_of_calls[calls["label"] == label].value_counts()
        loads[f"calls of {label}"] = counts.reindex(loads.index, fill_value=0)
    return loads.sort_index().astype(float)


def _even_sides(
    loads: pd.DataFrame, settings: SplitSettings, dataset: DatasetSettings, seed: int
) -> list[dict[str, str]]:
    """The side of every group in every fold, with loads shared out evenly."""
    _check_group_count(loads, settings)
    name = "folds" if settings.folds else "sides"
    part = deal(loads.to_numpy(), shares_of(settings, dataset), derive_seed(seed, name))
    return _sides(loads, part.tolist(), settings)


def _sides_by_tape(
    loads: pd.DataFrame, settings: SplitSettings, dataset: DatasetSettings, seed: int
) -> list[dict[str, str]]:
    """The side of every group in every fold, drawn at random until every part holds a call of a target."""
    _check_group_count(loads, settings)
    shares = np.array(shares_of(settings, dataset))
    counts = np.floor(shares * len(loads) + 1e-9).astype(np.int64)
    counts[np.argsort(counts - shares * len(loads), kind="stable")[: len(loads) - counts.sum()]] += 1
    while counts.min() == 0:  # few tapes: one for every side comes before the proportion
        counts[np.argmax(counts)] -= 1
        counts[np.argmin(counts)] += 1
    parts = np.repeat(np.arange(len(shares)), counts)
    has_calls = (loads.filter(like="calls of ").sum(axis=1) > 0).to_numpy()
    for draw in range(_DRAWS):
        part = np.random.default_rng(derive_seed(seed, "tapes", draw)).permutation(parts)
        if len(set(part[has_calls].tolist())) == len(shares):
            break
    return _sides(loads, part.tolist(), settings)


def _sides(loads: pd.DataFrame, part: Sequence[int], settings: SplitSettings) -> list[dict[str, str]]:
    return [
        {str(group): side_of_part(p, fold, settings) for group, p in zip(loads.index, part, strict=True)}
        for fold in range(settings.folds or 1)
    ]


def _check_group_count(loads: pd.DataFrame, settings: SplitSettings) -> None:
    """Raise DataError if there are fewer groups than parts."""
    if settings.folds and len(loads) < settings.folds:
        raise DataError(
            f"prepare: {len(loads)} groups cannot make {settings.folds} folds with train, val and test groups; "
            "lower split.folds or choose a finer corpus.group."
        )
    if len(loads) < 3:
        raise DataError(
            f"prepare: {len(loads)} groups are too few for train, val and test; choose a finer corpus.group."
        )


def _given_sides(
    usable: pd.DataFrame,
    given: "pd.Series[bool]",
    loads: pd.DataFrame,
    settings: SplitSettings,
    dataset: DatasetSettings,
    seed: int,
) -> dict[str, str]:
    """The sides that the recordings sheet gives; validation groups are drawn from train if it names none."""
    if settings.folds:
        raise DataError("config: the recordings sheet gives a split, so split.folds must go (or the sheet's column).")
    if dataset.strategy != "grouped":
        raise DataError(f"config: the recordings sheet gives a split, so strategy {dataset.strategy} cannot draw one.")
    if dataset.fractions is not None:
        raise DataError("config: the recordings sheet gives a split, so the dataset's fractions must go.")
    if not given.all():
        first = usable.loc[~given, "path"].iloc[0]
        raise DataError(f"recordings sheet: {(~given).sum()} labelled recordings have no split, the first is {first}.")
    both = usable.groupby("group")["given_split"].unique()
    for group, _sides in both[both.map(len) > 1].items():
        paths = usable.loc[usable["group"] == group].groupby("given_split")["path"].first()
        where = ", ".join(f"{path} in {side}" for side, path in paths.items())
        raise DataError(f"recordings sheet: group '{group}' stands on both sides of the split ({where}); choose one.")
    side = {str(group): str(sides[0]) for group, sides in both.items()}
    if "val" in side.values():
        return side
    train = loads[[side[g] == "train" for g in loads.index]]
    return side | _with_validation(train, settings, derive_seed(seed, "val"))


def _with_validation(loads: pd.DataFrame, settings: SplitSettings, seed: int) -> dict[str, str]:
    share = settings.val_fraction
    validated = deal(loads.to_numpy(), [share, 1 - share], seed) == 0
    return {str(group): "val" if v else "train" for group, v in zip(loads.index, validated, strict=True)}
