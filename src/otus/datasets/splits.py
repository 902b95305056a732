"""Group-wise splits: no group ever stands on two sides of one fold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.annotations.text import excerpt, listed
from otus.config import DatasetSettings, SplitSettings
from otus.datasets.clips import labelled_recordings
from otus.datasets.dealing import deal
from otus.datasets.parts import value_of_groups
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
    and trains on the rest, so that every group is tested once and validates once. With `settings.by`, fold k tests the
    groups of the k-th value in sorted order, which its rows name as `part`; with `settings.test_groups`, one fold tests
    these; validation groups are drawn from the others. `grouped` deals groups so that calls of each target label, hours
    and recordings are shared out evenly; `proportional_by_tape` deals them at random in the given proportion. Raises
    DataError if a group stands on both sides of a given split, has no value of `by` or two, if there is no such group
    to test on, or if a side would hold no target call (a test side that `by` names may).
    """
    usable = labelled_recordings(recordings)
    calls = annotations[annotations["label"].isin(list(targets))]
    if usable.empty or calls.empty:
        raise DataError(f"prepare: no labelled recording holds a call of {', '.join(targets)}; nothing to train on.")
    loads = _group_loads(usable, calls, targets)
    given = usable["given_split"].notna() & (usable["given_split"] != "")
    parts: list[str | None] = [None] * (settings.folds or 1)
    if given.any():
        sides = [_given_sides(usable, given, loads, settings, dataset, seed)]
    elif settings.by != "group":
        value_of = value_of_groups(usable, settings)
        values = sorted(set(value_of.values()))
        parts = [*values]
        sides = [_sides_of_value(value, value_of, loads, settings, dataset, seed) for value in values]
    elif settings.test_groups:
        sides = [_sides_of_groups(loads, settings, dataset, seed)]
    elif dataset.strategy == "proportional_by_tape":
        sides = _sides_by_tape(loads, settings, dataset, seed)
    else:
        sides = _even_sides(loads, settings, dataset, seed)
    rows = []
    for fold, (part, side) in enumerate(zip(parts, sides, strict=True), start=1):
        split = usable["group"].map(side)
        rows.append(usable[["recording_id", "group"]].assign(fold=fold, part=part, split=split, start_sample=0))
        rows[-1] = rows[-1].assign(end_sample=usable["n_samples"], leaky=False)
        check_calls(fold, split[usable["recording_id"].isin(calls["recording_id"])], part)
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


def check_calls(fold: int, sides: "pd.Series[str]", part: str | None = None) -> None:
    """Raise DataError if one of train, val and test is not among `sides`, the sides of what holds target calls.

    A fold that tests all of `part`, whatever that holds, may test on no call.
    """
    for side in SPLITS if part is None else SPLITS[:2]:
        if not (sides == side).any():
            where, remedy = f"fold {fold}", "lower split.folds or choose a finer corpus.group"
            if part is not None:
                where = f"fold {fold}, which tests {excerpt(part)},"
                remedy = "choose another split.by or a finer corpus.group"
            raise DataError(
                f"prepare: {where} has no target call in its {side} recordings; label more recordings, {remedy}."
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
    return _sides(loads, _tapes(loads, shares_of(settings, dataset), seed).tolist(), settings)


def _tapes(loads: pd.DataFrame, shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """The part of every group, drawn at random in the given proportion until every part holds a call of a target."""
    wanted = np.array(shares) * len(loads)
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    counts[np.argsort(counts - wanted, kind="stable")[: len(loads) - counts.sum()]] += 1
    while counts.min() == 0:  # few tapes: one for every side comes before the proportion
        counts[np.argmax(counts)] -= 1
        counts[np.argmin(counts)] += 1
    parts = np.repeat(np.arange(len(shares)), counts)
    has_calls = _calls(loads) > 0
    for draw in range(_DRAWS):
        part = np.random.default_rng(derive_seed(seed, "tapes", draw)).permutation(parts)
        if len(set(part[has_calls].tolist())) == len(shares):
            break
    return part


def _sides_of_value(
    value: str,
    value_of: dict[str, str],
    loads: pd.DataFrame,
    settings: SplitSettings,
    dataset: DatasetSettings,
    seed: int,
) -> dict[str, str]:
    """The side of every group in the fold that tests the groups of one value."""
    tested = loads.index.map(value_of) == value
    others = loads[~tested]
    if len(others) < 2:
        raise DataError(
            f"prepare: the fold that tests {excerpt(value)} has one group left, but needs others to train and to "
            "validate on; choose a finer corpus.group."
        )
    dealt = _with_validation(others, settings, dataset, derive_seed(seed, "val", value))
    return dict.fromkeys(map(str, loads.index[tested]), "test") | dealt


def _sides_of_groups(
    loads: pd.DataFrame, settings: SplitSettings, dataset: DatasetSettings, seed: int
) -> dict[str, str]:
    """The side of every group where the config names those to test on."""
    tested = loads.index.isin(settings.test_groups)
    if missing := sorted(set(settings.test_groups) - set(loads.index)):
        raise DataError(
            f"config: split.test_groups names {excerpt(missing[0])}, but the groups of the labelled recordings are "
            f"{listed(loads.index)}; correct it."
        )
    if (~tested).sum() < 2:
        raise DataError(
            "config: split.test_groups leaves fewer than two groups, but some are needed to train and others to "
            "validate on; name fewer, or choose a finer corpus.group."
        )
    dealt = _with_validation(loads[~tested], settings, dataset, derive_seed(seed, "val"))
    return dict.fromkeys(map(str, loads.index[tested]), "test") | dealt


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
        keys = "split.folds" if settings.by == "group" else "split.folds and split.by"
        raise DataError(f"config: the recordings sheet gives a split, so {keys} must go (or the sheet's column).")
    if settings.test_groups:
        raise DataError("config: the recordings sheet gives a split, so split.test_groups must go.")
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
    return side | _with_validation(train, settings, dataset, derive_seed(seed, "val"))


def _with_validation(
    loads: pd.DataFrame, settings: SplitSettings, dataset: DatasetSettings, seed: int
) -> dict[str, str]:
    """The groups that are not tested, dealt to train and val; both have a call if two groups have any."""
    shares = [settings.val_fraction, 1 - settings.val_fraction]
    if dataset.strategy == "proportional_by_tape":
        part = _tapes(loads, shares, seed)
    else:
        part = deal(loads.to_numpy(), shares, seed)
    calls = _calls(loads)
    for side in range(2):
        elsewhere = np.flatnonzero((calls > 0) & (part != side))
        if len(elsewhere) > 1 and not (calls[part == side] > 0).any():
            part[elsewhere[np.argmin(calls[elsewhere])]] = side
    return {str(group): ("val", "train")[p] for group, p in zip(loads.index, part.tolist(), strict=True)}


def _calls(loads: pd.DataFrame) -> NDArray[np.float64]:
    """The calls of all targets together of each group."""
    return np.asarray(loads.filter(like="calls of ").sum(axis=1), dtype=float)
