"""Group-wise splits: no group ever stands on two sides of one fold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from otus.config import SplitSettings
from otus.errors import DataError
from otus.seeds import derive_seed
from otus.tables import table

SPLITS = ("train", "val", "test")


def make_splits(
    recordings: pd.DataFrame, annotations: pd.DataFrame, *, targets: Sequence[str], settings: SplitSettings, seed: int
) -> pd.DataFrame:
    """Return the `splits` table: one row per fold and labelled recording, with train, val or test.

    With `settings.folds`, the groups are dealt into as many parts; fold k tests part k, validates on the next one
    and trains on the rest, so that every group is tested once and validates once. Groups are dealt so that calls of
    each target label, hours and recordings are shared out evenly. Raises DataError if a group stands on both
    sides of a given split, or if a side would hold no target call.
    """
    usable = recordings[recordings["labelled"] & recordings["readable"]].sort_values("recording_id")
    calls = annotations[annotations["label"].isin(list(targets))]
    if usable.empty or calls.empty:
        raise DataError(f"prepare: no labelled recording holds a call of {', '.join(targets)}; nothing to train on.")
    loads = _group_loads(usable, calls, targets)
    given = usable["given_split"].notna() & (usable["given_split"] != "")
    if given.any():
        sides = [_given_sides(usable, given, loads, settings, seed)]
    elif settings.folds:
        sides = _fold_sides(loads, settings, seed)
    else:
        sides = [_drawn_sides(loads, settings, seed)]
    rows = []
    for fold, side in enumerate(sides, start=1):
        split = usable["group"].map(side)
        rows.append(usable[["recording_id", "group"]].assign(fold=fold, split=split))
        _check_calls(fold, split, usable, calls)
    return table("splits", pd.concat(rows, ignore_index=True))


def deal(loads: NDArray[np.float64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return a bin per row of `loads` (items x quantities) so that bin b holds about shares[b] of every quantity.

    Greedy, largest items first: each goes where the sum of squared overfull shares stays smallest; draws are
    broken by `seed`. No bin stays empty if there are items enough: the last ones fill it.
    """
    totals = loads.sum(axis=0)
    parts = loads / np.where(totals > 0, totals, 1.0)
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(parts)), -parts.max(axis=1)))
    filled = np.zeros((len(shares), parts.shape[1]))
    capacity = np.asarray(shares, dtype=float)[:, None]
    bins = np.zeros(len(parts), dtype=np.int64)
    empty = np.ones(len(shares), dtype=bool)
    for dealt, item in enumerate(order):
        before = ((filled / capacity) ** 2).sum(axis=1)
        after = (((filled + parts[item]) / capacity) ** 2).sum(axis=1)
        cost = (after - before) * capacity[:, 0]
        if empty.sum() >= len(order) - dealt:
            cost[~empty] = np.inf
        bins[item] = int(np.argmin(cost))
        empty[bins[item]] = False
        filled[bins[item]] += parts[item]
    return bins


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


def _fold_sides(loads: pd.DataFrame, settings: SplitSettings, seed: int) -> list[dict[str, str]]:
    folds = settings.folds or 3
    if len(loads) < folds:
        raise DataError(
            f"prepare: {len(loads)} groups cannot make {folds} folds with train, val and test groups; "
            "lower split.folds or choose a finer corpus.group."
        )
    part = deal(loads.to_numpy(), [1 / folds] * folds, derive_seed(seed, "folds"))
    return [
        {
            str(group): "test" if p == fold else "val" if p == (fold + 1) % folds else "train"
            for group, p in zip(loads.index, part, strict=True)
        }
        for fold in range(folds)
    ]


def _drawn_sides(loads: pd.DataFrame, settings: SplitSettings, seed: int) -> dict[str, str]:
    if len(loads) < 3:
        raise DataError(
            f"prepare: {len(loads)} groups are too few for train, val and test; choose a finer corpus.group."
        )
    rest = 1 - settings.test_fraction
    shares = [rest * (1 - settings.val_fraction), rest * settings.val_fraction, settings.test_fraction]
    part = deal(loads.to_numpy(), shares, derive_seed(seed, "sides"))
    return {str(group): SPLITS[p] for group, p in zip(loads.index, part, strict=True)}


def _given_sides(
    usable: pd.DataFrame, given: "pd.Series[bool]", loads: pd.DataFrame, settings: SplitSettings, seed: int
) -> dict[str, str]:
    """The sides that the recordings sheet gives; validation groups are drawn from train if it names none."""
    if settings.folds:
        raise DataError("config: the recordings sheet gives a split, so split.folds must go (or the sheet's column).")
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


def _check_calls(fold: int, split: "pd.Series[str]", usable: pd.DataFrame, calls: pd.DataFrame) -> None:
    with_calls = usable["recording_id"].isin(calls["recording_id"])
    for side in SPLITS:
        if not (with_calls & (split == side)).any():
            raise DataError(
                f"prepare: fold {fold} has no target call in its {side} recordings; "
                "label more recordings, lower split.folds or choose a finer corpus.group."
            )
