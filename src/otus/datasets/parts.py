"""What a fold tests where it tests everything of one site, recorder, date or daypart."""

import pandas as pd

from otus.annotations.text import excerpt, listed
from otus.config import SplitSettings
from otus.errors import DataError

#: Start hours of the daypart `day`; the others are `night`.
_DAY_HOURS = range(6, 18)

#: What a recording lacks that has no value, and where it is to be named.
_MISSING = {
    "site": ("site", "name it in corpus.names with (?P<site>...), or in the column site of the recordings sheet"),
    "recorder": ("recorder", "name it in corpus.names with (?P<recorder>...)"),
    "date": ("start time", "have it read by corpus.names with (?P<time>...)"),
    "daypart": ("start time", "have it read by corpus.names with (?P<time>...)"),
}


def value_of_groups(recordings: pd.DataFrame, settings: SplitSettings) -> dict[str, str]:
    """Return the one value of `settings.by` (the name of a site, 2021-01-17, night) that each group has.

    `recordings` are those to be split. Date and hour are those of the start, by the clock of the recorder. Raises
    DataError if a recording has no value, a group has two, or there are not `settings.folds` values.
    """
    by = settings.by
    values = _values(recordings, by)
    missing = values.isna()
    if missing.any():
        what, remedy = _MISSING[by]
        raise DataError(
            f"prepare: {missing.sum()} of {len(values)} labelled recordings have no {what}, the first is "
            f"{recordings.loc[missing, 'path'].iloc[0]}; {remedy}, or drop split.by."
        )
    _check_number(sorted(set(values)), settings)
    named = pd.DataFrame({"group": recordings["group"], "value": values, "path": recordings["path"]})
    firsts = named.sort_values(["group", "value", "path"]).drop_duplicates(["group", "value"])
    for group, rows in firsts[firsts.duplicated("group", keep=False)].groupby("group"):
        where = " and ".join(f"{excerpt(row.value)} ({row.path})" for row in rows.head(2).itertuples())
        raise DataError(
            f"prepare: group '{group}' has recordings of two {by}s, {where}, so it would stand on two sides of a fold; "
            f"change corpus.group so that every group has one {by}, or choose another split.by."
        )
    return dict(zip(firsts["group"].astype(str), firsts["value"].astype(str), strict=True))


def parts_in_words(splits: pd.DataFrame) -> str:
    """Return e.g. 'fold 1 tests bush, fold 2 tests dam'; nothing if every fold tests a share of the groups."""
    named = splits[["fold", "part"]].dropna().drop_duplicates().sort_values("fold")
    return listed(f"fold {fold} tests {part}" for fold, part in zip(named["fold"], named["part"], strict=True))


def _values(recordings: pd.DataFrame, by: str) -> "pd.Series[str]":
    """The value of each recording, missing where it is unknown."""
    column = "start_time" if by in ("date", "daypart") else by
    known = recordings[column].astype("string").replace("", pd.NA)
    if by == "date":
        return known.str[:10]
    if by == "daypart":
        hours = known.str[11:13].astype("Int64")
        return hours.map(lambda hour: "day" if hour in _DAY_HOURS else "night", na_action="ignore")
    return known


def _check_number(values: list[str], settings: SplitSettings) -> None:
    """Raise DataError if the values are too few for a split, or as many as no `split.folds` says."""
    by = settings.by
    if len(values) == 1:
        raise DataError(
            f"config: all labelled recordings have the {by} {excerpt(values[0])}, so split.by: {by} leaves none to "
            "train on; choose another split.by."
        )
    if len(values) != settings.folds:
        raise DataError(
            f"config: split.folds is {settings.folds}, but the labelled recordings have {len(values)} {by}s "
            f"({listed(values)}); set split.folds to {len(values)}, or choose another split.by."
        )
